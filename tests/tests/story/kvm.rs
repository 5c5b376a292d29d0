//! The `kvm` runtime through the whole cloud: guests of `pilvi-vmm`, one of them the freestanding guest of
//! `tests/guest` (a client of our devices that was not written with them), one a real Linux.
//!
//! ```text
//!  image (kernel_id, hw_pilvi_runtime=kvm, os_command_line) -> ACTIVE -> lease from netdev -> floating IP answers
//!    -> pause, unpause, reboots, stop, start, its own power off -> agent gone and back: same process -> deleted
//! ```
//! Where the host's KVM cannot run guests the stories say so and end.
use crate::world;
use pilvi_tests::{Api, Site, api::text, kernel, may_run, pause, until};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const READY: Duration = Duration::from_secs(60);
/// What the freestanding guest prints of the disk's first sector.
const MARK: &[u8] = b"PILVI-STORY";
/// Hides from Linux what an emulating KVM cannot do; harmless elsewhere.
const LINUX_WORDS: &str = "console=ttyS0 panic=-1 reboot=k nokaslr mitigations=off no_timer_check tsc=reliable \
    lpj=10000000 highres=off nohz=off rodata=off noxsave nosmap nosmep clearcpuid=cx16,popcnt,erms,fsrm,rep_good,rdrand,\
    rdseed,umip,smap,smep,fsgsbase,xsave,avx,invpcid,pcid,rdtscp,rdpid";
