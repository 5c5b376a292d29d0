//! The talk with one debugger: what it asks is done to a [`Target`], what stops the guest is told to it.
//!
//! ```text
//!              resume, one or all, on or by one instruction
//!   stopped ──────────────────────────────────────────────► running
//!      ▲  registers, memory, points                             │ point hit, instruction done, interrupt
//!      └──────────────────── why, and which processor ◄─────────┘
//! ```
//! All processors stand still while one is looked at. An instruction that is put into memory is kept with the place where it was
//! put, so that it is taken out there, whatever the guest's tables say by then; and whoever reads does not see it.
use super::command::{Command, How, Point, PointKind, Which};
use super::packet::{Framer, Input, PACKET_MAX, frame, hex};
use super::registers::{self, Registers};
use super::walk;
use std::collections::BTreeMap;

/// Most points of one debugger; of the others than software there are four.
const POINTS_MAX: usize = 4096;
pub const HARDWARE_MAX: usize = 4;
/// INT3.
const TRAP: u8 = 0xcc;
/// Numbers of signals, as the protocol has them.
const SIGINT: u8 = 2;
const SIGTRAP: u8 = 5;

/// What a processor does when the guest goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Run,
    Step,
    /// It stands still, another one is stepped.
    Hold,
}

/// Why the guest stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was asked to.
    Interrupted,
    Stepped,
    Software,
    Hardware,
    /// Something at this address was written, or read.
    Watched(u64, PointKind),
}

/// A machine that can be looked into. It stands still but between `go` and the next stop.
pub trait Target {
    /// How many processors it has, or had.
    fn processors(&self) -> usize;
    /// Whether this one is there: they come and go.
    fn is_there(&self, processor: usize) -> bool {
        processor < self.processors()
    }
    /// All registers of one.
    fn registers(&self, processor: usize) -> Option<Registers>;
    /// Other values for them.
    fn set_registers(&mut self, processor: usize, registers: &Registers) -> bool;
    /// Guest memory; all of it or nothing.
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool;
    /// The same.
    fn write(&mut self, address: u64, bytes: &[u8]) -> bool;
    /// Lets the guest go on; each processor as it is said, with these points of the processors themselves. `planted` are the
    /// addresses of instructions in memory.
    fn go(&mut self, next: &[Next], hardware: &[Point], planted: &[u64]) -> bool;
    /// Stops it.
    fn stop(&mut self) -> bool;
}

/// How the talk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The guest shall go on by itself.
    Detached,
    /// The guest shall end.
    Killed,
}

struct Planted {
    place: u64,
    /// What was there.
    byte: u8,
}

/// One debugger.
#[derive(Default)]
pub struct Session {
    framer: Framer,
    silent: bool,
    last: Vec<u8>,
    /// Whose registers are meant; whom a plain step is for.
    chosen: usize,
    stepped: Option<usize>,
    planted: BTreeMap<u64, Planted>,
    hardware: Vec<Point>,
    running: bool,
    why: Option<(usize, Why)>,
}

const OK: &[u8] = b"OK";
const ERROR: &[u8] = b"E01";

impl Session {
    /// Whether the guest goes on as far as the debugger knows.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Takes what the debugger sent; gives what it is to hear, and whether that was the end.
    pub fn take(&mut self, bytes: &[u8], target: &mut dyn Target) -> (Vec<u8>, Option<Ended>) {
        let mut out = Vec::new();
        for input in self.framer.feed(bytes) {
            let packet = match input {
                Input::Packet(packet) => packet,
                Input::Damaged => {
                    out.push(b'-');
                    continue;
                }
                Input::Again => {
                    out.extend(&self.last);
                    continue;
                }
                Input::Interrupt => {
                    if self.running && target.stop() {
                        let text = self.stopped_because(0, Why::Interrupted);
                        self.say(&mut out, text.as_bytes());
                    }
                    continue;
                }
            };
            if !self.silent {
                out.push(b'+');
            }
            match Command::of(&packet) {
                Command::Detach => {
                    self.clear(target);
                    self.say(&mut out, OK);
                    return (out, Some(Ended::Detached));
                }
                Command::Kill => {
                    self.say(&mut out, OK);
                    return (out, Some(Ended::Killed));
                }
                // One that runs answers when it has stopped.
                _ if self.running => {}
                Command::Resume(actions) => {
                    if !self.resume(&actions, target) {
                        self.say(&mut out, ERROR);
                    }
                }
                command => {
                    let answer = self.answer(command, target).unwrap_or_else(|| ERROR.to_vec());
                    self.say(&mut out, &answer);
                }
            }
        }
        (out, None)
    }

