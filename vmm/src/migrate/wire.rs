//! The stream: a greeting, records from the source, three one-byte answers.
//!
//! | record | bytes |
//! | --- | --- |
//! | greeting | `PILVIMIG`, version (4), bytes of guest memory (8) |
//! | pages | 1, first address (8), count (4), CRC-32 of the contents (4), contents |
//! | zeroes | 2, first address (8), count (4) |
//! | state | 3, the state as in a state file |
//! | go | 4 |
//! | part of a disk | 7, disk (2), offset (8), bytes (4), CRC-32 of the contents (4), contents |
//! | zeroes of a disk | 8, disk (2), offset (8), bytes (8) |
//! | sync of the disks | 9 |
//! | which disk a number means | 10, disk (2), its bytes (8), length of its name (1), name |
//!
//! A machine whose memory is handed over (see [`super::handed`]) has version 4: the memory comes open with the greeting, whose
//! answer is `can` (14).
//!
//! Numbers are little endian. The target answers `ready` (5) and `running` (6). A stream that may end in post-copy has another
//! version and some records more ([`super::post::wire`]).

use super::MigrateError;
use super::disks::{Landing, Landings};
use super::post::wire as post;
use crate::fault::Bits;
use crate::memory::Memory;
use crate::snapshot::{MachineState, file};
use std::io::{Read, Write};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// Of this stream.
const VERSION: u32 = 2;
const MAGIC: &[u8; 8] = b"PILVIMIG";
/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Most pages of one record.
pub const RUN_MAX: u32 = 256;

pub(super) const PAGES: u8 = 1;
pub(super) const ZEROES: u8 = 2;
const STATE: u8 = 3;
/// The target runs the machine from here on.
pub const GO: u8 = 4;
/// The target could run it.
pub const READY: u8 = 5;
/// It does.
pub const RUNNING: u8 = 6;

/// Most zeroes of one record of a disk, in bytes.
pub const EMPTY_MAX: u64 = 256 << 20;
/// Most bytes of one part of a disk.
const PART_MAX: u32 = crate::virtio::block::changes::PART as u32;

const DISK_PART: u8 = 7;
const DISK_EMPTY: u8 = 8;
const DISK_SYNC: u8 = 9;
const DISK_NAMED: u8 = 10;

/// Guest memory in bytes.
pub fn size(memory: &Memory) -> u64 {
    memory.iter().map(GuestMemoryRegion::len).sum()
}

/// How a machine comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whole, page by page.
    Copied,
    /// Maybe without some of its memory; the target is to say whether it could run it so.
    MaybeLate,
    /// Its memory comes as an open file.
    Handed,
}

const KINDS: [(Kind, u32); 3] = [(Kind::Copied, VERSION), (Kind::MaybeLate, post::VERSION), (Kind::Handed, 4)];
/// Bytes of the first words.
pub const GREETING: usize = 20;

/// The first words.
pub fn greeting(memory: &Memory, kind: Kind) -> [u8; GREETING] {
    let version = KINDS.iter().find(|(known, _)| *known == kind).map_or(VERSION, |(_, version)| *version);
    let mut words = [0; GREETING];
    words[..8].copy_from_slice(MAGIC);
    words[8..12].copy_from_slice(&version.to_le_bytes());
    words[12..].copy_from_slice(&size(memory).to_le_bytes());
    words
}

/// Says them.
pub fn greet(out: &mut impl Write, memory: &Memory, post_copy: bool) -> Result<(), MigrateError> {
    let kind = if post_copy { Kind::MaybeLate } else { Kind::Copied };
    Ok(out.write_all(&greeting(memory, kind))?)
}

/// Reads them. An answer is waited for, but to a machine that comes whole.
pub fn welcome(input: &mut impl Read, memory: &Memory) -> Result<Kind, MigrateError> {
    let (magic, version) = (number::<8>(input)?, u32::from_le_bytes(number(input)?));
    let kind = KINDS.iter().find(|(_, known)| magic == *MAGIC && *known == version);
    let Some((kind, _)) = kind else { return Err(MigrateError::Nonsense("it is no migration of this version")) };
    if u64::from_le_bytes(number(input)?) != size(memory) {
        return Err(MigrateError::Nonsense("the machine has memory of another size"));
    }
    Ok(*kind)
}

/// Pages with contents. `contents` are whole pages, at most `RUN_MAX`.
pub fn send_pages(out: &mut impl Write, address: u64, contents: &[u8]) -> Result<(), MigrateError> {
    let mut head = vec![PAGES];
    head.extend(address.to_le_bytes());
    head.extend(((contents.len() as u64 / PAGE) as u32).to_le_bytes());
    head.extend(crc32fast::hash(contents).to_le_bytes());
    out.write_all(&head)?;
    out.write_all(contents)?;
    Ok(())
}

