//! The firmware configuration device of QEMU: numbered items to read, some of them files that a directory names.
//!
//! ```text
//!   port 0x510  select an item          0x511  its next byte; zeroes follow its end
//!   port 0x514, 0x518  address of a request in guest memory, big-endian, the lower half starts it:
//!     control (32 bits: 1 failed, 2 read, 4 skip, 8 select the upper half, 16 write), length (32), address (64)
//! ```
//! Everything is read-only: a request to write fails. A request is bounded, and done when the port write is.

use crate::memory::Memory;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vm_memory::{Bytes, GuestAddress};

const SELECT: u16 = 0x510;
const DATA: u16 = 0x511;
const ADDRESS: u16 = 0x514;
const ADDRESS_LOW: u16 = 0x518;
const LAST: u16 = 0x51b;
/// What is read at the address's ports.
const HERE: [u8; 8] = *b"QEMU CFG";

const ITEM_SIGNATURE: u16 = 0;
const ITEM_FEATURES: u16 = 1;
const ITEM_DIRECTORY: u16 = 0x19;
const ITEM_FIRST_FILE: u16 = 0x20;
/// Traditional ports, and requests in memory.
const FEATURES: u32 = 1 | 2;
/// Bytes for a file's name, a zero at the end among them.
const NAME_BYTES: usize = 56;

const FAILED: u32 = 1;
const READ: u32 = 2;
const SKIP: u32 = 4;
const CHOOSE: u32 = 8;
const WRITE: u32 = 16;
/// Most bytes of a request; no item here comes near it.
const REQUEST_MAX: u32 = 1 << 20;

/// What is in it.
#[derive(Debug, Default, Clone)]
pub struct Items {
    /// By number.
    pub numbered: BTreeMap<u16, Vec<u8>>,
    /// By name.
    pub files: BTreeMap<&'static str, Vec<u8>>,
}

impl Items {
    /// All by number: files get theirs in the order of their names.
    fn lay_out(self) -> BTreeMap<u16, Vec<u8>> {
        let mut items = self.numbered;
        let mut directory = (self.files.len() as u32).to_be_bytes().to_vec();
        for (number, (name, bytes)) in (ITEM_FIRST_FILE..).zip(self.files) {
            directory.extend((bytes.len() as u32).to_be_bytes());
            directory.extend(number.to_be_bytes());
            directory.extend([0; 2]);
            directory.extend(padded::<NAME_BYTES>(name));
            items.insert(number, bytes);
        }
        items.insert(ITEM_DIRECTORY, directory);
        items.insert(ITEM_SIGNATURE, b"QEMU".to_vec());
        items.insert(ITEM_FEATURES, FEATURES.to_le_bytes().to_vec());
        items
    }
}

/// A name with zeroes behind it, one at the least.
pub fn padded<const BYTES: usize>(name: &str) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    for (to, from) in out[..BYTES - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    out
}

/// The registers in a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwCfgState {
    selected: u16,
    offset: u32,
    address_high: u32,
}

/// The device.
pub struct FwCfg {
    memory: Memory,
    items: BTreeMap<u16, Vec<u8>>,
    registers: FwCfgState,
}

/// Whether a port is one of its own.
pub fn has(port: u16) -> bool {
    matches!(port, SELECT | DATA | ADDRESS..=LAST)
}

impl FwCfg {
    /// After power-on.
    pub fn new(memory: Memory, items: Items) -> FwCfg {
        FwCfg { memory, items: items.lay_out(), registers: FwCfgState::default() }
    }

    /// Writes the registers down.
    pub fn save(&self) -> FwCfgState {
        self.registers.clone()
    }

    /// Takes them up.
    pub fn restore(&mut self, state: &FwCfgState) {
        self.registers.clone_from(state);
    }

    fn select(&mut self, item: u16) {
        (self.registers.selected, self.registers.offset) = (item, 0);
    }

    /// The next bytes of the selected item.
    fn take(&mut self, data: &mut [u8]) {
        let item = self.items.get(&self.registers.selected).map_or(&[][..], Vec::as_slice);
        let rest = item.get(self.registers.offset as usize..).unwrap_or(&[]);
        let count = rest.len().min(data.len());
        data[..count].copy_from_slice(&rest[..count]);
        data[count..].fill(0);
        self.registers.offset = self.registers.offset.saturating_add(data.len() as u32);
    }

    /// Port read.
    pub fn read(&mut self, port: u16, data: &mut [u8]) {
        match port {
            DATA => self.take(data),
            ADDRESS..=LAST => {
                let here = HERE.iter().skip(usize::from(port - ADDRESS));
                data.iter_mut().zip(here).for_each(|(to, from)| *to = *from);
            }
            _ => data.fill(0),
        }
    }

    /// Port write. What has another width than its register is nothing.
    pub fn write(&mut self, port: u16, data: &[u8]) {
        match (port, data) {
            (SELECT, [low, high]) => self.select(u16::from_le_bytes([*low, *high])),
            (ADDRESS, [a, b, c, d]) => self.registers.address_high = u32::from_be_bytes([*a, *b, *c, *d]),
            (ADDRESS_LOW, [a, b, c, d]) => {
                let low = u32::from_be_bytes([*a, *b, *c, *d]);
                let high = std::mem::take(&mut self.registers.address_high);
                self.serve(u64::from(high) << 32 | u64::from(low));
            }
            _ => {}
        }
    }