    /// The guest has stopped by itself: what the debugger is to hear.
    pub fn stopped(&mut self, processor: usize, why: Why) -> Vec<u8> {
        let mut out = Vec::new();
        if self.running {
            let text = self.stopped_because(processor, why);
            self.say(&mut out, text.as_bytes());
        }
        out
    }

    /// Whether an instruction at this address is ours.
    pub fn planted(&self, address: u64) -> bool {
        self.planted.contains_key(&address)
    }

    /// Takes everything out of the guest again.
    pub fn clear(&mut self, target: &mut dyn Target) {
        for planted in std::mem::take(&mut self.planted).into_values() {
            target.write(planted.place, &[planted.byte]);
        }
        self.hardware.clear();
    }

    fn say(&mut self, out: &mut Vec<u8>, content: &[u8]) {
        self.last = frame(content);
        out.extend(&self.last);
    }

    fn stopped_because(&mut self, processor: usize, why: Why) -> String {
        (self.running, self.chosen, self.why) = (false, processor, Some((processor, why)));
        self.reason()
    }

    fn reason(&self) -> String {
        let (processor, why) = self.why.unwrap_or((0, Why::Interrupted));
        let signal = if why == Why::Interrupted { SIGINT } else { SIGTRAP };
        let detail = match why {
            Why::Interrupted | Why::Stepped => String::new(),
            Why::Software => "swbreak:;".into(),
            Why::Hardware => "hwbreak:;".into(),
            Why::Watched(address, PointKind::Access) => format!("awatch:{address:x};"),
            Why::Watched(address, _) => format!("watch:{address:x};"),
        };
        format!("T{signal:02x}{detail}thread:{:x};", processor + 1)
    }

    fn resume(&mut self, actions: &[(How, Which)], target: &mut dyn Target) -> bool {
        let plain = actions.len() == 1 && actions[0].1 == Which::All;
        let next: Vec<Next> = (0..target.processors())
            .map(|processor| {
                if let (true, How::Step) = (plain, actions[0].0) {
                    // A step without a name is of the one that was chosen, and of it alone.
                    return if self.stepped.unwrap_or(self.chosen) == processor { Next::Step } else { Next::Hold };
                }
                let fits = |which: Which| which == Which::All || which == Which::One(processor);
                match actions.iter().find(|(_, which)| fits(*which)) {
                    Some((How::Run, _)) => Next::Run,
                    Some((How::Step, _)) => Next::Step,
                    None => Next::Hold,
                }
            })
            .collect();
        if next.iter().all(|next| *next == Next::Hold) {
            return false;
        }
        let planted: Vec<u64> = self.planted.keys().copied().collect();
        self.running = target.go(&next, &self.hardware, &planted);
        self.running
    }

    fn answer(&mut self, command: Command, target: &mut dyn Target) -> Option<Vec<u8>> {
        Some(match command {
            Command::Supported => format!(
                "PacketSize={PACKET_MAX:x};qXfer:features:read+;QStartNoAckMode+;swbreak+;hwbreak+;vContSupported+"
            )
            .into(),
            Command::NoAcknowledgements => {
                self.silent = true;
                OK.to_vec()
            }
            Command::WhyStopped => self.reason().into(),
            Command::Attached => b"1".to_vec(),
            Command::ResumeKinds => b"vCont;c;C;s;S".to_vec(),
            Command::Current => format!("QC{:x}", self.chosen + 1).into(),
            Command::Processors => {
                let there = (0..target.processors()).filter(|processor| target.is_there(*processor));
                let all: Vec<String> = there.map(|processor| format!("{:x}", processor + 1)).collect();
                format!("m{}", all.join(",")).into()
            }
            Command::NoMoreProcessors => b"l".to_vec(),
            Command::Alive(which) => {
                self.known(which, target)?;
                OK.to_vec()
            }
            Command::Choose(which) => {
                if let Some(processor) = self.known(which, target)? {
                    self.chosen = processor;
                }
                OK.to_vec()
            }
            Command::ChooseToRun(which) => {
                self.stepped = self.known(which, target)?;
                OK.to_vec()
            }
            Command::Description { offset, length } => {
                let text = registers::description().as_bytes();
                let rest = text.get(offset..)?;
                let part = &rest[..length.min(PACKET_MAX / 2).min(rest.len())];
                [if part.len() < rest.len() { b"m" } else { b"l" }.as_slice(), part].concat()
            }
            Command::Registers => hex(&target.registers(self.chosen)?.all()).into(),
            Command::Register(number) => hex(&target.registers(self.chosen)?.get(number)?).into(),
            Command::SetRegisters(bytes) => {
                let mut registers = target.registers(self.chosen)?;
                registers.set_all(&bytes)?;
                target.set_registers(self.chosen, &registers).then(|| OK.to_vec())?
            }
            Command::SetRegister(number, value) => {
                let mut registers = target.registers(self.chosen)?;
                registers.set(number, &value)?;
                target.set_registers(self.chosen, &registers).then(|| OK.to_vec())?
            }
            Command::Read { address, length } => {
                let bytes = self.read(address, length.min(PACKET_MAX / 2 - 1), target);
                (length == 0 || !bytes.is_empty()).then(|| hex(&bytes).into())?
            }
            Command::Write { address, data } => self.write(address, &data, target).then(|| OK.to_vec())?,
            Command::Insert(point) => self.insert(point, target).then(|| OK.to_vec())?,
            Command::Remove(point) => self.remove(point, target).then(|| OK.to_vec())?,
            Command::Unknown => Vec::new(),
            // Done where the answer is not one packet.
            Command::Resume(_) | Command::Detach | Command::Kill => return None,
        })
    }

