//! COM1: a 16550 (crate `vm-superio`) between the guest and the console.
//!
//! Output goes to the console byte by byte. Input waits here, bounded, and is fed into the chip's FIFO as the guest
//! reads it.

use crate::device::console::Console;
use crate::snapshot::SnapshotError;
use serde::{Deserialize, Serialize};
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

/// The port in a snapshot. The registers are named as the chip's manual does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SerialState {
    divisor_low: u8,
    divisor_high: u8,
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    fifo: Vec<u8>,
    input: Vec<u8>,
}

/// The chip and the input that waits for it.
pub struct SerialPort {
    chip: Serial<Line, NoEvents, Out>,
    input: VecDeque<u8>,
    /// To build the chip anew around a saved state.
    line: EventFd,
    console: Arc<Console>,
}

impl SerialPort {
    /// A port after power-on.
    pub fn new(line: EventFd, console: Arc<Console>) -> io::Result<SerialPort> {
        let chip = Serial::new(Line(line.try_clone()?), Out(console.clone()));
        Ok(SerialPort { chip, input: VecDeque::new(), line, console })
    }

    /// Writes the port down.
    pub fn save(&self) -> SerialState {
        let chip = self.chip.state();
        SerialState {
            divisor_low: chip.baud_divisor_low,
            divisor_high: chip.baud_divisor_high,
            interrupt_enable: chip.interrupt_enable,
            interrupt_identification: chip.interrupt_identification,
            line_control: chip.line_control,
            line_status: chip.line_status,
            modem_control: chip.modem_control,
            modem_status: chip.modem_status,
            scratch: chip.scratch,
            fifo: chip.in_buffer,
            input: self.input.iter().copied().collect(),
        }
    }

    /// Takes it up.
    pub fn restore(&mut self, state: &SerialState) -> Result<(), SnapshotError> {
        let chip = vm_superio::serial::SerialState {
            baud_divisor_low: state.divisor_low,
            baud_divisor_high: state.divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.fifo.clone(),
        };
        let line = Line(self.line.try_clone().map_err(SnapshotError::file("make the serial line"))?);
        let chip = Serial::from_state(&chip, line, NoEvents, Out(self.console.clone()));
        self.chip = chip.map_err(|e| SnapshotError::Malformed(format!("serial port: {e}")))?;
        self.input = state.input.iter().copied().take(INPUT_BYTES_MAX).collect();
        self.feed();
        Ok(())
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
        (SerialPort::new(EventFd::new(libc::EFD_NONBLOCK).unwrap(), console.clone()).unwrap(), console)
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
