//! What a file is by its content, and whether anybody should have it.
//!
//! Formats are never guessed later on: a host opens an image as what its record says. So what the record
//! says must be true here, and nothing may be hidden behind it. Every format that has a header of its own
//! is looked for in every file: a file that is two things at once is refused, whatever it is said to be.
//!
//! ```text
//! bytes -> inspect: which formats match, the disk's size in each, what is wrong with it
//!       -> judge:   may it be kept as what it is said to be?
//! ```
//!
//! Parsers read a bounded number of bytes at offsets that they check, and follow no name. Which of them
//! refuse what is compared with oslo.utils' `format_inspector` (`tests/formats`); where ours is stricter,
//! the parser says why.
pub mod gpt;
pub mod iso;
pub mod judge;
pub mod luks;
pub mod qcow2;
pub mod sketch;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;

pub use judge::{Refusal, Rules, VMDK_TYPES, judge};
pub use sketch::Sketch;

use std::{fs::File, io, os::unix::fs::FileExt};

/// Formats by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Anything that no parser knows: a plain disk, a kernel, a file system.
    Raw,
    Qcow2,
    Qed,
    Vmdk,
    Vhd,
    Vhdx,
    Vdi,
    Iso,
    /// A partition table of either kind (MBR or GPT).
    Gpt,
    Luks,
}

impl Format {
    /// As `disk_format` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Qed => "qed",
            Format::Vmdk => "vmdk",
            Format::Vhd => "vhd",
            Format::Vhdx => "vhdx",
            Format::Vdi => "vdi",
            Format::Iso => "iso",
            Format::Gpt => "gpt",
            Format::Luks => "luks",
        }
    }

    /// The format that `disk_format` names, of those that can be told by their content.
    pub fn named(name: &str) -> Option<Self> {
        use Format as F;
        [F::Raw, F::Qcow2, F::Qed, F::Vmdk, F::Vhd, F::Vhdx, F::Vdi, F::Iso, F::Gpt, F::Luks]
            .into_iter()
            .find(|format| format.name() == name)
    }
}

/// What makes a file dangerous, or of no use to anyone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {why}")]
pub struct Violation {
    /// A short name that settings use (`mbr` can be set not to matter).
    pub check: &'static str,
    pub why: String,
}

impl Violation {
    pub fn new(check: &'static str, why: impl Into<String>) -> Self {
        Violation { check, why: why.into() }
    }
}

/// One format that a file matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub format: Format,
    /// Bytes of the disk in it.
    pub virtual_size: Option<u64>,
    /// Of a format that has several: which of them, in lower case.
    pub kind: Option<&'static str>,
    pub violations: Vec<Violation>,
}

impl Found {
    fn good(format: Format, virtual_size: Option<u64>) -> Self {
        Found { format, virtual_size, kind: None, violations: Vec::new() }
    }
    fn bad(format: Format, violation: Violation) -> Self {
        Found { format, virtual_size: None, kind: None, violations: vec![violation] }
    }
    /// From what a parser says of a file whose mark it found.
    fn of(format: Format, parsed: Result<u64, Violation>) -> Self {
        match parsed {
            Ok(size) => Found::good(format, Some(size)),
            Err(violation) => Found::bad(format, violation),
        }
    }
}

/// Bytes that can be read anywhere.
pub trait Source {
    fn size(&self) -> io::Result<u64>;
    /// Up to `length` bytes at `offset`; fewer where the file ends.
    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>>;
}

impl Source for &[u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        Ok(self[from..from.saturating_add(length).min(self.len())].to_vec())
    }
}

impl Source for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; length];
        let mut got = 0;
        while got < length {
            match self.read_at(&mut buffer[got..], offset.saturating_add(got as u64))? {
                0 => break,
                n => got += n,
            }
        }
        buffer.truncate(got);
        Ok(buffer)
    }
}

/// Bytes of the beginning that every parser gets.
const HEAD: usize = 64 * 1024;

/// A field of `N` bytes.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn starts(head: &[u8], at: usize, mark: &[u8]) -> bool {
    head.get(at..).is_some_and(|rest| rest.starts_with(mark))
}

