//! Networks in parts, by what guests reach.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

/// The same subnet under another number.
fn part(id: &str, vni: u32) -> Network {
    Network { id: id.into(), vni, ..network("n", vni, 0) }
}

fn at(network: &str, port: Port) -> Port {
    Port { network: network.into(), ..port }
}

fn view(network: &str, ports: &[&str], apart: bool) -> View {
    View { network: network.into(), ports: ports.iter().map(|p| (*p).into()).collect(), apart }
}

fn remote(id: &str, network: &str, n: u8, address: &str, host: u8) -> Remote {
    Remote {
        port: id.into(),
        network: network.into(),
        mac: mac(n),
        addresses: vec![address.parse().unwrap()],
        vtep: vtep(host),
        groups: vec!["g".into()],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_see_the_server_and_not_each_other() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("view");
    let one = DataPlane::open(cloud.node(1)).await.unwrap();
    let two = DataPlane::open(cloud.node(2)).await.unwrap();
    let base = Wanted {
        networks: vec![network("n", 100, 0), part("apart", 101), part("club", 102)],
        groups: vec![open_group("g")],
        ..Wanted::default()
    };
    // One host: the server s, customers x and y, a club of k and l. The other: customer z, and m of the club.
    let here = [
        port("s", "n", 1, "10.0.0.11", &["g"]),
        at("apart", port("x", "n", 2, "10.0.0.12", &["g"])),
        at("apart", port("y", "n", 3, "10.0.0.13", &["g"])),
        at("club", port("k", "n", 4, "10.0.0.14", &["g"])),
        at("club", port("l", "n", 5, "10.0.0.15", &["g"])),
    ];
    let there =
        [at("apart", port("z", "n", 6, "10.0.0.16", &["g"])), at("club", port("m", "n", 7, "10.0.0.17", &["g"]))];
    let first = Wanted {
        ports: here.to_vec(),
        remotes: vec![
            remote("z", "n", 6, "10.0.0.16", 2),
            remote("m", "n", 7, "10.0.0.17", 2),
            remote("m", "club", 7, "10.0.0.17", 2),
        ],
        views: vec![view("n", &["x", "y", "k", "l"], false), view("apart", &["s"], true), view("club", &["s"], false)],
        ..base.clone()
    };
    let server = |network: &str| remote("s", network, 1, "10.0.0.11", 1);
    let club = |id: &str, n: u8| remote(id, "club", n, &format!("10.0.0.1{n}"), 1);
    let second = Wanted {
        ports: there.to_vec(),
        remotes: vec![server("n"), server("apart"), server("club"), club("k", 4), club("l", 5)],
        views: vec![view("n", &["z", "m"], false), view("apart", &[], true), view("club", &[], false)],
        ..base
    };
    apply(&one, &first).await;
    apply(&two, &second).await;
    let mut guests = std::collections::BTreeMap::new();
    for (plane, ports) in [(&one, &here[..]), (&two, &there[..])] {
        for p in ports {
            let guest = guest(&mut cloud, plane, &p.id, &p.fixed[0].address.to_string()).await;
            guests.insert(p.id.clone(), guest);
        }
    }
    let ip = |id: &str| here.iter().chain(&there).find(|p| p.id == id).unwrap().fixed[0].address.to_string();
    for (from, to) in
        [("x", "s"), ("s", "y"), ("k", "s"), ("k", "l"), ("z", "s"), ("s", "z"), ("m", "s"), ("m", "k"), ("l", "m")]
    {
        assert!(soon(|| guests[from].pings(&ip(to))), "{from} -> {to}: {:?} {:?}", one.stats(), two.stats());
    }
    for (from, to) in [("x", "y"), ("x", "k"), ("k", "x"), ("z", "x"), ("x", "z"), ("z", "m"), ("m", "y")] {
        assert!(!guests[from].pings(&ip(to)), "{from} -> {to}");
    }
    // Who knows the other's hardware address does not get there either.
    let knows = format!("ip neigh replace {} lladdr fa:16:3e:00:00:03 dev eth0", ip("y"));
    guests["x"].sh(&knows);
    assert!(!guests["x"].pings(&ip("y")));
}
