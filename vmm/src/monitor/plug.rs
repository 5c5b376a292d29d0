//! Disks, cards and shares that come and go while the machine runs. What is added stays across a reset, as it would in a machine
//! of metal; the process keeps its file or tap until it is removed.
//!
//! ```text
//!   remove ─► does the guest listen? ── no ──► used? refused : done
//!                    └─ yes ─► asked to let go ─┬─► it lets go ─► done
//!                                               └─► LET_GO_WAIT ─► refused; it may still let go: the next request finds that
//! ```

use super::Monitor;
use super::answer::refused;
use crate::config::{Disk, Engine, Nic, Share, Source, Tap as TapSource};
use crate::control::Reply;
use crate::gate::lock;
use crate::machine::{Builder, CardEnd, Leave, Machine, OpenDisk, OpenTap, card, elsewhere, open_share};
use crate::virtio::net::tap::Tap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How long somebody waits for a guest to let go of a device. Clients wait ten seconds for an answer.
const LET_GO_WAIT: Duration = Duration::from_secs(8);

/// A disk that is asked for.
pub(super) struct Added {
    pub(super) read_only: bool,
    pub(super) serial: String,
    pub(super) name: Option<String>,
    pub(super) export: Option<String>,
    pub(super) vhost_user: bool,
}

/// Somebody waits for a device to go.
pub(super) struct Leaving {
    requester: u64,
    device: String,
    until: Instant,
}

impl Monitor {
    /// The first name of this kind that is free.
    fn free_name(&self, kind: &str) -> String {
        let names: Vec<String> = self.machine.iter().flat_map(Machine::slots).map(|slot| slot.name.clone()).collect();
        let mut all = (0..).map(|n| format!("{kind}{n}"));
        all.find(|name| !names.contains(name)).unwrap_or_default()
    }

    /// Another connection to a disk's server.
    pub(super) fn reconnect_disk(&mut self, key: u64, device: &str) -> Reply {
        let Ok([socket]) = <[File; 1]>::try_from(self.server.take_files(key)) else {
            return refused("a connection needs its socket with the request");
        };
        if let Some(link) = self.parts.backend(device) {
            link.give(socket.into());
            return Reply::Done;
        }
        let disk = self.parts.disks.iter().find(|disk| disk.name == device);
        match disk.map(OpenDisk::link) {
            Some(Some(link)) => {
                link.give(socket.into());
                Reply::Done
            }
            Some(None) => refused("this disk is behind no server"),
            None => refused("there is no such disk"),
        }
    }

    pub(super) fn add_disk(&mut self, key: u64, added: Added) -> Reply {
        let Added { read_only, serial, name, export, vhost_user } = added;
        let Ok([file]) = <[File; 1]>::try_from(self.server.take_files(key)) else {
            return refused("a disk needs its open file with the request");
        };
        let (fd, name) = (file.as_raw_fd(), name.unwrap_or_else(|| self.free_name("disk")));
        let disk = Disk {
            source: Source::Fd(fd),
            name: Some(name.clone()),
            read_only,
            serial: Some(serial),
            queues: None,
            rate: Default::default(),
            engine: match export {
                _ if vhost_user => Engine::VhostUser,
                Some(_) => Engine::Nbd,
                None => Engine::Auto,
            },
            export: export.clone().unwrap_or_default(),
        };
        let mut config = self.config.clone();
        config.disks.push(disk.clone());
        if let Err(e) = config.validate() {
            return refused(&e.to_string());
        }
        if let Some(reason) = self.cannot_plug().or_else(|| self.cannot_share(vhost_user)) {
            return refused(reason);
        }
        let open = match export {
            _ if vhost_user => OpenDisk::elsewhere(name.clone(), file.into(), &disk),
            Some(export) => OpenDisk::behind(name.clone(), file.into(), &export, read_only),
            None => OpenDisk::of(name.clone(), file, read_only, true),
        };
        let open = match open {
            Ok(open) => open,
            Err(e) => return refused(&e.to_string()),
        };
        let Some(machine) = &mut self.machine else { return refused("the machine is restarting") };
        let queues = config.disk_queues(&disk);
        let part = Builder { threads: &self.threads, stop: &machine.stop }.disk(&disk, &open, queues);
        if let Err(e) = part.and_then(|part| machine.add(part, &self.threads)) {
            return refused(&e.to_string());
        }
        self.config.disks.push(disk);
        self.parts.disks.push(open);
        Reply::Added { device: name }
    }

    pub(super) fn add_nic(
        &mut self,
        key: u64,
        (mac, mtu): (String, u16),
        name: Option<String>,
        vhost_user: bool,
    ) -> Reply {
        let Ok([file]) = <[File; 1]>::try_from(self.server.take_files(key)) else {
            return refused("a card needs its tap with the request");
        };
        let name = name.unwrap_or_else(|| self.free_name("nic"));
        let tap = match vhost_user {
            true => TapSource::VhostUser(Source::Fd(file.as_raw_fd())),
            false => TapSource::Fd(file.as_raw_fd()),
        };
        let nic =
            Nic { tap, name: Some(name.clone()), mac, mtu, transmit: Default::default(), receive: Default::default() };
        let mut config = self.config.clone();
        config.nics.push(nic.clone());
        if let Err(e) = config.validate() {
            return refused(&e.to_string());
        }
        if let Some(reason) = self.cannot_plug().or_else(|| self.cannot_share(vhost_user)) {
            return refused(reason);
        }
        let end = match vhost_user {
            true => CardEnd::backend(&name, file.into(), &nic),
            false => Tap::over(file).map(|tap| CardEnd::Tap(tap.into_fd())),
        };
        let open = match end {
            Ok(end) => OpenTap { name: name.clone(), end },
            Err(e) => return refused(&e.to_string()),
        };
        let Some(machine) = &mut self.machine else { return refused("the machine is restarting") };
        if let Err(e) = card(&nic, &open).and_then(|part| machine.add(part, &self.threads)) {
            return refused(&e.to_string());
        }
        self.config.nics.push(nic);
        self.parts.taps.push(open);
        Reply::Added { device: name }
    }

