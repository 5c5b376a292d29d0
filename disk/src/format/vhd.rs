//! VHD (Virtual PC) disks: a footer that dynamic images repeat at their beginning, big-endian.
//! Differencing images name a parent: refused.
use super::{Violation, field};

pub const MARK: &[u8] = b"conectix";
const SIZE_AT: usize = 40;
const KIND_AT: usize = 60;
const DIFFERENCING: u32 = 4;

/// Bytes of the disk.
pub fn inspect(head: &[u8]) -> Result<u64, Violation> {
    let cut = || Violation::new("header", "the VHD header is cut off");
    if head.len() < 512 {
        return Err(cut());
    }
    if u32::from_be_bytes(field(head, KIND_AT).ok_or_else(cut)?) == DIFFERENCING {
        return Err(Violation::new("backing_file", "it is a difference to another VHD file"));
    }
    Ok(u64::from_be_bytes(field(head, SIZE_AT).ok_or_else(cut)?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn image(size: u64, kind: u32) -> Vec<u8> {
        let mut file = vec![0; 4096];
        file[..8].copy_from_slice(MARK);
        file[SIZE_AT..SIZE_AT + 8].copy_from_slice(&size.to_be_bytes());
        file[KIND_AT..KIND_AT + 4].copy_from_slice(&kind.to_be_bytes());
        file
    }

    #[test]
    fn differences_are_refused() {
        assert_eq!(inspect(&image(1 << 30, 3)), Ok(1 << 30));
        assert!(inspect(&image(1 << 30, DIFFERENCING)).is_err());
        assert!(inspect(MARK).is_err());
    }
}
