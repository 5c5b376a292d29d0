//! The control socket, as the agent uses it.

use crate::rig::{PATIENCE, Setup, kvm_is_here, rest, until};
use pilvi_vmm::control::{Client, ClientError};
use pilvi_vmm::state::{RunState, StopReason};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

#[test]
fn a_paused_guest_stands_still_and_a_resumed_one_goes_on() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("spin");
    setup.config["vcpus"] = 2.into();
    let mut guest = setup.start();
    guest.expect("tick 3");
    let mut client = guest.client();
    for _ in 0..5 {
        client.pause().unwrap();
        client.pause().unwrap();
        let at_pause = client.status().unwrap();
        assert_eq!(at_pause.state, RunState::Paused);
        rest(Duration::from_millis(150));
        assert_eq!(client.status().unwrap().exits, at_pause.exits);
        client.resume().unwrap();
        until("more ticks", PATIENCE, || client.status().unwrap().console.bytes > at_pause.console.bytes + 20);
    }
    assert_eq!(client.status().unwrap().state, RunState::Running);
    client.pause().unwrap();
    client.kill().unwrap();
    guest.ends_with(5);
    assert_eq!(guest.report().reason, StopReason::Killed);
}

#[test]
fn a_reset_from_outside_starts_the_guest_again_and_sigterm_ends_it() {
    if !kvm_is_here() {
        return;
    }
    let mut guest = Setup::new("idle").start();
    guest.expect("idle");
    let mut client = guest.client();
    client.reset().unwrap();
    until("the second start", PATIENCE, || guest.console().matches("PILVI-GUEST up").count() == 2);
    let status = client.status().unwrap();
    assert_eq!((status.resets, status.id.as_str(), status.vcpus), (1, "test", 1));
    assert_eq!(status.pid, guest.child.id());
    // SAFETY: the process is our child and has not been waited for.
    unsafe { libc::kill(guest.child.id() as i32, libc::SIGTERM) };
    guest.ends_with(5);
}

#[test]
fn the_power_button_reaches_a_guest_that_listens_and_is_refused_by_one_that_does_not() {
    if !kvm_is_here() {
        return;
    }
    let mut deaf = Setup::new("spin").start();
    deaf.expect("tick 1");
    let Err(ClientError::Refused(reason)) = deaf.client().power_button() else { panic!() };
    assert!(reason.contains("keyboard"), "{reason}");

    let mut guest = Setup::new("idle").start();
    guest.expect("idle");
    // The line is printed before the guest turns its keyboard on.
    until("the guest to listen", PATIENCE, || guest.client().power_button().is_ok());
    guest.ends_with(0);
    assert!(guest.console().contains("ctrl-alt-del"));
}

#[test]
fn the_acpi_power_button_is_heard_and_acpi_powers_off() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("acpi idle");
    setup.with_disk(false);
    setup.config["vcpus"] = 3.into();
    let mut guest = setup.start();
    guest.expect("idle");
    assert!(guest.console().contains("acpi processors=3 slots=2"), "{}", guest.console());
    guest.client().power_button().unwrap();
    guest.ends_with(0);
    assert!(guest.console().contains("power button") && !guest.console().contains("ctrl-alt-del"));
    assert_eq!(guest.report().reason, StopReason::PoweredOff);
}

#[test]
fn a_guest_that_restarts_on_ctrl_alt_del_still_powers_off_when_asked_to() {
    if !kvm_is_here() {
        return;
    }
    let mut guest = Setup::new("idle restarts").start();
    guest.expect("idle");
    until("the guest to listen", PATIENCE, || guest.client().soft_reset().is_ok());
    until("the second start", PATIENCE, || guest.console().matches("idle").count() == 2);
    until("the guest to listen", PATIENCE, || guest.client().power_button().is_ok());
    guest.ends_with(0);
    let report = guest.report();
    assert_eq!((report.reason, report.resets), (StopReason::PoweredOff, 1));
}

#[test]
fn the_console_goes_both_ways_to_several_clients() {
    if !kvm_is_here() {
        return;
    }
    let mut guest = Setup::new("idle").start();
    guest.expect("idle");
    let path = guest.setup.path("control");
    let attach = || Client::connect(&path).unwrap().console_attach().unwrap();
    let (mut first, mut second) = (attach(), attach());
    first.write_all(b"ab").unwrap();
    let read_until = |stream: &mut UnixStream, text: &str| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut got = Vec::new();
        let mut part = [0; 256];
        while !String::from_utf8_lossy(&got).contains(text) {
            let count = stream.read(&mut part).unwrap();
            assert!(count > 0, "the console closed before {text:?}");
            got.extend_from_slice(&part[..count]);
        }
        String::from_utf8_lossy(&got).into_owned()
    };
    let seen = read_until(&mut first, "typed 'b'");
    assert!(seen.contains("PILVI-GUEST up") && seen.contains("typed 'a'"), "{seen}");
    read_until(&mut second, "typed 'b'");
    let mut client = guest.client();
    assert!(String::from_utf8_lossy(&client.console_tail(64).unwrap()).contains("typed 'b'"));
    assert_eq!(client.console_write(b"q").unwrap(), 1);
    guest.ends_with(0);
    let mode = |name| std::fs::metadata(guest.setup.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("control"), mode("console.log"), mode("report")], [0o600; 3]);
}
