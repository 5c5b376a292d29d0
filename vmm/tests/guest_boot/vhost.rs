//! Devices whose queues another process serves, with real ones: QEMU's storage daemon, and Open vSwitch over DPDK.

use crate::migrate::{numbers, stream, target, written};
use crate::peer::{GUEST, HOST, MAC, in_own_network, ping};
use crate::rig::{PATIENCE, Setup, kvm_is_here, until};
use crate::snapshot;
use pilvi_vmm::control::{Client, ClientError, DeviceStatus, Reply, Request};
use pilvi_vmm::migrate::Terms;
use pilvi_vmm::state::RunState;
use serde_json::json;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Whether somebody listens at a socket: its name is there before. Some take one connection only, so none is made.
fn listens(socket: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/net/unix").unwrap();
    table.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words[..], [_, _, _, "00010000", _, _, _, path] if Path::new(path) == socket)
    })
}

/// A process that serves a device, ended with the test.
pub struct Daemon {
    pub child: Child,
    pub socket: PathBuf,
}

impl Daemon {
    /// None where the program is missing.
    pub fn start(mut command: Command, socket: &Path, package: &str) -> Option<Daemon> {
        let _ = std::fs::remove_file(socket);
        let Ok(child) = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() else {
            eprintln!("SKIPPED: {} is missing (package {package})", command.get_program().display());
            return None;
        };
        let daemon = Daemon { child, socket: socket.to_owned() };
        until("the daemon to listen", PATIENCE, || listens(&daemon.socket));
        Some(daemon)
    }

