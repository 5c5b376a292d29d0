//! Guests, clients and configurations that misbehave.

use crate::rig::{PATIENCE, Setup, kvm_is_here, rest, until};
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

#[test]
fn garbage_in_every_virtqueue_is_counted_and_the_devices_work_afterwards() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("garbage idle");
    let disk = setup.with_disk(false);
    setup.config["disks"][0]["queues"] = json!(3);
    setup.config["virtio_console"] = json!(true);
    setup.config["vsock"] = json!({"cid": 3, "socket": {"path": setup.path("vsock")}});
    let mut guest = setup.start();
    guest.expect("idle");
    let console = guest.console();
    assert!(console.contains("garbage done") && console.contains("disk verified"), "{console}");
    let status = guest.client().status().unwrap();
    let (block, rng) = (&status.devices[0].counters, &status.devices[1].counters);
    assert!(block.bad_chains > 10 && block.needs_reset > 0 && block.bad_accesses > 10, "{block:?}");
    assert!(rng.bad_chains + rng.needs_reset > 0, "{rng:?}");
    for device in &status.devices[2..] {
        let counters = &device.counters;
        assert!(counters.bad_chains + counters.needs_reset + counters.errors > 0, "{device:?}");
    }
    assert_eq!(status.devices.len(), 4);
    assert_eq!(std::fs::metadata(&disk).unwrap().len(), 1 << 20);
    guest.client().console_write(b"q").unwrap();
    guest.ends_with(0);
    assert!(!guest.stderr().contains("panicked"), "{}", guest.stderr());
}

#[test]
fn a_guest_that_gives_its_own_memory_away_hurts_only_itself() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("garbage");
    setup.with_disk(false);
    setup.config["balloon"] = json!({});
    setup.config["on_reset"] = json!("exit");
    let mut guest = setup.start();
    let code = guest.wait().code();
    // It lost its own code, or its tables, or nothing that it needed.
    assert!(matches!(code, Some(0 | 3 | 4)), "{code:?} {}", guest.stderr());
    assert!(!guest.stderr().contains("panicked"), "{}", guest.stderr());
}

#[test]
fn a_killed_process_leaves_nothing_that_hinders_the_next() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("idle");
    setup.with_disk(false);
    let config = setup.config.clone();
    let mut guest = setup.start();
    guest.expect("idle");
    guest.child.kill().unwrap();
    assert_eq!(guest.wait().signal(), Some(libc::SIGKILL));
    let mut next = Setup::new("");
    next.config = config;
    next.config["report"] = json!({"path": next.path("report")});
    next.config["console"]["log"] = json!({"path": next.path("console.log")});
    let mut next = next.start();
    next.expect("idle");
    drop(guest);
}

#[test]
fn two_machines_never_share_a_disk_that_one_writes() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("idle");
    let disk = setup.with_disk(false);
    let mut first = setup.start();
    first.expect("idle");
    let mut second = Setup::new("idle");
    second.config["disks"] = json!([{"source": {"path": disk}, "read_only": true}]);
    let mut second = second.start();
    second.ends_with(1);
    assert!(second.stderr().contains("another process uses this disk"), "{}", second.stderr());
}

#[test]
fn bad_configurations_say_what_is_wrong() {
    let refused = |code: i32, word: &str, change: &dyn Fn(&mut Setup)| {
        let mut setup = Setup::new("idle");
        change(&mut setup);
        let mut guest = setup.start();
        guest.ends_with(code);
        assert!(guest.stderr().contains(word), "{word:?} is not in {}", guest.stderr());
    };
    refused(2, "vcpus", &|s| s.config["vcpus"] = json!(0));
    refused(2, "unknown field `colour`", &|s| s.config["colour"] = json!("red"));
    refused(2, "malformed", &|s| s.config["memory_mib"] = json!("many"));
    if !kvm_is_here() {
        return;
    }
    refused(1, "open the kernel", &|s| s.config["kernel"] = json!({"path": "/nonexistent"}));
    refused(1, "not an inherited file", &|s| s.config["kernel"] = json!({"fd": 999}));
    refused(1, "kernel image is not usable", &|s| {
        std::fs::write(s.path("k"), vec![0x7f; 4096]).unwrap();
        s.config["kernel"] = json!({"path": s.path("k")});
    });
    refused(1, "does not fit", &|s| {
        std::fs::File::create(s.path("i")).unwrap().set_len(1 << 30).unwrap();
        s.config["initramfs"] = json!({"path": s.path("i")});
    });
    refused(1, "the tap of nic0", &|s| {
        std::fs::write(s.path("t"), b"").unwrap();
        let fd = s.inherit(std::fs::File::open(s.path("t")).unwrap().into());
        s.config["nics"] = json!([{"tap": {"fd": fd}, "mac": "02:00:00:00:00:01"}]);
    });
    refused(1, "disk0", &|s| s.config["disks"] = json!([{"source": {"path": "/dev/null"}}]));
}

#[test]
fn clients_that_misbehave_hurt_only_themselves() {
    if !kvm_is_here() {
        return;
    }
    let mut guest = Setup::new("spin").start();
    guest.expect("tick 1");
    let path = guest.setup.path("control");
    let mut rubbish = UnixStream::connect(&path).unwrap();
    rubbish.set_read_timeout(Some(PATIENCE)).unwrap();
    rubbish.write_all(b"\x00\xff{{{\n{\"op\":\"explode\"}\n").unwrap();
    let mut answer = [0; 512];
    let count = rubbish.read(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer[..count]).contains("refused"));
    // An endless line, a console that nobody reads, and more connections than there are places.
    let mut endless = UnixStream::connect(&path).unwrap();
    until("the endless line to be cut off", PATIENCE, || endless.write_all(&[b'x'; 4096]).is_err());
    let deaf = pilvi_vmm::control::Client::connect(&path).unwrap().console_attach().unwrap();
    let crowd: Vec<_> = (0..40).map(|_| UnixStream::connect(&path)).collect();
    rest(Duration::from_millis(300));
    drop(crowd);
    let mut client = guest.client();
    until("a place for an honest client", PATIENCE, || {
        client = guest.client();
        client.status().is_ok()
    });
    let before = client.status().unwrap().console.bytes;
    until("more ticks", PATIENCE, || client.status().unwrap().console.bytes > before);
    drop(deaf);
    client.kill().unwrap();
    guest.ends_with(5);
}

#[test]
fn the_jail_holds_what_it_promises() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("idle");
    setup.config["user"] = json!({"uid": 65534, "gid": 65534});
    let mut guest = setup.start();
    guest.expect("idle");
    let pid = guest.child.id();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut threads = 0;
    for task in tasks.map(|t| t.unwrap().path()) {
        let status = std::fs::read_to_string(task.join("status")).unwrap();
        // KVM may add a kernel thread of its own to the process; it has no user mode to confine.
        if status.contains("Name:\tkvm-") {
            continue;
        }
        threads += 1;
        for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"] {
            assert!(status.contains(line), "{line:?} is not in {status}");
        }
        assert!(status.contains("Uid:\t65534\t65534\t65534\t65534") && status.contains("Groups:\t \n"), "{status}");
    }
    assert_eq!(threads, 3, "monitor, processor, one worker");
    let root: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/root/")).map(Iterator::collect).unwrap_or_default();
    assert!(root.is_empty(), "{root:?}");
    for space in ["mnt", "net", "ipc", "uts"] {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{space}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{space}");
    }
}
