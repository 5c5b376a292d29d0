//! Lent prefixes: what may be asked for, who asks, what a word of a host changes, and who gives back.
use super::{
    Rig,
    host::{hosts, server, view},
    id,
};
use crate::host::HostInfo;
use pilvi_agent_api::v1::{Delegation, HostNetwork, ObservedDelegation, Release};
use serde_json::{Value, json};

const SUBNETS: &str = "/v2.0/subnets";
const ROUTERS: &str = "/v2.0/routers";

fn lent(network: &str) -> Value {
    json!({"network_id": network, "ip_version": 6, "subnetpool_id": "prefix_delegation",
        "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"})
}

/// The external network with IPv6 as well.
async fn outside(rig: &Rig) -> String {
    let network = rig.external().await;
    rig.subnet(&rig.admin, &network, "2001:db8:e::/64").await;
    network
}

struct Scene {
    rig: Rig,
    hosts: Vec<HostInfo>,
    network: String,
    subnet: String,
    router: String,
    port: String,
    outside: String,
}

impl Scene {
    /// A server on a network whose prefix is lent, behind a router with a way out.
    async fn new(n: usize) -> Self {
        let rig = Rig::new().await;
        let outside = outside(&rig).await;
        let network = rig.network(&rig.alice, "n").await;
        let subnet = id(&rig.make(&rig.alice, SUBNETS, "subnet", lent(&network)).await);
        let port = server(&rig, &network, "vm", "h1").await;
        let out = json!({"name": "r", "external_gateway_info": {"network_id": outside}});
        let router = id(&rig.make(&rig.alice, ROUTERS, "router", out).await);
        let scene = Scene { rig, hosts: hosts(n), network, subnet, router, port, outside };
        scene.rig.svc.remember(&scene.hosts);
        scene.leg("add").await;
        scene
    }

    async fn leg(&self, verb: &str) {
        let path = format!("{ROUTERS}/{}/{verb}_router_interface", self.router);
        self.rig.want(200, &self.rig.alice, "PUT", &path, json!({"subnet_id": self.subnet})).await;
    }

    async fn shown(&self) -> Value {
        self.rig.get(&self.rig.alice, &format!("{SUBNETS}/{}", self.subnet)).await["subnet"].clone()
    }

    async fn cidr(&self) -> String {
        self.shown().await["cidr"].as_str().unwrap().to_owned()
    }

    /// The addresses of the server, and of the router's leg.
    async fn addresses(&self) -> [String; 2] {
        let of = |query: String| async move {
            let ports = self.rig.get(&self.rig.admin, &format!("/v2.0/ports?{query}")).await;
            ports["ports"][0]["fixed_ips"][0]["ip_address"].as_str().unwrap_or_default().to_owned()
        };
        let leg = format!("device_owner=network:router_interface&device_id={}", self.router);
        [of(format!("id={}", self.port)).await, of(leg).await]
    }

    async fn view(&self, host: &str) -> HostNetwork {
        view(&self.rig, host, &self.hosts).await
    }

    /// The host that asks for the prefix, and what it is told; `None`: nobody does.
    async fn asking(&self) -> Option<(String, Delegation)> {
        let mut found = None;
        for host in &self.hosts {
            let asked = self.view(&host.name).await.routers.into_iter().find(|r| r.id == self.router);
            if let Some(one) = asked.and_then(|r| r.delegations.first().cloned()) {
                assert!(found.is_none(), "one host asks");
                found = Some((host.name.clone(), one));
            }
        }
        found
    }

    fn word(&self, prefix: &str, until: u64) -> ObservedDelegation {
        ObservedDelegation {
            router_id: self.router.clone(),
            subnet_id: self.subnet.clone(),
            prefix: prefix.into(),
            until,
            released: false,
        }
    }

    async fn say(&self, host: &str, word: ObservedDelegation) {
        self.rig.svc.delegated(host, &[word]).await.unwrap();
    }
}

