//! What an NBD server says, in the negotiation and in its replies: nothing is reserved or written beyond what was asked for.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::virtio::block::file::{Backing, Transfer, Way};
use pilvi_vmm::virtio::block::nbd::{Link, Nbd};
use pilvi_vmm::virtio::chain::Piece;
use std::io::Write;
use std::os::unix::net::UnixStream;
use vm_memory::GuestAddress;

mod rings;

/// What a server with one MiB says before the first request: the rest of the input are its replies.
const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\0\x03\
    \0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x07\0\0\0\x03\0\0\0\x0c\0\0\0\0\0\0\0\x10\0\0\0\x65\
    \0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x07\0\0\0\x01\0\0\0\0";

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    if first & 1 == 0 {
        theirs.write_all(GREETING).unwrap();
    }
    theirs.write_all(rest).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    let Ok(link) = Link::open(ours.into(), "disk", first & 2 == 0) else { return };
    let (memory, mut nbd) = (rings::memory(), Nbd::new(link));
    let transfer = |way, offset| Transfer { way, offset, pieces: vec![Piece { address: GuestAddress(0), length: 512 }] };
    let all = [transfer(Way::Read, 0), transfer(Way::Write, 512), transfer(Way::Read, 1024)];
    assert_eq!(nbd.run(&all, &memory).len(), all.len());
    let _ = (nbd.flush(), nbd.zero(0, 4096, true), nbd.zero(0, 4096, false));
});
