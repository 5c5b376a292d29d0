//! Builds the image and boots it as a cloud would: by SeaBIOS and directly, with a config drive on a virtio disk and
//! on an IDE CD, with the metadata service in OpenStack's and in Amazon's form. Logs in by ssh with the injected key
//! and looks at what a user and Tempest look at.
//!
//! Without network, qemu, ssh or genisoimage the tests say what is missing and pass; with `PILVI_NO_SKIP=1` they
//! fail instead.

// The helpers of a test are a test too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod machine;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use machine::{Boot, Machine};
use pilvi_starter::{Built, Kind, Request};

fn skip(why: &str) -> bool {
    assert!(std::env::var_os("PILVI_NO_SKIP").is_none(), "PILVI_NO_SKIP is set, but {why}");
    eprintln!("SKIPPED: {why}");
    true
}

fn lacks(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap();
    let missing: Vec<_> =
        programs.iter().filter(|p| !std::env::split_paths(&path).any(|f| f.join(p).is_file())).collect();
    !missing.is_empty() && skip(&format!("these programs are not installed: {missing:?}"))
}

fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("starter")
}

/// One image for all tests of this file; none when packages cannot be fetched.
fn image() -> Option<&'static Built> {
    static IMAGE: OnceLock<Option<Built>> = OnceLock::new();
    let build = || {
        let missing = pilvi_starter::missing_packages();
        if !missing.is_empty() {
            skip(&format!("this is not a machine with apt: {missing:?}"));
            return None;
        }
        let request = Request {
            kind: Kind::Starter,
            out: scratch().join("image"),
            cache: scratch().join("cache"),
            progress: &|line| eprintln!("{line}"),
        };
        match pilvi_starter::build(&request) {
            Err(error @ pilvi_starter::Error::Fetch { .. }) => {
                skip(&error.to_string());
                None
            }
            other => Some(other.unwrap()),
        }
    };
    IMAGE.get_or_init(build).as_ref()
}

/// A folder with a fresh key pair and a disk of 1 GiB with the image at its start.
struct Site {
    folder: tempfile::TempDir,
    key: String,
}

impl Site {
    fn new(built: &Built) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(folder.path().join("key"))
            .status()
            .unwrap();
        assert!(made.success());
        let key = fs::read_to_string(folder.path().join("key.pub")).unwrap().trim().to_owned();
        let disk = folder.path().join("disk");
        fs::copy(&built.image, &disk).unwrap();
        OpenOptions::new().write(true).open(&disk).unwrap().set_len(1 << 30).unwrap();
        Site { folder, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// meta_data.json as Nova writes it.
    fn metadata(&self, id: &str, name: &str) -> String {
        format!(
            r#"{{"uuid": "{id}", "hostname": "{name}.novalocal", "name": "{name}", "launch_index": 0, "meta": {{"note": "a \"b\" {{c}}"}},
            "public_keys": {{"my.key": "{}\n"}}, "keys": [{{"name": "my.key", "type": "ssh", "data": "unused"}}], "admin_pass": "p|a/s&s \\ word"}}"#,
            self.key
        )
    }

    /// An ISO 9660 config drive.
    fn drive(&self, metadata: &str, user_data: &str) -> PathBuf {
        let folder = self.path("drive/openstack/latest");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("meta_data.json"), metadata).unwrap();
        fs::write(folder.join("user_data"), user_data).unwrap();
        let iso = self.path("drive.iso");
        let made = Command::new("genisoimage")
            .args(["-quiet", "-V", "config-2", "-J", "-R", "-o"])
            .arg(&iso)
            .arg(self.path("drive"))
            .status();
        assert!(made.unwrap().success());
        iso
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// What Tempest's ssh checks do, and a little more.
fn check_as_tempest_does(machine: &Machine) {
    assert!(machine.ssh("sudo -n id").starts_with("uid=0(root)"));
    assert!(machine.ssh("id").contains("uid=1000(cirros)"));
    let prologue = "set -eu -o pipefail; PATH=$PATH:/sbin:/usr/sbin; ";
    assert!(machine.ssh(&format!("{prologue}lsblk -lb --nodeps")).contains(&(1u64 << 30).to_string()));
    assert!(machine.ssh(&format!("{prologue}ip -o link | awk '/52:54:00/ {{print $2}}'")).contains("eth0"));
    assert!(machine.ssh("ip -o addr show dev eth0").contains("inet 10.0.2.15/24"));
    assert!(machine.ssh("ip route").contains("default via 10.0.2.2"));
    assert!(machine.ssh("cat /etc/resolv.conf").contains("nameserver 10.0.2.3"));
    assert!(machine.ssh("free -m | grep Mem").starts_with("Mem:"));
    machine.ssh("ping -c1 -w5 127.0.0.1");
    assert!(!machine.ssh_output("cat /etc/shadow").status.success(), "set-user-id BusyBox must give up its rights");
    assert_eq!(machine.ssh("sudo cat /var/run/udhcpc.eth0.pid | wc -w"), "1");
    machine.ssh("sudo mkfs -t ext4 -F /dev/vdc && sudo mount /dev/vdc /mnt && sudo sh -c 'date > /mnt/timestamp' && sudo umount /mnt");
    machine.ssh("sudo ip link add link eth0 name eth0.7 type vlan id 7 && sudo ip link del eth0.7");
    machine.ssh("echo 'put /etc/issue /tmp/by-sftp' > /dev/null; /usr/lib/sftp-server -h 2>&1 | grep -qi usage");
}

