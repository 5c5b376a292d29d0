//! Names for the world outside: who is published, by whose name, and that a real BIND has it, whatever happens in between.
use super::{Rig, id};
use crate::{
    Network,
    dns::{
        Publisher, Reverse, Settings,
        model::{NameWish, Publication, PublishedName},
    },
    tables::find,
};
use pilvi_dns_update::{
    Server,
    testing::{Named, SECRET, named_is_here},
};
use pilvi_kit::Caller;
use pilvi_reconcile::Driver;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

const ZONE: &str = "example.org";
const BACK: &str = "0.10.in-addr.arpa";

/// What publishes, until it is dropped: then it has died.
struct Running(#[allow(dead_code, reason = "held")] watch::Sender<bool>, JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.1.abort();
    }
}

fn settings(named: &Named) -> Settings {
    let server = Server { address: named.address(), key_file: named.key_file(), patience: Duration::from_secs(2) };
    let zones = vec![format!("{ZONE}.")];
    Settings { server, zones, ttl: 60, reverse: Some(Reverse { v4: 16, v6: 32 }) }
}

fn publish(svc: &Arc<Network>, settings: Settings) -> Running {
    let (stop, stopped) = watch::channel(false);
    let driver = Driver::new(Publisher::new(svc.clone(), settings));
    Running(stop, tokio::spawn(driver.run(svc.store.clone(), stopped)))
}

impl Rig {
    async fn change(&self, who: &Caller, path: &str, body: Value) {
        self.want(200, who, "PUT", path, body).await;
    }

    /// A network whose subnet has its addresses published.
    async fn published(&self, attrs: Value, cidr: &str) -> String {
        let network = id(&self.make(&self.alice, "/v2.0/networks", "network", attrs).await);
        let subnet = json!({"network_id": network, "cidr": cidr, "ip_version": 4, "dns_publish_fixed_ip": true});
        self.make(&self.alice, "/v2.0/subnets", "subnet", subnet).await;
        network
    }

    async fn named(&self, who: &Caller, network: &str, name: &str, address: &str) -> String {
        let attrs = json!({"network_id": network, "dns_name": name, "fixed_ips": [{"ip_address": address}]});
        id(&self.make(who, "/v2.0/ports", "port", attrs).await)
    }

