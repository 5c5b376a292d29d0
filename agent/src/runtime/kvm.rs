//! pilvi-vmm as a runtime: one small jailed process on KVM for each guest.
//!
//! ```text
//! start:  vmm.json -> spawn -> control socket answers -> running
//! ended:  the process goes with its guest and leaves a report that says why
//!         powered off, halted -> PoweredOff     crashed, killed -> Broken     no report -> Absent
//! ```
//! The VMM writes the bounded console log itself. Guests bring a kernel, or have one on their first disk (which is looked
//! at in a jail of its own, before the start), or a boot sector there that a BIOS starts (`firmware`). `moving` has guests
//! that go to another host or into a file, `upgrade` those that move into a newer VMM.
mod firmware;
mod look;
mod moving;
mod plug;
mod upgrade;

use super::choose::Offer;
use super::{
    Device, Going, Guest, Kind, Leave, Machine, MachineDisk, MachineNic, Program, Run, Runtime, RuntimeError, Settled,
    Status, Wires,
};
use crate::config::Config;
use crate::socket::Short;
use crate::{durable, process};
use async_trait::async_trait;
use pilvi_vmm::config::{self as vmm, Source};
use pilvi_vmm::control::{Client, ClientError, Request};
use pilvi_vmm::probe::Probe;
use pilvi_vmm::state::{Report, RunState, StopReason};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the control socket in the guest's folder, which is the process' working directory.
const SOCKET: &str = "vmm";
const CONFIG: &str = "vmm.json";
const REPORT: &str = "vmm-report";

/// What a VMM and those who speak to it find in the guest's folder.
struct Names {
    socket: &'static str,
    config: &'static str,
    report: &'static str,
    output: &'static str,
    /// Where a guest comes in.
    incoming: bool,
}

impl Names {
    /// Of the process that has the guest, or shall have it alone.
    fn own(dir: &Path) -> Self {
        Self {
            socket: SOCKET,
            config: CONFIG,
            report: REPORT,
            output: process::OUTPUT,
            incoming: moving::is_awaited(dir),
        }
    }
}

/// How long a VMM may take until its control socket answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The KVM runtime.
#[derive(Debug)]
pub struct Kvm {
    command: Vec<String>,
    user: Option<vmm::User>,
    cpu_mask: Vec<vmm::CpuFeature>,
    console_bytes: u64,
    firmware: PathBuf,
    /// Guests' memory can be handed over.
    shared: bool,
    newest: upgrade::Newest,
}

/// Finds out what KVM can really do here, by running a guest of a few instructions.
pub async fn probe() -> Probe {
    let probed = tokio::task::spawn_blocking(pilvi_vmm::probe::probe).await;
    probed.unwrap_or_else(|e| Probe { reason: e.to_string(), ..unprobed() })
}

/// What is known without asking: nothing.
#[must_use]
pub fn unprobed() -> Probe {
    Probe {
        present: false,
        usable: false,
        emulated: false,
        reason: "not probed".into(),
        million_instructions_per_s: 0.0,
        missing_instructions: Vec::new(),
    }
}

/// What the host offers, given the probe and whether the VMM is installed.
#[must_use]
pub fn offer(config: &Config, probe: &Probe) -> Offer {
    let program = config.vmm_command.first().map(String::as_str).unwrap_or_default();
    if !installed(program) {
        return Offer::unusable(Kind::Kvm, format!("{program} is not installed"));
    }
    Offer {
        kind: Kind::Kvm,
        usable: probe.usable,
        ordinary: probe.usable && !probe.emulated,
        reason: probe.reason.clone(),
    }
}

fn installed(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|folder| Path::new(folder).join(program).is_file())
}

impl Kvm {
    /// A runtime that starts VMMs as the configuration says.
    #[must_use]
    pub fn new(config: &Config, user: Option<&str>, probe: &Probe) -> Self {
        let user = user.and_then(|name| nix::unistd::User::from_name(name).ok().flatten());
        Self {
            command: config.vmm_command.clone(),
            user: user.map(|user| vmm::User { uid: user.uid.as_raw(), gid: user.gid.as_raw() }),
            cpu_mask: probe.cpu_mask(),
            console_bytes: config.console_kib << 10,
            firmware: config.vmm_firmware.clone(),
            shared: config.vmm_shared_memory.unwrap_or_else(upgrade::shared_is_as_good),
            newest: upgrade::Newest::default(),
        }
    }

