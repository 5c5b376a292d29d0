//! Networks of several segments: what subnets are on, when ports get addresses, and what hosts are told.
use super::{
    Rig,
    host::{hosts, view},
    id,
};
use crate::{
    host::HostInfo,
    segment::room::{self, Stock, Wish},
    tables::{AddressLease, find},
};
use serde_json::{Value, json};

async fn segment(rig: &Rig, network: &str, physical: &str) -> String {
    let body = json!({"network_id": network, "network_type": "flat", "physical_network": physical, "name": physical});
    id(&rig.make(&rig.admin, "/v2.0/segments", "segment", body).await)
}

async fn subnet_on(rig: &Rig, network: &str, cidr: &str, segment: &str) -> Value {
    let body = json!({"network_id": network, "cidr": cidr, "ip_version": 4, "segment_id": segment});
    rig.make(&rig.admin, "/v2.0/subnets", "subnet", body).await
}

fn racks() -> Vec<HostInfo> {
    let mut all = hosts(3);
    for (host, wires) in all.iter_mut().zip([vec!["rack1"], vec!["rack2"], vec![]]) {
        host.physical = Some(wires.into_iter().map(str::to_owned).collect());
    }
    all
}

/// A shared network with a wire in each of two racks; gives its id, its segments and their subnets.
async fn routed(rig: &Rig) -> (String, [String; 2], [Value; 2]) {
    rig.svc.learn_reach(&racks()).await.unwrap();
    let attrs = json!({"name": "routed", "shared": true, "provider:network_type": "flat", "provider:physical_network": "rack1"});
    let network = id(&rig.make(&rig.admin, "/v2.0/networks", "network", attrs).await);
    let first = rig.get(&rig.admin, &format!("/v2.0/segments?network_id={network}")).await["segments"][0].clone();
    assert_eq!((&first["physical_network"], &first["name"]), (&json!("rack1"), &Value::Null));
    let segments = [id(&first), segment(rig, &network, "rack2").await];
    let one = subnet_on(rig, &network, "10.1.0.0/24", &segments[0]).await;
    let two = subnet_on(rig, &network, "10.2.0.0/24", &segments[1]).await;
    (network, segments, [one, two])
}

#[tokio::test]
async fn a_network_is_made_of_segments() {
    let rig = Rig::new().await;
    let (network, segments, _) = routed(&rig).await;
    let shown = rig.get(&rig.admin, &format!("/v2.0/networks/{network}")).await["network"].clone();
    assert_eq!(shown["l2_adjacency"], false);
    assert_eq!(shown["segments"][1]["provider:physical_network"], "rack2");
    assert_eq!(shown["provider:physical_network"], Value::Null);
    let path = |id: &str| format!("/v2.0/segments/{id}");
    let renamed = rig.want(200, &rig.admin, "PUT", &path(&segments[1]), json!({"segment": {"name": "b"}})).await;
    assert_eq!(renamed["segment"]["name"], "b");
    assert_eq!(rig.refused(409, &rig.admin, "DELETE", &path(&segments[1]), Value::Null).await, "SegmentInUse");
    let more = json!({"segment": {"network_id": network, "network_type": "flat", "physical_network": "rack2"}});
    assert_eq!(rig.refused(409, &rig.admin, "POST", "/v2.0/segments", more).await, "FlatNetworkInUse");
    let nowhere = json!({"segment": {"network_id": network, "network_type": "vlan", "segmentation_id": 7}});
    assert_eq!(rig.refused(400, &rig.admin, "POST", "/v2.0/segments", nowhere).await, "InvalidInput");
    let spare = rig
        .make(&rig.admin, "/v2.0/segments", "segment", json!({"network_id": network, "network_type": "vxlan"}))
        .await;
    assert!(spare["segmentation_id"].as_u64().unwrap() > 0);
    rig.want(204, &rig.admin, "DELETE", &path(&id(&spare)), Value::Null).await;
    // Segments are nobody's but the cloud's.
    assert_eq!(rig.get(&rig.alice, "/v2.0/segments").await["segments"], json!([]));
    rig.refused(404, &rig.alice, "GET", &path(&segments[0]), Value::Null).await;
    rig.want(204, &rig.admin, "DELETE", &format!("/v2.0/networks/{network}"), Value::Null).await;
    assert_eq!(rig.get(&rig.admin, "/v2.0/segments").await["segments"], json!([]));
}