    /// Does what a request in guest memory says, and writes there how that went. Where no memory is, nobody hears of it.
    fn serve(&mut self, at: u64) {
        let mut request = [0; 16];
        let place = GuestAddress(at);
        if self.memory.read_slice(&mut request, place).is_err() {
            return;
        }
        let [c0, c1, c2, c3, l0, l1, l2, l3, address @ ..] = request;
        let control = u32::from_be_bytes([c0, c1, c2, c3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let done = self.request(control, length, u64::from_be_bytes(address));
        let answer: u32 = if done { 0 } else { FAILED };
        let _ = self.memory.write_slice(&answer.to_be_bytes(), place);
    }

    /// False: it cannot be done.
    fn request(&mut self, control: u32, length: u32, address: u64) -> bool {
        if control & CHOOSE != 0 {
            self.select((control >> 16) as u16);
        }
        match control & (READ | WRITE | SKIP) {
            0 => true,
            SKIP => {
                self.registers.offset = self.registers.offset.saturating_add(length);
                true
            }
            READ if length <= REQUEST_MAX => {
                let mut bytes = vec![0; length as usize];
                self.take(&mut bytes);
                self.memory.write_slice(&bytes, GuestAddress(address)).is_ok()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device() -> FwCfg {
        let memory = crate::memory::map(1 << 20, false).unwrap();
        let mut items = Items::default();
        items.numbered.insert(5, vec![2, 0]);
        items.files.insert("etc/b", b"bbbb".to_vec());
        items.files.insert("etc/a", b"a".to_vec());
        FwCfg::new(memory, items)
    }

    fn bytes<const N: usize>(device: &mut FwCfg, item: u16) -> [u8; N] {
        device.write(SELECT, &item.to_le_bytes());
        let mut out = [0xff; N];
        out.chunks_mut(3).for_each(|part| device.read(DATA, part));
        out
    }

    fn request(device: &mut FwCfg, control: u32, length: u32, address: u64) -> u32 {
        let parts = [&control.to_be_bytes()[..], &length.to_be_bytes(), &address.to_be_bytes()].concat();
        device.memory.write_slice(&parts, GuestAddress(0x100)).unwrap();
        device.write(ADDRESS, &[0; 4]);
        device.write(ADDRESS_LOW, &0x100u32.to_be_bytes());
        let mut answer = [0; 4];
        device.memory.read_slice(&mut answer, GuestAddress(0x100)).unwrap();
        u32::from_be_bytes(answer)
    }

    #[test]
    fn items_are_read_by_number_and_files_found_by_name() {
        let mut device = device();
        assert_eq!(bytes::<4>(&mut device, ITEM_SIGNATURE), *b"QEMU");
        assert_eq!(bytes::<4>(&mut device, ITEM_FEATURES), [3, 0, 0, 0]);
        assert_eq!(bytes::<4>(&mut device, 5), [2, 0, 0, 0]);
        assert_eq!(bytes::<4>(&mut device, 0x7777), [0; 4]);
        let directory = bytes::<132>(&mut device, ITEM_DIRECTORY);
        assert_eq!((&directory[..13], directory[17]), (&b"\0\0\0\x02\0\0\0\x01\0\x20\0\0e"[..], 0));
        assert_eq!((&directory[68..76], &directory[76..82]), (&b"\0\0\0\x04\0\x21\0\0"[..], &b"etc/b\0"[..]));
        assert_eq!(bytes::<6>(&mut device, 0x21), *b"bbbb\0\0");
        let mut here = [0; 4];
        device.read(ADDRESS, &mut here);
        assert_eq!(here, *b"QEMU");
    }

    #[test]
    fn requests_in_memory_read_and_skip_and_never_write() {
        let mut device = device();
        let at = |device: &FwCfg| device.memory.read_obj::<u32>(GuestAddress(0x2000)).unwrap().to_le_bytes();
        assert_eq!(request(&mut device, 0x21 << 16 | CHOOSE | SKIP, 3, 0), 0);
        assert_eq!(request(&mut device, READ, 4, 0x2000), 0);
        assert_eq!(at(&device), *b"b\0\0\0");
        assert_eq!(request(&mut device, 0x21 << 16 | CHOOSE | WRITE, 4, 0x2000), FAILED);
        assert_eq!(request(&mut device, READ | WRITE, 4, 0x2000), FAILED);
        assert_eq!(request(&mut device, READ, 4, 1 << 40), FAILED);
        assert_eq!(request(&mut device, READ, u32::MAX, 0), FAILED);
        assert_eq!(request(&mut device, SKIP, u32::MAX, 0), 0);
        assert_eq!(request(&mut device, SKIP, u32::MAX, 0), 0);
        assert_eq!(request(&mut device, READ, 4, 0x2000), 0);
        assert_eq!(at(&device), [0; 4]);
        let saved = device.save();
        device.restore(&saved);
        assert_eq!((device.registers.selected, device.registers.offset), (0x21, u32::MAX));
    }

    proptest! {
        #[test]
        fn nothing_a_guest_writes_panics(
            writes in proptest::collection::vec((SELECT..=LAST, proptest::collection::vec(any::<u8>(), 0..6)), 0..64),
            control in any::<u32>(), length in any::<u32>(), address in any::<u64>(),
        ) {
            let mut device = device();
            for (port, data) in writes {
                device.write(port, &data);
                device.read(port, &mut [0; 8]);
            }
            request(&mut device, control, length, address);
        }
    }
}
