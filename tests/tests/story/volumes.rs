//! Volumes with the real `openstack` client and real guests: what was written outlives servers, agents and copies.
use pilvi_tests::{Site, kernel, may_run, until};
use serde_json::Value;
use std::io::Read;
use std::time::Duration;

const READY: Duration = Duration::from_secs(300);
const USER: &str = "pilvi";

fn status(site: &Site, kind: &[&str], name: &str, wanted: &str) -> Value {
    until(120, &format!("{name} is {wanted}"), || {
        let shown = site.openstack_json(USER, &[kind, &["show", name]].concat()).unwrap();
        assert_ne!(shown["status"], "error", "{shown}");
        (shown["status"] == wanted).then_some(shown)
    })
}

fn do_all(site: &Site, commands: &[&[&str]]) {
    for command in commands {
        site.openstack(USER, command).unwrap();
    }
}

/// The block device of a volume in the guest: by its serial number, as udev rules find it.
fn device(site: &Site, address: &str, volume: &str) -> String {
    let serial = &volume[..20];
    let find = format!("grep -l {serial} /sys/block/vd*/serial | cut -d/ -f4");
    until(60, "the guest sees the volume", || {
        let found = site.ssh(address, &find, READY).unwrap().trim().to_owned();
        (!found.is_empty()).then(|| format!("/dev/{found}"))
    })
}

fn server(site: &Site, name: &str, address: &str) {
    let made = site
        .openstack_json(
            USER,
            &[
                "server",
                "create",
                "--wait",
                "--volume",
                "root",
                "--flavor",
                "m1.tiny",
                "--network",
                "demo",
                "--key-name",
                "demo",
                name,
            ],
        )
        .unwrap();
    assert_eq!(made["status"], "ACTIVE", "{made}");
    site.openstack(USER, &["server", "add", "floating", "ip", name, address]).unwrap();
}

#[test]
fn what_was_written_outlives_the_server() {
    if !may_run("volumes") {
        return;
    }
    let site = Site::open("volumes").unwrap();
    let mut up = site.up(&[]).unwrap();
    up.wait_line("answered ssh", READY).unwrap();
    let folder = site.agent().join("volumes");

    // A volume of an image, and a server that boots from it.
    do_all(
        &site,
        &[
            &["volume", "create", "--size", "2", "--image", "starter", "root"],
            &["volume", "create", "--size", "1", "data"],
        ],
    );
    let root = status(&site, &["volume"], "root", "available");
    assert_eq!(root["bootable"].to_string().to_lowercase().trim_matches('"'), "true", "{root}");
    let data = status(&site, &["volume"], "data", "available")["id"].as_str().unwrap().to_owned();
    let address = site.openstack_json(USER, &["floating", "ip", "create", "public"]).unwrap();
    let address = address["floating_ip_address"].as_str().unwrap().to_owned();
    server(&site, "first", &address);
    assert_eq!(site.ssh(&address, "echo kept > note && sync; hostname", READY).unwrap().trim(), "first");

    // A second one, plugged into the running guest; its snapshot has what was there then.
    site.openstack(USER, &["server", "add", "volume", "first", "data"]).unwrap();
    status(&site, &["volume"], "data", "in-use");
    let disk = device(&site, &address, &data);
    let write = |text: &str| format!("echo {text} | sudo dd of={disk} bs=512 count=1 conv=sync,fsync 2>/dev/null");
    site.ssh(&address, &write("before"), READY).unwrap();
    site.openstack(
        USER,
        &["--os-volume-api-version", "3.66", "volume", "snapshot", "create", "--volume", "data", "then"],
    )
    .unwrap();
    status(&site, &["volume", "snapshot"], "then", "available");
    site.ssh(&address, &write("after"), READY).unwrap();
    site.openstack(USER, &["volume", "create", "--snapshot", "then", "copy"]).unwrap();
    let copy = status(&site, &["volume"], "copy", "available")["id"].as_str().unwrap().to_owned();
    let head = |id: &str| {
        let mut bytes = [0; 6];
        std::fs::File::open(folder.join(id).join("data")).unwrap().read_exact(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    };
    assert_eq!((head(&copy).as_str(), head(&data).as_str()), ("before", "after"));

    // Unplugged from the running guest, which goes on.
    site.openstack(USER, &["server", "remove", "volume", "first", "data"]).unwrap();
    status(&site, &["volume"], "data", "available");
    assert_eq!(site.ssh(&address, &format!("test -e {disk}; echo $?"), READY).unwrap().trim(), "1");

    // The server goes, its disk stays, and another server goes on with it.
    site.openstack(USER, &["server", "delete", "--wait", "first"]).unwrap();
    status(&site, &["volume"], "root", "available");
    server(&site, "second", &address);
    assert_eq!(site.ssh(&address, "cat note", READY).unwrap().trim(), "kept");
    let image = site.openstack(USER, &["server", "image", "create", "--wait", "--name", "whole", "second"]);
    image.unwrap();
    let image = site.openstack_json(USER, &["image", "show", "whole"]).unwrap();
    assert_eq!((&image["status"], &image["size"]), (&"active".into(), &0.into()), "{image}");

    // Everything goes, and nothing of it is left on the host.
    do_all(
        &site,
        &[
            &["server", "delete", "--wait", "second"],
            &["image", "delete", "whole"],
            &["volume", "snapshot", "delete", "then"],
        ],
    );
    let snapshots = site.openstack_json(USER, &["volume", "snapshot", "list"]).unwrap();
    for snapshot in snapshots.as_array().unwrap() {
        let id = snapshot["ID"].as_str().unwrap();
        if snapshot["Name"] != "then" {
            site.openstack(USER, &["volume", "snapshot", "delete", id]).unwrap();
        }
    }
    until(60, "no snapshot is left", || {
        let left = site.openstack_json(USER, &["volume", "snapshot", "list"]).unwrap();
        left.as_array().unwrap().is_empty().then_some(())
    });
    do_all(&site, &[&["volume", "delete", "root", "data", "copy"]]);
    until(60, "no volume is left", || kernel::files(&folder).is_empty().then_some(()));
    let left = site.openstack_json(USER, &["volume", "list"]).unwrap();
    assert_eq!(left.as_array().unwrap().len(), 0, "{left}");
    assert!(up.interrupt(Duration::from_secs(30)).unwrap().success());
    site.finish().unwrap();
}
