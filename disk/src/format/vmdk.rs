//! VMware disks in one file: a sparse header (`KDMV`), a descriptor in text behind it, and in streamed images
//! a footer at the end that has the last word.
//!
//! The descriptor is where files name other files: extents elsewhere, a parent. Each of its lines must be one
//! that is understood; extents must be sparse ones without a path; a parent is refused. Descriptors that are
//! files of their own can only name others: refused, as are ESX's sparse extents.
use super::{Format, Found, Source, Violation, field};
use std::io;

const MARK: &[u8] = b"KDMV";
/// Sparse extents of ESX.
const ESX: [&[u8]; 2] = [b"COWD", b"SE_SPARSE"];
const TEXT: &[u8] = b"# disk descriptorfile";
const CREATE_TYPE: &str = "createtype=\"";

const DESCRIPTOR_AT: u64 = 512;
/// Bytes of a descriptor at most.
pub const DESCRIPTOR_MAX: usize = (1 << 20) - 1;
const SECTOR: u64 = 512;
const GD_AT_END: u64 = u64::MAX;
/// Bytes of the end that hold a footer: marker, footer, end-of-stream marker.
pub const FOOTER: usize = 3 * 512;
const MARKER_END: u32 = 0;
const MARKER_FOOTER: u32 = 3;

/// Kinds of one file, as `createType` spells them in lower case.
const KINDS: [&str; 2] = ["monolithicsparse", "streamoptimized"];

/// The sparse header, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    version: u32,
    sectors: u64,
    descriptor: (u64, u64),
    directory: u64,
}

fn header(bytes: &[u8], at: usize) -> Option<Header> {
    let word = |offset: usize| Some(u32::from_le_bytes(field(bytes, at + offset)?));
    let long = |offset: usize| Some(u64::from_le_bytes(field(bytes, at + offset)?));
    bytes.get(at..)?.starts_with(MARK).then_some(())?;
    Some(Header { version: word(4)?, sectors: long(12)?, descriptor: (long(28)?, long(36)?), directory: long(56)? })
}

pub fn inspect(source: &dyn Source, head: &[u8], size: u64) -> io::Result<Option<Found>> {
    let bad = |why: &str| Ok(Some(Found::bad(Format::Vmdk, Violation::new("descriptor", why))));
    if ESX.iter().any(|mark| head.starts_with(mark)) {
        return bad("sparse extents of ESX are not supported");
    }
    if head.starts_with(MARK) {
        return Ok(Some(match sparse(source, head, size)? {
            Ok((bytes, kind)) => Found { kind: Some(kind), ..Found::good(Format::Vmdk, Some(bytes)) },
            Err(violation) => Found::bad(Format::Vmdk, violation),
        }));
    }
    if is_descriptor(source, head)? {
        return bad("it is a descriptor that names other files");
    }
    Ok(None)
}

/// Is there, or may there be, a descriptor behind the head?
pub fn wants_descriptor(head: &[u8]) -> bool {
    head.starts_with(MARK) || is_text(head)
}

fn is_text(head: &[u8]) -> bool {
    let printable = |b: &u8| matches!(b, b' '..=b'~' | b'\t'..=b'\r');
    head.len() >= 4 && head.iter().take(512).all(printable)
}

/// Does the file begin as text, and is it a descriptor?
fn is_descriptor(source: &dyn Source, head: &[u8]) -> io::Result<bool> {
    if !is_text(head) {
        return Ok(false);
    }
    if head.to_ascii_lowercase().starts_with(TEXT) {
        return Ok(true);
    }
    let text = descriptor_text(&source.read(0, DESCRIPTOR_MAX)?);
    Ok(text.is_some_and(|text| text.contains(CREATE_TYPE)))
}

/// Text up to the first NUL in lower case; none unless all of it is ASCII.
fn descriptor_text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).ok().filter(|text| text.is_ascii())?;
    Some(text.to_ascii_lowercase())
}

