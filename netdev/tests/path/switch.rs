//! Two guests in a network: DHCP, ping, and what must not get through.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_guests_get_addresses_and_ping() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("two");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let wanted = two_guests();
    apply(&plane, &wanted).await;
    let (a, b) = (cloud.guest("a"), cloud.guest("b"));
    plane.open_veth("a", &a.ns, "eth0").await.unwrap();
    plane.open_veth("b", &b.ns, "eth0").await.unwrap();
    apply(&plane, &wanted).await;
    let said = a.dhcp().expect("a gets an answer");
    for line in [
        "new_ip_address=10.0.0.11",
        "new_subnet_mask=255.255.255.0",
        "new_routers=10.0.0.1",
        "new_interface_mtu=1450",
        "new_host_name=a",
        "new_domain_name_servers=192.0.2.53",
        "new_dhcp_server_identifier=10.0.0.2",
        "new_dhcp_lease_time=3600",
        "new_rfc3442=32 169 254 169 254 10 0 0 2 0 10 0 0 1",
    ] {
        assert!(said.lines().any(|l| l == line), "{line} in {said}");
    }
    assert!(b.dhcp().is_some());
    assert!(a.pings("10.0.0.12"), "{:?}", plane.stats());
    assert!(b.pings("10.0.0.11"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_with_equal_addresses_do_not_meet() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("iso");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    // The same subnet, the same hardware addresses, twice.
    let mut wanted = Wanted {
        networks: vec![network("red", 100, 0), network("blue", 200, 0)],
        ports: vec![
            port("r1", "red", 1, "10.0.0.11", &["g"]),
            port("r2", "red", 2, "10.0.0.12", &["g"]),
            port("b1", "blue", 1, "10.0.0.11", &["g"]),
        ],
        groups: vec![open_group("g")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let (r1, r2, b1) = (cloud.guest("r1"), cloud.guest("r2"), cloud.guest("b1"));
    for (id, guest, address) in [("r1", &r1, "10.0.0.11/24"), ("r2", &r2, "10.0.0.12/24"), ("b1", &b1, "10.0.0.11/24")]
    {
        plane.open_veth(id, &guest.ns, "eth0").await.unwrap();
        guest.address(address, None);
    }
    assert!(r1.pings("10.0.0.12"));
    assert!(!b1.pings("10.0.0.12"), "blue has no 10.0.0.12");
    // Not even when the neighbour is known by other means.
    b1.sh("ip neigh replace 10.0.0.12 lladdr fa:16:3e:00:00:02 dev eth0");
    assert!(!b1.pings("10.0.0.12"));
    let stats = plane.stats().unwrap();
    assert!(stats.ports["b1"].drops["unknown-station"] > 0, "{stats:?}");
    wanted.ports.push(port("b2", "blue", 2, "10.0.0.12", &["g"]));
    apply(&plane, &wanted).await;
    let b2 = cloud.guest("b2");
    plane.open_veth("b2", &b2.ns, "eth0").await.unwrap();
    b2.address("10.0.0.12/24", None);
    assert!(b1.pings("10.0.0.12") && r1.pings("10.0.0.12"));
    b2.sh("ip link set eth0 down");
    assert!(!b1.pings("10.0.0.12") && r1.pings("10.0.0.12"), "each has its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn spoofed_frames_are_dropped_and_counted() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("spoof");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network("net", 100, 0)],
        ports: vec![port("a", "net", 1, "10.0.0.11", &["g"]), port("b", "net", 2, "10.0.0.12", &["g"])],
        groups: vec![open_group("g")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let (a, b) = (cloud.guest("a"), cloud.guest("b"));
    plane.open_veth("a", &a.ns, "eth0").await.unwrap();
    plane.open_veth("b", &b.ns, "eth0").await.unwrap();
    a.address("10.0.0.11/24", None);
    b.address("10.0.0.12/24", None);
    assert!(a.pings("10.0.0.12"));
    let drops = |reason: &str| plane.stats().unwrap().ports["a"].drops.get(reason).copied().unwrap_or(0);

    // Another's address: neither IP nor ARP.
    a.sh("ip addr add 10.0.0.99/24 dev eth0");
    assert!(!a.try_sh("ping -n -c1 -W1 -I 10.0.0.99 10.0.0.12").status.success());
    assert!(drops("spoofed-ip") > 0);
    a.sh("ip neigh flush dev eth0");
    assert!(!a.try_sh("ping -n -c1 -W1 -I 10.0.0.99 10.0.0.12").status.success());
    assert!(drops("spoofed-arp") > 0);
    // Unless it is allowed.
    wanted.ports[0].allowed_pairs = vec![AddressPair { mac: None, cidr: "10.0.0.96/28".parse().unwrap() }];
    apply(&plane, &wanted).await;
    a.sh("ip neigh flush dev eth0");
    a.try_sh("ping -n -c1 -W1 -I 10.0.0.99 10.0.0.12");
    let seen = plane.stats().unwrap();
    assert_eq!(seen.ports["a"].drops["spoofed-ip"], 1, "allowed now: {seen:?}");
    a.sh("ip addr del 10.0.0.99/24 dev eth0");
    // Another's hardware address.
    a.sh("ip link set eth0 address fa:16:3e:00:00:77");
    assert!(!a.pings("10.0.0.12"));
    assert!(drops("spoofed-arp") + drops("spoofed-mac") > 1);
    assert!(a.dhcp().is_none(), "DHCP answers the port's own hardware address alone");
    // By IPv6 it has no address here.
    b.sh("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip -6 addr add fd00::2/64 dev eth0 nodad");
    b.try_sh("ping -n -c1 -W1 fd00::1");
    assert!(soon(|| plane.stats().unwrap().ports["b"].drops.contains_key("spoofed-ip")));
    // Without anti-spoofing everything goes, from whomever it claims to be.
    a.sh("ip link set eth0 address fa:16:3e:00:00:01; ip addr add 10.0.0.33/24 dev eth0");
    let echos = || {
        let snmp = b.sh("cat /proc/net/snmp");
        let mut icmp = snmp.lines().filter(|l| l.starts_with("Icmp:")).map(|l| l.split(' ').collect::<Vec<_>>());
        let (names, values) = (icmp.next().unwrap(), icmp.next().unwrap());
        values[names.iter().position(|n| *n == "InEchos").unwrap()].parse::<u64>().unwrap()
    };
    let before = echos();
    a.try_sh("ping -n -c1 -W1 -I 10.0.0.33 10.0.0.12");
    assert_eq!(echos(), before, "still secured");
    wanted.ports[0].secured = false;
    apply(&plane, &wanted).await;
    let heard = soon(|| {
        a.try_sh("ping -n -c1 -W1 -I 10.0.0.33 10.0.0.12");
        echos() > before
    });
    assert!(heard, "{:?}", plane.stats());
    assert!(a.pings("10.0.0.12"));
    // And nothing goes through a port that is down.
    wanted.ports[0].up = false;
    apply(&plane, &wanted).await;
    assert!(!a.pings("10.0.0.12"));
    assert!(drops("port-down") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_datagrams_pass_in_fragments() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("frag");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let wanted = Wanted {
        networks: vec![network("net", 100, 0)],
        ports: vec![port("a", "net", 1, "10.0.0.11", &["g"]), port("b", "net", 2, "10.0.0.12", &["in"])],
        groups: vec![
            out_only("g"),
            group("in", vec![rule("ping", Direction::Ingress, Some(1), Ports::Icmp(8, None), Peer::Any)]),
        ],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let (a, b) = (cloud.guest("a"), cloud.guest("b"));
    plane.open_veth("a", &a.ns, "eth0").await.unwrap();
    plane.open_veth("b", &b.ns, "eth0").await.unwrap();
    a.address("10.0.0.11/24", None);
    b.address("10.0.0.12/24", None);
    a.sh("ping -n -c 3 -i 0.2 -W 2 -s 6000 10.0.0.12");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_address_follows_its_announcement() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("vip");
    let config = cloud.config();
    let plane = DataPlane::open(config.clone()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network("net", 100, 0)],
        ports: vec![
            port("a", "net", 1, "10.0.0.11", &["g"]),
            port("b", "net", 2, "10.0.0.12", &["g"]),
            port("c", "net", 3, "10.0.0.13", &["g"]),
        ],
        groups: vec![open_group("g")],
        ..Wanted::default()
    };
    for p in &mut wanted.ports[..2] {
        p.allowed_pairs = vec![AddressPair { mac: None, cidr: "10.0.0.100/32".parse().unwrap() }];
    }
    apply(&plane, &wanted).await;
    let guests: Vec<Guest> = ["a", "b", "c"].map(|id| cloud.guest(id)).into();
    for (i, id) in ["a", "b", "c"].iter().enumerate() {
        plane.open_veth(id, &guests[i].ns, "eth0").await.unwrap();
        guests[i].address(&format!("10.0.0.{}/24", 11 + i), None);
    }
    let (a, b, c) = (&guests[0], &guests[1], &guests[2]);
    let announce = |g: &Guest, mac: u8| {
        let frame = format!(
            "ff ff ff ff ff ff fa 16 3e 00 00 0{mac} 08 06 00 01 08 00 06 04 00 01 fa 16 3e 00 00 0{mac} 0a 00 00 64 \
             00 00 00 00 00 00 0a 00 00 64"
        );
        let script =
            format!("import socket\ns=socket.socket(17,3)\ns.bind(('eth0',0))\ns.send(bytes.fromhex('{frame}'))");
        run(&mut g.command("python3", &["-c", &script]));
    };
    a.sh("ip addr add 10.0.0.100/32 dev eth0");
    assert!(c.pings("10.0.0.100"), "the first has it before anybody said so");
    a.sh("ip addr del 10.0.0.100/32 dev eth0");
    b.sh("ip addr add 10.0.0.100/32 dev eth0");
    announce(b, 2);
    c.sh("ip neigh flush dev eth0");
    assert!(c.pings("10.0.0.100"), "{:?}", plane.stats());
    announce(c, 3);
    c.sh("ip neigh flush dev eth0");
    assert!(c.pings("10.0.0.100"), "who may not have it cannot take it");
    // A new agent leaves it where it is; without its holder it goes back.
    drop(plane);
    let plane = DataPlane::open(config).await.unwrap();
    apply(&plane, &wanted).await;
    c.sh("ip neigh flush dev eth0");
    assert!(c.pings("10.0.0.100"), "{:?}", plane.stats());
    wanted.ports.remove(1);
    apply(&plane, &wanted).await;
    a.sh("ip addr add 10.0.0.100/32 dev eth0");
    c.sh("ip neigh flush dev eth0");
    assert!(c.pings("10.0.0.100"));
}
