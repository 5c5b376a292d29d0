//! A guest that runs in one folder and is awaited in another, and what must be true of it in the end.
//!
//! The guest writes each number to its disk, then says it: what the consoles have together tells whether it stood
//! still, ran twice or began anew, and the disk there must hold what was said.
use super::streams::Streams;
use crate::contract::{Case, Subject};
use crate::guest;
use pilvi_agent::runtime::{Machine, Run, RuntimeError};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

/// What came of a move: of sending, and of arriving.
pub type Went = (Result<(), RuntimeError>, Result<(), RuntimeError>);

/// A guest that runs here and is awaited there.
pub struct Pair {
    pub here: Case,
    pub there: Case,
    machine: Box<dyn Fn(&Path) -> Machine>,
}

impl Pair {
    pub async fn new(subject: &'static Subject) -> Self {
        let pair = Self::of(subject, subject.counts.unwrap()).await;
        pair.until_counted(&pair.here, 3).await;
        pair
    }

    /// With a guest that may not count.
    pub async fn of(subject: &'static Subject, machine: impl Fn(&Path) -> Machine + 'static) -> Self {
        let pair = Self { here: Case::new(subject), there: Case::new(subject), machine: Box::new(machine) };
        pair.here.runtime.start(&pair.here.guest, (pair.machine)(&pair.here.guest.dir)).await.unwrap();
        pair.receive().await;
        assert_eq!(pair.there.status().await.run, Run::Arriving);
        pair
    }

    /// The guest is saved and goes on here from what was saved.
    pub async fn restore(&self) {
        self.here.runtime.suspend(&self.here.guest).await.unwrap();
        let machine = Machine { restore: true, ..(self.machine)(&self.here.guest.dir) };
        self.here.runtime.start(&self.here.guest, machine).await.unwrap();
    }

    /// What is left here of a guest that has moved is ended, and it is awaited here again, over the old disks.
    pub async fn turn_round(self) -> Self {
        self.here.runtime.kill(&self.here.guest).await.unwrap();
        let pair = Self { here: self.there, there: self.here, machine: self.machine };
        pair.receive().await;
        pair
    }

    /// The other host makes empty disks of the same sizes; what nobody writes to it has.
    pub async fn receive(&self) {
        let machine = (self.machine)(&self.here.guest.dir);
        let there = |disk: &std::path::Path| self.there.guest.dir.join(disk.file_name().unwrap());
        let mut coming = machine;
        for disk in &mut coming.disks {
            let path = there(&disk.path);
            if disk.read_only {
                fs::copy(&disk.path, &path).unwrap();
            } else {
                let size = fs::metadata(&disk.path).unwrap().len();
                fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&path)
                    .unwrap()
                    .set_len(size)
                    .unwrap();
            }
            disk.path = path;
        }
        self.there.runtime.receive(&self.there.guest, coming).await.unwrap();
    }

    /// Sends the guest; whether either side is content.
    pub async fn go(&self, wires: &Streams<'_>) -> Went {
        let send = self.here.runtime.send(&self.here.guest, wires);
        tokio::join!(send, self.there.runtime.arrive(&self.there.guest))
    }

    /// As [`Self::go`], and does something in the middle: when the fault strikes, else while the disks are sent.
    pub async fn go_and(&self, wires: &Streams<'_>, during: impl Future<Output = ()>) -> Went {
        let disturb = async {
            match wires.fault {
                Some(_) => wires.struck.notified().await,
                None => tokio::time::sleep(Duration::from_millis(900)).await,
            }
            during.await;
        };
        let (went, ()) = tokio::join!(self.go(wires), disturb);
        went
    }

    pub async fn until_counted(&self, case: &Case, more: usize) {
        let before = numbers(&case.console().await).len();
        for _ in 0..600 {
            if numbers(&case.console().await).len() >= before + more {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not count: {:?} {:?}", case.status().await, case.console().await);
    }

    /// The guest goes on here as if nothing had been, and was never anywhere else.
    pub async fn goes_on_here(self) {
        assert_eq!(self.here.status().await.run, Run::Running);
        self.until_counted(&self.here, 5).await;
        self.here.runtime.pause(&self.here.guest).await.unwrap();
        self.here.until(Run::Paused).await;
        self.here.runtime.resume(&self.here.guest).await.unwrap();
        self.until_counted(&self.here, 5).await;
        self.there.until(Run::Absent).await;
        assert!(self.there.console().await.is_empty());
        self.here.runtime.kill(&self.here.guest).await.unwrap();
        counted_through(&self.here.console().await);
        self.nothing_is_left().await;
    }

    /// The guest goes on there where it was, with its disks.
    pub async fn goes_on_there(self) {
        self.goes_on_there_after("").await;
    }

    /// As [`Self::goes_on_there`], for a guest that said something elsewhere before.
    pub async fn goes_on_there_after(self, said: &str) {
        assert_eq!(self.here.status().await.run, Run::Moved);
        assert_eq!(self.there.status().await.run, Run::Running);
        self.until_counted(&self.there, 5).await;
        let (here, there) = (&self.here, &self.there);
        assert!(here.runtime.resume(&here.guest).await.is_err(), "it would run twice");
        assert_eq!(here.status().await.run, Run::Moved);
        there.runtime.arrive(&there.guest).await.unwrap();
        there.runtime.pause(&there.guest).await.unwrap();
        there.until(Run::Paused).await;
        for case in [here, there] {
            case.runtime.kill(&case.guest).await.unwrap();
        }
        let last = counted_through(&(said.to_owned() + &here.console().await + &there.console().await));
        let disk = fs::File::open(there.guest.dir.join("root")).unwrap();
        for number in last.saturating_sub(guest::COUNTED - 1).max(1)..=last {
            let mut sector = [0; 512];
            disk.read_exact_at(&mut sector, 512 * (1 + number % guest::COUNTED)).unwrap();
            let words = sector.chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
            // One that was written and not yet said may be there already.
            assert!(
                words.into_iter().all(|word| word == number || word == number + guest::COUNTED),
                "{number} is lost"
            );
        }
        let data = |case: &Case| fs::read(case.guest.dir.join("data")).unwrap();
        assert!(data(here) == data(there), "the disk did not come over whole");
        let taken = fs::metadata(there.guest.dir.join("root")).unwrap().blocks() * 512;
        assert!(taken < 2 << 20, "what was empty takes room now: {taken}");
        self.nothing_is_left().await;
    }

    pub async fn nothing_is_left(self) {
        for case in [self.here, self.there] {
            case.runtime.kill(&case.guest).await.unwrap();
            let names = fs::read_dir(&case.guest.dir).unwrap().map(|entry| entry.unwrap().file_name());
            let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
            let odd = ["door-", "arriving", "told", "moved", "qmp"];
            assert!(!names.iter().any(|name| odd.iter().any(|odd| name.starts_with(odd))), "{names:?}");
            case.end().await;
        }
    }
}

/// The numbers that a console says.
pub fn numbers(text: &str) -> Vec<u64> {
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.filter_map(|line| u64::from_str_radix(line.trim(), 16).ok()).collect()
}

/// It began once, and counted without a gap; the last number.
pub fn counted_through(text: &str) -> u64 {
    let numbers = numbers(text);
    let last = numbers.len() as u64;
    assert!(numbers.iter().copied().eq(1..=last), "not a count: {text:?}");
    assert_eq!(text.matches("up").count(), 1, "it began anew: {text:?}");
    last
}