    fn configuration(&self, guest: &Guest, machine: &Machine, names: &Names) -> Result<vmm::Config, RuntimeError> {
        let boot = machine.boot.as_ref();
        let firmware = self.firmware_for(machine);
        let disks = machine.disks.iter().map(|disk| match disk.format {
            super::DiskFormat::Raw => Ok(vmm::Disk {
                source: Source::Path(disk.path.clone()),
                name: Some(plug::disk_name(&disk.id)),
                read_only: disk.read_only,
                serial: Some(disk.serial.chars().take(20).collect()),
                queues: None,
                rate: Default::default(),
                engine: vmm::Engine::Auto,
                export: String::new(),
            }),
            super::DiskFormat::Overlay(_) => Err(RuntimeError::Unsupported(Kind::Kvm, "use overlays")),
        });
        // A card without a tap cannot be made: descriptors are 3, 4, ... in the order of the cards that have one.
        let wired = machine.nics.iter().filter(|nic| !nic.taps.is_empty());
        let nics = (3..).zip(wired).map(|(fd, nic)| vmm::Nic {
            tap: vmm::Tap::Fd(fd),
            name: Some(plug::nic_name(&nic.id)),
            mac: nic.mac.clone(),
            mtu: if nic.mtu == 0 { 1500 } else { nic.mtu },
            transmit: Default::default(),
            receive: Default::default(),
        });
        Ok(vmm::Config {
            id: guest.id.clone(),
            vcpus: u16::try_from(machine.vcpus.max(1)).map_err(|_| failed("too many processors"))?,
            max_vcpus: None,
            memory_mib: u32::try_from(machine.memory_mib).map_err(|_| failed("too much memory"))?,
            kernel: boot.map(|boot| Source::Path(boot.kernel.clone())),
            kernel_first: firmware.is_some() && !firmware::is_asked_for(&machine.properties),
            firmware: firmware.map(Source::Path),
            firmware_debug: false,
            initramfs: boot.and_then(|boot| boot.ramdisk.clone()).map(Source::Path),
            cmdline: boot.map(|boot| boot.cmdline.clone()).unwrap_or_default(),
            transport: transport(&machine.properties),
            disks: disks.collect::<Result<_, _>>()?,
            nics: nics.collect(),
            shares: Vec::new(),
            shared_memory: self.shared,
            rng: true,
            balloon: None,
            virtio_console: false,
            vsock: None,
            watchdog: false,
            control_socket: Source::Path(names.socket.into()),
            gdb: None,
            console: vmm::Console { log: Source::Path(guest.dir.join("console.log")), max_bytes: self.console_bytes },
            user: self.user,
            on_reset: vmm::OnReset::Restart,
            cpu_mask: self.cpu_mask.clone(),
            huge_pages: true,
            hugetlb: false,
            host_node: None,
            memory_hotplug: None,
            numa: Vec::new(),
            restore: machine.restore.then(|| vmm::Restore {
                state: Source::Path(guest.saved_state()),
                memory: Source::Path(moving::saved_memory(guest)),
                verify: true,
                lazy: vmm::Lazy::Map,
            }),
            incoming: names.incoming.then(|| Source::Path(moving::INCOMING.into())),
            report: Some(Source::Path(names.report.into())),
        })
    }

    fn spawn(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        let identity = self.spawn_as(guest, machine, &Names::own(&guest.dir), self.shared)?;
        process::record(&guest.dir, &identity).map_err(io("process record"))
    }

    /// Starts a process with these names, which nobody has recorded.
    fn spawn_as(
        &self,
        guest: &Guest,
        machine: Machine,
        names: &Names,
        shared: bool,
    ) -> Result<process::Identity, RuntimeError> {
        for stale in [names.socket, names.report, moving::INCOMING] {
            durable::remove(&guest.dir.join(stale)).map_err(io("a former guest's files"))?;
        }
        let configuration = vmm::Config { shared_memory: shared, ..self.configuration(guest, &machine, names)? };
        let text = serde_json::to_vec_pretty(&configuration).map_err(|e| failed(e.to_string()))?;
        let path = guest.dir.join(names.config);
        durable::save_plain(&path, &text).map_err(io("configuration"))?;
        let mut argv: Vec<OsString> = self.command.iter().map(OsString::from).collect();
        argv.extend(["--config".into(), path.into_os_string()]);
        // One queue for each card.
        let taps: Vec<OwnedFd> = machine.nics.into_iter().filter_map(|nic| nic.taps.into_iter().next()).collect();
        process::spawn_beside(&guest.dir, &argv, taps, names.output).map_err(io("pilvi-vmm"))
    }

