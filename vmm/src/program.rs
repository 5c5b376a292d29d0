//! Which build of this program runs: a guest's process outlives the file that it was started from, so whoever has put
//! another one there wants to know which guests still run in the former.
//!
//! The build is what the linker says of the whole program (the build id in its ELF notes), or, where it says nothing,
//! length and time of the file. It is not to be compared but for being the same: whether one is newer it does not tell.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// The running program's own file, for as long as nothing is jailed.
const OWN: &str = "/proc/self/exe";
/// Most program headers, and bytes of notes, that are looked at.
const HEADERS_MAX: u16 = 64;
const NOTES_MAX: u64 = 64 << 10;
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
/// Longest build id that is believed.
const ID_MAX: usize = 64;

/// The build of the program that runs. "" where that cannot be told.
pub fn own_build() -> String {
    build_of(Path::new(OWN)).unwrap_or_default()
}

/// The build of the program in this file.
pub fn build_of(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let told = notes(&file).ok().flatten();
    Ok(told.unwrap_or_else(|| format!("{:x}-{:x}.{:x}", meta.len(), meta.mtime(), meta.mtime_nsec())))
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// The build id in the notes of a 64-bit little-endian ELF file.
fn notes(file: &File) -> io::Result<Option<String>> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let field = |at, length| number(&header, at, length).unwrap_or_default();
    let (offset, size, count) = (field(32, 8), field(54, 2), field(56, 2).min(u64::from(HEADERS_MAX)));
    for segment in 0..count {
        let mut entry = [0; 56];
        let Some(at) = offset.checked_add(segment * size) else { return Ok(None) };
        file.read_exact_at(&mut entry, at)?;
        let field = |at, length| number(&entry, at, length).unwrap_or_default();
        if field(0, 4) != u64::from(PT_NOTE) {
            continue;
        }
        let mut notes = vec![0; field(32, 8).min(NOTES_MAX) as usize];
        file.read_exact_at(&mut notes, field(8, 8))?;
        if let Some(id) = build_id(&notes) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn build_id(mut notes: &[u8]) -> Option<String> {
    loop {
        let part = |at| number(notes, at, 4).map(|length| length as usize);
        let (name, content, kind) = (part(0)?, part(4)?, part(8)?);
        let begin = 12 + name.checked_next_multiple_of(4)?;
        let id = notes.get(begin..begin.checked_add(content)?)?;
        if kind == NT_GNU_BUILD_ID as usize && notes.get(12..12 + name) == Some(b"GNU\0") && id.len() <= ID_MAX {
            return Some(id.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = notes.get(begin + content.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [name.len() as u32, content.len() as u32, kind] {
            out.extend(number.to_le_bytes());
        }
        for part in [name, content] {
            out.extend(part);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }

    fn elf(notes: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 120];
        out[..6].copy_from_slice(b"\x7fELF\x02\x01");
        out[32] = 64;
        (out[54], out[56]) = (56, 1);
        out[64] = 4;
        out[64 + 8] = 120;
        out[64 + 32..64 + 40].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        out.extend(notes);
        out
    }

    #[test]
    fn a_build_is_what_the_linker_says_or_else_what_the_file_is() {
        let of = |bytes: &[u8]| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(bytes).unwrap();
            build_of(file.path()).unwrap()
        };
        let told = [note(b"GNU\0", 1, &[0; 16]), note(b"GNU\0", NT_GNU_BUILD_ID, &[0xab, 1, 2])].concat();
        assert_eq!(of(&elf(&told)), "ab0102");
        for odd in [Vec::new(), vec![0xff; 40], note(b"GNU\0", NT_GNU_BUILD_ID, &[1; 65]), note(b"X\0\0\0", 3, &[1])] {
            assert!(of(&elf(&odd)).contains('-'), "{odd:?}");
        }
        let mut cut = elf(&told);
        cut.truncate(130);
        assert!(of(&cut).starts_with("82-"));
        assert!(of(b"#!/bin/sh\n").starts_with("a-"));
        assert_eq!(own_build(), build_of(&std::env::current_exe().unwrap()).unwrap());
        assert!(build_of(Path::new("/nonexistent")).is_err());
    }
}
