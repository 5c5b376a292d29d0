//! A router of the provider (a real BIRD) is told of floating IPs and inside networks: they come, move and go with the
//! cloud's own, come back when either side has been away, and outlive a scheduler that is killed.
//!
//! ```text
//!  pilvi serve (AS 65001) --127.0.0.1, signed--> 127.0.0.2 protocol four --> master4
//!                         --::1----------------> ::1       protocol six  --> master6
//! ```
use pilvi_bgp::{
    Routes,
    testing::{Bird, bird_is_here, free_port},
};
use pilvi_tests::{Api, Site, api::text, may_run, until};
use serde_json::{Value, json};

const KEY: &str = "story-of-a-router";

fn make(admin: &Api, path: &str, kind: &str, attrs: Value) -> Value {
    admin.post(&format!("/network/v2.0/{path}"), &json!({ kind: attrs })).unwrap()[kind].clone()
}

fn set(admin: &Api, path: &str, body: &Value) {
    admin.put(&format!("/network/v2.0/{path}"), body).unwrap();
}

/// What is outside and inside, both in one address scope of each IP version, and a router between.
struct Cloud {
    admin: Api,
    router: String,
    public: String,
    floating: String,
    port: String,
    /// The router's addresses outside.
    hops: [String; 2],
    address: String,
}

const INSIDE: [&str; 2] = ["10.10.0.0/24", "2001:db8:10::/64"];

impl Cloud {
    fn new(admin: Api) -> Self {
        let external = json!({"name": "outside", "router:external": true});
        let public = text(&make(&admin, "networks", "network", external), "id");
        let inside = text(&make(&admin, "networks", "network", json!({"name": "inside"})), "id");
        let mut subnets = Vec::new();
        for (version, prefixes) in [(4, ["198.51.100.0/24", INSIDE[0]]), (6, ["2001:db8:f::/64", INSIDE[1]])] {
            let scope = json!({"name": format!("scope{version}"), "ip_version": version});
            let scope = text(&make(&admin, "address-scopes", "address_scope", scope), "id");
            for (network, prefix) in [&public, &inside].into_iter().zip(prefixes) {
                let length = if version == 4 { 24 } else { 64 };
                let pool = json!({"name": prefix, "prefixes": [prefix], "default_prefixlen": length, "address_scope_id": scope});
                let pool = text(&make(&admin, "subnetpools", "subnetpool", pool), "id");
                let new = json!({"network_id": network, "ip_version": version, "subnetpool_id": pool});
                subnets.push((network == &inside, text(&make(&admin, "subnets", "subnet", new), "id")));
            }
        }
        let gateway = json!({"name": "way", "external_gateway_info": {"network_id": public}});
        let router = make(&admin, "routers", "router", gateway);
        let fixed = router["external_gateway_info"]["external_fixed_ips"].as_array().unwrap();
        let hop = |six: bool| {
            let all = fixed.iter().map(|f| text(f, "ip_address"));
            all.into_iter().find(|ip| ip.contains(':') == six).unwrap()
        };
        let hops = [hop(false), hop(true)];
        let router = text(&router, "id");
        for (_, subnet) in subnets.iter().filter(|(inside, _)| *inside) {
            set(&admin, &format!("routers/{router}/add_router_interface"), &json!({"subnet_id": subnet}));
        }
        let port = text(&make(&admin, "ports", "port", json!({"network_id": inside})), "id");
        let floating = json!({"floating_network_id": public, "port_id": port});
        let floating = make(&admin, "floatingips", "floatingip", floating);
        let (floating, address) = (text(&floating, "id"), text(&floating, "floating_ip_address"));
        Cloud { admin, router, public, floating, port, hops, address }
    }

    /// A speaker with one peer and the external network.
    fn speaker(&self, version: u8, peer: &str, auth: &Value) -> String {
        let new = json!({"name": format!("s{version}"), "local_as": 65001, "ip_version": version});
        let speaker = text(&make(&self.admin, "bgp-speakers", "bgp_speaker", new), "id");
        let mut new = json!({"name": peer, "peer_ip": peer, "remote_as": 65010});
        new.as_object_mut().unwrap().extend(auth.as_object().unwrap().clone());
        let peer = text(&make(&self.admin, "bgp-peers", "bgp_peer", new), "id");
        set(&self.admin, &format!("bgp-speakers/{speaker}/add_bgp_peer"), &json!({"bgp_peer_id": peer}));
        let network = json!({"network_id": self.public});
        set(&self.admin, &format!("bgp-speakers/{speaker}/add_gateway_network"), &network);
        speaker
    }

    fn point(&self, port: &Value) {
        set(&self.admin, &format!("floatingips/{}", self.floating), &json!({"floatingip": {"port_id": port}}));
    }

    fn inside4(&self) -> (String, String) {
        (INSIDE[0].to_owned(), self.hops[0].clone())
    }
    fn floating(&self) -> (String, String) {
        (format!("{}/32", self.address), self.hops[0].clone())
    }
    fn inside6(&self) -> (String, String) {
        (INSIDE[1].to_owned(), self.hops[1].clone())
    }

