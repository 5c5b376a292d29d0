//! BGP: what may be said and by whom, what is advertised, and that it follows each change at once.
use super::{Rig, id};
use crate::{floating_ip::model::FloatingIp, host::interest::Concerned};
use pilvi_store::{Change, Op, Record};
use serde_json::{Value, json};

const SPEAKERS: &str = "/v2.0/bgp-speakers";
const PEERS: &str = "/v2.0/bgp-peers";

impl Rig {
    async fn speaker(&self, version: u8) -> String {
        let attrs = json!({"name": "s", "local_as": "65001", "ip_version": version});
        id(&self.make(&self.admin, SPEAKERS, "bgp_speaker", attrs).await)
    }

    async fn peer(&self, address: &str) -> String {
        let attrs = json!({"peer_ip": address, "remote_as": 65010, "auth_type": "none"});
        id(&self.make(&self.admin, PEERS, "bgp_peer", attrs).await)
    }

    async fn advertised(&self, speaker: &str) -> Vec<(String, String)> {
        let path = format!("{SPEAKERS}/{speaker}/get_advertised_routes");
        let all = self.get(&self.admin, &path).await["advertised_routes"].clone();
        let text = |route: &Value, name: &str| route[name].as_str().unwrap().to_owned();
        all.as_array().unwrap().iter().map(|r| (text(r, "destination"), text(r, "next_hop"))).collect()
    }

    async fn act(&self, speaker: &str, action: &str, member: &str, named: &str) -> Value {
        let path = format!("{SPEAKERS}/{speaker}/{action}");
        self.want(200, &self.admin, "PUT", &path, json!({ member: named })).await
    }

    async fn router(&self, network: &str) -> (String, Vec<String>) {
        let attrs = json!({"external_gateway_info": {"network_id": network}});
        let router = self.make(&self.admin, "/v2.0/routers", "router", attrs).await;
        let fixed = router["external_gateway_info"]["external_fixed_ips"].as_array().unwrap().clone();
        (id(&router), fixed.iter().map(|f| f["ip_address"].as_str().unwrap().to_owned()).collect())
    }

    async fn leg(&self, router: &str, subnet: &str, verb: &str) {
        let path = format!("/v2.0/routers/{router}/{verb}_router_interface");
        self.want(200, &self.admin, "PUT", &path, json!({"subnet_id": subnet})).await;
    }

    async fn set_router(&self, router: &str, attrs: Value) {
        self.want(200, &self.admin, "PUT", &format!("/v2.0/routers/{router}"), json!({"router": attrs})).await;
    }

    /// A network whose subnet comes from a pool of this scope.
    async fn scoped(&self, scope: Option<&str>, prefix: &str, length: u8, external: bool) -> (String, String) {
        let version = if prefix.contains(':') { 6 } else { 4 };
        let mut pool = json!({"name": prefix, "prefixes": [prefix], "default_prefixlen": length});
        if let Some(scope) = scope {
            pool["address_scope_id"] = json!(scope);
        }
        let pool = id(&self.make(&self.admin, "/v2.0/subnetpools", "subnetpool", pool).await);
        let attrs = json!({"name": prefix, "router:external": external});
        let network = id(&self.make(&self.admin, "/v2.0/networks", "network", attrs).await);
        let attrs = json!({"network_id": network, "ip_version": version, "subnetpool_id": pool});
        (network, id(&self.make(&self.admin, "/v2.0/subnets", "subnet", attrs).await))
    }
}

