//! Port forwarding, by what real connections do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::net::Ipv4Addr;

fn forward(id: &str, protocol: u8, ports: (u16, u16), fixed: &str, inside: u16) -> Forward {
    Forward {
        id: id.into(),
        network: "ext".into(),
        address: Ipv4Addr::new(203, 0, 113, 150),
        mac: Mac([0xfa, 0x16, 0x3e, 3, 0, 150]),
        router: "r".into(),
        protocol,
        ports,
        fixed: fixed.parse().unwrap(),
        inside,
        to_one: false,
    }
}

/// Answers each connection to `port` with the port and the address of whoever asks.
fn listen(cloud: &mut Cloud, guest: &Guest, port: u16) {
    let script = format!(
        "python3 -u -c 'import socket\ns=socket.socket();s.setsockopt(1,2,1);s.bind((\"\",{port}));s.listen()\nwhile 1:\n c,a=s.accept();c.sendall((\"{port} \"+a[0]).encode());c.close()'"
    );
    cloud.background(guest.spawn(&script));
}

fn ask(guest: &Guest, to: &str, port: u16) -> String {
    text(&guest.try_sh(&format!("timeout 3 nc -d {to} {port}")).stdout)
}

const UDP_ECHO: &str = "python3 -u -c 'import socket\ns=socket.socket(2,2);s.bind((\"\",5353))\nwhile 1:\n d,a=s.recvfrom(9000);s.sendto(str(len(d)).encode(),a)'";

fn udp(guest: &Guest, to: &str, port: u16, bytes: usize) -> String {
    let script = format!(
        "import socket\ns=socket.socket(2,2);s.settimeout(2);s.connect(('{to}',{port}))\ns.send(b'x'*{bytes})\ntry: print(s.recv(99).decode())\nexcept OSError as e: print(type(e).__name__)"
    );
    text(&run(&mut guest.command("python3", &["-c", &script])).stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_one_address_lead_to_several_guests() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("forward");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network("n0", 100, 0), external()],
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"]), port("b", "n0", 2, "10.0.0.12", &["g"])],
        groups: vec![open_group("g")],
        routers: vec![router("r", vec![leg("n0", 0, 1)], Some(gateway(10)))],
        forwards: vec![
            forward("a-80", 6, (8080, 8080), "10.0.0.11", 80),
            forward("b-80", 6, (8081, 8081), "10.0.0.12", 80),
            forward("range", 6, (9000, 9010), "10.0.0.11", 7000),
            Forward { to_one: true, ..forward("one", 6, (9100, 9200), "10.0.0.12", 80) },
            forward("dns", 17, (53, 53), "10.0.0.12", 5353),
        ],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.12").await;
    let edge = Guest::at(&plane.ns_path(Ns::Edge).unwrap(), &cloud);
    for port in [80, 7000, 7010] {
        listen(&mut cloud, &a, port);
    }
    listen(&mut cloud, &b, 80);
    // Fragments keep their size on the way in.
    b.sh("ip link set eth0 mtu 1500");
    cloud.background(b.spawn(UDP_ECHO));
    let fip = "203.0.113.150";
    assert!(soon(|| ask(&edge, fip, 8080) == "80 203.0.113.1"), "{:?}", plane.stats());
    assert!(edge.sh(&format!("ip neigh show {fip}")).contains("fa:16:3e:03:00:96"), "with the address's own MAC");
    assert!(edge.pings(fip), "the address itself answers");
    assert!(soon(|| ask(&edge, fip, 8081) == "80 203.0.113.1"));
    assert!(soon(|| ask(&edge, fip, 9000) == "7000 203.0.113.1" && ask(&edge, fip, 9010) == "7010 203.0.113.1"));
    assert!(ask(&edge, fip, 9100).starts_with("80 ") && ask(&edge, fip, 9155).starts_with("80 "), "many to one");
    assert_eq!([ask(&edge, fip, 9011), ask(&edge, fip, 80)], ["", ""], "no other port");
    assert!(soon(|| udp(&edge, fip, 53, 3) == "3"));
    assert_eq!(udp(&edge, fip, 53, 4000), "4000", "fragments follow their first");
    // A guest's own connections from a forwarded port go out behind the gateway.
    listen(&mut cloud, &edge, 7999);
    assert!(soon(|| text(&a.try_sh("timeout 3 nc -d -p 7003 203.0.113.1 7999").stdout) == "7999 203.0.113.10"));
    // Nobody listens behind the port: the guest's error comes back as the forwarded address's.
    wanted.forwards.push(forward("closed", 17, (99, 99), "10.0.0.11", 99));
    apply(&plane, &wanted).await;
    assert_eq!(udp(&edge, fip, 99, 1), "ConnectionRefusedError");
    // From another guest, by the outside address.
    assert!(ask(&b, fip, 8080).starts_with("80 203.0.113.10"), "{:?}", plane.stats());
    wanted.forwards.retain(|f| f.id != "a-80");
    apply(&plane, &wanted).await;
    assert_eq!(ask(&edge, fip, 8080), "");
    wanted.forwards.clear();
    apply(&plane, &wanted).await;
    assert!(!edge.pings(fip), "nothing leads there any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guest_may_be_on_another_host_than_the_gateway() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("forward2");
    let one = DataPlane::open(cloud.node(1)).await.unwrap();
    let two = DataPlane::open(cloud.node(2)).await.unwrap();
    let base = Wanted {
        networks: vec![network("n0", 100, 0), external()],
        groups: vec![open_group("g")],
        routers: vec![router("r", vec![leg("n0", 0, 1)], Some(Gateway { vtep: Some(vtep(1)), ..gateway(10) }))],
        forwards: vec![forward("a", 6, (8080, 8080), "10.0.0.11", 80)],
        ..Wanted::default()
    };
    let remote = Remote {
        port: "a".into(),
        network: "n0".into(),
        mac: mac(1),
        addresses: vec!["10.0.0.11".parse().unwrap()],
        vtep: vtep(2),
        groups: vec!["g".into()],
    };
    let near = Remote {
        port: "x".into(),
        mac: mac(9),
        addresses: vec!["10.0.0.19".parse().unwrap()],
        vtep: vtep(1),
        ..remote.clone()
    };
    apply(&one, &Wanted { remotes: vec![remote], ..base.clone() }).await;
    apply(&two, &Wanted { ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"])], remotes: vec![near], ..base }).await;
    let a = guest(&mut cloud, &two, "a", "10.0.0.11").await;
    listen(&mut cloud, &a, 80);
    let edge = Guest::at(&one.ns_path(Ns::Edge).unwrap(), &cloud);
    assert!(soon(|| ask(&edge, "203.0.113.150", 8080) == "80 203.0.113.1"), "{:?} {:?}", one.stats(), two.stats());
}
