//! May a file be kept as what it is said to be?
//!
//! The image service asks it of what comes in, unless its operator has switched that off; hosts ask it of all that they
//! are to start, always.
use super::{Format, Found, Source, Violation, inspect};

/// Kinds of VMDK that are one file.
pub const VMDK_TYPES: [&str; 2] = ["streamOptimized", "monolithicSparse"];

/// What is asked of a file.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Bytes of the disk in it at most.
    pub virtual_max: u64,
    /// Refuse what is dangerous, or not what it is said to be. Off, a file is only measured.
    pub match_format: bool,
    /// Names of checks on partition tables that do not matter.
    pub gpt_nonfatal: Vec<String>,
    /// Kinds of VMDK that are taken, of those that are one file.
    pub vmdk_types: Vec<String>,
    /// A disc (ISO 9660) may be called raw.
    pub raw_discs: bool,
}

/// Why a file is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it is said to be {said}, but its content is {found}")]
    Mismatch { said: String, found: &'static str },
    #[error("it is several things at once: {0}")]
    Ambiguous(String),
    #[error("it fails a safety check of {format}: {violation}")]
    Unsafe { format: &'static str, violation: Violation },
    #[error("its disk of {found} bytes is larger than the {max} allowed")]
    TooLarge { found: u64, max: u64 },
    #[error("it could not be read: {0}")]
    Unreadable(String),
}

impl Rules {
    /// What a host asks of a disk of at most so many bytes. Tables of partitions are its guest's business.
    #[must_use]
    pub fn of_hosts(virtual_max: u64) -> Self {
        Rules {
            virtual_max,
            match_format: true,
            gpt_nonfatal: vec!["mbr".to_owned()],
            vmdk_types: VMDK_TYPES.map(str::to_owned).to_vec(),
            raw_discs: false,
        }
    }

    /// The first thing that is wrong with a file as this format.
    fn violation(&self, found: &Found) -> Option<Violation> {
        let matters = |v: &&Violation| found.format != Format::Gpt || !self.gpt_nonfatal.iter().any(|n| n == v.check);
        let kind = found.kind.filter(|kind| !self.vmdk_types.iter().any(|allowed| allowed.eq_ignore_ascii_case(kind)));
        let kind = kind.map(|kind| Violation::new("descriptor", format!("{kind} images are not allowed")));
        found.violations.iter().find(matters).cloned().or(kind)
    }

    fn check(&self, found: &Found) -> Result<(), Refusal> {
        match self.violation(found) {
            Some(violation) => Err(Refusal::Unsafe { format: found.format.name(), violation }),
            None => Ok(()),
        }
    }
}

/// Formats that can name other files.
fn can_reach(format: Format) -> bool {
    use Format as F;
    matches!(format, F::Qcow2 | F::Qed | F::Vmdk | F::Vhd | F::Vhdx | F::Vdi)
}

/// The one thing that a file is. A disc that also starts from a disk is a disc.
fn one(found: &[Found]) -> Result<&Found, Refusal> {
    match found {
        [one] => Ok(one),
        [disc, table] if disc.format == Format::Iso && table.format == Format::Gpt => Ok(disc),
        several => {
            let names: Vec<&str> = several.iter().map(|f| f.format.name()).collect();
            Err(Refusal::Ambiguous(names.join(", ")))
        }
    }
}

impl Rules {
    /// May a content stand under the name of a format?
    fn stands_for(&self, disk_format: &str, content: Format) -> bool {
        match Format::named(disk_format) {
            // A disk may hold anything that names no other file.
            Some(Format::Raw) => !can_reach(content) && (self.raw_discs || content != Format::Iso),
            Some(named) => named == content,
            // Kernels and the like end their first sector as boot sectors do.
            None => matches!(content, Format::Raw | Format::Gpt),
        }
    }
}

/// Gives the size of the disk in a file that may be kept as `disk_format`, where that is known.
///
/// # Errors
/// What is wrong with it.
pub fn judge(
    disk_format: &str,
    container_format: &str,
    source: &dyn Source,
    rules: &Rules,
) -> Result<Option<u64>, Refusal> {
    let unreadable = |error: std::io::Error| Refusal::Unreadable(error.to_string());
    let (size, all) = (source.size().map_err(unreadable)?, inspect(source).map_err(unreadable)?);
    let named = Format::named(disk_format);
    if rules.match_format {
        let found = trusted(disk_format, container_format, &all, rules)?;
        return bounded(measured(named, found, size), size, rules);
    }
    // Nobody vouches for it: what its own header says is taken for its size, and no more than that.
    let found = all.iter().find(|found| Some(found.format) == named).unwrap_or(&all[0]);
    bounded(measured(named, found, size), size, rules)
}

/// The one thing that a file is, if it is what it is said to be, and safe.
fn trusted<'f>(
    disk_format: &str,
    container_format: &str,
    all: &'f [Found],
    rules: &Rules,
) -> Result<&'f Found, Refusal> {
    for dangerous in all.iter().filter(|f| can_reach(f.format)) {
        rules.check(dangerous)?;
    }
    let (named, found) = (Format::named(disk_format), one(all)?);
    // Other containers hold a disk somewhere inside; a kernel is a kernel in each.
    let looks = container_format == "bare" || (named.is_none() && can_reach(found.format));
    if looks && !rules.stands_for(disk_format, found.format) {
        return Err(Refusal::Mismatch { said: disk_format.to_owned(), found: found.format.name() });
    }
    if looks && named.is_some() {
        rules.check(found)?;
    }
    Ok(found)
}

