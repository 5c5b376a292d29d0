//! One client of prefix delegation: which message is due when, and what an answer changes. No clock and no socket: milliseconds
//! and random numbers come in, messages go out.
//!
//! ```text
//!            .--- no answer, refused ---.
//!            v                          |
//!   (new) Solicit --best offer--> Request --REPLY--> bound --T1--> Renew --T2--> Rebind
//!            ^                                          ^            |             |
//!            |                                          '---REPLY----+-------------'
//!            '---- the prefix is taken back, or its time is over ----+-------------'
//!   (a prefix that another host asked for) -> Rebind            (no more wanted) -> Release -> done
//! ```
//! Pauses grow as RFC 8415, 15 says. While a lost server is looked for, a prefix is kept for as long as it was lent.
use super::wire::{self, ADVERTISE, Answer, FOREVER, Identity, Lent, NO_BINDING, REPLY, SUCCESS};
use ipnet::Ipv6Net;

/// The first pause, the longest one, and how many tries, all in milliseconds; 0: no end.
#[derive(Debug, Clone, Copy)]
struct Pace {
    first: u64,
    longest: u64,
    tries: u32,
}

const SECOND: u64 = 1000;
const SOLICITING: Pace = Pace { first: SECOND, longest: 3600 * SECOND, tries: 0 };
const REQUESTING: Pace = Pace { first: SECOND, longest: 30 * SECOND, tries: 10 };
const RENEWING: Pace = Pace { first: 10 * SECOND, longest: 600 * SECOND, tries: 0 };
const REBINDING: Pace = Pace { first: 10 * SECOND, longest: 600 * SECOND, tries: 0 };
const RELEASING: Pace = Pace { first: SECOND, longest: 0, tries: 4 };
/// Of a first question: hosts that start together do not all ask at once.
const DELAY: u64 = SECOND;
/// Tells others that there is no better offer.
const BEST: u8 = 255;

/// Where random numbers come from.
pub(crate) type Dice<'d> = &'d mut dyn FnMut() -> u32;

/// A prefix that is lent, with times on the caller's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub prefix: Ipv6Net,
    pub server: Vec<u8>,
    pub t1: u64,
    pub t2: u64,
    /// `u64::MAX`: for ever.
    pub until: u64,
}

/// A question that is asked until it is answered.
#[derive(Debug, Clone)]
struct Question {
    xid: [u8; 3],
    pace: Pace,
    first: Option<u64>,
    pause: u64,
    tries: u32,
    due: u64,
}

#[derive(Debug, Clone)]
enum State {
    Soliciting { question: Question, best: Option<Answer> },
    Requesting { question: Question, server: Vec<u8>, wish: Option<Ipv6Net> },
    Bound,
    Renewing(Question),
    Rebinding(Question),
    Releasing(Question),
    Done,
}

/// The client of one subnet behind one router.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    who: Identity,
    state: State,
    lease: Option<Lease>,
    /// The lease is another host's word, which no server has confirmed.
    hearsay: bool,
    longest: u64,
}

fn after(now: u64, seconds: u32) -> u64 {
    if seconds == FOREVER { u64::MAX } else { now.saturating_add(u64::from(seconds) * SECOND) }
}

impl Question {
    fn new(pace: Pace, due: u64, dice: Dice<'_>) -> Self {
        let [_, a, b, c] = dice().to_be_bytes();
        Self { xid: [a, b, c], pace, first: None, pause: 0, tries: 0, due }
    }

    /// Counts a try and gives the hundredths of seconds since the first.
    fn tried(&mut self, now: u64, strictly_later: bool, dice: Dice<'_>) -> u16 {
        // A tenth more or less; of the first solicitation only more.
        let tenth = |of: u64, dice: Dice<'_>| of / 10 * u64::from(dice() % 2001) / 1000;
        self.pause = match self.pause {
            0 if strictly_later => self.pace.first + tenth(self.pace.first, dice) / 2 + 1,
            0 => self.pace.first - self.pace.first / 10 + tenth(self.pace.first, dice),
            before => 2 * before - before / 10 + tenth(before, dice),
        };
        if self.pace.longest > 0 && self.pause > self.pace.longest {
            self.pause = self.pace.longest - self.pace.longest / 10 + tenth(self.pace.longest, dice);
        }
        self.tries += 1;
        self.due = now.saturating_add(self.pause);
        let first = *self.first.get_or_insert(now);
        u16::try_from(now.saturating_sub(first) / 10).unwrap_or(u16::MAX)
    }

    fn is_over(&self) -> bool {
        self.pace.tries > 0 && self.tries >= self.pace.tries
    }
}

impl Client {
    /// One that has nothing yet.
    pub fn new(who: Identity, now: u64, dice: Dice<'_>) -> Self {
        let state = solicit(SOLICITING.longest, now + u64::from(dice()) % DELAY, dice);
        Self { who, state, lease: None, hearsay: false, longest: SOLICITING.longest }
    }