#[tokio::test]
async fn subnets_are_all_on_segments_or_none_is() {
    let rig = Rig::new().await;
    let (network, segments, subnets) = routed(&rig).await;
    let subnet = |more: Value| {
        let mut body = json!({"network_id": network, "cidr": "10.3.0.0/24", "ip_version": 4});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "subnet": body })
    };
    let post = |more: Value| rig.refused(400, &rig.admin, "POST", "/v2.0/subnets", subnet(more));
    assert_eq!(post(json!({})).await, "SubnetsNotAllAssociatedWithSegments");
    let other = rig.network(&rig.admin, "other").await;
    let foreign = segment(&rig, &other, "rack9").await;
    assert_eq!(post(json!({"segment_id": foreign})).await, "NetworkIdsDontMatch");
    let path = format!("/v2.0/subnets/{}", id(&subnets[0]));
    let change = json!({"subnet": {"segment_id": segments[1]}});
    assert_eq!(rig.refused(400, &rig.admin, "PUT", &path, change).await, "SubnetSegmentAssociationChangeNotAllowed");
    // Each knows the way to its peers, as long as they are there, by the gateway that it has.
    let rig = &rig;
    let routes = |at: String| async move { rig.get(&rig.admin, &at).await["subnet"]["host_routes"].clone() };
    let routes_of = |n: usize| routes(format!("/v2.0/subnets/{}", subnets[n]["id"].as_str().unwrap()));
    let peer = |destination: &str, nexthop: &str| json!([{"destination": destination, "nexthop": nexthop}]);
    assert_eq!(routes_of(0).await, peer("10.2.0.0/24", "10.1.0.1"));
    assert_eq!(subnets[1]["host_routes"], peer("10.1.0.0/24", "10.2.0.1"));
    rig.want(200, &rig.admin, "PUT", &path, json!({"subnet": {"gateway_ip": "10.1.0.254", "allocation_pools": [{"start": "10.1.0.2", "end": "10.1.0.99"}]}})).await;
    let moved = rig.get(&rig.admin, &path).await["subnet"]["host_routes"].clone();
    assert_eq!(moved, peer("10.2.0.0/24", "10.1.0.254"));
    rig.want(204, &rig.admin, "DELETE", &format!("/v2.0/subnets/{}", id(&subnets[1])), Value::Null).await;
    assert_eq!(rig.get(&rig.admin, &path).await["subnet"]["host_routes"], json!([]));
}

#[tokio::test]
async fn a_port_gets_addresses_with_its_host() {
    let rig = Rig::new().await;
    let (network, _, subnets) = routed(&rig).await;
    let port = rig.port(&rig.alice, &network).await;
    assert_eq!((&port["ip_allocation"], &port["fixed_ips"]), (&json!("deferred"), &json!([])));
    let path = format!("/v2.0/ports/{}", id(&port));
    let bind = |host: &str| json!({"port": {"binding:host_id": host}});
    assert_eq!(rig.refused(409, &rig.admin, "PUT", &path, bind("h3")).await, "HostNotConnectedToAnySegment");
    let bound = rig.want(200, &rig.admin, "PUT", &path, bind("h2")).await["port"].clone();
    assert_eq!(
        (&bound["ip_allocation"], &bound["fixed_ips"][0]["subnet_id"]),
        (&json!("immediate"), &subnets[1]["id"])
    );
    assert_eq!(rig.refused(409, &rig.admin, "PUT", &path, bind("h1")).await, "HostNotCompatibleWithFixedIps");
    // With the host known from the start there is nothing to wait for, and wishes must work there.
    let at = |host: &str, more: Value| {
        let mut body = json!({"network_id": network, "binding:host_id": host});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "port": body })
    };
    let here = rig.want(201, &rig.admin, "POST", "/v2.0/ports", at("h1", json!({}))).await["port"].clone();
    assert_eq!(here["fixed_ips"][0]["subnet_id"], subnets[0]["id"]);
    let wrong = at("h1", json!({"fixed_ips": [{"subnet_id": subnets[1]["id"]}]}));
    assert_eq!(rig.refused(409, &rig.admin, "POST", "/v2.0/ports", wrong).await, "HostNotCompatibleWithFixedIps");
    let both = json!({"fixed_ips": [{"subnet_id": subnets[0]["id"]}, {"subnet_id": subnets[1]["id"]}]});
    assert_eq!(
        rig.refused(400, &rig.admin, "POST", "/v2.0/ports", at("", both)).await,
        "FixedIpsSubnetsNotOnSameSegment"
    );
    let none = rig.want(201, &rig.admin, "POST", "/v2.0/ports", at("", json!({"fixed_ips": []}))).await;
    assert_eq!(none["port"]["ip_allocation"], "none");
}

