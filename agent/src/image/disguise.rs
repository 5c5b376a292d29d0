//! What calls itself raw and is not.
//!
//! A raw disk may hold anything, so nothing here is read by it; but bytes that another program, told less, would take for
//! a disk of a richer format (one that can name files of this host) are no guest's first disk by chance. The image
//! service refuses them at the door unless its operator has switched that off; a host does not rely on it.
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Bytes of the beginning that tell.
const HEAD: u64 = 512;
/// Where a mark stands, the mark, and whose it is.
const MARKS: &[(usize, &[u8], &str)] = &[
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
];

/// The format that a file's beginning is a mark of.
///
/// # Errors
/// When the file cannot be read.
pub fn found(path: &Path) -> io::Result<Option<&'static str>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    Ok(MARKS
        .iter()
        .find(|(at, mark, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(mark)))
        .map(|found| found.2))
}
