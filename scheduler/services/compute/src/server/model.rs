//! The states of a server and the only rules by which they change. Pure.
//!
//! A user's verb sets a task and what the host shall make true; the host's observation ends the task:
//!
//! ```text
//!            create                 host: running                stop               host: stopped
//!   (none) ----------> BUILDING ----------------> ACTIVE ----------------> ACTIVE -----------------> STOPPED
//!                      scheduling,   spawning       ^    task powering-off                             |
//!                         |                         '------------- start, task powering-on ------------'
//!                         | no host, or it failed
//!                         v                  any --delete--> task deleting --host: gone--> DELETED (kept a day)
//!                       ERROR
//! ```
//!
//! `vm_state` is where the server stands, `task_state` what is being done to it; what the API calls status
//! follows from both ([`status`]).
use super::snapshot;
use crate::tables::{FaultOf, Seen, Server, WantedPower};
use serde::{Deserialize, Serialize};

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name { $(#[serde(rename = $text)] $variant),+ }
        impl $name {
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }
    };
}

names! {
    /// As Nova's `OS-EXT-STS:vm_state` spells it.
    VmState {
        Building = "building", Active = "active", Stopped = "stopped", Paused = "paused", Suspended = "suspended",
        Resized = "resized", Error = "error", Deleted = "deleted",
    }
}

names! {
    /// As Nova's `OS-EXT-STS:task_state` spells it.
    TaskState {
        Scheduling = "scheduling", Networking = "networking", Spawning = "spawning", PoweringOff = "powering-off",
        PoweringOn = "powering-on", Rebooting = "rebooting", RebootingHard = "rebooting_hard", Pausing = "pausing",
        Unpausing = "unpausing", Suspending = "suspending", Resuming = "resuming", Rebuilding = "rebuilding",
        ResizePrep = "resize_prep", ResizeMigrating = "resize_migrating", ResizeFinish = "resize_finish", ResizeReverting = "resize_reverting",
        ImageSnapshot = "image_snapshot", ImagePendingUpload = "image_pending_upload", ImageUploading = "image_uploading",
        Migrating = "migrating", Deleting = "deleting",
    }
}

/// As Nova numbers `OS-EXT-STS:power_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerState {
    NoState = 0,
    Running = 1,
    Paused = 3,
    Shutdown = 4,
    Crashed = 6,
    Suspended = 7,
}

/// What the API calls status.
pub fn status(vm: VmState, task: Option<TaskState>) -> &'static str {
    use TaskState as T;
    match (vm, task) {
        (VmState::Building, _) => "BUILD",
        (VmState::Active, Some(T::Rebooting)) => "REBOOT",
        (
            VmState::Active | VmState::Stopped | VmState::Error | VmState::Paused | VmState::Suspended,
            Some(T::RebootingHard),
        ) => "HARD_REBOOT",
        (VmState::Active | VmState::Stopped | VmState::Error, Some(T::Rebuilding)) => "REBUILD",
        (VmState::Active | VmState::Stopped, Some(T::ResizePrep | T::ResizeMigrating | T::ResizeFinish)) => "RESIZE",
        (VmState::Resized, Some(T::ResizeReverting)) => "REVERT_RESIZE",
        (VmState::Active, Some(T::Migrating)) => "MIGRATING",
        (VmState::Active, _) => "ACTIVE",
        (VmState::Stopped, _) => "SHUTOFF",
        (VmState::Paused, _) => "PAUSED",
        (VmState::Suspended, _) => "SUSPENDED",
        (VmState::Resized, _) => "VERIFY_RESIZE",
        (VmState::Error, _) => "ERROR",
        (VmState::Deleted, _) => "DELETED",
    }
}

/// The states behind a status that a client filters by; `None` for a word that is no status.
pub fn states_of(wish: &str) -> Option<Vec<VmState>> {
    use VmState as V;
    let wish = wish.to_ascii_uppercase();
    let all = [V::Building, V::Active, V::Stopped, V::Paused, V::Suspended, V::Resized, V::Error, V::Deleted];
    match wish.as_str() {
        "REBOOT" => Some(vec![V::Active]),
        "HARD_REBOOT" => Some(vec![V::Active, V::Stopped, V::Error, V::Paused, V::Suspended]),
        "REBUILD" => Some(vec![V::Active, V::Stopped, V::Error]),
        "RESIZE" => Some(vec![V::Active, V::Stopped]),
        "REVERT_RESIZE" => Some(vec![V::Resized]),
        "MIGRATING" => Some(vec![V::Active]),
        _ => {
            let found: Vec<_> = all.into_iter().filter(|v| status(*v, None) == wish).collect();
            (!found.is_empty()).then_some(found)
        }
    }
}

