//! A user's tour with the real `openstack` client, and what the kernel and the claims say when it is over.
use crate::world;
use pilvi_tests::{Api, Site, kernel, may_run, until};
use std::time::Duration;

const READY: Duration = Duration::from_secs(300);
const USER: &str = "pilvi";
const ADMIN: &str = "pilvi-admin";

/// The state of the machine that a server adds to.
#[derive(Debug, PartialEq)]
struct Found {
    taps: usize,
    namespaces: Vec<String>,
    nft: Vec<String>,
    guests: usize,
    instances: usize,
    claims: u64,
}

fn look(site: &Site, admin: &Api) -> Found {
    let prefix = site.prefix();
    let namespaces = kernel::namespaces(&prefix);
    Found {
        taps: kernel::taps(&prefix).len(),
        nft: namespaces.iter().flat_map(|n| kernel::nft_tables(n)).collect(),
        namespaces,
        guests: kernel::guests(&site.agent()).len(),
        instances: kernel::files(&site.agent().join("instances")).len(),
        claims: world::claims(admin),
    }
}

#[test]
fn a_tour_with_the_client_leaves_nothing() {
    if !may_run("tour") {
        return;
    }
    let site = Site::open("tour").unwrap();
    let mut up = site.up(&[]).unwrap();
    up.wait_line("answered ssh", READY).unwrap();
    let admin = site.admin().unwrap();
    let before = look(&site, &admin);
    assert_eq!((before.taps, before.guests, before.instances), (1, 1, 1), "the demo server alone: {before:?}");

    images(&site);
    let address = networks_and_server(&site);
    life(&site, &address);
    deletion(&site);
    until(30, "the machine is as before the tour", || (look(&site, &admin) == before).then_some(()));

    site.openstack(USER, &["server", "delete", "--wait", "demo"]).unwrap();
    let empty = until(30, "no guest, tap or claim is left", || {
        let now = look(&site, &admin);
        (now.taps == 0 && now.guests == 0 && now.instances == 0 && now.claims == 0).then_some(now)
    });
    assert_eq!(empty.namespaces, before.namespaces, "the node's own namespaces, no others");
    let ports = site.openstack_json(ADMIN, &["port", "list", "--device-owner", "compute:nova"]).unwrap();
    assert_eq!(ports.as_array().unwrap().len(), 0, "{ports}");
    assert!(up.interrupt(Duration::from_secs(30)).unwrap().success());
    site.finish().unwrap();
}

fn images(site: &Site) {
    let raw = site.folder().join("small.raw");
    std::fs::write(&raw, vec![7_u8; 3 << 20]).unwrap();
    let qcow2 = site.folder().join("small.qcow2");
    let (raw, qcow2) = (raw.display().to_string(), qcow2.display().to_string());
    let made = std::process::Command::new("qemu-img").args(["convert", "-O", "qcow2", &raw, &qcow2]).status().unwrap();
    assert!(made.success());
    for (name, format, file) in [("small-raw", "raw", &raw), ("small-qcow2", "qcow2", &qcow2)] {
        let made = ["image", "create", "--disk-format", format, "--container-format", "bare", "--file", file, name];
        site.openstack(USER, &made).unwrap();
        let shown = site.openstack_json(USER, &["image", "show", name]).unwrap();
        assert_eq!((&shown["status"], &shown["disk_format"]), (&"active".into(), &format.into()), "{shown}");
    }
    let copy = site.folder().join("copy").display().to_string();
    site.openstack(USER, &["image", "save", "--file", &copy, "small-raw"]).unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(&raw).unwrap(), "what comes down is what went up");
    site.openstack(USER, &["image", "delete", "small-raw", "small-qcow2"]).unwrap();
}

