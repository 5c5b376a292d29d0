//! The keyboard controller (i8042), as much of it as power needs: the reset line, and Ctrl-Alt-Del as keys.
//!
//! A guest whose driver never turned the keyboard interrupt on cannot see keys; pressing is then refused, so that
//! whoever asked for a soft shutdown hears that this guest has no ear for it.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use vmm_sys_util::eventfd::EventFd;

/// Keys and answers.
pub const DATA: u16 = 0x60;
/// Commands in, status out.
pub const COMMAND: u16 = 0x64;

const STATUS_OUTPUT_FULL: u8 = 0x01;
const STATUS_SYSTEM: u8 = 0x04;
const STATUS_COMMAND: u8 = 0x08;
const STATUS_UNLOCKED: u8 = 0x10;

const CONFIG_KEYBOARD_INTERRUPT: u8 = 0x01;
const CONFIG_SYSTEM: u8 = 0x04;
const CONFIG_KEYBOARD_OFF: u8 = 0x10;
const CONFIG_AUX_OFF: u8 = 0x20;

/// Answers waiting for the guest; more are dropped.
const OUTPUT_MAX: usize = 16;

/// Left Control, left Alt, keypad-less Delete: pressed, then released (scan code set 1, as translated by the chip).
const CTRL_ALT_DEL: [u8; 8] = [0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d];

/// The controller in a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyboardState {
    config: u8,
    awaiting: Option<u8>,
    output: Vec<u8>,
}

/// The controller.
#[derive(Debug)]
pub struct Keyboard {
    interrupt: EventFd,
    config: u8,
    /// A command that takes its argument from the data port.
    awaiting: Option<u8>,
    output: VecDeque<u8>,
}

impl Keyboard {
    /// A controller after power-on. `interrupt` raises line 1.
    pub fn new(interrupt: EventFd) -> Keyboard {
        Keyboard { interrupt, config: CONFIG_SYSTEM | CONFIG_AUX_OFF, awaiting: None, output: VecDeque::new() }
    }

    /// Writes the controller down.
    pub fn save(&self) -> KeyboardState {
        let output = self.output.iter().copied().collect();
        KeyboardState { config: self.config, awaiting: self.awaiting, output }
    }

    /// Takes it up.
    pub fn restore(&mut self, state: &KeyboardState) {
        (self.config, self.awaiting) = (state.config, state.awaiting);
        self.output = state.output.iter().copied().take(OUTPUT_MAX).collect();
        self.raise();
    }

    fn answer(&mut self, byte: u8) {
        if self.output.len() < OUTPUT_MAX {
            self.output.push_back(byte);
            self.raise();
        }
    }

    fn raise(&self) {
        if self.config & CONFIG_KEYBOARD_INTERRUPT != 0 && !self.output.is_empty() {
            let _ = self.interrupt.write(1);
        }
    }

    /// Presses Ctrl-Alt-Del. False when the guest does not listen to a keyboard.
    pub fn press_ctrl_alt_del(&mut self) -> bool {
        let listening = self.config & CONFIG_KEYBOARD_INTERRUPT != 0 && self.config & CONFIG_KEYBOARD_OFF == 0;
        if listening {
            self.output.clear();
            self.output.extend(CTRL_ALT_DEL);
            self.raise();
        }
        listening
    }

    /// Status or the next byte.
    pub fn read(&mut self, port: u16) -> u8 {
        if port == COMMAND {
            let full = if self.output.is_empty() { 0 } else { STATUS_OUTPUT_FULL };
            return full | STATUS_SYSTEM | STATUS_UNLOCKED | if self.awaiting.is_some() { STATUS_COMMAND } else { 0 };
        }
        let byte = self.output.pop_front().unwrap_or(0);
        // The line is edge triggered: each byte that is left needs an edge of its own.
        self.raise();
        byte
    }

    /// A command or its argument. True: pull the reset line.
    pub fn write(&mut self, port: u16, value: u8) -> bool {
        if port == COMMAND {
            self.awaiting = None;
            match value {
                0x20 => self.answer(self.config),
                0x60 | 0xd1 | 0xd2 | 0xd4 => self.awaiting = Some(value),
                0xa7 => self.config |= CONFIG_AUX_OFF,
                0xaa => self.answer(0x55), // self test passed
                0xab => self.answer(0x00), // keyboard port works
                0xa9 => self.answer(0x01), // there is no second port
                0xad => self.config |= CONFIG_KEYBOARD_OFF,
                0xae => self.config &= !CONFIG_KEYBOARD_OFF,
                // Pulse output lines: bit 0 low is the reset line.
                0xf0..=0xff => return value & 1 == 0,
                _ => {}
            }
            return false;
        }
        match self.awaiting.take() {
            Some(0x60) => self.config = value,
            Some(0xd1) => return value & 1 == 0, // output port: bit 0 is the reset line, active low
            Some(0xd2) => self.answer(value),
            Some(_) => {}
            None => self.keyboard_command(value),
        }
        false
    }

    /// Bytes for the keyboard itself: every command is acknowledged.
    fn keyboard_command(&mut self, value: u8) {
        self.answer(0xfa);
        match value {
            0xff => self.answer(0xaa),
            0xf2 => {
                self.answer(0xab);
                self.answer(0x83);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyboard() -> Keyboard {
        Keyboard::new(EventFd::new(libc::EFD_NONBLOCK).unwrap())
    }

    #[test]
    fn only_the_reset_line_resets() {
        let mut k = keyboard();
        assert!(k.write(COMMAND, 0xfe));
        assert!(!k.write(COMMAND, 0xff));
        assert!(!k.write(DATA, 0xfe));
        assert!(!k.write(COMMAND, 0xd1));
        assert!(k.write(DATA, 0x02));
    }

    #[test]
    fn keys_reach_only_a_guest_that_listens() {
        let mut k = keyboard();
        assert!(!k.press_ctrl_alt_del());
        k.write(COMMAND, 0x60);
        k.write(DATA, CONFIG_KEYBOARD_INTERRUPT);
        assert!(k.press_ctrl_alt_del());
        let mut got = Vec::new();
        while k.read(COMMAND) & STATUS_OUTPUT_FULL != 0 {
            got.push(k.read(DATA));
        }
        assert_eq!(got, CTRL_ALT_DEL);
        assert!(k.interrupt.read().unwrap() >= 8);
    }

    #[test]
    fn a_driver_can_probe_it() {
        let mut k = keyboard();
        k.write(COMMAND, 0xaa);
        assert_eq!(k.read(DATA), 0x55);
        k.write(DATA, 0xf2);
        assert_eq!([k.read(DATA), k.read(DATA), k.read(DATA)], [0xfa, 0xab, 0x83]);
        for _ in 0..100 {
            k.write(DATA, 0xff);
        }
        assert!(k.output.len() <= OUTPUT_MAX);
    }
}