/// As few processes as can be: each costs a second of emulation.
const LINUX_INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
read line < /dev/vda && echo \"disk says $line\"
/bin/busybox ifconfig eth0 up
/bin/busybox udhcpc -i eth0 -q -n -t 20 -T 2 -s /bin/lease
/bin/busybox nc -l -p 7 -e /bin/busybox cat &
echo shell ready
exec /bin/busybox sh
";
const LINUX_LEASE: &str = "#!/bin/busybox sh
[ \"$1\" = bound ] || exit 0
/bin/busybox ifconfig eth0 $ip netmask $subnet
/bin/busybox route add default gw $router
echo lease $ip
";

/// False, with a line that says so, where there is no KVM at all.
pub fn kvm_is_here(story: &str) -> bool {
    let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
    if let Err(error) = &opened {
        println!("{story}: skipped: /dev/kvm: {error}");
    }
    opened.is_ok()
}

/// The freestanding guest's kernel file, built where it was not.
pub fn freestanding() -> Vec<u8> {
    let path = std::env::var_os("PILVI_TEST_GUEST").map_or_else(
        || {
            let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest");
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/build");
            let built = Command::new(script).arg(target).stderr(Stdio::inherit()).output().unwrap();
            assert!(built.status.success(), "the freestanding guest does not build");
            PathBuf::from(String::from_utf8(built.stdout).unwrap().trim_end())
        },
        PathBuf::from,
    );
    fs::read(path).unwrap()
}

/// What the host's agent found out about itself.
pub fn traits(admin: &Api) -> Vec<String> {
    until(30, "the host is a provider with traits", || {
        let providers = admin.get("/placement/resource_providers").ok()?;
        let id = providers["resource_providers"][0]["uuid"].as_str()?.to_owned();
        let found = admin.get(&format!("/placement/resource_providers/{id}/traits")).ok()?;
        let found: Vec<String> =
            found["traits"].as_array()?.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect();
        (!found.is_empty()).then_some(found)
    })
}

/// A cloud without the demo, on a host whose agent says that it runs guests on KVM.
struct Ground {
    site: Site,
    /// `None` only while it is being restarted.
    up: Option<pilvi_tests::Program>,
    admin: Api,
}

impl Ground {
    fn open(story: &str) -> Option<Self> {
        Self::open_by(&pilvi_tests::site::program_path(), story)
    }

    fn open_by(program: &Path, story: &str) -> Option<Self> {
        let site = Site::open(story).unwrap();
        let mut up = site.up_by(program, &["--no-demo"]).unwrap();
        up.wait_line("Ctrl-C stops", READY).unwrap();
        let admin = site.admin().unwrap();
        let found = traits(&admin);
        let has = |name: &str| found.iter().any(|t| t == name);
        if !has("CUSTOM_PILVI_RUNTIME_KVM") {
            println!("{story}: skipped: this host's KVM cannot run guests: {found:?}");
            up.interrupt(READY).unwrap();
            site.finish().unwrap();
            return None;
        }
        assert!(has("CUSTOM_PILVI_KVM_REAL") != has("CUSTOM_PILVI_KVM_EMULATED"), "{found:?}");
        println!("{story}: KVM is {}", if has("CUSTOM_PILVI_KVM_REAL") { "real" } else { "emulated" });
        Some(Ground { site, up: Some(up), admin })
    }

    /// An external network, a network behind a router to it, and a group that lets the stories' packets in.
    fn network(&self) -> Wires {
        let admin = &self.admin;
        let public = json!({"network": {"name": "public", "router:external": true,
            "provider:network_type": "flat", "provider:physical_network": "external"}});
        let public = text(&admin.post("/network/v2.0/networks", &public).unwrap()["network"], "id");
        let subnet = json!({"subnet": {"network_id": public, "ip_version": 4, "cidr": "203.0.113.0/24",
            "gateway_ip": "203.0.113.1", "enable_dhcp": false}});
        admin.post("/network/v2.0/subnets", &subnet).unwrap();
        let (network, subnet) = world::network(admin, "kvm", "10.45.0.0/24");
        let router = json!({"router": {"name": "kvm", "external_gateway_info": {"network_id": public}}});
        let router = text(&admin.post("/network/v2.0/routers", &router).unwrap()["router"], "id");
        let leg = json!({"subnet_id": subnet});
        admin.put(&format!("/network/v2.0/routers/{router}/add_router_interface"), &leg).unwrap();
        let group = json!({"security_group": {"name": "kvm"}});
        let group = text(&admin.post("/network/v2.0/security-groups", &group).unwrap()["security_group"], "id");
        for (protocol, port) in [("icmp", None), ("udp", Some(4242)), ("tcp", Some(7))] {
            let rule = json!({"security_group_rule": {"security_group_id": group, "direction": "ingress",
                "ethertype": "IPv4", "protocol": protocol, "port_range_min": port, "port_range_max": port}});
            admin.post("/network/v2.0/security-group-rules", &rule).unwrap();
        }
        Wires { public, network, group }
    }

    /// A server with a floating IP.
    fn server(&self, name: &str, image: &str, flavor: &str, wires: &Wires) -> Guest<'_> {
        let port = json!({"port": {"network_id": wires.network, "security_groups": [wires.group]}});
        let port = self.admin.post("/network/v2.0/ports", &port).unwrap()["port"].clone();
        let new = json!({"server": {"name": name, "imageRef": image, "flavorRef": flavor,
            "networks": [{"port": port["id"]}]}});
        let begin = Instant::now();
        let id = text(&self.admin.post("/compute/v2.1/servers", &new).unwrap()["server"], "id");
        world::wait_state(&self.admin, &id, "ACTIVE", 60);
        println!("{name}: ACTIVE after {:.1} s", begin.elapsed().as_secs_f64());
        let floating = json!({"floatingip": {"floating_network_id": wires.public, "port_id": port["id"]}});
        let floating = self.admin.post("/network/v2.0/floatingips", &floating).unwrap()["floatingip"].clone();
        Guest {
            ground: self,
            id,
            port: text(&port, "id"),
            fixed: text(&port["fixed_ips"][0], "ip_address"),
            floating: text(&floating, "floating_ip_address"),
            floating_id: text(&floating, "id"),
        }
    }

    fn refused(&self, name: &str, image: &str, wires: &Wires, why: &str) {
        let new = json!({"server": {"name": name, "imageRef": image, "flavorRef": "kvm-64",
            "networks": [{"uuid": wires.network}]}});
        let id = text(&self.admin.post("/compute/v2.1/servers", &new).unwrap()["server"], "id");
        let server = world::wait_state(&self.admin, &id, "ERROR", 90);
        let fault = text(&server["fault"], "message");
        assert!(fault.contains(why), "{name}: {fault}");
        self.admin.delete(&format!("/compute/v2.1/servers/{id}")).unwrap();
        world::wait_gone(&self.admin, &id, 60);
    }

    /// Ends the program, by Ctrl-C or as a crash does, and starts it anew.
    fn restart(&mut self, crash: bool) {
        let old = self.up.take().unwrap();
        if crash {
            old.kill().unwrap();
        } else {
            assert!(old.interrupt(Duration::from_secs(30)).unwrap().success());
        }
        let mut next = self.site.up(&["--no-demo"]).unwrap();
        next.wait_line("Ctrl-C stops", READY).unwrap();
        self.up = Some(next);
        self.admin = self.site.admin().unwrap();
    }

    /// Nothing of a server is on the host or in the books; then nothing of the cloud is.
    fn finish(mut self) {
        until(30, "no guest, tap, folder or claim is left", || {
            let taps: usize = kernel::namespaces(&self.site.prefix()).iter().map(|n| kernel::taps(n).len()).sum();
            let folders = kernel::files(&self.site.agent().join("instances")).len();
            let guests = kernel::guests(&self.site.agent()).len();
            (taps == 0 && folders == 0 && guests == 0 && world::claims(&self.admin) == 0).then_some(())
        });
        assert!(self.up.take().unwrap().interrupt(Duration::from_secs(30)).unwrap().success());
        self.site.finish().unwrap();
    }
}