    async fn settled(&self) {
        for _ in 0..600 {
            if self.svc.store.count::<NameWish>(find::all()).await.unwrap() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("wishes are left");
    }
}

/// `dig` waits on a thread.
async fn wait(named: &Arc<Named>, name: &str, kind: &str, wanted: &[&str]) {
    let (named, name, kind) = (named.clone(), name.to_owned(), kind.to_owned());
    let wanted: Vec<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
    let look = move || named.wait(&name, &kind, &wanted.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(look).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_follow_ports_and_floating_ips() {
    if !named_is_here() {
        return;
    }
    let named = Arc::new(Named::start(&[ZONE, BACK], "taken A 192.0.2.99\n"));
    let rig = Rig::new().await;
    let _running = publish(&rig.svc, settings(&named));
    let network = rig.published(json!({"name": "n", "dns_domain": "example.org."}), "10.0.1.0/24").await;
    let one = rig.named(&rig.alice, &network, "web", "10.0.1.11").await;
    wait(&named, "web.example.org", "A", &["10.0.1.11"]).await;
    wait(&named, "11.1.0.10.in-addr.arpa", "PTR", &["web.example.org."]).await;
    // Two ports of one name are one set, and each takes its own along.
    let two = rig.named(&rig.alice, &network, "web", "10.0.1.12").await;
    wait(&named, "web.example.org", "A", &["10.0.1.11", "10.0.1.12"]).await;
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/ports/{one}"), Value::Null).await;
    wait(&named, "web.example.org", "A", &["10.0.1.12"]).await;
    wait(&named, "11.1.0.10.in-addr.arpa", "PTR", &[]).await;
    // Another name, another address, another domain, the network's new domain.
    let port = format!("/v2.0/ports/{two}");
    rig.change(&rig.alice, &port, json!({"port": {"dns_name": "shop"}})).await;
    wait(&named, "shop.example.org", "A", &["10.0.1.12"]).await;
    wait(&named, "web.example.org", "A", &[]).await;
    rig.change(&rig.alice, &port, json!({"port": {"fixed_ips": [{"ip_address": "10.0.1.13"}]}})).await;
    wait(&named, "shop.example.org", "A", &["10.0.1.13"]).await;
    let domain = json!({"network": {"dns_domain": "red.example.org."}});
    rig.change(&rig.alice, &format!("/v2.0/networks/{network}"), domain).await;
    wait(&named, "shop.red.example.org", "A", &["10.0.1.13"]).await;
    wait(&named, "shop.example.org", "A", &[]).await;
    rig.change(&rig.alice, &port, json!({"port": {"dns_domain": "blue.example.org."}})).await;
    wait(&named, "shop.blue.example.org", "A", &["10.0.1.13"]).await;
    wait(&named, "13.1.0.10.in-addr.arpa", "PTR", &["shop.blue.example.org."]).await;
    // A floating IP is called as its port, in the domain of the port's network, while it leads there.
    let external = rig.external().await;
    let subnets = rig.get(&rig.alice, &format!("/v2.0/subnets?network_id={network}")).await;
    let router = json!({"external_gateway_info": {"network_id": external}});
    let router = id(&rig.make(&rig.alice, "/v2.0/routers", "router", router).await);
    let leg = json!({"subnet_id": id(&subnets["subnets"][0])});
    rig.change(&rig.alice, &format!("/v2.0/routers/{router}/add_router_interface"), leg).await;
    let floating = json!({"floating_network_id": external, "port_id": two});
    let floating = rig.make(&rig.alice, "/v2.0/floatingips", "floatingip", floating).await;
    let (path, address) =
        (format!("/v2.0/floatingips/{}", id(&floating)), floating["floating_ip_address"].as_str().unwrap());
    wait(&named, "shop.red.example.org", "A", &[address]).await;
    rig.change(&rig.alice, &path, json!({"floatingip": {"port_id": null}})).await;
    wait(&named, "shop.red.example.org", "A", &[]).await;
    rig.change(&rig.alice, &path, json!({"floatingip": {"port_id": two}})).await;
    wait(&named, "shop.red.example.org", "A", &[address]).await;
    rig.want(204, &rig.alice, "DELETE", &path, Value::Null).await;
    // One with a name of its own is published wherever it leads.
    let own = json!({"floating_network_id": external, "dns_name": "gate", "dns_domain": "example.org."});
    let own = rig.make(&rig.alice, "/v2.0/floatingips", "floatingip", own).await;
    wait(&named, "gate.example.org", "A", &[own["floating_ip_address"].as_str().unwrap()]).await;
    wait(&named, "shop.red.example.org", "A", &[]).await;
    // What others have put there stays theirs, and their name too.
    let taken = rig.named(&rig.alice, &network, "taken", "10.0.1.14").await;
    rig.change(&rig.alice, &format!("/v2.0/ports/{taken}"), json!({"port": {"dns_domain": "example.org."}})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    wait(&named, "taken.example.org", "A", &["192.0.2.99"]).await;
    for port in [two, taken] {
        rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/ports/{port}"), Value::Null).await;
    }
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/floatingips/{}", id(&own)), Value::Null).await;
    wait(&named, "gate.example.org", "A", &[]).await;
    rig.settled().await;
    wait(&named, "taken.example.org", "A", &["192.0.2.99"]).await;
    let left = (
        rig.svc.store.count::<Publication>(find::all()).await.unwrap(),
        rig.svc.store.count::<PublishedName>(find::all()).await.unwrap(),
    );
    assert_eq!(left, (0, 0), "nothing is kept of what is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_either_side_is_away() {
    if !named_is_here() {
        return;
    }
    let mut named = Named::start(&[ZONE, BACK], "");
    let rig = Rig::new().await;
    let network = rig.published(json!({"name": "n", "dns_domain": "example.org."}), "10.0.1.0/24").await;
    // Nobody publishes yet.
    let first = rig.named(&rig.alice, &network, "first", "10.0.1.11").await;
    let running = publish(&rig.svc, settings(&named));
    named.wait("first.example.org", "A", &["10.0.1.11"]);
    // The server is away: what happens meanwhile is told when it is back.
    named.kill();
    let second = rig.named(&rig.alice, &network, "second", "10.0.1.12").await;
    rig.change(&rig.alice, &format!("/v2.0/ports/{first}"), json!({"port": {"dns_name": "renamed"}})).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(rig.svc.store.count::<NameWish>(find::all()).await.unwrap() >= 3);
    // What publishes dies too, and things go on.
    drop(running);
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/ports/{second}"), Value::Null).await;
    let third = rig.named(&rig.alice, &network, "third", "10.0.1.13").await;
    named.again();
    // With another key nothing is taken, and it is tried until it is.
    let key = std::fs::read(named.key_file()).unwrap();
    named.set_secret("YW5vdGhlciBrZXk=");
    let running = publish(&rig.svc, settings(&named));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(named.ask("third.example.org", "A").is_empty());
    assert!(!String::from_utf8(key).unwrap().contains("YW5v"));
    named.set_secret(SECRET);
    named.wait("third.example.org", "A", &["10.0.1.13"]);
    named.wait("renamed.example.org", "A", &["10.0.1.11"]);
    named.wait("first.example.org", "A", &[]);
    assert!(named.ask("second.example.org", "A").is_empty());
    rig.settled().await;
    // A word that nobody heard the answer to: the server has it, and what publishes does not know.
    drop(running);
    let name = rig.svc.store.get::<PublishedName>("third.example.org.").await.unwrap().unwrap();
    let unheard = name.clone();
    rig.svc
        .store
        .write(move |tx| {
            let mut name = unheard.clone();
            Box::pin(async move {
                name.claimed = false;
                tx.update(&name).await?;
                crate::dns::source::ask_in(tx, &name.id).await
            })
        })
        .await
        .unwrap();
    // And a configuration that is another: the time to live, and no way back.
    let running = publish(&rig.svc, Settings { ttl: 77, reverse: None, ..settings(&named) });
    named.wait("13.1.0.10.in-addr.arpa", "PTR", &[]);
    rig.settled().await;
    named.wait("third.example.org", "A", &["10.0.1.13"]);
    let name = rig.svc.store.get::<PublishedName>("third.example.org.").await.unwrap().unwrap();
    assert!(name.claimed && name.ttl == 77);
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/ports/{third}"), Value::Null).await;
    named.wait("third.example.org", "A", &[]);
    // A zone that may be changed no more is left as it was found.
    drop(running);
    let _running = publish(&rig.svc, Settings { zones: vec!["example.net.".into()], ..settings(&named) });
    named.wait("renamed.example.org", "A", &[]);
    rig.settled().await;
}

#[tokio::test]
async fn only_what_the_outside_can_use_is_published() {
    let rig = Rig::new().await;
    let settings = Settings { zones: vec![format!("{ZONE}.")], ..Settings::default() };
    let _running = publish(&rig.svc, settings);
    let entries = async |source: String| {
        for _ in 0..100 {
            if let Some(found) = rig.svc.store.get::<Publication>(&source).await.unwrap() {
                let all: Vec<String> = found.entries.iter().map(|e| format!("{} {}", e.name, e.data)).collect();
                return all.join(", ");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        "nothing".to_owned()
    };
    // Inside, nothing but what a subnet says; one subnet says nothing for another.
    let inside = json!({"name": "n", "dns_domain": "example.org."});
    let network = rig.published(inside.clone(), "10.0.1.0/24").await;
    rig.subnet(&rig.alice, &network, "10.0.2.0/24").await;
    let quiet = rig.named(&rig.alice, &network, "quiet", "10.0.2.5").await;
    let attrs = json!({"network_id": network, "dns_name": "both", "fixed_ips": [{"ip_address": "10.0.1.5"}, {"ip_address": "10.0.2.6"}]});
    let both = id(&rig.make(&rig.alice, "/v2.0/ports", "port", attrs).await);
    assert_eq!(entries(format!("port/{both}")).await, "both.example.org. 10.0.1.5");
    assert_eq!(entries(format!("port/{quiet}")).await, "nothing");
    // A flat network that is not external is the outside's own; an external one is for floating IPs.
    let mut flat = json!({"name": "f", "dns_domain": "example.org.", "provider:network_type": "flat", "provider:physical_network": "wire"});
    for (external, found) in [(false, "open.example.org. 10.0.5.5"), (true, "nothing")] {
        flat["router:external"] = json!(external);
        flat["provider:physical_network"] = json!(format!("wire-{external}"));
        let network = id(&rig.make(&rig.admin, "/v2.0/networks", "network", flat.clone()).await);
        rig.subnet(&rig.admin, &network, "10.0.5.0/24").await;
        let port = rig.named(&rig.admin, &network, "open", "10.0.5.5").await;
        assert_eq!(entries(format!("port/{port}")).await, found);
    }
    // Domains that nobody may change are nobody's.
    let away = rig.published(json!({"name": "n", "dns_domain": "example.com."}), "10.0.7.0/24").await;
    let port = rig.named(&rig.alice, &away, "web", "10.0.7.5").await;
    assert_eq!(entries(format!("port/{port}")).await, "nothing");
}

#[tokio::test]
async fn domains_may_say_who_makes_a_port() {
    let rig = Rig::new().await;
    let attrs = json!({"name": "n", "dns_domain": "<project_id>.<user_id>.Example.org."});
    let network = rig.published(attrs, "10.0.1.0/24").await;
    let shown = rig.get(&rig.alice, &format!("/v2.0/networks/{network}")).await;
    assert_eq!(shown["network"]["dns_domain"], json!("<project_id>.<user_id>.example.org."));
    let port = rig.named(&rig.alice, &network, "web", "10.0.1.5").await;
    let path = format!("/v2.0/ports/{port}");
    let fqdn = async || rig.get(&rig.alice, &path).await["port"]["dns_assignment"][0]["fqdn"].clone();
    let user = &rig.alice.user_id;
    assert_eq!(fqdn().await, json!(format!("web.alice.{user}.example.org.")));
    rig.change(&rig.alice, &path, json!({"port": {"dns_domain": "<project_id>.example.org."}})).await;
    assert_eq!(fqdn().await, json!("web.alice.example.org."));
    let shown = rig.get(&rig.alice, &path).await["port"].clone();
    assert_eq!((&shown["dns_domain"], shown.get("dns_words")), (&json!("<project_id>.example.org."), None));
    for wrong in ["<group_id>.example.org.", "x<user_id>.example.org.", "<user_id>"] {
        rig.want(400, &rig.alice, "PUT", &path, json!({"port": {"dns_domain": wrong}})).await;
    }
    let external = rig.external().await;
    let floating = |name: &str, domain: &str| json!({"floatingip": {"floating_network_id": external, "dns_name": name, "dns_domain": domain}});
    for (name, domain) in [("web", ""), ("", "example.org."), ("web", "<user_id>.example.org.")] {
        rig.want(400, &rig.alice, "POST", "/v2.0/floatingips", floating(name, domain)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_one_projects() {
    if !named_is_here() {
        return;
    }
    let named = Named::start(&[ZONE], "");
    let rig = Rig::new().await;
    let _running = publish(&rig.svc, Settings { reverse: None, ..settings(&named) });
    let attrs = json!({"name": "n", "shared": true, "dns_domain": "example.org."});
    let network = id(&rig.make(&rig.admin, "/v2.0/networks", "network", attrs).await);
    let subnet = json!({"network_id": network, "cidr": "10.0.1.0/24", "ip_version": 4, "dns_publish_fixed_ip": true});
    rig.make(&rig.admin, "/v2.0/subnets", "subnet", subnet).await;
    let port = async |who: &Caller| {
        let attrs = json!({"network_id": network, "dns_name": "web"});
        let port = rig.make(who, "/v2.0/ports", "port", attrs).await;
        (id(&port), port["fixed_ips"][0]["ip_address"].as_str().unwrap().to_owned())
    };
    let (first, theirs) = port(&rig.bob).await;
    named.wait("web.example.org", "A", &[&theirs]);
    let (_, other) = port(&rig.alice).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(named.ask("web.example.org", "A"), [theirs].into());
    rig.want(204, &rig.bob, "DELETE", &format!("/v2.0/ports/{first}"), Value::Null).await;
    named.wait("web.example.org", "A", &[&other]);
}
