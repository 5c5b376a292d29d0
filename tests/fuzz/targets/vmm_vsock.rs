//! vsock: packets of a guest that lies, against one caller and one who waits.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::virtio::Device;
use pilvi_vmm::virtio::vsock::Vsock;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};

mod rings;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut vsock = Vsock::new(3, UnixListener::bind(&path).unwrap(), Default::default()).unwrap();
    let mut callers: Vec<UnixStream> = (0..2).map(|_| UnixStream::connect(&path).unwrap()).collect();
    callers[0].write_all(b"ACCEPT 1\n").unwrap();
    callers[1].write_all(data.get(1..9).unwrap_or(b"CONNECT 1\n")).unwrap();
    vsock.activate(0);
    rings::drive(&mut vsock, data);
});
