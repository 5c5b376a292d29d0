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
    guest.expect("processor 2 went");
    guest.expect("processor 1 went");
    // The threads that are there still come to the gate.
    guest.client().pause().unwrap();
    guest.client().resume().unwrap();
    resize(&mut guest, 4).unwrap();
    until("all to run", PATIENCE, || times(&guest, "came, runs: true") == 5);
    assert_eq!(guest.client().status().unwrap().vcpus, 4);
    // A guest that will not is believed; what was asked for stays asked.
    guest.client().console_write(b"n").unwrap();
    guest.expect("none goes any more");
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

/// Asks for so much memory in all; why not, where it is refused.
fn resize_memory(guest: &mut Running, mib: u32) -> Result<(), String> {
    match guest.client().ask(&Request::ResizeMemory { mib }) {
        Ok(Reply::Memory { mib: there }) if there == u64::from(mib) => Ok(()),
        Err(ClientError::Refused(reason)) => Err(reason),
        other => panic!("{other:?}"),
    }
}

fn memory_of(guest: &mut Running) -> (u64, u32) {
    let status = guest.client().status().unwrap().memory_hotplug.unwrap();
    (status.plugged_mib, status.requested_mib)
}

/// The guest looks at its blocks.
fn looks(guest: &mut Running, text: &str) {
    guest.client().console_write(b"v").unwrap();
    guest.expect(text);
}

/// Resident memory of the process in KiB.
fn resident(guest: &Running) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", guest.child.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn memory_comes_and_goes_and_goes_over_with_the_machine() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("memory");
    setup.config["memory_hotplug"] = json!({"max_mib": 64, "requested_mib": 4});
    let mut guest = setup.start();
    guest.expect("memory of 0x4000000 in blocks of 0x200000");
    guest.expect("memory plugged 2: (0, 0), 0xffffffffffffffff became 0x0");
    assert!(resize_memory(&mut guest, 31).is_err() && resize_memory(&mut guest, 98).is_err());
    assert!(resize_memory(&mut guest, 33).unwrap_err().contains("in steps of 2"));
    resize_memory(&mut guest, 48).unwrap();
    assert_eq!(memory_of(&mut guest), (16, 16));
    looks(&mut guest, "memory holds 8 of 8 blocks, state (0, 0), beyond 0xffffffffffffffff");
    resize_memory(&mut guest, 42).unwrap();
    guest.expect("5 left: (0, 0), held: true, reads 0xffffffffffffffff");

    let (state, memory) = crate::snapshot::save(&mut guest);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&memory).unwrap());
    assert!(blocks * 512 < 16 << 20, "the image is not sparse");
    guest.client().kill().unwrap();
    guest.ends_with(5);
    let mut copy = crate::snapshot::restored(&guest, &state, &memory, true).start();
    until("its status", PATIENCE, || copy.client().status().is_ok_and(|status| status.memory_hotplug.is_some()));
    assert_eq!(memory_of(&mut copy), (10, 10));
    looks(&mut copy, "memory holds 5 of 5 blocks, state (0, 0), beyond 0xffffffffffffffff");
    resize_memory(&mut copy, 40).unwrap();
    resize_memory(&mut copy, 96).unwrap();

    let mut third = crate::migrate::target(&copy);
    copy.client().migrate(crate::migrate::stream(&third).as_raw_fd(), Terms::default()).unwrap();
    copy.ends_with(7);
    assert_eq!(memory_of(&mut third), (64, 64));
    resize_memory(&mut third, 94).unwrap();
    looks(&mut third, "memory holds 31 of 31 blocks, state (0, 0), beyond 0xffffffffffffffff");
    let before = resident(&third);
    resize_memory(&mut third, 32).unwrap();
    third.expect("memory unplugged, 0 left: (0, 0), held: true");
    eprintln!("resident before and after: {before} and {} KiB", resident(&third));
    // A machine that starts anew begins with none, and what was wanted is asked for again.
    resize_memory(&mut third, 36).unwrap();
    third.client().reset().unwrap();
    // The guest may have said of the four MiB before it began anew.
    until("the same in the new machine", PATIENCE, || {
        let console = third.console();
        let anew = console.split("PILVI-GUEST up").nth(1);
        anew.is_some_and(|said| said.contains("memory plugged 2: (0, 0), 0xffffffffffffffff became 0x0"))
    });
    third.client().console_write(b"q").unwrap();
    third.ends_with(0);

    let mut other = crate::snapshot::restored(&guest, &state, &memory, false);
    other.config["memory_hotplug"]["max_mib"] = json!(32);
    let mut other = other.start();
    other.ends_with(1);
    assert!(other.stderr().contains("64 MiB of memory that comes and goes"), "{}", other.stderr());
}

#[test]
fn a_machine_that_changes_its_memory_while_it_moves_has_it_there() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("memory");
    setup.config["memory_hotplug"] = json!({"max_mib": 256});
    let mut guest = setup.start();
    guest.expect("memory of");
    let mut third = crate::migrate::target(&guest);
    let mut client = guest.client();
    let stream = crate::migrate::stream(&third);
    let mover = std::thread::spawn(move || client.migrate(stream.as_raw_fd(), Terms::default()));
    // Refused or not, the device hears of it while pages go over or before.
    let _ = guest.client().ask(&Request::ResizeMemory { mib: 96 });
    mover.join().unwrap().unwrap();
    guest.ends_with(7);
    until("it to be there", PATIENCE, || resize_memory(&mut third, 128).is_ok());
    looks(&mut third, "memory holds 48 of 48 blocks");
}

#[test]
fn a_machine_of_huge_pages_and_one_node_runs_or_is_refused_plainly() {
    if !kvm_is_here() {
        return;
    }
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").unwrap_or_default();
    let enough = free.trim().parse().unwrap_or(0) >= 16;
    let mut setup = Setup::new("acpi idle");
    setup.config["hugetlb"] = json!(true);
    let mut guest = setup.start();
    if enough {
        guest.expect("idle");
        // Its pages are taken anew, in the jail.
        guest.client().reset().unwrap();
        until("another start", PATIENCE, || times(&guest, "PILVI-GUEST up") == 2);
        guest.client().kill().unwrap();
        guest.ends_with(5);
    } else {
        eprintln!("SKIPPED: a machine of huge pages: the host has not 16 of 2 MiB free (/proc/sys/vm/nr_hugepages)");
        guest.ends_with(1);
        assert!(guest.stderr().contains("not 16 free huge pages"), "{}", guest.stderr());
    }
    let on = |node: u16| {
        let mut setup = Setup::new("acpi idle");
        setup.config["host_node"] = json!(node);
        setup.start()
    };
    let mut guest = on(900);
    guest.ends_with(1);
    assert!(guest.stderr().contains("the host's node 900"), "{}", guest.stderr());
    if !std::path::Path::new("/sys/devices/system/node/node0").exists() {
        eprintln!("SKIPPED: memory of one node: this kernel has no NUMA");
        return;
    }
    let mut guest = on(0);
    guest.expect("idle");
    guest.client().reset().unwrap();
    until("another start", PATIENCE, || times(&guest, "PILVI-GUEST up") == 2);
    guest.client().kill().unwrap();
    guest.ends_with(5);
}
