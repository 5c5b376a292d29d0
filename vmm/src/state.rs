//! What a machine can be, why it ended, and which exit code tells so.
//!
//! ```text
//!   starting ──► running ◄──► paused
//!                   │            │
//!                   └─────┬──────┘
//!                         ▼
//!                  stopped{reason} ──(reset, on_reset = restart)──► starting
//! ```
//! The process ends with the machine, so `stopped` is seen as an exit code and in the report file; a reset that is
//! answered inside the process shows only as a higher `resets` count in the status.

use serde::{Deserialize, Serialize};

/// Run state as the control socket reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Devices and kernel are being put in place; no guest instruction has run.
    Starting,
    /// Virtual processors may run.
    Running,
    /// Every virtual processor and every device worker stands still.
    Paused,
    /// The machine has ended; the process is about to.
    Stopped,
}

/// Why a machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum StopReason {
    /// The guest switched itself off (exit port, or a KVM shutdown event).
    PoweredOff,
    /// Every virtual processor halted with interrupts off: what a kernel without power management does on power off.
    Halted,
    /// The guest asked for a reset (keyboard controller, triple fault, KVM reset event).
    Reset,
    /// Somebody asked through the control socket or by SIGTERM.
    Killed,
    /// It runs in another process now.
    Moved,
    /// The guest cannot go on: KVM refused to run it. The journal has the registers.
    Crashed {
        /// What KVM said.
        detail: String,
    },
}

impl StopReason {
    /// Exit code of the process for this end. 1 is left for failures of the monitor itself, 2 for a bad command line
    /// or configuration.
    pub fn exit_code(&self) -> u8 {
        match self {
            StopReason::PoweredOff | StopReason::Halted => 0,
            StopReason::Reset => 3,
            StopReason::Crashed { .. } => 4,
            StopReason::Killed => 5,
            StopReason::Moved => 7,
        }
    }
}

/// Exit code when the monitor itself failed (no KVM, no memory, a file that vanished).
pub const EXIT_FAILURE: u8 = 1;
/// Exit code for a command line or configuration that cannot be accepted.
pub const EXIT_CONFIG: u8 = 2;
/// Exit code when a thread made a system call that its filter forbids.
pub const EXIT_SECCOMP: u8 = 6;

/// What is written to the report file when the process ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Name of the machine, from its configuration.
    pub id: String,
    /// Why it ended.
    pub reason: StopReason,
    /// Resets answered inside the process before the end.
    pub resets: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_distinct_where_the_agent_must_act_differently() {
        let crashed = StopReason::Crashed { detail: "x".into() };
        let codes = [StopReason::PoweredOff, StopReason::Reset, StopReason::Killed, StopReason::Moved, crashed]
            .map(|r| r.exit_code());
        for (i, a) in codes.iter().enumerate() {
            assert!(codes.iter().skip(i + 1).all(|b| a != b));
            assert!(![EXIT_FAILURE, EXIT_CONFIG, EXIT_SECCOMP].contains(a));
        }
    }

    #[test]
    fn report_survives_a_round_trip() {
        let report = Report { id: "a".into(), reason: StopReason::Crashed { detail: "suberror 1".into() }, resets: 2 };
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains("\"kind\":\"crashed\""));
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
