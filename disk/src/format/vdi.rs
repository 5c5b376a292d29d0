//! VirtualBox disks: one header, little-endian. Differencing and undo images name a parent: refused.
use super::{Violation, field};

pub const MARK: &[u8] = b"\x7f\x10\xda\xbe";
pub const MARK_AT: usize = 0x40;
const KIND_AT: usize = 0x4c;
const SIZE_AT: usize = 0x170;

/// Bytes of the disk.
pub fn inspect(head: &[u8]) -> Result<u64, Violation> {
    let cut = || Violation::new("header", "the VDI header is cut off");
    if head.len() < 512 {
        return Err(cut());
    }
    match u32::from_le_bytes(field(head, KIND_AT).ok_or_else(cut)?) {
        // Dynamic and static.
        1 | 2 => Ok(u64::from_le_bytes(field(head, SIZE_AT).ok_or_else(cut)?)),
        kind => Err(Violation::new("backing_file", format!("VDI images of kind {kind} are built on another file"))),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn image(size: u64, kind: u32) -> Vec<u8> {
        let mut file = vec![0; 4096];
        file[MARK_AT..MARK_AT + 4].copy_from_slice(MARK);
        file[KIND_AT..KIND_AT + 4].copy_from_slice(&kind.to_le_bytes());
        file[SIZE_AT..SIZE_AT + 8].copy_from_slice(&size.to_le_bytes());
        file
    }

    #[test]
    fn images_on_a_parent_are_refused() {
        assert_eq!(inspect(&image(1 << 30, 1)), Ok(1 << 30));
        assert_eq!(inspect(&image(1 << 30, 2)), Ok(1 << 30));
        assert!(inspect(&image(1 << 30, 4)).is_err());
        assert!(inspect(&image(1, 1)[..100]).is_err());
    }
}
