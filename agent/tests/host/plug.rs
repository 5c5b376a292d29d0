//! Disks and cards that come and go while guests run, asked of every runtime; then of an agent by its wanted set.
//!
//! ```text
//!  plug --> it is there, the next agent finds it --> grows --> saved and restored with it in its place --> unplug
//! ```
use crate::contract::{Case, FAKE, KVM, QEMU, Subject, kvm, raw, suite};
use crate::guest;
use crate::life::{Agent, ONE, instance};
use crate::moving::streams::Streams;
use crate::scheduler::Scheduler;
use pilvi_agent::runtime::{Device, DirectBoot, Leave, Machine, MachineNic, Run, places};
use pilvi_agent_api::v1::{Disk, HostNetwork, Nic, ObservedInstance, Port, Power};
use std::collections::BTreeMap;
use std::time::Duration;

type Properties = BTreeMap<String, String>;

impl Case {
    async fn devices(&self) -> Vec<Device> {
        let mut devices = self.runtime.devices(&self.guest).await.unwrap();
        devices.sort_by_key(|device| device.place);
        devices
    }

    async fn ids(&self) -> Vec<String> {
        self.devices().await.into_iter().map(|device| device.id).collect()
    }

    /// A file of so many bytes in the guest's folder.
    fn file(&self, name: &str, bytes: u64) -> std::path::PathBuf {
        let path = self.guest.dir.join(name);
        std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    }

    async fn plug_disk(&self, name: &str) {
        let disk = raw(name, self.file(name, 1 << 20));
        self.runtime.plug_disk(&self.guest, disk, &Properties::new()).await.unwrap();
    }

    async fn restored_with(&self, machine: Machine) {
        let places = places::of(&self.devices().await);
        self.runtime.suspend(&self.guest).await.unwrap();
        self.runtime.start(&self.guest, Machine { restore: true, places, ..machine }).await.unwrap();
    }
}

async fn a_disk_comes_and_grows_and_stays_over_agents(subject: &'static Subject) {
    let mut case = Case::new(subject);
    case.start().await;
    case.until_said(subject.says).await;
    let before = case.devices().await;
    case.plug_disk("extra").await;
    let added = |devices: &[Device]| devices.iter().find(|device| device.id == "extra").cloned().unwrap();
    let first = added(&case.devices().await);
    assert!(before.iter().all(|device| device.place != first.place), "{before:?} {first:?}");
    assert_eq!(first.bytes, Some(1 << 20));
    case.restart_agent();
    assert_eq!(added(&case.devices().await), first);
    // Again: it is there already.
    let again = raw("extra", case.guest.dir.join("extra"));
    case.runtime.plug_disk(&case.guest, again, &Properties::new()).await.unwrap();
    assert_eq!(case.devices().await.len(), before.len() + 1);
    case.file("extra", 3 << 20);
    case.runtime.resize_disk(&case.guest, "extra", 3 << 20).await.unwrap();
    assert_eq!(added(&case.devices().await).bytes, Some(3 << 20));
    assert!(case.runtime.resize_disk(&case.guest, "none", 3 << 20).await.is_err());
    assert_eq!(case.status().await.run, Run::Running);
    case.end().await;
}

async fn a_saved_guest_finds_each_device_in_its_place(subject: &'static Subject) {
    let case = Case::new(subject);
    case.start().await;
    case.until_said(subject.says).await;
    for name in ["a", "b"] {
        case.plug_disk(name).await;
    }
    let places = places::of(&case.devices().await);
    let mut machine = (subject.machine)(&case.guest.dir, false);
    // In another order than that in which they came.
    machine.disks.insert(0, raw("b", case.guest.dir.join("b")));
    machine.disks.push(raw("a", case.guest.dir.join("a")));
    case.restored_with(machine).await;
    assert_eq!(case.status().await.run, Run::Running);
    assert_eq!(places::of(&case.devices().await), places);
    case.end().await;
}

