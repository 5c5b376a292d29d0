//! Devices beyond disk, card and random numbers, with the freestanding guest on the other side.

use crate::rig::{PATIENCE, Setup, kvm_is_here, until};
use pilvi_vmm::control::{Client, ClientError, Reply, Request};
use pilvi_vmm::state::StopReason;
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

#[test]
fn the_terminal_goes_both_ways_and_through_a_snapshot() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("terminal");
    setup.config["virtio_console"] = json!(true);
    let mut guest = setup.start();
    guest.expect("terminal here");
    guest.client().console_write(b"ab").unwrap();
    guest.expect("<b>");
    let (state, memory) = crate::snapshot::save(&mut guest);
    let mut copy = crate::snapshot::restored(&guest, &state, &memory, false).start();
    let mut client = copy.client();
    assert_eq!(client.console_write(b"c").unwrap(), 1);
    copy.expect("<c>");
    client.console_write(b"q").unwrap();
    copy.ends_with(0);
}

fn call(path: &std::path::Path, line: &str) -> UnixStream {
    // The file is there a moment before somebody listens at it.
    let mut stream = None;
    until("somebody at the socket", PATIENCE, || {
        stream = UnixStream::connect(path).ok();
        stream.is_some()
    });
    let mut stream = stream.unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(line.as_bytes()).unwrap();
    stream
}

fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut text = String::new();
    if let Err(e) = stream.read_line(&mut text) {
        text = e.to_string();
    }
    text
}

#[test]
fn vsock_connects_both_ways() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("vsock");
    let path = setup.path("vsock");
    setup.config["vsock"] = json!({"cid": 33, "socket": {"path": path}});
    let mut guest = setup.start();
    until("the socket", PATIENCE, || path.exists());
    let mut waiting = BufReader::new(call(&path, "ACCEPT 1024\n"));
    guest.expect("vsock cid=33");
    // The guest may have called before we waited: then it was refused, and the machine is started again.
    until("the guest's call or its refusal", PATIENCE, || {
        guest.console().contains("vsock connected") || guest.console().contains("vsock end")
    });
    if guest.console().contains("vsock end") {
        waiting = BufReader::new(call(&path, "ACCEPT 1024\n"));
        guest.client().reset().unwrap();
    }
    let answer = line(&mut waiting);
    assert!(answer.starts_with("OK 4000"), "{answer:?} {}", guest.stderr());
    assert_eq!(line(&mut waiting), "the guest calls\n");
    let mut caller = call(&path, "CONNECT 52\n");
    let mut answers = BufReader::new(caller.try_clone().unwrap());
    let answer = line(&mut answers);
    assert!(answer.starts_with("OK "), "{answer:?} {} {}", guest.console(), guest.stderr());
    for n in 0..20 {
        let text = format!("line {n}\n");
        caller.write_all(text.as_bytes()).unwrap();
        assert_eq!(line(&mut answers), text);
    }
    // Nobody listens on that port of the guest, and that is no call at all.
    for words in ["CONNECT 53\n", "rubbish\n"] {
        assert_eq!(call(&path, words).read(&mut [0; 16]).unwrap_or(0), 0, "{words}");
    }
    caller.write_all(b"bye").unwrap();
    guest.ends_with(0);
}

#[test]
fn a_panic_and_a_watchdog_s_bite_end_as_they_should() {
    if !kvm_is_here() {
        return;
    }
    let mut guest = Setup::new("panic").start();
    guest.ends_with(4);
    assert!(matches!(guest.report().reason, StopReason::Crashed { detail } if detail.contains("panicked")));
    let mut setup = Setup::new("watchdog");
    setup.with_disk(false);
    setup.config["watchdog"] = json!(true);
    let mut guest = setup.start();
    guest.expect("start number 2");
    guest.ends_with(0);
    assert!(guest.stderr().contains("watchdog") && guest.report().resets == 1, "{}", guest.stderr());
}

#[test]
fn a_disk_works_over_every_engine_and_with_many_queues() {
    if !kvm_is_here() {
        return;
    }
    for engine in ["auto", "threads", "plain"] {
        let mut setup = Setup::new("disk");
        setup.with_disk(false);
        setup.config["disks"][0]["engine"] = json!(engine);
        setup.config["disks"][0]["queues"] = json!(4);
        let mut guest = setup.start();
        guest.ends_with(0);
        assert!(guest.console().contains("disk verified"), "{engine}: {}", guest.console());
    }
}

#[test]
fn a_limit_slows_a_disk_and_goes_away_while_it_runs() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("disk idle");
    setup.with_disk(false);
    // The guest makes five requests and a burst lets one through: the rest takes minutes, unless the limit goes.
    setup.config["disks"][0]["rate"] = json!({"operations_per_s": 1, "operations_burst": 1});
    let begin = Instant::now();
    let mut guest = setup.start();
    guest.expect("disk sectors");
    let mut client = guest.client();
    let set = |client: &mut Client, device: &str, rate: serde_json::Value| {
        let text = json!({"op": "set_rate", "device": device, "rate": rate});
        client.ask(&serde_json::from_value::<Request>(text).unwrap())
    };
    assert_eq!(set(&mut client, "disk0", json!({})).unwrap(), Reply::Done);
    guest.expect("idle");
    eprintln!("limited, then free: {:.1} s", begin.elapsed().as_secs_f64());
    assert!(guest.console().contains("disk verified"));
    for (device, word) in [("rng", "no such limit"), ("disk7", "no such device")] {
        let Err(ClientError::Refused(reason)) = set(&mut client, device, json!({})) else { panic!() };
        assert!(reason.contains(word), "{reason}");
    }
    let Err(ClientError::Refused(reason)) = client.ask(&Request::SetBalloon { mib: 1 }) else { panic!() };
    assert!(reason.contains("no balloon"), "{reason}");
    client.console_write(b"q").unwrap();
    guest.ends_with(0);
}