    /// A storage daemon with one disk of two queues, `writable` or so slow (`iops=N`) that requests wait in it.
    pub fn disk(folder: &Path, name: &str, disk: &Path, more: &str) -> Option<Daemon> {
        let socket = folder.join(name);
        let mut command = Command::new("qemu-storage-daemon");
        // Not locked: a machine that moves has it open twice for a moment.
        let file = format!("driver=file,node-name=file,locking=off,filename={}", disk.display());
        let export = format!("vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path={}", socket.display());
        let (limit, top, more) = match more.strip_prefix(",iops=") {
            Some(rate) => {
                let limit = format!("throttle-group,id=slow,limits.iops-total={rate}");
                (Some(limit), "driver=throttle,throttle-group=slow,node-name=disk,file=file", ",writable=on")
            }
            None => (None, "driver=raw,node-name=disk,file=file", more),
        };
        command.args(limit.iter().flat_map(|limit| ["--object", limit]));
        command.args(["--blockdev", &file, "--blockdev", top]);
        command.args(["--export", &format!("{export},num-queues=2{more}")]);
        Daemon::start(command, &socket, "qemu-utils")
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn device(client: &mut Client, name: &str) -> DeviceStatus {
    client.status().unwrap().devices.into_iter().find(|device| device.name == name).unwrap()
}

/// A machine with a disk of the storage daemon's.
fn with_disk(cmdline: &str, transport: &str) -> Option<(Setup, Daemon, PathBuf)> {
    let mut setup = Setup::new(cmdline);
    let disk = setup.with_disk(false);
    let daemon = Daemon::disk(setup.dir.path(), "disk", &disk, ",writable=on")?;
    setup.config["disks"] =
        json!([{"source": {"path": daemon.socket}, "engine": "vhost_user", "queues": 2, "name": "remote"}]);
    setup.config["transport"] = json!(transport);
    Some((setup, daemon, disk))
}

#[test]
fn a_storage_daemon_serves_a_disk_on_either_transport() {
    if !kvm_is_here() {
        return;
    }
    for transport in ["mmio", "pci"] {
        let Some((mut setup, _daemon, disk)) = with_disk("disk idle", transport) else { return };
        setup.config["user"] = json!({"uid": 65534, "gid": 65534});
        let mut guest = setup.start();
        guest.expect("idle");
        let console = guest.console();
        for line in ["sectors=2048", "sector0=FIRST-SECTOR", "disk written", "disk verified", "disk end holds"] {
            assert!(console.contains(line), "{transport}: no {line}: {console}");
        }
        let bytes = std::fs::read(&disk).unwrap();
        assert!(bytes[512..1024].iter().enumerate().all(|(n, byte)| usize::from(*byte) == n * 7 % 256));
        let mut client = guest.client();
        let Err(ClientError::Refused(_)) =
            client.ask(&Request::ResizeDisk { device: "remote".into(), bytes: Some(4 << 20) })
        else {
            panic!("it is grown where it is")
        };
        client.kill().unwrap();
        guest.ends_with(5);
    }
}

#[test]
fn a_guest_waits_for_a_backend_that_went_away_and_loses_no_write() {
    if !kvm_is_here() {
        return;
    }
    let Some((setup, mut daemon, disk)) = with_disk("scribble", "pci") else { return };
    let mut guest = setup.start();
    until("some writes", PATIENCE, || written(&guest.console()).len() > 50);
    let mut client = guest.client();
    for round in 1..=2 {
        daemon.end();
        until("it to be missed", PATIENCE, || device(&mut client, "remote").connected == Some(false));
        let stands = written(&guest.console()).len();
        client.pause().unwrap();
        let files = ["state", "memory"].map(|name| File::create(guest.setup.path(name)).unwrap());
        let Err(ClientError::Refused(reason)) = client.snapshot(&files[0], &files[1]) else { panic!() };
        assert!(reason.contains("is away"), "{reason}");
        client.resume().unwrap();
        assert!(written(&guest.console()).len() <= stands + 1, "nothing is written to nowhere");
        daemon = Daemon::disk(guest.setup.dir.path(), "disk", &disk, ",writable=on").unwrap();
        let again = Request::ReconnectDisk { device: "remote".into() };
        assert_eq!(client.ask_with(&again, &[daemon.connect().as_raw_fd()]).unwrap(), Reply::Done);
        until("writes again", PATIENCE, || written(&guest.console()).len() > stands + 50);
        assert_eq!(device(&mut client, "remote").connected, Some(true), "round {round}");
        // Paused and going on: the queues are taken back and handed over again.
        client.pause().unwrap();
        let stands = written(&guest.console()).len();
        client.resume().unwrap();
        until("writes after the pause", PATIENCE, || written(&guest.console()).len() > stands + 20);
    }
    // A reset keeps the connection.
    client.reset().unwrap();
    until("the next start", PATIENCE, || guest.console().matches("PILVI-GUEST up").count() == 2);
    let before = guest.console().len();
    until("it writes", PATIENCE, || guest.console()[before..].matches("wrote ").count() > 20);
    assert!(!guest.console().contains("error"), "{}", guest.console());
    client.kill().unwrap();
    guest.ends_with(5);
    let (kept, all) = (numbers(&disk), written(&guest.console()));
    let last = *all.last().unwrap();
    for count in (1..=last).rev().take(20) {
        assert!(kept[(count % 1024) as usize] >= count, "write {count} was lost: {kept:?}");
    }
}

#[test]
fn a_backend_that_is_not_what_the_disk_needs_is_refused() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("idle");
    let disk = setup.with_disk(false);
    let Some(daemon) = Daemon::disk(setup.dir.path(), "disk", &disk, "") else { return };
    let disks = |queues: u16| json!([{"source": {"path": daemon.socket}, "engine": "vhost_user", "queues": queues}]);
    for (queues, reason) in [(1, "refuses writes"), (3, "has 2 queues, not 3")] {
        let mut setup = Setup::new("idle");
        setup.config["disks"] = disks(queues);
        let mut guest = setup.start();
        guest.ends_with(1);
        assert!(guest.stderr().contains(reason) || queues == 3, "{}", guest.stderr());
    }
    // A backend that says nothing does not hold anybody for ever.
    let mut setup = Setup::new("idle");
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let fd = setup.inherit(ours.into());
    setup.config["disks"] = json!([{"source": {"fd": fd}, "engine": "vhost_user"}]);
    let begin = Instant::now();
    let mut guest = setup.start();
    guest.ends_with(1);
    assert!(guest.stderr().contains("does not answer") && begin.elapsed() < PATIENCE, "{}", guest.stderr());
}

#[test]
fn a_machine_with_such_a_disk_is_restored_and_moves() {
    if !kvm_is_here() {
        return;
    }
    let Some((setup, daemon, disk)) = with_disk("scribble", "pci") else { return };
    let mut guest = setup.start();
    until("some writes", PATIENCE, || written(&guest.console()).len() > 50);
    let (state, memory) = snapshot::save(&mut guest);
    guest.client().kill().unwrap();
    guest.ends_with(5);
    let last = *written(&guest.console()).last().unwrap();
    // The storage daemon takes the next as soon as the first has gone.
    let setup = snapshot::restored(&guest, &state, &memory, true);
    let mut restored = setup.start();
    until("writes after the restore", PATIENCE, || written(&restored.console()).len() > 50);
    let first = written(&restored.console())[0];
    // The line that was being written has a half on each side.
    assert!((last..=last + 2).contains(&first), "{last} here, {first} there");
    // It moves; the target has a storage daemon of its own over the same file.
    let Some(second) = Daemon::disk(restored.setup.dir.path(), "second", &disk, ",writable=on") else { return };
    restored.setup.config["disks"][0]["source"] = json!({"path": second.socket});
    let mut moved = target(&restored);
    restored.client().migrate(stream(&moved).as_raw_fd(), Terms::default()).unwrap();
    restored.ends_with(7);
    until("writes there", PATIENCE, || written(&moved.console()).len() > 50);
    let (here, there) = (written(&restored.console()), written(&moved.console()));
    let joined = [&here[..], &there[..]].concat();
    // The line that was being written has a half on each side.
    assert!(joined.windows(2).all(|pair| (pair[0]..=pair[0] + 2).contains(&pair[1])), "{joined:?}");
    assert_eq!(moved.client().status().unwrap().state, RunState::Running);
    drop((daemon, second));
}

#[test]
fn such_a_disk_is_plugged_where_memory_is_shared() {
    if !kvm_is_here() {
        return;
    }
    for shared in [false, true] {
        let mut setup = Setup::new("hotplug idle");
        setup.config["transport"] = json!("pci");
        setup.config["shared_memory"] = json!(shared);
        let path = setup.path("volume");
        std::fs::write(&path, vec![0x41; 1 << 20]).unwrap();
        let Some(daemon) = Daemon::disk(setup.dir.path(), "disk", &path, ",writable=on") else { return };
        let mut guest = setup.start();
        guest.expect("waiting for a disk");
        let mut client = guest.client();
        let add = Request::AddDisk {
            read_only: false,
            serial: String::new(),
            name: Some("volume".into()),
            export: None,
            vhost_user: true,
        };
        let answer = client.ask_with(&add, &[daemon.connect().as_raw_fd()]);
        if !shared {
            let Err(ClientError::Refused(reason)) = answer else { panic!("{answer:?}") };
            assert!(reason.contains("not shared"), "{reason}");
            continue;
        }
        assert_eq!(answer.unwrap(), Reply::Added { device: "volume".into() });
        guest.expect("let go of it");
        assert!(guest.console().contains("disk verified"), "{}", guest.console());
        client.done(&Request::Remove { device: "volume".into() }).unwrap();
        guest.expect("it is gone");
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes[512..520].iter().enumerate().all(|(n, byte)| usize::from(*byte) == n * 7));
        client.kill().unwrap();
        guest.ends_with(5);
    }
}

