//! What every runtime must do, asked of each of them in the same words.
use crate::guest;
use nix::sys::signal::Signal;
use pilvi_agent::console::Log;
use pilvi_agent::runtime::fake::Fake;
use pilvi_agent::runtime::kvm::Kvm;
use pilvi_agent::runtime::qemu::{Qemu, command::Host};
use pilvi_agent::runtime::{
    DirectBoot, DiskFormat, Guest, Machine, MachineDisk, MachineNic, Run, Runtime, Status, stop_kindly,
};
use pilvi_agent::{Config, process};
use pilvi_vmm::probe::Probe;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// A disk in a raw file that can be written.
pub fn raw(id: &str, path: PathBuf) -> MachineDisk {
    MachineDisk { id: id.into(), path, format: DiskFormat::Raw, read_only: false, serial: id.into() }
}

/// A runtime under test and how to make machines for it.
pub struct Subject {
    pub make: fn() -> Box<dyn Runtime>,
    /// A machine that powers itself off after a moment if `short`.
    pub machine: fn(&Path, bool) -> Machine,
    /// What its console says once it runs.
    pub says: &'static str,
    /// A machine whose guest counts, on its first disk and on its console ([`guest::counting_sector`]), if its guests
    /// can move to another host. The disks' files are made when they are not there.
    pub counts: Option<fn(&Path) -> Machine>,
}

pub const FAKE: Subject = Subject {
    make: || Box::new(Fake),
    machine: |_, short| {
        let mut machine = Machine::default();
        if short {
            machine.properties.insert("fake:power_off_ms".into(), "300".into());
        }
        machine
    },
    says: "fake guest started",
    counts: None,
};

/// Bytes of the disk that a counting guest does not write to.
const DATA: u64 = 12 << 20;

pub const QEMU: Subject = Subject {
    make: || {
        let root = nix::unistd::geteuid().is_root();
        Box::new(Qemu::new(Host {
            binary: "qemu-system-x86_64".into(),
            kvm: false,
            user: root.then(|| "nobody".into()),
        }))
    },
    machine: |dir, short| {
        let path = dir.join("root");
        if !path.exists() {
            let mut disk = guest::boot_sector(if short { 2 } else { 0 });
            disk.resize(1 << 20, 0);
            std::fs::write(&path, disk).unwrap();
        }
        Machine { vcpus: 1, memory_mib: 32, disks: vec![raw("root", path)], ..Machine::default() }
    },
    says: "pilvi guest up",
    counts: Some(|dir| {
        let disk = |name: &str, read_only| MachineDisk { read_only, ..raw(name, dir.join(name)) };
        let disks = vec![disk("root", false), disk("config", true), disk("data", false)];
        if !disks[0].path.exists() {
            let mut root = guest::counting_sector();
            root.resize(4 << 20, 0);
            std::fs::write(&disks[0].path, root).unwrap();
            std::fs::write(&disks[1].path, [7; 4096]).unwrap();
            // Nothing in it repeats, and nothing in it is written by the guest.
            let words = (0..DATA / 8).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            std::fs::write(&disks[2].path, words.flatten().collect::<Vec<u8>>()).unwrap();
        }
        let nic = MachineNic { id: "port".into(), mac: "02:00:00:00:00:01".into(), mtu: 1450, taps: Vec::new() };
        Machine { vcpus: 1, memory_mib: 32, disks, nics: vec![nic], ..Machine::default() }
    }),
};

pub const KVM: Subject = Subject {
    make: || {
        let vmm_command = vec![env!("CARGO_BIN_EXE_pilvi-agent").into(), "vmm".into()];
        let config = Config { vmm_command, ..Config::default() };
        let user = nix::unistd::geteuid().is_root().then_some("nobody");
        Box::new(Kvm::new(&config, user, kvm_probe()))
    },
    machine: |_, short| Machine {
        vcpus: 1,
        memory_mib: 32,
        boot: Some(DirectBoot {
            kernel: guest::freestanding().into(),
            ramdisk: None,
            cmdline: if short { "" } else { "idle" }.into(),
        }),
        ..Machine::default()
    },
    says: "PILVI-GUEST up",
    counts: None,
};