/// Bytes of the disk, and the kind of image.
fn sparse(source: &dyn Source, head: &[u8], size: u64) -> io::Result<Result<(u64, &'static str), Violation>> {
    let refused = |why: &str| Ok(Err(Violation::new("descriptor", why)));
    let Some(header) = header(head, 0).filter(|_| head.len() >= 64) else { return refused("the header is cut off") };
    if !(1..=3).contains(&header.version) {
        return refused("the version is not known");
    }
    let (at, sectors) = header.descriptor;
    if at.checked_mul(SECTOR) != Some(DESCRIPTOR_AT) {
        return refused("the descriptor is not where it belongs");
    }
    let length = sectors.saturating_mul(SECTOR).min(DESCRIPTOR_MAX as u64) as usize;
    let bytes = source.read(DESCRIPTOR_AT, length)?;
    let checked = match descriptor_text(&bytes) {
        _ if bytes.len() < length => Err(Violation::new("descriptor", "the descriptor is cut off")),
        Some(text) => check_descriptor(&text),
        None => Err(Violation::new("descriptor", "the descriptor is no text")),
    };
    let kind = match checked {
        Ok(kind) => kind,
        Err(violation) => return Ok(Err(violation)),
    };
    if header.directory == GD_AT_END
        && let Err(why) = check_footer(header, &source.read(size.saturating_sub(FOOTER as u64), FOOTER)?)
    {
        return Ok(Err(Violation::new("footer", why)));
    }
    let bytes = header.sectors.checked_mul(SECTOR);
    Ok(bytes.map(|bytes| (bytes, kind)).ok_or_else(|| Violation::new("descriptor", "the disk's size is absurd")))
}

/// Every line must be understood. Gives the kind of image.
fn check_descriptor(text: &str) -> Result<&'static str, Violation> {
    let refused = |why: &str| Err(Violation::new("descriptor", why));
    let said = text.split_once(CREATE_TYPE).and_then(|(_, rest)| rest.split_once('"')).map(|(kind, _)| kind);
    let Some(kind) = KINDS.into_iter().find(|kind| said == Some(kind)) else {
        return refused("only monolithicSparse and streamOptimized images are one file");
    };
    let mut extents = 0;
    for line in text.split('\n').map(str::trim) {
        let word = line.split(' ').next().unwrap_or_default();
        if line.is_empty() || line.starts_with('#') || line.starts_with("ddb") {
            continue;
        }
        if let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.contains(' ')) {
            let value = value.trim().trim_matches('"');
            let parent = name.starts_with("parent") && !(name == "parentcid" && value == "ffffffff");
            if parent {
                return refused("it names a parent");
            }
        } else if matches!(word, "rw" | "rdonly" | "noaccess") {
            if line.contains('/') || line.contains('\\') {
                return refused("an extent lies elsewhere");
            }
            if line.split_ascii_whitespace().nth(2) != Some("sparse") {
                return refused("an extent is not sparse");
            }
            extents += 1;
        } else {
            return refused("it holds a line that is not understood");
        }
    }
    // One file holds one extent: a second one is another file.
    if extents == 1 { Ok(kind) } else { refused("it must have one extent") }
}