    /// One that has gone on from what it had written down.
    pub fn resume(who: Identity, lease: Lease) -> Self {
        Self { who, state: State::Bound, lease: Some(lease), hearsay: false, longest: SOLICITING.longest }
    }

    /// One that takes over what another host was lent: any server that knows of it will say so.
    pub fn take_over(who: Identity, prefix: Ipv6Net, until: u64, now: u64, dice: Dice<'_>) -> Self {
        let question = Question::new(Pace { first: SECOND, ..REBINDING }, now + u64::from(dice()) % DELAY, dice);
        let lease = Lease { prefix, server: Vec::new(), t1: now, t2: now, until };
        let state = State::Rebinding(question);
        Self { who, state, lease: Some(lease), hearsay: true, longest: SOLICITING.longest }
    }

    /// The prefix that it has.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Does it know what it has? It does not while it asks about what others had.
    pub fn knows(&self) -> bool {
        !self.hearsay
    }

    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub fn is_leaving(&self) -> bool {
        matches!(self.state, State::Releasing(_) | State::Done)
    }

    /// The prefix is no longer needed: the server is told, as well as it goes.
    pub fn release(&mut self, now: u64, dice: Dice<'_>) {
        if self.is_leaving() {
            return;
        }
        let known = self.lease.as_ref().is_some_and(|l| !l.server.is_empty());
        self.state = if known { State::Releasing(Question::new(RELEASING, now, dice)) } else { State::Done };
    }

    /// When `step` is to be called at the latest; `u64::MAX`: there is nothing to do.
    pub fn due(&self) -> u64 {
        let end = self.lease.as_ref().map_or(u64::MAX, |l| l.until);
        match (&self.state, &self.lease) {
            (State::Bound, Some(lease)) => lease.t1.min(end),
            (State::Renewing(q), Some(lease)) => q.due.min(lease.t2).min(end),
            (
                State::Soliciting { question: q, .. } | State::Requesting { question: q, .. } | State::Rebinding(q),
                _,
            ) => q.due.min(end),
            (State::Releasing(q), _) => q.due,
            _ => u64::MAX,
        }
    }

    /// The message that is due, if one is.
    pub fn step(&mut self, now: u64, dice: Dice<'_>) -> Option<Vec<u8>> {
        if !self.is_leaving() {
            self.age(now, dice);
        }
        let have = self.lease.as_ref().map(|l| l.prefix);
        match &mut self.state {
            State::Soliciting { question, best } if question.due <= now => {
                if let Some(best) = best.take() {
                    self.request(&best, now, dice);
                    return self.step(now, dice);
                }
                let elapsed = question.tried(now, true, dice);
                Some(wire::ask(wire::SOLICIT, question.xid, &self.who, None, elapsed, have))
            }
            State::Requesting { question, .. } if question.due <= now && question.is_over() => {
                self.state = solicit(self.longest, now, dice);
                self.step(now, dice)
            }
            State::Requesting { question, server, wish } if question.due <= now => {
                let elapsed = question.tried(now, false, dice);
                Some(wire::ask(wire::REQUEST, question.xid, &self.who, Some(server.as_slice()), elapsed, *wish))
            }
            State::Renewing(question) if question.due <= now => {
                let elapsed = question.tried(now, false, dice);
                let server = self.lease.as_ref().map(|l| l.server.as_slice());
                Some(wire::ask(wire::RENEW, question.xid, &self.who, server, elapsed, have))
            }
            State::Rebinding(question) if question.due <= now => {
                let elapsed = question.tried(now, false, dice);
                Some(wire::ask(wire::REBIND, question.xid, &self.who, None, elapsed, have))
            }
            State::Releasing(question) if question.due <= now && question.is_over() => {
                (self.state, self.lease) = (State::Done, None);
                None
            }
            State::Releasing(question) if question.due <= now => {
                let elapsed = question.tried(now, false, dice);
                let server = self.lease.as_ref().map(|l| l.server.as_slice());
                Some(wire::ask(wire::RELEASE, question.xid, &self.who, server, elapsed, have))
            }
            _ => None,
        }
    }

    /// Time has passed: it is to be renewed, or over.
    fn age(&mut self, now: u64, dice: Dice<'_>) {
        let Some(lease) = &self.lease else { return };
        if lease.until <= now {
            return self.lose(now, dice);
        }
        match self.state {
            State::Bound if lease.t2 <= now => self.state = State::Rebinding(Question::new(REBINDING, now, dice)),
            State::Bound if lease.t1 <= now => self.state = State::Renewing(Question::new(RENEWING, now, dice)),
            State::Renewing(_) if lease.t2 <= now => {
                self.state = State::Rebinding(Question::new(REBINDING, now, dice));
            }
            _ => {}
        }
    }