struct Wires {
    public: String,
    network: String,
    group: String,
}

struct Guest<'g> {
    ground: &'g Ground,
    id: String,
    port: String,
    fixed: String,
    floating: String,
    floating_id: String,
}

impl Guest<'_> {
    fn act(&self, action: &Value) -> Value {
        let path = format!("/compute/v2.1/servers/{}/action", self.id);
        self.ground.admin.post(&path, action).unwrap()
    }

    fn wait(&self, state: &str) {
        world::wait_state(&self.ground.admin, &self.id, state, 60);
    }

    fn console(&self) -> String {
        text(&self.act(&json!({"os-getConsoleOutput": {}})), "output")
    }

    /// Waits until the console holds `word`.
    fn says(&self, word: &str, seconds: u64) -> String {
        until(seconds, &format!("the console says {word:?}"), || {
            let text = self.console();
            text.contains(word).then_some(text)
        })
    }

    fn edge(&self, command: &[&str]) -> bool {
        let namespace = format!("{}-edge", self.ground.site.prefix());
        let mut run = Command::new("ip");
        run.args(["netns", "exec", &namespace]).args(command).stdout(Stdio::null()).stderr(Stdio::null());
        run.status().unwrap().success()
    }

    fn pings(&self) -> bool {
        self.edge(&["ping", "-c", "1", "-W", "1", &self.floating])
    }

    fn answers(&self, seconds: u64) {
        until(seconds, &format!("{} answers ping", self.floating), || self.pings().then_some(()));
    }

    fn silent(&self) {
        assert!(!self.pings() && !self.pings(), "{} answers ping", self.floating);
    }

    /// The one process that runs it.
    fn process(&self) -> Option<u32> {
        let guests = kernel::guests(&self.ground.site.agent());
        let pids = guests.get(&self.id)?;
        assert_eq!(pids.len(), 1, "{guests:?}");
        Some(pids[0])
    }

    fn delete(self) {
        let admin = &self.ground.admin;
        admin.delete(&format!("/compute/v2.1/servers/{}", self.id)).unwrap();
        world::wait_gone(admin, &self.id, 60);
        admin.delete(&format!("/network/v2.0/floatingips/{}", self.floating_id)).unwrap();
        admin.delete(&format!("/network/v2.0/ports/{}", self.port)).unwrap();
    }
}

/// A disk whose first sector the guest recognises.
fn disk() -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    bytes[..MARK.len()].copy_from_slice(MARK);
    bytes[MARK.len()] = b'\n';
    bytes
}