#[test]
fn a_server_with_a_config_drive_from_first_boot_to_power_button() {
    if lacks(&["qemu-system-x86_64", "ssh", "ssh-keygen", "genisoimage", "e2fsck"]) {
        return;
    }
    let Some(built) = image() else { return };
    let site = Site::new(built);
    let id = "11111111-2222-3333-4444-555555555555";
    let iso = site.drive(
        &site.metadata(id, "walnut"),
        "#!/bin/sh\necho user data as $(id -un)\necho ran >> /var/tmp/count\nexit 3\n",
    );
    let volume = site.path("volume");
    fs::File::create(&volume).unwrap().set_len(64 << 20).unwrap();
    let disk = |name: &str, file: &Path, more: &str| {
        vec![
            "-drive".into(),
            format!("if=none,id={name},format=raw,file={}{more}", file.display()),
            "-device".into(),
            format!("virtio-blk-pci,drive={name}"),
        ]
    };
    let more = [disk("drive", &iso, ",readonly=on"), disk("volume", &volume, "")].concat();
    let boot = Boot::Direct(&built.kernel, &built.initrd, pilvi_starter::COMMAND_LINE);
    let mut machine = Machine::start(site.folder.path(), &boot, "q35", &site.path("disk"), "", &more);
    assert!(machine.wait_for("network up", 60).contains("(eth0 10.0.2.15/24)"));
    machine.wait_for("data source: config drive", 60);
    machine.wait_for("ready in", 60);
    machine.wait_for("user data as root", 60);
    machine.wait_for("script ended with status 3", 60);

    check_as_tempest_does(&machine);
    assert_eq!(machine.ssh("hostname"), "walnut");
    // The file system grows behind the login prompt: wait for it in the guest.
    machine
        .ssh("for i in $(seq 50); do [ $(df -m / | awk 'END{print $2}') -gt 900 ] && exit 0; sleep 0.2; done; exit 1");
    assert_eq!(
        machine.ssh("sudo sed -n 's/^cirros:\\(...\\).*/\\1/p' /etc/shadow"),
        "$6$",
        "the password of the config drive is set"
    );
    let check = "sudo sh -c 'h=$(sed -n \"s/^cirros:\\([^:]*\\):.*/\\1/p\" /etc/shadow); printf \"%s\" \"p|a/s&s \\\\ word\" | mkpasswd -m sha512 -P 0 -S $(echo $h | cut -d\\$ -f3) | grep -qxF \"$h\"'";
    machine.ssh(check);
    machine.ssh("echo kept > ~/mine; sync");
    // The session may be cut before its end is told.
    let _ = machine.ssh_output("sudo reboot");
    machine.wait_for("ready in", 90);
    assert_eq!(
        machine.ssh("cat ~/mine; hostname; wc -l < /var/tmp/count"),
        "kept\nwalnut\n1",
        "state stays, user data does not run again"
    );

    machine.ssh("for i in $(seq 50); do pidof acpid >/dev/null && exit 0; sleep 0.2; done; exit 1");
    machine.qmp("\"execute\":\"system_powerdown\"");
    machine.wait_off(60);
    let root = site.path("root");
    let copied = Command::new("dd")
        .args(["bs=1M", "skip=23", "status=none"])
        .arg(format!("if={}", site.path("disk").display()))
        .arg(format!("of={}", root.display()))
        .status();
    assert!(copied.unwrap().success());
    let checked = Command::new("e2fsck").args(["-f", "-n"]).arg(&root).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        checked.status.success() && !said.contains("recovering journal"),
        "the power button leaves a clean disk: {said}"
    );
}

