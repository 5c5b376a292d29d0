//! What every runtime must do whose guests move from one host to another while they run.
//!
//! ```text
//!  here: a guest that counts --streams, maybe slow, maybe broken--> there: another folder, another runtime
//! ```
mod pair;
mod pause;
pub mod streams;

use crate::contract::{Case, QEMU, Subject, suite};
use crate::guest;
use nix::sys::signal::Signal;
use pair::{Pair, counted_through, numbers};
use pilvi_agent::process;
use pilvi_agent::runtime::{Going, Run, Status};
use std::fs;
use std::time::Duration;
use streams::{Fault, Streams};

async fn moves_while_it_runs(subject: &'static Subject) {
    let pair = Pair::new(subject).await;
    let before = numbers(&pair.here.console().await).len();
    let here = &pair.here;
    assert_eq!(here.runtime.going(&here.guest).await.unwrap(), None, "it is on no way yet");
    let told = async {
        let (mut seen, mut most) = (0, 0);
        // Until it has gone; the first step of a send knows nothing yet.
        while here.status().await.run != Run::Moved {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let Ok(Some(Going { disks, .. })) = here.runtime.going(&here.guest).await else { continue };
            assert!(disks.processed >= most || disks.total == 0, "what has gone does not come back: {disks:?}");
            seen += usize::from(disks.processed > most && disks.total > 0 && disks.remaining > 0);
            most = most.max(disks.processed);
        }
        assert!(seen > 0, "how much has gone was told {seen} times");
    };
    let (sent, arrived) = pair.go_and(&Streams::slow(&pair.there), told).await;
    sent.unwrap();
    arrived.unwrap();
    let during = numbers(&pair.here.console().await).len() - before;
    assert!(during >= 10, "it wrote only {during} times during the move");
    pair.here.runtime.send(&pair.here.guest, &Streams::fast(&pair.there)).await.unwrap();
    pair.goes_on_there().await;
}

async fn moves_on_and_back(subject: &'static Subject) {
    let pair = Pair::new(subject).await;
    let (sent, arrived) = pair.go(&Streams::fast(&pair.there)).await;
    sent.unwrap();
    arrived.unwrap();
    let pair = pair.turn_round().await;
    let first = pair.there.console().await;
    pair.there.guest.console.clear().unwrap();
    pair.until_counted(&pair.here, 3).await;
    let (sent, arrived) = pair.go(&Streams::fast(&pair.there)).await;
    sent.unwrap();
    arrived.unwrap();
    pair.goes_on_there_after(&first).await;
}

async fn moves_after_it_was_restored(subject: &'static Subject) {
    let pair = Pair::new(subject).await;
    // In the middle of a move it can be saved as well: it goes nowhere then.
    let wires = Streams::slow(&pair.there);
    let (sent, arrived) = pair.go_and(&wires, pair.restore()).await;
    assert!(sent.is_err() && arrived.is_err());
    pair.until_counted(&pair.here, 3).await;
    pair.receive().await;
    let (sent, arrived) = pair.go(&Streams::fast(&pair.there)).await;
    sent.unwrap();
    arrived.unwrap();
    pair.goes_on_there().await;
}

/// In the middle of the memory: what comes after that is never there.
const MEMORY: Fault = Fault { door: "state", there: 100 << 10, back: usize::MAX, ends: false };
/// Where a move is disturbed.
const MIDDLES: [Option<Fault>; 2] = [None, Some(MEMORY)];
/// All is there, and the word that lets it run gets no further.
const WORD: Fault = Fault { door: "word", there: 0, back: usize::MAX, ends: true };

async fn a_cancelled_move_leaves_it_running(subject: &'static Subject) {
    for middle in MIDDLES {
        let pair = Pair::new(subject).await;
        pair.here.runtime.cancel_send(&pair.here.guest).await.unwrap();
        let during = async {
            let refused = pair.here.runtime.pause(&pair.here.guest).await;
            assert!(refused.is_err(), "it would arrive running");
            assert_eq!(pair.here.status().await.run, Run::Running);
            pair.here.runtime.cancel_send(&pair.here.guest).await.unwrap();
        };
        let (sent, arrived) = pair.go_and(&Streams::until(&pair.there, middle), during).await;
        assert!(sent.is_err() && arrived.is_err());
        pair.here.runtime.cancel_send(&pair.here.guest).await.unwrap();
        pair.goes_on_here().await;
    }
}