/// Pages of zeroes.
pub fn send_zeroes(out: &mut impl Write, address: u64, count: u32) -> Result<(), MigrateError> {
    let mut head = vec![ZEROES];
    head.extend(address.to_le_bytes());
    head.extend(count.to_le_bytes());
    out.write_all(&head)?;
    Ok(())
}

/// The disk of this name is called by this number from here on.
pub fn send_disk(out: &mut impl Write, disk: u16, bytes: u64, name: &str) -> Result<(), MigrateError> {
    let length = u8::try_from(name.len()).map_err(|_| MigrateError::Nonsense("a disk of too long a name"))?;
    let mut head = vec![DISK_NAMED];
    head.extend(disk.to_le_bytes());
    head.extend(bytes.to_le_bytes());
    head.push(length);
    head.extend(name.as_bytes());
    out.write_all(&head)?;
    Ok(())
}

/// A part of a disk, at most 64 KiB.
pub fn send_part(out: &mut impl Write, disk: u16, offset: u64, contents: &[u8]) -> Result<(), MigrateError> {
    let mut head = vec![DISK_PART];
    head.extend(disk.to_le_bytes());
    head.extend(offset.to_le_bytes());
    head.extend((contents.len() as u32).to_le_bytes());
    head.extend(crc32fast::hash(contents).to_le_bytes());
    out.write_all(&head)?;
    out.write_all(contents)?;
    Ok(())
}

/// Zeroes of a disk, at most `EMPTY_MAX` bytes.
pub fn send_empty(out: &mut impl Write, disk: u16, offset: u64, bytes: u64) -> Result<(), MigrateError> {
    let mut head = vec![DISK_EMPTY];
    head.extend(disk.to_le_bytes());
    head.extend(offset.to_le_bytes());
    head.extend(bytes.to_le_bytes());
    out.write_all(&head)?;
    Ok(())
}

/// What came of the disks shall be durable before anything else is taken.
pub fn send_sync(out: &mut impl Write) -> Result<(), MigrateError> {
    Ok(out.write_all(&[DISK_SYNC])?)
}

/// The state.
pub fn send_state(out: &mut impl Write, state: &MachineState) -> Result<(), MigrateError> {
    out.write_all(&[STATE])?;
    out.write_all(&file::seal(state)?)?;
    Ok(())
}

pub(super) fn number<const N: usize>(input: &mut impl Read) -> Result<[u8; N], MigrateError> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Waits for this answer.
pub fn expect(input: &mut impl Read, wanted: u8) -> Result<(), MigrateError> {
    if number::<1>(input)? == [wanted] { Ok(()) } else { Err(MigrateError::Nonsense("an answer out of turn")) }
}

/// What has come when the state has.
pub struct Received {
    /// Everything but memory.
    pub state: MachineState,
    /// Pages that the source still has, and what it calls itself.
    pub missing: Option<(post::Identity, Bits)>,
}

/// Takes everything up to the state, after the first words. What comes is not to be trusted: nothing outside `memory` and
/// `disks` is written, nothing is reserved that was not announced within bounds.
pub fn receive(input: &mut impl Read, memory: &Memory, disks: &mut [Landing]) -> Result<Received, MigrateError> {
    let mut buffer = vec![0; (RUN_MAX as u64 * PAGE) as usize];
    let zeroes = vec![0; buffer.len()];
    let mut disks = Landings::new(disks);
    let mut missing = None;
    loop {
        match number::<1>(input)? {
            [PAGES] => {
                let (address, bytes) = take_pages(input, memory, &mut buffer)?;
                memory.write_slice(&buffer[..bytes], address)?;
            }
            [ZEROES] => {
                let (address, bytes) = take_zeroes(input, memory)?;
                memory.write_slice(&zeroes[..bytes], address)?;
            }
            [post::MISSING] => missing = Some(post::take_missing(input, memory)?),
            [DISK_NAMED] => {
                let (disk, bytes) = (u16::from_le_bytes(number(input)?), u64::from_le_bytes(number(input)?));
                let mut name = vec![0; usize::from(number::<1>(input)?[0])];
                input.read_exact(&mut name)?;
                disks.announce(disk, bytes, &String::from_utf8_lossy(&name))?;
            }
            [DISK_PART] => take_part(input, &mut disks, &mut buffer)?,
            [DISK_EMPTY] => {
                let (disk, offset) = disk_offset(input, &mut disks)?;
                let bytes = u64::from_le_bytes(number(input)?);
                if bytes == 0 || bytes > EMPTY_MAX {
                    return Err(MigrateError::Nonsense("no or too many zeroes"));
                }
                disk.check(offset, bytes)?;
                disk.empty(offset, bytes)?;
            }
            [DISK_SYNC] => disks.sync()?,
            [STATE] => {
                let mut header = number::<{ file::HEADER }>(input)?.to_vec();
                let length = file::length(&header)?;
                input.take(length).read_to_end(&mut header)?;
                return Ok(Received { state: file::open(&header)?, missing });
            }
            _ => return Err(MigrateError::Nonsense("an unknown record")),
        }
    }
}

