//! Small conversions and constructors around the generated types.
//!
//! They keep `Some(Body::X(..))` nests and enum casts out of the code of both ends.
use crate::v1::{
    AgentMessage, Answer, Heartbeat, Hello, Observed, ObservedInstance, Power, Question, SchedulerMessage, Stale,
    Wanted, agent_message, question, scheduler_message,
};

impl Power {
    /// The word for people and logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
        }
    }

    /// The power state with that wire number; an unknown number is `Unspecified`.
    #[must_use]
    pub fn from_wire(number: i32) -> Self {
        Self::try_from(number).unwrap_or(Self::Unspecified)
    }
}

impl ObservedInstance {
    /// Whether this observation says that wanted generation `generation` has been reached well.
    #[must_use]
    pub fn reached(&self, generation: u64) -> bool {
        self.settled && self.error.is_empty() && self.generation >= generation
    }
}

macro_rules! wraps {
    ($outer:ident, $module:ident, $($inner:ident => $variant:ident),+) => {$(
        impl From<$inner> for $outer {
            fn from(value: $inner) -> Self {
                Self { body: Some($module::Body::$variant(value)) }
            }
        }
    )+};
}
wraps!(AgentMessage, agent_message, Hello => Hello, Heartbeat => Heartbeat, Observed => Observed, Answer => Answer, Stale => Stale);
wraps!(SchedulerMessage, scheduler_message, Wanted => Wanted, Question => Question);

impl Question {
    /// Asks for the last `lines` lines of an instance's console; 0 asks for all that is kept.
    #[must_use]
    pub fn console_log(id: u64, instance_id: impl Into<String>, lines: u32) -> Self {
        let body = question::Body::ConsoleLog(crate::v1::ConsoleLog { instance_id: instance_id.into(), lines });
        Self { id, body: Some(body) }
    }

    /// Asks for an instance's diagnostics, a JSON document.
    #[must_use]
    pub fn diagnostics(id: u64, instance_id: impl Into<String>) -> Self {
        let body = question::Body::Diagnostics(crate::v1::Diagnostics { instance_id: instance_id.into() });
        Self { id, body: Some(body) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_power_is_unspecified() {
        assert_eq!(Power::from_wire(99), Power::Unspecified);
        assert_eq!(Power::from_wire(2), Power::Stopped);
    }

    #[test]
    fn an_error_is_not_reached() {
        let mut seen = ObservedInstance { generation: 3, settled: true, ..Default::default() };
        assert!(seen.reached(3) && seen.reached(2) && !seen.reached(4));
        seen.error = "no".into();
        assert!(!seen.reached(3));
    }
}