    /// A processor that is there; `Some(None)`: any.
    fn known(&self, which: Which, target: &dyn Target) -> Option<Option<usize>> {
        match which {
            Which::All => Some(None),
            Which::One(processor) => target.is_there(processor).then_some(Some(processor)),
        }
    }

    fn place(&self, address: u64, target: &dyn Target) -> Option<(u64, u64)> {
        let special = target.registers(self.chosen)?.special;
        walk::find(&special, address, &|at| {
            let mut entry = [0; 8];
            target.read(at, &mut entry).then(|| u64::from_le_bytes(entry))
        })
    }

    /// As far as there is something.
    fn read(&self, mut address: u64, length: usize, target: &dyn Target) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::new();
        while out.len() < length {
            let Some((place, follows)) = self.place(address, target) else { break };
            let count = (length - out.len()).min(usize::try_from(follows).unwrap_or(usize::MAX));
            let mut piece = vec![0; count];
            if !target.read(place, &mut piece) {
                break;
            }
            for planted in self.planted.values() {
                if let Some(byte) = planted.place.checked_sub(place).and_then(|at| piece.get_mut(at as usize)) {
                    *byte = planted.byte;
                }
            }
            out.extend(piece);
            let Some(next) = address.checked_add(count as u64) else { break };
            address = next;
        }
        out
    }

    fn write(&mut self, mut address: u64, mut data: &[u8], target: &mut dyn Target) -> bool {
        while !data.is_empty() {
            let Some((place, follows)) = self.place(address, target) else { return false };
            let count = data.len().min(usize::try_from(follows).unwrap_or(usize::MAX));
            let (piece, rest) = data.split_at(count);
            let mut piece = piece.to_vec();
            // What is put there stays there; what the debugger writes comes when it is taken out.
            for planted in self.planted.values_mut() {
                if let Some(byte) = planted.place.checked_sub(place).and_then(|at| piece.get_mut(at as usize)) {
                    planted.byte = std::mem::replace(byte, TRAP);
                }
            }
            if !target.write(place, &piece) {
                return false;
            }
            data = rest;
            let Some(next) = address.checked_add(count as u64) else { return rest.is_empty() };
            address = next;
        }
        true
    }

    fn insert(&mut self, point: Point, target: &mut dyn Target) -> bool {
        if point.kind != PointKind::Software {
            let length = if point.kind == PointKind::Hardware { 1 } else { point.length };
            let fits = matches!(length, 1 | 2 | 4 | 8) && point.address.is_multiple_of(u64::from(length));
            if !fits || self.hardware.len() >= HARDWARE_MAX {
                return false;
            }
            self.hardware.push(Point { length, ..point });
            return true;
        }
        if self.planted.contains_key(&point.address) {
            return true;
        }
        let Some((place, _)) = self.place(point.address, target) else { return false };
        let mut byte = [0];
        if self.planted.len() >= POINTS_MAX || !target.read(place, &mut byte) {
            return false;
        }
        // The same memory under another address.
        let twin = self.planted.values().find(|planted| planted.place == place).map(|planted| planted.byte);
        if !target.write(place, &[TRAP]) {
            return false;
        }
        self.planted.insert(point.address, Planted { place, byte: twin.unwrap_or(byte[0]) });
        true
    }

    fn remove(&mut self, point: Point, target: &mut dyn Target) -> bool {
        if point.kind != PointKind::Software {
            let same = |known: &Point| known.kind == point.kind && known.address == point.address;
            self.hardware.retain(|known| !same(known));
            return true;
        }
        match self.planted.remove(&point.address) {
            Some(gone) if self.planted.values().all(|other| other.place != gone.place) => {
                target.write(gone.place, &[gone.byte])
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests;
