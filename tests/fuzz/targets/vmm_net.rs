//! A card: frames on the wire are whole and of a possible length, whatever the rings say.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::virtio::net::{HEADER, Net, Wire};
use std::io;
use std::os::fd::RawFd;

mod rings;

/// Gives frames of growing length; takes all.
struct Ends(usize);

impl Wire for Ends {
    fn receive(&mut self, frame: &mut [u8]) -> io::Result<usize> {
        self.0 = self.0 * 3 + 14;
        if self.0 > 70_000 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok((HEADER + self.0).min(frame.len())) }
    }
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        assert!(frame.len() >= HEADER + 14 && frame.len() <= HEADER + 65_536 + 18);
        Ok(())
    }
    fn descriptor(&self) -> RawFd {
        -1
    }
    fn set_offloads(&mut self, _features: u64) {}
}

fuzz_target!(|data: &[u8]| {
    let mut net = Net::new(Box::new(Ends(0)), [2, 0, 0, 0, 0, 1], 1500, Default::default(), Default::default());
    rings::drive(&mut net, data);
});