#[tokio::test]
async fn administrators_alone_have_speakers_and_nobody_sees_a_password() {
    let rig = Rig::new().await;
    for (path, kind) in [(SPEAKERS, "bgp_speaker"), (PEERS, "bgp_peer")] {
        let attrs = json!({"local_as": 1, "ip_version": 4});
        let attrs = if kind == "bgp_peer" {
            json!({"peer_ip": "192.0.2.1", "remote_as": 1, "auth_type": "none"})
        } else {
            attrs
        };
        rig.want(403, &rig.manager, "POST", path, json!({ kind: attrs })).await;
    }
    for (local_as, ip_version, status) in [
        (json!(0), 4, 400),
        (json!(4_294_967_296_u64), 4, 400),
        (json!("x"), 4, 400),
        (json!(1), 5, 400),
        (json!(4_294_967_295_u32), 6, 201),
    ] {
        let body = json!({"bgp_speaker": {"local_as": local_as, "ip_version": ip_version}});
        rig.want(status, &rig.admin, "POST", SPEAKERS, body).await;
    }
    rig.want(400, &rig.admin, "POST", SPEAKERS, json!({"bgp_speaker": {"ip_version": 4}})).await;
    let speaker = rig.speaker(4).await;
    let path = format!("{SPEAKERS}/{speaker}");
    let shown = rig.get(&rig.admin, &path).await["bgp_speaker"].clone();
    let mut names: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let all = "advertise_floating_ip_host_routes advertise_tenant_networks id ip_version local_as name networks peers project_id tenant_id";
    assert_eq!((names.join(" ").as_str(), &shown["local_as"]), (all, &json!(65001)));
    rig.want(404, &rig.alice, "GET", &path, Value::Null).await;
    rig.want(404, &rig.alice, "PUT", &format!("{path}/add_bgp_peer"), json!({"bgp_peer_id": speaker})).await;
    assert_eq!(rig.get(&rig.alice, SPEAKERS).await["bgp_speakers"], json!([]));
    rig.want(400, &rig.admin, "PUT", &path, json!({"bgp_speaker": {"local_as": 5}})).await;
    let quiet = json!({"bgp_speaker": {"advertise_tenant_networks": "false", "name": "t"}});
    let quiet = rig.want(200, &rig.admin, "PUT", &path, quiet).await;
    assert_eq!(quiet["bgp_speaker"]["advertise_tenant_networks"], json!(false));

    let peer = |auth: &str, password: Value| json!({"bgp_peer": {"peer_ip": "192.0.2.1", "remote_as": 65010, "auth_type": auth, "password": password}});
    let no = rig.refused(400, &rig.admin, "POST", PEERS, peer("md5", Value::Null)).await;
    assert_eq!(no, "InvalidBgpPeerMd5Authentication");
    rig.want(400, &rig.admin, "POST", PEERS, peer("md5", json!("x".repeat(81)))).await;
    rig.want(400, &rig.admin, "POST", PEERS, peer("tcp-ao", json!("x"))).await;
    let made = rig.want(201, &rig.admin, "POST", PEERS, peer("md5", json!("a secret"))).await["bgp_peer"].clone();
    let path = format!("{PEERS}/{}", id(&made));
    let changed = rig.want(200, &rig.admin, "PUT", &path, json!({"bgp_peer": {"password": "another secret"}})).await;
    for text in [&made, &changed, &rig.get(&rig.admin, &path).await, &rig.get(&rig.admin, PEERS).await] {
        assert!(!text.to_string().contains("secret") && !text.to_string().contains("password"), "{text}");
    }
    rig.want(400, &rig.admin, "GET", &format!("{PEERS}?password=another%20secret"), Value::Null).await;
    rig.want(400, &rig.admin, "PUT", &path, json!({"bgp_peer": {"peer_ip": "192.0.2.9"}})).await;
    rig.want(400, &rig.admin, "PUT", &path, json!({"bgp_peer": {"password": ""}})).await;
    rig.want(200, &rig.admin, "PUT", &path, json!({"bgp_peer": {"name": "n", "password": null}})).await;
    let kept = rig.svc.store.get::<crate::bgp::model::BgpPeer>(&id(&made)).await.unwrap().unwrap();
    assert_eq!(kept.password.as_deref(), Some("another secret"), "null is no password, and takes none away");
    let open = format!("{PEERS}/{}", rig.peer("192.0.2.2").await);
    let no = rig.refused(404, &rig.admin, "PUT", &open, json!({"bgp_peer": {"password": "x"}})).await;
    assert_eq!(no, "BgpPeerNotAuthenticated");
}