/// A metadata service: answers GET from a list of pairs, 404 for the rest.
fn serve(pages: Vec<(String, String)>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let path = lines.next().and_then(|l| l.split(' ').nth(1).map(str::to_owned)).unwrap_or_default();
            lines.find(String::is_empty);
            let (status, body) =
                pages.iter().find(|(p, _)| *p == path).map_or(("404 Not Found", ""), |(_, b)| ("200 OK", b));
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    port
}

/// QEMU's user network where 169.254.169.254 is a port of this machine.
fn metadata_network(port: u16) -> String {
    format!(
        "net=169.254.169.0/24,host=169.254.169.2,dhcpstart=169.254.169.15,guestfwd=tcp:169.254.169.254:80-cmd:busybox nc 127.0.0.1 {port}"
    )
}

#[test]
fn a_snapshot_becomes_another_server_through_the_metadata_service() {
    if lacks(&["qemu-system-x86_64", "ssh", "ssh-keygen", "busybox"]) {
        return;
    }
    let Some(built) = image() else { return };
    let site = Site::new(built);
    let config = "#cloud-config\nhostname: chestnut\npassword: 'four words'\nssh_authorized_keys:\n  - ssh-ed25519 AAAAextra second\nruncmd:\n  - echo one > /run/one # comment\n  - \"echo 'two' >> /run/one\"\nusers: [a]\n";
    let first = serve(vec![
        ("/openstack/latest/meta_data.json".into(), site.metadata("first", "walnut")),
        ("/openstack/latest/user_data".into(), config.into()),
    ]);
    let mut machine =
        Machine::start(site.folder.path(), &Boot::SeaBios, "pc", &site.path("disk"), &metadata_network(first), &[]);
    machine.wait_for("data source: metadata service", 90);
    machine.wait_for("users (this form of it) is not supported", 60);
    machine.wait_for("cloud-config done", 60);
    assert_eq!(machine.ssh("hostname; cat /run/one; wc -l < .ssh/authorized_keys"), "chestnut\none\ntwo\n2");
    assert!(machine.ssh_password("four words", "id -un"), "the password of cloud-config opens ssh");
    assert!(!machine.ssh_password("five words", "true"));
    let old_key = machine.ssh("sudo sha256sum /etc/dropbear/dropbear_ed25519_host_key");
    machine.ssh("for i in $(seq 50); do pidof acpid >/dev/null && exit 0; sleep 0.2; done; exit 1");
    machine.qmp("\"execute\":\"system_powerdown\"");
    machine.wait_off(60);

    // The same disk under another identifier, and the keys in Amazon's form only.
    fs::remove_file(site.path("known_hosts")).unwrap();
    let second = serve(vec![
        ("/2009-04-04/meta-data/instance-id".into(), "i-0002".into()),
        ("/2009-04-04/meta-data/hostname".into(), "hazel.ec2.internal".into()),
        ("/2009-04-04/meta-data/public-keys/".into(), "0=mine".into()),
        ("/2009-04-04/meta-data/public-keys/0/openssh-key".into(), site.key.clone()),
        ("/2009-04-04/user-data".into(), "#!/bin/sh\necho second instance\n".into()),
    ]);
    let mut machine =
        Machine::start(site.folder.path(), &Boot::SeaBios, "pc", &site.path("disk"), &metadata_network(second), &[]);
    machine.wait_for("data source: EC2 metadata service", 90);
    machine.wait_for("second instance", 60);
    assert_eq!(machine.ssh("hostname; wc -l < .ssh/authorized_keys"), "hazel\n1", "keys of the old owner are gone");
    assert!(!machine.ssh_password("four words", "true"), "and so is the password");
    assert_ne!(words(&machine.ssh("sudo sha256sum /etc/dropbear/dropbear_ed25519_host_key")), words(&old_key));
    machine.qmp("\"execute\":\"send-key\",\"arguments\":{\"keys\":[{\"type\":\"qcode\",\"data\":\"ctrl\"},{\"type\":\"qcode\",\"data\":\"alt\"},{\"type\":\"qcode\",\"data\":\"delete\"}]}");
    machine.wait_for("data source: EC2 metadata service", 90);
}

