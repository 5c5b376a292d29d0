//! COM1: a 16550 (crate `vm-superio`) between the guest and the console.
//!
//! Output goes to the console byte by byte. Input waits here, bounded, and is fed into the chip's FIFO as the guest
//! reads it.

use crate::device::console::Console;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

/// First port of COM1.
pub const FIRST: u16 = 0x3f8;
/// Last port of COM1.
pub const LAST: u16 = 0x3ff;
/// Interrupt line of COM1.
pub const LINE: u32 = 4;
/// Most input bytes that wait for the guest.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;

/// An interrupt line.
#[derive(Debug)]
pub struct Line(pub EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> Result<(), io::Error> {
        self.0.write(1)
    }
}

/// The chip's way out.
pub struct Out(Arc<Console>);

impl io::Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The chip and the input that waits for it.
pub struct SerialPort {
    chip: Serial<Line, NoEvents, Out>,
    input: VecDeque<u8>,
}

impl SerialPort {
    /// A port after power-on.
    pub fn new(interrupt: EventFd, console: Arc<Console>) -> SerialPort {
        SerialPort { chip: Serial::new(Line(interrupt), Out(console)), input: VecDeque::new() }
    }

    /// Guest writes a register.
    pub fn write(&mut self, offset: u8, value: u8) {
        // Errors are a full host disk or a lost interrupt descriptor: neither may stop the guest.
        let _ = self.chip.write(offset, value);
        self.feed();
    }

    /// Guest reads a register.
    pub fn read(&mut self, offset: u8) -> u8 {
        let value = self.chip.read(offset);
        if offset == 0 {
            self.feed();
        }
        value
    }

    /// Input for the guest. Returns how many bytes were taken; the rest did not fit.
    pub fn type_in(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(INPUT_BYTES_MAX - self.input.len());
        self.input.extend(&bytes[..taken]);
        self.feed();
        taken
    }

    fn feed(&mut self) {
        while !self.input.is_empty() {
            let (front, _) = self.input.as_slices();
            match self.chip.enqueue_raw_bytes(front) {
                Ok(count) if count > 0 => drop(self.input.drain(..count)),
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> (SerialPort, Arc<Console>) {
        let console = Arc::new(Console::new(tempfile::tempfile().unwrap(), 4096).unwrap());
        (SerialPort::new(EventFd::new(libc::EFD_NONBLOCK).unwrap(), console.clone()), console)
    }

    #[test]
    fn output_reaches_the_console() {
        let (mut port, console) = port();
        b"hello".iter().for_each(|b| port.write(0, *b));
        assert_eq!(console.tail(100).unwrap(), b"hello");
    }

    #[test]
    fn input_larger_than_the_fifo_arrives_whole_and_is_bounded() {
        let (mut port, _) = port();
        let text: Vec<u8> = (0..1000u32).map(|n| (n % 251) as u8).collect();
        assert_eq!(port.type_in(&text), 1000);
        let mut got = Vec::new();
        while port.read(5) & 1 != 0 {
            got.push(port.read(0));
        }
        assert_eq!(got, text);
        // What the chip's FIFO takes makes room once; after that the bound holds.
        let flood = vec![0; 2 * INPUT_BYTES_MAX];
        assert_eq!(port.type_in(&flood) + port.type_in(&flood), INPUT_BYTES_MAX + 64);
        assert_eq!(port.type_in(&[1; 10]), 0);
    }
}
