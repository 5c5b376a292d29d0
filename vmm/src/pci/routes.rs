//! KVM's table of interrupt routes: which number (GSI) leads where. It is always set as a whole, so it is kept here.
//!
//! ```text
//!   0 .. 23   pins of the interrupt chips, as KVM has them by itself       24 ..   messages (MSI) that guests have chosen
//! ```
//! A number is had for as long as an event may lead there; its message changes as the guest writes its tables.

use super::msix::Message;
use crate::gate::lock;
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KvmIrqRouting, kvm_irq_routing_entry,
};
use kvm_ioctls::VmFd;
use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

/// Pins of the IOAPIC; the first 16 are pins of the two PICs as well.
const PINS: u32 = 24;
const PIC_PINS: u32 = 8;
/// Numbers that every KVM has.
const NUMBERS_MAX: u32 = 4096;

/// The messages of one machine.
#[derive(Debug, Default)]
pub struct Routes {
    /// By number; without a message the number is had and leads nowhere.
    messages: Mutex<BTreeMap<u32, Option<Message>>>,
}

impl Routes {
    /// A number that nobody has.
    pub fn take(&self) -> Option<u32> {
        let mut messages = lock(&self.messages);
        let number = (PINS..NUMBERS_MAX).find(|number| !messages.contains_key(number))?;
        messages.insert(number, None);
        Some(number)
    }

    /// The number is not needed any more; nothing leads to it.
    pub fn give_back(&self, number: u32) {
        lock(&self.messages).remove(&number);
    }

    /// Has this number lead to that message. After an error it leads nowhere.
    pub fn lead(&self, vm: &VmFd, number: u32, message: Message) -> io::Result<()> {
        let mut messages = lock(&self.messages);
        let Some(slot) = messages.get_mut(&number) else { return Err(io::ErrorKind::NotFound.into()) };
        *slot = Some(message);
        let set = |messages: &BTreeMap<u32, Option<Message>>| -> io::Result<()> {
            let table = KvmIrqRouting::from_entries(&entries(messages)).map_err(|_| io::ErrorKind::OutOfMemory)?;
            vm.set_gsi_routing(&table).map_err(|e| io::Error::from_raw_os_error(e.errno()))
        };
        set(&messages).inspect_err(|_| {
            // One message that KVM does not take must not be in the way of all others.
            messages.insert(number, None);
        })
    }

    /// The number leads nowhere from the next change on: nobody raises it meanwhile.
    pub fn forget(&self, number: u32) {
        if let Some(slot) = lock(&self.messages).get_mut(&number) {
            *slot = None;
        }
    }
}

fn entries(messages: &BTreeMap<u32, Option<Message>>) -> Vec<kvm_irq_routing_entry> {
    let pin = |gsi: u32, chip: u32, pin: u32| {
        let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
        (entry.u.irqchip.irqchip, entry.u.irqchip.pin) = (chip, pin);
        entry
    };
    let mut all = Vec::new();
    for number in 0..PINS {
        match number / PIC_PINS {
            0 => all.push(pin(number, KVM_IRQCHIP_PIC_MASTER, number)),
            1 => all.push(pin(number, KVM_IRQCHIP_PIC_SLAVE, number % PIC_PINS)),
            _ => {}
        }
        all.push(pin(number, KVM_IRQCHIP_IOAPIC, number));
    }
    for (gsi, message) in messages.iter().filter_map(|(gsi, message)| message.map(|message| (*gsi, message))) {
        let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
        entry.u.msi.address_lo = message.address as u32;
        entry.u.msi.address_hi = (message.address >> 32) as u32;
        entry.u.msi.data = message.data;
        all.push(entry);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_had_once_and_chips_keep_their_pins() {
        let routes = Routes::default();
        assert_eq!([routes.take(), routes.take()], [Some(24), Some(25)]);
        routes.give_back(24);
        assert_eq!(routes.take(), Some(24));
        let mut messages = BTreeMap::from([(24, None), (25, Some(Message { address: 0xfee0_1000, data: 0x31 }))]);
        let all = entries(&messages);
        assert_eq!(all.len(), 16 * 2 + 8 + 1);
        assert_eq!((all[40].gsi, all[40].type_), (25, KVM_IRQ_ROUTING_MSI));
        messages.clear();
        assert_eq!(entries(&messages).len(), 40);
        while routes.take().is_some() {}
        assert_eq!(lock(&routes.messages).len(), (NUMBERS_MAX - PINS) as usize);
    }
}
