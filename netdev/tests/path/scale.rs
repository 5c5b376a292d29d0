//! What a pass costs: what it writes to the kernel is what changed. How long it takes is printed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_costs_what_changed() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("scale");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut net = network("net", 100, 0);
    net.subnets[0].cidr = "10.0.0.0/16".parse().unwrap();
    let mut wanted = Wanted { networks: vec![net], groups: vec![open_group("g")], ..Wanted::default() };
    wanted.ports = vec![port("a", "net", 1, "10.0.0.11", &["g"])];
    wanted.remotes = (0..20_000u32)
        .map(|i| Remote {
            port: format!("r{i}"),
            network: "net".into(),
            mac: Mac([2, 1, 0, (i >> 16) as u8, (i >> 8) as u8, i as u8]),
            addresses: vec![std::net::Ipv4Addr::from(0x0a00_1000 + i).into()],
            vtep: vtep(9),
            groups: vec!["g".into()],
        })
        .collect();
    let pass = async |what: &str, wanted: &Wanted| {
        let start = Instant::now();
        let rows = apply(&plane, wanted).await;
        eprintln!("{what}: {rows} rows in {:?}", start.elapsed());
        rows
    };
    let all = pass("first pass, 20,000 remote endpoints", &wanted).await;
    assert!(all >= 20_000, "{all}");
    assert_eq!(pass("nothing changed", &wanted).await, 0);
    wanted.ports[0].allowed_pairs = vec![AddressPair { mac: None, cidr: "10.9.0.0/24".parse().unwrap() }];
    let one = pass("one port changed", &wanted).await;
    assert!((1..10).contains(&one), "{one}");
    wanted.remotes.pop();
    let gone = pass("one remote endpoint went", &wanted).await;
    assert!((1..10).contains(&gone), "{gone}");
}