#[test]
fn the_freestanding_guest_lives_its_life_under_kvm() {
    if !may_run("kvm") || !kvm_is_here("kvm") {
        return;
    }
    let Some(ground) = Ground::open("kvm") else { return };
    let admin = &ground.admin;
    world::flavor(admin, "kvm-64", 64);
    let wires = ground.network();
    let kernel = world::image(admin, "guest-kernel", "aki", freestanding(), &json!({}));
    let with = |words: &str| json!({"kernel_id": kernel, "hw_pilvi_runtime": "kvm", "os_command_line": words});
    let good = world::image(admin, "guest", "raw", disk(), &with("disk rng net acpi"));
    let hostile = world::image(admin, "hostile", "raw", disk(), &with("garbage net acpi"));

    let begin = Instant::now();
    let guest = ground.server("guest", &good, "kvm-64", &wires);
    let console = guest.says("net lease from", 30);
    println!("guest: lease on the console {:.1} s after the request", begin.elapsed().as_secs_f64());
    let sector = format!("disk sector0={}", String::from_utf8_lossy(MARK));
    for word in [sector.as_str(), "disk verified", "rng 16", &format!("net address {}/24", guest.fixed)] {
        assert!(console.contains(word), "no {word:?}:\n{console}");
    }
    guest.answers(30);
    let program = guest.process().unwrap();
    let line = kernel::processes(&ground.site.agent())[&program].clone();
    assert!(line.contains("vmm --config"), "it is not a VMM of ours: {line}");

    let neighbour = ground.server("hostile", &hostile, "kvm-64", &wires);
    neighbour.says("net lease from", 90);
    neighbour.answers(30);
    assert_eq!(guest.process(), Some(program), "nonsense in a neighbour's queues hurts nobody else");
    guest.answers(5);
    neighbour.delete();
    second_card(&guest);
    verbs(&guest);
    guest.delete();
    brings_only_its_disk(&ground, &wires);
    refusals(&ground, &wires);
    ground.finish();
}

/// A card comes into the running guest's machine and leaves it.
fn second_card(guest: &Guest<'_>) {
    let (admin, before) = (&guest.ground.admin, guest.process());
    let path = format!("/compute/v2.1/servers/{}/os-interface", guest.id);
    let (network, _) = world::network(admin, "second", "10.61.0.0/24");
    let added = admin.post(&path, &json!({"interfaceAttachment": {"net_id": network}})).unwrap();
    let port = text(&added["interfaceAttachment"], "port_id");
    let cards = || {
        let socket = guest.ground.site.agent().join("instances").join(&guest.id).join("vmm");
        let asked = Command::new(pilvi_tests::site::program_path())
            .args(["vmm", "ctl"])
            .arg(socket)
            .arg("status")
            .output()
            .unwrap();
        String::from_utf8_lossy(&asked.stdout).matches("\"nic.").count()
    };
    until(60, "the machine has a second card", || (cards() == 2).then_some(()));
    guest.answers(10);
    admin.delete(&format!("{path}/{port}")).unwrap();
    until(60, "the machine has one card again", || (cards() == 1).then_some(()));
    guest.answers(10);
    assert_eq!(guest.process(), before, "it is the same guest");
}

