//! What hosts are told: enough for their ports, nothing of strangers; and what they tell back.
use super::{Rig, id};
use crate::{
    host::HostInfo,
    port::ops::{self, NewPort},
};
use pilvi_agent_api::v1::{HostNetwork, ObservedPort, Remote};
use pilvi_kit::{Ctx, Fault};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn hosts(n: usize) -> Vec<HostInfo> {
    (1..=n)
        .map(|i| HostInfo { name: format!("h{i}"), vtep: format!("10.255.0.{i}"), up: true, ..HostInfo::default() })
        .collect()
}

/// A server's port of alice's, bound to `host`.
pub(super) async fn server(rig: &Rig, network: &str, device: &str, host: &str) -> String {
    let ctx = Ctx { caller: Arc::new(rig.alice.clone()), ..Ctx::internal() };
    let (network, device, host) = (network.to_owned(), device.to_owned(), host.to_owned());
    let port = rig
        .svc
        .store
        .write(move |tx| {
            let (ctx, host) = (ctx.clone(), host.clone());
            let new = NewPort {
                network_id: network.clone(),
                device_id: device.clone(),
                device_owner: "compute:nova".into(),
                dns_name: device.clone(),
                ..NewPort::default()
            };
            Box::pin(async move {
                let port = ops::create_in(tx, &ctx, new).await?;
                ops::bind_in(tx, &port.id, Some(&host)).await?;
                Ok::<_, Fault>(port)
            })
        })
        .await
        .unwrap();
    port.record.id
}

/// What a host is told, with what its agent adds to it of the rooms of its networks.
pub(super) async fn view(rig: &Rig, host: &str, hosts: &[HostInfo]) -> HostNetwork {
    let mut view = rig.svc.host_network(host, hosts).await.unwrap();
    assert!(view.remotes.is_empty() && view.zones.iter().all(|z| z.names.is_empty()));
    let vtep = hosts.iter().find(|h| h.name == host).map(|h| h.vtep.clone());
    rig.svc.forget_neighbours();
    for network in view.networks.iter().filter(|n| n.neighbours) {
        let whole = rig.svc.neighbours(&network.id, None).await.unwrap().unwrap();
        for zone in view.zones.iter_mut().filter(|z| z.network_id == network.id) {
            zone.names.extend(whole.changed.iter().flat_map(|r| r.names.clone()));
        }
        let elsewhere = |r: &Remote| !r.vtep.is_empty() && Some(&r.vtep) != vtep.as_ref();
        view.remotes.extend(whole.changed.into_iter().filter(elsewhere));
    }
    view
}

fn remotes(view: &HostNetwork) -> Vec<(&str, &str)> {
    view.remotes.iter().map(|r| (r.port_id.as_str(), r.vtep.as_str())).collect()
}

#[tokio::test]
async fn a_host_learns_what_its_ports_reach_and_no_more() {
    let rig = Rig::new().await;
    let all = hosts(3);
    let (near, far, apart) = (
        rig.network(&rig.alice, "near").await,
        rig.network(&rig.alice, "far").await,
        rig.network(&rig.alice, "apart").await,
    );
    let near_subnet = rig.subnet(&rig.alice, &near, "10.1.0.0/24").await;
    let far_subnet = rig.subnet(&rig.alice, &far, "10.2.0.0/24").await;
    rig.subnet(&rig.alice, &apart, "10.1.0.0/24").await;
    let mine = server(&rig, &near, "s1", "h1").await;
    let neighbour = server(&rig, &near, "s2", "h2").await;
    let beyond = server(&rig, &far, "s3", "h2").await;
    server(&rig, &apart, "s4", "h2").await;
    let before = view(&rig, "h1", &all).await;
    assert_eq!(before.networks.len(), 1);
    assert_eq!(before.ports.len(), 1);
    assert_eq!(before.ports[0].id, mine);
    assert_eq!(before.ports[0].instance_id, "s1");
    assert_eq!(before.ports[0].hostname, "s1");
    assert_eq!(remotes(&before), [(neighbour.as_str(), "10.255.0.2")]);
    assert_eq!(before.groups.len(), 1);
    assert_eq!(before.groups[0].rules.len(), 4);
    let subnet = &before.networks[0].subnets[0];
    assert_eq!((subnet.gateway.as_str(), subnet.dhcp_server.as_str(), subnet.dhcp), ("10.1.0.1", "10.1.0.1", true));
    assert_eq!(view(&rig, "h3", &all).await, HostNetwork::default(), "a host without ports needs nothing");

    let router = id(&rig.make(&rig.alice, "/v2.0/routers", "router", json!({"name": "r"})).await);
    for subnet in [&near_subnet, &far_subnet] {
        rig.want(
            200,
            &rig.alice,
            "PUT",
            &format!("/v2.0/routers/{router}/add_router_interface"),
            json!({"subnet_id": subnet}),
        )
        .await;
    }
    let after = view(&rig, "h1", &all).await;
    let mut reached: Vec<&str> = remotes(&after).into_iter().map(|(p, _)| p).collect();
    reached.sort_unstable();
    let mut expected = vec![neighbour.as_str(), beyond.as_str()];
    expected.sort_unstable();
    assert_eq!(reached, expected);
    assert_eq!(after.networks.len(), 2);
    assert_eq!(after.routers.len(), 1);
    let mut legs: Vec<(&str, u32)> =
        after.routers[0].interfaces.iter().map(|i| (i.address.as_str(), i.prefix)).collect();
    legs.sort_unstable();
    assert_eq!(legs, [("10.1.0.1", 24), ("10.2.0.1", 24)]);
    assert!(after.routers[0].gateway.is_none());
    rig.want(200, &rig.alice, "PUT", &format!("/v2.0/routers/{router}"), json!({"router": {"admin_state_up": false}}))
        .await;
    assert!(view(&rig, "h1", &all).await.routers.is_empty());
}