/// All formats that a file matches; only [`Format::Raw`] when it matches none.
pub fn inspect(source: &dyn Source) -> io::Result<Vec<Found>> {
    let (size, head) = (source.size()?, source.read(0, HEAD)?);
    let mut found = Vec::new();
    if head.starts_with(qcow2::MAGIC) {
        found.push(Found::of(Format::Qcow2, qcow2::inspect(&head, size)));
    }
    if head.starts_with(b"QED\0") {
        found.push(Found::bad(Format::Qed, Violation::new("banned", "the QED format is not allowed")));
    }
    found.extend(vmdk::inspect(source, &head, size)?);
    if head.starts_with(vhd::MARK) {
        found.push(Found::of(Format::Vhd, vhd::inspect(&head)));
    }
    if head.starts_with(vhdx::MARK) {
        found.push(Found::of(Format::Vhdx, vhdx::inspect(source)?));
    }
    if starts(&head, vdi::MARK_AT, vdi::MARK) {
        found.push(Found::of(Format::Vdi, vdi::inspect(&head)));
    }
    if iso::matches(&head) {
        found.push(Found::good(Format::Iso, iso::virtual_size(&head)));
    }
    if gpt::matches(&head) {
        let violations = gpt::check(&head).err().into_iter().collect();
        found.push(Found { violations, ..Found::good(Format::Gpt, Some(size)) });
    }
    if head.starts_with(luks::MARK) {
        found.push(Found::of(Format::Luks, luks::inspect(&head, size)));
    }
    if found.is_empty() {
        found.push(Found::good(Format::Raw, Some(size)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(bytes: &[u8]) -> Vec<&'static str> {
        inspect(&bytes).unwrap().iter().map(|f| f.format.name()).collect()
    }

    #[test]
    fn formats_are_told_by_their_marks_alone() {
        assert_eq!(names(b""), ["raw"]);
        assert_eq!(names(&[0x5a; 4096]), ["raw"]);
        assert_eq!(names(&qcow2::tests::image(1 << 20)), ["qcow2"]);
        assert_eq!(names(&vmdk::tests::sparse("monolithicSparse", "RW 8 SPARSE \"disk.vmdk\"")), ["vmdk"]);
        assert_eq!(names(&vhd::tests::image(1 << 20, 3)), ["vhd"]);
        assert_eq!(names(&vhdx::tests::image(1 << 20, false)), ["vhdx"]);
        assert_eq!(names(&vdi::tests::image(1 << 20, 1)), ["vdi"]);
        assert_eq!(names(&iso::tests::image(100)), ["iso"]);
        assert_eq!(names(&gpt::tests::protective()), ["gpt"]);
        assert_eq!(names(&luks::tests::image(1)), ["luks"]);
        assert_eq!(names(b"QED\0"), ["qed"]);
        for format in ["raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "gpt", "luks", "qed"] {
            assert_eq!(Format::named(format).map(Format::name), Some(format));
        }
        assert_eq!(Format::named("aki"), None);
    }

    #[test]
    fn a_file_that_is_two_things_is_seen_as_both() {
        let mut file = iso::tests::image(100);
        file[..512].copy_from_slice(&qcow2::tests::image(1 << 20)[..512]);
        assert_eq!(names(&file), ["qcow2", "iso"]);
        let mut hybrid = iso::tests::image(100);
        hybrid[..512].copy_from_slice(&gpt::tests::protective()[..512]);
        assert_eq!(names(&hybrid), ["iso", "gpt"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_inspected(mut bytes in proptest::collection::vec(any::<u8>(), 0..2000), mark in 0usize..8) {
            let marks: [&[u8]; 8] = [b"", b"QFI\xfb\0\0\0\x03", b"KDMV\x01\0\0\0", b"QED\0", b"vhdxfile", b"conectix", b"COWD", b"LUKS\xba\xbe"];
            bytes.splice(0..0, marks[mark].iter().copied());
            let found = inspect(&bytes.as_slice()).unwrap();
            prop_assert!(!found.is_empty());
            if mark != 0 && bytes.len() >= 512 { prop_assert!(found.iter().all(|f| f.format != Format::Raw)); }
        }
    }
}