#[tokio::test]
async fn only_subnets_of_ipv6_whose_guests_make_their_addresses_may_ask() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    for (member, value) in [
        ("ip_version", json!(4)),
        ("ipv6_ra_mode", json!("dhcpv6-stateful")),
        ("ipv6_address_mode", json!("dhcpv6-stateful")),
        ("prefixlen", json!(56)),
        ("use_default_subnetpool", json!(true)),
    ] {
        let mut attrs = lent(&network);
        attrs[member] = value;
        let kind = rig.refused(400, &rig.alice, "POST", SUBNETS, json!({ "subnet": attrs })).await;
        assert_eq!(kind, "BadRequest", "{member}");
    }
    let mut without = lent(&network);
    without.as_object_mut().unwrap().remove("ipv6_ra_mode");
    rig.refused(400, &rig.alice, "POST", SUBNETS, json!({ "subnet": without })).await;
    let other = json!({"subnet": {"network_id": network, "ip_version": 6, "subnetpool_id": "prefix_delegations"}});
    rig.refused(400, &rig.alice, "POST", SUBNETS, other).await;
    // Several may wait, on one network too; one that names its block has that.
    for _ in 0..2 {
        let made = rig.make(&rig.alice, SUBNETS, "subnet", lent(&network)).await;
        let seen = ["cidr", "gateway_ip", "subnetpool_id"].map(|m| made[m].as_str().unwrap().to_owned());
        assert_eq!(seen, ["::/64", "::1", "prefix_delegation"]);
    }
    let mut named = lent(&network);
    named["cidr"] = json!("fd00:7::/64");
    let named = rig.make(&rig.alice, SUBNETS, "subnet", named).await;
    assert_eq!((&named["cidr"], &named["subnetpool_id"]), (&json!("fd00:7::/64"), &Value::Null));
    let list = rig.get(&rig.alice, &format!("{SUBNETS}?subnetpool_id=prefix_delegation")).await;
    assert_eq!(list["subnets"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_prefix_becomes_the_subnets_and_goes_with_the_leg() {
    let scene = Scene::new(2).await;
    let [bare, leg] = scene.addresses().await;
    assert!(bare.starts_with("::f816:3eff:fe") && leg == "::1", "{bare} {leg}");
    let (holder, asked) = scene.asking().await.expect("somebody asks");
    assert_eq!((asked.had.as_str(), &asked.subnet_id), ("", &scene.subnet));
    // Hosts hear nothing of what is no address.
    let told = scene.view("h1").await;
    assert!(told.networks.iter().find(|n| n.id == scene.network).unwrap().subnets.is_empty());
    assert!(told.ports[0].fixed_ips.is_empty() && told.routers[0].interfaces.is_empty());

    scene.say(&holder, scene.word("2001:db8:7::/64", 5000)).await;
    let shown = scene.shown().await;
    assert_eq!([&shown["cidr"], &shown["gateway_ip"]], ["2001:db8:7::/64", "2001:db8:7::1"]);
    assert_eq!(
        shown["allocation_pools"],
        json!([{"start": "2001:db8:7::2", "end": "2001:db8:7:0:ffff:ffff:ffff:ffff"}])
    );
    let [own, leg] = scene.addresses().await;
    assert_eq!(
        (own, leg.as_str()),
        (bare.replacen("::", "2001:db8:7::", 1).replace("7::f8", "7:0:f8"), "2001:db8:7::1")
    );
    let told = scene.view("h1").await;
    let subnet = &told.networks.iter().find(|n| n.id == scene.network).unwrap().subnets[0];
    assert_eq!((subnet.cidr.as_str(), subnet.lent_until), ("2001:db8:7::/64", 5000));
    assert_eq!(told.routers[0].interfaces[0].address, "2001:db8:7::1");
    assert_eq!(
        scene.asking().await.unwrap().1,
        Delegation { subnet_id: scene.subnet.clone(), had: "2001:db8:7::/64".into(), until: 5000 }
    );
    // A renewal changes nothing but how long guests may believe.
    let revision = || async { scene.shown().await["revision_number"].clone() };
    let before = revision().await;
    scene.say(&holder, scene.word("2001:db8:7::/64", 9000)).await;
    assert_eq!(revision().await, before);
    let told = scene.view("h1").await;
    assert_eq!(told.networks.iter().find(|n| n.id == scene.network).unwrap().subnets[0].lent_until, 9000);
    // Another one comes instead, and one day none.
    scene.say(&holder, scene.word("fd00:9::/64", 9500)).await;
    assert_eq!(scene.cidr().await, "fd00:9::/64");
    scene.say(&holder, scene.word("", 0)).await;
    assert_eq!(scene.cidr().await, "::/64");
    assert_eq!(scene.addresses().await, [bare.clone(), "::1".to_owned()]);
    assert_eq!(scene.asking().await.unwrap().1.had, "", "it goes on asking");

    // Without its leg the subnet has nothing, and the host is to give back what it was lent.
    scene.say(&holder, scene.word("2001:db8:8::/64", 9999)).await;
    scene.leg("remove").await;
    assert_eq!(scene.cidr().await, "::/64");
    assert!(scene.asking().await.is_none());
    let release = vec![Release { router_id: scene.router.clone(), subnet_id: scene.subnet.clone() }];
    assert_eq!(scene.view(&holder).await.releases, release);
    let other = scene.hosts.iter().find(|h| h.name != holder).unwrap();
    assert!(scene.view(&other.name).await.releases.is_empty());
    scene.say(&holder, scene.word("2001:db8:8::/64", 9999)).await;
    assert_eq!(scene.cidr().await, "::/64", "a late word of what is no longer asked for");
    scene.say(&other.name, ObservedDelegation { released: true, ..scene.word("", 0) }).await;
    assert_eq!(scene.view(&holder).await.releases, release, "another host's word");
    scene.say(&holder, ObservedDelegation { released: true, ..scene.word("", 0) }).await;
    assert!(scene.view(&holder).await.releases.is_empty());
}

#[tokio::test]
async fn without_a_way_out_nobody_asks() {
    let scene = Scene::new(1).await;
    let path = format!("{ROUTERS}/{}", scene.router);
    let router = |attrs: Value| json!({ "router": attrs });
    scene.say("h1", scene.word("2001:db8:7::/64", 5000)).await;
    assert_eq!(scene.cidr().await, "2001:db8:7::/64");
    for (off, on) in [
        (json!({"external_gateway_info": {}}), json!({"external_gateway_info": {"network_id": scene.outside}})),
        (json!({"admin_state_up": false}), json!({"admin_state_up": true})),
    ] {
        scene.rig.want(200, &scene.rig.alice, "PUT", &path, router(off)).await;
        assert_eq!(scene.cidr().await, "::/64");
        assert!(scene.asking().await.is_none());
        assert_eq!(scene.view("h1").await.releases.len(), 1);
        scene.rig.want(200, &scene.rig.alice, "PUT", &path, router(on)).await;
        assert!(scene.asking().await.is_some());
        assert!(scene.view("h1").await.releases.is_empty(), "it is asked for again before it was given back");
        scene.say("h1", scene.word("2001:db8:7::/64", 6000)).await;
        assert_eq!(scene.cidr().await, "2001:db8:7::/64");
    }
    // A way out without IPv6 is none for this.
    let four = scene.rig.get(&scene.rig.admin, &format!("{SUBNETS}?network_id={}&ip_version=4", scene.outside)).await;
    let only = json!([{"subnet_id": four["subnets"][0]["id"]}]);
    let info = json!({"external_gateway_info": {"network_id": scene.outside, "external_fixed_ips": only}});
    scene.rig.want(200, &scene.rig.admin, "PUT", &path, router(info)).await;
    assert_eq!(scene.cidr().await, "::/64");
}

#[tokio::test]
async fn the_only_host_asks_before_there_is_a_guest() {
    let rig = Rig::new().await;
    let outside = outside(&rig).await;
    let network = rig.network(&rig.alice, "n").await;
    let subnet = id(&rig.make(&rig.alice, SUBNETS, "subnet", lent(&network)).await);
    let out = json!({"external_gateway_info": {"network_id": outside}});
    let router = id(&rig.make(&rig.alice, ROUTERS, "router", out).await);
    let path = format!("{ROUTERS}/{router}/add_router_interface");
    rig.want(200, &rig.alice, "PUT", &path, json!({"subnet_id": subnet})).await;
    let told = view(&rig, "h1", &hosts(1)).await;
    assert_eq!(told.routers[0].delegations.len(), 1);
}

#[tokio::test]
async fn a_word_counts_if_its_host_holds_the_way_and_the_prefix_can_be_used() {
    let scene = Scene::new(3).await;
    let (holder, _) = scene.asking().await.unwrap();
    for wrong in ["::/64", "fe80::/64", "2001:db8:7::/56", "2001:db8:7::1/64", "10.0.0.0/24", "x", "2001:db8:e::/64"] {
        scene.say(&holder, scene.word(wrong, 5000)).await;
        assert_eq!(scene.cidr().await, "::/64", "{wrong}");
    }
    let other = scene.hosts.iter().find(|h| h.name != holder).unwrap().name.clone();
    scene.say(&other, scene.word("2001:db8:7::/64", 5000)).await;
    assert_eq!(scene.cidr().await, "::/64", "another host holds the way out");
    let mut stranger = scene.word("2001:db8:7::/64", 5000);
    stranger.router_id = pilvi_kit::id::new();
    scene.say(&holder, stranger).await;
    let mut nowhere = scene.word("2001:db8:7::/64", 5000);
    nowhere.subnet_id = pilvi_kit::id::new();
    scene.say(&holder, nowhere).await;
    let plain = scene.rig.subnet(&scene.rig.alice, &scene.network, "fd00:1::/64").await;
    let mut wrong = scene.word("2001:db8:7::/64", 5000);
    wrong.subnet_id = plain.clone();
    scene.say(&holder, wrong).await;
    let shown = scene.rig.get(&scene.rig.alice, &format!("{SUBNETS}/{plain}")).await;
    assert_eq!((shown["subnet"]["cidr"].as_str(), scene.cidr().await.as_str()), (Some("fd00:1::/64"), "::/64"));
    scene.say(&holder, scene.word("fd00:1::/64", 5000)).await;
    assert_eq!(scene.cidr().await, "::/64", "the network has that already");

    // The way out moves: the next host is told what there was, and its word counts from then on.
    scene.say(&holder, scene.word("2001:db8:7::/64", 5000)).await;
    let left: Vec<HostInfo> = scene.hosts.iter().filter(|h| h.name != holder).cloned().collect();
    let scene = Scene { hosts: left, ..scene };
    scene.rig.svc.remember(&scene.hosts);
    let (next, told) = scene.asking().await.unwrap();
    assert_eq!((told.had.as_str(), told.until), ("2001:db8:7::/64", 5000));
    scene.say(&holder, scene.word("", 0)).await;
    assert_eq!(scene.cidr().await, "2001:db8:7::/64", "the former host's word");
    scene.say(&next, scene.word("2001:db8:7::/64", 7000)).await;
    scene.leg("remove").await;
    assert_eq!(scene.view(&next).await.releases.len(), 1, "who has it gives it back");
    scene.leg("add").await;
    assert!(scene.view(&next).await.releases.is_empty() && scene.asking().await.unwrap().1.had.is_empty());
}

#[tokio::test]
async fn a_subnet_that_goes_takes_its_prefix_along() {
    let scene = Scene::new(1).await;
    scene.say("h1", scene.word("2001:db8:7::/64", 5000)).await;
    let path = format!("{SUBNETS}/{}", scene.subnet);
    let kind = scene.rig.refused(409, &scene.rig.alice, "DELETE", &path, Value::Null).await;
    assert_eq!(kind, "SubnetInUse");
    scene.leg("remove").await;
    scene.rig.want(204, &scene.rig.alice, "DELETE", &path, Value::Null).await;
    assert_eq!(scene.view("h1").await.releases.len(), 1);
    scene.say("h1", ObservedDelegation { released: true, ..scene.word("", 0) }).await;
    assert!(scene.view("h1").await.releases.is_empty());
}

#[tokio::test]
async fn a_second_router_takes_nothing_from_the_first() {
    let scene = Scene::new(1).await;
    scene.say("h1", scene.word("2001:db8:7::/64", 5000)).await;
    // Some of them come before it by their ids.
    let mut others = Vec::new();
    for n in 2..8 {
        let out = json!({"name": format!("r{n}"), "external_gateway_info": {"network_id": scene.outside}});
        let other = id(&scene.rig.make(&scene.rig.alice, ROUTERS, "router", out).await);
        let fixed = json!({"network_id": scene.network, "fixed_ips": [{"subnet_id": scene.subnet}]});
        let port = id(&scene.rig.make(&scene.rig.alice, "/v2.0/ports", "port", fixed).await);
        let path = format!("{ROUTERS}/{other}/add_router_interface");
        scene.rig.want(200, &scene.rig.alice, "PUT", &path, json!({"port_id": port})).await;
        others.push(other);
    }
    assert_eq!(
        (scene.cidr().await.as_str(), scene.asking().await.unwrap().1.had.as_str()),
        ("2001:db8:7::/64", "2001:db8:7::/64")
    );
    scene.leg("remove").await;
    assert_eq!(scene.cidr().await, "::/64");
    let told = scene.view("h1").await;
    let asking: Vec<&str> = told.routers.iter().filter(|r| !r.delegations.is_empty()).map(|r| r.id.as_str()).collect();
    others.sort();
    assert_eq!(asking, [others[0].as_str()], "the next one asks");
}

#[tokio::test]
async fn a_network_outside_that_leads_to_no_wire_or_has_a_tag_there_is_not_asked() {
    let nowhere = json!({"name": "nowhere", "router:external": true});
    let tagged = json!({"name": "tagged", "router:external": true, "provider:network_type": "vlan",
        "provider:physical_network": "external", "provider:segmentation_id": 7});
    for attrs in [nowhere, tagged] {
        let scene = Scene::new(1).await;
        let other = id(&scene.rig.make(&scene.rig.admin, "/v2.0/networks", "network", attrs).await);
        scene.rig.subnet(&scene.rig.admin, &other, "2001:db8:f::/64").await;
        assert!(scene.asking().await.is_some());
        let path = format!("{ROUTERS}/{}", scene.router);
        let info = json!({"router": {"external_gateway_info": {"network_id": other}}});
        scene.rig.want(200, &scene.rig.alice, "PUT", &path, info).await;
        assert!(scene.asking().await.is_none());
    }
}