fn networks_and_server(site: &Site) -> String {
    let key = site.state.join("demo-key.pub").display().to_string();
    let commands: &[&[&str]] = &[
        &["network", "create", "tour"],
        &["subnet", "create", "--network", "tour", "--subnet-range", "10.33.0.0/24", "tour"],
        &["router", "create", "tour"],
        &["router", "add", "subnet", "tour", "tour"],
        &["router", "set", "--external-gateway", "public", "tour"],
        &["security", "group", "create", "tour"],
        &["security", "group", "rule", "create", "--protocol", "icmp", "tour"],
        &["security", "group", "rule", "create", "--protocol", "tcp", "--dst-port", "22", "tour"],
        &["keypair", "create", "--public-key", &key, "tour"],
    ];
    for command in commands {
        site.openstack(USER, command).unwrap();
    }
    let new = ["server", "create", "--wait", "--image", "starter", "--flavor", "m1.tiny", "--network", "tour"];
    let with = ["--security-group", "tour", "--key-name", "tour", "tour"];
    let server = site.openstack_json(USER, &[&new[..], &with[..]].concat()).unwrap();
    assert_eq!(server["status"], "ACTIVE", "{server}");
    let address = site.openstack_json(USER, &["floating", "ip", "create", "public"]).unwrap();
    let address = address["floating_ip_address"].as_str().unwrap().to_owned();
    site.openstack(USER, &["server", "add", "floating", "ip", "tour", &address]).unwrap();
    assert_eq!(site.ssh(&address, "hostname", READY).unwrap().trim(), "tour");
    address
}

/// Stop, start, both reboots: the same server each time, and its disk keeps what was written.
fn life(site: &Site, address: &str) {
    let console = until(60, "a login prompt on the console", || {
        let text = site.openstack(USER, &["console", "log", "show", "tour"]).unwrap();
        text.contains("login:").then_some(text)
    });
    assert!(console.contains("tour"), "{console}");
    site.ssh(address, "echo kept > note && sync", READY).unwrap();
    let boots = |patience| site.ssh(address, "cat /proc/sys/kernel/random/boot_id", patience).unwrap();
    let mut last = boots(READY);
    let verbs: &[&[&str]] =
        &[&["server", "reboot", "--soft", "--wait", "tour"], &["server", "reboot", "--hard", "--wait", "tour"]];
    for verb in verbs {
        site.openstack(USER, verb).unwrap();
        last = until(120, "the guest booted anew", || {
            let now = site.ssh_once(address, "cat /proc/sys/kernel/random/boot_id").ok()?;
            let text = String::from_utf8_lossy(&now.stdout).into_owned();
            (now.status.success() && text != last).then_some(text)
        });
    }
    site.openstack(USER, &["server", "stop", "tour"]).unwrap();
    until(120, "the server is SHUTOFF", || {
        let shown = site.openstack_json(USER, &["server", "show", "tour"]).unwrap();
        (shown["status"] == "SHUTOFF").then_some(())
    });
    assert_eq!(kernel::guests(&site.agent()).len(), 1, "the stopped server has no process");
    site.openstack(USER, &["server", "start", "tour"]).unwrap();
    let note = site.ssh(address, "cat note", READY).unwrap();
    assert_eq!(note.trim(), "kept");
    let events = site.openstack_json(USER, &["server", "event", "list", "tour"]).unwrap();
    let mut names: Vec<&str> = events.as_array().unwrap().iter().filter_map(|e| e["Action"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["create", "reboot", "reboot", "start", "stop"], "{events}");
}

fn deletion(site: &Site) {
    let address = site.openstack_json(USER, &["floating", "ip", "list"]).unwrap();
    let tour = address
        .as_array()
        .unwrap()
        .iter()
        .filter(|a| a["Fixed IP Address"].as_str().is_some_and(|f| f.starts_with("10.33.")));
    let ids: Vec<String> = tour.map(|a| a["ID"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 1, "{address}");
    let commands: &[&[&str]] = &[
        &["server", "delete", "--wait", "tour"],
        &["floating", "ip", "delete", &ids[0]],
        &["router", "remove", "subnet", "tour", "tour"],
        &["router", "delete", "tour"],
        &["network", "delete", "tour"],
        &["security", "group", "delete", "tour"],
        &["keypair", "delete", "tour"],
    ];
    for command in commands {
        site.openstack(USER, command).unwrap();
    }
}