/// A disk with nothing but a boot sector, which a BIOS starts.
pub const BIOS: Subject = Subject { machine: QEMU.machine, says: QEMU.says, ..KVM };

fn bios() -> bool {
    let image = Config::default().vmm_firmware;
    if !image.exists() {
        eprintln!("skipped: {} is missing (package seabios)", image.display());
    }
    image.exists() && kvm()
}

fn kvm_probe() -> &'static Probe {
    static PROBE: OnceLock<Probe> = OnceLock::new();
    PROBE.get_or_init(pilvi_vmm::probe::probe)
}

pub fn kvm() -> bool {
    let probe = kvm_probe();
    if !probe.usable {
        eprintln!("skipped: no guest can run on KVM here: {}", probe.reason);
    }
    probe.usable
}

/// One guest of a subject in a folder of its own.
pub struct Case {
    pub subject: &'static Subject,
    pub runtime: Box<dyn Runtime>,
    pub guest: Guest,
    _dir: TempDir,
}

impl Case {
    pub fn new(subject: &'static Subject) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let guest = Guest {
            id: "00000000-0000-4000-8000-000000000001".into(),
            console: Log::new(dir.path(), 1 << 20),
            dir: dir.path().to_owned(),
        };
        Self { subject, runtime: (subject.make)(), guest, _dir: dir }
    }

    pub async fn start(&self) -> Status {
        self.start_as(false, false).await
    }

    async fn start_as(&self, short: bool, restore: bool) -> Status {
        let machine = (self.subject.machine)(&self.guest.dir, short);
        let machine = Machine { restore, ..machine };
        self.runtime.start(&self.guest, machine).await.unwrap();
        self.status().await
    }

    /// Another agent takes the place of the one that was.
    pub fn restart_agent(&mut self) {
        self.runtime = (self.subject.make)();
    }

    pub async fn status(&self) -> Status {
        self.runtime.status(&self.guest).await.unwrap()
    }

    pub async fn until(&self, run: Run) {
        for _ in 0..600 {
            if self.status().await.run == run {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never {run:?}: {:?}, {}", self.status().await, self.console().await);
    }

    pub async fn console(&self) -> String {
        let _ = self.runtime.collect_console(&self.guest).await;
        String::from_utf8_lossy(&self.guest.console.tail(0).unwrap()).into_owned()
    }

    pub async fn until_said(&self, text: &str) {
        for _ in 0..600 {
            if self.console().await.contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{text:?} never said: {:?}", self.console().await);
    }

    pub fn processes(&self) -> usize {
        process::find(&self.guest.dir).len()
    }

    pub async fn end(self) {
        self.runtime.kill(&self.guest).await.unwrap();
        assert_eq!(self.status().await, Status::default());
        assert_eq!(self.processes(), 0, "a process is left");
    }
}

async fn nothing_there(subject: &'static Subject) {
    let case = Case::new(subject);
    assert_eq!(case.status().await, Status::default());
    case.runtime.kill(&case.guest).await.unwrap();
    case.end().await;
}

async fn started_once(subject: &'static Subject) {
    let case = Case::new(subject);
    let first = case.start().await;
    assert!(first.run == Run::Running && first.pid > 0);
    case.until_said(subject.says).await;
    assert_eq!(case.start().await, first, "a second start made another guest");
    assert_eq!(case.processes(), 1);
    case.end().await;
}

async fn paused_and_resumed(subject: &'static Subject) {
    let case = Case::new(subject);
    let first = case.start().await;
    for _ in 0..2 {
        case.runtime.pause(&case.guest).await.unwrap();
        case.until(Run::Paused).await;
        assert_eq!(case.status().await.pid, first.pid);
    }
    for _ in 0..2 {
        case.runtime.resume(&case.guest).await.unwrap();
        case.until(Run::Running).await;
    }
    case.end().await;
}

async fn found_by_the_next_agent(subject: &'static Subject) {
    let mut case = Case::new(subject);
    let first = case.start().await;
    case.restart_agent();
    assert_eq!(case.status().await, first);
    // The former agent died before it recorded the process.
    case.restart_agent();
    std::fs::remove_file(case.guest.dir.join("process")).unwrap();
    assert_eq!(case.start().await, first);
    std::fs::remove_file(case.guest.dir.join("process")).unwrap();
    case.end().await;
}

async fn powers_off_when_asked(subject: &'static Subject) {
    let case = Case::new(subject);
    case.start().await;
    case.until_said(subject.says).await;
    let grace = Duration::from_secs(30);
    assert!(stop_kindly(case.runtime.as_ref(), &case.guest, grace).await.unwrap());
    assert_eq!(case.status().await.run, Run::PoweredOff);
    case.runtime.kill(&case.guest).await.unwrap();
    assert_eq!(case.status().await, Status::default());
    case.start().await;
    case.end().await;
}

async fn powers_itself_off(subject: &'static Subject) {
    let mut case = Case::new(subject);
    case.start_as(true, false).await;
    // Nobody looks while it happens.
    case.restart_agent();
    case.until(Run::PoweredOff).await;
    case.end().await;
}

async fn a_killed_process_is_absent(subject: &'static Subject) {
    let case = Case::new(subject);
    case.start().await;
    process::recall(&case.guest.dir).unwrap().signal(Signal::SIGKILL).unwrap();
    case.until(Run::Absent).await;
    case.start().await;
    case.end().await;
}

async fn suspended_and_restored(subject: &'static Subject) {
    let case = Case::new(subject);
    case.start().await;
    case.until_said(subject.says).await;
    case.runtime.suspend(&case.guest).await.unwrap();
    assert_eq!(case.status().await, Status::default());
    assert!(case.guest.saved_state().exists());
    let restored = case.start_as(false, true).await;
    assert_eq!(restored.run, Run::Running);
    case.end().await;
}

/// A test each for these functions, of a runtime that is there.
macro_rules! suite {
    ($name:ident, $subject:expr, $there:expr, $($test:ident),+ $(,)?) => {
        mod $name {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                if $there {
                    super::$test(&$subject).await;
                }
            })+
        }
    };
}
pub(crate) use suite;