#[tokio::test]
async fn one_host_holds_the_way_out_and_all_agree_which() {
    let rig = Rig::new().await;
    let external = rig.external().await;
    let network = rig.network(&rig.alice, "n").await;
    let subnet = rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let router = rig
        .make(&rig.alice, "/v2.0/routers", "router", json!({"external_gateway_info": {"network_id": external}}))
        .await;
    rig.want(
        200,
        &rig.alice,
        "PUT",
        &format!("/v2.0/routers/{}/add_router_interface", id(&router)),
        json!({"subnet_id": subnet}),
    )
    .await;
    let port = server(&rig, &network, "s1", "h1").await;
    let floating = rig
        .make(&rig.alice, "/v2.0/floatingips", "floatingip", json!({"floating_network_id": external, "port_id": port}))
        .await;
    let alone = view(&rig, "h1", &hosts(1)).await;
    let gateway = alone.routers[0].gateway.clone().unwrap();
    assert_eq!(
        (gateway.vtep.as_str(), gateway.next_hop.as_str(), gateway.prefix, gateway.snat),
        ("", "172.24.4.1", 24, true)
    );
    assert_eq!(json!(gateway.address), router["external_gateway_info"]["external_fixed_ips"][0]["ip_address"]);
    assert_eq!(alone.floating.len(), 1);
    assert_eq!(json!(alone.floating[0].address), floating["floating_ip_address"]);
    let outside = alone.networks.iter().find(|n| n.external && n.id == external).unwrap();
    assert_eq!(outside.subnets[0].dhcp_server, "");
    let all = hosts(4);
    let mut holders = Vec::new();
    for host in ["h1", "h2", "h3", "h4"] {
        let seen = view(&rig, host, &all).await;
        if let Some(gateway) = seen.routers.first().and_then(|r| r.gateway.as_ref())
            && gateway.vtep.is_empty()
        {
            holders.push(host);
            assert!(host == "h1" || seen.remotes.len() == 1, "the holder knows the guests behind the router");
        }
    }
    assert_eq!(holders.len(), 1, "{holders:?}");
    let from_guest = view(&rig, "h1", &all).await;
    let vtep = from_guest.routers[0].gateway.as_ref().unwrap().vtep.clone();
    let expected = if holders[0] == "h1" {
        String::new()
    } else {
        all.iter().find(|h| h.name == holders[0]).unwrap().vtep.clone()
    };
    assert_eq!(vtep, expected);
}

#[tokio::test]
async fn ports_are_active_when_their_host_says_so() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let port = server(&rig, &network, "s1", "h1").await;
    let path = format!("/v2.0/ports/{port}");
    let seen = |wired| ObservedPort { id: port.clone(), wired, device: "tap0".into() };
    assert_eq!(rig.get(&rig.alice, &path).await["port"]["status"], "DOWN");
    rig.svc.observe("h2", &[seen(true)]).await.unwrap();
    assert_eq!(rig.get(&rig.alice, &path).await["port"]["status"], "DOWN", "another host's word does not count");
    rig.svc.observe("h1", &[seen(true)]).await.unwrap();
    let active = rig.get(&rig.alice, &path).await["port"].clone();
    assert_eq!(active["status"], "ACTIVE");
    rig.svc.observe("h1", &[seen(true)]).await.unwrap();
    assert_eq!(
        rig.get(&rig.alice, &path).await["port"]["revision_number"],
        active["revision_number"],
        "nothing changed, nothing written"
    );
    rig.svc.observe("h1", &[]).await.unwrap();
    assert_eq!(rig.get(&rig.alice, &path).await["port"]["status"], "DOWN");
}