#[test]
fn a_config_drive_on_an_ide_cd_and_two_nics() {
    if lacks(&["qemu-system-x86_64", "ssh", "ssh-keygen", "genisoimage"]) {
        return;
    }
    let Some(built) = image() else { return };
    let site = Site::new(built);
    let iso = site.drive(&site.metadata("ide", "cedar"), "not a script\n");
    let more =
        ["-drive".to_owned(), format!("if=ide,media=cdrom,format=raw,readonly=on,file={}", iso.display())].into_iter();
    let second = ["-netdev", "user,id=second,net=10.9.0.0/24", "-device", "virtio-net-pci,netdev=second,romfile="]
        .map(str::to_owned);
    let more: Vec<String> = more.chain(second).collect();
    let mut machine = Machine::start(site.folder.path(), &Boot::SeaBios, "pc", &site.path("disk"), "", &more);
    assert!(machine.wait_for("network up", 90).contains("eth0 10.0.2.15/24 eth1 10.9.0.15/24"));
    machine.wait_for("data source: config drive", 60);
    machine.wait_for("neither #! nor #cloud-config", 60);
    assert_eq!(machine.ssh("hostname"), "cedar");
    let routes = machine.ssh("ip route | grep ^default | head -n 1");
    assert!(routes.contains("eth0"), "the first NIC has the default route: {routes}");

    let volume = site.path("volume");
    fs::File::create(&volume).unwrap().set_len(8 << 20).unwrap();
    machine.qmp(&format!(
        "\"execute\":\"blockdev-add\",\"arguments\":{{\"driver\":\"raw\",\"node-name\":\"v\",\"file\":{{\"driver\":\"file\",\"filename\":\"{}\"}}}}",
        volume.display()
    ));
    machine.qmp("\"execute\":\"device_add\",\"arguments\":{\"driver\":\"virtio-blk-pci\",\"drive\":\"v\",\"serial\":\"volume-1\"}");
    machine.qmp("\"execute\":\"device_add\",\"arguments\":{\"driver\":\"virtio-net-pci\",\"romfile\":\"\"}");
    machine
        .ssh("for i in $(seq 50); do [ -b /dev/vdb ] && [ -e /sys/class/net/eth2 ] && exit 0; sleep 0.2; done; exit 1");
    assert_eq!(machine.ssh("lsblk -dbno SIZE /dev/vdb; cat /sys/block/vdb/serial"), "8388608\nvolume-1");
}