/// A user's verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Start,
    Stop,
    RebootSoft,
    RebootHard,
    Pause,
    Unpause,
    Suspend,
    Resume,
    Rebuild,
    Resize,
    ConfirmResize,
    RevertResize,
    /// To another host, while it is off.
    Migrate,
}

impl Verb {
    /// As `instance-actions` names it.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::RebootSoft | Verb::RebootHard => "reboot",
            Verb::Pause => "pause",
            Verb::Unpause => "unpause",
            Verb::Suspend => "suspend",
            Verb::Resume => "resume",
            Verb::Rebuild => "rebuild",
            Verb::Resize => "resize",
            Verb::ConfirmResize => "confirmResize",
            Verb::RevertResize => "revertResize",
            Verb::Migrate => "migrate",
        }
    }

    fn allowed_in(self, vm: VmState, task: Option<TaskState>) -> bool {
        use VmState as V;
        let idle = task.is_none();
        match self {
            Verb::Start => idle && vm == V::Stopped,
            Verb::Stop => idle && matches!(vm, V::Active | V::Error),
            Verb::RebootSoft => idle && vm == V::Active,
            Verb::RebootHard => {
                let again = matches!(
                    task,
                    None | Some(
                        TaskState::Rebooting | TaskState::RebootingHard | TaskState::Pausing | TaskState::Suspending
                    )
                );
                again && matches!(vm, V::Active | V::Stopped | V::Paused | V::Suspended | V::Error)
            }
            Verb::Pause => idle && vm == V::Active,
            Verb::Unpause => idle && vm == V::Paused,
            Verb::Suspend => idle && vm == V::Active,
            Verb::Resume => idle && vm == V::Suspended,
            Verb::Rebuild => idle && matches!(vm, V::Active | V::Stopped | V::Error),
            Verb::Resize | Verb::Migrate => idle && matches!(vm, V::Active | V::Stopped),
            Verb::ConfirmResize | Verb::RevertResize => idle && vm == V::Resized,
        }
    }
}

/// Why an action was refused: the state that stood in its way, as a fault's text.
pub fn refusal(action: &str, server: &Server) -> String {
    let (attribute, value) = match server.task_state {
        Some(task) if !matches!(server.vm_state, VmState::Deleted) => ("task_state", task.as_str()),
        _ => ("vm_state", server.vm_state.as_str()),
    };
    format!("Cannot '{action}' instance {} while it is in {attribute} {value}", server.id)
}

/// Takes a verb: sets the task and what the host shall do. False when the state does not allow it.
/// Rebuild and resize have set image or flavor already.
pub fn begin(server: &mut Server, verb: Verb) -> bool {
    use TaskState as T;
    if !verb.allowed_in(server.vm_state, server.task_state) || server.wanted.delete {
        return false;
    }
    let wanted = &mut server.wanted;
    wanted.generation += 1;
    server.task_state = match verb {
        Verb::Start => {
            wanted.power = WantedPower::Running;
            Some(T::PoweringOn)
        }
        Verb::Stop => {
            wanted.power = WantedPower::Stopped;
            Some(T::PoweringOff)
        }
        Verb::RebootSoft => {
            wanted.soft_reboots += 1;
            Some(T::Rebooting)
        }
        Verb::RebootHard => {
            wanted.hard_reboots += 1;
            wanted.power = WantedPower::Running;
            Some(T::RebootingHard)
        }
        Verb::Pause => {
            wanted.power = WantedPower::Paused;
            Some(T::Pausing)
        }
        Verb::Unpause => {
            wanted.power = WantedPower::Running;
            Some(T::Unpausing)
        }
        Verb::Suspend => {
            wanted.power = WantedPower::Suspended;
            Some(T::Suspending)
        }
        Verb::Resume => {
            wanted.power = WantedPower::Running;
            Some(T::Resuming)
        }
        Verb::Rebuild => {
            wanted.rebuilds += 1;
            if server.vm_state == VmState::Error {
                wanted.power = WantedPower::Running;
            }
            Some(T::Rebuilding)
        }
        // A resize takes hold at the next boot: the host is told to boot anew with the new size.
        Verb::Resize => {
            wanted.hard_reboots += u64::from(wanted.power == WantedPower::Running);
            Some(T::ResizeFinish)
        }
        Verb::RevertResize => {
            wanted.hard_reboots += u64::from(wanted.power == WantedPower::Running);
            Some(T::ResizeReverting)
        }
        Verb::ConfirmResize => None,
        Verb::Migrate => Some(T::ResizePrep),
    };
    if verb == Verb::ConfirmResize {
        server.vm_state = if wanted.power == WantedPower::Running { VmState::Active } else { VmState::Stopped };
        server.old_flavor = None;
    }
    true
}

