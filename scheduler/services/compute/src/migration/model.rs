//! What becomes of a migration by what its two hosts say. Pure.
//!
//! ```text
//!            there: waiting         there: done
//! preparing ---------------> running ---------> completed
//!     |  \--------------------/ |
//!     | there or here: failed   | cancelled, and here it runs on
//!     v                         v
//!   failed                   cancelled
//! ```
//! Only the host there can say that the guest runs there. When the host here does not know it any more, its word alone
//! is waited for: two running copies are worse than none for a while.
use crate::tables::{MoveStage, Moving, Seen, Server, WantedPower};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Wait,
    /// The host here is told where to.
    Go(String),
    Commit,
    TakeBack(String),
}

/// As `os-migrations` spells it.
pub mod status {
    pub const PREPARING: &str = "preparing";
    pub const RUNNING: &str = "running";
    pub const COMPLETED: &str = "completed";
    pub const FAILED: &str = "error";
    pub const CANCELLED: &str = "cancelled";
    /// Of a server that is off: its disks are about to go, on their way, and there.
    pub const COLD_PREPARING: &str = "pre-migrating";
    pub const COLD_RUNNING: &str = "migrating";
    pub const COLD_THERE: &str = "post-migrating";
    /// It may be confirmed or taken back now.
    pub const FINISHED: &str = "finished";
    pub const CONFIRMED: &str = "confirmed";
    pub const REVERTING: &str = "reverting";
    pub const REVERTED: &str = "reverted";
    /// Of a live one that is under way.
    pub const OPEN: [&str; 2] = [PREPARING, RUNNING];
}

/// What the migration's stage is while it is under way.
pub fn stage(moving: &Moving) -> &'static str {
    if moving.address.is_some() { status::RUNNING } else { status::PREPARING }
}

/// The host there has spoken.
pub fn heard_there(moving: &Moving, seen: &Seen) -> Decision {
    let said = seen.moved.as_ref().filter(|said| said.id == moving.id);
    match said.map(|said| said.stage) {
        Some(MoveStage::Waiting) => match (said.map(|said| said.address.clone()), &moving.address) {
            (Some(address), None) if !moving.cancelled => Decision::Go(address),
            // Its agent was restarted, and every stream with it: nobody has arrived, and a second try is none.
            (Some(now), Some(known)) if now != *known => {
                Decision::TakeBack("The agent of the host there was restarted.".into())
            }
            _ => Decision::Wait,
        },
        Some(MoveStage::Done) => Decision::Commit,
        Some(MoveStage::Failed) => Decision::TakeBack(said.map(|said| said.error.clone()).unwrap_or_default()),
        // It cannot even begin: its ports are not wired, say.
        None if seen.settled && !seen.error.is_empty() => Decision::TakeBack(seen.error.clone()),
        _ => Decision::Wait,
    }
}

/// The host here has spoken.
pub fn heard_here(server: &Server, moving: &Moving, seen: &Seen) -> Decision {
    let runs = matches!(seen.power, Some(WantedPower::Running | WantedPower::Paused));
    if moving.cancelled && seen.settled && seen.generation >= server.wanted.generation && seen.moved.is_none() && runs {
        return Decision::TakeBack("The migration was cancelled.".into());
    }
    if moving.cold && seen.settled && seen.generation >= server.wanted.generation && !seen.error.is_empty() {
        // It cannot even be switched off.
        return Decision::TakeBack(seen.error.clone());
    }
    match seen.moved.as_ref().filter(|said| said.id == moving.id) {
        Some(said) if said.stage == MoveStage::Failed => Decision::TakeBack(said.error.clone()),
        _ => Decision::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::model::tests::server;
    use crate::tables::SeenMove;

    fn moving() -> Moving {
        Moving { id: "m".into(), to: "h2".into(), ..Moving::default() }
    }

    fn said(stage: MoveStage, address: &str) -> Seen {
        let moved = SeenMove {
            id: "m".into(),
            stage,
            error: "broke".into(),
            address: address.into(),
            memory: None,
            disks: None,
        };
        Seen { moved: Some(moved), ..Seen::default() }
    }

    #[test]
    fn the_host_there_decides_whether_it_runs_there() {
        let mut m = moving();
        assert_eq!(heard_there(&m, &said(MoveStage::Waiting, "a:1")), Decision::Go("a:1".into()));
        m.address = Some("a:1".into());
        assert_eq!(heard_there(&m, &said(MoveStage::Waiting, "a:1")), Decision::Wait);
        // Its agent was restarted, and listens elsewhere now.
        assert!(matches!(heard_there(&m, &said(MoveStage::Waiting, "a:2")), Decision::TakeBack(_)));
        assert_eq!(heard_there(&m, &said(MoveStage::Done, "")), Decision::Commit);
        assert_eq!(heard_there(&m, &said(MoveStage::Failed, "")), Decision::TakeBack("broke".into()));
        let other = SeenMove { id: "n".into(), ..said(MoveStage::Done, "").moved.unwrap() };
        assert_eq!(heard_there(&m, &Seen { moved: Some(other), ..Seen::default() }), Decision::Wait);
        let stuck = Seen { settled: true, error: "no wire".into(), ..Seen::default() };
        assert_eq!(heard_there(&m, &stuck), Decision::TakeBack("no wire".into()));
    }

    #[test]
    fn the_host_here_can_only_say_that_it_did_not_go() {
        let (s, m) = (server(), moving());
        for stage in [MoveStage::Sending, MoveStage::Done, MoveStage::Lost] {
            assert_eq!(heard_here(&s, &m, &said(stage, "")), Decision::Wait);
        }
        assert_eq!(heard_here(&s, &m, &said(MoveStage::Failed, "")), Decision::TakeBack("broke".into()));
    }

    #[test]
    fn a_cancelled_one_ends_when_the_guest_is_seen_to_run_on() {
        let (mut s, mut m) = (server(), moving());
        m.cancelled = true;
        s.wanted.generation = 5;
        let mut seen = Seen { settled: true, generation: 4, power: Some(WantedPower::Running), ..Seen::default() };
        assert_eq!(heard_here(&s, &m, &seen), Decision::Wait, "it has not heard of that yet");
        seen.generation = 5;
        assert!(matches!(heard_here(&s, &m, &seen), Decision::TakeBack(_)));
        seen.power = Some(WantedPower::Stopped);
        assert_eq!(heard_here(&s, &m, &seen), Decision::Wait, "it may have gone");
        assert_eq!(heard_there(&m, &said(MoveStage::Waiting, "a:1")), Decision::Wait, "nobody is sent there any more");
        assert_eq!(heard_there(&m, &said(MoveStage::Done, "")), Decision::Commit, "it was too late");
    }
}
