//! The network card, with `virtio-drivers` and `smoltcp` on the guest's side and Linux's own stack on the other.

use crate::peer::{self, GUEST, MAC, in_own_network, ping, serve_dhcp};
use crate::rig::{PATIENCE, Running, Setup, kvm_is_here, until};
use pilvi_vmm::control::Request;
use serde_json::json;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

fn start(cmdline: &str, tap: OwnedFd) -> Running {
    let mut setup = Setup::new(cmdline);
    setup.with_disk(false);
    let fd = setup.inherit(tap);
    let mac = MAC.map(|b| format!("{b:02x}")).join(":");
    setup.config["nics"] = json!([{"tap": {"fd": fd}, "mac": mac}]);
    setup.config["user"] = json!({"uid": 65534, "gid": 65534});
    setup.start()
}

#[test]
fn a_lease_comes_by_dhcp_and_ping_and_udp_are_answered() {
    if !kvm_is_here() {
        return;
    }
    in_own_network(|tap| {
        let mut guest = start("net", tap);
        serve_dhcp(PATIENCE);
        guest.expect("net lease from 10.77.0.1");
        assert!(guest.console().contains("net mac 02-00-00-00-77-09"), "{}", guest.console());
        assert!(guest.console().contains("net address 10.77.0.9/24"), "{}", guest.console());
        for bytes in [0, 56, 1400] {
            eprintln!("ping of {bytes} bytes: {:?}", ping(GUEST, bytes, PATIENCE));
        }
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut answer = [0; 64];
        until("the echo", PATIENCE, || {
            socket.send_to(b"are you there", (GUEST, 7)).unwrap();
            socket.recv(&mut answer).is_ok_and(|n| &answer[..n] == b"are you there")
        });
        let status = guest.client().status().unwrap();
        let card = &status.devices[1];
        assert_eq!((card.name.as_str(), card.driver_ok), ("nic0", true));
        assert!(card.counters.bytes_in > 1400 && card.counters.bytes_out > 1400, "{card:?}");
        assert_eq!((card.counters.bad_chains, card.counters.errors), (0, 0), "{card:?}");
        socket.send_to(b"poweroff", (GUEST, 4242)).unwrap();
        guest.ends_with(0);
    });
}

#[test]
fn a_flood_is_survived_and_pause_holds_the_wire() {
    if !kvm_is_here() {
        return;
    }
    in_own_network(|tap| {
        let mut guest = start(&format!("net ip={GUEST}/24"), tap);
        guest.expect("net address");
        ping(GUEST, 56, PATIENCE);
        peer::flood(GUEST, 20_000);
        ping(GUEST, 56, PATIENCE);
        let mut client = guest.client();
        client.pause().unwrap();
        let before = client.status().unwrap().devices[1].counters.clone();
        peer::flood(GUEST, 100);
        crate::rig::rest(Duration::from_millis(100));
        assert_eq!(client.status().unwrap().devices[1].counters, before);
        client.resume().unwrap();
        ping(GUEST, 56, PATIENCE);
        client.kill().unwrap();
        guest.ends_with(5);
    });
}

#[test]
fn garbage_in_the_card_s_queues_does_not_reach_the_wire_unbounded() {
    if !kvm_is_here() {
        return;
    }
    in_own_network(|tap| {
        let mut guest = start(&format!("garbage net ip={GUEST}/24"), tap);
        guest.expect("net address");
        let card = guest.client().status().unwrap().devices[1].counters.clone();
        assert!(card.bad_chains > 10 && card.needs_reset > 0, "{card:?}");
        assert!(peer::tap_statistic("received") < 100_000);
        ping(GUEST, 56, PATIENCE);
        assert!(guest.console().contains("disk verified"));
        drop(guest);
    });
}

/// In the jail, where nothing can be opened any more; the guest looks at its bus when it starts again.
#[test]
fn a_card_comes_while_the_machine_runs_and_works_after_a_reset() {
    if !kvm_is_here() {
        return;
    }
    in_own_network(|tap| {
        let mut setup = Setup::new(&format!("idle net ip={GUEST}/24"));
        setup.config["transport"] = json!("pci");
        setup.config["user"] = json!({"uid": 65534, "gid": 65534});
        let mut guest = setup.start();
        let mut client = guest.client();
        let mac = MAC.map(|b| format!("{b:02x}")).join(":");
        let add =
            |name: &str| Request::AddNic { mac: mac.clone(), mtu: 1450, name: Some(name.into()), vhost_user: false };
        client.ask_with(&add("card"), &[tap.as_raw_fd()]).unwrap();
        let file = tempfile::tempfile().unwrap();
        assert!(client.ask_with(&add("other"), &[file.as_raw_fd()]).is_err(), "a file is no tap");
        drop(tap);
        let names: Vec<_> = client.status().unwrap().devices.into_iter().map(|device| device.name).collect();
        assert_eq!(names, ["rng", "card"]);
        client.reset().unwrap();
        guest.expect("net address");
        ping(GUEST, 56, PATIENCE);
        // It uses the card and hears nothing of events: it is not taken away from it.
        assert!(client.done(&Request::Remove { device: "card".into() }).is_err());
        client.kill().unwrap();
        guest.ends_with(5);
    });
}

#[test]
fn a_tap_that_is_deleted_under_a_guest_takes_nothing_else_with_it() {
    if !kvm_is_here() {
        return;
    }
    in_own_network(|tap| {
        let mut guest = start(&format!("net ip={GUEST}/24"), tap);
        guest.expect("net address");
        ping(GUEST, 56, PATIENCE);
        peer::delete_tap();
        let mut client = guest.client();
        // The card's worker sleeps: an error that nobody can take away must not keep it awake.
        let process = guest.child.id();
        until("the worker to sleep", PATIENCE, || {
            (0..20).all(|_| {
                crate::rig::rest(Duration::from_millis(1));
                peer::thread_state(process, "nic0") == 'S'
            })
        });
        assert!(client.status().unwrap().devices[1].driver_ok);
        client.pause().unwrap();
        client.resume().unwrap();
        // The next start finds it gone, too, and gets on without.
        client.reset().unwrap();
        until("the next start", PATIENCE, || guest.console().matches("net address").count() == 2);
        client.kill().unwrap();
        guest.ends_with(5);
    });
}
