//! What the debugger asks for. Pure; what is not understood is [`Command::Unknown`], which the protocol answers with nothing.
use super::packet::unhex;

/// Which processors a command is about; the debugger calls them threads and counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    /// From 0.
    One(usize),
}

/// What a processor does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Run,
    /// One instruction.
    Step,
}

/// What stops a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PointKind {
    /// An instruction put into memory.
    Software,
    /// An address that is executed.
    Hardware,
    /// An address that is written.
    Write,
    /// An address that is read or written.
    Access,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub kind: PointKind,
    pub address: u64,
    /// Bytes that are watched.
    pub length: u8,
}

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// What both sides can.
    Supported,
    WhyStopped,
    Registers,
    SetRegisters(Vec<u8>),
    Register(usize),
    SetRegister(usize, Vec<u8>),
    Read {
        address: u64,
        length: usize,
    },
    Write {
        address: u64,
        data: Vec<u8>,
    },
    /// The first that fits a processor counts.
    Resume(Vec<(How, Which)>),
    /// Which actions `Resume` knows.
    ResumeKinds,
    /// Whose registers and memory are meant from now on.
    Choose(Which),
    /// For `Step` and `Run` without a processor.
    ChooseToRun(Which),
    Alive(Which),
    Processors,
    NoMoreProcessors,
    Current,
    Insert(Point),
    Remove(Point),
    /// A part of the description of the registers.
    Description {
        offset: usize,
        length: usize,
    },
    Attached,
    NoAcknowledgements,
    Detach,
    Kill,
    Unknown,
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn size(digits: &[u8]) -> Option<usize> {
    usize::try_from(number(digits)?).ok()
}

fn which(id: &[u8]) -> Option<Which> {
    match id {
        b"-1" | b"0" => Some(Which::All),
        id => Some(Which::One(size(id)?.checked_sub(1)?)),
    }
}

fn pair(text: &[u8], by: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == by)?;
    Some((&text[..at], &text[at + 1..]))
}

impl Command {
    /// Understands a packet.
    pub fn of(packet: &[u8]) -> Command {
        Self::known(packet).unwrap_or(Command::Unknown)
    }

    fn known(packet: &[u8]) -> Option<Command> {
        let (first, rest) = packet.split_first()?;
        Some(match first {
            b'?' => Command::WhyStopped,
            b'g' => Command::Registers,
            b'G' => Command::SetRegisters(unhex(rest)?),
            b'p' => Command::Register(size(rest)?),
            b'P' => {
                let (register, value) = pair(rest, b'=')?;
                Command::SetRegister(size(register)?, unhex(value)?)
            }
            b'm' => {
                let (address, length) = pair(rest, b',')?;
                Command::Read { address: number(address)?, length: size(length)? }
            }
            b'M' | b'X' => {
                let (place, data) = pair(rest, b':')?;
                let (address, length) = pair(place, b',')?;
                let data = if *first == b'M' { unhex(data)? } else { data.to_vec() };
                (data.len() == size(length)?).then_some(())?;
                Command::Write { address: number(address)?, data }
            }
            b'c' if rest.is_empty() => Command::Resume(vec![(How::Run, Which::All)]),
            b's' if rest.is_empty() => Command::Resume(vec![(How::Step, Which::All)]),
            b'H' => match rest.split_first()? {
                (b'g', id) => Command::Choose(which(id)?),
                (b'c', id) => Command::ChooseToRun(which(id)?),
                _ => return None,
            },
            b'T' => Command::Alive(which(rest)?),
            b'Z' => Command::Insert(point(rest)?),
            b'z' => Command::Remove(point(rest)?),
            b'D' => Command::Detach,
            b'k' => Command::Kill,
            b'v' => return long(rest),
            b'q' => return question(rest),
            b'Q' if rest == b"StartNoAckMode" => Command::NoAcknowledgements,
            _ => return None,
        })
    }
}

