//! VLAN networks: which tags may be had, where they come from, and what hosts are told; networks whose guests send their own.
use super::{
    Rig,
    host::{hosts, view},
    id,
};
use serde_json::{Value, json};

const NETWORKS: &str = "/v2.0/networks";
const RANGES: &str = "/v2.0/network_segment_ranges";

fn vlan(physical: Option<&str>, tag: Option<u32>) -> Value {
    let mut body = json!({"provider:network_type": "vlan"});
    if let Some(physical) = physical {
        body["provider:physical_network"] = json!(physical);
    }
    if let Some(tag) = tag {
        body["provider:segmentation_id"] = json!(tag);
    }
    json!({ "network": body })
}

async fn made(rig: &Rig, physical: Option<&str>, tag: Option<u32>) -> Value {
    rig.want(201, &rig.admin, "POST", NETWORKS, vlan(physical, tag)).await["network"].clone()
}

#[tokio::test]
async fn a_tag_of_a_physical_network_is_one_networks() {
    let rig = Rig::new().await;
    let network = made(&rig, Some("rack1"), Some(101)).await;
    assert_eq!(
        (&network["provider:network_type"], &network["provider:physical_network"], &network["mtu"]),
        (&json!("vlan"), &json!("rack1"), &json!(1500))
    );
    assert_eq!(network["provider:segmentation_id"], 101);
    let post = |body: Value| rig.want(409, &rig.admin, "POST", NETWORKS, body);
    let taken = post(vlan(Some("rack1"), Some(101))).await["NeutronError"].clone();
    assert_eq!(taken["type"], "VlanIdInUse");
    assert!(taken["message"].as_str().unwrap().contains("VLAN 101 on physical network rack1"), "{taken}");
    made(&rig, Some("rack2"), Some(101)).await;
    made(&rig, Some("rack1"), Some(1)).await;
    made(&rig, Some("rack1"), Some(4094)).await;
    // Without a tag the physical network is another wire.
    let flat = json!({"network": {"provider:network_type": "flat", "provider:physical_network": "rack1"}});
    rig.want(201, &rig.admin, "POST", NETWORKS, flat.clone()).await;
    assert_eq!(rig.refused(409, &rig.admin, "POST", NETWORKS, flat).await, "FlatNetworkInUse");
    for (physical, tag) in [(None, 101), (Some("rack1"), 4095), (Some("rack1"), 0)] {
        rig.want(400, &rig.admin, "POST", NETWORKS, vlan(physical, Some(tag))).await;
    }
    assert_eq!(rig.refused(503, &rig.admin, "POST", NETWORKS, vlan(Some("rack1"), None)).await, "NoNetworkAvailable");
    assert_eq!(rig.refused(503, &rig.admin, "POST", NETWORKS, vlan(None, None)).await, "NoNetworkAvailable");
    let kind = rig.refused(403, &rig.alice, "POST", NETWORKS, vlan(Some("rack1"), Some(7))).await;
    assert_eq!(kind, "PolicyNotAuthorized");
    let mut private = vlan(Some("rack1"), Some(8));
    private["network"]["pvlan"] = json!(true);
    assert_eq!(rig.refused(400, &rig.admin, "POST", NETWORKS, private).await, "InvalidInput");
    let path = format!("{NETWORKS}/{}", id(&network));
    rig.want(400, &rig.admin, "PUT", &path, json!({"network": {"provider:segmentation_id": 9}})).await;
    rig.want(400, &rig.admin, "PUT", &path, json!({"network": {"mtu": 1501}})).await;
    let found =
        rig.get(&rig.admin, &format!("{NETWORKS}?provider:network_type=vlan&provider:segmentation_id=101")).await;
    assert_eq!(found["networks"].as_array().unwrap().len(), 2);
    // Whoever is gone leaves his tag.
    rig.want(204, &rig.admin, "DELETE", &path, Value::Null).await;
    made(&rig, Some("rack1"), Some(101)).await;
}

