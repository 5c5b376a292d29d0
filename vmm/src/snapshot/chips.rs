//! What KVM keeps for the machine as a whole: PICs, IOAPIC, timer, and the clock that guests read without an exit.

use super::SnapshotError;
use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip, kvm_pit_state2,
};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};

const IRQCHIPS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// State of the chips.
#[derive(Clone, Serialize, Deserialize)]
pub struct Chips {
    interrupt: Vec<kvm_irqchip>,
    timer: kvm_pit_state2,
    /// Nanoseconds of the guest's clock.
    clock_ns: u64,
}

impl std::fmt::Debug for Chips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chips").field("clock_ns", &self.clock_ns).finish_non_exhaustive()
    }
}

impl Chips {
    /// Reads them. All processors stand still.
    pub fn save(vm: &VmFd) -> Result<Chips, SnapshotError> {
        let mut interrupt = Vec::new();
        for chip_id in IRQCHIPS {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            vm.get_irqchip(&mut chip).map_err(SnapshotError::kvm("read an interrupt chip"))?;
            interrupt.push(chip);
        }
        let timer = vm.get_pit2().map_err(SnapshotError::kvm("read the timer"))?;
        let clock = vm.get_clock().map_err(SnapshotError::kvm("read the clock"))?;
        Ok(Chips { interrupt, timer, clock_ns: clock.clock })
    }

    /// Sets them, after the processors. The clock goes on where it stood: time in a file is no time for the guest.
    pub fn restore(&self, vm: &VmFd) -> Result<(), SnapshotError> {
        if self.interrupt.iter().map(|chip| chip.chip_id).ne(IRQCHIPS) {
            return Err(SnapshotError::Malformed("not the three interrupt chips of this machine".into()));
        }
        vm.set_pit2(&self.timer).map_err(SnapshotError::kvm("set the timer"))?;
        let clock = kvm_clock_data { clock: self.clock_ns, ..Default::default() };
        vm.set_clock(&clock).map_err(SnapshotError::kvm("set the clock"))?;
        for chip in &self.interrupt {
            vm.set_irqchip(chip).map_err(SnapshotError::kvm("set an interrupt chip"))?;
        }
        Ok(())
    }
}
