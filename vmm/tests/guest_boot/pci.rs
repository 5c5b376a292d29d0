//! virtio devices on PCI, and disks that come and go while the machine runs.

use crate::rig::{PATIENCE, Setup, kvm_is_here, until};
use pilvi_vmm::control::{ClientError, Reply, Request};
use pilvi_vmm::state::RunState;
use serde_json::json;
use std::os::fd::AsRawFd;

#[test]
fn devices_work_on_pci_and_through_a_snapshot_and_a_reset() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("pci disk rng terminal");
    setup.with_disk(false);
    setup.config["transport"] = json!("pci");
    setup.config["virtio_console"] = json!(true);
    let mut guest = setup.start();
    guest.expect("terminal here");
    let console = guest.console();
    for line in
        ["pci 00:00.0 8086:1237", "pci 00:01.0 1af4:1042", "1af4:1044", "1af4:1043", "disk verified", "rng 16 ["]
    {
        assert!(console.contains(line), "{line:?} is not in:\n{console}");
    }
    let (state, memory) = crate::snapshot::save(&mut guest);
    guest.client().kill().unwrap();
    guest.ends_with(5);
    let mut copy = crate::snapshot::restored(&guest, &state, &memory, false).start();
    let mut client = copy.client();
    client.console_write(b"x").unwrap();
    copy.expect("<x>");
    client.reset().unwrap();
    copy.expect("terminal here");
    assert_eq!(client.console_write(b"q").unwrap(), 1);
    copy.ends_with(0);
}

#[test]
fn a_disk_comes_and_goes_while_the_machine_runs() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("hotplug idle");
    setup.config["transport"] = json!("pci");
    let path = setup.path("plugged");
    std::fs::write(&path, vec![0x41; 1 << 20]).unwrap();
    let mut guest = setup.start();
    guest.expect("waiting for a disk");
    let mut client = guest.client();
    let open = || std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let file = open();
    let add =
        Request::AddDisk { read_only: false, serial: "plugged".into(), name: None, export: None, vhost_user: false };
    let Reply::Added { device } = client.ask_with(&add, &[file.as_raw_fd()]).unwrap() else { panic!() };
    assert_eq!(device, "disk0");
    drop(file);
    guest.expect("let go of it");
    assert!(guest.console().contains("id=plugged") && guest.console().contains("disk verified"), "{}", guest.console());
    // One file is no second disk, and no file none.
    let Err(ClientError::Refused(reason)) = client.ask_with(&add, &[open().as_raw_fd()]) else { panic!() };
    assert!(reason.contains("another process"), "{reason}");
    assert!(matches!(client.ask(&add), Err(ClientError::Refused(_))));
    client.done(&Request::Remove { device: device.clone() }).unwrap();
    guest.expect("it is gone");
    assert!(client.done(&Request::Remove { device }).is_err());
    assert_eq!(client.status().unwrap().devices.len(), 1);
    // Pausing counts the workers that are left.
    client.pause().unwrap();
    assert_eq!(client.status().unwrap().state, RunState::Paused);
    client.resume().unwrap();
    // The file is free again.
    pilvi_vmm::virtio::block::file::claim(&open(), false).unwrap();
    until("the guest to listen", PATIENCE, || client.console_write(b"q").is_ok());
    guest.ends_with(0);
}

#[test]
fn a_guest_with_acpi_is_told_of_a_disk_and_asked_for_it() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("acpi hotplug idle");
    setup.config["transport"] = json!("pci");
    let path = setup.path("plugged");
    std::fs::write(&path, vec![0x41; 1 << 20]).unwrap();
    let mut guest = setup.start();
    guest.expect("waiting for a disk");
    let mut client = guest.client();
    let add =
        Request::AddDisk { read_only: false, serial: "plugged".into(), name: None, export: None, vhost_user: false };
    let open = || std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let added = client.ask_with(&add, &[open().as_raw_fd()]).unwrap();
    guest.expect("let go of it");
    assert!(guest.console().contains("came: 0x4") && guest.console().contains("disk verified"), "{}", guest.console());
    let Reply::Added { device } = added else { panic!() };
    let remove = Request::Remove { device };
    client.done(&remove).unwrap();
    guest.expect("it is gone");
    assert!(guest.console().contains("went: 0x4"), "{}", guest.console());
    assert!(client.status().unwrap().devices.iter().all(|device| device.name != "disk0"));
    // Nobody answers any more: the place is taken again, and not given back.
    client.ask_with(&add, &[open().as_raw_fd()]).unwrap();
    let Err(ClientError::Refused(reason)) = client.ask_with(&Request::Remove { device: "disk0".into() }, &[]) else {
        panic!()
    };
    assert!(reason.contains("ask again"), "{reason}");
    assert_eq!(client.status().unwrap().devices.len(), 2);
    assert_eq!(client.console_write(b"q").unwrap(), 1);
    guest.ends_with(0);
}

#[test]
fn a_machine_of_fixed_slots_takes_nothing() {
    if !kvm_is_here() {
        return;
    }
    let mut guest = Setup::new("spin").start();
    guest.expect("tick 1");
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let add = Request::AddDisk { read_only: true, serial: "x".into(), name: None, export: None, vhost_user: false };
    let Err(ClientError::Refused(reason)) = guest.client().ask_with(&add, &[file.as_raw_fd()]) else { panic!() };
    assert!(reason.contains("PCI"), "{reason}");
}
