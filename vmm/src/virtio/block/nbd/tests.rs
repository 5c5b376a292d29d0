//! Against a server of a few lines that answers out of order, goes away, and lies; and against any bytes.

use super::*;
use crate::virtio::chain::Piece;
use proptest::prelude::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use vm_memory::GuestAddress;

const BYTES: usize = 8 << 20;
/// Has flags, flushes, trims, makes zeroes.
const FLAGS: u16 = 1 | 1 << 2 | 1 << 5 | 1 << 6;

fn memory() -> Memory {
    crate::memory::map(16 << 20, false).unwrap()
}

/// What a server says until the export is agreed on.
fn greeting(bytes: u64, flags: u16) -> Vec<u8> {
    let mut out = b"NBDMAGICIHAVEOPT".to_vec();
    out.extend(3u16.to_be_bytes());
    let mut answer = |kind: u32, body: &[u8]| {
        out.extend(0x0003_e889_0455_65a9_u64.to_be_bytes());
        out.extend(7u32.to_be_bytes());
        out.extend(kind.to_be_bytes());
        out.extend((body.len() as u32).to_be_bytes());
        out.extend(body);
    };
    let mut info = vec![0, 0];
    info.extend(bytes.to_be_bytes());
    info.extend(flags.to_be_bytes());
    answer(3, &info);
    answer(1, &[]);
    out
}

/// Serves `disk` until `requests` have been read, and answers each two of them the other way round.
fn serve(mut disk: Vec<u8>, requests: usize) -> (OwnedFd, JoinHandle<Vec<u8>>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        theirs.write_all(&greeting(disk.len() as u64, FLAGS)).unwrap();
        let mut hello = [0; 4 + 8 + 4 + 4 + 10];
        theirs.read_exact(&mut hello).unwrap();
        assert!(hello.ends_with(b"disk\0\0"), "{hello:?}");
        let mut waiting: Vec<Vec<u8>> = Vec::new();
        for _ in 0..requests {
            let mut head = [0; 28];
            theirs.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
            if theirs.read_exact(&mut head).is_err() {
                // It waits for what we have kept back.
                waiting.drain(..).rev().for_each(|reply| theirs.write_all(&reply).unwrap());
                theirs.set_read_timeout(None).unwrap();
                if theirs.read_exact(&mut head).is_err() {
                    break;
                }
            }
            theirs.set_read_timeout(None).unwrap();
            let at = u64::from_be_bytes(head[16..24].try_into().unwrap()) as usize;
            let count = u32::from_be_bytes(head[24..].try_into().unwrap()) as usize;
            let mut answer = [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0].to_vec();
            answer.extend(&head[8..16]);
            match head[7] {
                0 => answer.extend(&disk[at..at + count]),
                1 => theirs.read_exact(&mut disk[at..at + count]).unwrap(),
                2 => break,
                6 => disk[at..at + count].fill(0),
                _ => {}
            }
            waiting.push(answer);
            if waiting.len() == 2 {
                waiting.drain(..).rev().for_each(|reply| theirs.write_all(&reply).unwrap());
            }
        }
        disk
    });
    (ours.into(), thread)
}

fn transfer(way: Way, offset: u64, pieces: &[(u64, u32)]) -> Transfer {
    let piece = |(address, length): &(u64, u32)| Piece { address: GuestAddress(*address), length: *length };
    Transfer { way, offset, pieces: pieces.iter().map(piece).collect() }
}

