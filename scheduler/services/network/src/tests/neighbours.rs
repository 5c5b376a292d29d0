//! A change is told to every host that it concerns, and by news alone each keeps what it would be told anew.
//!
//! Each step of a project's life is taken through the API. Before and after it the view of each host is computed in
//! full: where they differ, the host must be among those that the step's changes concern.
use super::{
    Rig,
    host::{hosts, server},
    id,
};
use crate::{
    host::{HostInfo, interest::Concerned},
    port::ops,
};
use pilvi_agent_api::{neighbours::Room, v1};
use pilvi_kit::Fault;
use pilvi_reconcile::Reconcile;
use serde_json::{Value, json};
use std::collections::BTreeMap;

struct Watch<'r> {
    rig: &'r Rig,
    hosts: Vec<HostInfo>,
    seq: i64,
    views: BTreeMap<String, v1::HostNetwork>,
    /// As an agent keeps them that is told news alone.
    rooms: BTreeMap<String, Room>,
    /// Views that were computed again, and how many there are in all.
    again: (usize, usize),
}

impl<'r> Watch<'r> {
    async fn new(rig: &'r Rig, hosts: Vec<HostInfo>) -> Self {
        let mut watch = Watch { rig, hosts, seq: 0, views: BTreeMap::new(), rooms: BTreeMap::new(), again: (0, 0) };
        watch.seq = watch.changes().await.last().map_or(0, |c| c.seq);
        watch.views = watch.views().await;
        watch
    }

    async fn changes(&self) -> Vec<pilvi_store::Change> {
        self.rig.svc.store.changes(self.seq, 10_000).await.unwrap()
    }

    async fn views(&self) -> BTreeMap<String, v1::HostNetwork> {
        let mut views = BTreeMap::new();
        for host in &self.hosts {
            let view = self.rig.svc.host_network(&host.name, &self.hosts).await.unwrap();
            views.insert(host.name.clone(), view);
        }
        views
    }

    /// After a step: who was told, against who had to be.
    async fn look(&mut self, step: &str) {
        let changes = self.changes().await;
        self.seq = changes.last().map_or(self.seq, |c| c.seq);
        let mut told = Vec::new();
        match self.rig.svc.concerned(&changes).await.unwrap() {
            Concerned::Hosts(hosts) => told.extend(hosts),
            Concerned::All => told.extend(self.hosts.iter().map(|h| h.name.clone())),
        }
        for news in self.rig.svc.neighbours_news(&changes).await.unwrap() {
            let room = self.rooms.get_mut(&news.network_id).expect("news of a room that was asked for");
            room.apply(news).unwrap_or_else(|_| panic!("{step}: the news do not fit"));
        }
        let after = self.views().await;
        for (host, view) in &after {
            assert!(self.views[host] == *view || told.contains(host), "{step}: {host} was not told");
            self.again.0 += usize::from(told.contains(host));
            self.again.1 += 1;
        }
        self.views = after;
        // As the fleet does: rooms that some view names are kept, others are left.
        let named: Vec<String> =
            self.views.values().flat_map(|v| &v.networks).filter(|n| n.neighbours).map(|n| n.id.clone()).collect();
        let left: Vec<String> = self.rooms.keys().filter(|n| !named.contains(n)).cloned().collect();
        for network in left {
            self.rooms.remove(&network);
            self.rig.svc.leave_neighbours(&network);
        }
        // Whoever reads it all anew finds the same.
        let anew = crate::Network::new(self.rig.svc.store.clone());
        anew.remember(&self.hosts);
        for (network, room) in &self.rooms {
            assert!(
                anew.neighbours(network, Some(room.version())).await.unwrap().is_none(),
                "{step}: not by news alone"
            );
        }
        for network in named {
            let known = self.rooms.get(&network).map(Room::version);
            if let Some(whole) = self.rig.svc.neighbours(&network, known).await.unwrap() {
                assert!(known.is_none(), "{step}: told twice");
                self.rooms.entry(network).or_default().apply(whole).unwrap();
            }
        }
    }

    /// Hosts come, go or change: who was told, against who had to be. Gives how many were told.
    async fn shift(&mut self, step: &str, hosts: Vec<HostInfo>) -> usize {
        let before = self.rig.svc.hosts();
        assert!(self.rig.svc.remember(&hosts));
        let told = self.rig.svc.concerned_by_hosts(&before).await.unwrap();
        self.hosts = hosts;
        let after = self.views().await;
        for (host, view) in &after {
            let same = self.views.get(host).is_some_and(|before| before == view);
            assert!(same || told.contains(host), "{step}: {host} was not told");
        }
        self.views = after;
        told.len()
    }

