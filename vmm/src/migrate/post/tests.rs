//! A target without a machine, and a source made of bytes.

use super::super::receive::Stream;
use super::super::wire::{self as base, GO, PAGE, READY, RUNNING};
use super::fetch::{Begun, Fetch};
use super::wire::{self, ASK, COMPLETE};
use crate::fault::{Missing, Pager, uffd::Uffd};
use crate::machine::Stop;
use crate::memory::{self, Memory};
use crate::sandbox::Threads;
use std::io::{BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use vm_memory::{Bytes, GuestAddress};

const IDENTITY: [u8; 16] = [3; 16];

/// A target that misses these pages (by number), the source's end, and a folder with its door.
fn target(memory: &Memory, pages: &[u64]) -> Option<(Fetch, Pager, UnixStream, tempfile::TempDir)> {
    let Ok(uffd) = Uffd::open() else {
        eprintln!("SKIPPED: no userfaultfd that sees the kernel's faults");
        return None;
    };
    let dir = tempfile::tempdir().unwrap();
    let (stream, theirs) = UnixStream::pair().unwrap();
    let interrupt = theirs.try_clone().unwrap().into();
    let begun = Begun {
        id: "test".into(),
        uffd,
        listener: UnixListener::bind(dir.path().join("door")).unwrap(),
        input: BufReader::new(Stream { stream, interrupt, patience: None }),
        identity: IDENTITY,
        missing: vec![pages.iter().fold(vec![0; 4], |mut bits, page| {
            bits[(page / 64) as usize] |= 1u64 << (page % 64);
            bits
        })],
    };
    let (fetch, pager) = Fetch::start(begun, memory, &Threads::free(), &Stop::alone().unwrap()).unwrap();
    Some((fetch, pager, theirs, dir))
}

fn byte(input: &mut impl Read) -> u8 {
    let mut byte = [0];
    input.read_exact(&mut byte).unwrap();
    byte[0]
}

fn asked(input: &mut impl Read) -> u64 {
    assert_eq!(byte(input), ASK);
    let mut address = [0; 8];
    input.read_exact(&mut address).unwrap();
    u64::from_le_bytes(address) / PAGE
}

fn at(memory: &Memory, page: u64) -> u8 {
    memory.read_obj(GuestAddress(page * PAGE + 100)).unwrap()
}

#[test]
fn what_is_touched_is_asked_for_once_and_what_was_given_back_is_zeroes() {
    let memory = memory::map(1 << 20, true).unwrap();
    for page in [3, 5] {
        memory.write_slice(&[9; 4096], GuestAddress(page * PAGE)).unwrap();
    }
    let Some((fetch, pager, mut source, _dir)) = target(&memory, &[1, 2, 3, 8, 200, 255]) else { return };
    std::thread::scope(|scope| {
        // Two wait for one page; what came before and is not missing is there, what was never there are zeroes.
        let waiting = [(); 2].map(|()| scope.spawn(|| at(&memory, 2)));
        assert_eq!(asked(&mut source), 2);
        assert_eq!((at(&memory, 5), at(&memory, 100)), (9, 0));
        base::send_pages(&mut source, PAGE, &[7; 3 * PAGE as usize]).unwrap();
        waiting.into_iter().for_each(|one| assert_eq!(one.join().unwrap(), 7));
        // What it was before a page went missing does not count.
        assert_eq!(at(&memory, 3), 7);
        // Given back once it had come: nobody is asked. Given back before: it comes as it was.
        assert!(memory::give_back(&memory, 2 * PAGE, PAGE) && memory::give_back(&memory, 8 * PAGE, PAGE));
        assert_eq!(at(&memory, 2), 0);
        let waiting = scope.spawn(|| at(&memory, 8));
        assert_eq!(asked(&mut source), 8);
        base::send_pages(&mut source, 8 * PAGE, &[8; PAGE as usize]).unwrap();
        assert_eq!(waiting.join().unwrap(), 8);
        // A page that comes twice is not what it was.
        memory.write_slice(&[1; 4096], GuestAddress(PAGE)).unwrap();
        base::send_pages(&mut source, PAGE, &[6; PAGE as usize]).unwrap();
        let ready = scope.spawn(|| fetch.ready(|| false));
        assert_eq!(byte(&mut source), READY);
        source.write_all(&[GO]).unwrap();
        ready.join().unwrap().unwrap();
        fetch.running();
        assert_eq!(byte(&mut source), RUNNING);
        base::send_zeroes(&mut source, 200 * PAGE, 56).unwrap();
        assert_eq!(byte(&mut source), COMPLETE);
    });
    assert_eq!([1, 2, 8, 200, 255].map(|page| at(&memory, page)), [1, 0, 8, 0, 0]);
    assert_eq!(pager.seen.left.load(Ordering::Acquire), 0);
    drop(pager);
    assert_eq!(source.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_source_that_goes_before_its_word_frees_who_waits_and_nothing_runs() {
    let memory = memory::map(1 << 20, false).unwrap();
    let Some((fetch, pager, mut source, _dir)) = target(&memory, &[4]) else { return };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| at(&memory, 4));
        assert_eq!(asked(&mut source), 4);
        source.write_all(&[1, 2, 3]).unwrap();
        source.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(waiting.join().unwrap(), 0);
        assert!(fetch.ready(|| false).is_err());
    });
    assert!(!pager.seen.is_stuck());
    drop(pager);
    // The source does not hear that all is there.
    let mut rest = Vec::new();
    let _ = source.read_to_end(&mut rest);
    assert!(!rest.contains(&COMPLETE), "{rest:?}");
}

#[test]
fn another_stream_hears_what_is_missing_and_who_waits() {
    let memory = memory::map(1 << 20, false).unwrap();
    let Some((fetch, pager, mut source, dir)) = target(&memory, &[4, 6, 7]) else { return };
    source.write_all(&[GO]).unwrap();
    fetch.ready(|| false).unwrap();
    fetch.running();
    base::send_pages(&mut source, 6 * PAGE, &[6; PAGE as usize]).unwrap();
    assert_eq!((byte(&mut source), byte(&mut source)), (READY, RUNNING));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| at(&memory, 4));
        assert_eq!(asked(&mut source), 4);
        // A second word is nonsense, and as good as no stream.
        source.write_all(&[GO]).unwrap();
        assert_eq!(source.read(&mut [0]).unwrap(), 0);
        assert!(pager.seen.is_stuck());
        let mut source = UnixStream::connect(dir.path().join("door")).unwrap();
        wire::greet_again(&mut source, &IDENTITY).unwrap();
        assert_eq!(byte(&mut source), wire::MISSING);
        let (identity, bits) = wire::take_missing(&mut source, &memory).unwrap();
        let missing = Missing::new(&memory, bits);
        assert_eq!((identity, missing.left()), (IDENTITY, 2));
        assert!(missing.is_due(4 * PAGE) && missing.is_due(7 * PAGE));
        assert_eq!(asked(&mut source), 4);
        base::send_pages(&mut source, 4 * PAGE, &[4; PAGE as usize]).unwrap();
        assert_eq!(waiting.join().unwrap(), 4);
        assert!(!pager.seen.is_stuck());
        base::send_zeroes(&mut source, 7 * PAGE, 1).unwrap();
        assert_eq!(byte(&mut source), COMPLETE);
    });
}