    async fn answered(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        loop {
            let state = ask(guest, Client::status).await.map(|status| status.state);
            match state {
                Ok(RunState::Running | RunState::Paused) => return Ok(()),
                Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
                Ok(state) if tokio::time::Instant::now() > deadline => {
                    return Err(failed(format!("the guest is still {state:?}")));
                }
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
            if process::recall(&guest.dir).is_none() {
                if report(guest).is_some() {
                    // It has run, and ended already: the status will tell.
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                return Err(failed(format!("pilvi-vmm ended: {}", process::output(&guest.dir))));
            }
        }
    }
}

/// On PCI devices can come and go. A kernel that knows no PCI has them in fixed slots, if its image says so.
fn transport(properties: &BTreeMap<String, String>) -> vmm::Transport {
    match properties.get("hw_pilvi_transport").map(String::as_str) {
        Some("mmio") => vmm::Transport::Mmio,
        _ => vmm::Transport::Pci,
    }
}

fn failed(text: impl Into<String>) -> RuntimeError {
    RuntimeError::Failed(text.into())
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> RuntimeError {
    move |e| RuntimeError::Io(what, e)
}

/// Why a guest ended, if its VMM could still say so.
fn report(guest: &Guest) -> Option<StopReason> {
    let text = std::fs::read(guest.dir.join(REPORT)).ok()?;
    serde_json::from_slice::<Report>(&text).ok().map(|report| report.reason)
}

/// One exchange with a guest's VMM.
async fn ask<T: Send + 'static>(
    guest: &Guest,
    question: impl FnOnce(&mut Client) -> Result<T, ClientError> + Send + 'static,
) -> Result<T, RuntimeError> {
    ask_at(guest, SOCKET, question).await
}

/// The same, with the VMM behind the socket of this name.
async fn ask_at<T: Send + 'static>(
    guest: &Guest,
    name: &'static str,
    question: impl FnOnce(&mut Client) -> Result<T, ClientError> + Send + 'static,
) -> Result<T, RuntimeError> {
    let dir = guest.dir.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let socket = Short::to(&dir, name).map_err(io("instance folder"))?;
        let mut client = Client::connect(&socket.path()).map_err(|e| failed(e.to_string()))?;
        question(&mut client).map_err(|e| failed(e.to_string()))
    });
    asked.await.unwrap_or_else(|e| Err(failed(e.to_string())))
}

#[async_trait]
impl Runtime for Kvm {
    fn kind(&self) -> Kind {
        Kind::Kvm
    }

    async fn start(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        let folder = guest.dir.clone();
        let found = tokio::task::spawn_blocking(move || process::find(&folder)).await;
        match found.ok().and_then(|found| found.into_iter().next()) {
            Some(found) => process::record(&guest.dir, &found).map_err(io("process record"))?,
            None => self.spawn(guest, machine)?,
        }
        let started = self.answered(guest).await;
        if started.is_err() {
            self.kill(guest).await?;
        }
        started
    }

    async fn boots(&self, disk: &Path, properties: &BTreeMap<String, String>) -> Result<(), RuntimeError> {
        self.look_at(disk, properties).await
    }

