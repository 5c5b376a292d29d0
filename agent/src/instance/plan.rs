//! What to do next for one instance: pure, from what is wanted and what is found.
//!
//! ```text
//!  wanted      found            steps
//!  (gone)      anything         MarkRemoving, Kill, ReleasePorts, RemoveFiles
//!  any         rebuild pending  Ending, Kill, RemoveRoot, then as if absent
//!  RUNNING     absent           Fetch, Disks, Ports, ConfigDrive, Start
//!  RUNNING     paused           Resume
//!  RUNNING     other devices    Plug, Grow, Unplug: see [`devices`]
//!  RUNNING     upgrade pending  Upgrade, once nothing else is to be done; one that was begun is settled before all else
//!  RUNNING     reboot pending   Ending, [Shutdown,] Kill, Rebooted, then as if absent
//!  RUNNING     off or gone      MarkEnded: it stays off until a newer generation wants it
//!  STOPPED     running          Ending, Shutdown, Kill, MarkOff
//!  PAUSED      running          Pause
//!  SUSPENDED   running          Suspend, MarkSuspended
//!  moving      see [`moving`]: until it has arrived here, and once it is on its way elsewhere, nothing else is done
//!  snapshot    no copy of it    Copy (guest held), then Upload (in the background), then Uploaded, Sweep
//! ```
//! The driver runs the steps, looks again and plans again, until nothing is left to do. Since each
//! plan starts from what is found, an agent that died between any two steps just goes on.
pub mod devices;
pub mod moving;

use crate::ledger::{Counters, Doc, Ended};
use crate::runtime::Run;
use crate::snapshot::SnapshotStep;
use devices::DeviceStep;
use moving::{MoveStep, Wish};
use pilvi_agent_api::v1::Power;

/// What is wanted of an instance, as far as the order of steps depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goal {
    pub generation: u64,
    pub power: Power,
    pub counters: Counters,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub run: Run,
    pub doc: Doc,
    /// A whole saved state lies in the instance's folder.
    pub saved: bool,
    /// Every disk's file is there and large enough.
    pub disks: bool,
    /// Boot id of the host now.
    pub boot: String,
    /// What a snapshot needs next.
    pub snapshot: Option<SnapshotStep>,
    /// What is wanted of a move to or from another host.
    pub wish: Wish,
    /// What is to be tried now, so that the machine has the devices that are wanted.
    pub devices: Vec<DeviceStep>,
    /// Whether the guest is to move into another program.
    pub upgrade: Due,
}

impl Found {
    /// Nothing could be learned; enough to plan a removal.
    #[must_use]
    pub fn unreadable() -> Self {
        Self {
            run: Run::Absent,
            doc: Doc::default(),
            saved: false,
            disks: false,
            boot: String::new(),
            snapshot: None,
            wish: Wish::Stay,
            devices: Vec::new(),
            upgrade: Due::No,
        }
    }
}

/// Whether something is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    No,
    /// Not now: others have their turn.
    Later,
    Now,
}

/// One thing to do. Each may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Images are in the cache.
    Fetch,
    /// Disks are there.
    Disks,
    /// Ports are wired.
    Ports,
    /// The config drive is written, if one is wanted.
    ConfigDrive,
    /// The guest runs, from its saved state if it was suspended.
    Start,
    /// A start that was under way turned out well.
    MarkStarted,
    /// From here on its end is our doing, and no crash.
    Ending,
    /// The guest is asked to power off and given time.
    Shutdown,
    /// The guest's process is ended.
    Kill,
    /// The guest ended unasked; what wanted generation that answers.
    MarkEnded(Ended),
    /// The guest is off because that is wanted.
    MarkOff,
    /// Reboots up to the wanted counters are done with: the next start is the reboot.
    Rebooted,
    /// The root disk is removed.
    RemoveRoot,
    /// Rebuilds up to the wanted counter are done with.
    Rebuilt,
    Pause,
    Resume,
    /// The guest is saved to a file and its process ended.
    Suspend,
    /// The guest's saved state counts.
    MarkSuspended,
    Snapshot(SnapshotStep),
    Move(MoveStep),
    Device(DeviceStep),
    /// The guest moves into the program that a start would take now.
    Upgrade,
    /// Such a move that was begun comes to its end.
    SettleUpgrade,
    /// Upgrades up to the wanted counter are done with.
    Upgraded,
    /// From here on there is no way back.
    MarkRemoving,
    /// Its ports are no longer used.
    ReleasePorts,
    /// Its folder is removed.
    RemoveFiles,
}

impl Step {
    /// What the agent is doing, for the observation.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Fetch => "fetching",
            Self::Disks | Self::RemoveRoot => "disks",
            Self::Ports => "ports",
            Self::ConfigDrive => "config drive",
            Self::Start | Self::MarkStarted => "starting",
            Self::Shutdown => "powering off",
            Self::Ending | Self::Kill | Self::MarkEnded(_) | Self::MarkOff => "stopping",
            Self::Rebooted => "rebooting",
            Self::Rebuilt => "rebuilding",
            Self::Pause => "pausing",
            Self::Resume => "resuming",
            Self::Suspend | Self::MarkSuspended => "suspending",
            Self::Snapshot(_) => "snapshot",
            Self::Move(step) => step.word(),
            Self::Device(_) => "devices",
            Self::Upgrade | Self::SettleUpgrade | Self::Upgraded => "upgrading",
            Self::MarkRemoving | Self::ReleasePorts | Self::RemoveFiles => "removing",
        }
    }

    /// Whether it mostly waits, and is given up when something else is wanted meanwhile.
    #[must_use]
    pub fn waits(self) -> bool {
        matches!(self, Self::Fetch | Self::Ports | Self::Shutdown | Self::Device(_) | Self::Move(MoveStep::Arrive))
    }
}

