//! Floating addresses of a network that the router has a leg in: who is there reaches the inside by them, on every host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

fn address(last: u8, fixed: &str) -> ByLeg {
    ByLeg {
        id: format!("f{last}"),
        network: "n1".into(),
        address: format!("10.0.1.{last}").parse().unwrap(),
        mac: Mac([0xfa, 0x16, 0x3e, 9, 0, last]),
        fixed: fixed.parse().unwrap(),
        router: "r".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_between_two_legs_leads_inside_and_back() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("byleg");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted { ports: one_in_each(), by_leg: vec![address(101, "10.0.0.11")], ..joined() };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.1.12").await;
    for (guest, own) in [(&a, "10.0.0.11"), (&b, "10.0.1.12")] {
        let whoami = format!(
            "python3 -u -c 'import socket\ns=socket.socket();s.setsockopt(1,2,1);s.bind((\"{own}\",7000));s.listen()\nwhile 1:\n c,a=s.accept();c.sendall(a[0].encode());c.close()'"
        );
        cloud.background(guest.spawn(&whoami));
    }
    let seen = |guest: &Guest, at: &str| text(&guest.try_sh(&format!("timeout 5 nc -d {at} 7000")).stdout);

    // From the leg's network the address is the guest inside: by ping, by TCP, and it answers from it.
    assert!(soon(|| b.pings("10.0.1.101")), "{:?}", plane.stats());
    assert!(soon(|| seen(&b, "10.0.1.101") == "10.0.1.12"), "the guest inside sees who asks: {:?}", plane.stats());
    // What the guest inside begins comes from its address there.
    assert!(soon(|| seen(&a, "10.0.1.12") == "10.0.1.101"), "{:?}", plane.stats());
    // An error about what was sent to the address is about that address.
    let closed = b.try_sh("python3 -c 'import socket\ns=socket.socket(2,2);s.settimeout(3);s.connect((\"10.0.1.101\",9))\ns.send(b\"x\")\ntry:\n s.recv(9)\nexcept ConnectionRefusedError:\n print(\"refused\")'");
    assert_eq!(text(&closed.stdout).trim(), "refused", "{:?}", plane.stats());

    // Nobody has an address that is taken away, and the inside is itself again.
    wanted.by_leg.clear();
    apply(&plane, &wanted).await;
    b.sh("ip neigh flush dev eth0 || true");
    assert!(!b.pings("10.0.1.101"));
    assert!(soon(|| seen(&a, "10.0.1.12") == "10.0.0.11"), "{:?}", plane.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guest_inside_may_be_on_another_host() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("byleg2");
    let one = DataPlane::open(cloud.node(1)).await.unwrap();
    let two = DataPlane::open(cloud.node(2)).await.unwrap();
    let (a, b) = (port("a", "n0", 1, "10.0.0.11", &["g"]), port("b", "n1", 2, "10.0.1.12", &["g"]));
    let base = Wanted { by_leg: vec![address(101, "10.0.0.11")], ..joined() };
    let far = |p: &Port, node: u8| Remote {
        port: p.id.clone(),
        network: p.network.clone(),
        mac: p.mac,
        addresses: p.fixed.iter().map(|f| f.address).collect(),
        vtep: vtep(node),
        groups: p.groups.clone(),
    };
    apply(&one, &Wanted { remotes: vec![far(&b, 2)], ports: vec![a.clone()], ..base.clone() }).await;
    apply(&two, &Wanted { remotes: vec![far(&a, 1)], ports: vec![b], ..base }).await;
    let _a = guest(&mut cloud, &one, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &two, "b", "10.0.1.12").await;
    assert!(soon(|| b.pings("10.0.1.101")), "{:?} {:?}", one.stats(), two.stats());
}