#[tokio::test]
async fn hosts_are_told_each_segment_by_itself() {
    let rig = Rig::new().await;
    let (network, _, subnets) = routed(&rig).await;
    let all = racks();
    for host in ["h1", "h2"] {
        let body = json!({"port": {"network_id": network, "binding:host_id": host}});
        rig.want(201, &rig.admin, "POST", "/v2.0/ports", body).await;
    }
    let (one, two) = (view(&rig, "h1", &all).await, view(&rig, "h2", &all).await);
    let inside = |v: &pilvi_agent_api::v1::HostNetwork| {
        let port = v.ports[0].network_id.clone();
        let l2 = v.networks.iter().find(|n| n.id == port).unwrap().clone();
        (l2.vni, l2.external, l2.subnets.iter().map(|s| s.id.clone()).collect::<Vec<_>>())
    };
    let (a, b) = (inside(&one), inside(&two));
    assert_ne!(a.0, b.0);
    assert!(a.1 && b.1, "each is on its own wire");
    assert_eq!((a.2, b.2), (vec![id(&subnets[0])], vec![id(&subnets[1])]));
    assert_eq!(one.networks.len(), 1, "h1 has nothing in the other rack");
    // Whoever is in one rack is no neighbour of the other.
    let members = |room: String| {
        let svc = rig.svc.clone();
        async move { svc.neighbours(&room, None).await.unwrap().unwrap().changed.len() }
    };
    assert_eq!(members(one.ports[0].network_id.clone()).await, 1);
    assert_eq!(members(two.ports[0].network_id.clone()).await, 1);
    // A router of the cloud that joins both has a leg in each.
    let router = id(&rig.make(&rig.admin, "/v2.0/routers", "router", json!({})).await);
    for subnet in &subnets {
        let join = json!({"subnet_id": subnet["id"]});
        rig.want(200, &rig.admin, "PUT", &format!("/v2.0/routers/{router}/add_router_interface"), join).await;
    }
    let one = view(&rig, "h1", &all).await;
    let legs: Vec<&str> = one.routers[0].interfaces.iter().map(|i| i.network_id.as_str()).collect();
    assert_eq!(legs.len(), 2);
    assert!(legs.iter().all(|leg| one.networks.iter().any(|n| n.id == *leg)) && legs[0] != legs[1]);
}

#[tokio::test]
async fn a_network_may_be_made_with_all_its_segments() {
    let rig = Rig::new().await;
    let body = json!({"network": {"segments": [
        {"provider:network_type": "flat", "provider:physical_network": "rack1"},
        {"provider:network_type": "vxlan", "provider:segmentation_id": 77},
    ]}});
    let made = rig.want(201, &rig.admin, "POST", "/v2.0/networks", body.clone()).await["network"].clone();
    assert_eq!(made["segments"][0]["provider:physical_network"], "rack1");
    assert_eq!(made["segments"][1]["provider:segmentation_id"], 77);
    assert_eq!(rig.refused(403, &rig.alice, "POST", "/v2.0/networks", body).await, "PolicyNotAuthorized");
    let taken = json!({"network": {"provider:network_type": "vxlan", "provider:segmentation_id": 77}});
    assert_eq!(rig.refused(409, &rig.admin, "POST", "/v2.0/networks", taken).await, "TunnelIdInUse");
    let both = json!({"network": {"provider:network_type": "vxlan", "segments": [{"provider:network_type": "vxlan"}]}});
    let kind = rig.refused(400, &rig.admin, "POST", "/v2.0/networks", both).await;
    assert_eq!(kind, "SegmentsSetInConjunctionWithProviders");
}