fn power_state(seen: &Seen) -> PowerState {
    match seen.power {
        _ if seen.crashed => PowerState::Crashed,
        None => PowerState::NoState,
        Some(WantedPower::Running) => PowerState::Running,
        Some(WantedPower::Stopped) => PowerState::Shutdown,
        Some(WantedPower::Paused) => PowerState::Paused,
        Some(WantedPower::Suspended) => PowerState::Suspended,
    }
}

pub(crate) fn state_for(power: WantedPower) -> VmState {
    match power {
        WantedPower::Running => VmState::Active,
        WantedPower::Stopped => VmState::Stopped,
        WantedPower::Paused => VmState::Paused,
        WantedPower::Suspended => VmState::Suspended,
    }
}

/// How a task ended, for `instance-actions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Well,
    Badly(String),
}

/// Takes what the host said. `Some` when it ended the task.
pub fn settle(server: &mut Server, seen: Seen, now_us: i64) -> Option<Ended> {
    server.power_state = power_state(&seen);
    let (done, was_spawned) = (caught_up(server, &seen), server.launched_us.is_some());
    server.seen = Some(seen);
    let seen = server.seen.as_ref()?;
    if server.wanted.delete || server.vm_state == VmState::Deleted {
        return None;
    }
    if server.moving.is_some() || server.resized.as_ref().is_some_and(|resized| resized.returning) {
        // What becomes of it is decided by what both hosts say of the move.
        return None;
    }
    if snapshot::is_on(server) && seen.error.is_empty() {
        return snapshot::settle(server);
    }
    if done && seen.error.is_empty() && seen.power == Some(server.wanted.power) {
        let ended = server.task_state.take().map(|task| {
            server.vm_state = match task {
                TaskState::ResizeFinish | TaskState::ResizePrep => VmState::Resized,
                _ => state_for(server.wanted.power),
            };
            Ended::Well
        });
        if server.vm_state == VmState::Building {
            server.vm_state = state_for(server.wanted.power);
        }
        if !was_spawned {
            server.launched_us = Some(now_us);
        }
        if ended.is_some() {
            server.fault = None;
        }
        return ended;
    }
    if seen.settled && done && !seen.error.is_empty() {
        return failed(server, now_us);
    }
    if done && server.task_state.is_none() {
        drifted(server);
    }
    None
}

/// Does the observation answer the newest wish?
fn caught_up(server: &Server, seen: &Seen) -> bool {
    let wanted = &server.wanted;
    seen.settled
        && seen.generation >= wanted.generation
        && seen.hard_reboots >= wanted.hard_reboots
        && seen.soft_reboots >= wanted.soft_reboots
        && seen.rebuilds >= wanted.rebuilds
        || (seen.settled && seen.generation >= wanted.generation && !seen.error.is_empty())
}

fn failed(server: &mut Server, now_us: i64) -> Option<Ended> {
    let message = server.seen.as_ref().map(|s| s.error.clone()).unwrap_or_default();
    if server.vm_state == VmState::Error && server.task_state.is_none() {
        return None;
    }
    let task = server.task_state.take();
    server.vm_state = VmState::Error;
    server.fault = Some(FaultOf { code: 500, message: message.clone(), details: String::new(), created_us: now_us });
    task.map(|_| Ended::Badly(message))
}