    async fn status(&self, guest: &Guest) -> Result<Status, RuntimeError> {
        let found = process::recall(&guest.dir);
        if upgrade::is_begun(&guest.dir) {
            return Ok(Status { run: Run::Switching, pid: found.map_or(0, |found| found.pid.unsigned_abs()) });
        }
        let Some(found) = found else {
            return Ok(Status { run: ended(guest), pid: 0 });
        };
        if moving::is_awaited(&guest.dir) {
            return Ok(Status { run: Run::Arriving, pid: found.pid.unsigned_abs() });
        }
        let mut tries = 10;
        let state = loop {
            match ask(guest, Client::status).await {
                Ok(status) => break status.state,
                // It may be ending: then the socket goes a moment before the process does.
                Err(error) if tries == 0 => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            if !found.alive() {
                return Ok(Status { run: ended(guest), pid: 0 });
            }
            tries -= 1;
        };
        let run = if state == RunState::Paused { Run::Paused } else { Run::Running };
        Ok(Status { run, pid: found.pid.unsigned_abs() })
    }

    async fn shutdown(&self, guest: &Guest) -> Result<(), RuntimeError> {
        ask(guest, Client::power_button).await
    }

    async fn kill(&self, guest: &Guest) -> Result<(), RuntimeError> {
        process::end(&guest.dir).await.map_err(io("kill"))?;
        for stale in [SOCKET, REPORT, CONFIG] {
            durable::remove(&guest.dir.join(stale)).map_err(io("its files"))?;
        }
        upgrade::forget(&guest.dir).map_err(io("its files"))?;
        moving::forget(&guest.dir).map_err(io("its files"))
    }

    async fn pause(&self, guest: &Guest) -> Result<(), RuntimeError> {
        ask(guest, Client::pause).await
    }

    async fn resume(&self, guest: &Guest) -> Result<(), RuntimeError> {
        ask(guest, Client::resume).await
    }

    async fn suspend(&self, guest: &Guest) -> Result<(), RuntimeError> {
        self.save(guest).await
    }

    async fn receive(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        self.begin_receiving(guest, machine).await
    }

    fn door(&self, guest: &Guest, name: &str) -> Option<PathBuf> {
        (name == "state").then(|| guest.dir.join(moving::INCOMING))
    }

    async fn arrive(&self, guest: &Guest) -> Result<(), RuntimeError> {
        self.await_arrival(guest).await
    }

    async fn send(&self, guest: &Guest, wires: &dyn Wires) -> Result<(), RuntimeError> {
        self.send_away(guest, wires).await
    }

    async fn going(&self, guest: &Guest) -> Result<Option<Going>, RuntimeError> {
        self.how_far(guest).await
    }

    async fn hurry_send(&self, guest: &Guest) -> Result<(), RuntimeError> {
        ask(guest, |client| client.done(&Request::HurryMigration {})).await
    }

    async fn cancel_send(&self, guest: &Guest) -> Result<(), RuntimeError> {
        self.call_back(guest).await
    }

    async fn devices(&self, guest: &Guest) -> Result<Vec<Device>, RuntimeError> {
        self.list_devices(guest).await
    }

    async fn plug_disk(
        &self,
        guest: &Guest,
        disk: MachineDisk,
        _properties: &BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        self.add_disk(guest, disk).await
    }

    async fn plug_nic(
        &self,
        guest: &Guest,
        nic: MachineNic,
        _properties: &BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        self.add_nic(guest, nic).await
    }

    async fn unplug(&self, guest: &Guest, id: &str) -> Result<Leave, RuntimeError> {
        self.take_out(guest, id).await
    }

    async fn resize_disk(&self, guest: &Guest, id: &str, bytes: u64) -> Result<(), RuntimeError> {
        self.grow_disk(guest, id, bytes).await
    }

    async fn program(&self, guest: &Guest) -> Result<Option<Program>, RuntimeError> {
        self.program_of(guest).await.map(Some)
    }

    async fn upgrade(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        self.move_up(guest, machine).await
    }

    async fn settle_upgrade(&self, guest: &Guest) -> Result<Settled, RuntimeError> {
        self.settle(guest).await
    }

    fn has_cards_without_taps(&self) -> bool {
        false
    }

    async fn collect_console(&self, _guest: &Guest) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn diagnostics(&self, guest: &Guest) -> Result<serde_json::Value, RuntimeError> {
        let status = ask(guest, Client::status).await?;
        let value = serde_json::to_value(&status).map_err(|e| failed(e.to_string()))?;
        Ok(serde_json::json!({ "vmm": value }))
    }

    async fn changed(&self, guest: &Guest) {
        let Some(found) = process::recall(&guest.dir) else {
            return std::future::pending().await;
        };
        while found.alive() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// What became of a guest whose process is gone.
fn ended(guest: &Guest) -> Run {
    match report(guest) {
        Some(StopReason::PoweredOff | StopReason::Halted) => Run::PoweredOff,
        Some(StopReason::Moved) => Run::Moved,
        Some(_) => Run::Broken,
        None => Run::Absent,
    }
}
