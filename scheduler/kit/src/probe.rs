//! Looking on while a call asks its rules: how a test sees what a handler decides, without letting it act.
//!
//! A [`Probe`] goes with a request as an extension, so no client can send one ([`crate::testing::App::probe`]). It writes
//! down each rule that is asked and the answer, and ends the call where a rule it waits for allows it: a handler that
//! asks before it acts, as all must, has changed nothing by then.
use crate::fault::Fault;
use parking_lot::Mutex;

/// The kind of the fault that ends a probed call.
pub const PROBED: &str = "Probed";

/// One question to the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    pub rule: String,
    pub allowed: bool,
    /// A denial refused the call; else the rule was only looked at, as lists do to choose what they show.
    pub enforced: bool,
}

/// What was asked so far.
#[derive(Debug, Default)]
pub struct Probe {
    asked: Mutex<Vec<Asking>>,
    /// The rule whose permission ends the call; `None`: the route's own.
    until: Option<String>,
}

impl Probe {
    pub fn until(rule: Option<&str>) -> Self {
        Probe { until: rule.map(str::to_owned), ..Probe::default() }
    }

    pub fn asked(&self) -> Vec<Asking> {
        self.asked.lock().clone()
    }

    pub(crate) fn note(&self, route: &str, rule: &str, allowed: bool, enforced: bool) -> Result<(), Fault> {
        self.asked.lock().push(Asking { rule: rule.to_owned(), allowed, enforced });
        if allowed && enforced && rule == self.until.as_deref().unwrap_or(route) {
            return Err(Fault::forbidden("The rule allows it; this was only a probe.").kind(PROBED));
        }
        Ok(())
    }
}