/// The guest's power changed without a wish of ours: the guest shut itself down, or came back.
fn drifted(server: &mut Server) {
    let Some(power) = server.seen.as_ref().and_then(|s| s.power) else { return };
    match (server.vm_state, power) {
        (VmState::Active | VmState::Paused | VmState::Suspended, WantedPower::Stopped) => {
            server.vm_state = VmState::Stopped;
            server.wanted.power = WantedPower::Stopped;
            server.wanted.generation += 1;
        }
        (VmState::Error, WantedPower::Running) if server.launched_us.is_some() => server.vm_state = VmState::Active,
        _ => {}
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tables::{FlavorCopy, Wanted};
    use proptest::prelude::*;

    pub fn server() -> Server {
        Server {
            id: "s".into(),
            project_id: "p".into(),
            user_id: "u".into(),
            project_name: String::new(),
            user_name: String::new(),
            name: "n".into(),
            hostname: "n".into(),
            description: None,
            vm_state: VmState::Building,
            task_state: Some(TaskState::Spawning),
            power_state: PowerState::NoState,
            wanted: Wanted::first(),
            seen: None,
            host: Some("h".into()),
            moving: None,
            resized: None,
            left: None,
            launched_us: None,
            terminated_us: None,
            flavor: FlavorCopy {
                id: "1".into(),
                name: "f".into(),
                vcpus: 1,
                memory_mib: 64,
                disk_gib: 1,
                ephemeral_gib: 0,
                swap_mib: 0,
                extra_specs: Default::default(),
            },
            old_flavor: None,
            image: None,
            networks: vec![],
            ports: vec![],
            volume_wishes: vec![],
            volumes: vec![],
            security_groups: vec![],
            key: None,
            user_data: None,
            config_drive: false,
            metadata: Default::default(),
            tags: Default::default(),
            zone: None,
            target_host: None,
            hints: serde_json::Value::Null,
            group: None,
            fault: None,
            locked: None,
            reservation_id: "r".into(),
            launch_index: 0,
            disk_config: "MANUAL".into(),
            access_ip_v4: String::new(),
            access_ip_v6: String::new(),
            admin_password: None,
            trusted_certificates: None,
            tried_hosts: vec![],
            changed_us: 0,
        }
    }

    /// What a host that did everything says.
    fn obeyed(server: &Server) -> Seen {
        Seen {
            generation: server.wanted.generation,
            power: Some(server.wanted.power),
            settled: true,
            hard_reboots: server.wanted.hard_reboots,
            soft_reboots: server.wanted.soft_reboots,
            rebuilds: server.wanted.rebuilds,
            ..Seen::default()
        }
    }

    #[test]
    fn a_server_is_built_stopped_and_started() {
        let mut s = server();
        assert_eq!(status(s.vm_state, s.task_state), "BUILD");
        let seen = obeyed(&s);
        assert_eq!(settle(&mut s, seen, 7), Some(Ended::Well));
        assert_eq!((status(s.vm_state, s.task_state), s.launched_us), ("ACTIVE", Some(7)));
        let old = obeyed(&s);
        assert!(begin(&mut s, Verb::Stop));
        assert!(!begin(&mut s, Verb::Stop), "busy");
        assert_eq!(settle(&mut s, old, 8), None, "an observation from before the wish ends nothing");
        assert_eq!(s.task_state, Some(TaskState::PoweringOff));
        let seen = obeyed(&s);
        settle(&mut s, seen, 9);
        assert_eq!(status(s.vm_state, s.task_state), "SHUTOFF");
        assert!(begin(&mut s, Verb::Start));
        let seen = obeyed(&s);
        settle(&mut s, seen, 10);
        assert_eq!(status(s.vm_state, s.task_state), "ACTIVE");
    }

    #[test]
    fn a_guest_that_powers_itself_off_is_shut_off_and_stays_so() {
        let mut s = server();
        let seen = obeyed(&s);
        settle(&mut s, seen, 1);
        let seen = Seen { power: Some(WantedPower::Stopped), ..obeyed(&s) };
        settle(&mut s, seen, 2);
        assert_eq!((s.vm_state, s.wanted.power), (VmState::Stopped, WantedPower::Stopped));
    }

    #[test]
    fn a_failed_start_is_an_error_with_the_reason() {
        let mut s = server();
        let seen = Seen { error: "no disk".into(), power: Some(WantedPower::Stopped), ..obeyed(&s) };
        assert_eq!(settle(&mut s, seen, 1), Some(Ended::Badly("no disk".into())));
        assert_eq!((s.vm_state, s.fault.unwrap().message.as_str()), (VmState::Error, "no disk"));
    }

    proptest! {
        /// Whatever verbs come in whatever order: a host that obeys always ends the task.
        #[test]
        fn every_task_ends(verbs in proptest::collection::vec(0usize..12, 0..30)) {
            const ALL: [Verb; 12] = [Verb::Start, Verb::Stop, Verb::RebootSoft, Verb::RebootHard, Verb::Pause, Verb::Unpause,
                Verb::Suspend, Verb::Resume, Verb::Rebuild, Verb::Resize, Verb::ConfirmResize, Verb::RevertResize];
            let mut s = server();
            let seen = obeyed(&s);
            settle(&mut s, seen, 1);
            for v in verbs {
                let before = s.wanted.generation;
                if begin(&mut s, ALL[v]) { prop_assert!(s.wanted.generation > before); }
                let seen = obeyed(&s);
                settle(&mut s, seen, 2);
                prop_assert!(s.task_state.is_none());
                prop_assert!(s.vm_state != VmState::Error && s.vm_state != VmState::Building);
            }
        }
    }
}
