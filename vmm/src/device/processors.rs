//! The hot-plug controller of the processors: how a guest with ACPI learns which processors came and which are to go, and
//! says that it took one, or has let go of it.
//!
//! ```text
//!   absent ──came──► there, insert event ──guest says how it went (_OST)──► taken
//!     ▲                                                                      │ asked to go, remove event
//!     └───────────────────────────── _EJ0 ◄──────────────────────────────────┘        (or it says that it will not)
//! ```
//!
//! | port | read | written |
//! | --- | --- | --- |
//! | 0xcd8 (4 bytes) | 0 | the processor that the other registers are about |
//! | 0xcdc | bit 0 there, 1 came, 2 is to go | bit 1, 2 forget that event; bit 3 let go of it |
//! | 0xcdd | 0 | command: 0 look for an event, 1 and 2 say what came of one, 3 tell the APIC id |
//! | 0xce0 (4 bytes) | the processor with an event; the APIC id | of commands 1 and 2: which event, and how it went |
//!
//! The block is the modern one of QEMU's "ACPI CPU hot-plug interface" (its `docs/specs/acpi_cpu_hotplug`). Guests reach it
//! through the control methods of `boot::acpi::processors` only. The first processor never goes.

use crate::config::VCPUS_MAX;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// First port.
pub const FIRST: u16 = 0xcd8;
/// Last port.
pub const LAST: u16 = FIRST + BYTES - 1;
/// Ports of the block.
pub const BYTES: u16 = 12;
/// Bits of the status register.
pub const THERE: u8 = 1;
/// Written: forget it.
pub const CAME: u8 = 1 << 1;
/// Written: forget it.
pub const TO_GO: u8 = 1 << 2;
/// Written alone.
pub const EJECT: u8 = 1 << 3;
/// Commands.
pub const LOOK: u8 = 0;
/// What is written next is the event that the guest has dealt with.
pub const EVENT: u8 = 1;
/// What is written next is how it went.
pub const STATUS: u8 = 2;
const APIC_ID: u8 = 3;

/// Events as `_OST` names them: a device was looked at; it was asked to go, by us or from inside.
const CHECKED: u32 = 1;
const EJECTING: [u32; 2] = [3, 0x103];
/// How it went: well; it has begun.
const WELL: u32 = 0;
const IN_PROGRESS: u32 = 0x84;
const WORDS: usize = (VCPUS_MAX as usize).div_ceil(64);

/// A bit a processor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Set([u64; WORDS]);

impl Set {
    fn has(&self, number: u16) -> bool {
        self.0.get(usize::from(number / 64)).is_some_and(|word| word >> (number % 64) & 1 != 0)
    }