/// The footer has the last word on a streamed image, so it must say what the header says.
fn check_footer(first: Header, bytes: &[u8]) -> Result<(), &'static str> {
    let last = header(bytes, 512).filter(|_| bytes.len() == FOOTER).ok_or("the footer is missing")?;
    if last.version != first.version || last.descriptor != first.descriptor || last.sectors != first.sectors {
        return Err("the footer differs from the header");
    }
    if last.directory == GD_AT_END {
        return Err("the footer names another footer");
    }
    let marker = |at: usize, kind: u32| {
        let size = u32::from_le_bytes(field(bytes, at + 8)?);
        let found = u32::from_le_bytes(field(bytes, at + 12)?);
        (size == 0 && found == kind && bytes.get(at + 16..at + 512)?.iter().all(|b| *b == 0)).then_some(())
    };
    marker(0, MARKER_FOOTER).ok_or("the footer's marker is invalid")?;
    let ends = marker(1024, MARKER_END).is_some() && bytes[1024..1032].iter().all(|b| *b == 0);
    if ends { Ok(()) } else { Err("the end-of-stream marker is invalid") }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header with a descriptor of one kind with these extents, for a disk of 8 MiB.
    pub(crate) fn sparse(kind: &str, extents: &str) -> Vec<u8> {
        let mut file = vec![0; 64 * 1024];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MARK);
        put(4, &1u32.to_le_bytes());
        put(12, &16384u64.to_le_bytes());
        put(28, &1u64.to_le_bytes());
        put(36, &20u64.to_le_bytes());
        put(56, &21u64.to_le_bytes());
        put(
            512,
            format!("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"{kind}\"\n{extents}\nddb.adapterType = \"ide\"\n")
                .as_bytes(),
        );
        file
    }

    fn streamed() -> Vec<u8> {
        let mut file = sparse("streamOptimized", "RW 16384 SPARSE \"d.vmdk\"");
        let mut footer = vec![0; FOOTER];
        footer[12..16].copy_from_slice(&MARKER_FOOTER.to_le_bytes());
        footer[512..1024].copy_from_slice(&file[..512]);
        file[56..64].copy_from_slice(&GD_AT_END.to_le_bytes());
        file.extend(footer);
        file
    }

    fn read(file: &[u8]) -> Result<u64, Violation> {
        let found = inspect(&file, &file[..file.len().min(65536)], file.len() as u64).unwrap().unwrap();
        match found.violations.into_iter().next() {
            Some(violation) => Err(violation),
            None => Ok(found.virtual_size.unwrap()),
        }
    }

    #[test]
    fn one_file_images_are_read() {
        assert_eq!(read(&sparse("monolithicSparse", "RW 16384 SPARSE \"disk.vmdk\"")), Ok(8 << 20));
        assert_eq!(read(&streamed()), Ok(8 << 20));
    }

    #[test]
    fn descriptors_that_reach_elsewhere_are_refused() {
        for (kind, extents) in [
            ("monolithicFlat", "RW 16384 FLAT \"/etc/passwd\" 0"),
            ("monolithicSparse", "RW 16384 FLAT \"secret\" 0"),
            ("monolithicSparse", "RW 16384 SPARSE \"/etc/shadow\""),
            ("monolithicSparse", "RW 16384 SPARSE \"..\\\\x\""),
            ("monolithicSparse", "RW 8 SPARSE \"a\"\nRW 8 SPARSE \"b\""),
            ("monolithicSparse", "parentFileNameHint=\"/etc/passwd\"\nRW 16384 SPARSE \"a\""),
            ("monolithicSparse", "parentCID=12345678\nRW 16384 SPARSE \"a\""),
            ("monolithicSparse", "surprise\nRW 16384 SPARSE \"a\""),
            ("twoGbMaxExtentSparse", "RW 16384 SPARSE \"a\""),
            ("monolithicSparse", ""),
        ] {
            assert_eq!(read(&sparse(kind, extents)).unwrap_err().check, "descriptor", "{kind} {extents}");
        }
        for text in [
            "# Disk DescriptorFile\ncreateType=\"monolithicFlat\"\n",
            "a=1\ncreateType=\"monolithicSparse\"\nRW 1 SPARSE \"x\"\n",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(read(b"COWD").is_err());
        assert_eq!(inspect(&&b"#!/bin/sh\necho hello\n"[..], b"#!/bin/sh\necho hello\n", 21).unwrap(), None);
    }

    #[test]
    fn a_footer_must_say_what_the_header_says() {
        let end = streamed().len() - FOOTER;
        for (at, byte) in [(12, 9), (512 + 4, 2), (512 + 28, 9), (512 + 12, 9), (1024, 1), (1024 + 12, 1), (20, 1)] {
            let mut bad = streamed();
            bad[end + at] = byte;
            assert_eq!(read(&bad).unwrap_err().check, "footer", "{at}");
        }
    }

    proptest! {
        #[test]
        fn any_descriptor_is_read_or_refused(text in "\\PC{0,200}", kind in "[a-zA-Z]{0,20}") {
            if let Ok(size) = read(&sparse(&kind, &text.replace('\0', ""))) {
                prop_assert_eq!(size, 8 << 20);
                prop_assert!(KINDS.contains(&kind.to_lowercase().as_str()) || text.to_lowercase().contains(CREATE_TYPE));
            }
        }

        #[test]
        fn any_header_is_read_or_refused(changes in proptest::collection::vec((0usize..2048, any::<u8>()), 1..20)) {
            let mut file = streamed();
            for (at, byte) in changes { file[at] = byte; }
            let _ = inspect(&file.as_slice(), &file[..65536], file.len() as u64);
        }
    }
}
