//! Processors that come and go while the machine runs, with a guest that does what control methods would do.

use crate::rig::{PATIENCE, Running, Setup, kvm_is_here, until};
use pilvi_vmm::control::{ClientError, Reply, Request};
use pilvi_vmm::migrate::Terms;
use serde_json::json;
use std::os::fd::AsRawFd;

/// Asks for so many processors; why not, where it is refused.
fn resize(guest: &mut Running, count: u16) -> Result<(), String> {
    match guest.client().ask(&Request::ResizeVcpus { count }) {
        Ok(Reply::Processors { there }) if there == count => Ok(()),
        Err(ClientError::Refused(reason)) => Err(reason),
        other => panic!("{other:?}"),
    }
}

fn times(guest: &Running, text: &str) -> usize {
    guest.console().matches(text).count()
}

fn growing() -> Option<Running> {
    if !kvm_is_here() {
        return None;
    }
    let mut setup = Setup::new("acpi grow");
    (setup.config["vcpus"], setup.config["max_vcpus"]) = (json!(1), json!(4));
    let mut guest = setup.start();
    guest.expect("waiting for processors");
    assert!(guest.console().contains("acpi processors=4"), "{}", guest.console());
    Some(guest)
}

#[test]
fn processors_come_run_and_go_and_come_again() {
    let Some(mut guest) = growing() else { return };
    assert!(resize(&mut guest, 0).is_err() && resize(&mut guest, 5).is_err());
    resize(&mut guest, 3).unwrap();
    until("both to run", PATIENCE, || times(&guest, "came, runs: true") == 2);
    let status = guest.client().status().unwrap();
    assert_eq!((status.vcpus, status.wanted_vcpus, status.max_vcpus, status.exits.len()), (3, 3, 4, 3));
    resize(&mut guest, 1).unwrap();
    assert!(times(&guest, "processor 2 went") == 1 && times(&guest, "processor 1 went") == 1, "{}", guest.console());
    // The threads that are there still come to the gate.
    guest.client().pause().unwrap();
    guest.client().resume().unwrap();
    resize(&mut guest, 4).unwrap();
    until("all to run", PATIENCE, || times(&guest, "came, runs: true") == 5);
    assert_eq!(guest.client().status().unwrap().vcpus, 4);
    // A guest that will not is believed; what was asked for stays asked.
    guest.client().console_write(b"n").unwrap();
    let reason = resize(&mut guest, 3).unwrap_err();
    assert!(reason.contains("will not let go") && reason.contains("4 are there, 3 are wanted"), "{reason}");
    assert_eq!(guest.client().status().unwrap().wanted_vcpus, 3);
    // A machine that starts anew has what was wanted.
    guest.client().reset().unwrap();
    until("another start", PATIENCE, || times(&guest, "waiting for processors") == 2);
    assert_eq!(guest.client().status().unwrap().vcpus, 3);
    until("the guest to listen", PATIENCE, || resize(&mut guest, 1).is_ok());
    guest.client().console_write(b"q").unwrap();
    guest.ends_with(0);
}

#[test]
fn a_machine_that_grew_is_restored_and_moves_with_what_is_there() {
    let Some(mut guest) = growing() else { return };
    resize(&mut guest, 3).unwrap();
    resize(&mut guest, 2).unwrap();
    let (state, memory) = crate::snapshot::save(&mut guest);
    guest.client().kill().unwrap();
    guest.ends_with(5);
    let mut copy = crate::snapshot::restored(&guest, &state, &memory, true).start();
    until("its status", PATIENCE, || copy.client().status().is_ok_and(|status| status.vcpus == 2));
    resize(&mut copy, 4).unwrap();
    until("two to run", PATIENCE, || times(&copy, "came, runs: true") == 2);
    resize(&mut copy, 3).unwrap();

    copy.setup.config.as_object_mut().unwrap().remove("restore");
    let mut third = crate::migrate::target(&copy);
    copy.client().migrate(crate::migrate::stream(&third).as_raw_fd(), Terms::default()).unwrap();
    copy.ends_with(7);
    let status = third.client().status().unwrap();
    assert_eq!((status.vcpus, status.wanted_vcpus, status.exits.len()), (3, 3, 4));
    resize(&mut third, 4).unwrap();
    until("one to run", PATIENCE, || times(&third, "processor 3 came, runs: true") == 1);
    resize(&mut third, 1).unwrap();
    // Another machine is another machine.
    let mut other = crate::snapshot::restored(&guest, &state, &memory, false);
    other.config["max_vcpus"] = json!(8);
    let mut other = other.start();
    other.ends_with(1);
    assert!(other.stderr().contains("it had 4 processors at most"), "{}", other.stderr());
}

#[test]
fn what_cannot_grow_says_so() {
    if !kvm_is_here() {
        return;
    }
    let mut guest = Setup::new("spin").start();
    guest.expect("tick 1");
    assert!(resize(&mut guest, 2).unwrap_err().contains("max_vcpus"));
    let mut setup = Setup::new("spin");
    setup.config["max_vcpus"] = json!(254);
    let mut guest = setup.start();
    guest.expect("tick 1");
    assert!(resize(&mut guest, 2).unwrap_err().contains("ACPI"));
    assert_eq!(guest.client().status().unwrap().max_vcpus, 254);
}

#[test]
fn a_machine_of_254_processors_starts_and_each_runs() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("smp spin");
    setup.config["vcpus"] = json!(254);
    let mut guest = setup.start();
    guest.expect("tick 1");
    assert!(guest.console().contains("smp 254 of 254"), "{}", guest.console());
    guest.client().kill().unwrap();
    guest.ends_with(5);
}
