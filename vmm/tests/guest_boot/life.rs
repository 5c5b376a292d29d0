//! From start to end: devices work, and each way to end gives its exit code and report.

use crate::rig::{Setup, kvm_is_here};
use pilvi_vmm::state::StopReason;
use serde_json::json;
use std::time::Instant;

/// Where KVM gives features back that were hidden, the guest sees them all the same; that it runs and is restored shows
/// that KVM takes the tables, and that they are no more than what this host has.
#[test]
fn a_machine_of_a_baseline_processor_runs_and_is_restored() {
    if !kvm_is_here() {
        return;
    }
    for level in ["above_x86_64_v2", "above_x86_64_v3"] {
        let mut setup = Setup::new("disk idle");
        setup.with_disk(false);
        setup.config["cpu_mask"] = json!([level]);
        let mut guest = setup.start();
        guest.expect("idle");
        let (state, memory) = crate::snapshot::save(&mut guest);
        guest.client().kill().unwrap();
        guest.ends_with(5);
        let mut copy = crate::snapshot::restored(&guest, &state, &memory, false).start();
        assert_eq!(copy.client().console_write(b"q").unwrap(), 1);
        copy.ends_with(0);
    }
}

#[test]
fn a_disk_is_read_and_written_and_random_bytes_come() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("disk rng");
    let disk = setup.with_disk(false);
    let begin = Instant::now();
    let mut guest = setup.start();
    guest.expect("PILVI-GUEST up");
    eprintln!("exec to the guest's first line: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    guest.ends_with(0);
    let console = guest.console();
    for line in [
        "device 2 at 0xd0000000",
        "disk sectors=2048 readonly=false id=disk0",
        "disk sector0=FIRST-SECTOR",
        "disk verified",
        "disk end holds",
        "rng 16 [",
    ] {
        assert!(console.contains(line), "{line:?} is not in:\n{console}");
    }
    let bytes = std::fs::read(disk).unwrap();
    assert!((0..512).all(|n| bytes[512 + n] == (n * 7 % 256) as u8));
    assert_eq!((bytes.len(), &bytes[..12]), (1 << 20, &b"FIRST-SECTOR"[..]));
    assert_eq!(guest.report().reason, StopReason::PoweredOff);
}

#[test]
fn a_read_only_disk_stays_as_it_is_and_goes_by_descriptor() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("disk");
    let disk = setup.with_disk(true);
    let before = std::fs::read(&disk).unwrap();
    let fd = setup.inherit(std::fs::File::open(&disk).unwrap().into());
    setup.config["disks"] = json!([{"source": {"fd": fd}, "read_only": true, "serial": "the-serial"}]);
    let kernel = setup.inherit(std::fs::File::open(crate::rig::guest()).unwrap().into());
    setup.config["kernel"] = json!({"fd": kernel});
    // As nobody: nothing that the jail leaves needs root.
    setup.config["user"] = json!({"uid": 65534, "gid": 65534});
    let mut guest = setup.start();
    guest.ends_with(0);
    let console = guest.console();
    assert!(console.contains("readonly=true id=the-serial") && console.contains("disk write error"), "{console}");
    assert_eq!(std::fs::read(&disk).unwrap(), before);
}

#[test]
fn a_reset_restarts_the_machine_inside_the_process() {
    if !kvm_is_here() {
        return;
    }
    for way in ["reset", "triple"] {
        let mut setup = Setup::new(way);
        setup.with_disk(false);
        let mut guest = setup.start();
        guest.ends_with(0);
        let console = guest.console();
        assert!(console.contains("start number 1") && console.contains("start number 2"), "{console}");
        assert_eq!(guest.report().resets, 1);
    }
}

#[test]
fn each_end_has_its_exit_code() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("reset");
    setup.with_disk(false);
    setup.config["on_reset"] = json!("exit");
    setup.start().ends_with(3);

    let mut halted = Setup::new("halt").start();
    halted.ends_with(0);
    assert_eq!(halted.report().reason, StopReason::Halted);

    let mut failed = Setup::new("fail").start();
    failed.ends_with(4);
    assert!(matches!(failed.report().reason, StopReason::Crashed { detail } if detail.contains("33")));
}

#[test]
fn every_processor_of_the_mp_table_wakes_up() {
    if !kvm_is_here() {
        return;
    }
    for vcpus in [1, 2, 5] {
        let mut setup = Setup::new("smp");
        setup.config["vcpus"] = json!(vcpus);
        let mut guest = setup.start();
        guest.expect(&format!("smp {vcpus} of {vcpus}"));
        guest.ends_with(0);
    }
}

#[test]
fn idle_processors_of_a_larger_machine_do_not_count_as_halted() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("idle");
    setup.config["vcpus"] = json!(3);
    setup.config["memory_mib"] = json!(3200);
    let mut guest = setup.start();
    guest.expect("idle");
    crate::rig::rest(std::time::Duration::from_secs(4));
    assert!(guest.child.try_wait().unwrap().is_none(), "{}", guest.stderr());
    let status = guest.client().status().unwrap();
    assert_eq!((status.exits.len(), status.exits[1], status.memory_mib), (3, 0, 3200));
    guest.client().console_write(b"q").unwrap();
    guest.ends_with(0);
}

#[test]
fn a_disk_in_a_qcow2_image_is_read_and_written() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("disk");
    let (raw, image) = (setup.with_disk(false), setup.path("disk.qcow2"));
    let convert = |from: &str, to: &str, source: &std::path::Path, target: &std::path::Path| {
        std::process::Command::new("qemu-img").args(["convert", "-f", from, "-O", to]).arg(source).arg(target).status()
    };
    let Ok(made) = convert("raw", "qcow2", &raw, &image) else {
        eprintln!("SKIPPED: qemu-img is missing (package qemu-utils)");
        return;
    };
    assert!(made.success());
    setup.config["disks"] = json!([{"source": {"path": image}, "engine": "qcow2"}]);
    let mut guest = setup.start();
    guest.ends_with(0);
    let console = guest.console();
    for line in ["sectors=2048", "sector0=FIRST-SECTOR", "disk verified", "disk end holds"] {
        assert!(console.contains(line), "{line:?} is not in:\n{console}");
    }
    // What the guest wrote is there for an independent reader.
    let again = guest.setup.path("again.raw");
    assert!(convert("qcow2", "raw", &image, &again).unwrap().success());
    assert!(std::fs::read(again).unwrap() != std::fs::read(raw).unwrap());
    let mut wrong = Setup::new("disk");
    wrong.with_disk(false);
    wrong.config["disks"][0]["engine"] = json!("qcow2");
    let mut wrong = wrong.start();
    wrong.ends_with(1);
    assert!(wrong.stderr().contains("no qcow2 image"), "{}", wrong.stderr());
}
