//! Servers on routed networks: they go where there are addresses; and what placement and aggregates say of segments.
use super::Rig;
use crate::{
    host::segment::Segments,
    server::{model::VmState, reconcile::Servers},
    tables::{Aggregate, NetworkWish, Server},
};
use futures::future::join_all;
use pilvi_kit::{Fault, testing::caller};
use pilvi_network::{
    host::HostInfo, network::model::VirtualNetwork, port::model::Port, segment::model::Segment, subnet::model::Subnet,
    verbs::Api,
};
use pilvi_placement::provider::model::Provider;
use pilvi_reconcile::{Driver, Reconcile};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};

const FIRST: &str = "10.1.0";
const SECOND: &str = "10.2.0";

/// A network with a wire in each of two racks.
struct Racks {
    network: String,
    segments: [String; 2],
    subnets: [String; 2],
}

impl Rig {
    /// Hosts and the wires that they say they have.
    async fn racks(&self, hosts: &[(&str, &[&str])]) {
        let mut all = Vec::new();
        for (name, wires) in hosts {
            self.host(name, 0).await;
            let physical = Some(wires.iter().map(|w| (*w).to_owned()).collect());
            all.push(HostInfo { name: (*name).to_owned(), up: true, physical, ..HostInfo::default() });
        }
        self.svc.network.learn_reach(&all).await.unwrap();
    }

    /// A routed network with so many addresses in each rack.
    async fn routed(&self, addresses: [u8; 2]) -> Racks {
        let made: VirtualNetwork =
            self.api(json!({"provider:network_type": "flat", "provider:physical_network": "rack1"})).await;
        let first = self.svc.store.list::<Segment>(Query::all()).await.unwrap().remove(0).record;
        let second: Segment =
            self.api(json!({"network_id": made.id, "network_type": "flat", "physical_network": "rack2"})).await;
        let segments = [first.id, second.id];
        let mut subnets = Vec::new();
        for ((segment, net), n) in segments.iter().zip([FIRST, SECOND]).zip(addresses) {
            let pool = json!([{"start": format!("{net}.10"), "end": format!("{net}.{}", 9 + n)}]);
            let subnet: Subnet = self
                .api(json!({"network_id": made.id, "cidr": format!("{net}.0/24"), "ip_version": 4,
                    "segment_id": segment, "allocation_pools": pool}))
                .await;
            subnets.push(subnet.id);
        }
        Racks { network: made.id, segments, subnets: subnets.try_into().unwrap() }
    }

    async fn pass(&self, server: &str) -> Server {
        Servers::new(self.svc.clone()).reconcile(server).await.unwrap();
        self.record(server).await
    }

    /// A server with ports of its own on these networks, placed if it can be.
    async fn on(&self, networks: &[&str]) -> Server {
        let id = self.asked(networks.iter().map(|network| wish(network, None)).collect()).await;
        self.pass(&id).await
    }

    async fn addresses(&self, server: &Server) -> Vec<String> {
        let mut all = Vec::new();
        for port in &server.ports {
            let port = self.svc.store.get::<Port>(&port.id).await.unwrap().unwrap();
            all.extend(port.record.fixed_ips.into_iter().map(|f| f.ip_address));
        }
        all
    }

    async fn delete<R: Api>(&self, id: &str) {
        let (id, ctx) = (id.to_owned(), super::ctx(&self.alice));
        self.svc
            .store
            .write(move |tx| {
                let (id, ctx) = (id.clone(), ctx.clone());
                Box::pin(async move {
                    let found = tx.get::<R>(&id).await?.ok_or_else(|| Fault::not_found("It is gone."))?;
                    R::delete_in(tx, &ctx, found).await
                })
            })
            .await
            .unwrap();
    }

    async fn provider(&self, id: &str) -> Option<Provider> {
        self.svc.store.get::<Provider>(id).await.unwrap().map(|found| found.record)
    }
}

fn wish(network: &str, address: Option<&str>) -> NetworkWish {
    NetworkWish { network_id: Some(network.to_owned()), port_id: None, fixed_ip: address.map(str::to_owned), tag: None }
}

fn reason(server: &Server) -> String {
    assert_eq!((&server.host, server.vm_state), (&None, VmState::Error));
    server.fault.as_ref().unwrap().message.clone()
}