#[test]
fn bytes_go_both_ways_in_any_order_of_replies() {
    let (socket, server) = serve(vec![7; BYTES], usize::MAX);
    let link = Link::open(socket, "disk", false).unwrap();
    assert_eq!(link.bytes(), BYTES as u64);
    let (mut nbd, memory) = (Nbd::new(link.clone()), memory());
    for page in 0..1024u64 {
        memory.write_slice(&[page as u8; 4096], GuestAddress(page * 4096)).unwrap();
    }
    // More than one request each, over more than one piece of memory.
    let out = [transfer(Way::Write, 512, &[(4096, 512), (8192, 2 << 20)]), transfer(Way::Write, 4 << 20, &[(0, 4096)])];
    assert!(nbd.run(&out, &memory).iter().all(Result::is_ok));
    nbd.flush().unwrap();
    let back = [
        transfer(Way::Read, 512, &[(8 << 20, 2 << 20)]),
        transfer(Way::Read, 4 << 20, &[(12 << 20, 4096)]),
        transfer(Way::Read, 0, &[(13 << 20, 512)]),
    ];
    assert!(nbd.run(&back, &memory).iter().all(Result::is_ok));
    let at = |address: u64| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
    assert_eq!([at(8 << 20), at((8 << 20) + 512), at((12 << 20) + 1), at(13 << 20)], [1, 2, 0, 7]);
    nbd.zero(0, 1 << 20, false).unwrap();
    nbd.zero(0, 1 << 20, true).unwrap();
    // A machine that is reset goes on with the same connection.
    drop(nbd);
    let mut nbd = Nbd::new(link.clone());
    assert!(nbd.run(&back[2..], &memory)[0].is_ok());
    assert_eq!(at(13 << 20), 0);
    drop((nbd, link));
    assert_eq!(server.join().unwrap()[(2 << 20) + 1024], 7);
}

#[test]
fn a_server_that_goes_away_is_waited_for_and_what_was_asked_is_asked_again() {
    let (socket, first) = serve(vec![0; BYTES], 3);
    let link = Link::open(socket, "disk", false).unwrap();
    let (mut nbd, memory) = (Nbd::new(link.clone()), memory());
    memory.write_slice(&[9; 8192], GuestAddress(0)).unwrap();
    let all: Vec<Transfer> = (0..8).map(|n| transfer(Way::Write, n * 4096, &[(0, 4096)])).collect();
    let away = |results: Vec<io::Result<()>>| {
        results.iter().all(|result| result.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotConnected))
    };
    assert!(away(nbd.run(&all, &memory)) && nbd.is_away(true) && !link.is_connected());
    assert_eq!(nbd.flush().unwrap_err().kind(), ErrorKind::NotConnected);
    let disk = first.join().unwrap();
    // One that has less than before is not the same disk.
    let (socket, shorter) = serve(vec![0; 4096], 1);
    link.give(socket);
    assert!(nbd.is_away(true));
    drop(shorter);
    let (socket, second) = serve(disk, usize::MAX);
    link.give(socket);
    assert!(!nbd.is_away(true) && link.is_connected());
    assert!(nbd.run(&all, &memory).iter().all(Result::is_ok));
    drop((nbd, link));
    let disk = second.join().unwrap();
    assert!(disk[..8 * 4096].iter().all(|byte| *byte == 9) && disk[8 * 4096] == 0);
}

/// A connection on which these bytes have come, and no more will.
fn said(bytes: &[u8]) -> OwnedFd {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(bytes).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    // Kept open for what we say: it must not be the end of the test.
    std::mem::forget(theirs);
    ours.into()
}

#[test]
fn what_is_no_server_is_refused() {
    let good = greeting(4096, FLAGS);
    assert!(Link::open(said(&good), "disk", false).is_ok());
    let read_only = greeting(4096, FLAGS | 2);
    assert!(Link::open(said(&read_only), "disk", false).unwrap_err().to_string().contains("refuses writes"));
    assert!(Link::open(said(&read_only), "disk", true).is_ok());
    for (at, name) in [(0, "magic"), (8, "option"), (17, "flags"), (18, "reply"), (30, "kind")] {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        assert!(Link::open(said(&bad), "disk", false).is_err(), "{name}");
    }
    let mut long = good.clone();
    long[34..38].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(Link::open(said(&long), "disk", false).unwrap_err().to_string().contains("too long"));
    assert!(Link::open(said(&good[..40]), "disk", false).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_replies_are_survived(greets in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut all = if greets { greeting(BYTES as u64, FLAGS) } else { Vec::new() };
        all.extend(&bytes);
        if let Ok(link) = Link::open(said(&all), "disk", false) {
            let memory = memory();
            let mut nbd = Nbd::new(link);
            let results = nbd.run(&[transfer(Way::Read, 0, &[(0, 4096)]), transfer(Way::Write, 0, &[(0, 512)])], &memory);
            prop_assert_eq!(results.len(), 2);
            let _ = nbd.flush();
        }
    }
}