const PREPARE: [Step; 4] = [Step::Fetch, Step::Disks, Step::Ports, Step::ConfigDrive];

/// Plans the next steps; none when all is as wanted. `goal` is `None` when the instance shall go.
#[must_use]
pub fn plan(goal: Option<&Goal>, found: &Found) -> Vec<Step> {
    let Some(goal) = goal.filter(|_| !found.doc.removing) else {
        return vec![Step::MarkRemoving, Step::Kill, Step::ReleasePorts, Step::RemoveFiles];
    };
    let doc = &found.doc;
    if found.run == Run::Switching {
        return vec![Step::SettleUpgrade];
    }
    if let Some(steps) = moving::plan(&found.wish, doc, found.run) {
        return steps;
    }
    if goal.counters.rebuilds > doc.done.rebuilds {
        return vec![Step::Ending, Step::Kill, Step::RemoveRoot, Step::Rebuilt];
    }
    if let Some(steps) = reboot(goal, found) {
        return steps;
    }
    if let Some(steps) = settle(goal, found) {
        return steps;
    }
    if let Some(step) = found.snapshot {
        return vec![Step::Snapshot(step)];
    }
    if let Some(steps) = upgrade(goal, found) {
        return steps;
    }
    match (goal.power, found.run) {
        (Power::Running | Power::Unspecified, Run::Paused) => vec![Step::Resume],
        (Power::Running | Power::Unspecified, Run::Running) => {
            found.devices.iter().map(|step| Step::Device(*step)).collect()
        }
        (Power::Paused, Run::Paused) => vec![],
        (Power::Paused, Run::Running) => vec![Step::Pause],
        (Power::Suspended, Run::Running | Run::Paused) => vec![Step::Suspend, Step::MarkSuspended],
        (Power::Stopped, Run::Running) => vec![Step::Ending, Step::Shutdown, Step::Kill, Step::MarkOff],
        (Power::Stopped, Run::Paused) => {
            vec![Step::Ending, Step::Resume, Step::Shutdown, Step::Kill, Step::MarkOff]
        }
        (_, Run::PoweredOff | Run::Broken | Run::Arriving | Run::Moved) => vec![Step::Kill],
        (_, Run::Switching) => vec![Step::SettleUpgrade],
        (power, Run::Absent) => from_absent(power, goal, found),
    }
}

/// A pending reboot: of a guest that runs, or should.
fn reboot(goal: &Goal, found: &Found) -> Option<Vec<Step>> {
    let done = &found.doc.done;
    let hard = goal.counters.hard_reboots > done.hard_reboots;
    let soft = goal.counters.soft_reboots > done.soft_reboots;
    if !hard && !soft {
        return None;
    }
    if goal.power == Power::Stopped {
        // Nothing to reboot: what is wanted last is that it is off.
        return Some(vec![Step::Rebooted]);
    }
    let kindly = soft && !hard && found.run == Run::Running;
    let mut steps = vec![Step::Ending];
    if kindly {
        steps.push(Step::Shutdown);
    }
    steps.extend([Step::Kill, Step::Rebooted]);
    Some(steps)
}

/// A guest that runs in another program than it should, and nothing else is to be done with it.
fn upgrade(goal: &Goal, found: &Found) -> Option<Vec<Step>> {
    let runs = matches!(goal.power, Power::Running | Power::Unspecified) && found.run == Run::Running;
    match found.upgrade {
        Due::Now if runs && found.devices.is_empty() => Some(vec![Step::Upgrade]),
        // What starts next starts in the right one, and what stands still cannot move.
        _ if goal.counters.upgrades > found.doc.done.upgrades && (!runs || found.upgrade == Due::No) => {
            Some(vec![Step::Upgraded])
        }
        _ => None,
    }
}

/// Brings the document in line with what is seen, before anything else is decided.
fn settle(goal: &Goal, found: &Found) -> Option<Vec<Step>> {
    let doc = &found.doc;
    let alive = matches!(found.run, Run::Running | Run::Paused);
    if alive && (doc.starting || doc.started != found.boot || doc.ended.is_some()) {
        return Some(vec![Step::MarkStarted]);
    }
    if alive || doc.starting || doc.started.is_empty() {
        return None;
    }
    if goal.power == Power::Stopped {
        return Some(vec![Step::Kill, Step::MarkOff]);
    }
    if found.saved && found.run == Run::Absent {
        // The agent died between saving the guest and writing that down.
        return Some(vec![Step::MarkSuspended]);
    }
    if doc.started != found.boot && found.run == Run::Absent {
        // The host rebooted under it. That is not the guest's end: it shall run again.
        return Some(vec![Step::MarkOff]);
    }
    let ended = Ended { generation: goal.generation, crashed: found.run != Run::PoweredOff };
    // In this order: what ended process and report say is gone with Kill.
    Some(vec![Step::MarkEnded(ended), Step::Kill])
}

fn from_absent(power: Power, goal: &Goal, found: &Found) -> Vec<Step> {
    let doc = &found.doc;
    if power == Power::Stopped {
        if doc.starting || doc.suspended || doc.ended.is_some() {
            // Kill: a start that was under way may have left a process without a record.
            return vec![Step::Kill, Step::MarkOff];
        }
        return if found.disks { vec![] } else { vec![Step::Fetch, Step::Disks] };
    }
    if power == Power::Suspended && doc.suspended {
        return vec![];
    }
    if doc.ended.is_some_and(|ended| ended.generation >= goal.generation) {
        return vec![];
    }
    let mut steps = PREPARE.to_vec();
    steps.push(Step::Start);
    steps
}

#[cfg(test)]
mod tests;