    fn put(&mut self, number: u16, there: bool) {
        if let Some(word) = self.0.get_mut(usize::from(number / 64)) {
            *word = (*word & !(1 << (number % 64))) | u64::from(there) << (number % 64);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// Which processors are there, for whoever asks often: each looks before it runs the guest.
#[derive(Debug, Default)]
pub struct Presence([AtomicU64; WORDS]);

impl Presence {
    /// Whether this one is.
    pub fn has(&self, number: u16) -> bool {
        let word = self.0.get(usize::from(number / 64)).map_or(0, |word| word.load(Ordering::Acquire));
        word >> (number % 64) & 1 != 0
    }

    /// How many are.
    pub fn count(&self) -> u16 {
        self.0.iter().map(|word| word.load(Ordering::Acquire).count_ones() as u16).sum()
    }
}

/// The registers, as a snapshot keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessorsState {
    possible: u16,
    there: Set,
    came: Set,
    to_go: Set,
    /// Came, and the guest has not said what it did about that.
    untold: Set,
    /// Are asked to go, and the guest has not said how it went: they are not asked again, or one that has gone and come back
    /// meanwhile would go by the second question.
    asked: Set,
    /// Were asked to go and will not, as the guest said.
    stay: Set,
    selected: u32,
    command: u8,
    event: u32,
}

/// The controller.
#[derive(Debug)]
pub struct Processors {
    state: ProcessorsState,
    presence: Arc<Presence>,
    /// Becomes readable when the guest has said something.
    pub told: EventFd,
}

impl Processors {
    /// After power-on: the first so many are there.
    pub fn new(there: u16, possible: u16, told: EventFd) -> Processors {
        let mut set = Set::default();
        (0..there).for_each(|number| set.put(number, true));
        let empty = Set::default();
        let state = ProcessorsState {
            possible: possible.min(VCPUS_MAX),
            there: set,
            came: empty,
            to_go: empty,
            untold: empty,
            asked: empty,
            stay: empty,
            selected: 0,
            command: LOOK,
            event: 0,
        };
        let controller = Processors { state, presence: Arc::default(), told };
        controller.publish();
        controller
    }

    fn publish(&self) {
        for (to, from) in self.presence.0.iter().zip(self.state.there.0) {
            to.store(from, Ordering::Release);
        }
    }

    /// Which are there.
    pub fn presence(&self) -> Arc<Presence> {
        self.presence.clone()
    }

    /// A processor is there.
    pub fn came(&mut self, number: u16) {
        if number >= self.state.possible {
            return;
        }
        for set in [&mut self.state.there, &mut self.state.came, &mut self.state.untold] {
            set.put(number, true);
        }
        for set in [&mut self.state.to_go, &mut self.state.asked] {
            set.put(number, false);
        }
        self.publish();
    }

    /// This many are to be there: the highest of the others are asked to go, and no others any longer.
    pub fn keep(&mut self, count: u16) {
        let state = &mut self.state;
        // Questions that the guest has not heard are taken back.
        state.asked.0.iter_mut().zip(state.to_go.0).for_each(|(asked, unheard)| *asked &= !unheard);
        (state.to_go, state.stay) = (Set::default(), Set::default());
        let there: Vec<u16> = (1..self.state.possible).rev().filter(|number| self.state.there.has(*number)).collect();
        let too_many = self.presence.count().saturating_sub(count);
        for number in there.into_iter().take(too_many.into()) {
            if !self.state.asked.has(number) {
                self.state.to_go.put(number, true);
                self.state.asked.put(number, true);
            }
        }
    }

    /// The lowest that are not there.
    pub fn absent(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.state.possible).filter(|number| !self.state.there.has(*number))
    }

    /// Whether this many are there and the guest has dealt with all that came.
    pub fn is_settled(&self, count: u16) -> bool {
        self.presence.count() == count && self.state.untold.is_empty()
    }

    /// Whether the guest said that it will not let go of one that was asked for.
    pub fn is_refused(&self) -> bool {
        !self.state.stay.is_empty()
    }

    /// Writes the registers down.
    pub fn save(&self) -> ProcessorsState {
        self.state
    }

    /// Takes them up. Refuses what this machine cannot have.
    #[must_use]
    pub fn restore(&mut self, state: ProcessorsState) -> bool {
        let beyond = (state.possible..VCPUS_MAX).any(|number| state.there.has(number));
        if state.possible != self.state.possible || beyond || !state.there.has(0) {
            return false;
        }
        self.state = state;
        self.publish();
        true
    }

    /// The processor that is selected, where it exists.
    fn selected(&self) -> Option<u16> {
        u16::try_from(self.state.selected).ok().filter(|number| *number < self.state.possible)
    }

    /// Reads a register. Accesses that are no whole register read as zeroes.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(0);
        let state = &self.state;
        let bit = |set: &Set, bit: u8| self.selected().filter(|number| set.has(*number)).map_or(0, |_| bit);
        match (port - FIRST, data) {
            (4, [byte]) => *byte = bit(&state.there, THERE) | bit(&state.came, CAME) | bit(&state.to_go, TO_GO),
            (8, data) if data.len() == 4 && matches!(state.command, LOOK | APIC_ID) => {
                data.copy_from_slice(&state.selected.to_le_bytes());
            }
            _ => {}
        }
    }

    /// Writes a register.
    pub fn write(&mut self, port: u16, data: &[u8]) {
        match (port - FIRST, data) {
            (0, [a, b, c, d]) => self.state.selected = u32::from_le_bytes([*a, *b, *c, *d]),
            (4, [byte]) => self.control(*byte),
            (5, [byte]) => {
                self.state.command = *byte;
                if *byte == LOOK {
                    self.look();
                }
            }
            (8, [a, b, c, d]) => self.told(u32::from_le_bytes([*a, *b, *c, *d])),
            _ => {}
        }
    }

    fn control(&mut self, bits: u8) {
        let Some(number) = self.selected() else { return };
        if bits & CAME != 0 {
            self.state.came.put(number, false);
        }
        if bits & TO_GO != 0 {
            self.state.to_go.put(number, false);
        }
        if bits & EJECT != 0 && number != 0 {
            let state = &mut self.state;
            for set in [&mut state.there, &mut state.came, &mut state.to_go] {
                set.put(number, false);
            }
            for set in [&mut state.untold, &mut state.asked, &mut state.stay] {
                set.put(number, false);
            }
            self.publish();
            let _ = self.told.write(1);
        }
    }

    /// Selects the next processor with an event; none: the selection stays.
    fn look(&mut self) {
        let (possible, from) = (self.state.possible, self.selected().unwrap_or(0));
        let mut all = (from..possible).chain(0..from);
        let found = all.find(|number| self.state.came.has(*number) || self.state.to_go.has(*number));
        if let Some(number) = found {
            self.state.selected = number.into();
        }
    }