async fn a_move_of_an_earlier_agent_is_given_up(subject: &'static Subject) {
    for middle in MIDDLES {
        let mut pair = Pair::new(subject).await;
        let sent = {
            let wires = Streams::until(&pair.there, middle);
            let send = pair.here.runtime.send(&pair.here.guest, &wires);
            tokio::time::timeout(Duration::from_millis(1500), send).await
        };
        assert!(sent.is_err(), "it was not under way: {sent:?}");
        pair.here.restart_agent();
        assert_eq!(pair.here.status().await.run, Run::Running);
        pair.here.runtime.cancel_send(&pair.here.guest).await.unwrap();
        assert!(pair.there.runtime.arrive(&pair.there.guest).await.is_err());
        pair.goes_on_here().await;
    }
}

async fn moves_after_a_move_was_given_up(subject: &'static Subject) {
    let pair = Pair::new(subject).await;
    let cancel = async { pair.here.runtime.cancel_send(&pair.here.guest).await.unwrap() };
    let (sent, arrived) = pair.go_and(&Streams::slow(&pair.there), cancel).await;
    assert!(sent.is_err() && arrived.is_err());
    pair.receive().await;
    let (sent, arrived) = pair.go(&Streams::fast(&pair.there)).await;
    sent.unwrap();
    arrived.unwrap();
    pair.goes_on_there().await;
}

async fn a_target_that_dies_leaves_it_running(subject: &'static Subject) {
    for middle in MIDDLES {
        let pair = Pair::new(subject).await;
        let (sent, arrived) = pair.go_and(&Streams::until(&pair.there, middle), async { kill(&pair.there) }).await;
        assert!(sent.is_err() && arrived.is_err());
        pair.goes_on_here().await;
    }
}

async fn a_source_that_dies_never_arrives(subject: &'static Subject) {
    for middle in MIDDLES {
        let pair = Pair::new(subject).await;
        let (sent, arrived) = pair.go_and(&Streams::until(&pair.there, middle), async { kill(&pair.here) }).await;
        assert!(sent.is_err() && arrived.is_err());
        pair.there.until(Run::Absent).await;
        pair.here.until(Run::Absent).await;
        assert!(pair.there.console().await.is_empty());
        pair.nothing_is_left().await;
    }
}

/// The guest stands still on both sides, and only the other one could know whether it was told: it did not hear it.
async fn a_lost_word_leaves_it_stopped(subject: &'static Subject) {
    let pair = Pair::new(subject).await;
    let (sent, arrived) = pair.go(&Streams::with(&pair.there, WORD)).await;
    assert!(sent.is_err() && arrived.is_err());
    assert_eq!(pair.here.status().await.run, Run::Paused);
    pair.here.runtime.cancel_send(&pair.here.guest).await.unwrap();
    assert_eq!(pair.here.status().await.run, Run::Paused, "what may have been told cannot be taken back");
    pair.there.until(Run::Absent).await;
    // Whoever asked the other side knows now.
    pair.here.runtime.resume(&pair.here.guest).await.unwrap();
    pair.goes_on_here().await;
}

/// The other side runs it, and cannot say so.
async fn a_lost_answer_leaves_it_stopped(subject: &'static Subject) {
    let pair = Pair::new(subject).await;
    let fault = Fault { there: usize::MAX, back: 0, ..WORD };
    let (sent, arrived) = pair.go(&Streams::with(&pair.there, fault)).await;
    arrived.unwrap();
    assert!(sent.is_err());
    assert_eq!(pair.here.status().await.run, Run::Paused);
    assert_eq!(pair.there.status().await.run, Run::Running);
    pair.until_counted(&pair.there, 5).await;
    pair.here.runtime.kill(&pair.here.guest).await.unwrap();
    pair.there.runtime.kill(&pair.there.guest).await.unwrap();
    counted_through(&(pair.here.console().await + &pair.there.console().await));
    pair.nothing_is_left().await;
}

async fn what_powers_off_on_its_way_stays(subject: &'static Subject) {
    let pair = Pair::of(subject, |dir| (subject.machine)(dir, false)).await;
    pair.here.until_said(subject.says).await;
    let off = async { pair.here.runtime.shutdown(&pair.here.guest).await.unwrap() };
    let (sent, arrived) = pair.go_and(&Streams::with(&pair.there, MEMORY), off).await;
    assert!(sent.is_err() && arrived.is_err());
    assert_eq!(pair.here.status().await.run, Run::PoweredOff);
    pair.there.until(Run::Absent).await;
    pair.nothing_is_left().await;
}

/// Only what runs is sent, and where nothing waits nothing is sent.
async fn a_move_that_cannot_begin_changes_nothing(subject: &'static Subject) {
    let pair = Pair::new(subject).await;
    let wires = Streams::fast(&pair.there);
    pair.here.runtime.pause(&pair.here.guest).await.unwrap();
    assert!(pair.here.runtime.send(&pair.here.guest, &wires).await.is_err());
    assert_eq!(pair.here.status().await.run, Run::Paused);
    pair.here.runtime.resume(&pair.here.guest).await.unwrap();
    pair.there.runtime.kill(&pair.there.guest).await.unwrap();
    assert!(pair.here.runtime.send(&pair.here.guest, &wires).await.is_err());
    assert!(pair.there.runtime.arrive(&pair.there.guest).await.is_err());
    drop(wires);
    pair.goes_on_here().await;
}