#[tokio::test]
async fn peers_and_networks_are_given_and_taken_once() {
    let rig = Rig::new().await;
    let (speaker, public) = (rig.speaker(4).await, rig.external().await);
    let (one, twin) = (rig.peer("192.0.2.1").await, rig.peer("192.0.2.1").await);
    let path = |action: &str| format!("{SPEAKERS}/{speaker}/{action}");
    assert_eq!(rig.act(&speaker, "add_bgp_peer", "bgp_peer_id", &one).await, json!({"bgp_peer_id": one}));
    let twice = json!({"bgp_peer_id": twin});
    let no = rig.refused(409, &rig.admin, "PUT", &path("add_bgp_peer"), twice.clone()).await;
    assert_eq!(no, "DuplicateBgpPeerIpException");
    let no = rig.refused(404, &rig.admin, "PUT", &path("remove_bgp_peer"), twice).await;
    assert_eq!(no, "BgpSpeakerPeerNotAssociated");
    for body in [json!({}), json!({"bgp_peer_id": "x"}), json!({"bgp_peer_id": 7})] {
        assert_eq!(rig.refused(400, &rig.admin, "PUT", &path("add_bgp_peer"), body).await, "BadRequest");
    }
    let no = rig.refused(404, &rig.admin, "PUT", &path("add_bgp_peer"), json!({"bgp_peer_id": speaker})).await;
    assert_eq!(no, "BgpPeerNotFound");
    rig.act(&speaker, "add_gateway_network", "network_id", &public).await;
    let network = json!({"network_id": public});
    let no = rig.refused(409, &rig.admin, "PUT", &path("add_gateway_network"), network.clone()).await;
    assert_eq!(no, "BgpSpeakerNetworkBindingError");
    let shown = rig.get(&rig.admin, &format!("{SPEAKERS}?peers={one}")).await["bgp_speakers"][0].clone();
    assert_eq!((&shown["peers"], &shown["networks"]), (&json!([one]), &json!([public])));
    assert_eq!(rig.act(&speaker, "remove_gateway_network", "network_id", &public).await, network);
    let no = rig.refused(404, &rig.admin, "PUT", &path("remove_gateway_network"), network).await;
    assert_eq!(no, "BgpSpeakerNetworkNotAssociated");
    assert_eq!(rig.act(&speaker, "remove_bgp_peer", "bgp_peer_id", &one).await, Value::Null);
    // What goes is let go of.
    rig.act(&speaker, "add_bgp_peer", "bgp_peer_id", &one).await;
    rig.act(&speaker, "add_gateway_network", "network_id", &public).await;
    rig.want(204, &rig.admin, "DELETE", &format!("{PEERS}/{one}"), Value::Null).await;
    rig.want(204, &rig.admin, "DELETE", &format!("/v2.0/networks/{public}"), Value::Null).await;
    let shown = rig.get(&rig.admin, &format!("{SPEAKERS}/{speaker}")).await["bgp_speaker"].clone();
    assert_eq!((&shown["peers"], &shown["networks"]), (&json!([]), &json!([])));
    rig.want(204, &rig.admin, "DELETE", &format!("{SPEAKERS}/{speaker}"), Value::Null).await;
    rig.want(404, &rig.admin, "GET", &format!("{SPEAKERS}/{speaker}"), Value::Null).await;
}

#[tokio::test]
async fn floating_ips_are_advertised_while_a_router_that_is_up_translates_them() {
    let rig = Rig::new().await;
    let (speaker, public) = (rig.speaker(4).await, rig.external().await);
    rig.act(&speaker, "add_gateway_network", "network_id", &public).await;
    let (router, addresses) = rig.router(&public).await;
    let inside = rig.network(&rig.admin, "inside").await;
    let subnet = rig.subnet(&rig.admin, &inside, "10.0.0.0/24").await;
    rig.leg(&router, &subnet, "add").await;
    let port = id(&rig.port(&rig.admin, &inside).await);
    let attrs = json!({"floating_network_id": public});
    let floating = rig.make(&rig.admin, "/v2.0/floatingips", "floatingip", attrs).await;
    assert!(rig.advertised(&speaker).await.is_empty(), "it leads nowhere, and the inside is in no scope");
    let at = format!("/v2.0/floatingips/{}", id(&floating));
    let lead = |to: Value| json!({"floatingip": {"port_id": to}});
    rig.want(200, &rig.admin, "PUT", &at, lead(json!(port))).await;
    let route = (format!("{}/32", floating["floating_ip_address"].as_str().unwrap()), addresses[0].clone());
    assert_eq!(rig.advertised(&speaker).await, std::slice::from_ref(&route));
    let six = rig.speaker(6).await;
    rig.act(&six, "add_gateway_network", "network_id", &public).await;
    assert!(rig.advertised(&six).await.is_empty(), "it is IPv4");
    rig.set_router(&router, json!({"admin_state_up": false})).await;
    assert!(rig.advertised(&speaker).await.is_empty());
    rig.set_router(&router, json!({"admin_state_up": true})).await;
    let moved = json!({"external_gateway_info": {"network_id": public, "external_fixed_ips": [{"ip_address": "172.24.4.200"}]}});
    rig.set_router(&router, moved).await;
    assert_eq!(rig.advertised(&speaker).await, [(route.0.clone(), "172.24.4.200".to_owned())]);
    let quiet = json!({"bgp_speaker": {"advertise_floating_ip_host_routes": false}});
    rig.want(200, &rig.admin, "PUT", &format!("{SPEAKERS}/{speaker}"), quiet).await;
    assert!(rig.advertised(&speaker).await.is_empty());
    let loud = json!({"bgp_speaker": {"advertise_floating_ip_host_routes": true}});
    rig.want(200, &rig.admin, "PUT", &format!("{SPEAKERS}/{speaker}"), loud).await;
    rig.want(200, &rig.admin, "PUT", &at, lead(Value::Null)).await;
    assert!(rig.advertised(&speaker).await.is_empty());
}