#[tokio::test]
async fn segments_take_tags_like_networks() {
    let rig = Rig::new().await;
    let network = id(&made(&rig, Some("rack1"), Some(101)).await);
    let segment = |physical: &str, tag: u32| json!({"segment": {"network_id": network, "network_type": "vlan", "physical_network": physical, "segmentation_id": tag}});
    let one = rig.want(201, &rig.admin, "POST", "/v2.0/segments", segment("rack2", 101)).await["segment"].clone();
    assert_eq!((&one["segmentation_id"], &one["physical_network"]), (&json!(101), &json!("rack2")));
    for (physical, tag) in [("rack1", 101), ("rack2", 101)] {
        let kind = rig.refused(409, &rig.admin, "POST", "/v2.0/segments", segment(physical, tag)).await;
        assert_eq!(kind, "VlanIdInUse");
    }
    assert_eq!(rig.refused(409, &rig.admin, "POST", NETWORKS, vlan(Some("rack2"), Some(101))).await, "VlanIdInUse");
    assert_eq!(rig.refused(400, &rig.admin, "POST", "/v2.0/segments", segment("rack2", 4095)).await, "InvalidInput");
    let both = json!({"network": {"segments": [
        {"provider:network_type": "vlan", "provider:physical_network": "rack1", "provider:segmentation_id": 7},
        {"provider:network_type": "vlan", "provider:physical_network": "rack2", "provider:segmentation_id": 7},
    ]}});
    let made = rig.want(201, &rig.admin, "POST", NETWORKS, both).await["network"].clone();
    assert_eq!(made["segments"][1]["provider:segmentation_id"], 7);
    rig.want(204, &rig.admin, "DELETE", &format!("/v2.0/segments/{}", id(&one)), Value::Null).await;
    rig.want(201, &rig.admin, "POST", NETWORKS, vlan(Some("rack2"), Some(101))).await;
}

#[tokio::test]
async fn tags_that_nobody_names_come_out_of_ranges() {
    let rig = Rig::new().await;
    let range = |project: Option<&str>, minimum: u32, maximum: u32| {
        let mut body = json!({"name": "r", "network_type": "vlan", "physical_network": "rack1", "minimum": minimum, "maximum": maximum});
        match project {
            Some(project) => body["project_id"] = json!(project),
            None => body["shared"] = json!(true),
        }
        json!({ "network_segment_range": body })
    };
    for (bad, kind) in [
        (json!({"network_type": "vlan", "minimum": 1, "maximum": 2}), "InvalidInput"),
        (json!({"network_type": "vlan", "physical_network": "rack1", "minimum": 1, "maximum": 4095}), "InvalidInput"),
        (json!({"network_type": "flat", "physical_network": "rack1", "minimum": 1, "maximum": 2}), "InvalidInput"),
    ] {
        let body = json!({ "network_segment_range": bad });
        assert_eq!(rig.refused(400, &rig.admin, "POST", RANGES, body).await, kind);
    }
    let shared =
        rig.want(201, &rig.admin, "POST", RANGES, range(None, 200, 201)).await["network_segment_range"].clone();
    assert_eq!(shared["available"], json!([200, 201]));
    let overlap = rig.refused(409, &rig.admin, "POST", RANGES, range(Some("alice"), 201, 210)).await;
    assert_eq!(overlap, "NetworkSegmentRangeOverlaps");
    rig.want(201, &rig.admin, "POST", RANGES, range(Some("alice"), 300, 300)).await;
    // The overlay's ranges are others.
    let overlay = json!({"network_segment_range": {"name": "o", "network_type": "vxlan", "shared": true, "minimum": 200, "maximum": 201}});
    rig.want(201, &rig.admin, "POST", RANGES, overlay).await;
    let unknown = rig.refused(400, &rig.admin, "POST", NETWORKS, vlan(Some("rack9"), Some(5))).await;
    assert_eq!(unknown, "InvalidInput", "ranges say which physical networks there are");
    let mut for_alice = vlan(None, None);
    for_alice["network"]["project_id"] = json!("alice");
    let mut tags = Vec::new();
    for body in [for_alice.clone(), for_alice, vlan(Some("rack1"), None)] {
        let network = rig.want(201, &rig.admin, "POST", NETWORKS, body).await["network"].clone();
        assert_eq!(network["provider:physical_network"], "rack1");
        tags.push(network["provider:segmentation_id"].as_u64().unwrap());
    }
    assert_eq!(tags, [300, 200, 201], "its own first, then what is everybody's");
    assert_eq!(rig.refused(503, &rig.admin, "POST", NETWORKS, vlan(None, None)).await, "NoNetworkAvailable");
    made(&rig, Some("rack1"), Some(500)).await;
    let path = format!("{RANGES}/{}", id(&shared));
    let shown = rig.get(&rig.admin, &path).await["network_segment_range"].clone();
    assert_eq!((&shown["available"], shown["used"].as_object().unwrap().len()), (&json!([]), 2));
    let held = rig.refused(409, &rig.admin, "DELETE", &path, Value::Null).await;
    assert_eq!(held, "NetworkSegmentRangeReferencedByProject");
    // What projects make themselves is of the overlay, unless the operator's file says otherwise.
    let own = rig.network(&rig.alice, "own").await;
    let own = rig.get(&rig.admin, &format!("{NETWORKS}/{own}")).await["network"].clone();
    assert_eq!(own["provider:network_type"], "vxlan");
}

