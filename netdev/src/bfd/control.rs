//! Control packets of BFD (RFC 5880, section 4.1) as they stand in a datagram. Pure: strict towards what anybody on the provider's
//! wire may send, and without authentication, so what claims to have some is refused.

/// Bytes of a packet without authentication.
pub(crate) const LENGTH: usize = 24;
const VERSION: u8 = 1;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum State {
    AdminDown,
    #[default]
    Down,
    Init,
    Up,
}

impl State {
    fn of(bits: u8) -> Self {
        match bits & 3 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }

    fn bits(self) -> u8 {
        match self {
            State::AdminDown => 0,
            State::Down => 1,
            State::Init => 2,
            State::Up => 3,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            State::AdminDown => "admin-down",
            State::Down => "down",
            State::Init => "init",
            State::Up => "up",
        }
    }
}

/// Why a session is not up any more; the other numbers of the standard are only ever heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Diagnostic {
    #[default]
    None,
    /// Nothing was heard for the detection time.
    Expired,
    /// The neighbour said that it is down.
    Signaled,
    AdministrativelyDown,
}

impl Diagnostic {
    fn bits(self) -> u8 {
        match self {
            Diagnostic::None => 0,
            Diagnostic::Expired => 1,
            Diagnostic::Signaled => 3,
            Diagnostic::AdministrativelyDown => 7,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Diagnostic::None => "none",
            Diagnostic::Expired => "detection time expired",
            Diagnostic::Signaled => "neighbour signaled session down",
            Diagnostic::AdministrativelyDown => "administratively down",
        }
    }
}

/// One packet; times are microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Control {
    /// Of what is heard it does not matter.
    pub diagnostic: Diagnostic,
    pub state: State,
    pub poll: bool,
    pub last: bool,
    pub demand: bool,
    pub multiplier: u8,
    /// The sender's discriminator, and what it knows of the receiver's; 0: nothing yet.
    pub mine: u32,
    pub yours: u32,
    pub desired_tx: u32,
    pub required_rx: u32,
}

impl Control {
    /// What a datagram says; `None`: section 6.8.6 has it discarded whatever the session is.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let head = datagram.first_chunk::<LENGTH>()?;
        let [first, flags, multiplier, length, ..] = *head;
        let word = |at: usize| head.get(at..)?.first_chunk().copied().map(u32::from_be_bytes);
        let whole = usize::from(length) >= LENGTH && usize::from(length) <= datagram.len();
        let refused = flags & (AUTHENTICATED | MULTIPOINT) != 0 || flags & (POLL | FINAL) == POLL | FINAL;
        if first >> 5 != VERSION || !whole || refused || multiplier == 0 {
            return None;
        }
        let control = Control {
            diagnostic: Diagnostic::None,
            state: State::of(flags >> 6),
            poll: flags & POLL != 0,
            last: flags & FINAL != 0,
            demand: flags & DEMAND != 0,
            multiplier,
            mine: word(4)?,
            yours: word(8)?,
            desired_tx: word(12)?,
            required_rx: word(16)?,
        };
        // Who does not know us yet cannot be further than that.
        let stranger = control.yours == 0 && matches!(control.state, State::Init | State::Up);
        (control.mine != 0 && !stranger).then_some(control)
    }

    pub fn write(&self) -> [u8; LENGTH] {
        let flag = |is: bool, bit: u8| if is { bit } else { 0 };
        let flags = self.state.bits() << 6 | flag(self.poll, POLL) | flag(self.last, FINAL) | flag(self.demand, DEMAND);
        let mut out = [0; LENGTH];
        #[allow(clippy::cast_possible_truncation)]
        let head = [VERSION << 5 | self.diagnostic.bits(), flags, self.multiplier, LENGTH as u8];
        let words = [self.mine, self.yours, self.desired_tx, self.required_rx];
        out[..4].copy_from_slice(&head);
        for (place, word) in out[4..].chunks_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some() -> Control {
        Control {
            state: State::Up,
            multiplier: 3,
            mine: 7,
            yours: 9,
            desired_tx: 300_000,
            required_rx: 1,
            ..Control::default()
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_that_is_wrong() {
        let bytes = some().write();
        assert_eq!(bytes[..4], [0x20, 0xc0, 3, 24]);
        assert_eq!(Control::read(&bytes), Some(some()));
        for cut in 0..LENGTH {
            assert_eq!(Control::read(&bytes[..cut]), None, "{cut}");
        }
        let with = |at: usize, byte: u8| {
            let mut bad = bytes;
            bad[at] = byte;
            Control::read(&bad)
        };
        assert_eq!(with(0, 0x40), None, "version");
        assert_eq!(with(1, 0xc4), None, "authenticated");
        assert_eq!(with(1, 0xc1), None, "multipoint");
        assert_eq!(with(1, 0xf0), None, "poll and final");
        assert_eq!(with(2, 0), None, "multiplier");
        assert_eq!((with(3, 23), with(3, 25)), (None, None), "length");
        assert_eq!(with(7, 0), None, "no discriminator");
        assert_eq!(with(11, 0), None, "up, and does not know us");
        assert!(with(1, 0x40).is_some_and(|c| c.state == State::Down));
        let longer = [&bytes[..], b"more"].concat();
        assert_eq!(Control::read(&longer), Some(some()), "what follows is not ours");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_as_the_standard_says_or_not_at_all(mut bytes in prop::collection::vec(any::<u8>(), 0..40), shape in any::<bool>()) {
            if shape && bytes.len() >= LENGTH {
                (bytes[0], bytes[3]) = (bytes[0] & 0x1f | 0x20, 24);
            }
            if let Some(control) = Control::read(&bytes) {
                prop_assert!(control.mine != 0 && control.multiplier != 0);
                let mut again = control.write();
                // What is not kept: the reason, that a control plane is independent, and what an echo would need.
                again[0] = bytes[0];
                prop_assert_eq!(again[1], bytes[1] & !0x08);
                again[1] = bytes[1];
                again[3] = bytes[3];
                prop_assert_eq!(&again[..20], &bytes[..20]);
            }
        }
    }
}
