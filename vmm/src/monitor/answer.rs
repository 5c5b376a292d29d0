//! What each request does, in one match.

use super::plug::Added;
use super::{GATE_WAIT, Monitor};
use crate::control::{
    ConsoleStatus, DeviceStatus, Direction, HotMemoryStatus, MissingStatus, Reply, Request, Status, TAIL_BYTES_MAX,
    to_bytes, to_text,
};
use crate::gate::lock;
use crate::machine::{Machine, OpenDisk};
use crate::state::{RunState, StopReason};
use crate::virtio::block;
use crate::virtio::handle::Handle;
use crate::virtio::limit::Rate;
use crate::virtio::transport::Slot;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// It was not done, and why.
pub(super) fn refused(reason: &str) -> Reply {
    Reply::Refused { reason: reason.to_owned() }
}

impl Monitor {
    /// Does what was asked. None: the answer comes later.
    pub(super) fn answer(&mut self, key: u64, request: Request) -> Option<Reply> {
        if let Some(reason) = self.barred(&request) {
            return Some(refused(reason));
        }
        Some(match request {
            Request::Snapshot {} => return self.snapshot(key),
            Request::Migrate { terms, disks } => return self.migrate(key, terms, disks),
            Request::AddDisk { read_only, serial, name, export, vhost_user } => {
                self.add_disk(key, Added { read_only, serial, name, export, vhost_user })
            }
            Request::ReconnectDisk { device } => self.reconnect_disk(key, &device),
            Request::AddNic { mac, mtu, name, vhost_user } => self.add_nic(key, (mac, mtu), name, vhost_user),
            Request::AddShare { tag, name } => self.add_share(key, tag, name),
            Request::Remove { device } => return self.remove(key, device),
            Request::ResizeVcpus { count } => return self.resize_vcpus(key, count),
            Request::ResizeMemory { mib } => return self.resize_memory(key, mib),
            Request::CancelMigration {} => self.cancel_migration(),
            Request::HandOver {} => return self.hand_over_all(key),
            Request::HurryMigration {} => self.hurry_migration(),
            Request::PostcopyMigration {} => self.postcopy_migration(),
            Request::ReconnectMigration {} => return self.reconnect_migration(key),
            Request::Status {} => Reply::Status(Box::new(self.status())),
            Request::Pause {} => self.pause(),
            Request::Resume {} => self.resume(),
            Request::PowerButton {} => match &self.machine {
                Some(machine) if lock(&machine.bus.power).press() => Reply::Done,
                _ => self.ctrl_alt_del(true),
            },
            Request::SoftReset {} => self.ctrl_alt_del(false),
            Request::Reset {} => {
                self.closing = false;
                self.stop(StopReason::Reset);
                Reply::Done
            }
            Request::Kill {} => {
                self.stop(StopReason::Killed);
                Reply::Done
            }
            Request::SetRate { device, direction, rate } => self.set_rate(&device, direction, rate),
            Request::ResizeDisk { device, bytes } => self.resize_disk(&device, bytes),
            Request::SetBalloon { mib } => self.set_balloon(mib),
            Request::ConsoleWrite { data } => match to_bytes(&data) {
                Some(bytes) => Reply::Taken { bytes: self.type_in(&bytes) },
                None => refused("console data has characters above U+00FF"),
            },
            Request::ConsoleTail { bytes } => match self.parts.console.tail(bytes.min(TAIL_BYTES_MAX) as usize) {
                Ok(bytes) => Reply::Console { data: to_text(&bytes) },
                Err(e) => refused(&format!("the console log cannot be read: {e}")),
            },
            Request::ConsoleAttach {} => Reply::Done,
        })
    }