#[tokio::test]
async fn hosts_are_told_tags() {
    let rig = Rig::new().await;
    let outside = vlan(Some("rack1"), Some(101));
    let mut outside = outside["network"].clone();
    outside["router:external"] = json!(true);
    let outside = id(&rig.make(&rig.admin, NETWORKS, "network", outside).await);
    rig.subnet(&rig.admin, &outside, "203.0.113.0/24").await;
    let inside = rig.network(&rig.alice, "inside").await;
    let subnet = rig.subnet(&rig.alice, &inside, "10.0.0.0/24").await;
    let router = json!({"external_gateway_info": {"network_id": outside}});
    let router = id(&rig.make(&rig.alice, "/v2.0/routers", "router", router).await);
    let join = format!("/v2.0/routers/{router}/add_router_interface");
    rig.want(200, &rig.alice, "PUT", &join, json!({"subnet_id": subnet})).await;
    let port = json!({"port": {"network_id": inside, "binding:host_id": "h1", "project_id": "alice", "device_owner": "compute:nova", "device_id": "s"}});
    let port = id(&rig.want(201, &rig.admin, "POST", "/v2.0/ports", port).await["port"]);
    let floating = json!({"floating_network_id": outside, "port_id": port});
    rig.make(&rig.alice, "/v2.0/floatingips", "floatingip", floating).await;
    let direct = json!({"port": {"network_id": outside, "binding:host_id": "h1"}});
    rig.want(201, &rig.admin, "POST", "/v2.0/ports", direct).await;
    let mut all = hosts(2);
    all[0].physical = Some(vec!["rack1".into()]);
    all[1].physical = Some(vec![]);
    rig.svc.learn_reach(&all).await.unwrap();
    let told = view(&rig, "h1", &all).await;
    let of = |id: &str| told.networks.iter().find(|n| n.id == id).map(|n| (n.external, n.vlan));
    assert_eq!((of(&outside), of(&inside)), (Some((true, 101)), Some((false, 0))));
    assert_eq!(told.floating[0].network_id, outside);
    assert_eq!(told.routers[0].gateway.as_ref().unwrap().network_id, outside);
    // A host without the wire has no way there of its own.
    let port = json!({"port": {"network_id": inside, "binding:host_id": "h2", "project_id": "alice"}});
    rig.want(201, &rig.admin, "POST", "/v2.0/ports", port).await;
    let told = view(&rig, "h2", &all).await;
    assert!(told.networks.iter().any(|n| n.id == outside && !n.external && n.vlan == 101));
}

#[tokio::test]
async fn networks_say_whether_guests_may_send_tags() {
    let rig = Rig::new().await;
    let plain = rig.network(&rig.alice, "plain").await;
    let tags = json!({"name": "tags", "vlan_transparent": "true"});
    let tags = rig.make(&rig.alice, NETWORKS, "network", tags).await;
    assert_eq!((&tags["vlan_transparent"], &tags["mtu"]), (&json!(true), &json!(1450)));
    let shown = rig.get(&rig.alice, &format!("{NETWORKS}/{plain}")).await["network"].clone();
    assert_eq!(shown["vlan_transparent"], false);
    for (wish, name) in [("True", "tags"), ("False", "plain")] {
        let found = rig.get(&rig.alice, &format!("{NETWORKS}?vlan_transparent={wish}")).await["networks"].clone();
        assert_eq!((found.as_array().unwrap().len(), &found[0]["name"]), (1, &json!(name)));
    }
    let path = format!("{NETWORKS}/{}", id(&tags));
    rig.want(400, &rig.alice, "PUT", &path, json!({"network": {"vlan_transparent": false}})).await;
    rig.want(400, &rig.alice, "POST", NETWORKS, json!({"network": {"vlan_transparent": "perhaps"}})).await;
    let flat = json!({"network": {"provider:network_type": "flat", "provider:physical_network": "rack1", "vlan_transparent": true}});
    assert_eq!(rig.refused(400, &rig.admin, "POST", NETWORKS, flat).await, "VlanTransparencyDriverError");
    // Of a wire: within its tag.
    let mut outside = vlan(Some("rack1"), Some(7));
    outside["network"]["vlan_transparent"] = json!(true);
    let outside = rig.want(201, &rig.admin, "POST", NETWORKS, outside).await["network"].clone();
    assert_eq!((&outside["vlan_transparent"], &outside["qinq"]), (&json!(true), &Value::Null));
    let private = json!({"network": {"vlan_transparent": true, "pvlan": true}});
    assert_eq!(rig.refused(400, &rig.alice, "POST", NETWORKS, private).await, "VlanTransparencyDriverError");
    // Its segments are its like.
    let wire = json!({"segment": {"network_id": id(&tags), "network_type": "flat", "physical_network": "rack1"}});
    assert_eq!(rig.refused(400, &rig.admin, "POST", "/v2.0/segments", wire).await, "VlanTransparencyDriverError");
    rig.subnet(&rig.alice, &id(&tags), "10.0.0.0/24").await;
    let port = json!({"port": {"network_id": id(&tags), "binding:host_id": "h1"}});
    rig.want(201, &rig.admin, "POST", "/v2.0/ports", port).await;
    let told = view(&rig, "h1", &hosts(1)).await;
    assert!(told.networks[0].transparent && !told.networks[0].service_tag);
}