#[tokio::test]
async fn servers_go_where_there_are_addresses() {
    let rig = Rig::new().await;
    rig.racks(&[("a", &["rack1"]), ("b", &["rack2"]), ("z", &[])]).await;
    let racks = rig.routed([1, 1]).await;
    let mut hosts = BTreeSet::new();
    for _ in 0..2 {
        let server = rig.on(&[&racks.network]).await;
        let address = rig.addresses(&server).await.remove(0);
        hosts.insert((server.host.unwrap(), address));
    }
    assert_eq!(hosts, BTreeSet::from([("a".into(), format!("{FIRST}.10")), ("b".into(), format!("{SECOND}.10"))]));
    let full = rig.on(&[&racks.network]).await;
    assert!(reason(&full).contains("segment of its routed networks with free addresses"), "{}", reason(&full));
    // Where it is not addresses that are missing, nobody says so.
    let mut large = rig.svc.store.get::<Server>(&rig.asked(vec![]).await).await.unwrap().unwrap();
    large.record.flavor.vcpus = 10_000;
    let id = large.record.id.clone();
    rig.svc
        .store
        .write(move |tx| {
            let large = large.clone();
            Box::pin(async move { Ok::<_, Fault>(tx.update(&large).await?) })
        })
        .await
        .unwrap();
    assert!(reason(&rig.pass(&id).await).ends_with("There are not enough hosts available."));
    // A network that is not routed has its addresses everywhere.
    let plain = rig.network(&rig.alice, "10.9.0.0/24", json!({})).await;
    assert!(rig.on(&[&plain]).await.host.is_some());
}

#[tokio::test]
async fn addresses_that_are_known_choose_the_hosts() {
    let rig = Rig::new().await;
    rig.racks(&[("a", &["rack1"]), ("b", &["rack2"]), ("c", &["rack2"])]).await;
    let racks = rig.routed([9, 9]).await;
    let there = format!("{SECOND}.12");
    for _ in 0..2 {
        let named = rig.asked(vec![wish(&racks.network, Some(&there))]).await;
        let named = rig.pass(&named).await;
        if let Some(host) = &named.host {
            assert!(host == "b" || host == "c");
            assert_eq!(rig.addresses(&named).await, [there.as_str()]);
            // It can move within its rack alone.
            let others = rig.svc.hosts_to_move_to(&named, None).await.unwrap();
            assert_eq!(others.len(), 1);
            assert!(others[0] != *host && others[0] != "a", "{others:?}");
            assert!(rig.svc.hosts_to_move_to(&named, Some("a".into())).await.unwrap().is_empty());
        } else {
            assert!(reason(&named).contains(&there), "the second one asks for what is taken: {}", reason(&named));
        }
    }
    let wished = json!({"network_id": racks.network, "fixed_ips": [{"subnet_id": racks.subnets[1]}]});
    let port: Port = rig.api(wished).await;
    assert_ne!(rig.placed(&port.id).await.host.unwrap(), "a");
    let waiting: Port = rig.api(json!({"network_id": racks.network})).await;
    assert!(waiting.deferred);
    let server = rig.placed(&waiting.id).await;
    let net = if server.host.as_deref() == Some("a") { FIRST } else { SECOND };
    assert!(rig.addresses(&server).await[0].starts_with(net));
}

#[tokio::test]
async fn whoever_loses_the_last_address_goes_to_another_segment() {
    let rig = Rig::new().await;
    // Hosts of the first rack would all be tried before the one of the second.
    rig.racks(&[("a", &["rack1"]), ("b", &["rack1"]), ("z", &["rack2"])]).await;
    let racks = rig.routed([1, 2]).await;
    // There is one address, but it needs two: only the transaction knows.
    let both = rig.on(&[&racks.network, &racks.network]).await;
    assert_eq!(both.host.as_deref(), Some("z"), "{:?}", both.fault);
    let mut addresses = rig.addresses(&both).await;
    addresses.sort();
    assert_eq!(addresses, [format!("{SECOND}.10"), format!("{SECOND}.11")]);
    // What was tried in vain has left nothing: the first rack's address is still to be had.
    assert_eq!(rig.addresses(&rig.on(&[&racks.network]).await).await, [format!("{FIRST}.10")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_servers_get_every_address_once() {
    let rig = Rig::new().await;
    rig.racks(&[("a", &["rack1"]), ("b", &["rack1"]), ("y", &["rack2"]), ("z", &["rack2"])]).await;
    let racks = rig.routed([3, 3]).await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(rig.asked(vec![wish(&racks.network, None)]).await);
    }
    let passes = ids.iter().map(|id| {
        let (servers, id) = (Servers::new(rig.svc.clone()), id.clone());
        tokio::spawn(async move { while servers.reconcile(&id).await.is_err() {} })
    });
    join_all(passes).await.into_iter().for_each(|pass| pass.unwrap());
    let (mut placed, mut addresses) = (0, BTreeSet::new());
    for id in &ids {
        let server = rig.record(id).await;
        match &server.host {
            Some(host) => {
                let rack = if ["a", "b"].contains(&host.as_str()) { FIRST } else { SECOND };
                let address = rig.addresses(&server).await.remove(0);
                assert!(address.starts_with(rack), "{address} on {host}");
                addresses.insert(address);
                placed += 1;
            }
            None => assert!(reason(&server).contains("free addresses")),
        }
    }
    assert_eq!((placed, addresses.len()), (6, 6));
}

/// Waits until it is so.
async fn until<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    let waited = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(Duration::from_secs(20), waited).await.is_ok(), "not in time: {what}");
}

