//! Unpacking: gzip, xz and its older form, and zip archives of one file.
//!
//! What is packed says nothing reliable about how large it is, so the limit is on what comes out. Memory is
//! bounded: dictionaries of more than [`MEMORY_KIB`] are refused, and of an archive only the one entry is read.
use flate2::read::{DeflateDecoder, MultiGzDecoder};
use lzma_rust2::{LzmaReader, XzReader};
use pilvi_disk::{format::Source, sparse};
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

const MEMORY_KIB: u32 = 256 * 1024;
const BUFFER: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packed {
    Gzip,
    Zip,
    Xz,
    Lzma,
}

/// How a file is packed, by its first bytes.
pub fn detect(source: &dyn Source) -> io::Result<Option<Packed>> {
    let head = source.read(0, 16)?;
    Ok(if head.starts_with(&[0x1f, 0x8b, 0x08]) {
        Some(Packed::Gzip)
    } else if head.starts_with(b"PK\x03\x04") {
        Some(Packed::Zip)
    } else if head.starts_with(b"\xfd7zXZ\0") {
        Some(Packed::Xz)
    } else if is_lzma(&head) {
        Some(Packed::Lzma)
    } else {
        None
    })
}

/// The old form has no mark of its own: common properties, a dictionary of a usual size, a size that makes sense.
fn is_lzma(head: &[u8]) -> bool {
    let (Some(dictionary), Some(size)) = (field::<4>(head, 1), field::<8>(head, 5)) else { return false };
    let (dictionary, size) = (u32::from_le_bytes(dictionary), u64::from_le_bytes(size));
    head[0] == 0x5d
        && dictionary >= 1 << 12
        && dictionary.is_power_of_two()
        && (size == u64::MAX || (1..1 << 48).contains(&size))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Unpacks into a new file of at most `max` bytes; gives its size.
pub fn unpack(packed: Packed, file: &File, target: &Path, max: u64) -> io::Result<u64> {
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    let reader = BufReader::with_capacity(BUFFER, file);
    match packed {
        Packed::Gzip => sparse::copy(&mut MultiGzDecoder::new(reader), target, max),
        Packed::Xz => sparse::copy(&mut XzReader::new_mem_limit(reader, true, MEMORY_KIB), target, max),
        Packed::Lzma => {
            let mut reader = LzmaReader::new_mem_limit(reader, MEMORY_KIB, None).map_err(io::Error::other)?;
            sparse::copy(&mut reader, target, max)
        }
        Packed::Zip => unzip(file, target, max),
    }
}

/// The only entry of an archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    at: u64,
}

const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const END: &[u8] = b"PK\x05\x06";
const END_LENGTH: u64 = 22;
const CENTRAL: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";
const ENCRYPTED: u16 = 1;
const WIDE: u16 = 1;

fn malformed() -> io::Error {
    io::Error::other("the archive is malformed")
}

fn short(bytes: &[u8], at: usize) -> io::Result<u16> {
    field(bytes, at).map(u16::from_le_bytes).ok_or_else(malformed)
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    field(bytes, at).map(u32::from_le_bytes).ok_or_else(malformed)
}

/// Reads the directory at the end of an archive, which must name one file.
pub fn entry(file: &dyn Source) -> io::Result<Entry> {
    let size = file.size()?;
    let tail_at = size.saturating_sub(END_LENGTH + u64::from(u16::MAX));
    let tail = file.read(tail_at, (size - tail_at) as usize)?;
    let at = tail.windows(4).rposition(|w| w == END).ok_or_else(malformed)?;
    if short(&tail, at + 10)? != 1 {
        return Err(io::Error::other("the archive must hold one file"));
    }
    let offset = u64::from(word(&tail, at + 16)?);
    let offset = if offset == u64::from(u32::MAX) { wide_directory(file, tail_at + at as u64)? } else { offset };
    let head = file.read(offset, 46 + 2 * usize::from(u16::MAX))?;
    if !head.starts_with(CENTRAL) {
        return Err(malformed());
    }
    if short(&head, 8)? & ENCRYPTED != 0 {
        return Err(io::Error::other("the archive is encrypted"));
    }
    let (name, extra) = (usize::from(short(&head, 28)?), usize::from(short(&head, 30)?));
    let mut wide = wide_fields(head.get(46 + name..46 + name + extra).ok_or_else(malformed)?);
    let mut number = |at: usize| -> io::Result<u64> {
        let value = word(&head, at)?;
        if value == u32::MAX { wide.next().ok_or_else(malformed) } else { Ok(u64::from(value)) }
    };
    // In this order stand the wide fields, too.
    let (size, packed, at) = (number(24)?, number(20)?, number(42)?);
    Ok(Entry { method: short(&head, 10)?, crc: word(&head, 16)?, packed, size, at })
}

/// Where the directory of an archive of more than 4 GiB is: 20 bytes before the end's record is a pointer to another.
fn wide_directory(file: &dyn Source, end: u64) -> io::Result<u64> {
    let locator = file.read(end.checked_sub(20).ok_or_else(malformed)?, 20)?;
    let at = field(&locator, 8).map(u64::from_le_bytes).filter(|_| locator.starts_with(b"PK\x06\x07"));
    let record = file.read(at.ok_or_else(malformed)?, 56)?;
    field(&record, 48).map(u64::from_le_bytes).filter(|_| record.starts_with(b"PK\x06\x06")).ok_or_else(malformed)
}

/// The numbers of the extra field for those that do not fit 32 bits.
fn wide_fields(extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut rest = extra;
    let mut found: &[u8] = &[];
    while let (Some(kind), Some(length)) = (field::<2>(rest, 0), field::<2>(rest, 2)) {
        let end = 4 + usize::from(u16::from_le_bytes(length));
        let Some(body) = rest.get(4..end) else { break };
        if u16::from_le_bytes(kind) == WIDE {
            found = body;
        }
        rest = &rest[end..];
    }
    found.chunks_exact(8).filter_map(|chunk| field(chunk, 0)).map(u64::from_le_bytes)
}

fn unzip(mut file: &File, target: &Path, max: u64) -> io::Result<u64> {
    let entry = entry(file)?;
    if entry.size > max {
        return Err(io::Error::other(format!("more than the {max} bytes allowed")));
    }
    file.seek(SeekFrom::Start(local(file, entry.at)?))?;
    let packed = BufReader::with_capacity(BUFFER, file).take(entry.packed);
    let mut plain: Box<dyn Read> = match entry.method {
        STORED => Box::new(packed),
        DEFLATED => Box::new(DeflateDecoder::new(packed)),
        other => return Err(io::Error::other(format!("the archive is packed by method {other}, which is not known"))),
    };
    let mut checked = flate2::CrcReader::new(&mut plain);
    let size = sparse::copy(&mut checked, target, max)?;
    if size != entry.size || checked.crc().sum() != entry.crc {
        return Err(io::Error::other("the file in the archive is broken"));
    }
    Ok(size)
}

/// Where an entry's bytes begin, behind its own header.
fn local(file: &File, at: u64) -> io::Result<u64> {
    let head = Source::read(file, at, 30)?;
    if !head.starts_with(LOCAL) {
        return Err(malformed());
    }
    let skip = 30 + u64::from(short(&head, 26)?) + u64::from(short(&head, 28)?);
    at.checked_add(skip).ok_or_else(malformed)
}
