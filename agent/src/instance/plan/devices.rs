//! How the machine of a running guest differs from what is wanted, and what is tried next: pure.
//!
//! ```text
//!  wanted, not there     Plug    --no--> again after 1, 2, 4 ... 30 s; after PLUGS the instance is as settled as it can be
//!  there, not wanted     Unplug  --the guest does not let go--> asked again; after ASKS likewise
//!  its file has grown    Grow
//! ```
//! What failed stays to be read (`troubles`) for as long as the difference is there, and is tried on, rarely: a guest may let
//! go of a device long after it was asked. Guests that do not run get their devices with their next start, or when they go on.
use crate::runtime::Device;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often something is tried before that is how it is.
const PLUGS: u32 = 3;
const ASKS: u32 = 8;
/// Longest pause between two tries, and the one between two questions to the guest, which wait themselves.
const REST: Duration = Duration::from_secs(30);
const FIRST: Duration = Duration::from_secs(1);

/// A disk or card as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    pub id: String,
    /// Of a disk, the length of its file.
    pub bytes: Option<u64>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Plug(String),
    Unplug(String),
    Grow(String, u64),
}

impl Change {
    /// Which device it is about.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Plug(id) | Self::Unplug(id) | Self::Grow(id, _) => id,
        }
    }

    fn limit(&self) -> u32 {
        if matches!(self, Self::Unplug(_)) { ASKS } else { PLUGS }
    }

    /// The step that does it.
    #[must_use]
    pub fn step(&self) -> DeviceStep {
        match self {
            Self::Plug(_) => DeviceStep::Plug,
            Self::Unplug(_) => DeviceStep::Unplug,
            Self::Grow(..) => DeviceStep::Grow,
        }
    }
}

/// One thing to do for devices: all of that kind that are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceStep {
    Plug,
    Unplug,
    Grow,
}

/// What is to be done; `stays` are ids of devices that are never taken out.
#[must_use]
pub fn changes(wanted: &[Want], has: &[Device], stays: &[&str]) -> Vec<Change> {
    let found = |id: &str| has.iter().find(|device| device.id == id);
    let missing = wanted.iter().filter(|want| found(&want.id).is_none()).map(|want| Change::Plug(want.id.clone()));
    let sectors = |bytes: u64| bytes / 512;
    let grown = wanted.iter().filter_map(|want| {
        let (file, seen) = (want.bytes?, found(&want.id)?.bytes?);
        (sectors(file) > sectors(seen)).then(|| Change::Grow(want.id.clone(), sectors(file) * 512))
    });
    let kept = |id: &str| stays.contains(&id) || wanted.iter().any(|want| want.id == id);
    let surplus = has.iter().filter(|device| !kept(&device.id)).map(|device| Change::Unplug(device.id.clone()));
    missing.chain(grown).chain(surplus).collect()
}

#[derive(Debug)]
struct Try {
    change: Change,
    count: u32,
    next: Instant,
    error: String,
}

/// What was tried in vain, by the devices' ids.
#[derive(Debug, Default)]
pub struct Tries(BTreeMap<String, Try>);

impl Tries {
    /// Forgets what is no difference any more.
    pub fn keep(&mut self, changes: &[Change]) {
        self.0.retain(|_, tried| changes.contains(&tried.change));
    }

    /// Which changes may be tried now.
    #[must_use]
    pub fn due(&self, changes: &[Change], now: Instant) -> Vec<Change> {
        let rests = |change: &Change| self.0.get(change.id()).is_some_and(|tried| tried.next > now);
        changes.iter().filter(|change| !rests(change)).cloned().collect()
    }

    /// It was tried in vain.
    pub fn failed(&mut self, change: &Change, error: String, now: Instant) {
        let count = self.0.get(change.id()).map_or(0, |tried| tried.count).saturating_add(1);
        let doubled = FIRST.saturating_mul(1 << (count - 1).min(8)).min(REST);
        let pause = match change {
            Change::Unplug(_) if count < ASKS => FIRST,
            Change::Unplug(_) => REST,
            _ => doubled,
        };
        self.0.insert(change.id().to_owned(), Try { change: change.clone(), count, next: now + pause, error });
    }

    /// Whether something is under way that may still turn out well soon.
    #[must_use]
    pub fn are_open(&self, changes: &[Change]) -> bool {
        let count = |change: &Change| self.0.get(change.id()).map_or(0, |tried| tried.count);
        changes.iter().any(|change| count(change) < change.limit())
    }

    /// What failed last, with its reason.
    pub fn troubles(&self) -> impl Iterator<Item = (&Change, &str)> {
        self.0.values().map(|tried| (&tried.change, tried.error.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(devices: &[(&str, Option<u64>)]) -> Vec<Device> {
        let device =
            |(place, (id, bytes)): (u8, &(&str, Option<u64>))| Device { id: (*id).into(), place, bytes: *bytes };
        (0..).zip(devices).map(device).collect()
    }

    fn want(id: &str, bytes: Option<u64>) -> Want {
        Want { id: id.into(), bytes }
    }

    #[test]
    fn what_is_missing_comes_what_has_grown_is_told_what_is_too_much_goes() {
        let has = has(&[("root", Some(1024)), ("config-2", Some(4096)), ("old", None), ("odd", Some(512))]);
        let wanted = [want("root", Some(4096)), want("port", None), want("odd", Some(1000))];
        let found = changes(&wanted, &has, &["config-2"]);
        assert_eq!(
            found,
            [Change::Plug("port".into()), Change::Grow("root".into(), 4096), Change::Unplug("old".into())]
        );
    }

    #[test]
    fn a_guest_that_does_not_let_go_is_asked_eight_times_and_then_rarely() {
        let (mut tries, mut now) = (Tries::default(), Instant::now());
        let all = vec![Change::Unplug("v".into())];
        let mut asked = 0;
        while tries.are_open(&all) {
            assert_eq!(tries.due(&all, now), all);
            tries.failed(&all[0], "it clings".into(), now);
            asked += 1;
            assert!(tries.due(&all, now).is_empty());
            now += if asked < ASKS { FIRST } else { Duration::ZERO };
        }
        assert_eq!(asked, ASKS);
        assert!(tries.due(&all, now).is_empty() && tries.due(&all, now + REST) == all);
        assert_eq!(tries.troubles().next().map(|(_, error)| error), Some("it clings"));
        // It is wanted again: nothing is left of that.
        tries.keep(&[]);
        assert!(tries.troubles().next().is_none());
    }

    #[test]
    fn what_cannot_be_plugged_is_tried_with_growing_pauses() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        let all = vec![Change::Plug("n".into()), Change::Plug("m".into())];
        tries.failed(&all[0], "no room".into(), now);
        assert_eq!(tries.due(&all, now), all[1..]);
        for _ in 0..20 {
            tries.failed(&all[0], "no room".into(), now);
        }
        assert!(tries.due(&all[..1], now + REST - FIRST).is_empty());
        assert_eq!(tries.due(&all[..1], now + REST), all[..1]);
        assert!(tries.are_open(&all) && !tries.are_open(&all[..1]));
    }
}
