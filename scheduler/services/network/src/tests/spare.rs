//! Routers that keep spare ways, through the API: who stands by, what ports say of it, what operators change, and what hosts are told.
use super::{Rig, host::hosts, id, ids};
use crate::{
    host::HostInfo,
    network::model::VirtualNetwork,
    port::model::Port,
    router::model::Router,
    spare::{Keeper, model::SPARE_INTERFACE},
    tables::find,
};
use pilvi_reconcile::Reconcile;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A rig with hosts, and what keeps its routers.
struct Scene {
    rig: Rig,
    hosts: Vec<HostInfo>,
    keeper: Keeper,
    external: String,
}

impl Scene {
    async fn new(n: usize) -> Self {
        let rig = Rig::new().await;
        let external = rig.external().await;
        let (hosts, keeper) = (hosts(n), Keeper::new(rig.svc.clone()));
        rig.svc.remember(&hosts);
        Scene { rig, hosts, keeper, external }
    }

    /// A pass over all that is not as it should be; after it nothing is left to do.
    async fn settle(&self) {
        for router in self.keeper.all().await.unwrap() {
            self.keeper.reconcile(&router).await.unwrap();
        }
        assert!(self.keeper.all().await.unwrap().is_empty());
    }

    async fn set_up(&mut self, host: &str, up: bool) {
        self.hosts.iter_mut().filter(|h| h.name == host).for_each(|h| h.up = up);
        self.rig.svc.remember(&self.hosts);
        self.keeper.reconcile(&format!("host/{host}")).await.unwrap();
        assert!(self.keeper.all().await.unwrap().is_empty(), "{host} was all that was to be looked at");
    }

    /// A router of alice's.
    async fn router(&self, mut attrs: Value) -> String {
        attrs["project_id"] = json!("alice");
        attrs["external_gateway_info"] = json!({"network_id": self.external});
        let router = id(&self.rig.make(&self.rig.admin, "/v2.0/routers", "router", attrs).await);
        self.settle().await;
        router
    }

    async fn set(&self, status: u16, router: &str, attrs: Value) -> Value {
        let path = format!("/v2.0/routers/{router}");
        self.rig.want(status, &self.rig.admin, "PUT", &path, json!({"router": attrs})).await
    }

    /// (host, state, priority) of all that hold the way out or stand by, as operators see them.
    async fn agents(&self, router: &str) -> Vec<(String, String, Option<u64>)> {
        let answer = self.rig.get(&self.rig.admin, &format!("/v2.0/routers/{router}/l3-agents")).await;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let one = |a: &Value| (text(&a["host"]), text(&a["ha_state"]), a["ha_chassis_priority"].as_u64());
        answer["agents"].as_array().unwrap().iter().map(one).collect()
    }

    async fn active(&self, router: &str) -> String {
        let agents = self.agents(router).await;
        let active: Vec<&String> = agents.iter().filter(|a| a.1 == "active").map(|a| &a.0).collect();
        assert_eq!(active.len(), 1, "{agents:?}");
        active[0].clone()
    }

    async fn ports(&self, query: &str) -> Vec<Value> {
        let answer = self.rig.get(&self.rig.admin, &format!("/v2.0/ports?{query}")).await;
        answer["ports"].as_array().cloned().unwrap_or_default()
    }

    /// How many ports of the router there are of an owner: all, and those that are ACTIVE.
    async fn count(&self, router: &str, owner: &str) -> (usize, usize) {
        let ports = self.ports(&format!("device_id={router}&device_owner=network:{owner}")).await;
        (ports.len(), ports.iter().filter(|p| p["status"] == "ACTIVE").count())
    }

    /// The agent of a host, by which operators name it.
    async fn agent(&self, host: &str) -> String {
        let found = self.rig.get(&self.rig.admin, &format!("/v2.0/agents?host={host}&agent_type=L3%20agent")).await;
        format!("/v2.0/agents/{}/l3-routers", id(&found["agents"][0]))
    }

