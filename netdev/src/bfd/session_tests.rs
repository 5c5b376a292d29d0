//! Two sessions and a wire that may be cut, hours in a moment; and what a hostile neighbour may say.
use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000;

/// Two that speak with each other over a wire that takes a millisecond, or not at all.
struct Pair {
    now: u64,
    sides: [Session; 2],
    wire: Vec<(u64, usize, Control)>,
    /// How often each has spoken.
    spoken: [u32; 2],
    cut: [bool; 2],
}

impl Pair {
    fn new() -> Self {
        Pair {
            now: SECOND,
            sides: [Session::new(1, SECOND), Session::new(2, SECOND)],
            wire: vec![],
            spoken: [0; 2],
            cut: [false; 2],
        }
    }

    fn run(&mut self, time: u64) {
        let end = self.now + time;
        loop {
            let wire = self.wire.iter().map(|(at, ..)| *at).min();
            let due = self.sides.iter().map(Session::due).chain(wire).min().unwrap_or(u64::MAX);
            if due > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(due);
            let arrived: Vec<_> = self.wire.extract_if(.., |(at, ..)| *at <= self.now).collect();
            for (_, to, said) in arrived {
                assert_eq!(
                    Control::read(&said.write()).map(|c| Control { diagnostic: said.diagnostic, ..c }),
                    Some(said)
                );
                assert!(self.sides[to].hear(&said, self.now));
            }
            for from in 0..2 {
                if self.sides[from].due() > self.now {
                    continue;
                }
                let roll = self.spoken[from].wrapping_mul(2_654_435_761) >> 8;
                if let Some(said) = self.sides[from].step(self.now, roll) {
                    self.spoken[from] += 1;
                    if !self.cut[from] {
                        self.wire.push((self.now + MILLISECOND, 1 - from, said));
                    }
                }
            }
        }
    }

    fn states(&self) -> [State; 2] {
        [self.sides[0].state(), self.sides[1].state()]
    }

    fn verdicts(&self) -> [Verdict; 2] {
        [self.sides[0].verdict(), self.sides[1].verdict()]
    }
}