    fn told(&mut self, value: u32) {
        let Some(number) = self.selected() else { return };
        match self.state.command {
            EVENT => self.state.event = value,
            STATUS if self.state.event == CHECKED => self.state.untold.put(number, false),
            STATUS if EJECTING.contains(&self.state.event) && value != IN_PROGRESS => {
                self.state.asked.put(number, false);
                self.state.stay.put(number, value != WELL && self.state.there.has(number));
            }
            _ => return,
        }
        let _ = self.told.write(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn processors(there: u16, possible: u16) -> Processors {
        Processors::new(there, possible, EventFd::new(libc::EFD_NONBLOCK).unwrap())
    }

    fn status(processors: &mut Processors, number: u32) -> u8 {
        processors.write(FIRST, &number.to_le_bytes());
        let mut byte = [9];
        processors.read(FIRST + 4, &mut byte);
        byte[0]
    }

    fn data(processors: &Processors) -> u32 {
        let mut word = [9; 4];
        processors.read(FIRST + 8, &mut word);
        u32::from_le_bytes(word)
    }

    fn tell(processors: &mut Processors, number: u32, event: u32, how: u32) {
        processors.write(FIRST, &number.to_le_bytes());
        for (command, value) in [(EVENT, event), (STATUS, how)] {
            processors.write(FIRST + 5, &[command]);
            processors.write(FIRST + 8, &value.to_le_bytes());
        }
    }

    #[test]
    fn a_processor_comes_is_taken_and_is_let_go_of() {
        let mut processors = processors(1, 4);
        assert_eq!([0, 1, 4, u32::MAX].map(|n| status(&mut processors, n)), [THERE, 0, 0, 0]);
        assert_eq!(processors.absent().next(), Some(1));
        processors.came(1);
        processors.came(9);
        assert!(!processors.is_settled(2) && processors.presence().count() == 2);
        processors.write(FIRST + 5, &[LOOK]);
        assert_eq!((data(&processors), status(&mut processors, 1)), (1, THERE | CAME));
        processors.write(FIRST + 4, &[CAME]);
        tell(&mut processors, 1, CHECKED, WELL);
        assert!(processors.is_settled(2) && processors.told.read().is_ok());
        processors.keep(1);
        processors.write(FIRST + 5, &[LOOK]);
        assert_eq!((data(&processors), status(&mut processors, 1)), (1, THERE | TO_GO));
        processors.write(FIRST + 4, &[TO_GO]);
        // Heard, and not answered: asked once.
        processors.keep(1);
        tell(&mut processors, 1, 3, IN_PROGRESS);
        assert_eq!(status(&mut processors, 1), THERE);
        assert!(!processors.is_refused());
        tell(&mut processors, 1, 3, 0x81);
        assert!(processors.is_refused());
        processors.keep(1);
        assert!(!processors.is_refused() && status(&mut processors, 1) == THERE | TO_GO);
        processors.write(FIRST + 4, &[EJECT]);
        assert!(processors.is_settled(1) && !processors.is_refused() && !processors.presence().has(1));
    }

    #[test]
    fn the_first_stays_and_the_highest_go() {
        let mut processors = processors(254, 254);
        processors.keep(252);
        assert_eq!([251, 252, 253].map(|n| status(&mut processors, n) & TO_GO), [0, TO_GO, TO_GO]);
        processors.keep(254);
        assert_eq!(status(&mut processors, 253), THERE);
        processors.write(FIRST, &0u32.to_le_bytes());
        processors.write(FIRST + 4, &[EJECT]);
        assert!(processors.presence().has(0));
    }

    #[test]
    fn registers_are_taken_up_where_they_fit() {
        let (mut one, mut other) = (processors(2, 8), processors(1, 8));
        one.came(5);
        assert!(other.restore(one.save()));
        assert_eq!((other.save(), other.presence().count()), (one.save(), 3));
        assert!(!processors(1, 4).restore(one.save()));
        let mut state = one.save();
        state.there.put(200, true);
        assert!(!other.restore(state));
        state = one.save();
        state.there.put(0, false);
        assert!(!other.restore(state));
    }

    proptest! {
        #[test]
        fn any_accesses_are_survived(
            accesses in proptest::collection::vec((FIRST..=LAST, any::<u32>(), 0usize..6, any::<bool>()), 0..200),
        ) {
            let mut processors = processors(3, 20);
            for (port, value, bytes, write) in accesses {
                let mut data = (u64::from(value % 32) | u64::from(value) << 32).to_le_bytes();
                match write {
                    true => processors.write(port, &data[..bytes]),
                    false => processors.read(port, &mut data[..bytes]),
                }
                prop_assert!(processors.presence().has(0));
                let save = processors.save();
                prop_assert!(processors.restore(save));
            }
        }
    }
}
