//! The state of one session: what each message does to it. No sockets and no clocks: [`crate::peer`] has these.
use crate::{
    Peering,
    frame::{self, Frame, Kind},
    notification::Notification,
    open::{self, Open},
    update::{self, Style},
};

/// How far a peering is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Waits before it tries again, or is not wanted.
    #[default]
    Idle,
    Connect,
    OpenSent,
    OpenConfirm,
    Established,
}

/// What is to be done because of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    Send(Vec<u8>),
    /// Routes may go.
    Establish,
    /// The peer wants everything once more.
    Repeat,
}

/// Why there is no session any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The peer said so.
    Told(Notification),
    /// We say so.
    Tell(Notification),
}

impl From<Notification> for Ended {
    fn from(notification: Notification) -> Self {
        Ended::Tell(notification)
    }
}

#[derive(Debug)]
pub struct Session {
    peering: Peering,
    state: State,
    as4: bool,
    hold: u16,
}

impl Session {
    /// The connection is there and our OPEN is sent.
    pub fn new(peering: Peering) -> Self {
        let hold = peering.hold;
        Session { peering, state: State::OpenSent, as4: false, hold }
    }

    pub fn state(&self) -> State {
        self.state
    }
    /// Seconds of silence that both sides bear; 0: any.
    pub fn hold(&self) -> u16 {
        self.hold
    }
    pub fn style(&self) -> Style {
        Style::of(&self.peering, self.as4)
    }

    pub fn take(&mut self, frame: &Frame) -> Result<Step, Ended> {
        if frame.kind == Kind::Notification {
            return Err(Ended::Told(Notification::read(&frame.body)));
        }
        match (self.state, frame.kind) {
            (State::OpenSent, Kind::Open) => self.opened(&frame.body),
            (State::OpenConfirm, Kind::Keepalive) => {
                self.state = State::Established;
                Ok(Step::Establish)
            }
            (State::Established, Kind::Keepalive) => Ok(Step::Nothing),
            (State::Established, Kind::Update) => {
                update::check(&frame.body)?;
                Ok(Step::Nothing)
            }
            (State::Established, Kind::Refresh) => self.refreshed(&frame.body),
            (State::OpenSent, _) => Err(Notification::unexpected(1).into()),
            (State::OpenConfirm, _) => Err(Notification::unexpected(2).into()),
            _ => Err(Notification::unexpected(3).into()),
        }
    }

    fn opened(&mut self, body: &[u8]) -> Result<Step, Ended> {
        let open = Open::read(body)?;
        let peering = &self.peering;
        if open.asn != peering.remote_as {
            return Err(Notification::WRONG_AS.into());
        }
        let own = peering.is_internal() && open.identifier == peering.identifier;
        if open.identifier.is_unspecified() || own {
            return Err(Notification::WRONG_IDENTIFIER.into());
        }
        if matches!(open.hold, 1 | 2) {
            return Err(Notification::HOLD_TIME.into());
        }
        if !open.takes(peering.family.afi()) {
            return Err(Notification::capability_needed(&open::family(peering)).into());
        }
        self.as4 = open.as4;
        self.hold = self.hold.min(open.hold);
        self.state = State::OpenConfirm;
        Ok(Step::Send(frame::put(Kind::Keepalive, &[])))
    }