/// Of guests that say nothing against it.
async fn a_disk_that_nobody_uses_goes(subject: &'static Subject) {
    let case = Case::new(subject);
    case.start().await;
    case.until_said(subject.says).await;
    let before = case.ids().await;
    case.plug_disk("extra").await;
    assert_eq!(case.runtime.unplug(&case.guest, "extra").await.unwrap(), Leave::Gone);
    assert_eq!(case.ids().await, before);
    assert_eq!(case.runtime.unplug(&case.guest, "extra").await.unwrap(), Leave::Gone);
    // Its file can be another machine's now, and the place is free again.
    case.plug_disk("extra").await;
    case.end().await;
}

macro_rules! plugging {
    ($name:ident, $subject:expr, $there:expr $(, $more:ident)*) => {
        suite!(
            $name,
            $subject,
            $there,
            a_disk_comes_and_grows_and_stays_over_agents,
            a_saved_guest_finds_each_device_in_its_place
            $(, $more)*
        );
    };
}
plugging!(fake, FAKE, true, a_disk_that_nobody_uses_goes);
plugging!(qemu, QEMU, guest::qemu());
plugging!(kvm, KVM, kvm(), a_disk_that_nobody_uses_goes);

/// This guest has no operating system that could hear the question.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_of_qemu_that_does_not_hear_keeps_its_devices() {
    if !guest::qemu() {
        return;
    }
    for board in ["q35", "pc"] {
        let case = Case::new(&QEMU);
        let mut machine = (QEMU.machine)(&case.guest.dir, false);
        machine.properties.insert("hw_machine_type".into(), board.into());
        let nic = |id: &str| MachineNic { id: id.into(), mac: "02:00:00:00:00:01".into(), mtu: 0, taps: Vec::new() };
        machine.nics.push(nic("first"));
        let properties = machine.properties.clone();
        case.runtime.start(&case.guest, machine).await.unwrap();
        case.until_said("pilvi guest up").await;
        case.plug_disk("extra").await;
        case.runtime.plug_nic(&case.guest, nic("second"), &properties).await.unwrap();
        assert_eq!(case.ids().await, ["root", "first", "extra", "second"]);
        for _ in 0..2 {
            assert_eq!(case.runtime.unplug(&case.guest, "second").await.unwrap(), Leave::Asked);
        }
        assert_eq!(case.ids().await.len(), 4);
        // What cannot be plugged leaves nothing, and says why.
        let gone = raw("gone", "/nonexistent/disk".into());
        assert!(case.runtime.plug_disk(&case.guest, gone, &properties).await.is_err());
        let mut model = properties.clone();
        model.insert("hw_disk_bus".into(), "sata".into());
        let sata = raw("sata", case.file("sata", 1 << 20));
        assert!(case.runtime.plug_disk(&case.guest, sata, &model).await.is_err());
        case.plug_disk("sata").await;
        assert_eq!(case.ids().await.len(), 5);
        case.end().await;
    }
}

/// As the scheduler wants it; disks by id, ports likewise.
fn wanted(disks: &[&str], ports: &[&str], generation: u64) -> (pilvi_agent_api::v1::Instance, HostNetwork) {
    let disk = |id: &&str| Disk { id: (*id).into(), size_gib: 1, ..Disk::default() };
    let nic = |id: &&str| Nic { port_id: (*id).into(), ..Nic::default() };
    let port = |id: &&str| Port { id: (*id).into(), instance_id: ONE.into(), ..Port::default() };
    let one = pilvi_agent_api::v1::Instance {
        generation,
        disks: disks.iter().map(disk).collect(),
        nics: ports.iter().map(nic).collect(),
        ..instance(ONE)
    };
    (one, HostNetwork { ports: ports.iter().map(port).collect(), ..HostNetwork::default() })
}

