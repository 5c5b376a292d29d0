//! What post-copy adds to the stream.
//!
//! | record | bytes |
//! | --- | --- |
//! | greeting | as ever, with version 3; answered with one byte: can (14) or cannot (15) |
//! | missing | 11, identity (16), CRC-32 of the bits (4), a bit for each page of guest memory, by region in words (8) |
//! | greeting of another stream | `PILVIRES`, version (4), identity (16); answered with a missing record |
//!
//! The target asks with 12 and the address of a page (8), and says complete (13) in the end. All else is as before.

use super::super::MigrateError;
use super::super::wire::{number, take_pages, take_zeroes};
use crate::fault::{Bits, PAGE};
use crate::memory::Memory;
use std::io::{Read, Write};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// Names a machine on its way.
pub type Identity = [u8; 16];

/// Of a stream that may end in post-copy.
pub const VERSION: u32 = 3;
/// Opens the record of missing pages.
pub const MISSING: u8 = 11;
/// The target wants a page.
pub const ASK: u8 = 12;
/// The target has them all.
pub const COMPLETE: u8 = 13;
/// The target can bring pages as they are touched.
pub const CAN: u8 = 14;
/// It cannot.
pub const CANNOT: u8 = 15;
const AGAIN: &[u8; 8] = b"PILVIRES";

/// Made up for this move.
pub fn identity() -> Result<Identity, MigrateError> {
    let mut bytes = [0; 16];
    // SAFETY: pointer and length are of one live array.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == 16 { Ok(bytes) } else { Err(std::io::Error::last_os_error().into()) }
}

/// Which pages the target does not have.
pub fn send_missing(out: &mut impl Write, identity: &Identity, bits: &Bits) -> Result<(), MigrateError> {
    let bytes: Vec<u8> = bits.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
    out.write_all(&[MISSING])?;
    out.write_all(identity)?;
    out.write_all(&crc32fast::hash(&bytes).to_le_bytes())?;
    out.write_all(&bytes)?;
    Ok(())
}

/// The same, after its first byte. As much is read as this memory has pages.
pub fn take_missing(input: &mut impl Read, memory: &Memory) -> Result<(Identity, Bits), MigrateError> {
    let identity = number(input)?;
    let sum = u32::from_le_bytes(number(input)?);
    let mut hash = crc32fast::Hasher::new();
    let mut bits = Bits::new();
    for region in memory.iter() {
        let words = (region.len() / PAGE).div_ceil(64) as usize;
        let mut bytes = vec![0; words * 8];
        input.read_exact(&mut bytes)?;
        hash.update(&bytes);
        let word = |part: &[u8]| part.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        bits.push(bytes.chunks(8).map(word).collect());
    }
    if hash.finalize() != sum {
        return Err(MigrateError::Nonsense("the list of missing pages was altered on its way"));
    }
    Ok((identity, bits))
}

/// First words of another stream for the same machine.
pub fn greet_again(out: &mut impl Write, identity: &Identity) -> Result<(), MigrateError> {
    out.write_all(&[&AGAIN[..], &VERSION.to_le_bytes(), identity].concat())?;
    Ok(())
}

/// Whether these are the first words of this machine's source.
pub fn welcome_again(input: &mut impl Read, identity: &Identity) -> Result<(), MigrateError> {
    if number::<8>(input)? != *AGAIN || u32::from_le_bytes(number(input)?) != VERSION {
        return Err(MigrateError::Nonsense("it does not go on with a migration of this version"));
    }
    if number::<16>(input)? != *identity {
        return Err(MigrateError::Nonsense("it is the source of another machine"));
    }
    Ok(())
}

/// The target wants the page at this address.
pub fn send_ask(out: &mut impl Write, address: u64) -> std::io::Result<()> {
    let mut record = vec![ASK];
    record.extend(address.to_le_bytes());
    out.write_all(&record)
}

/// What a source says once the target builds the machine.
#[derive(Debug)]
pub enum Record {
    /// Contents, which lie in the buffer.
    Pages {
        /// Address of the first.
        address: u64,
        /// Bytes.
        bytes: usize,
    },
    /// Pages of zeroes.
    Zeroes {
        /// Address of the first.
        address: u64,
        /// Bytes.
        bytes: usize,
    },
    /// The machine shall run.
    Go,
}

/// The next of them; checked as before, and written nowhere.
pub fn take_record(input: &mut impl Read, memory: &Memory, buffer: &mut [u8]) -> Result<Record, MigrateError> {
    use super::super::wire::{GO, PAGES, ZEROES};
    match number::<1>(input)? {
        [PAGES] => {
            take_pages(input, memory, buffer).map(|(address, bytes)| Record::Pages { address: address.0, bytes })
        }
        [ZEROES] => take_zeroes(input, memory).map(|(address, bytes)| Record::Zeroes { address: address.0, bytes }),
        [GO] => Ok(Record::Go),
        _ => Err(MigrateError::Nonsense("an unknown record")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn missing_pages_are_told_whole_or_not_at_all() {
        let memory = crate::memory::map(1 << 20, false).unwrap();
        let (identity, bits) = (identity().unwrap(), vec![vec![1, 2, 3, u64::MAX]]);
        let mut stream = Vec::new();
        send_missing(&mut stream, &identity, &bits).unwrap();
        assert_eq!(take_missing(&mut &stream[1..], &memory).unwrap(), (identity, bits));
        for end in 1..stream.len() {
            assert!(take_missing(&mut &stream[1..end], &memory).is_err(), "{end}");
        }
        for at in 17..stream.len() {
            let mut altered = stream.clone();
            altered[at] ^= 0x10;
            assert!(take_missing(&mut &altered[1..], &memory).is_err(), "{at}");
        }
    }

    #[test]
    fn another_stream_is_for_the_same_machine() {
        let (ours, theirs) = (identity().unwrap(), identity().unwrap());
        let mut stream = Vec::new();
        greet_again(&mut stream, &ours).unwrap();
        welcome_again(&mut &stream[..], &ours).unwrap();
        assert!(welcome_again(&mut &stream[..], &theirs).unwrap_err().to_string().contains("another machine"));
        stream[8] ^= 1;
        assert!(welcome_again(&mut &stream[..], &ours).is_err());
    }

    proptest! {
        #[test]
        fn any_record_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let memory = crate::memory::map(1 << 20, false).unwrap();
            let (mut input, mut buffer) = (&bytes[..], vec![0; 1 << 20]);
            while take_record(&mut input, &memory, &mut buffer).is_ok() {}
            prop_assert!(take_missing(&mut &bytes[..], &memory).is_err());
        }
    }
}