/// An image without a kernel beside it, as most are: the kernel is found on the disk.
fn brings_only_its_disk(ground: &Ground, wires: &Wires) {
    let folder = tempfile::tempdir().unwrap();
    let (content, disk) = (folder.path().join("content"), folder.path().join("disk"));
    fs::create_dir_all(content.join("boot/grub")).unwrap();
    fs::write(content.join("boot/vmlinuz"), freestanding()).unwrap();
    let menu = "menuentry 'guest' {\n  linux /boot/vmlinuz net acpi\n}\n";
    fs::write(content.join("boot/grub/grub.cfg"), menu).unwrap();
    fs::File::create(&disk).unwrap().set_len(16 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-d"]).arg(&content).arg(&disk).status();
    assert!(made.unwrap().success());
    let properties = json!({"hw_pilvi_runtime": "kvm"});
    let image = world::image(&ground.admin, "alone", "raw", fs::read(&disk).unwrap(), &properties);
    let guest = ground.server("alone", &image, "kvm-64", wires);
    guest.answers(60);
    guest.act(&json!({"reboot": {"type": "HARD"}}));
    guest.wait("ACTIVE");
    guest.answers(60);
    guest.delete();
}

/// Everything that a user does to a server.
fn verbs(guest: &Guest<'_>) {
    guest.act(&json!({"pause": null}));
    guest.wait("PAUSED");
    guest.silent();
    guest.act(&json!({"unpause": null}));
    guest.wait("ACTIVE");
    guest.answers(10);
    for kind in ["SOFT", "HARD"] {
        let before = guest.process();
        guest.act(&json!({"reboot": {"type": kind}}));
        until(60, &format!("reboot {kind}: a new process"), || guest.process().filter(|now| Some(*now) != before));
        guest.wait("ACTIVE");
        guest.answers(30);
    }
    guest.act(&json!({"os-stop": null}));
    guest.wait("SHUTOFF");
    assert_eq!(guest.process(), None, "a stopped server has no process");
    guest.silent();
    guest.act(&json!({"os-start": null}));
    guest.wait("ACTIVE");
    guest.answers(30);
    let poweroff = format!("printf poweroff >/dev/udp/{}/4242", guest.floating);
    until(60, "a server that powers itself off is SHUTOFF", || {
        guest.edge(&["bash", "-c", &poweroff]);
        let now = world::server(&guest.ground.admin, &guest.id)?;
        (now["status"] == "SHUTOFF").then_some(())
    });
    guest.act(&json!({"os-start": null}));
    guest.wait("ACTIVE");
    guest.answers(30);
}

/// What cannot run is told why.
fn refusals(ground: &Ground, wires: &Wires) {
    let admin = &ground.admin;
    let none = world::image(admin, "no-kernel", "raw", disk(), &json!({"hw_pilvi_runtime": "kvm"}));
    ground.refused("no-kernel", &none, wires, "needs an image with a kernel");
    let junk: Vec<u8> = (0..65_536_u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    let junk = world::image(admin, "junk-kernel", "aki", junk, &json!({}));
    let image =
        world::image(admin, "junk", "raw", disk(), &json!({"hw_pilvi_runtime": "kvm", "kernel_id": junk.as_str()}));
    ground.refused("junk-kernel", &image, wires, "kernel image is not usable");
}

#[test]
fn a_guest_under_kvm_outlives_the_programs() {
    if !may_run("kvm restart") || !kvm_is_here("kvm restart") {
        return;
    }
    let Some(mut ground) = Ground::open("kvm-restart") else { return };
    world::flavor(&ground.admin, "kvm-64", 64);
    let wires = ground.network();
    let kernel = world::image(&ground.admin, "guest-kernel", "aki", freestanding(), &json!({}));
    let properties = json!({"kernel_id": kernel, "hw_pilvi_runtime": "kvm", "os_command_line": "net acpi"});
    let image = world::image(&ground.admin, "guest", "raw", disk(), &properties);
    let guest = ground.server("guest", &image, "kvm-64", &wires);
    guest.answers(60);
    let (id, floating, program) = (guest.id.clone(), guest.floating.clone(), guest.process().unwrap());
    let (port, fixed, floating_id) = (guest.port.clone(), guest.fixed.clone(), guest.floating_id.clone());
    for crash in [false, true] {
        ground.restart(crash);
        let found = Guest {
            ground: &ground,
            id: id.clone(),
            port: port.clone(),
            fixed: fixed.clone(),
            floating: floating.clone(),
            floating_id: floating_id.clone(),
        };
        found.wait("ACTIVE");
        found.answers(30);
        pause(Duration::from_secs(1));
        assert_eq!(found.process(), Some(program), "the same process runs it (crash: {crash})");
    }
    let last = Guest { ground: &ground, id, port, fixed, floating, floating_id };
    // It is in the agent's hands again, not only alive.
    last.act(&json!({"os-stop": null}));
    last.wait("SHUTOFF");
    last.delete();
    ground.finish();
}

/// An initramfs with busybox; `None`, with a line that says so, where something is missing.
fn initramfs(folder: &Path) -> Option<Vec<u8>> {
    let tree = folder.join("initramfs");
    for name in ["bin", "dev", "proc"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    if fs::copy("/bin/busybox", tree.join("bin/busybox")).is_err() {
        println!("kvm linux: skipped: /bin/busybox is missing (package busybox-static)");
        return None;
    }
    for (name, content) in [("init", LINUX_INIT), ("bin/lease", LINUX_LEASE)] {
        fs::write(tree.join(name), content).unwrap();
        fs::set_permissions(tree.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    std::os::unix::fs::symlink("busybox", tree.join("bin/sh")).unwrap();
    let console = tree.join("dev/console");
    assert!(Command::new("mknod").arg(console).args(["c", "5", "1"]).status().unwrap().success());
    let mut cpio = Command::new("cpio");
    cpio.args(["--create", "--format=newc", "--quiet"]).current_dir(&tree);
    let mut cpio = cpio.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let names = b"bin\ndev\nproc\nbin/busybox\nbin/sh\nbin/lease\ndev/console\ninit\n";
    cpio.stdin.take().unwrap().write_all(names).unwrap();
    let made = cpio.wait_with_output().unwrap();
    assert!(made.status.success());
    Some(made.stdout)
}

/// The program is replaced under the guest, which an operator then has move: a TCP connection to it lives on.
fn moves_into_another_build(guest: &Guest<'_>, program: &Path) {
    let site = &guest.ground.site;
    let namespace = format!("{}-edge", site.prefix());
    let mut echo = Command::new("ip");
    echo.args(["netns", "exec", &namespace, "busybox", "nc", &guest.floating, "7"]);
    let mut echo = echo.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut there, back) = (echo.stdin.take().unwrap(), echo.stdout.take().unwrap());
    let (tell, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let lines = std::io::BufRead::lines(std::io::BufReader::new(back));
        lines.map_while(Result::ok).take_while(|line| tell.send(line.clone()).is_ok()).for_each(drop);
    });
    let mut says = |line: &str| {
        writeln!(there, "{line}").unwrap();
        assert_eq!(heard.recv_timeout(Duration::from_secs(120)).unwrap(), line);
    };
    says("before");
    let newer = program.with_extension("new");
    fs::copy(program, &newer).unwrap();
    fs::rename(&newer, program).unwrap();
    let (before, host) = (guest.process(), site.run("node", &["list"]).unwrap());
    let host = host.lines().nth(1).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let line = || {
        let guests = site.run("node", &["guests"]).unwrap();
        guests.lines().find(|line| line.contains(&guest.id)).map(str::to_owned)
    };
    let builds = |line: &str| line.matches("pilvi-vmm ").count();
    let told = until(90, "the operator is told of another build", || line().filter(|line| builds(line) == 2));
    assert_eq!(guest.process(), before, "nothing moves unasked: {told}");
    let asked = site.run("node", &["upgrade-guests", &host]).unwrap();
    assert!(asked.contains(&guest.id) && asked.contains("asked for"), "{asked}");
    until(120, "the guest is in the other build", || line().filter(|line| builds(line) == 1));
    assert_ne!(guest.process(), before);
    says("after");
    guest.answers(5);
    let asked = site.run("node", &["upgrade-guests", &host]).unwrap();
    assert!(asked.contains("no guest there"), "{asked}");
    echo.kill().unwrap();
    echo.wait().unwrap();
}

#[test]
fn linux_boots_under_kvm() {
    if !may_run("kvm linux") || !kvm_is_here("kvm linux") {
        return;
    }
    let Some(kernel) = std::env::var_os("PILVI_TEST_KERNEL") else {
        println!("kvm linux: skipped: PILVI_TEST_KERNEL names no kernel");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let Some(ramdisk) = initramfs(folder.path()) else { return };
    // A program of its own, so that another one can be put in its place.
    let program = folder.path().join("pilvi");
    fs::copy(pilvi_tests::site::program_path(), &program).unwrap();
    let Some(ground) = Ground::open_by(&program, "kvm-linux") else { return };
    let admin = &ground.admin;
    world::flavor(admin, "kvm-128", 128);
    let wires = ground.network();
    let kernel = world::image(admin, "linux-kernel", "aki", fs::read(kernel).unwrap(), &json!({}));
    let ramdisk = world::image(admin, "linux-ramdisk", "ari", ramdisk, &json!({}));
    let properties = json!({"kernel_id": kernel, "ramdisk_id": ramdisk, "hw_pilvi_runtime": "kvm",
        "os_command_line": LINUX_WORDS});
    let image = world::image(admin, "linux", "raw", disk(), &properties);
    let begin = Instant::now();
    let guest = ground.server("linux", &image, "kvm-128", &wires);
    let console = guest.says("shell ready", 240);
    println!("linux: shell on the console {:.1} s after the request", begin.elapsed().as_secs_f64());
    for word in [format!("disk says {}", String::from_utf8_lossy(MARK)), format!("lease {}", guest.fixed)] {
        assert!(console.contains(&word), "no {word:?}:\n{console}");
    }
    guest.answers(60);
    moves_into_another_build(&guest, &program);
    guest.act(&json!({"os-stop": null}));
    world::wait_state(admin, &guest.id, "SHUTOFF", 120);
    guest.delete();
    ground.finish();
}