fn disk_offset<'d>(input: &mut impl Read, disks: &'d mut Landings) -> Result<(&'d mut Landing, u64), MigrateError> {
    let disk = u16::from_le_bytes(number(input)?);
    let offset = u64::from_le_bytes(number(input)?);
    Ok((disks.get(disk)?, offset))
}

fn take_part(input: &mut impl Read, disks: &mut Landings, buffer: &mut [u8]) -> Result<(), MigrateError> {
    let (disk, offset) = disk_offset(input, disks)?;
    let length = u32::from_le_bytes(number(input)?);
    let sum = u32::from_le_bytes(number(input)?);
    if length == 0 || length > PART_MAX {
        return Err(MigrateError::Nonsense("a part of no size that is possible"));
    }
    disk.check(offset, u64::from(length))?;
    let part = &mut buffer[..length as usize];
    input.read_exact(part)?;
    if crc32fast::hash(part) != sum {
        return Err(MigrateError::Nonsense("a part of a disk was altered on its way"));
    }
    disk.write(offset, part)
}

/// A run of pages with contents, after its first byte; they lie at the beginning of the buffer.
pub(super) fn take_pages(
    input: &mut impl Read,
    memory: &Memory,
    buffer: &mut [u8],
) -> Result<(GuestAddress, usize), MigrateError> {
    let (address, bytes) = run(input, memory)?;
    let sum = u32::from_le_bytes(number(input)?);
    let part = &mut buffer[..bytes];
    input.read_exact(part)?;
    if crc32fast::hash(part) != sum {
        return Err(MigrateError::Nonsense("pages were altered on their way"));
    }
    Ok((address, bytes))
}

/// A run of pages of zeroes, after its first byte.
pub(super) fn take_zeroes(input: &mut impl Read, memory: &Memory) -> Result<(GuestAddress, usize), MigrateError> {
    run(input, memory)
}

/// Address and bytes of a run of pages inside guest memory.
fn run(input: &mut impl Read, memory: &Memory) -> Result<(GuestAddress, usize), MigrateError> {
    let address = u64::from_le_bytes(number(input)?);
    let count = u32::from_le_bytes(number(input)?);
    let bytes = u64::from(count) * PAGE;
    let inside = GuestMemoryBackend::check_range(memory, GuestAddress(address), bytes as usize);
    if count == 0 || count > RUN_MAX || !address.is_multiple_of(PAGE) || !inside {
        return Err(MigrateError::Nonsense("pages outside guest memory"));
    }
    Ok((GuestAddress(address), bytes as usize))
}

/// Address of a page of a region.
pub fn page_address(region: &vm_memory::GuestRegionMmap<vm_memory::bitmap::AtomicBitmap>, page: u64) -> u64 {
    region.start_addr().raw_value() + page * PAGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn memory() -> Memory {
        crate::memory::map(1 << 20, false).unwrap()
    }

    fn both(mut stream: &[u8], memory: &Memory) -> Result<Received, MigrateError> {
        welcome(&mut stream, memory)?;
        receive(&mut stream, memory, &mut [])
    }

    #[test]
    fn pages_arrive_and_lies_are_refused() {
        let (from, to) = (memory(), memory());
        to.write_slice(&[9; 4096], GuestAddress(0x5000)).unwrap();
        let mut stream = Vec::new();
        greet(&mut stream, &from, false).unwrap();
        send_pages(&mut stream, 0x3000, &[7; 8192]).unwrap();
        send_zeroes(&mut stream, 0x5000, 1).unwrap();
        let whole = stream.clone();
        // No state follows: the end of the stream is the end of the machine there.
        assert!(matches!(both(&whole, &to), Err(MigrateError::Stream(_))));
        let at = |address| to.read_obj::<u8>(GuestAddress(address)).unwrap();
        assert_eq!([0x2fff, 0x3000, 0x4fff, 0x5000].map(at), [0, 7, 7, 0]);
        let mut altered = whole.clone();
        altered[100] ^= 1;
        assert!(matches!(both(&altered, &to), Err(MigrateError::Nonsense(_))));
        for (address, count) in [(0x10_0000, 1), (0xf_f000, 2), (1, 1), (0, 0), (0, RUN_MAX + 1), (!0xfff, 1)] {
            let mut stream = Vec::new();
            greet(&mut stream, &from, false).unwrap();
            send_zeroes(&mut stream, address, count).unwrap();
            assert!(matches!(both(&stream, &to), Err(MigrateError::Nonsense(_))), "{address:#x}");
        }
    }

    proptest! {
        #[test]
        fn any_stream_is_survived(records in proptest::collection::vec(any::<u8>(), 0..3000), cut in 0usize..40) {
            let memory = memory();
            let mut stream = Vec::new();
            greet(&mut stream, &memory, cut % 2 == 0).unwrap();
            stream.truncate(cut.max(20));
            stream.extend(records);
            prop_assert!(both(&stream, &memory).is_err());
        }
    }
}