/// Bytes of the disk in a file of `size` bytes.
fn measured(named: Option<Format>, found: &Found, size: u64) -> Option<u64> {
    match named {
        Some(Format::Raw) => Some(size),
        Some(named) if named == found.format => found.virtual_size,
        _ => None,
    }
}

fn bounded(disk: Option<u64>, size: u64, rules: &Rules) -> Result<Option<u64>, Refusal> {
    let largest = disk.unwrap_or(0).max(size);
    if largest > rules.virtual_max {
        return Err(Refusal::TooLarge { found: largest, max: rules.virtual_max });
    }
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::super::{gpt, iso, luks, qcow2, vdi, vhd, vhdx, vmdk};
    use super::*;
    use proptest::prelude::*;

    fn strict() -> Rules {
        Rules {
            virtual_max: 1 << 44,
            match_format: true,
            gpt_nonfatal: Vec::new(),
            vmdk_types: VMDK_TYPES.map(str::to_owned).to_vec(),
            raw_discs: true,
        }
    }

    fn lax() -> Rules {
        Rules { match_format: false, ..strict() }
    }

    fn ask(format: &str, file: &[u8], rules: &Rules) -> Result<Option<u64>, Refusal> {
        judge(format, "bare", &file, rules)
    }

    #[test]
    fn each_format_is_taken_under_its_own_name_and_under_no_other() {
        let files = [
            ("qcow2", qcow2::tests::image(5 << 30), 5 << 30),
            ("vmdk", vmdk::tests::sparse("monolithicSparse", "RW 16384 SPARSE \"d\""), 8 << 20),
            ("vhd", vhd::tests::image(3 << 20, 3), 3 << 20),
            ("vhdx", vhdx::tests::image(5 << 30, false), 5 << 30),
            ("vdi", vdi::tests::image(7 << 20, 1), 7 << 20),
            ("iso", iso::tests::image(100), 204_800),
            ("gpt", gpt::tests::protective(), 4096),
            ("luks", luks::tests::image(1), 4096),
            ("raw", vec![0x5a; 4096], 4096),
        ];
        for (name, file, disk) in &files {
            for said in ["qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "gpt", "luks", "raw", "aki", "ploop"] {
                let plain = matches!(*name, "raw" | "gpt");
                let good = said == *name
                    || (said == "raw" && matches!(*name, "iso" | "gpt" | "luks"))
                    || (matches!(said, "aki" | "ploop") && plain);
                let answer = ask(said, file, &strict());
                assert_eq!(answer.is_ok(), good, "{name} as {said}: {answer:?}");
                if said == *name {
                    assert_eq!(answer, Ok(Some(*disk)), "{name}");
                }
                assert!(ask(said, file, &lax()).is_ok(), "{name} as {said}, switched off");
            }
        }
    }

    #[test]
    fn what_reaches_outside_is_refused_whatever_it_is_said_to_be() {
        let mut backed = qcow2::tests::image(1 << 30);
        backed[15] = 200;
        let flat = vmdk::tests::sparse("monolithicFlat", "RW 1 FLAT \"/etc/passwd\" 0");
        for file in [
            backed,
            flat,
            vhd::tests::image(1, 4),
            vhdx::tests::image(1, true),
            vdi::tests::image(1, 4),
            b"QED\0".to_vec(),
        ] {
            for said in ["raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "aki", "iso"] {
                for container in ["bare", "ovf", "aki", "compressed"] {
                    for rules in [strict(), Rules::of_hosts(1 << 44)] {
                        let answer = judge(said, container, &file.as_slice(), &rules);
                        assert!(matches!(answer, Err(Refusal::Unsafe { .. })), "{said} in {container}: {answer:?}");
                    }
                    let measured = judge(said, container, &file.as_slice(), &lax());
                    assert!(measured.is_ok(), "an operator who asks for it keeps anything: {measured:?}");
                }
            }
        }
    }

    #[test]
    fn a_file_that_is_two_things_is_refused_but_a_disc_that_starts_from_a_disk() {
        let mut hybrid = iso::tests::image(100);
        hybrid[..512].copy_from_slice(&gpt::tests::protective()[..512]);
        assert_eq!(ask("iso", &hybrid, &strict()), Ok(Some(204_800)));
        assert!(ask("raw", &hybrid, &strict()).is_ok());
        assert!(ask("gpt", &hybrid, &strict()).is_err());
        let host = Rules::of_hosts(1 << 44);
        assert_eq!(ask("iso", &hybrid, &host), Ok(Some(204_800)));
        assert!(matches!(ask("raw", &hybrid, &host), Err(Refusal::Mismatch { found: "iso", .. })));
        let mut polyglot = iso::tests::image(100);
        polyglot[..4096].copy_from_slice(&vhd::tests::image(1 << 20, 3));
        for said in ["iso", "vhd", "raw"] {
            assert!(matches!(ask(said, &polyglot, &strict()), Err(Refusal::Ambiguous(_))), "{said}");
        }
    }

    #[test]
    fn settings_matter() {
        let mut table = gpt::tests::protective();
        table[446] = 7;
        for said in ["gpt", "raw"] {
            assert!(matches!(ask(said, &table, &strict()), Err(Refusal::Unsafe { format: "gpt", .. })), "{said}");
            assert!(ask(said, &table, &Rules { gpt_nonfatal: vec!["mbr".into()], ..strict() }).is_ok());
        }
        let sparse = vmdk::tests::sparse("monolithicSparse", "RW 16384 SPARSE \"d\"");
        assert!(ask("vmdk", &sparse, &Rules { vmdk_types: vec!["streamOptimized".into()], ..strict() }).is_err());
        let small = Rules { virtual_max: 1 << 20, ..strict() };
        assert!(matches!(ask("qcow2", &qcow2::tests::image(5 << 30), &small), Err(Refusal::TooLarge { .. })));
        assert!(matches!(ask("raw", &vec![1; 2 << 20], &small), Err(Refusal::TooLarge { .. })));
        assert!(judge("raw", "docker", &[0x5au8; 4096].as_slice(), &strict()).is_ok());
    }

    proptest! {
        #[test]
        fn nothing_structured_passes_as_raw(head in proptest::collection::vec(any::<u8>(), 512..1024), mark in 0usize..6) {
            let marks: [&[u8]; 6] = [b"QFI\xfb", b"KDMV", b"QED\0", b"vhdxfile", b"conectix", b"COWD"];
            let mut marked = marks[mark].to_vec();
            marked.extend(&head);
            prop_assert!(ask("raw", &marked, &strict()).is_err());
            let _ = (ask("qcow2", &head, &strict()), ask("vmdk", &head, &lax()));
        }
    }
}
