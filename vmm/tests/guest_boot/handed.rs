//! A machine moves into another process of this host with its memory as it is: an upgrade in place.

use crate::migrate::{goes_on, rounds, stream, target};
use crate::rig::{PATIENCE, Setup, kvm_is_here, until};
use crate::snapshot::{restored, save};
use pilvi_vmm::control::ClientError;
use pilvi_vmm::memory;
use pilvi_vmm::migrate::Terms;
use pilvi_vmm::migrate::wire::{Kind, greeting};
use pilvi_vmm::state::{RunState, StopReason};
use serde_json::json;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

fn shared(cmdline: &str, mib: u32) -> Setup {
    let mut setup = Setup::new(cmdline);
    setup.config["shared_memory"] = json!(true);
    setup.config["memory_mib"] = json!(mib);
    setup
}

#[test]
fn a_machine_goes_on_in_a_newer_process_with_its_memory_uncopied() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = shared("disk dirty", 256);
    setup.with_disk(false);
    let mut guest = setup.start();
    guest.expect("round 2");
    // The disk lies in the first one's folder.
    let mut before = Vec::new();
    for by_hand in [false, true] {
        let mut next = target(&guest);
        if by_hand {
            let moved = std::process::Command::new(env!("CARGO_BIN_EXE_pilvi-vmm"))
                .arg("ctl")
                .args([guest.setup.path("control"), "hand-over".into(), next.setup.path("incoming")])
                .output()
                .unwrap();
            assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
        } else {
            guest.client().hand_over(stream(&next).as_raw_fd()).unwrap();
        }
        guest.ends_with(7);
        assert_eq!(guest.report().reason, StopReason::Moved);
        assert!(guest.stderr().contains("memory was handed over"), "{}", guest.stderr());
        eprint!("{}", guest.stderr());
        goes_on(&next);
        assert_eq!(next.client().status().unwrap().missing, None);
        before.push(std::mem::replace(&mut guest, next));
    }
    // It is a machine like any other: written down, taken up again, reset.
    let (state, memory) = save(&mut guest);
    guest.client().kill().unwrap();
    guest.ends_with(5);
    let mut copy = restored(&guest, &state, &memory, true).start();
    until("more rounds", PATIENCE, || rounds(&copy) > 2);
    assert!(!copy.console().contains("LOST"), "{}", copy.console());
    copy.client().reset().unwrap();
    copy.expect("PILVI-GUEST up");
    copy.expect("round 1");
    // Elsewhere it goes by being copied.
    let mut away = target(&copy);
    copy.client().migrate(stream(&away).as_raw_fd(), Terms { force: true, ..Terms::default() }).unwrap();
    copy.ends_with(7);
    goes_on(&away);
    away.client().kill().unwrap();
    away.ends_with(5);
}

#[test]
fn what_cannot_be_handed_over_stays() {
    if !kvm_is_here() {
        return;
    }
    let mut alone = Setup::new("idle").start();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let Err(ClientError::Refused(reason)) = alone.client().hand_over(ours.as_raw_fd()) else { panic!() };
    assert!(reason.contains("shared_memory"), "{reason}");

    let mut guest = shared("dirty", 32).start();
    guest.expect("round 2");
    // An older target reads the version and leaves; another has the memory, hears the state, and is gone.
    for answer in [None, Some(14)] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || {
            theirs.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let mut words = [0; 20];
            let (read, file) = theirs.recv_with_fd(&mut words).unwrap();
            theirs.read_exact(&mut words[read..]).unwrap();
            assert_eq!(file.unwrap().metadata().unwrap().len(), 32 << 20);
            let Some(answer) = answer else { return 0 };
            theirs.write_all(&[answer]).unwrap();
            let (mut part, mut total) = (vec![0; 1 << 16], 0);
            while let Ok(count @ 1..) = theirs.read(&mut part) {
                total += count;
            }
            total
        });
        assert!(matches!(guest.client().hand_over(ours.as_raw_fd()), Err(ClientError::Refused(_))));
        drop(ours);
        assert!(answer.is_none() || reader.join().unwrap() > 1000);
        let status = guest.client().status().unwrap();
        assert_eq!((status.state, status.migration), (RunState::Running, None));
        goes_on(&guest);
    }
    // A target that is handed no memory, or somebody else's, ends alone.
    let handed = greeting(&memory::map(32 << 20, false).unwrap(), Kind::Handed);
    let short = memory::sealed_file("short", 1 << 20).unwrap();
    for file in [None, Some(&short)] {
        let mut there = target(&guest);
        let mut wire = stream(&there);
        match file {
            Some(file) => drop(wire.send_with_fd(&handed[..], file.as_raw_fd()).unwrap()),
            None => wire.write_all(&handed).unwrap(),
        }
        there.ends_with(1);
        assert!(there.stderr().contains("cannot take the machine over"), "{}", there.stderr());
    }
    // Where others could see what is missing, nothing goes over late.
    let mut there = target(&guest);
    let terms = Terms { post_copy: true, pause_ms: 1, passes: 1, force: false, converge: false };
    let moved = guest.client().migrate(stream(&there).as_raw_fd(), terms);
    assert!(matches!(moved, Err(ClientError::Refused(reason)) if reason.contains("faster than it goes over")));
    there.ends_with(1);
    goes_on(&guest);
}