    /// Family, a reserved octet, what it carries.
    fn refreshed(&self, body: &[u8]) -> Result<Step, Ended> {
        let [a, b, kind, safi] = *body else { return Err(Notification::REFRESH_LENGTH.into()) };
        let ours = u16::from_be_bytes([a, b]) == self.peering.family.afi() && safi == crate::SAFI;
        // Other kinds mark the beginning and end of answers, which we do not ask for.
        Ok(if ours && kind == 0 { Step::Repeat } else { Step::Nothing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, frame::HEADER};
    use bytes::Bytes;

    fn peering() -> Peering {
        Peering {
            local_as: 65001,
            identifier: [10, 0, 0, 1].into(),
            family: Family::V6,
            peer: [192, 0, 2, 1].into(),
            port: 179,
            source: None,
            remote_as: 65010,
            key: None,
            hold: 90,
            restart: 0,
        }
    }

    fn frame(kind: Kind, body: &[u8]) -> Frame {
        Frame { kind, body: Bytes::copy_from_slice(body) }
    }

    fn their_open(change: impl Fn(&mut Peering)) -> Frame {
        let mut them = Peering { local_as: 65010, identifier: [10, 0, 0, 2].into(), hold: 30, ..peering() };
        change(&mut them);
        frame(Kind::Open, &open::encode(&them, false)[HEADER..])
    }

    fn established() -> Session {
        let mut session = Session::new(peering());
        let answer = session.take(&their_open(|_| {})).unwrap();
        assert_eq!(answer, Step::Send(frame::put(Kind::Keepalive, &[])));
        assert_eq!((session.state(), session.hold()), (State::OpenConfirm, 30), "the shorter time holds");
        assert_eq!(session.take(&frame(Kind::Keepalive, &[])), Ok(Step::Establish));
        session
    }

    #[test]
    fn a_session_is_established_and_repeats_what_it_is_asked_for() {
        let mut session = established();
        assert_eq!(session.take(&frame(Kind::Keepalive, &[])), Ok(Step::Nothing));
        assert_eq!(session.take(&frame(Kind::Update, &[0, 0, 0, 0])), Ok(Step::Nothing));
        assert_eq!(session.take(&frame(Kind::Refresh, &[0, 2, 0, 1])), Ok(Step::Repeat));
        assert_eq!(session.take(&frame(Kind::Refresh, &[0, 1, 0, 1])), Ok(Step::Nothing), "another family");
        let short = session.take(&frame(Kind::Refresh, &[0, 2, 0]));
        assert_eq!(short, Err(Notification::REFRESH_LENGTH.into()));
        let end = session.take(&frame(Kind::Notification, &[6, 2]));
        assert_eq!(end, Err(Ended::Told(Notification::new(6, 2))));
    }

    #[test]
    fn peers_that_are_not_the_ones_meant_are_told_why() {
        type Change = fn(&mut Peering);
        let cases: [(Change, Notification); 4] = [
            (|p| p.local_as = 65011, Notification::WRONG_AS),
            (|p| p.identifier = [0, 0, 0, 0].into(), Notification::WRONG_IDENTIFIER),
            (|p| p.hold = 2, Notification::HOLD_TIME),
            (|p| p.family = Family::V4, Notification::capability_needed(&[1, 4, 0, 2, 0, 1])),
        ];
        for (change, why) in cases {
            assert_eq!(Session::new(peering()).take(&their_open(change)), Err(Ended::Tell(why)));
        }
        // Within one AS two may not have one identifier.
        let inside = Peering { remote_as: 65001, ..peering() };
        let same = |p: &mut Peering| (p.local_as, p.identifier) = (65001, [10, 0, 0, 1].into());
        let refused = Session::new(inside).take(&their_open(same));
        assert_eq!(refused, Err(Notification::WRONG_IDENTIFIER.into()));
    }

    #[test]
    fn each_state_refuses_what_it_does_not_expect() {
        let update = frame(Kind::Update, &[0, 0, 0, 0]);
        assert_eq!(Session::new(peering()).take(&update), Err(Notification::unexpected(1).into()));
        let mut confirm = Session::new(peering());
        confirm.take(&their_open(|_| {})).unwrap();
        assert_eq!(confirm.take(&update), Err(Notification::unexpected(2).into()));
        assert_eq!(established().take(&their_open(|_| {})), Err(Notification::unexpected(3).into()));
        let malformed = established().take(&frame(Kind::Update, &[9, 9, 0, 0]));
        assert_eq!(malformed, Err(Notification::ATTRIBUTES_MALFORMED.into()));
    }
}