    /// Where each host sends what goes out by the router; every host that is up knows the same.
    async fn holder_as_hosts_know(&self) -> String {
        let mut held = BTreeSet::new();
        for host in self.hosts.iter().filter(|h| h.up) {
            let view = self.rig.svc.host_network(&host.name, &self.hosts).await.unwrap();
            let gateways: Vec<_> = view.routers.iter().filter_map(|r| r.gateway.as_ref()).collect();
            if gateways.iter().any(|g| g.vtep.is_empty()) {
                held.insert(host.name.clone());
            }
        }
        assert_eq!(held.len(), 1, "{held:?}");
        held.pop_first().unwrap()
    }
}

#[tokio::test]
async fn three_hosts_stand_by_and_take_over_in_order() {
    let mut scene = Scene::new(5).await;
    let before = {
        let plain = scene.router(json!({"name": "plain"})).await;
        assert_eq!(scene.agents(&plain).await.iter().map(|a| (a.1.as_str(), a.2)).collect::<Vec<_>>(), [("", None)]);
        assert_eq!(scene.count(&plain, "router_ha_interface").await, (0, 0));
        scene.rig.want(204, &scene.rig.admin, "DELETE", &format!("/v2.0/routers/{plain}"), Value::Null).await;
        scene.rig.svc.store.list::<Port>(find::all()).await.unwrap().len()
    };
    let router = scene.router(json!({"name": "r", "ha": true})).await;
    let agents = scene.agents(&router).await;
    let seen: Vec<(&str, Option<u64>)> = agents.iter().map(|a| (a.1.as_str(), a.2)).collect();
    assert_eq!(seen, [("active", Some(5)), ("standby", Some(4)), ("standby", Some(3))]);
    assert_eq!(scene.holder_as_hosts_know().await, agents[0].0);
    // The ports say the same: one for each, nobody's, on a network that is nobody's either.
    let ports = scene.ports(&format!("device_id={router}&device_owner={SPARE_INTERFACE}")).await;
    let on: BTreeSet<&str> = ports.iter().map(|p| p["binding:host_id"].as_str().unwrap()).collect();
    assert_eq!(on, agents.iter().map(|a| a.0.as_str()).collect());
    for port in &ports {
        assert_eq!(
            (&port["status"], &port["binding:vif_type"], &port["project_id"]),
            (&json!("ACTIVE"), &json!("other"), &json!(""))
        );
        let path = format!("/v2.0/ports/{}", id(port));
        assert_eq!(scene.rig.refused(409, &scene.rig.admin, "DELETE", &path, Value::Null).await, "ServicePortInUse");
        let elsewhere = json!({"port": {"binding:host_id": "h9"}});
        assert_eq!(scene.rig.refused(409, &scene.rig.admin, "PUT", &path, elsewhere).await, "ServicePortInUse");
    }
    assert!(scene.rig.get(&scene.rig.alice, "/v2.0/ports").await["ports"].as_array().unwrap().is_empty());
    let networks = scene.rig.get(&scene.rig.admin, "/v2.0/networks?name=HA%20network%20project%20alice").await;
    assert_eq!(networks["networks"][0]["id"], ports[0]["network_id"]);
    assert_eq!(networks["networks"][0]["project_id"], "");
    // One after the other dies; the next one holds, and after the last one somebody else.
    for (turn, (host, ..)) in agents.iter().enumerate() {
        assert_eq!(scene.active(&router).await, *host);
        scene.set_up(host, false).await;
        assert_eq!(scene.count(&router, "router_ha_interface").await, (3, 2 - turn));
        let holder = scene.holder_as_hosts_know().await;
        match agents.get(turn + 1) {
            Some(next) => assert_eq!(holder, next.0),
            None => assert!(agents.iter().all(|a| a.0 != holder) && scene.active(&router).await == holder),
        }
    }
    for (host, ..) in agents[..2].iter().rev() {
        scene.set_up(host, true).await;
        assert_eq!(scene.holder_as_hosts_know().await, *host, "it gives back");
    }
    // Whoever takes the cloud over finds the same.
    let anew = crate::Network::new(scene.rig.svc.store.clone());
    anew.remember(&scene.hosts);
    assert!(Keeper::new(anew).all().await.unwrap().is_empty());
    scene.rig.want(204, &scene.rig.admin, "DELETE", &format!("/v2.0/routers/{router}"), Value::Null).await;
    assert_eq!(scene.rig.svc.store.list::<Port>(find::all()).await.unwrap().len(), before, "nothing is left");
    assert!(scene.rig.svc.store.list::<VirtualNetwork>(find::spare_network("alice")).await.unwrap().is_empty());
}