#[tokio::test]
async fn a_floating_ip_is_advertised_and_told_to_the_host_of_the_way_out_wherever_its_guest_is() {
    let rig = Rig::new().await;
    let host = |n: u8| crate::host::HostInfo { name: format!("h{n}"), up: true, ..Default::default() };
    let hosts = [host(1), host(2)];
    rig.svc.remember(&hosts);
    let (speaker, public) = (rig.speaker(4).await, rig.external().await);
    rig.act(&speaker, "add_gateway_network", "network_id", &public).await;
    let (router, addresses) = rig.router(&public).await;
    let held = rig.get(&rig.admin, &format!("/v2.0/routers/{router}/l3-agents")).await["agents"][0]["host"].clone();
    let other = if held == json!("h1") { "h2" } else { "h1" };
    let inside = rig.network(&rig.admin, "inside").await;
    let subnet = rig.subnet(&rig.admin, &inside, "10.0.0.0/24").await;
    rig.leg(&router, &subnet, "add").await;
    let attrs = json!({"network_id": inside, "device_owner": "compute:nova", "binding:host_id": other});
    let port = id(&rig.make(&rig.admin, "/v2.0/ports", "port", attrs).await);
    let attrs = json!({"floating_network_id": public, "port_id": port});
    let floating = id(&rig.make(&rig.admin, "/v2.0/floatingips", "floatingip", attrs).await);
    assert_eq!(rig.advertised(&speaker).await[0].1, addresses[0]);
    let told = async |name: &str| rig.svc.host_network(name, &hosts).await.unwrap().floating.len();
    assert_eq!([told("h1").await, told("h2").await], [1, 1]);
    let (kind, op) = (FloatingIp::KIND.into(), Op::Update);
    let change = Change { seq: 1, kind, id: floating.clone(), rev: 1, op, at_us: 0 };
    let both = Concerned::Hosts(["h1".to_owned(), "h2".to_owned()].into());
    assert_eq!(rig.svc.concerned(std::slice::from_ref(&change)).await.unwrap(), both);
    // One that leads nowhere is told to nobody, and whoever was told of it looks again.
    let nowhere = json!({"floatingip": {"port_id": null}});
    rig.want(200, &rig.admin, "PUT", &format!("/v2.0/floatingips/{floating}"), nowhere).await;
    assert!(rig.advertised(&speaker).await.is_empty());
    assert_eq!(rig.svc.concerned(std::slice::from_ref(&change)).await.unwrap(), both);
    assert_eq!([told("h1").await, told("h2").await], [0, 0]);
}