    pub(super) fn add_share(&mut self, key: u64, tag: String, name: Option<String>) -> Reply {
        let Ok([socket]) = <[File; 1]>::try_from(self.server.take_files(key)) else {
            return refused("a share needs its backend's socket with the request");
        };
        let name = name.unwrap_or_else(|| self.free_name("share"));
        let share = Share { tag, socket: Source::Fd(socket.as_raw_fd()), name: Some(name.clone()), queues: 1 };
        let mut config = self.config.clone();
        config.shares.push(share.clone());
        if let Err(e) = config.validate() {
            return refused(&e.to_string());
        }
        if let Some(reason) = self.cannot_plug().or_else(|| self.cannot_share(true)) {
            return refused(reason);
        }
        let link = match open_share(&name, socket.into(), &share) {
            Ok(link) => link,
            Err(e) => return refused(&e.to_string()),
        };
        let Some(machine) = &mut self.machine else { return refused("the machine is restarting") };
        if let Err(e) = elsewhere(&link).and_then(|part| machine.add(part, &self.threads)) {
            return refused(&e.to_string());
        }
        self.config.shares.push(share);
        self.parts.shares.push(link);
        Reply::Added { device: name }
    }

    /// Memory becomes shared when it is made, or never.
    fn cannot_share(&self, wanted: bool) -> Option<&'static str> {
        (wanted && !self.config.shares_memory())
            .then_some("this machine's memory is not shared (`shared_memory` in its configuration)")
    }

    /// Workers come and go only while none of them is being waited for.
    pub(super) fn cannot_plug(&self) -> Option<&'static str> {
        let busy = self.job.is_some() || self.state != crate::state::RunState::Running;
        busy.then_some("only a machine that runs, and is not being written down or moved, takes and gives devices")
    }

    /// Takes a device out. A guest that listens is asked to let go of it first: None, the answer comes then.
    pub(super) fn remove(&mut self, key: u64, device: String) -> Option<Reply> {
        if !self.has(&device) {
            return Some(refused("there is no such disk, card or share"));
        }
        if let Some(reason) = self.cannot_plug() {
            return Some(refused(reason));
        }
        match self.machine.as_ref().map_or(Leave::Unknown, |machine| machine.can_leave(&device)) {
            Leave::Unknown => Some(refused("it is not on a PCI bus")),
            Leave::Used => Some(refused("the guest uses it: have the guest let go of it first")),
            Leave::Free => Some(self.take_out(&device)),
            Leave::Ask => {
                if let Some(machine) = &self.machine {
                    machine.ask_to_leave(&device);
                }
                self.leaving.push(Leaving { requester: key, device, until: Instant::now() + LET_GO_WAIT });
                None
            }
        }
    }

    /// Who waits for a device to go, and has waited enough, or need not wait any more.
    pub(super) fn look_at_leaving(&mut self) {
        if let Some(root) = self.machine.as_ref().and_then(|machine| machine.bus.pci.as_ref()) {
            let _ = lock(&root.hotplug).let_go.read();
        }
        for leaving in std::mem::take(&mut self.leaving) {
            let state = self.machine.as_ref().map_or(Leave::Unknown, |machine| machine.can_leave(&leaving.device));
            let late = Instant::now() >= leaving.until;
            let reply = match (state, self.cannot_plug()) {
                (Leave::Unknown, _) => refused("the machine has ended, or the device has gone, meanwhile"),
                (Leave::Free, None) => self.take_out(&leaving.device),
                (Leave::Free, Some(reason)) => refused(reason),
                _ if late => refused("the guest was asked to let go of it and has not done so yet: ask again"),
                _ => {
                    self.leaving.push(leaving);
                    continue;
                }
            };
            self.server.reply(leaving.requester, &reply);
        }
    }

    fn has(&self, device: &str) -> bool {
        self.parts.disks.iter().any(|disk| disk.name == device)
            || self.parts.taps.iter().any(|tap| tap.name == device)
            || self.parts.shares.iter().any(|share| share.name == device)
    }

    fn take_out(&mut self, device: &str) -> Reply {
        if let Some(machine) = &mut self.machine {
            machine.remove(device);
        }
        if let Some(at) = self.parts.disks.iter().position(|disk| disk.name == device) {
            self.config.disks.remove(at);
            // Now, not when the kernel has taken its ring apart.
            let _ = self.parts.disks.remove(at).release();
        }
        if let Some(at) = self.parts.taps.iter().position(|tap| tap.name == device) {
            drop((self.config.nics.remove(at), self.parts.taps.remove(at)));
        }
        if let Some(at) = self.parts.shares.iter().position(|share| share.name == device) {
            drop((self.config.shares.remove(at), self.parts.shares.remove(at)));
        }
        Reply::Done
    }
}
