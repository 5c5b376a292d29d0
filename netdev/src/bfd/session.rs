//! One BFD session in asynchronous mode (RFC 5880, section 6.8), active, without authentication, echo or demand of ours. Pure: the
//! clock (microseconds that never go back) and random numbers are passed in.
//!
//! ```text
//!              hears Down                  hears Init or Up
//!   +------+ -------------> +------+ -----------------------> +----+
//!   | Down | <------------- | Init |                          | Up |
//!   +------+   silence      +------+                          +----+
//!     |  ^ hears Init: Up                                        |
//!     |  +--------- silence, or hears Down or AdminDown ---------+
//!     +- hears AdminDown, Up: stays
//! ```
//! While it is not up it speaks once a second at most; having come up it polls for the faster rate. A session that has just begun
//! is not judged for a moment: it may have been up in the process before this one, whose next hop must not seem lost.
use super::control::{Control, Diagnostic, State};

/// Microseconds.
pub(crate) const MILLISECOND: u64 = 1000;
/// How often we speak while it is up, and how often the neighbour may: with the multiplier some 0.9 s until a loss is seen.
const FAST: u32 = 300_000;
/// How often we speak while it is not up: no faster than the standard allows.
const SLOW: u32 = 1_000_000;
const MULTIPLIER: u8 = 3;
/// How long a new session may take to come up before its next hop is thought to be gone.
pub(crate) const PATIENCE: u64 = 5000 * MILLISECOND;

/// What is thought of the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// It is too early to say.
    Open,
    Alive,
    Lost,
}

#[derive(Debug)]
pub(crate) struct Session {
    state: State,
    diagnostic: Diagnostic,
    /// Its discriminators, as both sides call it.
    mine: u32,
    yours: u32,
    remote: State,
    remote_demand: bool,
    /// What the neighbour can take; 0: nothing.
    remote_rx: u32,
    /// A poll waits for its answer.
    polling: bool,
    /// The neighbour polls.
    asked: bool,
    /// The neighbour is to hear of a change at once.
    urgent: bool,
    /// When it spoke by itself, and the part of the interval that it waits (per cent) until it does again.
    spoke: Option<u64>,
    part: u64,
    /// When silence has lasted too long.
    expires: u64,
    /// Until then it is not judged; 0: it is.
    open_until: u64,
}

impl Session {
    /// `mine`: not 0, and no other session's.
    pub fn new(mine: u32, now: u64) -> Self {
        Self {
            state: State::Down,
            diagnostic: Diagnostic::None,
            mine,
            yours: 0,
            remote: State::Down,
            remote_demand: false,
            remote_rx: 1,
            polling: false,
            asked: false,
            urgent: false,
            spoke: None,
            part: 100,
            expires: u64::MAX,
            open_until: now.saturating_add(PATIENCE).max(1),
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    pub fn verdict(&self) -> Verdict {
        match self.state {
            State::Up => Verdict::Alive,
            _ if self.open_until > 0 => Verdict::Open,
            _ => Verdict::Lost,
        }
    }

    fn desired(&self) -> u32 {
        if self.state == State::Up { FAST } else { SLOW }
    }

    /// When it next speaks by itself.
    fn turn(&self) -> u64 {
        // Who can take nothing, or says that he asks when he wants to know, hears nothing unasked.
        let hushed = self.remote_demand && self.state == State::Up && self.remote == State::Up && !self.polling;
        if self.remote_rx == 0 || hushed {
            return u64::MAX;
        }
        let Some(spoke) = self.spoke else { return 0 };
        let interval = u64::from(self.desired().max(self.remote_rx));
        spoke.saturating_add(interval * self.part / 100)
    }

    /// When [`Session::step`] is to be called.
    pub fn due(&self) -> u64 {
        if self.asked || self.urgent {
            return 0;
        }
        let judged = if self.open_until > 0 { self.open_until } else { u64::MAX };
        self.turn().min(self.expires).min(judged)
    }

    fn enter(&mut self, state: State, diagnostic: Diagnostic) {
        if self.state == state {
            return;
        }
        let was_up = self.state == State::Up;
        (self.state, self.diagnostic) = (state, diagnostic);
        self.urgent = self.remote_rx != 0;
        // The rate changes with it. What is down says its rate in every packet, and need not ask whether it was heard.
        self.polling = state == State::Up;
        if state == State::Up || was_up {
            self.open_until = 0;
        }
    }

    /// The neighbour's word; `false`: it is meant for another session.
    pub fn hear(&mut self, said: &Control, now: u64) -> bool {
        if said.yours != 0 && said.yours != self.mine {
            return false;
        }
        self.yours = said.mine;
        self.remote = said.state;
        self.remote_demand = said.demand;
        self.remote_rx = said.required_rx;
        if said.last {
            self.polling = false;
        }
        let interval = u64::from(FAST.max(said.desired_tx));
        self.expires = now.saturating_add(interval * u64::from(said.multiplier));
        match (self.state, said.state) {
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                self.enter(State::Down, Diagnostic::Signaled);
            }
            (State::Down, State::Down) => self.enter(State::Init, self.diagnostic),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.enter(State::Up, Diagnostic::None);
            }
            _ => {}
        }
        self.asked |= said.poll;
        true
    }

    /// What is due: gives what is to be sent, if anything. `roll`: a random number.
    pub fn step(&mut self, now: u64, roll: u32) -> Option<Control> {
        if self.open_until > 0 && self.open_until <= now {
            self.open_until = 0;
        }
        if self.expires <= now {
            self.expires = u64::MAX;
            (self.yours, self.remote, self.remote_demand, self.remote_rx) = (0, State::Down, false, 1);
            if matches!(self.state, State::Init | State::Up) {
                self.enter(State::Down, Diagnostic::Expired);
            }
        }
        let answer = std::mem::take(&mut self.asked);
        if !answer && !std::mem::take(&mut self.urgent) && self.turn() > now {
            return None;
        }
        if !answer {
            // Not all at once, and never quite as late as the neighbour's patience ends.
            (self.spoke, self.part) = (Some(now), u64::from(75 + roll % 26));
        }
        Some(Control { poll: self.polling && !answer, last: answer, ..self.word() })
    }

    fn word(&self) -> Control {
        Control {
            diagnostic: self.diagnostic,
            state: self.state,
            multiplier: MULTIPLIER,
            mine: self.mine,
            yours: self.yours,
            desired_tx: self.desired(),
            required_rx: FAST,
            ..Control::default()
        }
    }

    /// The last word of a session that ends here by intent: no reason to think that the way is lost.
    pub fn farewell(&self) -> Control {
        Control { diagnostic: Diagnostic::AdministrativelyDown, state: State::AdminDown, ..self.word() }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