    fn names(&self, network: &str) -> Vec<String> {
        self.rooms[network].members().flat_map(|r| r.names.iter().map(|n| n.name.clone())).collect()
    }

    fn vteps(&self, network: &str) -> Vec<String> {
        let endpoints = self.rooms[network].members().filter(|r| !r.vtep.is_empty());
        let mut vteps: Vec<String> = endpoints.map(|r| r.vtep.clone()).collect();
        vteps.sort();
        vteps
    }
}

impl Rig {
    async fn bind(&self, port: &str, host: Option<&str>) {
        let (port, host) = (port.to_owned(), host.map(str::to_owned));
        let bound = self.svc.store.write(move |tx| {
            let (port, host) = (port.clone(), host.clone());
            Box::pin(async move { ops::bind_in(tx, &port, host.as_deref()).await.map(drop) })
        });
        let bound: Result<(), Fault> = bound.await;
        bound.unwrap();
    }

    async fn put(&self, path: &str, body: Value) {
        self.want(200, &self.alice, "PUT", path, body).await;
    }
}

#[tokio::test]
async fn every_change_reaches_the_hosts_it_concerns() {
    let rig = &Rig::new().await;
    let external = rig.external().await;
    let mut w = Watch::new(rig, hosts(5)).await;
    let net = rig.network(&rig.alice, "net").await;
    let subnet = rig.subnet(&rig.alice, &net, "10.1.0.0/24").await;
    let far = rig.network(&rig.alice, "far").await;
    let far_subnet = rig.subnet(&rig.alice, &far, "10.2.0.0/24").await;
    let first = server(rig, &net, "s1", "h1").await;
    w.look("a first server").await;
    let second = server(rig, &net, "s2", "h2").await;
    w.look("a neighbour").await;
    let third = server(rig, &far, "s3", "h3").await;
    w.look("one on another network").await;
    assert_eq!(w.vteps(&net), ["10.255.0.1", "10.255.0.2"]);

    let group = id(&rig.make(&rig.alice, "/v2.0/security-groups", "security_group", json!({"name": "g"})).await);
    w.look("a group").await;
    rig.put(&format!("/v2.0/ports/{first}"), json!({"port": {"security_groups": [group]}})).await;
    w.look("a port joins a group").await;
    let rule = json!({"security_group_id": group, "direction": "ingress", "protocol": "tcp", "port_range_min": 80,
        "port_range_max": 80, "ethertype": "IPv4"});
    let rule = id(&rig.make(&rig.alice, "/v2.0/security-group-rules", "security_group_rule", rule).await);
    w.look("a rule").await;
    let blocks = json!({"name": "a", "addresses": ["192.0.2.0/24"]});
    let blocks = id(&rig.make(&rig.alice, "/v2.0/address-groups", "address_group", blocks).await);
    let named = json!({"security_group_id": group, "direction": "ingress", "remote_address_group_id": blocks});
    rig.make(&rig.alice, "/v2.0/security-group-rules", "security_group_rule", named).await;
    w.look("a rule that names addresses").await;
    let more = json!({"addresses": ["198.51.100.0/24"]});
    rig.put(&format!("/v2.0/address-groups/{blocks}/add_addresses"), more).await;
    w.look("more addresses").await;
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/security-group-rules/{rule}"), Value::Null).await;
    w.look("a rule less").await;

    let router = id(&rig.make(&rig.alice, "/v2.0/routers", "router", json!({"name": "r"})).await);
    w.look("a router by itself").await;
    for subnet in [&subnet, &far_subnet] {
        rig.put(&format!("/v2.0/routers/{router}/add_router_interface"), json!({"subnet_id": subnet})).await;
        w.look("a router's leg").await;
    }
    assert_eq!(w.rooms.len(), 2);
    let gateway = json!({"router": {"external_gateway_info": {"network_id": external}}});
    rig.put(&format!("/v2.0/routers/{router}"), gateway).await;
    w.look("a way out").await;
    let floating = json!({"floating_network_id": external, "port_id": first});
    let floating = id(&rig.make(&rig.alice, "/v2.0/floatingips", "floatingip", floating).await);
    w.look("a floating IP").await;
    for port in [json!(third), json!(second), Value::Null] {
        rig.put(&format!("/v2.0/floatingips/{floating}"), json!({"floatingip": {"port_id": port}})).await;
        w.look("it moves").await;
    }
    let named =
        json!({"floating_network_id": external, "port_id": first, "dns_name": "db", "dns_domain": "example.org."});
    let named = id(&rig.make(&rig.alice, "/v2.0/floatingips", "floatingip", named).await);
    w.look("one with a name").await;
    assert_eq!(w.names(&net).iter().filter(|n| n.starts_with("db.example.org.")).count(), 1);
    rig.put(&format!("/v2.0/floatingips/{named}"), json!({"floatingip": {"port_id": second}})).await;
    w.look("the name moves").await;
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/floatingips/{named}"), Value::Null).await;
    w.look("the name goes").await;
    assert!(w.names(&net).iter().all(|n| !n.starts_with("db.example.org.")), "{:?}", w.names(&net));
    let to = w.views["h1"].ports[0].fixed_ips[0].address.clone();
    let forward = json!({"protocol": "tcp", "external_port": 2222, "internal_port": 22, "internal_port_id": first,
        "internal_ip_address": to});
    let path = format!("/v2.0/floatingips/{floating}/port_forwardings");
    let forward = id(&rig.make(&rig.alice, &path, "port_forwarding", forward).await);
    w.look("a forwarding").await;
    rig.put(&format!("{path}/{forward}"), json!({"port_forwarding": {"external_port": 2223}})).await;
    w.look("another port of it").await;
    rig.want(204, &rig.alice, "DELETE", &format!("{path}/{forward}"), Value::Null).await;
    w.look("no forwarding").await;

    let policy = id(&rig.make(&rig.admin, "/v2.0/qos/policies", "policy", json!({"name": "q", "shared": true})).await);
    rig.put(&format!("/v2.0/networks/{net}"), json!({"network": {"qos_policy_id": policy}})).await;
    w.look("a policy").await;
    let limit = format!("/v2.0/qos/policies/{policy}/bandwidth_limit_rules");
    rig.make(&rig.admin, &limit, "bandwidth_limit_rule", json!({"max_kbps": 1000})).await;
    w.look("its rule").await;
    let mark = format!("/v2.0/qos/policies/{policy}/dscp_marking_rules");
    rig.make(&rig.admin, &mark, "dscp_marking_rule", json!({"dscp_mark": 10})).await;
    w.look("another rule").await;
    let label = id(&rig
        .make(&rig.admin, "/v2.0/metering/metering-labels", "metering_label", json!({"name": "m", "shared": true}))
        .await);
    let counted = json!({"metering_label_id": label, "direction": "egress", "source_ip_prefix": "10.1.0.0/24"});
    rig.make(&rig.admin, "/v2.0/metering/metering-label-rules", "metering_label_rule", counted).await;
    w.look("a label").await;

    let below = rig.network(&rig.alice, "below").await;
    rig.subnet(&rig.alice, &below, "10.3.0.0/24").await;
    let inner = json!({"network_id": below});
    let inner = id(&rig.make(&rig.alice, "/v2.0/ports", "port", inner).await);
    let parent = id(&rig.make(&rig.alice, "/v2.0/ports", "port", json!({"network_id": net})).await);
    let trunk = id(&rig.make(&rig.alice, "/v2.0/trunks", "trunk", json!({"port_id": parent})).await);
    w.look("a trunk of no server").await;
    rig.bind(&parent, Some("h1")).await;
    w.look("a trunk").await;
    let sub = json!({"sub_ports": [{"port_id": inner, "segmentation_type": "vlan", "segmentation_id": 7}]});
    rig.put(&format!("/v2.0/trunks/{trunk}/add_subports"), sub).await;
    w.look("a subport").await;
    assert!(w.views["h1"].ports.iter().any(|p| p.id == inner));
    rig.put(&format!("/v2.0/trunks/{trunk}/remove_subports"), json!({"sub_ports": [{"port_id": inner}]})).await;
    w.look("no subport").await;

    rig.bind(&second, Some("h4")).await;
    w.look("a server moves").await;
    assert_eq!(w.vteps(&net), ["10.255.0.1", "10.255.0.1", "10.255.0.4"]);
    rig.bind(&second, None).await;
    w.look("a server is shelved").await;
    rig.bind(&second, Some("h2")).await;
    w.look("and comes back").await;
    rig.put(&format!("/v2.0/networks/{net}"), json!({"network": {"admin_state_up": false}})).await;
    w.look("a network goes down").await;
    rig.put(&format!("/v2.0/subnets/{subnet}"), json!({"subnet": {"dns_nameservers": ["9.9.9.9"]}})).await;
    w.look("a subnet changes").await;
    rig.put(&format!("/v2.0/routers/{router}/remove_router_interface"), json!({"subnet_id": far_subnet})).await;
    w.look("a leg less").await;
    rig.put(&format!("/v2.0/routers/{router}"), json!({"router": {"external_gateway_info": null}})).await;
    w.look("no way out").await;
    let own = rig.network(&rig.alice, "own").await;
    rig.subnet(&rig.alice, &own, "10.4.0.0/24").await;
    server(rig, &own, "s5", "h5").await;
    w.look("somebody elsewhere").await;
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/ports/{second}"), Value::Null).await;
    w.look("a port is deleted").await;
    assert_eq!(w.vteps(&net).len(), 2);
    let (again, all) = w.again;
    assert!(again * 2 < all, "most views are none of a change's business: {again} of {all} were computed again");
}