#[tokio::test]
async fn servers_read_their_addresses_and_network_data() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    rig.make(
        &rig.alice,
        "/v2.0/subnets",
        "subnet",
        json!({"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24",
        "dns_nameservers": ["9.9.9.9"], "enable_dhcp": false}),
    )
    .await;
    let port = server(&rig, &network, "s1", "h1").await;
    let found = ops::addresses(&rig.svc.store, &["s1".to_owned(), "s2".to_owned()]).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found["s1"]["n"][0]["OS-EXT-IPS:type"], "fixed");
    let data = crate::host::network_data(&rig.svc.store, &[port]).await.unwrap();
    assert_eq!(data["networks"][0]["type"], "ipv4");
    assert_eq!(data["networks"][0]["netmask"], "255.255.255.0");
    assert_eq!(
        data["networks"][0]["routes"][0],
        json!({"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"})
    );
    assert_eq!(data["services"], json!([{"type": "dns", "address": "9.9.9.9"}]));
    assert_eq!(data["links"][0]["mtu"], 1450);
    assert_ne!(data["links"][0]["ethernet_mac_address"], Value::Null);
}

#[tokio::test]
async fn hosts_learn_how_ipv6_addresses_are_had() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "six").await;
    let modes = ["slaac", "dhcpv6-stateless", "dhcpv6-stateful"];
    for (n, mode) in modes.iter().enumerate() {
        let attrs = json!({"network_id": network, "ip_version": 6, "cidr": format!("fd00:{n}::/64"),
            "ipv6_ra_mode": mode, "ipv6_address_mode": mode, "name": mode});
        rig.make(&rig.alice, "/v2.0/subnets", "subnet", attrs).await;
    }
    rig.subnet(&rig.alice, &network, "fd00:7::/64").await;
    server(&rig, &network, "vm", "h1").await;
    let told = view(&rig, "h1", &hosts(1)).await;
    let of = |n: &str| {
        let subnet = told.networks[0].subnets.iter().find(|s| s.cidr == format!("fd00:{n}::/64"));
        subnet.map(|s| (s.ra().as_str_name(), s.dhcp, s.dhcp_server.as_str())).unwrap()
    };
    assert_eq!(of("1"), ("RA_STATELESS", true, ""));
    assert_eq!(of("2"), ("RA_STATEFUL", true, ""));
    assert_eq!(of("7"), ("RA_UNSPECIFIED", false, ""), "no mode: nobody says anything");
    let first = told.networks[0].subnets.iter().find(|s| s.cidr == "fd00::/64").unwrap();
    assert_eq!((first.ra().as_str_name(), first.dhcp), ("RA_SLAAC", false));
}

#[tokio::test]
async fn a_host_is_prepared_for_a_port_before_its_guest_comes() {
    let rig = Rig::new().await;
    let all = hosts(3);
    let network = rig.network(&rig.alice, "net").await;
    rig.subnet(&rig.alice, &network, "10.1.0.0/24").await;
    let port = server(&rig, &network, "s1", "h1").await;
    let bystander = server(&rig, &network, "s2", "h3").await;
    let change = async |step: u8| {
        let port = port.clone();
        let done = rig.svc.store.write(move |tx| {
            let port = port.clone();
            Box::pin(async move {
                match step {
                    0 => ops::prepare_in(tx, &port, "h2").await,
                    1 => ops::prepare_in(tx, &port, "").await,
                    _ => ops::follow_in(tx, &port, "h2").await,
                }
            })
        });
        done.await.unwrap();
    };
    let idle = async |host: &str| {
        let view = view(&rig, host, &all).await;
        view.ports.iter().find(|p| p.id == port).map(|p| p.idle)
    };
    let vtep = |n: usize| all[n].vtep.clone();
    let elsewhere = async |host: &str| {
        let view = view(&rig, host, &all).await;
        view.remotes.iter().find(|r| r.port_id == port).map(|r| r.vtep.clone())
    };
    change(0).await;
    assert_eq!((idle("h1").await, idle("h2").await), (Some(false), Some(true)));
    // Where it will be, its packets go to where it is; and so they do everywhere else.
    assert_eq!((elsewhere("h2").await, elsewhere("h3").await), (Some(vtep(0)), Some(vtep(0))));
    change(1).await;
    assert_eq!(idle("h2").await, None, "taken back");
    change(0).await;
    change(2).await;
    assert_eq!((idle("h1").await, idle("h2").await), (None, Some(false)));
    assert_eq!(elsewhere("h3").await, Some(vtep(1)));
    let _ = bystander;
}
