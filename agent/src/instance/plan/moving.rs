//! What a move from host to host needs next: pure.
//!
//! ```text
//!  there   nothing yet   Room, Fetch, Ports, ConfigDrive, Receive     from here on it comes or it does not
//!          arriving      Arrive -----------------> Arrived            from here on it is an instance like any other
//!          else          ArrivalFailed, Kill                          it has not run here and never will
//!
//!  here    running       Depart (in the background; the guest goes on)
//!          in a hurry    Hurry (once)
//!          gone          Departed                                     it waits for the wanted set without it
//!          not gone      DepartureFailed                              it runs on here
//!          stands still  DepartureFailed                              until the scheduler says who has it
//!          not wanted    Stay                                         given up, it runs on here
//! ```
//! A guest that is off goes another way: see [`cold`]. Each move is tried once: what became of it is written down under its id, and the scheduler makes up its mind.
mod cold;

use crate::ledger::{Doc, MoveEnd, Moving};
use crate::runtime::Run;

/// What the driver knows of the move that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// It comes, by the move of this id.
    Arrive(String),
    /// It goes; how far the sending is that this agent began.
    Depart(String, Sending),
    /// Its disks come, by the move of this id; how far they are.
    Bring(String, Sending),
    /// Its disks go, once it is off.
    Hand(String, Sending),
    /// It is elsewhere, and may come back to what is here.
    Keep,
    /// No move is wanted; one may have been before.
    Stay,
}

/// The sending, as this agent knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// This agent has begun none.
    None,
    /// It is on its way.
    UnderWay,
    /// It is on its way, shall switch over now, and does not know that yet.
    Hurried,
    Ended,
}

/// One thing to do for a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveStep {
    /// Empty disks of the sizes that they have there.
    Room,
    /// A process waits for the guest.
    Receive,
    /// The other host's agent is let in, until the guest has arrived.
    Arrive,
    Arrived,
    ArrivalFailed,
    /// The guest is on its way.
    Depart,
    /// It switches over as soon as it can.
    Hurry,
    Departed,
    DepartureFailed,
    Stay,
    /// Room for disks, and the other host's agent is let in.
    Await,
    /// What became of the disks that were to come.
    Brought,
    /// The disks are on their way.
    Hand,
    /// What became of the disks that were to go.
    Handed,
}

impl MoveStep {
    /// What the agent is doing, for the observation.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Room | Self::Await | Self::Brought | Self::Hand | Self::Handed => "disks",
            Self::Receive | Self::Arrive | Self::Arrived | Self::ArrivalFailed => "arriving",
            Self::Depart | Self::Hurry | Self::Departed | Self::DepartureFailed | Self::Stay => "departing",
        }
    }
}

use super::Step;

fn steps(of: &[MoveStep]) -> Option<Vec<Step>> {
    Some(of.iter().map(|step| Step::Move(*step)).collect())
}

/// The steps of a move; `None` when nothing of one stands before what else is wanted.
pub(super) fn plan(wish: &Wish, doc: &Doc, run: Run) -> Option<Vec<Step>> {
    match wish {
        Wish::Arrive(id) => arrive(doc.arrival.as_ref().filter(|m| m.id == *id).map(|m| m.end), run),
        Wish::Depart(id, sending) => depart(doc.departure.as_ref().filter(|m| m.id == *id), *sending, run),
        Wish::Bring(id, sending) => cold::bring(doc.arrival.as_ref().filter(|m| m.id == *id), *sending, run),
        Wish::Hand(id, sending) => cold::hand(doc.departure.as_ref().filter(|m| m.id == *id), *sending, doc, run),
        Wish::Keep => cold::keep(run),
        Wish::Stay => stay(doc.departure.as_ref()),
    }
}

fn arrive(known: Option<MoveEnd>, run: Run) -> Option<Vec<Step>> {
    match (known, run) {
        (Some(MoveEnd::Done), _) => None,
        (Some(MoveEnd::Open), Run::Arriving) => steps(&[MoveStep::Arrive]),
        (Some(MoveEnd::Open), Run::Running | Run::Paused) => steps(&[MoveStep::Arrived]),
        (Some(MoveEnd::Open), _) => Some(vec![Step::Move(MoveStep::ArrivalFailed), Step::Kill]),
        (Some(MoveEnd::Failed | MoveEnd::Lost), Run::Absent) => Some(vec![]),
        (None, Run::Absent) => Some(vec![
            Step::Move(MoveStep::Room),
            Step::Fetch,
            Step::Ports,
            Step::ConfigDrive,
            Step::Move(MoveStep::Receive),
        ]),
        (Some(MoveEnd::Failed | MoveEnd::Lost) | None, _) => Some(vec![Step::Kill]),
    }
}

fn depart(known: Option<&Moving>, sending: Sending, run: Run) -> Option<Vec<Step>> {
    match (known.map(|m| m.end), sending, run) {
        (Some(MoveEnd::Done), ..) => Some(vec![]),
        (_, _, Run::Moved) => steps(&[MoveStep::Departed]),
        (Some(MoveEnd::Open), Sending::UnderWay, _) => Some(vec![]),
        (Some(MoveEnd::Open), Sending::Hurried, _) => steps(&[MoveStep::Hurry]),
        // Whoever began it is gone, or has ended it without the guest having gone.
        (Some(MoveEnd::Open), ..) => steps(&[MoveStep::DepartureFailed]),
        (Some(MoveEnd::Lost), _, Run::Paused) => Some(vec![]),
        (Some(MoveEnd::Failed | MoveEnd::Lost), ..) => None,
        (None, _, Run::Running) => steps(&[MoveStep::Depart]),
        (None, ..) => steps(&[MoveStep::DepartureFailed]),
    }
}

fn stay(known: Option<&Moving>) -> Option<Vec<Step>> {
    // One that has gone is not called back: the next wanted set will not name it.
    known.filter(|m| m.end != MoveEnd::Done).and_then(|_| steps(&[MoveStep::Stay]))
}

#[cfg(test)]
mod tests;