#[tokio::test]
async fn what_is_left_in_segments_decides_where_ports_can_be() {
    let rig = Rig::new().await;
    let (network, segments, subnets) = routed(&rig).await;
    let store = &rig.svc.store;
    let path = |n: usize| format!("/v2.0/subnets/{}", subnets[n]["id"].as_str().unwrap());
    for (n, net) in ["10.1.0", "10.2.0"].iter().enumerate() {
        let pools = json!([{"start": format!("{net}.10"), "end": format!("{net}.11")}]);
        rig.want(200, &rig.admin, "PUT", &path(n), json!({"subnet": {"allocation_pools": pools}})).await;
    }
    assert_eq!(room::stock(store, &segments[0]).await.unwrap(), Some(Stock { total: 3, taken: 1 }));
    assert_eq!(room::stocked(store).await.unwrap(), segments.clone().into());
    let hosts_for = |more: Wish<'static>| {
        let network = network.clone();
        async move {
            let wish = Wish { network: Some(&network), owner: "compute:nova", ..more };
            let found = room::hosts_for(store, &[wish], ["h1", "h2", "h3"]).await.unwrap();
            found.map(|hosts| hosts.into_iter().collect::<Vec<_>>().join(" "))
        }
    };
    assert_eq!(hosts_for(Wish::default()).await.as_deref(), Some("h1 h2"));
    assert_eq!(hosts_for(Wish { address: Some("10.2.0.77"), ..Wish::default() }).await.as_deref(), Some("h2"));
    assert_eq!(hosts_for(Wish { address: Some("10.7.0.1"), ..Wish::default() }).await, None);
    // One by name from outside of the pools takes nothing of them.
    for address in ["10.1.0.99", "10.1.0.10", "10.1.0.11"] {
        assert_eq!(hosts_for(Wish::default()).await.as_deref(), Some("h1 h2"), "before {address}");
        let body = json!({"network_id": network, "fixed_ips": [{"ip_address": address}]});
        rig.make(&rig.admin, "/v2.0/ports", "port", body).await;
    }
    assert_eq!(hosts_for(Wish::default()).await.as_deref(), Some("h2"));
    assert_eq!(room::stock(store, &segments[0]).await.unwrap(), Some(Stock { total: 3, taken: 3 }));
    // Ports need one of each family, where there are subnets of it for them.
    let six = json!({"network_id": network, "cidr": "fd00:2::/64", "ip_version": 6, "segment_id": segments[1],
        "allocation_pools": [{"start": "fd00:2::10", "end": "fd00:2::10"}]});
    let six = rig.make(&rig.admin, "/v2.0/subnets", "subnet", six).await;
    assert_eq!(hosts_for(Wish::default()).await.as_deref(), Some("h2"));
    let last = json!({"network_id": network, "fixed_ips": [{"ip_address": "fd00:2::10"}]});
    rig.make(&rig.admin, "/v2.0/ports", "port", last).await;
    assert_eq!(hosts_for(Wish::default()).await.as_deref(), Some(""));
    let full = json!({"port": {"network_id": network, "binding:host_id": "h2"}});
    assert_eq!(rig.refused(409, &rig.admin, "POST", "/v2.0/ports", full).await, "IpAddressGenerationFailure");
    let types = json!({"subnet": {"service_types": ["network:floatingip"]}});
    rig.want(200, &rig.admin, "PUT", &format!("/v2.0/subnets/{}", id(&six)), types).await;
    assert_eq!(hosts_for(Wish::default()).await.as_deref(), Some("h2"));
    // Not routed: any.
    let plain = rig.network(&rig.alice, "plain").await;
    rig.subnet(&rig.alice, &plain, "10.9.0.0/24").await;
    let wish = Wish { network: Some(&plain), ..Wish::default() };
    assert_eq!(room::hosts_for(store, &[wish], ["h1"]).await.unwrap(), None);
}

#[tokio::test]
async fn a_segment_that_has_one_family_left_keeps_nothing_of_a_port() {
    let rig = Rig::new().await;
    // A host in both racks takes whichever has both families.
    let (network, segments, subnets) = routed(&rig).await;
    let both =
        HostInfo { name: "h1".into(), physical: Some(vec!["rack1".into(), "rack2".into()]), ..HostInfo::default() };
    rig.svc.learn_reach(&[both]).await.unwrap();
    // Segments are tried in the order of their ids: the first of them is the one without IPv6 addresses.
    let first = usize::from(segments[1] < segments[0]);
    for (n, end) in [(first, "10"), (1 - first, "99")] {
        let body = json!({"network_id": network, "cidr": format!("fd00:{n}::/64"), "ip_version": 6,
            "segment_id": segments[n],
            "allocation_pools": [{"start": format!("fd00:{n}::10"), "end": format!("fd00:{n}::{end}")}]});
        rig.make(&rig.admin, "/v2.0/subnets", "subnet", body).await;
    }
    let last = json!({"network_id": network, "fixed_ips": [{"ip_address": format!("fd00:{first}::10")}]});
    rig.make(&rig.admin, "/v2.0/ports", "port", last).await;
    let body = json!({"port": {"network_id": network, "binding:host_id": "h1"}});
    let port = rig.want(201, &rig.admin, "POST", "/v2.0/ports", body).await["port"].clone();
    let on = |n: usize| find::on_subnet(subnets[n]["id"].as_str().unwrap());
    assert!(port["fixed_ips"].as_array().unwrap().iter().any(|f| f["subnet_id"] == subnets[1 - first]["id"]));
    assert_eq!(rig.svc.store.count::<AddressLease>(on(first)).await.unwrap(), 0);
    assert_eq!(rig.svc.store.count::<AddressLease>(on(1 - first)).await.unwrap(), 1);
}