macro_rules! contract {
    ($name:ident, $subject:expr, $there:expr) => {
        suite!(
            $name,
            $subject,
            $there,
            nothing_there,
            started_once,
            paused_and_resumed,
            found_by_the_next_agent,
            powers_off_when_asked,
            powers_itself_off,
            a_killed_process_is_absent,
            suspended_and_restored
        );
    };
}
contract!(fake, FAKE, true);
contract!(qemu, QEMU, guest::qemu());
contract!(kvm, KVM, kvm());
contract!(bios, BIOS, bios());

/// The guest goes on where it was, it does not boot anew.
#[tokio::test(flavor = "multi_thread")]
async fn qemu_goes_on_from_its_saved_state() {
    if !guest::qemu() {
        return;
    }
    let case = Case::new(&QEMU);
    case.start().await;
    case.until_said("ABC").await;
    case.runtime.suspend(&case.guest).await.unwrap();
    case.guest.console.clear().unwrap();
    case.start_as(false, true).await;
    case.until_said("E").await;
    let said = case.console().await;
    assert!(!said.contains("up") && !said.contains('A'), "it booted anew: {said}");
    case.end().await;
}

/// A QEMU that cannot start says why, and nothing of it is left.
#[tokio::test(flavor = "multi_thread")]
async fn qemu_says_why_it_does_not_start() {
    if !guest::qemu() {
        return;
    }
    let case = Case::new(&QEMU);
    let mut machine = (QEMU.machine)(&case.guest.dir, false);
    machine.disks[0].path = "/nonexistent/disk".into();
    let error = case.runtime.start(&case.guest, machine).await.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/disk"), "{error}");
    case.end().await;
}