#[tokio::test]
async fn networks_have_service_tags_if_somebody_wants_qinq() {
    let rig = Rig::new().await;
    let asked = |physical: &str, more: Value| {
        let mut body = vlan(Some(physical), Some(101));
        let network = body["network"].as_object_mut().unwrap();
        network.extend(more.as_object().unwrap().clone());
        body
    };
    let wanted = asked("rack1", json!({"name": "service", "qinq": "true"}));
    let service = rig.want(201, &rig.admin, "POST", NETWORKS, wanted).await["network"].clone();
    assert_eq!(
        (&service["qinq"], &service["vlan_transparent"], &service["mtu"]),
        (&json!(true), &json!(false), &json!(1500))
    );
    let without = asked("rack2", json!({"name": "customer", "qinq": false, "vlan_transparent": true}));
    let without = rig.want(201, &rig.admin, "POST", NETWORKS, without).await["network"].clone();
    assert_eq!((&without["qinq"], &without["vlan_transparent"]), (&json!(false), &json!(true)));
    let plain = rig.network(&rig.alice, "plain").await;
    let shown = rig.get(&rig.alice, &format!("{NETWORKS}/{plain}")).await["network"].clone();
    assert!(shown.as_object().unwrap().get("qinq").is_some_and(Value::is_null), "nobody said: {shown}");
    for (wish, name) in [("True", "service"), ("False", "customer")] {
        let found = rig.get(&rig.admin, &format!("{NETWORKS}?qinq={wish}")).await["networks"].clone();
        assert_eq!((found.as_array().unwrap().len(), &found[0]["name"]), (1, &json!(name)));
    }
    let path = format!("{NETWORKS}/{}", id(&service));
    rig.want(400, &rig.admin, "PUT", &path, json!({"network": {"qinq": false}})).await;
    let refused = |body: Value| rig.want(400, &rig.admin, "POST", NETWORKS, body);
    refused(asked("rack3", json!({"qinq": "perhaps"}))).await;
    refused(asked("rack3", json!({"qinq": null}))).await;
    let both = refused(asked("rack3", json!({"qinq": true, "vlan_transparent": true}))).await["NeutronError"].clone();
    let said =
        "Bad network request: Attributes 'vlan_transparent' and 'qinq' can not be set to True for the same network.";
    assert_eq!((&both["type"], &both["message"]), (&json!("BadRequest"), &json!(said)));
    // Another kind of network has no tag that could be one; nothing is left of those that were refused.
    let flat =
        json!({"network": {"provider:network_type": "flat", "provider:physical_network": "rack3", "qinq": true}});
    for none in [json!({"network": {"qinq": true}}), flat] {
        assert_eq!(refused(none).await["NeutronError"]["type"], "VlanQinqDriverError");
    }
    let segment = json!({"segment": {"network_id": id(&service), "network_type": "vxlan"}});
    assert_eq!(rig.refused(400, &rig.admin, "POST", "/v2.0/segments", segment).await, "VlanQinqDriverError");
    made(&rig, Some("rack3"), Some(101)).await;
    rig.subnet(&rig.admin, &id(&service), "10.0.0.0/24").await;
    let port = json!({"port": {"network_id": id(&service), "binding:host_id": "h1"}});
    rig.want(201, &rig.admin, "POST", "/v2.0/ports", port).await;
    let mut all = hosts(1);
    all[0].physical = Some(vec!["rack1".into()]);
    rig.svc.learn_reach(&all).await.unwrap();
    let told = view(&rig, "h1", &all).await;
    let told = told.networks.iter().find(|n| n.id == id(&service)).unwrap();
    assert!(told.external && told.vlan == 101 && told.transparent && told.service_tag, "{told:?}");
}
