//! Disks and cards that come and go while the machine runs. What is added stays across a reset, as it would in a machine
//! of metal; the process keeps its file or tap until it is removed.

use super::Monitor;
use super::answer::refused;
use crate::config::{Disk, Engine, Nic, Source, Tap as TapSource};
use crate::control::Reply;
use crate::machine::{Builder, Machine, OpenDisk, OpenTap, card};
use crate::virtio::net::tap::Tap;
use std::fs::File;
use std::os::fd::AsRawFd;

impl Monitor {
    /// The first name of this kind that is free.
    fn free_name(&self, kind: &str) -> String {
        let names: Vec<String> = self.machine.iter().flat_map(Machine::slots).map(|slot| slot.name.clone()).collect();
        let mut all = (0..).map(|n| format!("{kind}{n}"));
        all.find(|name| !names.contains(name)).unwrap_or_default()
    }

    pub(super) fn add_disk(&mut self, key: u64, read_only: bool, serial: String) -> Reply {
        let Ok([file]) = <[File; 1]>::try_from(self.server.take_files(key)) else {
            return refused("a disk needs its open file with the request");
        };
        let (fd, name) = (file.as_raw_fd(), self.free_name("disk"));
        let disk = Disk {
            source: Source::Fd(fd),
            read_only,
            serial: Some(serial),
            queues: 1,
            rate: Default::default(),
            engine: Engine::Auto,
        };
        let mut config = self.config.clone();
        config.disks.push(disk.clone());
        if let Err(e) = config.validate() {
            return refused(&e.to_string());
        }
        if let Some(reason) = self.cannot_plug() {
            return refused(reason);
        }
        let open = match OpenDisk::of(name.clone(), file, read_only, true) {
            Ok(open) => open,
            Err(e) => return refused(&e.to_string()),
        };
        let Some(machine) = &mut self.machine else { return refused("the machine is restarting") };
        let part = Builder { threads: &self.threads, stop: &machine.stop }.disk(&disk, &open);
        if let Err(e) = part.and_then(|part| machine.add(part, &self.threads)) {
            return refused(&e.to_string());
        }
        self.config.disks.push(disk);
        self.parts.disks.push(open);
        Reply::Added { device: name }
    }

    pub(super) fn add_nic(&mut self, key: u64, mac: String, mtu: u16) -> Reply {
        let Ok([file]) = <[File; 1]>::try_from(self.server.take_files(key)) else {
            return refused("a card needs its tap with the request");
        };
        let name = self.free_name("nic");
        let tap = TapSource::Fd(file.as_raw_fd());
        let nic = Nic { tap, mac, mtu, transmit: Default::default(), receive: Default::default() };
        let mut config = self.config.clone();
        config.nics.push(nic.clone());
        if let Err(e) = config.validate() {
            return refused(&e.to_string());
        }
        if let Some(reason) = self.cannot_plug() {
            return refused(reason);
        }
        let open = match Tap::over(file) {
            Ok(tap) => OpenTap { name: name.clone(), tap: tap.into_fd() },
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

    /// Workers come and go only while none of them is being waited for.
    fn cannot_plug(&self) -> Option<&'static str> {
        let busy = self.job.is_some() || self.state != crate::state::RunState::Running;
        busy.then_some("only a machine that runs, and is not being written down or moved, takes and gives devices")
    }

    pub(super) fn remove(&mut self, device: &str) -> Reply {
        let disk = self.parts.disks.iter().position(|disk| disk.name == device);
        let card = self.parts.taps.iter().position(|tap| tap.name == device);
        if disk.is_none() && card.is_none() {
            return refused("there is no such disk or card");
        }
        if let Some(reason) = self.cannot_plug() {
            return refused(reason);
        }
        match self.machine.as_mut().and_then(|machine| machine.remove(device)) {
            Some(true) => {}
            Some(false) => return refused("the guest uses it: have the guest let go of it first"),
            None => return refused("it is not on a PCI bus"),
        }
        if let Some(at) = disk {
            self.config.disks.remove(at);
            // Now, not when the kernel has taken its ring apart.
            let _ = self.parts.disks.remove(at).release();
        }
        if let Some(at) = card {
            drop((self.config.nics.remove(at), self.parts.taps.remove(at)));
        }
        Reply::Done
    }
}
