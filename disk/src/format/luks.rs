//! LUKS: an encrypted disk. Version 1 only, as elsewhere: version 2 keeps its parameters in a document
//! that can ask a host for any amount of memory and time.
use super::{Violation, field};

pub const MARK: &[u8] = b"LUKS\xba\xbe";

/// Bytes behind the header.
pub fn inspect(head: &[u8], size: u64) -> Result<u64, Violation> {
    let cut = || Violation::new("version", "the LUKS header is cut off");
    let version = u16::from_be_bytes(field(head, 6).ok_or_else(cut)?);
    if version != 1 {
        return Err(Violation::new("version", format!("LUKS version {version} is not supported")));
    }
    if head.len() < 592 {
        return Err(cut());
    }
    let payload = u64::from(u32::from_be_bytes(field(head, 104).ok_or_else(cut)?)) * 512;
    size.checked_sub(payload).ok_or_else(|| Violation::new("version", "the LUKS payload lies beyond the end"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn image(version: u16) -> Vec<u8> {
        let mut file = vec![0; 8192];
        file[..6].copy_from_slice(MARK);
        file[6..8].copy_from_slice(&version.to_be_bytes());
        file[104..108].copy_from_slice(&8u32.to_be_bytes());
        file
    }

    #[test]
    fn only_version_1_is_taken() {
        assert_eq!(inspect(&image(1), 8192), Ok(4096));
        assert!(inspect(&image(2), 8192).is_err());
        assert!(inspect(&image(1), 100).is_err());
        assert!(inspect(MARK, 6).is_err());
    }
}