async fn a_second_receive_takes_up_the_first(subject: &'static Subject) {
    let mut pair = Pair::new(subject).await;
    let first = pair.there.status().await;
    pair.receive().await;
    assert_eq!(pair.there.status().await, first);
    assert!(pair.there.runtime.resume(&pair.there.guest).await.is_err(), "there is nothing to run yet");
    pair.there.restart_agent();
    pair.receive().await;
    assert_eq!(pair.there.status().await, first);
    assert_eq!(pair.there.processes(), 1);
    let (sent, arrived) = pair.go(&Streams::fast(&pair.there)).await;
    sent.unwrap();
    arrived.unwrap();
    assert_eq!(pair.there.status().await, Status { run: Run::Running, ..first });
    pair.receive().await;
    pair.goes_on_there().await;
}

fn kill(case: &Case) {
    process::recall(&case.guest.dir).unwrap().signal(Signal::SIGKILL).unwrap();
}

/// Somebody cannot wait for it: it switches over as soon as it can, and loses nothing.
async fn a_move_in_a_hurry_comes_to_its_end(subject: &'static Subject) {
    let pair = Pair::new(subject).await;
    assert!(pair.here.runtime.hurry_send(&pair.here.guest).await.is_err(), "there is nothing to hurry");
    let hurry = async { pair.here.runtime.hurry_send(&pair.here.guest).await.unwrap() };
    let (sent, arrived) = pair.go_and(&Streams::slow(&pair.there), hurry).await;
    sent.unwrap();
    arrived.unwrap();
    pair.goes_on_there().await;
}

suite!(
    qemu,
    QEMU,
    guest::qemu(),
    moves_while_it_runs,
    moves_on_and_back,
    a_move_in_a_hurry_comes_to_its_end,
    moves_after_it_was_restored,
    a_move_that_cannot_begin_changes_nothing,
    what_powers_off_on_its_way_stays,
    a_cancelled_move_leaves_it_running,
    a_move_of_an_earlier_agent_is_given_up,
    moves_after_a_move_was_given_up,
    a_target_that_dies_leaves_it_running,
    a_source_that_dies_never_arrives,
    a_lost_word_leaves_it_stopped,
    a_lost_answer_leaves_it_stopped,
    a_second_receive_takes_up_the_first
);

/// The guest has stopped here and is all there, but that it could be read is never heard: it goes on here.
#[tokio::test(flavor = "multi_thread")]
async fn qemu_goes_on_when_nobody_says_that_all_is_there() {
    if !guest::qemu() {
        return;
    }
    for ends in [true, false] {
        let pair = Pair::new(&QEMU).await;
        // The answer to a first question has eight bytes, and what follows is that all is there.
        let wires = Streams::with(&pair.there, Fault { there: usize::MAX, back: 8, ends, ..MEMORY });
        let cancel = async {
            if !ends {
                pair.here.runtime.cancel_send(&pair.here.guest).await.unwrap();
            }
        };
        let (sent, arrived) = pair.go_and(&wires, cancel).await;
        assert!(sent.is_err() && arrived.is_err(), "{sent:?} {arrived:?}");
        drop(wires);
        pair.goes_on_here().await;
    }
}

/// An agent ends between hearing that the guest shall run and letting it: the next one does.
#[tokio::test(flavor = "multi_thread")]
async fn qemu_runs_what_an_earlier_agent_was_told_to_run() {
    if !guest::qemu() {
        return;
    }
    let mut pair = Pair::new(&QEMU).await;
    let fault = Fault { ends: false, ..WORD };
    {
        let wires = Streams::with(&pair.there, fault);
        tokio::select! {
            went = pair.go(&wires) => panic!("{went:?}"),
            () = wires.struck.notified() => {}
        }
    }
    assert_eq!(pair.here.status().await.run, Run::Paused);
    assert_eq!(pair.there.status().await.run, Run::Arriving);
    fs::rename(pair.there.guest.dir.join("arriving"), pair.there.guest.dir.join("told")).unwrap();
    pair.there.restart_agent();
    assert_eq!(pair.there.status().await.run, Run::Arriving);
    pair.there.runtime.arrive(&pair.there.guest).await.unwrap();
    assert_eq!(pair.there.status().await.run, Run::Running);
    pair.until_counted(&pair.there, 5).await;
    pair.nothing_is_left().await;
}