#[tokio::test]
async fn hosts_that_leave_are_replaced_and_those_that_join_take_nothing() {
    let mut scene = Scene::new(2).await;
    let router = scene.router(json!({"ha": true})).await;
    let first = scene.agents(&router).await;
    assert_eq!(first.len(), 2);
    scene.hosts = hosts(9);
    scene.rig.svc.remember(&scene.hosts);
    scene.keeper.reconcile("short").await.unwrap();
    let filled = scene.agents(&router).await;
    assert_eq!((&filled[..2], filled.len()), (&first[..], 3));
    scene.hosts.retain(|h| h.name != first[0].0);
    scene.rig.svc.remember(&scene.hosts);
    scene.keeper.reconcile(&format!("host/{}", first[0].0)).await.unwrap();
    let after = scene.agents(&router).await;
    assert_eq!((after.len(), &after[0].0, &after[1].0), (3, &filled[1].0, &filled[2].0));
    assert_eq!(scene.count(&router, "router_ha_interface").await, (3, 3));
    // A scheduler that knows of no host yet takes nothing away.
    let blind = crate::Network::new(scene.rig.svc.store.clone());
    Keeper::new(blind).reconcile(&router).await.unwrap();
    assert_eq!(scene.agents(&router).await, after);
}

#[tokio::test]
async fn routers_change_their_kind_while_they_are_down() {
    let scene = Scene::new(4).await;
    let rig = &scene.rig;
    let router = scene.router(json!({"name": "r"})).await;
    let network = rig.network(&rig.alice, "n").await;
    let subnet = rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let leg = format!("/v2.0/routers/{router}/add_router_interface");
    rig.want(200, &rig.alice, "PUT", &leg, json!({"subnet_id": subnet})).await;
    let path = format!("/v2.0/routers/{router}");
    rig.want(403, &rig.alice, "PUT", &path, json!({"router": {"ha": true}})).await;
    rig.want(403, &rig.alice, "POST", "/v2.0/routers", json!({"router": {"ha": true}})).await;
    assert!(rig.get(&rig.alice, &path).await["router"].get("ha").is_none());
    let refused = scene.set(400, &router, json!({"ha": true})).await;
    assert_eq!(refused["NeutronError"]["type"], "BadRequest");
    let kinds = async || {
        let mut seen = Vec::new();
        for owner in [
            "router_interface",
            "router_interface_distributed",
            "ha_router_replicated_interface",
            "router_ha_interface",
            "router_centralized_snat",
            "router_gateway",
        ] {
            seen.push(scene.count(&router, owner).await);
        }
        seen
    };
    let (none, one, three) = ((0, 0), (1, 1), (3, 3));
    assert_eq!(kinds().await, [one, none, none, none, none, one]);
    let mut expected = vec![
        (json!({"ha": true, "distributed": true}), [none, one, none, three, one, one]),
        (json!({"ha": true, "distributed": false}), [none, none, one, three, none, one]),
        (json!({"ha": false, "distributed": true}), [none, one, none, none, none, one]),
        (json!({"ha": true, "distributed": true}), [none, one, none, three, one, one]),
        (json!({"ha": false, "distributed": false}), [one, none, none, none, none, one]),
        (json!({"ha": true}), [none, none, one, three, none, one]),
    ];
    for (attrs, expected) in expected.drain(..) {
        scene.set(200, &router, json!({"admin_state_up": false})).await;
        assert!(kinds().await.iter().all(|(_, active)| *active == 0), "down with the router");
        assert_eq!(scene.set(200, &router, attrs.clone()).await["router"]["ha"], attrs["ha"]);
        scene.set(200, &router, json!({"admin_state_up": true})).await;
        scene.settle().await;
        assert_eq!(kinds().await, expected, "{attrs}");
    }
    let shown = scene.ports(&format!("device_id={router}&device_owner=network:ha_router_replicated_interface")).await;
    let same = json!({"port": {"device_owner": shown[0]["device_owner"], "name": "leg"}});
    rig.want(200, &rig.admin, "PUT", &format!("/v2.0/ports/{}", id(&shown[0])), same).await;
    // Without a way out there is nothing to stand by for.
    scene.set(200, &router, json!({"external_gateway_info": null})).await;
    assert_eq!(kinds().await, [none, none, one, none, none, none]);
    assert_eq!(scene.agents(&router).await, []);
    scene.settle().await;
    assert_eq!(rig.svc.store.list::<VirtualNetwork>(find::spare_network("alice")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn where_source_nat_is_follows_the_holder() {
    let mut scene = Scene::new(4).await;
    let router = scene.router(json!({"ha": true, "distributed": true})).await;
    let at = async |scene: &Scene| {
        let ports = scene.ports(&format!("device_id={router}&device_owner=network:router_centralized_snat")).await;
        assert_eq!((ports.len(), &ports[0]["status"]), (1, &json!("ACTIVE")));
        ports[0]["binding:host_id"].as_str().unwrap().to_owned()
    };
    let first = scene.active(&router).await;
    assert_eq!(at(&scene).await, first);
    scene.set_up(&first, false).await;
    let second = scene.active(&router).await;
    assert!(second != first && at(&scene).await == second);
    scene.set_up(&first, true).await;
    assert_eq!(at(&scene).await, first);
}

#[tokio::test]
async fn operators_say_who_stands_by_and_when_whose_turn_is() {
    let scene = Scene::new(7).await;
    let rig = &scene.rig;
    let router = scene.router(json!({"ha": true})).await;
    let agents = scene.agents(&router).await;
    let named = |host: &str| agents.iter().any(|a| a.0 == host);
    let outside: Vec<&str> = scene.hosts.iter().map(|h| h.name.as_str()).filter(|h| !named(h)).collect();
    let new = scene.agent(outside[0]).await;
    let wish = |priority: Value| json!({"router_id": router, "ha_chassis_priority": priority});
    let refused =
        async |status, path: &str, priority| rig.refused(status, &rig.admin, "POST", path, wish(priority)).await;
    for wrong in [json!(32_768), json!(-1), json!("x"), json!(1.5)] {
        assert_eq!(refused(400, &new, wrong).await, "InvalidHAChassisPriority");
    }
    assert_eq!(refused(409, &new, json!(4)).await, "HAChassisPriorityAlreadyAssigned");
    assert_eq!(refused(409, &scene.agent(&agents[1].0).await, json!(9)).await, "RouterHostedByL3Agent");
    rig.want(201, &rig.admin, "POST", &new, wish(json!(100))).await;
    assert_eq!(scene.active(&router).await, outside[0]);
    scene.settle().await;
    assert_eq!(scene.count(&router, "router_ha_interface").await, (4, 4));
    let lowest = scene.agent(outside[1]).await;
    rig.want(201, &rig.admin, "POST", &lowest, json!({"router_id": router})).await;
    let all = scene.agents(&router).await;
    assert_eq!(all.iter().filter_map(|a| a.2).collect::<Vec<_>>(), [100, 5, 4, 3, 2]);
    assert_eq!(refused(409, &scene.agent(outside[2]).await, json!(7)).await, "RouterSchedulingFailed");
    // The order changes; each host lists the router.
    let last = format!("{lowest}/{router}");
    assert_eq!(
        rig.refused(409, &rig.admin, "PUT", &last, json!({"ha_chassis_priority": 5})).await,
        "HAChassisPriorityAlreadyAssigned"
    );
    rig.want(200, &rig.admin, "PUT", &last, json!({"ha_chassis_priority": 32_767})).await;
    rig.want(400, &rig.admin, "PUT", &last, json!({"router_id": router})).await;
    rig.want(403, &rig.alice, "PUT", &last, json!({"ha_chassis_priority": 1})).await;
    assert_eq!(scene.active(&router).await, outside[1]);
    scene.settle().await;
    assert_eq!(ids(&rig.get(&rig.admin, &new).await["routers"]), vec![router.clone()]);
    // Those who are sent away are not chosen again.
    for host in [outside[0], outside[1], &agents[0].0] {
        let path = format!("{}/{router}", scene.agent(host).await);
        rig.want(204, &rig.admin, "DELETE", &path, Value::Null).await;
        assert_eq!(rig.refused(409, &rig.admin, "DELETE", &path, Value::Null).await, "RouterNotHostedByL3Agent");
        assert_eq!(
            rig.refused(409, &rig.admin, "PUT", &path, json!({"ha_chassis_priority": 1})).await,
            "RouterNotHostedByL3Agent"
        );
        scene.settle().await;
    }
    let left = scene.agents(&router).await;
    assert_eq!((left.len(), &left[0].0), (3, &agents[1].0));
    assert!(left.iter().all(|a| ![outside[0], outside[1], agents[0].0.as_str()].contains(&a.0.as_str())));
    // Only routers with candidates have priorities.
    let plain = scene.router(json!({})).await;
    rig.want(400, &rig.admin, "POST", &new, json!({"router_id": plain, "ha_chassis_priority": 9})).await;
    rig.want(201, &rig.admin, "POST", &new, json!({"router_id": plain})).await;
    // One that is asked before there is a way out stands by as soon as there is one.
    let early = json!({"project_id": "alice", "ha": true});
    let early = id(&rig.make(&rig.admin, "/v2.0/routers", "router", early).await);
    rig.want(409, &rig.admin, "POST", &new, json!({"router_id": early, "ha_chassis_priority": 9})).await;
    rig.want(201, &rig.admin, "POST", &new, json!({"router_id": early})).await;
    scene.set(200, &early, json!({"external_gateway_info": {"network_id": scene.external}})).await;
    scene.settle().await;
    assert_eq!(scene.active(&early).await, outside[0]);
}

#[tokio::test]
async fn a_project_has_one_network_for_it_while_it_has_such_routers() {
    let scene = Scene::new(3).await;
    let rig = &scene.rig;
    // Candidates cost no quota.
    rig.want(200, &rig.admin, "PUT", "/v2.0/quotas/alice", json!({"quota": {"port": 0, "network": 0, "subnet": 0}}))
        .await;
    let two = [scene.router(json!({"ha": true})).await, scene.router(json!({"ha": true})).await];
    let networks = async || {
        let found = rig.svc.store.list::<VirtualNetwork>(find::spare_network("alice")).await.unwrap();
        found.into_iter().map(|n| (n.record.id, n.record.segmentation_id)).collect::<Vec<_>>()
    };
    let first = networks().await;
    assert_eq!(first.len(), 1);
    let path = format!("/v2.0/networks/{}", first[0].0);
    assert_eq!(rig.refused(409, &rig.admin, "DELETE", &path, Value::Null).await, "NetworkInUse");
    assert!(rig.get(&rig.admin, &path).await["network"].get("ha").is_none(), "the flag is for makers");
    rig.want(404, &rig.alice, "GET", &path, Value::Null).await;
    rig.want(204, &rig.admin, "DELETE", &format!("/v2.0/routers/{}", two[0]), Value::Null).await;
    assert_eq!(networks().await, first);
    rig.want(204, &rig.admin, "DELETE", &format!("/v2.0/routers/{}", two[1]), Value::Null).await;
    assert_eq!(networks().await, []);
    // Made by hand it is taken, and stays.
    let made = id(&rig.make(&rig.bob, "/v2.0/networks", "network", json!({"name": "mine", "ha": true})).await);
    let second = json!({"network": {"name": "another", "ha": true}});
    assert_eq!(rig.refused(409, &rig.bob, "POST", "/v2.0/networks", second).await, "DuplicatedHANetwork");
    let router = json!({"project_id": "bob", "ha": true, "external_gateway_info": {"network_id": scene.external}});
    let router = id(&rig.make(&rig.admin, "/v2.0/routers", "router", router).await);
    scene.settle().await;
    let ports = scene.ports(&format!("device_id={router}&device_owner={SPARE_INTERFACE}")).await;
    assert!(ports.len() == 3 && ports.iter().all(|p| p["network_id"] == json!(made)));
    rig.want(204, &rig.admin, "DELETE", &format!("/v2.0/routers/{router}"), Value::Null).await;
    rig.get(&rig.bob, &format!("/v2.0/networks/{made}")).await;
    assert!(rig.svc.store.list::<Router>(find::all()).await.unwrap().is_empty());
}
