//! Routing, source NAT, floating addresses and the metadata service.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn a_router_joins_subnets_and_answers_for_itself() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("route");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted { ports: one_in_each(), ..joined() };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.1.12").await;
    assert!(a.pings("10.0.1.12") && b.pings("10.0.0.11"), "{:?}", plane.stats());
    assert!(a.sh("ping -n -c1 -W1 10.0.1.12").contains("ttl=63"), "one hop");
    assert!(a.pings("10.0.0.1"), "its own leg");
    assert!(a.pings("10.0.1.1"), "its other leg");
    assert!(!a.pings("203.0.113.1"), "no gateway");
    a.sh("ping -n -c 2 -i 0.2 -W 2 -s 4000 10.0.1.12");
    cloud.background(b.spawn("sh -c 'while :; do nc -l -p 80 >/dev/null; done'"));
    assert!(soon(|| a.connects("10.0.1.12", 80)), "TCP checksums survive the way");
    // ICMP errors: traceroute sees the leg, and path MTU discovery learns what the other network carries.
    assert!(
        a.try_sh("ping -n -c1 -W1 -t 1 10.0.1.12")
            .stdout_text()
            .contains("From 10.0.0.1 icmp_seq=1 Time to live exceeded")
    );
    wanted.networks[1].mtu = 1300;
    apply(&plane, &wanted).await;
    let big = a.try_sh("ping -n -c1 -W1 -M do -s 1400 10.0.1.12").stdout_text();
    assert!(big.contains("mtu = 1300"), "{big}");
    // A static route through a guest of the other subnet.
    wanted.routers[0].routes =
        vec![Route { destination: "172.16.0.0/16".parse().unwrap(), nexthop: "10.0.1.12".parse().unwrap() }];
    wanted.ports[1].allowed_pairs = vec![AddressPair { mac: None, cidr: "172.16.0.0/16".parse().unwrap() }];
    apply(&plane, &wanted).await;
    b.sh("ip addr add 172.16.0.1/32 dev lo");
    assert!(a.pings("172.16.0.1"));
    wanted.routers.clear();
    apply(&plane, &wanted).await;
    assert!(!a.pings("10.0.1.12"));
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_of_overlapping_tenants_reach_outside_behind_their_gateways() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("snat");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let wanted = Wanted {
        networks: vec![network("red", 100, 0), network("blue", 200, 0), external()],
        ports: vec![port("r", "red", 1, "10.0.0.11", &["g"]), port("b", "blue", 1, "10.0.0.11", &["g"])],
        groups: vec![out_only("g")],
        routers: vec![
            router("rr", vec![leg("red", 0, 1)], Some(gateway(10))),
            router("rb", vec![leg("blue", 0, 1)], Some(gateway(20))),
        ],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let r = guest(&mut cloud, &plane, "r", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.11").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    let whoami = "python3 -u -c 'import socket\ns=socket.socket();s.setsockopt(1,2,1);s.bind((\"203.0.113.1\",7000));s.listen()\nwhile 1:\n c,a=s.accept();c.sendall(a[0].encode());c.close()'";
    cloud.background(edge.spawn(whoami));
    let ask = "timeout 5 nc -d -p 4444 203.0.113.1 7000";
    assert!(soon(|| text(&r.try_sh(ask).stdout) == "203.0.113.10"), "{:?}", plane.stats());
    assert!(soon(|| text(&b.try_sh(ask).stdout) == "203.0.113.20"), "same address and port, other tenant");
    assert!(r.pings("203.0.113.1") && b.pings("203.0.113.1"));
    // Fragments keep their size on the way in: the guest must take what the provider's network carries.
    r.sh("ip link set eth0 mtu 1500; ping -n -c 2 -i 0.2 -W 2 -s 4000 203.0.113.1");
    assert!(edge.pings("203.0.113.10"), "the gateway address itself answers");
    assert!(!edge.pings("10.0.0.11"), "nobody outside can start");
    let known = edge.sh("ip neigh");
    assert!(
        known.contains("203.0.113.10") && !known.contains("169.254"),
        "the node asks by a name of its own: {known}"
    );
    // Two guests' pings with one identifier each get their own answers; UDP errors find their way back.
    let udp = "import socket\ns=socket.socket(2,2);s.settimeout(2);s.connect(('203.0.113.1',9))\ns.send(b'x')\ntry:\n s.recv(9)\nexcept ConnectionRefusedError: print('refused')";
    assert_eq!(text(&run(&mut r.command("python3", &["-c", udp])).stdout), "refused\n");
    assert!(r.pings("203.0.113.10") && r.pings("203.0.113.20"), "its own gateway's outside, and another's");
}

#[tokio::test(flavor = "multi_thread")]
async fn floating_addresses_work_both_ways_and_between_guests() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("fip");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network("red", 100, 0), network("blue", 200, 0), external()],
        ports: vec![port("r", "red", 1, "10.0.0.11", &["g"]), port("b", "blue", 1, "10.0.0.11", &["g"])],
        groups: vec![open_group("g")],
        routers: vec![
            router("rr", vec![leg("red", 0, 1)], Some(gateway(10))),
            router("rb", vec![leg("blue", 0, 1)], Some(gateway(20))),
        ],
        floating: vec![floating(101, "r", "10.0.0.11", "rr")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let r = guest(&mut cloud, &plane, "r", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.11").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    assert!(edge.pings("203.0.113.101"), "{:?}", plane.stats());
    // Nobody outside is taken for somebody inside.
    edge.sh("ip addr add 10.0.0.77/32 dev ext0");
    assert!(!edge.try_sh("ping -n -c1 -W1 -I 10.0.0.77 203.0.113.101").status.success());
    assert!(plane.stats().unwrap().drops["spoofed-ip"] > 0);
    edge.sh("ip addr del 10.0.0.77/32 dev ext0");
    r.sh("ip link set eth0 mtu 1500");
    edge.sh("ping -n -c 2 -i 0.2 -W 2 -s 4000 203.0.113.101");
    let whoami = "python3 -u -c 'import socket\ns=socket.socket();s.setsockopt(1,2,1);s.bind((\"\",7000));s.listen()\nwhile 1:\n c,a=s.accept();c.sendall(a[0].encode());c.close()'";
    cloud.background(edge.spawn(whoami));
    cloud.background(r.spawn(whoami));
    cloud.background(b.spawn(whoami));
    let ask = |g: &Guest, ip: &str| text(&g.try_sh(&format!("timeout 5 nc -d {ip} 7000")).stdout);
    assert!(soon(|| ask(&r, "203.0.113.1") == "203.0.113.101"), "out with the floating address");
    assert!(soon(|| ask(&edge, "203.0.113.101") == "203.0.113.1"), "in, and the client is seen as it is");
    assert!(edge.sh("ip neigh show 203.0.113.101").contains("fa:16:3e:03:00:65"), "with its own hardware address");
    // From behind SNAT of another router, and from one floating address to another.
    assert_eq!(ask(&b, "203.0.113.101"), "203.0.113.20");
    wanted.floating.push(floating(102, "b", "10.0.0.11", "rb"));
    apply(&plane, &wanted).await;
    assert_eq!(ask(&b, "203.0.113.101"), "203.0.113.102");
    assert!(soon(|| ask(&r, "203.0.113.102") == "203.0.113.101"));
    assert_eq!(ask(&r, "203.0.113.101"), "203.0.113.101", "a guest reaches itself by its floating address");
    wanted.floating.remove(0);
    apply(&plane, &wanted).await;
    assert!(!edge.pings("203.0.113.101"));
    assert_eq!(ask(&r, "203.0.113.1"), "203.0.113.10", "behind the gateway again");
    // Connections from outside through the handle's sockets.
    let answer = connect_in(plane.ns_path(Ns::Edge).unwrap(), "203.0.113.102:7000".parse().unwrap()).await;
    let mut said = String::new();
    std::io::Read::read_to_string(&mut answer.unwrap(), &mut said).unwrap();
    assert_eq!(said, "203.0.113.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_service_knows_who_asks() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("meta");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network("red", 100, 0), network("blue", 200, 0)],
        ports: vec![
            port("r", "red", 1, "10.0.0.11", &[]),
            port("b", "blue", 1, "10.0.0.11", &[]),
            port("n", "red", 3, "10.0.0.13", &[]),
        ],
        routers: vec![router("rr", vec![leg("red", 0, 1)], None)],
        ..Wanted::default()
    };
    wanted.ports[2].metadata = false;
    apply(&plane, &wanted).await;
    let listener = plane.metadata().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, port)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0u8; 1024];
                let _ = stream.read(&mut buffer).await;
                let body = format!("you are {port}");
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes()).await;
            });
        }
    });
    // r has a router; b has none and only what DHCP tells it; n may not ask.
    let r = guest(&mut cloud, &plane, "r", "10.0.0.11").await;
    let b = cloud.guest("b");
    plane.open_veth("b", &b.ns, "eth0").await.unwrap();
    b.address("10.0.0.11/24", None);
    b.sh("ip route add 169.254.169.254/32 via 10.0.0.2");
    let n = guest(&mut cloud, &plane, "n", "10.0.0.13").await;
    let ask = |g: Guest| {
        let curl = move || text(&g.try_sh("curl -s -m 5 http://169.254.169.254/latest").stdout);
        tokio::task::spawn_blocking(curl)
    };
    assert_eq!(ask(r.clone()).await.unwrap(), "you are r", "{:?}", plane.stats());
    assert_eq!(ask(b.clone()).await.unwrap(), "you are b");
    assert_eq!(ask(n).await.unwrap(), "");
    // Directly on the link as well, which is what a guest without DHCP does.
    b.sh("ip route replace 169.254.169.254/32 dev eth0");
    assert_eq!(ask(b).await.unwrap(), "you are b");
    assert!(!r.try_sh("nc -z -w 1 169.254.169.254 22").status.success(), "no other port of the node");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_may_stand_on_the_external_network_itself() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("extport");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let wanted = Wanted {
        networks: vec![external()],
        ports: vec![port("a", "ext", 1, "203.0.113.50", &["g"]), port("b", "ext", 2, "203.0.113.51", &["g"])],
        groups: vec![open_group("g")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let (a, b) = (cloud.guest("a"), cloud.guest("b"));
    plane.open_veth("a", &a.ns, "eth0").await.unwrap();
    plane.open_veth("b", &b.ns, "eth0").await.unwrap();
    a.address("203.0.113.50/24", None);
    b.address("203.0.113.51/24", None);
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    assert!(a.pings("203.0.113.1"), "{:?}", plane.stats());
    assert!(edge.pings("203.0.113.50"));
    assert!(a.pings("203.0.113.51"), "{:?}", plane.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_device_is_the_edge() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("dev");
    let config = Config { external: External::Device("phys0".into()), ..cloud.config() };
    let plane = DataPlane::open(config).await.unwrap();
    let wanted = Wanted {
        networks: vec![network("red", 100, 0), external()],
        ports: vec![port("r", "red", 1, "10.0.0.11", &["g"])],
        groups: vec![open_group("g")],
        routers: vec![router("rr", vec![leg("red", 0, 1)], Some(gateway(10)))],
        floating: vec![floating(101, "r", "10.0.0.11", "rr")],
        ..Wanted::default()
    };
    let applied = plane.apply(&wanted).await.unwrap();
    assert!(applied.errors.iter().any(|e| e.contains("phys0")), "{applied:?}");
    // The caller gives the device; the next pass takes it up.
    let provider = cloud.guest("provider");
    let node = plane.ns_path(Ns::Node).unwrap();
    provider.sh(&format!(
        "ip link add prov0 type veth peer name phys0 && ip link set prov0 up && ip addr add 203.0.113.1/24 dev prov0 \
         && ip link set phys0 netns {}",
        node.file_name().unwrap().to_str().unwrap()
    ));
    apply(&plane, &wanted).await;
    let r = guest(&mut cloud, &plane, "r", "10.0.0.11").await;
    assert!(r.pings("203.0.113.1"), "{:?}", plane.stats());
    assert!(provider.pings("203.0.113.101") && provider.pings("203.0.113.10"));
    assert!(plane.ns_path(Ns::Edge).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_nat_is_routed_to() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("nonat");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network("red", 100, 7), external()],
        ports: vec![port("r", "red", 1, "10.0.7.11", &["g"])],
        groups: vec![open_group("g")],
        routers: vec![router("rr", vec![leg("red", 7, 1)], Some(Gateway { snat: false, ..gateway(10) }))],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let r = guest(&mut cloud, &plane, "r", "10.0.7.11").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    assert!(!r.pings("203.0.113.1"), "the provider has no route back");
    edge.sh("ip route add 10.0.7.0/24 via 203.0.113.10");
    assert!(r.pings("203.0.113.1") && edge.pings("10.0.7.11"), "{:?}", plane.stats());
    wanted.routers[0].gateway = Some(gateway(10));
    apply(&plane, &wanted).await;
    assert!(!edge.pings("10.0.7.11"), "with NAT nobody outside can start");
    assert!(r.pings("203.0.113.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_lets_an_answer_come_from_another_port_once() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("helper");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network("n0", 100, 0), external()],
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"])],
        groups: vec![open_group("g")],
        routers: vec![router("r", vec![leg("n0", 0, 1)], Some(gateway(10)))],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    // Like a server of files: the question comes to port 69, and the rest is said from ports of its own, each asked for more.
    let server = "python3 -u -c 'import socket\ns=socket.socket(2,2);s.bind((\"203.0.113.1\",69))\nwhile 1:\n d,c=s.recvfrom(99)\n for n in (1,2):\n  t=socket.socket(2,2);t.settimeout(1);t.bind((\"203.0.113.1\",0));t.sendto((\"block%d\"%n).encode(),c)\n  try: t.sendto(t.recvfrom(99)[0],c)\n  except OSError: pass'";
    cloud.background(edge.spawn(server));
    let client = "import socket\ns=socket.socket(2,2);s.settimeout(3);s.sendto(b'read',('203.0.113.1',69))\nsaid=[]\ntry:\n while 1:\n  d,f=s.recvfrom(99);said.append(d.decode())\n  if d.startswith(b'block'): s.sendto(b'ack',f)\nexcept OSError: pass\nprint(' '.join(said))";
    let ask = || text(&run(&mut a.command("python3", &["-c", client])).stdout).trim().to_owned();
    assert!(soon(|| a.pings("203.0.113.1")));
    assert_eq!(ask(), "", "nobody asked that port");
    wanted.helpers = vec![Helper { router: "r".into(), port: 69, answers: Answers::Tftp }];
    apply(&plane, &wanted).await;
    assert_eq!(ask(), "block1 ack", "one other port, both ways, and no second: {:?}", plane.stats());
    wanted.helpers[0].port = 70;
    apply(&plane, &wanted).await;
    assert_eq!(ask(), "");
}
