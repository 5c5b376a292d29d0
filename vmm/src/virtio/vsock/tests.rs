//! The device between a host program and a guest that is a few rings.

use super::super::chain::tests::*;
use super::*;
use proptest::prelude::*;
use std::io::Write;
use vm_memory::{Bytes, GuestAddress};

const CID: u32 = 3;

struct Rig {
    memory: Memory,
    queues: Vec<Queue>,
    vsock: Vsock,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let vsock = Vsock::new(CID, UnixListener::bind(&path).unwrap(), Arc::default()).unwrap();
    Rig { memory: memory(), queues: vec![queue(8), queue(8), queue(8)], vsock, path, _dir: dir }
}

impl Rig {
    /// The guest sends a packet: the rings serve one way at a time.
    fn send(&mut self, packet: Packet, data: &[u8]) {
        let mut queue = queue(8);
        self.memory.write_slice(&[0; 0x2000], GuestAddress(AVAILABLE)).unwrap();
        self.memory.write_slice(&packet.bytes(), GuestAddress(0x8000)).unwrap();
        self.memory.write_slice(data, GuestAddress(0x8000 + HEADER as u64)).unwrap();
        descriptor(&self.memory, DESCRIPTORS, 0, 0x8000, (HEADER + data.len()) as u32, 0, 0);
        offer(&self.memory, 8, &[0]);
        std::mem::swap(&mut queue, &mut self.queues[TRANSMIT]);
        let served = self.vsock.serve(TRANSMIT, &mut self.queues, &self.memory).unwrap();
        assert!(served.host);
    }

    /// The guest gives one buffer and gets a packet, if there is one.
    fn receive(&mut self) -> Option<(Packet, Vec<u8>)> {
        self.queues[RECEIVE] = queue(8);
        self.memory.write_slice(&[0; 0x2000], GuestAddress(AVAILABLE)).unwrap();
        descriptor(&self.memory, DESCRIPTORS, 0, 0x1_0000, 4096, WRITE, 0);
        offer(&self.memory, 8, &[0]);
        self.vsock.host_ready(&mut self.queues, &self.memory).unwrap();
        let (_, written) = *used(&self.memory, 8).first()?;
        let mut header = [0; HEADER];
        self.memory.read_slice(&mut header, GuestAddress(0x1_0000)).unwrap();
        let mut data = vec![0; written as usize - HEADER];
        self.memory.read_slice(&mut data, GuestAddress(0x1_0000 + HEADER as u64)).unwrap();
        Some((Packet::read(&header), data))
    }

    fn call(&self, line: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.path).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        stream
    }

    fn read(stream: &mut UnixStream, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    }
}

fn from_guest(host_port: u32, guest_port: u32, op: u16, length: usize) -> Packet {
    Packet {
        source_cid: u64::from(CID),
        target_cid: HOST_CID,
        source_port: guest_port,
        target_port: host_port,
        length: length as u32,
        kind: STREAM,
        op,
        flags: 0,
        buffer: 4096,
        forwarded: 0,
    }
}

#[test]
fn a_host_program_connects_to_the_guest() {
    let mut rig = rig();
    let mut caller = rig.call("CONNECT 52\nfirst");
    // Accepting and reading the line take a look each.
    let request = (0..3).find_map(|_| rig.receive()).unwrap().0;
    assert_eq!((request.op, request.target_port, request.target_cid), (op::REQUEST, 52, 3));
    let host_port = request.source_port;
    rig.send(from_guest(host_port, 52, op::RESPONSE, 0), b"");
    assert_eq!(Rig::read(&mut caller, 14), format!("OK {host_port}\n").into_bytes());
    let (packet, data) = rig.receive().unwrap();
    assert_eq!((packet.op, data.as_slice()), (op::RW, &b"first"[..]));
    rig.send(from_guest(host_port, 52, op::RW, 5), b"hello");
    assert_eq!(Rig::read(&mut caller, 5), b"hello");
    // Nothing to say: the guest keeps its buffer.
    assert_eq!(rig.receive(), None);
    rig.send(from_guest(host_port, 52, op::CREDIT_REQUEST, 0), b"");
    assert_eq!(rig.receive().unwrap().0.forwarded, 5);
    drop(caller);
    let end = rig.receive().unwrap().0;
    assert_eq!((end.op, end.flags), (op::SHUTDOWN, 3));
    rig.send(from_guest(host_port, 52, op::RST, 0), b"");
    assert!(rig.vsock.connections.is_empty());
}