#[tokio::test]
async fn a_host_that_gets_an_address_appears_to_its_neighbours() {
    let rig = &Rig::new().await;
    let mut all = hosts(3);
    all[1].vtep.clear();
    let mut w = Watch::new(rig, all.clone()).await;
    let net = rig.network(&rig.alice, "net").await;
    rig.subnet(&rig.alice, &net, "10.1.0.0/24").await;
    for (server_id, host) in [("s1", "h1"), ("s2", "h2")] {
        server(rig, &net, server_id, host).await;
    }
    w.look("two servers").await;
    assert_eq!(w.vteps(&net).len(), 1);
    for vtep in ["10.255.0.2", "10.255.9.2"] {
        all[1].vtep = vtep.to_owned();
        w.hosts.clone_from(&all);
        assert!(rig.svc.remember(&all));
        w.look("its host moved").await;
        assert!(w.vteps(&net).contains(&vtep.to_owned()), "{:?}", w.vteps(&net));
    }
    // So does one that begins to encrypt, has another key, or ends it.
    for key in [Some(1), Some(2), None] {
        all[1].wireguard = key.map(|n| v1::Wireguard { public_key: vec![n; 32], port: 51820 });
        w.hosts.clone_from(&all);
        assert!(rig.svc.remember(&all));
        w.look("its host has another key").await;
        let told: Vec<_> = w.rooms[&net].members().filter(|r| r.vtep == "10.255.9.2").collect();
        assert!(!told.is_empty() && told.iter().all(|r| r.wireguard == all[1].wireguard), "{told:?}");
    }
}