    /// What would run a machine a second time, or wait for somebody who waits for memory that is on its way.
    fn barred(&self, request: &Request) -> Option<&'static str> {
        use Request::{
            AddDisk, AddNic, Migrate, PowerButton, Remove, Reset, ResizeDisk, Resume, SetBalloon, SoftReset,
        };
        if let (Some(torn), Resume {} | Reset {} | SoftReset {} | PowerButton {}) = (&self.torn, request)
            && torn.ran
        {
            return Some("the machine runs at the target; what is here is only memory that it misses");
        }
        let changing = matches!(request, AddDisk { .. } | AddNic { .. } | Remove { .. } | ResizeDisk { .. });
        let touching = changing
            || matches!(request, SetBalloon { .. } | Request::Snapshot {} | Migrate { .. } | Request::HandOver {});
        (touching && self.is_arriving()).then_some("memory of the machine is on its way")
    }

    fn ctrl_alt_del(&mut self, closing: bool) -> Reply {
        match &self.machine {
            Some(machine) if lock(&machine.bus.keyboard).press_ctrl_alt_del() => {
                self.closing = closing;
                Reply::Done
            }
            Some(_) => {
                let reason =
                    "the guest has neither a power button nor a keyboard driver that could hear; use kill or reset";
                Reply::Refused { reason: reason.into() }
            }
            None => Reply::Refused { reason: "the machine is restarting".into() },
        }
    }

    /// To the virtio terminal where a driver listens to one, else to the serial line.
    pub(super) fn type_in(&self, bytes: &[u8]) -> usize {
        let Some(machine) = &self.machine else { return 0 };
        let terminal = machine.slots().iter().find_map(|slot| match &slot.handle {
            Handle::Console(input) => input.type_in(bytes),
            _ => None,
        });
        terminal.unwrap_or_else(|| lock(&machine.bus.serial).type_in(bytes))
    }

    /// Another limit for a disk or a card.
    fn set_rate(&self, device: &str, direction: Direction, rate: Rate) -> Reply {
        let slot = self.machine.iter().flat_map(Machine::slots).find(|slot| slot.name == device);
        let settings = match slot.as_ref().map(|slot| &slot.handle) {
            Some(Handle::Disk { rate, .. }) if direction == Direction::Both => vec![rate],
            Some(Handle::Card { transmit, receive }) => match direction {
                Direction::Both => vec![transmit, receive],
                Direction::Transmit => vec![transmit],
                Direction::Receive => vec![receive],
            },
            Some(_) => return refused("this device has no such limit"),
            None => return refused("there is no such device"),
        };
        settings.into_iter().for_each(|setting| setting.set(rate));
        Reply::Done
    }

    /// A disk has become longer, or is to: its driver is told.
    fn resize_disk(&mut self, device: &str, bytes: Option<u64>) -> Reply {
        if self.job.is_some() {
            return refused("a snapshot or a migration is under way");
        }
        let Some(disk) = self.parts.disks.iter_mut().find(|disk| disk.name == device) else {
            return refused("there is no such disk");
        };
        let bytes = match disk.grow(bytes) {
            Ok(bytes) => bytes,
            Err(e) => return refused(&e.to_string()),
        };
        let slot = self.machine.iter().flat_map(Machine::slots).find(|slot| slot.name == device);
        if let Some((slot, Handle::Disk { sectors, .. })) = slot.as_ref().map(|slot| (slot, &slot.handle)) {
            sectors.store(bytes / block::SECTOR, Ordering::Release);
            slot.config_changed();
        }
        Reply::Resized { bytes }
    }

    /// Asks the guest for memory, or offers some back.
    fn set_balloon(&self, mib: u32) -> Reply {
        let handle = |slot: &Arc<Slot>| matches!(slot.handle, Handle::Balloon(_));
        let slot = self.machine.iter().flat_map(Machine::slots).find(handle);
        let Some((slot, Handle::Balloon(target))) = slot.as_ref().map(|slot| (slot, &slot.handle)) else {
            return refused("this machine has no balloon");
        };
        if mib >= self.config.memory_mib {
            return refused("the balloon would take all of the guest's memory");
        }
        target.wanted_pages.store(mib << 8, Ordering::Relaxed);
        slot.config_changed();
        Reply::Done
    }

    pub(super) fn pause(&mut self) -> Reply {
        let Some(machine) = &self.machine else { return refused("the machine is restarting") };
        machine.gate.shut();
        let end = Instant::now() + GATE_WAIT;
        while Instant::now() < end {
            machine.kick_all();
            if machine.gate.wait_for(machine.threads(), Duration::from_millis(100)) {
                self.state = RunState::Paused;
                return Reply::Done;
            }
            if machine.stop.reason().is_some() {
                return refused("the machine has just ended");
            }
        }
        machine.gate.open();
        refused("a processor or device did not come to rest in time")
    }

    pub(super) fn resume(&mut self) -> Reply {
        if self.job.is_some() {
            return refused("a snapshot or a migration is under way");
        }
        if self.is_held() {
            return refused("a debugger has stopped the machine");
        }
        let reply = self.go_on();
        if reply == Reply::Done {
            self.mend();
        }
        reply
    }

    /// Lets the machine go on, whoever stopped it.
    pub(super) fn go_on(&mut self) -> Reply {
        match &self.machine {
            Some(machine) => {
                if self.state == RunState::Paused {
                    // A migration may have let go of them; another process that has them runs this guest.
                    if let Err(e) = self.parts.claim_disks(&self.config) {
                        return refused(&e.to_string());
                    }
                    machine.tell_of_pause();
                }
                machine.may_begin();
                machine.gate.open();
                self.state = RunState::Running;
                Reply::Done
            }
            None => Reply::Refused { reason: "the machine is restarting".into() },
        }
    }

    pub(super) fn status(&self) -> Status {
        let machine = self.machine.as_ref();
        let devices = machine.into_iter().flat_map(Machine::slots).map(|slot| {
            let (driver_ok, needs_reset) = slot.driver_state();
            let bytes = match &slot.handle {
                Handle::Disk { sectors, .. } => Some(sectors.load(Ordering::Acquire) * block::SECTOR),
                Handle::Backend(link) => link.bytes(),
                _ => None,
            };
            let number = machine.and_then(|machine| machine.number_of(&slot.name));
            let (name, counters) = (slot.name.clone(), slot.counters.snapshot());
            let link = self.parts.disks.iter().find(|disk| disk.name == name).and_then(OpenDisk::link);
            let connected = match &slot.handle {
                Handle::Backend(link) => Some(link.is_connected()),
                _ => link.map(|link| link.is_connected()),
            };
            DeviceStatus { name, number, bytes, connected, driver_ok, needs_reset, counters }
        });
        let console = self.parts.console.counters();
        Status {
            id: self.config.id.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            build: self.build.clone(),
            pid: std::process::id(),
            state: self.state,
            stop_reason: machine.and_then(|m| m.stop.reason()),
            vcpus: machine.map_or(self.config.vcpus, Machine::processors_there),
            wanted_vcpus: self.config.vcpus,
            max_vcpus: self.config.possible_vcpus(),
            memory_mib: self.config.memory_mib,
            memory_hotplug: self.config.memory_hotplug.map(|memory| HotMemoryStatus {
                plugged_mib: machine.and_then(|m| m.hot.as_ref()).map_or(0, |hot| hot.plugged_bytes() >> 20),
                requested_mib: memory.requested_mib,
                max_mib: memory.max_mib,
                block_mib: memory.block_mib(),
            }),
            uptime_ms: self.began.elapsed().as_millis() as u64,
            resets: self.resets,
            exits: machine.map_or(Vec::new(), |m| m.seen.iter().map(|s| s.exits.load(Ordering::Relaxed)).collect()),
            unclaimed_accesses: machine.map_or(0, |m| m.bus.unclaimed.load(Ordering::Relaxed)),
            devices: devices.collect(),
            migration: self.progress.as_ref().map(|progress| progress.status()),
            missing: machine.and_then(|machine| machine.pager.as_ref()).map(|pager| MissingStatus {
                pages: pager.seen.left.load(Ordering::Acquire),
                faults: pager.seen.faults.load(Ordering::Relaxed),
                stuck: pager.seen.is_stuck(),
            }),
            balloon_mib: machine.into_iter().flat_map(Machine::slots).find_map(|slot| match &slot.handle {
                Handle::Balloon(target) => Some(target.actual_pages.load(Ordering::Relaxed) >> 8),
                _ => None,
            }),
            console: ConsoleStatus {
                bytes: console.bytes,
                lost: console.lost,
                watchers_dropped: console.watchers_dropped,
            },
        }
    }
}
