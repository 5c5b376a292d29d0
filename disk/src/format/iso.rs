//! ISO 9660 and UDF discs: known by their first volume descriptor, behind 32 KiB that belong to whoever
//! boots the disc. Nothing in them names another file.
use super::field;

const DESCRIPTOR: usize = 32 * 1024;
const MARKS: [&[u8]; 3] = [b"CD001", b"NSR02", b"NSR03"];
const PRIMARY: u8 = 1;

pub fn matches(head: &[u8]) -> bool {
    head.len() >= DESCRIPTOR + 2048
        && head.get(DESCRIPTOR + 1..DESCRIPTOR + 6).is_some_and(|mark| MARKS.contains(&mark))
}

/// Blocks of the volume times their size; numbers are kept in both byte orders, the little end first.
pub fn virtual_size(head: &[u8]) -> Option<u64> {
    if *head.get(DESCRIPTOR)? != PRIMARY {
        return None;
    }
    let blocks = u32::from_le_bytes(field(head, DESCRIPTOR + 80)?);
    let block = u16::from_le_bytes(field(head, DESCRIPTOR + 128)?);
    Some(u64::from(blocks) * u64::from(block)).filter(|size| *size > 0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn image(blocks: u32) -> Vec<u8> {
        let mut file = vec![0; DESCRIPTOR + 2048 * 4];
        file[DESCRIPTOR] = PRIMARY;
        file[DESCRIPTOR + 1..DESCRIPTOR + 6].copy_from_slice(b"CD001");
        file[DESCRIPTOR + 80..DESCRIPTOR + 84].copy_from_slice(&blocks.to_le_bytes());
        file[DESCRIPTOR + 128..DESCRIPTOR + 130].copy_from_slice(&2048u16.to_le_bytes());
        file
    }

    #[test]
    fn the_volume_tells_its_size() {
        let file = image(100);
        assert!(matches(&file));
        assert_eq!(virtual_size(&file), Some(204_800));
        assert!(!matches(&file[..DESCRIPTOR + 10]));
        let mut other = file;
        other[DESCRIPTOR] = 0;
        assert_eq!(virtual_size(&other), None);
    }
}
