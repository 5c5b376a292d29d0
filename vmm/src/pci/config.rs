//! A function's configuration space: 256 bytes, and which bits of them the guest can write.

/// Bytes of a configuration space.
pub const BYTES: usize = 256;
/// First capability.
const CAPABILITIES: usize = 0x40;
const STATUS_CAPABILITIES: u8 = 1 << 4;
/// Memory decoding and bus mastering can be turned on and off, and INTx off.
const COMMAND_WRITABLE: [u8; 2] = [0x06, 0x04];

/// The space.
#[derive(Debug, Clone)]
pub struct Space {
    bytes: [u8; BYTES],
    writable: [u8; BYTES],
    /// Where the next capability goes.
    next: usize,
    /// Where the offset of the next capability is noted.
    link: usize,
}

impl Default for Space {
    fn default() -> Space {
        let mut space = Space { bytes: [0; BYTES], writable: [0; BYTES], next: CAPABILITIES, link: 0x34 };
        space.writable[4..6].copy_from_slice(&COMMAND_WRITABLE);
        // The interrupt line is a note of the guest to itself.
        space.writable[0x3c] = 0xff;
        space
    }
}

impl Space {
    /// Who it is.
    pub fn identify(&mut self, vendor: u16, device: u16, class: u32, subsystem: u16) {
        self.bytes[..2].copy_from_slice(&vendor.to_le_bytes());
        self.bytes[2..4].copy_from_slice(&device.to_le_bytes());
        // The class shares its word with a revision of 1.
        self.bytes[8..12].copy_from_slice(&(class << 8 | 1).to_le_bytes());
        self.subsystem(vendor, subsystem);
    }

    /// On whose board it is.
    pub fn subsystem(&mut self, vendor: u16, subsystem: u16) {
        self.bytes[0x2c..0x2e].copy_from_slice(&vendor.to_le_bytes());
        self.bytes[0x2e..0x30].copy_from_slice(&subsystem.to_le_bytes());
    }

    /// Memory of a size (a power of two) at BAR 0.
    pub fn memory_bar(&mut self, address: u32, size: u32) {
        self.bytes[0x10..0x14].copy_from_slice(&address.to_le_bytes());
        self.writable[0x10..0x14].copy_from_slice(&(!(size - 1)).to_le_bytes());
    }

    /// Adds a capability: its number, then `body` (after the link byte). Returns its offset; no room: none is added.
    pub fn capability(&mut self, number: u8, body: &[u8]) -> Option<usize> {
        let (at, end) = (self.next, self.next + 2 + body.len());
        if end > BYTES {
            return None;
        }
        self.bytes[6] |= STATUS_CAPABILITIES;
        self.bytes[self.link] = at as u8;
        self.bytes[at] = number;
        self.bytes[at + 2..end].copy_from_slice(body);
        (self.link, self.next) = (at + 1, end.next_multiple_of(4));
        Some(at)
    }

    /// Lets the guest write some bits.
    pub fn allow(&mut self, offset: usize, bits: u8) {
        self.writable[offset] |= bits;
    }

    /// Reads; beyond the end are zeroes.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (n, byte) in data.iter_mut().enumerate() {
            *byte = self.bytes.get(usize::from(offset) + n).copied().unwrap_or(0);
        }
    }

    /// Writes what can be written.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (n, value) in data.iter().enumerate() {
            let at = usize::from(offset) + n;
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = (*byte & !mask) | (value & mask);
            }
        }
    }

    /// Where the memory is, while the guest has it decoded.
    pub fn memory(&self) -> Option<u64> {
        let bar = u32::from_le_bytes([self.bytes[0x10], self.bytes[0x11], self.bytes[0x12], self.bytes[0x13]]);
        (self.bytes[4] & 2 != 0).then_some(u64::from(bar & !0xf))
    }

    /// A byte.
    pub fn byte(&self, offset: usize) -> u8 {
        self.bytes[offset]
    }

    /// What the guest has written, for a snapshot.
    pub fn written(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// Takes it up: only what the guest could have written.
    pub fn restore(&mut self, bytes: &[u8]) {
        self.write(0, &bytes[..bytes.len().min(BYTES)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bar_tells_its_size_and_capabilities_are_linked() {
        let mut space = Space::default();
        space.identify(0x1af4, 0x1042, 0x01_0000, 2);
        space.memory_bar(0xd100_0000, 0x8000);
        let first = space.capability(9, &[1, 2, 3]).unwrap();
        let second = space.capability(0x11, &[0; 10]).unwrap();
        assert_eq!((space.byte(0x34), space.byte(first + 1), space.byte(second + 1)), (0x40, second as u8, 0));
        assert_eq!(space.memory(), None);
        space.write(4, &[0xff, 0xff]);
        assert_eq!(space.memory(), Some(0xd100_0000));
        space.write(0x10, &[0xff; 4]);
        let mut size = [0; 4];
        space.read(0x10, &mut size);
        assert_eq!(u32::from_le_bytes(size), 0xffff_8000);
        assert!(space.capability(9, &[0; 200]).is_none());
    }

    proptest! {
        #[test]
        fn who_it_is_cannot_be_written(writes in proptest::collection::vec((any::<u16>(), any::<[u8; 4]>()), 0..50)) {
            let mut space = Space::default();
            space.identify(1, 2, 3, 4);
            let before = space.written();
            writes.iter().for_each(|(offset, data)| space.write(*offset, data));
            prop_assert_eq!(&space.written()[..4], &before[..4]);
            prop_assert_eq!(&space.written()[6..16], &before[6..16]);
        }
    }
}