#[test]
fn they_come_up_and_speak_faster_then() {
    let mut pair = Pair::new();
    assert_eq!(pair.verdicts(), [Verdict::Open; 2]);
    pair.run(3 * SECOND);
    assert_eq!((pair.states(), pair.verdicts()), ([State::Up; 2], [Verdict::Alive; 2]));
    let before = pair.spoken;
    pair.run(30 * SECOND);
    for (after, before) in pair.spoken.iter().zip(before) {
        let said = after - before;
        assert!((100..=134).contains(&said), "{said} in 30 s of 0.3 s less up to a quarter");
    }
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn silence_is_a_loss_on_the_side_that_hears_nothing_and_both_are_back_afterwards() {
    let mut pair = Pair::new();
    pair.run(3 * SECOND);
    pair.cut[0] = true;
    pair.run(2 * SECOND);
    // The side that still hears is told so, and waits for the other.
    assert_eq!((pair.states(), pair.verdicts()), ([State::Init, State::Down], [Verdict::Lost; 2]));
    assert_eq!(pair.sides[1].diagnostic(), Diagnostic::Expired);
    assert_eq!(pair.sides[0].diagnostic(), Diagnostic::Signaled);
    let before = pair.spoken;
    pair.run(20 * SECOND);
    for (after, before) in pair.spoken.iter().zip(before) {
        assert!(after - before <= 28, "slowly while it is down");
    }
    pair.cut[0] = false;
    pair.run(3 * SECOND);
    assert_eq!((pair.states(), pair.verdicts()), ([State::Up; 2], [Verdict::Alive; 2]));
}

#[test]
fn who_never_answers_is_lost_after_a_while_and_not_before() {
    let mut pair = Pair::new();
    pair.cut = [true; 2];
    pair.run(PATIENCE - MILLISECOND);
    assert_eq!(pair.verdicts(), [Verdict::Open; 2]);
    pair.run(2 * MILLISECOND);
    assert_eq!((pair.states(), pair.verdicts()), ([State::Down; 2], [Verdict::Lost; 2]));
    assert_eq!(pair.sides[0].diagnostic(), Diagnostic::None);
}

#[test]
fn a_farewell_is_no_silence_and_a_session_that_was_up_is_judged_at_once() {
    let mut pair = Pair::new();
    pair.run(SECOND * 3 / 2);
    assert_eq!(pair.states(), [State::Up; 2], "within its patience");
    let last = pair.sides[0].farewell();
    assert!(pair.sides[1].hear(&last, pair.now));
    assert_eq!((pair.sides[1].state(), pair.sides[1].verdict()), (State::Down, Verdict::Lost));
    assert_eq!(pair.sides[1].diagnostic(), Diagnostic::Signaled);
}

fn said(state: State, yours: u32) -> Control {
    Control { state, multiplier: 3, mine: 77, yours, desired_tx: 300_000, required_rx: 300_000, ..Control::default() }
}

fn up() -> Session {
    let mut session = Session::new(5, 0);
    assert!(session.hear(&said(State::Down, 0), SECOND) && session.state() == State::Init);
    assert!(session.hear(&said(State::Init, 5), SECOND) && session.state() == State::Up);
    session
}

#[test]
fn polls_are_asked_and_answered() {
    let mut session = up();
    let first = session.step(SECOND, 0).unwrap();
    assert!(first.poll && !first.last && first.state == State::Up && first.desired_tx == FAST && first.yours == 77);
    assert!(session.step(SECOND, 0).is_none(), "nothing is due");
    assert!(session.hear(&Control { poll: true, ..said(State::Up, 5) }, SECOND));
    let answer = session.step(SECOND, 0).unwrap();
    assert!(answer.last && !answer.poll, "never both");
    let again = session.step(session.due(), 0).unwrap();
    assert!(again.poll, "until it is answered");
    assert!(session.hear(&Control { last: true, ..said(State::Up, 5) }, session.due()));
    assert!(!session.step(session.due(), 0).unwrap().poll);
}

#[test]
fn the_neighbours_terms_hold() {
    let mut session = up();
    while session.due() <= SECOND {
        session.step(SECOND, 25);
    }
    assert_eq!(session.due(), SECOND + 300_000);
    // He can take less; what he promises decides how long he may be silent.
    let terms = Control { required_rx: 2_000_000, desired_tx: 1_000_000, multiplier: 5, ..said(State::Up, 5) };
    assert!(session.hear(&Control { last: true, ..terms }, SECOND));
    assert_eq!((session.turn(), session.expires), (3 * SECOND, 6 * SECOND));
    // He asks when he wants to know; or can take nothing at all.
    assert!(session.hear(&Control { demand: true, ..terms }, SECOND));
    assert_eq!(session.turn(), u64::MAX);
    assert!(session.hear(&Control { required_rx: 0, ..terms }, SECOND));
    assert_eq!(session.due(), 6 * SECOND, "only to see that he is silent");
    assert!(session.step(6 * SECOND, 0).is_some_and(|c| c.state == State::Down && c.yours == 0));
    // The largest numbers that there are.
    let mut session = up();
    let vast = Control { required_rx: u32::MAX, desired_tx: u32::MAX, multiplier: 255, ..said(State::Up, 5) };
    assert!(session.hear(&vast, u64::MAX - 5));
    assert_eq!(session.expires, u64::MAX);
}

#[test]
fn another_sessions_word_changes_nothing_and_a_restart_of_the_neighbour_is_seen() {
    let mut session = up();
    assert!(!session.hear(&said(State::Down, 6), SECOND));
    assert_eq!(session.state(), State::Up);
    assert!(session.hear(&Control { mine: 99, ..said(State::Down, 0) }, SECOND));
    assert_eq!((session.state(), session.diagnostic()), (State::Down, Diagnostic::Signaled));
    assert!(session.step(SECOND, 0).is_some_and(|c| c.yours == 99 && c.state == State::Down && c.desired_tx == SLOW));
}

proptest! {
    /// Whatever is heard, it speaks within its bounds, is up only after a word that knows it, and comes up again.
    #[test]
    fn no_word_of_anybody_harms_it(words in prop::collection::vec((any::<[u8; 24]>(), any::<bool>(), 0u64..2_000_000), 1..60)) {
        let mut session = Session::new(5, 0);
        let mut now = 0;
        for (mut bytes, knows, pause) in words {
            (bytes[0], bytes[3]) = (0x20, 24);
            if knows {
                bytes[8..12].copy_from_slice(&5u32.to_be_bytes());
            }
            let mut said = 0;
            now += pause;
            while session.due() <= now {
                let out = session.step(now, bytes[5].into());
                if let Some(out) = out {
                    said += 1;
                    prop_assert!(!(out.poll && out.last) && out.mine == 5 && out.multiplier == 3);
                    prop_assert!(out.desired_tx >= SLOW || out.state == State::Up);
                }
                prop_assert!(said < 4, "at one moment");
            }
            let before = session.state();
            if let Some(control) = Control::read(&bytes) {
                let meant = session.hear(&control, now);
                prop_assert!(meant == (control.yours == 0 || control.yours == 5));
                if before != State::Up && session.state() == State::Up {
                    prop_assert!(meant && matches!(control.state, State::Init | State::Up));
                }
            }
        }
        // Quiet for as long as anybody's terms may last, then an honest neighbour.
        now = now.saturating_add(255 * u64::from(u32::MAX) + 1);
        while session.due() <= now {
            session.step(now, 0);
        }
        prop_assert_eq!(session.verdict(), Verdict::Lost);
        for state in [State::Down, State::Init] {
            session.hear(&said(state, 5), now);
        }
        prop_assert_eq!(session.verdict(), Verdict::Alive);
    }
}