/// Of a host that comes, goes or is down those hear whose ways out are held elsewhere now, and no others.
#[tokio::test]
async fn hosts_that_come_and_go_are_news_to_those_whose_ways_out_move() {
    let rig = &Rig::new().await;
    let external = rig.external().await;
    let all = hosts(9);
    let mut w = Watch::new(rig, all.clone()).await;
    let keeper = crate::spare::Keeper::new(rig.svc.clone());
    for n in 0..9 {
        let net = rig.network(&rig.admin, "net").await;
        let subnet = rig.subnet(&rig.admin, &net, "10.1.0.0/24").await;
        let attrs = json!({"project_id": "alice", "ha": n % 2 == 0, "external_gateway_info": {"network_id": external}});
        let router = id(&rig.make(&rig.admin, "/v2.0/routers", "router", attrs).await);
        let leg = format!("/v2.0/routers/{router}/add_router_interface");
        rig.want(200, &rig.admin, "PUT", &leg, json!({"subnet_id": subnet})).await;
        server(rig, &net, &format!("s{n}"), &format!("h{}", n + 1)).await;
    }
    w.look("routers and servers").await;
    for router in keeper.all().await.unwrap() {
        keeper.reconcile(&router).await.unwrap();
    }
    w.look("those who stand by").await;
    let mut told = 0;
    for one in &all {
        let down = all.iter().map(|h| HostInfo { up: h != one, ..h.clone() }).collect();
        told += w.shift("one is down", down).await;
        told += w.shift("it is back", all.clone()).await;
        let gone: Vec<HostInfo> = all.iter().filter(|h| *h != one).cloned().collect();
        told += w.shift("one is gone", gone).await;
        told += w.shift("it is new", all.clone()).await;
    }
    assert!(told < 9 * 4 * 9 / 2, "most are not concerned: {told}");
    let mut moved = all.clone();
    moved[4].vtep = "10.255.9.5".into();
    w.shift("another address", moved).await;
    w.shift("one is left", all[..1].to_vec()).await;
    w.shift("all are back", all).await;
}