#[tokio::test]
async fn placement_and_aggregates_say_what_segments_have() {
    let rig = Rig::new().await;
    let (stop, stopped) = watch::channel(false);
    let driver = Driver::new(Arc::new(Segments::new(rig.svc.clone())));
    let running = tokio::spawn(driver.run(rig.svc.store.clone(), stopped));
    rig.racks(&[("a", &["rack1"]), ("b", &["rack2"]), ("c", &["rack1", "rack2"])]).await;
    let racks = rig.routed([5, 5]).await;
    let [first, second] = &racks.segments;
    let rig = &rig;
    let reserved = |segment: &str, n: i64| {
        let segment = segment.to_owned();
        async move { rig.provider(&segment).await.is_some_and(|p| p.inventories["IPV4_ADDRESS"].reserved == n) }
    };
    let hosts_of = |segment: &str| {
        let segment = segment.to_owned();
        async move {
            let found = rig.svc.store.get::<Aggregate>(&segment).await.unwrap();
            found.map(|aggregate| aggregate.record.hosts).unwrap_or_default()
        }
    };
    until("the gateway is counted", || reserved(second, 1)).await;
    until("the hosts are there", || async { hosts_of(second).await == ["b", "c"] }).await;
    let provider = rig.provider(first).await.unwrap();
    assert_eq!(provider.name, format!("Neutron segment id {first}"));
    let inventory = &provider.inventories["IPV4_ADDRESS"];
    assert_eq!((inventory.total, inventory.max_unit, inventory.allocation_ratio), (6, 1, 1.0));
    assert_eq!(provider.aggregates, BTreeSet::from([first.clone()]));
    // Ports count, whoever has them and whether they are anywhere; those outside of the pools do not.
    let port: Port =
        rig.api(json!({"network_id": racks.network, "fixed_ips": [{"subnet_id": racks.subnets[0]}]})).await;
    until("a port without a host", || reserved(first, 2)).await;
    let outside = format!("{FIRST}.99");
    let _: Port = rig.api(json!({"network_id": racks.network, "fixed_ips": [{"ip_address": outside}]})).await;
    let server = rig.on(&[&racks.network]).await;
    let its = if rig.addresses(&server).await[0].starts_with(FIRST) { first } else { second };
    until("a server's port", || reserved(its, if its == first { 3 } else { 2 })).await;
    rig.delete::<Port>(&port.id).await;
    until("it is gone", || reserved(first, if its == first { 2 } else { 1 })).await;
    // The hosts are members in placement too, where tools ask for them.
    let nodes = rig.svc.fleet.nodes().await.unwrap();
    for node in &nodes {
        let wanted: BTreeSet<String> = match node.name.as_str() {
            "a" => [first.clone()].into(),
            "b" => [second.clone()].into(),
            _ => [first.clone(), second.clone()].into(),
        };
        until("members", || async { rig.provider(&node.id).await.unwrap().aggregates == wanted }).await;
    }
    let admin = caller("alice", &["admin"]);
    let listed = rig.want(200, &admin, "GET /v2.1/os-aggregates", Value::Null).await;
    let names: BTreeSet<&str> =
        listed["aggregates"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
    let expected = racks.segments.clone().map(|segment| format!("Neutron segment id {segment}"));
    assert_eq!(names, expected.iter().map(String::as_str).collect());
    // A host is wired anew.
    let moved = HostInfo { name: "c".into(), physical: Some(vec!["rack2".into()]), ..HostInfo::default() };
    rig.svc.network.learn_reach(&[moved]).await.unwrap();
    until("c has left the first", || async { hosts_of(first).await == ["a"] }).await;
    until("and its provider", || async {
        let members = nodes.iter().filter(|n| n.name == "c").map(|n| rig.provider(&n.id));
        join_all(members).await.into_iter().flatten().all(|p| !p.aggregates.contains(first))
    })
    .await;
    // A segment without addresses is nothing that could be offered.
    for port in rig.svc.store.list::<Port>(Query::all()).await.unwrap() {
        rig.delete::<Port>(&port.id).await;
    }
    for subnet in &racks.subnets {
        rig.delete::<Subnet>(subnet).await;
    }
    until("nothing is left", || async {
        let left = rig.svc.store.count::<Aggregate>(Query::all()).await.unwrap();
        left == 0 && rig.provider(first).await.is_none() && rig.provider(second).await.is_none()
    })
    .await;
    for node in &nodes {
        assert!(rig.provider(&node.id).await.unwrap().aggregates.is_empty());
    }
    stop.send_replace(true);
    running.await.unwrap();
}