/// Open vSwitch with its own database in a folder; its bridge is the host's end.
struct Switch {
    folder: PathBuf,
    database: Child,
    switch: Option<Child>,
}

const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";

impl Switch {
    fn start(folder: &Path) -> Option<Switch> {
        for (file, package) in [(SWITCH, "openvswitch-switch-dpdk"), (POOLS, "librte-mempool-ring23")] {
            if !Path::new(file).exists() {
                eprintln!("SKIPPED: {file} is missing (package {package})");
                return None;
            }
        }
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        let made = Command::new("ovsdb-tool").arg("create").arg(folder.join("db")).arg(schema).status().unwrap();
        assert!(made.success());
        let database = Command::new("ovsdb-server")
            .arg(folder.join("db"))
            .arg(format!("--remote=punix:{}", folder.join("db.socket").display()))
            .arg(format!("--unixctl={}", folder.join("db.control").display()))
            .env("OVS_RUNDIR", folder)
            .env("OVS_LOGDIR", folder)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut switch = Switch { folder: folder.to_owned(), database, switch: None };
        until("the switch's database", PATIENCE, || folder.join("db.socket").exists());
        // No huge pages, no hardware, and a thread that sleeps when there is nothing to do.
        let extra = "other_config:dpdk-extra=--no-huge --legacy-mem --no-shconf --no-telemetry --no-pci -m 384";
        let rest = ["dpdk-init=true", "pmd-maxsleep=500", "per-port-memory=true"];
        let rest = rest.map(|setting| format!("other_config:{setting}"));
        switch.set(&["--no-wait", "set", "Open_vSwitch", ".", extra, &rest[0], &rest[1], &rest[2]]);
        switch.run();
        switch.set(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]);
        switch.set(&["add-port", "br0", "vhost0", "--", "set", "Interface", "vhost0", "type=dpdkvhostuser"]);
        Some(switch)
    }

    fn set(&self, words: &[&str]) {
        let database = format!("--db=unix:{}", self.folder.join("db.socket").display());
        let done = Command::new("ovs-vsctl").args([&database, "--timeout=60"]).args(words).status().unwrap();
        assert!(done.success(), "{words:?}");
    }

    /// Starts the switch, again where it was killed; its bridge gets the host's address.
    fn run(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let switch = Command::new(SWITCH)
            .arg(format!("unix:{}", self.folder.join("db.socket").display()))
            .arg(format!("--unixctl={}", self.folder.join("switch.control").display()))
            .arg(format!("--log-file={}", self.folder.join("switch.log").display()))
            .env("OVS_RUNDIR", &self.folder)
            .env("XDG_RUNTIME_DIR", &self.folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.switch = Some(switch);
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("vhost0")
    }

    fn wait(&self) {
        until("the card's socket", PATIENCE, || listens(&self.socket()));
        let ip = |words: &[&str]| Command::new("ip").args(words).stderr(Stdio::null()).status().unwrap().success();
        until("the bridge", PATIENCE, || ip(&["link", "set", "br0", "up"]));
        // There already, where the switch comes again.
        ip(&["address", "add", &format!("{HOST}/24"), "dev", "br0"]);
    }

    fn kill(&mut self) {
        if let Some(mut switch) = self.switch.take() {
            let _ = (switch.kill(), switch.wait());
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.kill();
        let _ = (self.database.kill(), self.database.wait());
    }
}
/// Where its packets lie is decided by a plug-in.
const POOLS: &str = "/usr/lib/x86_64-linux-gnu/librte_mempool_ring.so.23";

fn with_switch(setup: &mut Setup, switch: &Switch) {
    let mac = MAC.map(|b| format!("{b:02x}")).join(":");
    setup.config["nics"] = json!([{"tap": {"vhost_user": {"path": switch.socket()}}, "mac": mac}]);
}

#[test]
fn a_switch_serves_a_card_goes_away_and_comes_back() {
    if !kvm_is_here() {
        return;
    }
    in_own_network(|tap| {
        drop(tap);
        let folder = tempfile::tempdir().unwrap();
        let Some(mut switch) = Switch::start(folder.path()) else { return };
        switch.wait();
        for transport in ["mmio", "pci"] {
            let mut setup = Setup::new(&format!("net ip={GUEST}/24"));
            with_switch(&mut setup, &switch);
            setup.config["transport"] = json!(transport);
            setup.config["user"] = json!({"uid": 65534, "gid": 65534});
            let mut guest = setup.start();
            guest.expect("net address");
            eprintln!("{transport}: ping through the switch: {:?}", ping(GUEST, 1400, PATIENCE));
            let mut client = guest.client();
            client.pause().unwrap();
            client.resume().unwrap();
            ping(GUEST, 56, PATIENCE);
            if transport == "pci" {
                switch.kill();
                until("it to be missed", PATIENCE, || device(&mut client, "nic0").connected == Some(false));
                switch.run();
                switch.wait();
                let socket = UnixStream::connect(switch.socket()).unwrap();
                let again = Request::ReconnectDisk { device: "nic0".into() };
                assert_eq!(client.ask_with(&again, &[socket.as_raw_fd()]).unwrap(), Reply::Done);
                ping(GUEST, 56, PATIENCE);
                client.reset().unwrap();
                until("the next start", PATIENCE, || guest.console().matches("net address").count() == 2);
                ping(GUEST, 56, PATIENCE);
            }
            client.kill().unwrap();
            guest.ends_with(5);
        }
    });
}

#[test]
fn a_machine_on_a_switch_is_restored_and_moves() {
    if !kvm_is_here() {
        return;
    }
    in_own_network(|tap| {
        drop(tap);
        let folder = tempfile::tempdir().unwrap();
        let Some(switch) = Switch::start(folder.path()) else { return };
        switch.wait();
        let mut setup = Setup::new(&format!("net ip={GUEST}/24"));
        setup.config["transport"] = json!("pci");
        with_switch(&mut setup, &switch);
        let mut guest = setup.start();
        guest.expect("net address");
        ping(GUEST, 56, PATIENCE);
        let (state, memory) = snapshot::save(&mut guest);
        guest.client().kill().unwrap();
        guest.ends_with(5);
        let mut restored = snapshot::restored(&guest, &state, &memory, true).start();
        ping(GUEST, 1000, PATIENCE);
        // The target's card is another port of the switch.
        switch.set(&["add-port", "br0", "vhost1", "--", "set", "Interface", "vhost1", "type=dpdkvhostuser"]);
        let socket = switch.folder.join("vhost1");
        until("the other socket", PATIENCE, || listens(&socket));
        restored.setup.config["nics"][0]["tap"] = json!({"vhost_user": {"path": socket}});
        let mut moved = target(&restored);
        restored.client().migrate(stream(&moved).as_raw_fd(), Terms::default()).unwrap();
        restored.ends_with(7);
        ping(GUEST, 1000, PATIENCE + Duration::from_secs(10));
        moved.client().kill().unwrap();
        moved.ends_with(5);
    });
}
