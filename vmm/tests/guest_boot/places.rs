//! Devices keep their places on the bus when their machine moves or is restored, whatever came and went before.

use crate::migrate::{numbers, stream, written};
use crate::rig::{PATIENCE, Running, Setup, kvm_is_here, until};
use pilvi_vmm::control::Request;
use pilvi_vmm::migrate::Terms;
use serde_json::json;
use std::os::fd::AsRawFd;

/// The disks of a machine in this order of their names, each a file of its own in the folder of `setup`.
fn named_disks(setup: &mut Setup, names: &[&str]) {
    let disk = |name: &&str| {
        let path = setup.path(&format!("{name}.raw"));
        std::fs::write(&path, vec![0xee; 1 << 20]).unwrap();
        json!({"source": {"path": path}, "name": name})
    };
    setup.config["disks"] = names.iter().map(disk).collect();
}

fn numbers_of(guest: &mut Running) -> Vec<(String, Option<u8>)> {
    let status = guest.client().status().unwrap();
    let mut found: Vec<_> = status.devices.into_iter().map(|device| (device.name, device.number)).collect();
    found.sort();
    found
}

/// The target names its disks in another order, and where they are on the bus only the source can say.
#[test]
fn a_machine_whose_devices_came_and_went_moves_and_is_restored_with_each_in_its_place() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("scribble");
    setup.config["transport"] = json!("pci");
    named_disks(&mut setup, &["root"]);
    let mut guest = setup.start();
    until("enough writes", PATIENCE, || written(&guest.console()).len() > 50);
    let mut client = guest.client();
    for name in ["brief", "data"] {
        let path = guest.setup.path(name);
        std::fs::write(&path, vec![name.as_bytes()[0]; 1 << 20]).unwrap();
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let add = Request::AddDisk {
            read_only: false,
            serial: name.into(),
            name: Some(name.into()),
            export: None,
            vhost_user: false,
        };
        client.ask_with(&add, &[file.as_raw_fd()]).unwrap();
        // A name is given once.
        assert!(client.ask_with(&add, &[file.as_raw_fd()]).is_err());
    }
    client.done(&Request::Remove { device: "brief".into() }).unwrap();
    let here = numbers_of(&mut guest);
    assert_eq!(here, [("data".into(), Some(4)), ("rng".into(), Some(2)), ("root".into(), Some(1))]);

    let arrive = |names: &[&str]| {
        let mut target = Setup::new("scribble");
        target.config["transport"] = json!("pci");
        named_disks(&mut target, names);
        target
    };
    let mut target = arrive(&["data", "root"]);
    let path = target.path("incoming");
    target.config["incoming"] = json!({"path": path});
    let mut target = target.start();
    until("the target to listen", PATIENCE, || path.exists());
    client.migrate_with_disks(stream(&target).as_raw_fd(), Terms::default()).unwrap();
    guest.ends_with(7);
    until("writes there", PATIENCE, || written(&target.console()).len() > 50);
    assert_eq!(numbers_of(&mut target), here);
    assert!(std::fs::read(target.setup.path("data.raw")).unwrap().iter().all(|byte| *byte == b'd'));
    assert!(numbers(&target.setup.path("root.raw")).iter().max().unwrap() > &50);

    let (state, memory) = crate::snapshot::save(&mut target);
    let mut next = arrive(&["root", "data"]);
    next.config["restore"] = json!({"state": {"path": state}, "memory": {"path": memory}});
    let mut next = next.start();
    until("writes after the restore", PATIENCE, || written(&next.console()).len() > 50);
    assert_eq!(numbers_of(&mut next), here);
    // One that does not have the same devices is another machine.
    let mut other = arrive(&["root", "other"]);
    other.config["restore"] = json!({"state": {"path": state}, "memory": {"path": memory}});
    let mut other = other.start();
    other.ends_with(1);
    assert!(other.stderr().contains("it had no other"), "{}", other.stderr());
}