fn long(rest: &[u8]) -> Option<Command> {
    if rest == b"Cont?" {
        return Some(Command::ResumeKinds);
    }
    if rest.starts_with(b"Kill") {
        return Some(Command::Kill);
    }
    let actions = rest.strip_prefix(b"Cont;")?;
    let action = |text: &[u8]| {
        let (what, id) = pair(text, b':').map_or((text, Some(Which::All)), |(what, id)| (what, which(id)));
        let how = match what.first()? {
            // With a signal, which no processor has.
            b'c' | b'C' => How::Run,
            b's' | b'S' => How::Step,
            _ => return None,
        };
        Some((how, id?))
    };
    // As many as there may be processors.
    let all: Option<Vec<_>> = actions.split(|byte| *byte == b';').take(256).map(action).collect();
    all.map(Command::Resume)
}

fn question(rest: &[u8]) -> Option<Command> {
    let named = pair(rest, b':').map_or(rest, |(name, _)| name);
    Some(match named {
        b"Supported" => Command::Supported,
        b"fThreadInfo" => Command::Processors,
        b"sThreadInfo" => Command::NoMoreProcessors,
        b"C" => Command::Current,
        b"Attached" => Command::Attached,
        b"Xfer" => {
            let place = rest.strip_prefix(b"Xfer:features:read:target.xml:")?;
            let (offset, length) = pair(place, b',')?;
            Command::Description { offset: size(offset)?, length: size(length)? }
        }
        _ => return None,
    })
}

fn point(rest: &[u8]) -> Option<Point> {
    let (kind, rest) = pair(rest, b',')?;
    let (address, length) = pair(rest, b',')?;
    let kind = match kind {
        b"0" => PointKind::Software,
        b"1" => PointKind::Hardware,
        b"2" => PointKind::Write,
        // There is no watching for reads alone on x86.
        b"4" => PointKind::Access,
        _ => return None,
    };
    let length = pair(length, b';').map_or(length, |(length, _)| length);
    Some(Point { kind, address: number(address)?, length: u8::try_from(number(length)?).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packets_of_a_debugger() {
        let all: [(&[u8], Command); 20] = [
            (b"qSupported:multiprocess+;swbreak+", Command::Supported),
            (b"?", Command::WhyStopped),
            (b"p10", Command::Register(16)),
            (b"P0=0102030405060708", Command::SetRegister(0, vec![1, 2, 3, 4, 5, 6, 7, 8])),
            (b"mffffffff81000000,40", Command::Read { address: 0xffff_ffff_8100_0000, length: 64 }),
            (b"M10,2:abcd", Command::Write { address: 16, data: vec![0xab, 0xcd] }),
            (b"X10,2:ab", Command::Write { address: 16, data: b"ab".to_vec() }),
            (b"vCont;s:2;c", Command::Resume(vec![(How::Step, Which::One(1)), (How::Run, Which::All)])),
            (b"vCont?", Command::ResumeKinds),
            (b"c", Command::Resume(vec![(How::Run, Which::All)])),
            (b"Hg1", Command::Choose(Which::One(0))),
            (b"Hc-1", Command::ChooseToRun(Which::All)),
            (b"T2", Command::Alive(Which::One(1))),
            (b"qfThreadInfo", Command::Processors),
            (b"Z0,1000,1", Command::Insert(Point { kind: PointKind::Software, address: 0x1000, length: 1 })),
            (b"z2,2000,8", Command::Remove(Point { kind: PointKind::Write, address: 0x2000, length: 8 })),
            (b"qXfer:features:read:target.xml:0,ffb", Command::Description { offset: 0, length: 0xffb }),
            (b"QStartNoAckMode", Command::NoAcknowledgements),
            (b"D", Command::Detach),
            (b"vKill;1", Command::Kill),
        ];
        for (packet, command) in all {
            assert_eq!(Command::of(packet), command, "{}", String::from_utf8_lossy(packet));
        }
    }

    #[test]
    fn what_is_malformed_is_unknown() {
        let all: [&[u8]; 14] = [
            b"",
            b"m",
            b"m1",
            b"mxyz,1",
            b"m11112222333344445,1",
            b"M0,3:ab",
            b"P5",
            b"Hx1",
            b"T",
            b"vCont;",
            b"vCont;t:1",
            b"Z3,0,1",
            b"Z0,0,100",
            b"qXfer:memory-map:read::0,1",
        ];
        for packet in all {
            assert_eq!(Command::of(packet), Command::Unknown, "{}", String::from_utf8_lossy(packet));
        }
    }
}