#[test]
fn the_image_with_tools_has_them_and_takes_a_fixed_address() {
    if lacks(&["qemu-system-x86_64", "ssh", "ssh-keygen", "genisoimage"]) || image().is_none() {
        return;
    }
    let (out, cache) = (scratch().join("tools"), scratch().join("cache"));
    let request = Request { kind: Kind::Tools, out, cache, progress: &|line| eprintln!("{line}") };
    let built = pilvi_starter::build(&request).unwrap();
    assert_eq!(pilvi_starter::cached(Kind::Tools, &scratch().join("tools")).as_ref(), Some(&built));
    let site = Site::new(&built);
    let folder = site.path("drive/openstack/latest");
    fs::create_dir_all(&folder).unwrap();
    let networks = r#"{"links": [{"id": "tap0", "ethernet_mac_address": "52:54:00:12:34:56"}, {"id": "tap1", "ethernet_mac_address": "52:54:00:AA:00:01"}],
        "networks": [{"type": "ipv4_dhcp", "link": "tap0"}, {"type": "ipv4", "link": "tap1", "ip_address": "10.77.0.9", "netmask": "255.255.255.0",
        "routes": [{"network": "10.88.0.0", "netmask": "255.255.0.0", "gateway": "10.77.0.1"}]}]}"#;
    fs::write(folder.join("network_data.json"), networks).unwrap();
    let iso = site.drive(
        &site.metadata("tools", "maple"),
        "#!/bin/bash -x\nset -o pipefail; [[ $(id -u) = 0 ]] && echo by Bash\n",
    );
    // Nobody answers on the second network.
    let more = [
        "-drive".to_owned(),
        format!("if=none,id=drive,format=raw,readonly=on,file={}", iso.display()),
        "-device".to_owned(),
        "virtio-blk-pci,drive=drive".to_owned(),
        "-netdev".to_owned(),
        "hubport,id=second,hubid=0".to_owned(),
        "-device".to_owned(),
        "virtio-net-pci,netdev=second,romfile=,mac=52:54:00:aa:00:01".to_owned(),
    ];
    let boot = Boot::Direct(&built.kernel, &built.initrd, pilvi_starter::COMMAND_LINE);
    let mut machine = Machine::start(site.folder.path(), &boot, "q35", &site.path("disk"), "", &more);
    machine.wait_for("as the config drive says", 60);
    machine.wait_for("by Bash", 60);
    assert!(machine.ssh("ip -br -4 address show eth1").contains("10.77.0.9/24"));
    assert!(machine.ssh("ip route show 10.88.0.0/16").contains("via 10.77.0.1 dev eth1"));
    machine.ssh(
        "set -eu -o pipefail; python3 -c 'import socket, struct; socket.socket()'; curl -V; iperf3 -v; ss -V; PATH=$PATH:/sbin:/usr/sbin tc -V",
    );
    machine.ssh("ping -c1 -M do -s 1400 127.0.0.1; ping -6 -c1 ::1");
    // The real nc goes on listening; BusyBox's has no such option.
    machine.ssh("(nc -lk -p 7000 </dev/zero >/tmp/heard 2>/tmp/nc.log &); sleep 3; ss -ltn | grep -q :7000");
    for word in ["one", "two"] {
        machine.ssh(&format!("echo {word} | nc --send-only 127.0.0.1 7000; sleep 1; grep -x {word} /tmp/heard"));
    }
    machine.ssh("sudo sh -c 'tcpdump -i lo -c1 tcp port 9 >/tmp/seen 2>&1 & sleep 3; nping --tcp -p 9 --flags syn -c 1 127.0.0.1 >/dev/null; wait; grep \"1 packet captured\" /tmp/seen'");
    machine.ssh("sh -c 'echo out >/dev/stdout; cat <(echo in)'");
}

#[test]
fn equal_packages_give_equal_bits() {
    let Some(built) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    // Two at once, into different folders with one cache.
    let again = |name: &str| {
        let (out, cache) = (folder.path().join(name), scratch().join("cache"));
        let request = Request { kind: Kind::Starter, out, cache, progress: &|_| {} };
        pilvi_starter::build(&request).unwrap()
    };
    let (other, third) = std::thread::scope(|scope| {
        let third = scope.spawn(|| again("third"));
        (again("other"), third.join().unwrap())
    });
    assert_eq!(third.manifest, built.manifest);
    assert_eq!(other.manifest, built.manifest);
    assert!(pilvi_starter::verify(&other).unwrap());
    assert!(built.manifest.image.size <= 64 << 20);
    assert_eq!(pilvi_starter::cached(Kind::Starter, &folder.path().join("other")).as_ref(), Some(&other));
    let left: Vec<_> = fs::read_dir(folder.path().join("other")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "four files and the lock: {left:?}");
    OpenOptions::new().write(true).open(&other.kernel).unwrap().set_len(1000).unwrap();
    assert!(pilvi_starter::cached(Kind::Starter, &folder.path().join("other")).is_none());
}
