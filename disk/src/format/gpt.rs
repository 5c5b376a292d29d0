//! Partition tables: the boot sector of an MBR, which is also the protective one of a GPT.
//!
//! A boot sector is loosely defined, and a crafted one boots on one machine and not on another. So what it
//! says of partitions must make sense; a setting lets an operator take what does not (`mbr`).
use super::Violation;

const SIGNATURE_AT: usize = 510;
const ENTRIES: usize = 446;
const PROTECTIVE: u8 = 0xee;

/// A boot sector that is not that of a FAT file system, which ends in the same mark.
pub fn matches(head: &[u8]) -> bool {
    let fat = head.get(0x10) == Some(&2) && head.get(0x15) == Some(&0xf8);
    head.get(SIGNATURE_AT..SIGNATURE_AT + 2) == Some(&[0x55, 0xaa]) && !fat
}

pub fn check(head: &[u8]) -> Result<(), Violation> {
    let bad = |why: String| Err(Violation::new("mbr", why));
    let (mut used, mut protective) = (Vec::new(), false);
    for number in 0..4 {
        let at = ENTRIES + 16 * number;
        let Some(entry) = head.get(at..at + 16) else { return bad("the boot sector is cut off".into()) };
        if !matches!(entry[0], 0x00 | 0x80) {
            return bad(format!("partition {number} has an invalid boot flag"));
        }
        if entry[4] != 0 {
            used.push(number);
        }
        if entry[4] == PROTECTIVE {
            protective = true;
            if entry[1..4] != [0, 2, 0] {
                return bad("the protective partition has an invalid start (CHS)".into());
            }
            if entry[8..12] != [1, 0, 0, 0] {
                return bad("the protective partition has an invalid start (LBA)".into());
            }
        }
    }
    if protective && used != [0] {
        return bad("a protective partition stands beside others".into());
    }
    if used.is_empty() {
        return bad("the boot sector defines no partition".into());
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn protective() -> Vec<u8> {
        let mut file = vec![0; 4096];
        file[ENTRIES..ENTRIES + 16].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 7, 0, 0, 0]);
        file[SIGNATURE_AT..SIGNATURE_AT + 2].copy_from_slice(&[0x55, 0xaa]);
        file[512..520].copy_from_slice(b"EFI PART");
        file
    }

    #[test]
    fn a_table_must_make_sense() {
        let good = protective();
        assert!(matches(&good) && check(&good).is_ok());
        for (at, byte) in [(446, 1), (446 + 4, 0), (446 + 2, 3), (446 + 8, 2), (446 + 20, 0x83)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(check(&bad).unwrap_err().check, "mbr", "{at}");
        }
        let mut fat = good.clone();
        (fat[0x10], fat[0x15]) = (2, 0xf8);
        assert!(!matches(&fat));
    }

    proptest! {
        #[test]
        fn any_sector_is_checked(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = (matches(&bytes), check(&bytes));
        }
    }
}