    /// The prefix is gone; another one is looked for.
    fn lose(&mut self, now: u64, dice: Dice<'_>) {
        (self.lease, self.hearsay) = (None, false);
        if !matches!(self.state, State::Soliciting { .. } | State::Requesting { .. }) {
            self.state = solicit(self.longest, now + u64::from(dice()) % DELAY, dice);
        }
    }

    fn request(&mut self, offer: &Answer, now: u64, dice: Dice<'_>) {
        let wish = offer.usable(self.lease.as_ref().map(|l| l.prefix)).map(|l| l.prefix);
        self.state =
            State::Requesting { question: Question::new(REQUESTING, now, dice), server: offer.server.clone(), wish };
    }

    /// A message from the provider's wire. Whether it was an answer to this client.
    pub fn hear(&mut self, message: &[u8], now: u64, dice: Dice<'_>) -> bool {
        let (State::Soliciting { question, .. }
        | State::Requesting { question, .. }
        | State::Renewing(question)
        | State::Rebinding(question)
        | State::Releasing(question)) = &self.state
        else {
            return false;
        };
        if question.tries == 0 {
            return false;
        }
        let Some(answer) = Answer::read(message, &self.who, question.xid) else { return false };
        match (&self.state, answer.kind) {
            (State::Soliciting { .. }, ADVERTISE) => self.hear_offer(answer, now, dice),
            (State::Requesting { server, .. }, REPLY) if *server == answer.server => {
                self.hear_grant(&answer, now, dice)
            }
            (State::Renewing(_), REPLY) if self.lease.as_ref().is_some_and(|l| l.server == answer.server) => {
                self.hear_renewal(&answer, now, dice);
            }
            (State::Rebinding(_), REPLY) => self.hear_renewal(&answer, now, dice),
            (State::Releasing(_), REPLY) if self.lease.as_ref().is_some_and(|l| l.server == answer.server) => {
                (self.state, self.lease) = (State::Done, None);
            }
            _ => return false,
        }
        true
    }

    /// The best offer of the first pause is taken, after that the first.
    fn hear_offer(&mut self, answer: Answer, now: u64, dice: Dice<'_>) {
        if let Some(seconds) = answer.patience {
            self.longest = u64::from(seconds) * SECOND;
        }
        let (longest, have) = (self.longest, self.lease.as_ref().map(|l| l.prefix));
        let State::Soliciting { question, best } = &mut self.state else { return };
        question.pace.longest = longest;
        if answer.usable(have).is_none() {
            return;
        }
        if answer.preference == BEST || question.tries > 1 {
            return self.request(&answer, now, dice);
        }
        if best.as_ref().is_none_or(|b| answer.preference > b.preference) {
            *best = Some(answer);
        }
    }

    fn hear_grant(&mut self, answer: &Answer, now: u64, dice: Dice<'_>) {
        match answer.usable(self.lease.as_ref().map(|l| l.prefix)) {
            Some(lent) => self.bind(lent, answer, now),
            // It is busy or broken: the question stays.
            None if answer.status != SUCCESS => {}
            None => self.state = solicit(self.longest, now + SECOND, dice),
        }
    }

    fn hear_renewal(&mut self, answer: &Answer, now: u64, dice: Dice<'_>) {
        let Some(have) = self.lease.as_ref().map(|l| l.prefix) else { return };
        if let Some(lent) = answer.usable(Some(have)) {
            return self.bind(lent, answer, now);
        }
        if answer.ends(have) {
            return self.lose(now, dice);
        }
        if answer.status == SUCCESS && answer.association == Some(NO_BINDING) {
            if self.hearsay {
                return self.lose(now, dice);
            }
            // It has forgotten, and may lend it again.
            let question = Question::new(REQUESTING, now, dice);
            self.state = State::Requesting { question, server: answer.server.clone(), wish: Some(have) };
        }
    }

    fn bind(&mut self, lent: Lent, answer: &Answer, now: u64) {
        // Half and four fifths of what it is preferred for, where the server leaves it to us.
        let base = if lent.preferred > 0 { lent.preferred } else { lent.valid };
        let part = |fifths: u32| if base == FOREVER { FOREVER } else { base / 10 * fifths };
        let (t1, t2) = if answer.t1 == 0 || answer.t2 == 0 { (part(5), part(8)) } else { (answer.t1, answer.t2) };
        let until = after(now, lent.valid);
        let t1 = after(now, t1.max(1)).min(until);
        let t2 = after(now, t2.max(1)).clamp(t1, until);
        self.lease = Some(Lease { prefix: lent.prefix, server: answer.server.clone(), t1, t2, until });
        (self.state, self.hearsay) = (State::Bound, false);
    }
}

fn solicit(longest: u64, due: u64, dice: Dice<'_>) -> State {
    State::Soliciting { question: Question::new(Pace { longest, ..SOLICITING }, due, dice), best: None }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
