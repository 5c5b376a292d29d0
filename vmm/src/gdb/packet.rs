//! Packets of the remote protocol, from bytes and to bytes. Pure.
//!
//! ```text
//!   idle ──'$'──► body ──'#'──► two digits ──► packet, or damaged
//!    │ 0x03: interrupt; '+' '-': heard, say it again
//! ```
//! Whoever is connected may send anything: a packet that is too long is skipped to its end and counts as damaged.

/// Longest packet, as it is announced.
pub const PACKET_MAX: usize = 16 << 10;

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A whole packet, without its escapes.
    Packet(Vec<u8>),
    /// Its sum is wrong, or it is too long.
    Damaged,
    /// Stop the guest.
    Interrupt,
    /// The last answer is to be sent again.
    Again,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Body,
    Sum,
    LastDigit(u8),
}

/// Bytes to packets.
#[derive(Debug, Default)]
pub struct Framer {
    state: State,
    body: Vec<u8>,
    too_long: bool,
}

impl Framer {
    /// Takes bytes as they come.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Input> {
        bytes.iter().filter_map(|byte| self.take(*byte)).collect()
    }

    fn take(&mut self, byte: u8) -> Option<Input> {
        match (self.state, byte) {
            (State::Idle, b'$') => self.begin(),
            (State::Idle, 3) => return Some(Input::Interrupt),
            (State::Idle, b'-') => return Some(Input::Again),
            (State::Idle, _) => {}
            // The former one was cut short.
            (State::Body, b'$') => self.begin(),
            (State::Body, b'#') => self.state = State::Sum,
            (State::Body, byte) if self.body.len() < PACKET_MAX => self.body.push(byte),
            (State::Body, _) => self.too_long = true,
            (State::Sum, byte) => self.state = State::LastDigit(byte),
            (State::LastDigit(first), last) => {
                self.state = State::Idle;
                return Some(self.whole(first, last));
            }
        }
        None
    }

    fn begin(&mut self) {
        self.body.clear();
        (self.state, self.too_long) = (State::Body, false);
    }

    fn whole(&mut self, first: u8, last: u8) -> Input {
        let said = digit(first).zip(digit(last)).map(|(high, low)| high << 4 | low);
        if self.too_long || said != Some(sum(&self.body)) {
            return Input::Damaged;
        }
        let mut out = Vec::with_capacity(self.body.len());
        let mut bytes = self.body.iter();
        while let Some(byte) = bytes.next() {
            match (*byte, byte) {
                (b'}', _) => match bytes.next() {
                    Some(escaped) => out.push(escaped ^ 0x20),
                    None => return Input::Damaged,
                },
                (byte, _) => out.push(byte),
            }
        }
        Input::Packet(out)
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// A packet with this content.
pub fn frame(content: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(content.len());
    for byte in content {
        match byte {
            b'$' | b'#' | b'}' | b'*' => body.extend([b'}', byte ^ 0x20]),
            byte => body.push(*byte),
        }
    }
    let tail = format!("#{:02x}", sum(&body));
    [b"$", body.as_slice(), tail.as_bytes()].concat()
}

/// Two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of digits; none where something else is among them.
pub fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_come_whole_and_damaged_ones_are_told() {
        let mut framer = Framer::default();
        assert_eq!(framer.feed(b"+$g#6"), []);
        assert_eq!(
            framer.feed(b"7\x03-$?#3f"),
            [Input::Packet(b"g".to_vec()), Input::Interrupt, Input::Again, Input::Packet(b"?".to_vec())]
        );
        assert_eq!(framer.feed(b"$g#68$g#zz$}#7d"), [Input::Damaged, Input::Damaged, Input::Damaged]);
        assert_eq!(framer.feed(b"$half$?#3f"), [Input::Packet(b"?".to_vec())]);
        let long = [b"$", vec![b'a'; PACKET_MAX + 1].as_slice(), b"#00"].concat();
        assert_eq!(framer.feed(&long), [Input::Damaged]);
        assert!(framer.body.len() <= PACKET_MAX);
    }

    proptest! {
        #[test]
        fn what_is_framed_comes_out_again(content in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let mut framer = Framer::default();
            let bytes = frame(&content);
            let (first, rest) = bytes.split_at(cut.min(bytes.len()));
            let mut all = framer.feed(first);
            all.extend(framer.feed(rest));
            prop_assert_eq!(all, vec![Input::Packet(content.clone())]);
            prop_assert_eq!(unhex(hex(&content).as_bytes()), Some(content));
        }
    }
}
