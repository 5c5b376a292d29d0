//! A model of two hosts: whatever is killed at whatever moment, a guest runs on one of them, and never on both.
use super::*;
use proptest::prelude::*;

#[derive(Debug, Default)]
struct Side {
    doc: Doc,
    run: Run,
    sending: Sending2,
}

/// As [`Sending`], with a default.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Sending2 {
    #[default]
    None,
    UnderWay,
    Ended,
}

#[test]
fn a_move_that_is_under_way_is_told_to_hurry_and_nothing_else_is_done() {
    let doc = Doc { departure: moving(MoveEnd::Open), ..Doc::default() };
    let of = |sending| plan(&Wish::Depart("m".into(), sending), &doc, Run::Running);
    assert_eq!(of(Sending::Hurried), Some(vec![Step::Move(MoveStep::Hurry)]));
    assert_eq!(of(Sending::UnderWay), Some(vec![]));
}

fn moving(end: MoveEnd) -> Option<Moving> {
    Some(Moving { id: "m".into(), end, error: String::new() })
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    /// The source's agent, or the target's, takes its next step.
    Here,
    There,
    /// The guest's way ends: it arrives, or it does not.
    Arrives,
    Breaks,
    /// It arrives, but its source never hears of that.
    ArrivesUnheard,
    AgentHereDies,
    AgentThereDies,
    ProcessThereDies,
}

struct World {
    here: Side,
    there: Side,
}

impl World {
    fn new() -> Self {
        let here = Side { run: Run::Running, ..Side::default() };
        Self { here, there: Side::default() }
    }

    fn step_here(&mut self) {
        let sending = match self.here.sending {
            Sending2::None => Sending::None,
            Sending2::UnderWay => Sending::UnderWay,
            Sending2::Ended => Sending::Ended,
        };
        let ready = self.there.doc.arrival.is_some();
        let wish = if ready { Wish::Depart("m".into(), sending) } else { Wish::Stay };
        let steps = plan(&wish, &self.here.doc, self.here.run);
        for step in steps.unwrap_or_default() {
            match step {
                Step::Move(MoveStep::Depart) => {
                    self.here.doc.departure = moving(MoveEnd::Open);
                    self.here.sending = Sending2::UnderWay;
                }
                Step::Move(MoveStep::Departed) => self.here.doc.departure = moving(MoveEnd::Done),
                Step::Move(MoveStep::DepartureFailed) => {
                    let lost = self.here.run == Run::Paused;
                    self.here.doc.departure = moving(if lost { MoveEnd::Lost } else { MoveEnd::Failed });
                    self.here.sending = Sending2::None;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn step_there(&mut self) {
        let steps = plan(&Wish::Arrive("m".into()), &self.there.doc, self.there.run);
        for step in steps.unwrap_or_default() {
            match step {
                Step::Move(MoveStep::Receive) => {
                    self.there.doc.arrival = moving(MoveEnd::Open);
                    self.there.run = Run::Arriving;
                }
                Step::Move(MoveStep::Arrived) => self.there.doc.arrival = moving(MoveEnd::Done),
                Step::Move(MoveStep::ArrivalFailed) => self.there.doc.arrival = moving(MoveEnd::Failed),
                Step::Kill => {
                    assert_ne!(self.there.run, Run::Running, "a guest that has arrived was killed");
                    self.there.run = Run::Absent;
                }
                _ => {}
            }
        }
    }

    fn happen(&mut self, what: Happens) {
        let on_its_way = self.here.sending == Sending2::UnderWay && self.there.run == Run::Arriving;
        match what {
            Happens::Here => self.step_here(),
            Happens::There => self.step_there(),
            Happens::Arrives if on_its_way => {
                (self.here.run, self.there.run, self.here.sending) = (Run::Moved, Run::Running, Sending2::Ended);
            }
            Happens::ArrivesUnheard if on_its_way => {
                (self.here.run, self.there.run, self.here.sending) = (Run::Paused, Run::Running, Sending2::Ended);
            }
            Happens::Breaks if on_its_way => {
                (self.here.sending, self.there.run) = (Sending2::Ended, Run::Absent);
            }
            Happens::AgentHereDies if self.here.sending != Sending2::None => {
                if self.here.sending == Sending2::UnderWay {
                    self.there.run = Run::Absent;
                }
                self.here.sending = Sending2::None;
            }
            Happens::AgentThereDies if on_its_way => {
                (self.here.sending, self.there.run) = (Sending2::Ended, Run::Absent);
            }
            Happens::ProcessThereDies if self.there.run == Run::Arriving => {
                self.there.run = Run::Absent;
                if on_its_way {
                    self.here.sending = Sending2::Ended;
                }
            }
            _ => {}
        }
    }
}

const ALL: [Happens; 8] = [
    Happens::Here,
    Happens::There,
    Happens::Arrives,
    Happens::Breaks,
    Happens::ArrivesUnheard,
    Happens::AgentHereDies,
    Happens::AgentThereDies,
    Happens::ProcessThereDies,
];

proptest! {
    #[test]
    fn a_guest_is_never_lost_and_never_doubled(happens in proptest::collection::vec(0usize..8, 0..40)) {
        let mut world = World::new();
        for what in happens {
            world.happen(ALL[what]);
            let (here, there) = (world.here.run == Run::Running, world.there.run == Run::Running);
            prop_assert!(here != there, "{:?} {:?}", world.here, world.there);
        }
        // Left alone, both sides come to an end, and what they say is true.
        for _ in 0..4 {
            world.step_there();
            world.step_here();
        }
        let said = |of: &Option<Moving>| of.as_ref().map(|m| m.end);
        match said(&world.here.doc.departure) {
            Some(MoveEnd::Done) => prop_assert_eq!(world.here.run, Run::Moved),
            Some(MoveEnd::Failed) => prop_assert_eq!(world.here.run, Run::Running),
            Some(MoveEnd::Lost) => prop_assert_eq!(world.here.run, Run::Paused),
            Some(MoveEnd::Open) | None => {}
        }
        match said(&world.there.doc.arrival) {
            Some(MoveEnd::Done) => prop_assert_eq!(world.there.run, Run::Running),
            Some(MoveEnd::Failed) => prop_assert_eq!(world.there.run, Run::Absent),
            _ => {}
        }
    }
}

#[test]
fn a_departure_that_is_withdrawn_is_given_up() {
    let mut doc = Doc { departure: moving(MoveEnd::Open), ..Doc::default() };
    assert_eq!(plan(&Wish::Stay, &doc, Run::Running), steps(&[MoveStep::Stay]));
    doc.departure = moving(MoveEnd::Lost);
    assert_eq!(plan(&Wish::Stay, &doc, Run::Paused), steps(&[MoveStep::Stay]));
    doc.departure = None;
    assert_eq!(plan(&Wish::Stay, &doc, Run::Running), None);
}

#[test]
fn another_move_is_another_try() {
    let doc = Doc { departure: moving(MoveEnd::Failed), ..Doc::default() };
    let wish = |id: &str| Wish::Depart(id.into(), Sending::None);
    assert_eq!(plan(&wish("m"), &doc, Run::Running), None);
    assert_eq!(plan(&wish("n"), &doc, Run::Running), steps(&[MoveStep::Depart]));
    assert_eq!(plan(&wish("n"), &doc, Run::Absent), steps(&[MoveStep::DepartureFailed]));
}