#[test]
fn the_guest_reaches_only_who_waits_for_it() {
    let mut rig = rig();
    rig.send(from_guest(1024, 7, op::REQUEST, 0), b"");
    assert_eq!(rig.receive().unwrap().0.op, op::RST);
    let mut waiting = rig.call("ACCEPT 1024\n");
    for _ in 0..3 {
        assert_eq!(rig.receive(), None);
    }
    rig.send(from_guest(1024, 7, op::REQUEST, 0), b"");
    assert_eq!(rig.receive().unwrap().0.op, op::RESPONSE);
    assert_eq!(Rig::read(&mut waiting, 5), b"OK 7\n");
    rig.send(from_guest(1024, 7, op::RW, 2), b"hi");
    assert_eq!(Rig::read(&mut waiting, 2), b"hi");
    rig.send(from_guest(1024, 7, op::SHUTDOWN, 0), b"");
    let both = Packet { flags: 3, ..from_guest(1024, 7, op::SHUTDOWN, 0) };
    rig.send(both, b"");
    assert_eq!(rig.receive().unwrap().0.op, op::RST);
    assert_eq!(waiting.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn credit_bounds_what_waits_on_both_sides() {
    let mut rig = rig();
    let mut waiting = rig.call("ACCEPT 9\n");
    rig.receive();
    rig.receive();
    rig.send(from_guest(9, 7, op::REQUEST, 0), b"");
    assert_eq!(rig.receive().unwrap().0.op, op::RESPONSE);
    // The guest said 4096 bytes.
    waiting.write_all(&[1; 10_000]).unwrap();
    let mut got = 0;
    while let Some((packet, data)) = rig.receive() {
        assert_eq!(packet.op, op::RW);
        got += data.len();
    }
    assert_eq!(got, 4096);
    rig.send(Packet { forwarded: 4096, ..from_guest(9, 7, op::CREDIT_UPDATE, 0) }, b"");
    assert!(rig.receive().is_some());
    // Nobody reads on the host's side: at last there is more than we said we had room for.
    let flood = vec![2; 0x8000];
    for _ in 0..100 {
        rig.send(from_guest(9, 7, op::RW, flood.len()), &flood);
    }
    assert!(rig.vsock.connections.is_empty());
}

#[test]
fn lies_are_answered_with_resets() {
    let mut rig = rig();
    for packet in [
        Packet { source_cid: 9, ..from_guest(1, 2, op::REQUEST, 0) },
        Packet { target_cid: 1, ..from_guest(1, 2, op::REQUEST, 0) },
        Packet { kind: 2, ..from_guest(1, 2, op::REQUEST, 0) },
        Packet { length: 1 << 30, ..from_guest(1, 2, op::RW, 0) },
        from_guest(1, 2, op::RW, 0),
        from_guest(1, 2, 77, 0),
    ] {
        rig.send(packet, b"");
        assert_eq!(rig.receive().unwrap().0.op, op::RST, "{packet:?}");
    }
}

#[test]
fn after_a_restore_the_guest_hears_that_connections_are_gone() {
    let mut rig = rig();
    let saved = rig.vsock.save().unwrap();
    rig.vsock.restore(&saved, &rig.memory).unwrap();
    descriptor(&rig.memory, DESCRIPTORS, 0, 0x8000, 4, WRITE, 0);
    offer(&rig.memory, 8, &[0]);
    assert!(rig.vsock.serve(EVENT, &mut rig.queues, &rig.memory).unwrap().interrupt);
    assert!(rig.vsock.restore(&snapshot::encode(&9u64).unwrap(), &rig.memory).is_err());
}

proptest! {
    #[test]
    fn any_packets_are_survived(packets in proptest::collection::vec(
        (0u32..3, 0u32..3, 0u16..9, 0u32..4, 0u32..70_000, any::<u32>()), 1..30)) {
        let mut rig = rig();
        let _waiting = rig.call("ACCEPT 1\n");
        rig.receive();
        rig.receive();
        for (host, guest, op, flags, length, forwarded) in packets {
            let packet = Packet { flags, length, forwarded, ..from_guest(host, guest, op, 0) };
            rig.send(packet, &[0; 100]);
            rig.receive();
        }
        prop_assert!(rig.vsock.answers.len() <= ANSWERS_MAX);
    }
}