fn has(seen: &ObservedInstance, generation: u64, ids: &[&str]) -> bool {
    let mut found = seen.devices.clone();
    found.sort();
    seen.settled && seen.generation == generation && seen.error.is_empty() && found == ids
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wanted_anew_comes_into_the_running_guest_and_what_is_not_goes() {
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let mut agent = Agent::start(scheduler.config(dir.path()));
    scheduler.hello().await;
    let want = |disks: &[&str], ports: &[&str], generation, change: fn(&mut pilvi_agent_api::v1::Instance)| {
        let (mut one, network) = wanted(disks, ports, generation);
        change(&mut one);
        scheduler.want(move |wanted| (wanted.instances, wanted.network) = (vec![one], Some(network)));
    };
    want(&["root"], &["p1"], 1, |_| {});
    let first = scheduler.until_instance(ONE, "its devices", |i| has(i, 1, &["p1", "root"])).await;
    want(&["root", "vol"], &["p1", "p2"], 2, |_| {});
    let grown = scheduler.until_instance(ONE, "its devices", |i| has(i, 2, &["p1", "p2", "root", "vol"])).await;
    assert_eq!(grown.pid, first.pid, "it is the same guest");
    assert_eq!(grown.places.len(), 4);
    want(&["root", "vol"], &["p2"], 3, |_| {});
    scheduler.until_instance(ONE, "its devices", |i| has(i, 3, &["p2", "root", "vol"])).await;
    // A restarted agent finds the devices again, and a paused guest gets its own when it goes on.
    agent.stop().await;
    agent.again();
    want(&["root"], &["p2"], 4, |one| one.power = Power::Paused.into());
    scheduler
        .until_instance(ONE, "its devices", |i| {
            has(i, 4, &["p2", "root", "vol"]) && i.power == i32::from(Power::Paused)
        })
        .await;
    want(&["root"], &["p2"], 5, |_| {});
    let seen = scheduler.until_instance(ONE, "its devices", |i| has(i, 5, &["p2", "root"])).await;
    assert_eq!(seen.pid, first.pid);
    want(&["root"], &["p2"], 6, |one| one.power = Power::Stopped.into());
    scheduler.until_instance(ONE, "its devices", |i| has(i, 6, &[])).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_clings_to_its_devices_is_told_of_and_runs_on() {
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let agent = Agent::start(scheduler.config(dir.path()));
    scheduler.hello().await;
    let want = |disks: &[&str], generation| {
        let (mut one, network) = wanted(disks, &[], generation);
        one.properties.insert("fake:clings".into(), "brief".into());
        scheduler.want(move |wanted| (wanted.instances, wanted.network) = (vec![one], Some(network)));
    };
    want(&["root", "brief", "vol"], 1);
    scheduler.until_instance(ONE, "its devices", |i| has(i, 1, &["brief", "root", "vol"])).await;
    want(&["root"], 2);
    let asked =
        scheduler.until_instance(ONE, "its devices", |i| i.generation == 2 && !i.device_troubles.is_empty()).await;
    assert!(!asked.settled && asked.devices.iter().all(|id| id != "brief"), "{asked:?}");
    let seen = scheduler.until_instance(ONE, "its devices", |i| has(i, 2, &["root", "vol"])).await;
    assert_eq!(seen.power, i32::from(Power::Running));
    let trouble = &seen.device_troubles[0];
    assert!(trouble.id == "vol" && trouble.leaving && trouble.error.contains("let go"), "{trouble:?}");
    // It is wanted again, and nothing has happened.
    want(&["root", "vol"], 3);
    let seen = scheduler.until_instance(ONE, "its devices", |i| has(i, 3, &["root", "vol"])).await;
    assert!(seen.device_troubles.is_empty());
    tokio::time::sleep(Duration::from_millis(50)).await;
    agent.end().await;
}

/// The starter image, where an earlier run of the stories has built it.
fn starter() -> Option<std::path::PathBuf> {
    let home = std::env::var_os("HOME").map(|home| std::path::PathBuf::from(home).join(".cache/pilvi-tests"));
    let cache = std::env::var_os("PILVI_TEST_CACHE").map(std::path::PathBuf::from).or(home);
    let folder = cache.map(|cache| cache.join("starter")).filter(|folder| folder.join("starter.json").exists());
    if folder.is_none() {
        eprintln!("skipped: no starter image is in the cache: the stories build it");
    }
    folder
}

/// A Linux of the starter image that says on its console what it finds.
const LINUX: Subject = Subject {
    machine: |dir, _| {
        let folder = starter().unwrap();
        let root = dir.join("root");
        if !root.exists() {
            std::fs::copy(folder.join("starter.img"), &root).unwrap();
        }
        let cmdline = "root=LABEL=pilvi-root console=ttyS0,115200 ignore_loglevel panic=10 no_timer_check";
        let boot = DirectBoot {
            kernel: folder.join("vmlinuz"),
            ramdisk: Some(folder.join("initrd.img")),
            cmdline: cmdline.into(),
        };
        let nic = MachineNic { id: "p1".into(), mac: "02:00:00:00:00:01".into(), mtu: 0, taps: Vec::new() };
        Machine {
            vcpus: 1,
            memory_mib: 192,
            disks: vec![raw("root", root)],
            nics: vec![nic],
            boot: Some(boot),
            ..Machine::default()
        }
    },
    // Its card leads nowhere.
    says: "no address by DHCP yet",
    ..QEMU
};

impl Case {
    async fn until_gone(&self, id: &str) {
        for _ in 0..20 {
            if self.runtime.unplug(&self.guest, id).await.unwrap() == Leave::Gone {
                return;
            }
        }
        panic!("{id} does not go: {}", self.console().await);
    }
}

/// Finds what comes, hears that it grows, lets go of what is to go; also of what it had from its start, also after it was
/// saved, and after it has moved.
#[tokio::test(flavor = "multi_thread")]
async fn linux_under_qemu_finds_what_comes_and_lets_go_of_what_is_to_go() {
    if !guest::qemu() || starter().is_none() {
        return;
    }
    let case = Case::new(&LINUX);
    case.start().await;
    case.until_said(LINUX.says).await;
    case.plug_disk("vol").await;
    case.until_said("[vdb] 2048 512-byte logical blocks").await;
    case.file("vol", 2 << 20);
    case.runtime.resize_disk(&case.guest, "vol", 2 << 20).await.unwrap();
    case.until_said("[vdb] new size: 4096 512-byte logical blocks").await;
    let nic = MachineNic { id: "p2".into(), mac: "02:00:00:00:00:02".into(), mtu: 0, taps: Vec::new() };
    case.runtime.plug_nic(&case.guest, nic, &Properties::new()).await.unwrap();
    case.until_gone("p1").await;
    case.plug_disk("late").await;
    case.until_said("[vdc] 2048 512-byte logical blocks").await;
    let places = places::of(&case.devices().await);
    assert_eq!(places.keys().collect::<Vec<_>>(), ["late", "p2", "root", "vol"]);
    assert_eq!(places["late"], 1, "where p1 was");

    // Saved, and gone on with.
    let mut machine = (LINUX.machine)(&case.guest.dir, false);
    machine.nics[0].id = "p2".into();
    machine.nics[0].mac = "02:00:00:00:00:02".into();
    for name in ["vol", "late"] {
        machine.disks.push(raw(name, case.guest.dir.join(name)));
    }
    case.restored_with(machine).await;
    assert_eq!(places::of(&case.devices().await), places);
    case.until_gone("vol").await;
    case.plug_disk("last").await;
    let before = places::of(&case.devices().await);

    // On another host, whose files are empty.
    let there = Case::new(&LINUX);
    let mut coming = (LINUX.machine)(&there.guest.dir, false);
    coming.nics[0].id = "p2".into();
    coming.nics[0].mac = "02:00:00:00:00:02".into();
    std::fs::write(&coming.disks[0].path, []).unwrap();
    let length = std::fs::metadata(case.guest.dir.join("root")).unwrap().len();
    there.file("root", length);
    for name in ["last", "late"] {
        coming.disks.push(raw(name, there.file(name, 1 << 20)));
    }
    coming.places = before.clone();
    there.runtime.receive(&there.guest, coming).await.unwrap();
    let wires = Streams::fast(&there);
    let (sent, arrived) = tokio::join!(case.runtime.send(&case.guest, &wires), there.runtime.arrive(&there.guest));
    sent.unwrap();
    arrived.unwrap();
    case.end().await;
    assert_eq!(places::of(&there.devices().await), before);
    there.until_gone("late").await;
    there.until_gone("last").await;
    there.plug_disk("again").await;
    there.until_said("[vdb] 2048 512-byte logical blocks").await;
    assert!(!there.console().await.contains("Call Trace"));
    there.end().await;
}