#[tokio::test]
async fn inside_subnets_are_advertised_where_both_sides_are_in_one_scope() {
    for (version, outside, insides) in [
        (4, ("8.0.0.0/24", 24), ["10.10.0.0/24", "10.11.0.0/24", "10.12.0.0/24"]),
        (6, ("2001:db8:f::/64", 64), ["2001:db8:1::/64", "2001:db8:2::/64", "2001:db8:3::/64"]),
    ] {
        let rig = Rig::new().await;
        let mut scopes = Vec::new();
        for name in ["same", "another"] {
            let attrs = json!({"name": name, "ip_version": version});
            scopes.push(id(&rig.make(&rig.admin, "/v2.0/address-scopes", "address_scope", attrs).await));
        }
        let (public, _) = rig.scoped(Some(&scopes[0]), outside.0, outside.1, true).await;
        let speaker = rig.speaker(version).await;
        rig.act(&speaker, "add_gateway_network", "network_id", &public).await;
        let (router, addresses) = rig.router(&public).await;
        let mut subnets = Vec::new();
        for (scope, prefix) in [Some(scopes[0].as_str()), Some(scopes[1].as_str()), None].into_iter().zip(insides) {
            let (_, subnet) = rig.scoped(scope, prefix, outside.1, false).await;
            rig.leg(&router, &subnet, "add").await;
            subnets.push(subnet);
        }
        let route = (insides[0].to_owned(), addresses[0].clone());
        assert_eq!(rig.advertised(&speaker).await, std::slice::from_ref(&route));
        // A second router to the same subnet is a second way.
        let (other, others) = rig.router(&public).await;
        let network =
            rig.get(&rig.admin, &format!("/v2.0/subnets/{}", subnets[0])).await["subnet"]["network_id"].clone();
        let port = json!({"network_id": network, "fixed_ips": [{"subnet_id": subnets[0]}]});
        let port = id(&rig.make(&rig.admin, "/v2.0/ports", "port", port).await);
        let path = format!("/v2.0/routers/{other}/add_router_interface");
        rig.want(200, &rig.admin, "PUT", &path, json!({"port_id": port})).await;
        let both = rig.advertised(&speaker).await;
        assert_eq!(both.len(), 2);
        assert!(both.contains(&(insides[0].to_owned(), others[0].clone())), "{both:?}");
        let page = format!("{SPEAKERS}/{speaker}/get_advertised_routes?limit=1");
        assert_eq!(rig.get(&rig.admin, &page).await["advertised_routes"].as_array().unwrap().len(), 1);
        rig.want(200, &rig.admin, "PUT", &path.replace("add_", "remove_"), json!({"port_id": port})).await;
        rig.leg(&router, &subnets[0], "remove").await;
        assert!(rig.advertised(&speaker).await.is_empty());
        rig.leg(&router, &subnets[0], "add").await;
        rig.set_router(&router, json!({"external_gateway_info": null})).await;
        assert!(rig.advertised(&speaker).await.is_empty());
    }
}

#[tokio::test]
async fn one_agent_speaks_and_speakers_can_be_taken_from_it() {
    let rig = Rig::new().await;
    rig.svc.remember(&[crate::host::HostInfo { name: "h1".into(), up: true, ..Default::default() }]);
    let speaker = rig.speaker(4).await;
    let list = "/v2.0/agents?agent_type=BGP%20dynamic%20routing%20agent";
    let agents = rig.get(&rig.admin, list).await["agents"].clone();
    assert_eq!((agents.as_array().unwrap().len(), &agents[0]["alive"]), (1, &json!(true)));
    let agent = id(&agents[0]);
    let hosting = format!("{SPEAKERS}/{speaker}/bgp-dragents");
    assert_eq!(rig.get(&rig.admin, &hosting).await["agents"][0]["id"], json!(agent));
    let at = format!("/v2.0/agents/{agent}/bgp-drinstances");
    assert_eq!(rig.get(&rig.admin, &at).await["bgp_speakers"][0]["id"], json!(speaker));
    let body = json!({"bgp_speaker_id": speaker});
    assert_eq!(rig.refused(409, &rig.admin, "POST", &at, body.clone()).await, "DrAgentAssociationError");
    let one = format!("{at}/{speaker}");
    rig.want(204, &rig.admin, "DELETE", &one, Value::Null).await;
    assert_eq!(rig.refused(404, &rig.admin, "DELETE", &one, Value::Null).await, "DrAgentNotHostingBgpSpeaker");
    assert_eq!(rig.get(&rig.admin, &hosting).await["agents"], json!([]));
    assert_eq!(rig.get(&rig.admin, &at).await["bgp_speakers"], json!([]));
    rig.want(201, &rig.admin, "POST", &at, body.clone()).await;
    // Agents that do other things speak with nobody.
    let dhcp = id(&rig.get(&rig.admin, "/v2.0/agents?agent_type=DHCP%20agent").await["agents"][0]);
    let there = format!("/v2.0/agents/{dhcp}/bgp-drinstances");
    assert_eq!(rig.refused(404, &rig.admin, "POST", &there, body.clone()).await, "DrAgentInvalid");
    assert_eq!(rig.get(&rig.admin, &there).await["bgp_speakers"], json!([]));
    let nobody = format!("/v2.0/agents/{speaker}/bgp-drinstances");
    assert_eq!(rig.refused(404, &rig.admin, "POST", &nobody, body).await, "AgentNotFound");
    let no = rig.refused(404, &rig.admin, "POST", &at, json!({"bgp_speaker_id": agent})).await;
    assert_eq!(no, "BgpSpeakerNotFound");
    rig.want(403, &rig.alice, "GET", &at, Value::Null).await;
    rig.want(403, &rig.alice, "GET", &hosting, Value::Null).await;
}
