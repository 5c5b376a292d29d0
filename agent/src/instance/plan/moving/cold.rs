//! What a move of a guest that is off needs next: pure. Its disks alone go, and stay where they were until the scheduler
//! has made up its mind.
//!
//! ```text
//!  there   nothing yet    Await (room, and the other host is let in) --> Brought     then an instance like any other
//!  here    on             as always: it is wanted off
//!          off            Hand (in the background) --------------------> Handed      and nothing more is done
//!          kept           nothing, and nothing runs: the guest may come back
//! ```
use super::{MoveStep, Sending, steps};
use crate::instance::plan::Step;
use crate::ledger::{Doc, MoveEnd, Moving};
use crate::runtime::Run;

pub(super) fn bring(known: Option<&Moving>, sending: Sending, run: Run) -> Option<Vec<Step>> {
    match (known.map(|m| m.end), sending) {
        (Some(MoveEnd::Done), _) => None,
        // Nothing of it was started here.
        _ if run != Run::Absent => Some(vec![Step::Kill]),
        (Some(MoveEnd::Failed | MoveEnd::Lost), _) => Some(vec![]),
        (_, Sending::UnderWay | Sending::Hurried) => Some(vec![]),
        (_, Sending::Ended) => steps(&[MoveStep::Brought]),
        (_, Sending::None) => steps(&[MoveStep::Await]),
    }
}

pub(super) fn hand(known: Option<&Moving>, sending: Sending, doc: &Doc, run: Run) -> Option<Vec<Step>> {
    let at_rest =
        run == Run::Absent && doc.started.is_empty() && !doc.starting && !doc.suspended && doc.ended.is_none();
    match (known.map(|m| m.end), sending) {
        (Some(MoveEnd::Done), _) => Some(vec![]),
        (Some(MoveEnd::Failed | MoveEnd::Lost), _) => None,
        (Some(MoveEnd::Open), Sending::UnderWay | Sending::Hurried) => Some(vec![]),
        (Some(MoveEnd::Open), _) => steps(&[MoveStep::Handed]),
        (None, _) if at_rest => steps(&[MoveStep::Hand]),
        (None, _) => None,
    }
}

pub(super) fn keep(run: Run) -> Option<Vec<Step>> {
    Some(if run == Run::Absent { vec![] } else { vec![Step::Ending, Step::Kill, Step::MarkOff] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moving(end: MoveEnd) -> Option<Moving> {
        Some(Moving { id: "m".into(), end, error: String::new() })
    }

    #[test]
    fn disks_go_once_the_guest_is_off_and_once_only() {
        let resting = Doc::default();
        let on = Doc { started: "boot".into(), ..Doc::default() };
        assert_eq!(hand(None, Sending::None, &on, Run::Running), None, "it is stopped first");
        assert_eq!(hand(None, Sending::None, &on, Run::Absent), None, "and that is written down");
        assert_eq!(hand(None, Sending::None, &resting, Run::Absent), steps(&[MoveStep::Hand]));
        let at = |end, sending| hand(moving(end).as_ref(), sending, &resting, Run::Absent);
        assert_eq!(at(MoveEnd::Open, Sending::UnderWay), Some(vec![]));
        assert_eq!(at(MoveEnd::Open, Sending::Ended), steps(&[MoveStep::Handed]));
        assert_eq!(at(MoveEnd::Open, Sending::None), steps(&[MoveStep::Handed]), "an agent died meanwhile");
        assert_eq!(at(MoveEnd::Done, Sending::None), Some(vec![]));
        assert_eq!(at(MoveEnd::Failed, Sending::None), None, "as if nothing had been");
    }

    #[test]
    fn nothing_runs_where_disks_are_awaited_or_kept() {
        assert_eq!(bring(None, Sending::None, Run::Absent), steps(&[MoveStep::Await]));
        let at = |end, sending| bring(moving(end).as_ref(), sending, Run::Absent);
        assert_eq!(at(MoveEnd::Open, Sending::None), steps(&[MoveStep::Await]), "an agent died meanwhile");
        assert_eq!(at(MoveEnd::Open, Sending::UnderWay), Some(vec![]));
        assert_eq!(at(MoveEnd::Open, Sending::Ended), steps(&[MoveStep::Brought]));
        assert_eq!(at(MoveEnd::Failed, Sending::None), Some(vec![]));
        assert_eq!(at(MoveEnd::Done, Sending::None), None, "like any other");
        assert_eq!(keep(Run::Absent), Some(vec![]));
        assert_eq!(keep(Run::Running), Some(vec![Step::Ending, Step::Kill, Step::MarkOff]));
    }
}