    fn advertised(&self, speaker: &str) -> Routes {
        let path = format!("/network/v2.0/bgp-speakers/{speaker}/get_advertised_routes");
        let all = self.admin.get(&path).unwrap();
        let all = all["advertised_routes"].as_array().unwrap();
        routes(&all.iter().map(|r| (text(r, "destination"), text(r, "next_hop"))).collect::<Vec<_>>())
    }
}

fn routes(all: &[(String, String)]) -> Routes {
    all.iter().map(|(net, hop)| (net.parse().unwrap(), hop.parse().unwrap())).collect()
}

fn router_of_the_provider(port: u16) -> Bird {
    let protocol = |name: &str, at: &str, us: &str, more: &str| {
        format!(
            "protocol bgp {name} {{ local {at} port {port} as 65010; neighbor {us} as 65001; multihop; passive;
               error wait time 1, 2; connect delay time 1; {more} }}\n"
        )
    };
    let four = protocol(
        "four",
        "127.0.0.2",
        "127.0.0.1",
        &format!("password \"{KEY}\"; ipv4 {{ import all; export none; }};"),
    );
    let six = protocol("six", "::1", "::1", "ipv6 { import all; export none; };");
    Bird::start(&format!("{four}{six}"))
}

fn is_up(bird: &Bird, name: &str) -> bool {
    bird.ask(&format!("show protocols {name}")).contains("Established")
}

#[test]
fn the_providers_router_knows_what_the_cloud_has() {
    if !may_run("bgp") || !bird_is_here() {
        return;
    }
    let port = free_port("127.0.0.2");
    let mut bird = router_of_the_provider(port);
    let site = Site::open("bgp").unwrap();
    let settings =
        format!("cheap_passwords = true\n[network.bgp]\nport = {port}\nsources = [\"127.0.0.1\", \"::1\"]\n");
    site.configure(&settings).unwrap();
    let scheduler = site.serve().unwrap();
    let cloud = Cloud::new(site.admin().unwrap());
    let speaker4 = cloud.speaker(4, "127.0.0.2", &json!({"auth_type": "md5", "password": KEY}));
    let speaker6 = cloud.speaker(6, "::1", &json!({"auth_type": "none"}));
    let (all4, all6) = (routes(&[cloud.inside4(), cloud.floating()]), routes(&[cloud.inside6()]));
    assert_eq!((cloud.advertised(&speaker4), cloud.advertised(&speaker6)), (all4.clone(), all6.clone()));
    let both = |bird: &Bird, four: &Routes, six: &Routes| {
        bird.wait_routes("master4", four);
        bird.wait_routes("master6", six);
    };
    both(&bird, &all4, &all6);

    // A floating IP that leads nowhere is no route; neither is anything behind a router that is down.
    cloud.point(&Value::Null);
    both(&bird, &routes(&[cloud.inside4()]), &all6);
    cloud.point(&json!(cloud.port));
    both(&bird, &all4, &all6);
    let router = format!("routers/{}", cloud.router);
    set(&cloud.admin, &router, &json!({"router": {"admin_state_up": false}}));
    both(&bird, &Routes::new(), &Routes::new());
    set(&cloud.admin, &router, &json!({"router": {"admin_state_up": true}}));
    both(&bird, &all4, &all6);

    bird.again();
    both(&bird, &all4, &all6);

    // A scheduler that is killed takes no route with it, and speaks again when it is back.
    scheduler.kill().unwrap();
    until(30, "BIRD has lost the sessions", || (!is_up(&bird, "four") && !is_up(&bird, "six")).then_some(()));
    assert_eq!((bird.routes("master4"), bird.routes("master6")), (all4.clone(), all6.clone()), "kept meanwhile");
    let scheduler = site.serve().unwrap();
    until(60, "the sessions are up again", || (is_up(&bird, "four") && is_up(&bird, "six")).then_some(()));
    both(&bird, &all4, &all6);
    cloud.point(&Value::Null);
    both(&bird, &routes(&[cloud.inside4()]), &all6);

    // What is said no more goes: by its agent, by its flag, with its speaker.
    let agents = cloud.admin.get(&format!("/network/v2.0/bgp-speakers/{speaker4}/bgp-dragents")).unwrap();
    let agent = text(&agents["agents"][0], "id");
    cloud.admin.delete(&format!("/network/v2.0/agents/{agent}/bgp-drinstances/{speaker4}")).unwrap();
    both(&bird, &Routes::new(), &all6);
    let given = json!({"bgp_speaker_id": speaker4});
    cloud.admin.post(&format!("/network/v2.0/agents/{agent}/bgp-drinstances"), &given).unwrap();
    both(&bird, &routes(&[cloud.inside4()]), &all6);
    let quiet = json!({"bgp_speaker": {"advertise_tenant_networks": false}});
    set(&cloud.admin, &format!("bgp-speakers/{speaker4}"), &quiet);
    both(&bird, &Routes::new(), &all6);
    cloud.admin.delete(&format!("/network/v2.0/bgp-speakers/{speaker6}")).unwrap();
    both(&bird, &Routes::new(), &Routes::new());
    assert!(is_up(&bird, "four") && !is_up(&bird, "six"));
    assert!(!site.logs().contains(KEY), "the key is in a log");
    drop((scheduler, bird));
    site.finish().unwrap();
}
