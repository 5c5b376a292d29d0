//! Bandwidth that ports keep free: a host promises no more of its link than it has.
use super::{Rig, ctx};
use crate::{
    server::{
        model::{VmState, tests::server},
        reconcile::Servers,
    },
    tables::{NetworkWish, Server},
};
use pilvi_fleet::{Node, NodeState};
use pilvi_kit::Fault;
use pilvi_network::{
    attribute::Verb,
    port::{self, model::Port},
    qos,
    verbs::Api,
};
use pilvi_reconcile::Reconcile;
use serde_json::{Value, json};

const EGRESS: &str = "NET_BW_EGR_KILOBIT_PER_SEC";

impl Rig {
    /// A host with so much of its link to promise.
    pub(super) async fn host(&self, name: &str, kbps: u64) -> String {
        let id = pilvi_kit::id::new();
        let link: Value = if kbps > 0 { json!({ EGRESS: kbps }) } else { json!({}) };
        let inventory = json!({"vcpus": 8, "memory_mib": 8192, "disk_gib": 100, "cpu_model": "", "cpu_arch": "x86_64",
            "traits": [], "runtimes": [["kvm", true, ""]], "vtep": "", "hypervisor_version": "", "host_ip": "", "link": link});
        let node = Node {
            id: id.clone(),
            name: name.into(),
            state: NodeState::Up,
            fingerprint: String::new(),
            agent_version: String::new(),
            boot_id: String::new(),
            last_seen_us: 0,
            inventory: serde_json::from_value(inventory).unwrap(),
            disabled: false,
            disabled_reason: None,
            forced_down: false,
        };
        let stored = self
            .svc
            .store
            .write(move |tx| {
                let node = node.clone();
                Box::pin(async move { Ok::<_, Fault>(tx.insert(&node).await?) })
            })
            .await
            .unwrap();
        self.svc.offer_host(&stored).await.unwrap();
        id
    }

    pub(super) async fn api<R: Api>(&self, member: Value) -> R {
        let who = &self.alice;
        let attrs = R::RESOURCE.parse(&member, Verb::Create, who.project_id().unwrap()).unwrap();
        let ctx = ctx(who);
        let made = self
            .svc
            .store
            .write(move |tx| {
                let (ctx, attrs) = (ctx.clone(), attrs.clone());
                Box::pin(async move { R::create_in(tx, &ctx, &attrs).await })
            })
            .await;
        made.unwrap().record
    }

    /// A policy that keeps so much free.
    async fn keeps(&self, kbps: u64) -> String {
        let policy: qos::model::QosPolicy = self.api(json!({"name": "least"})).await;
        let ctx = ctx(&self.alice);
        let rule = json!({"policy_id": policy.id, "project_id": "alice", "min_kbps": kbps, "direction": "egress"});
        let rule = rule.as_object().unwrap().clone();
        self.svc
            .store
            .write(move |tx| {
                let (ctx, rule) = (ctx.clone(), rule.clone());
                Box::pin(
                    async move { qos::model::QosRule::<qos::model::LeastBandwidth>::create_in(tx, &ctx, &rule).await },
                )
            })
            .await
            .unwrap();
        policy.id
    }

    /// A server that takes a port, placed if it can be.
    pub(super) async fn placed(&self, port: &str) -> Server {
        let id = self
            .asked(vec![NetworkWish { network_id: None, port_id: Some(port.into()), fixed_ip: None, tag: None }])
            .await;
        Servers::new(self.svc.clone()).reconcile(&id).await.unwrap();
        self.record(&id).await
    }

    /// A server that nobody has placed yet.
    pub(super) async fn asked(&self, networks: Vec<NetworkWish>) -> String {
        let mut new = server();
        new.id = pilvi_kit::id::new();
        new.project_id = "alice".into();
        (new.host, new.task_state) = (None, None);
        new.networks = networks;
        let id = new.id.clone();
        self.svc
            .store
            .write(move |tx| {
                let new = new.clone();
                Box::pin(async move { Ok::<_, Fault>(tx.insert(&new).await?) })
            })
            .await
            .unwrap();
        id
    }

    pub(super) async fn held(&self, server: &str) -> Value {
        json!(pilvi_placement::allocation::ops::of(&self.svc.store, server).await.unwrap())
    }
}

#[tokio::test]
async fn a_host_promises_no_more_of_its_link_than_it_has() {
    let rig = Rig::new().await;
    rig.host("none", 0).await;
    let wide = rig.host("wide", 1000).await;
    let network = rig.network(&rig.alice, "10.1.0.0/24", json!({})).await;
    let policy = rig.keeps(600).await;
    let mut ports = Vec::new();
    for _ in 0..3 {
        let port: Port = rig.api(json!({"network_id": network, "qos_policy_id": policy})).await;
        ports.push(port.id);
    }
    let first = rig.placed(&ports[0]).await;
    assert_eq!(first.host.as_deref(), Some("wide"), "only there is anything to promise");
    assert_eq!(rig.held(&first.id).await[&wide][EGRESS], 600);
    let port = rig.svc.store.get::<Port>(&ports[0]).await.unwrap().unwrap();
    let given = port.profile["allocation"].as_object().unwrap();
    assert!(given.values().all(|p| *p == json!(wide)) && given.len() == 1, "{given:?}");
    let second = rig.placed(&ports[1]).await;
    assert_eq!((second.host, second.vm_state), (None, VmState::Error), "two of 600 do not fit into 1000");
    // A port that asks for nothing goes anywhere, and one that is attached later asks as well.
    let plain: Port = rig.api(json!({"network_id": network})).await;
    let third = rig.placed(&plain.id).await;
    assert!(third.host.is_some());
    let mut active = rig.svc.store.get::<Server>(&first.id).await.unwrap().unwrap();
    (active.vm_state, active.task_state) = (VmState::Active, None);
    rig.svc
        .store
        .write(move |tx| {
            let active = active.clone();
            Box::pin(async move { Ok::<_, Fault>(tx.update(&active).await?) })
        })
        .await
        .unwrap();
    let interfaces = format!("/v2.1/servers/{}/os-interface", first.id);
    let attach = json!({"interfaceAttachment": {"port_id": ports[2]}});
    rig.want(400, &rig.alice, &format!("POST {interfaces}"), attach.clone()).await;
    // What is detached is free for others at once.
    rig.want(202, &rig.alice, &format!("DELETE {interfaces}/{}", ports[0]), Value::Null).await;
    assert_eq!(rig.held(&first.id).await[&wide].get(EGRESS), None);
    let port = rig.svc.store.get::<Port>(&ports[0]).await.unwrap().unwrap();
    assert!(port.profile.get("allocation").is_none());
    rig.want(200, &rig.alice, &format!("POST {interfaces}"), attach).await;
    assert_eq!(rig.held(&first.id).await[&wide][EGRESS], 600);
}

#[tokio::test]
async fn what_a_server_holds_does_not_change_under_it() {
    let rig = Rig::new().await;
    rig.host("wide", 1000).await;
    let network = rig.network(&rig.alice, "10.1.0.0/24", json!({})).await;
    let (policy, other) = (rig.keeps(600).await, rig.keeps(100).await);
    let made: Port = rig.api(json!({"network_id": network, "qos_policy_id": policy})).await;
    rig.placed(&made.id).await;
    let change = |to: Value| {
        let (store, id) = (rig.svc.store.clone(), made.id.clone());
        let changes = json!({"qos_policy_id": to}).as_object().unwrap().clone();
        async move {
            store
                .write(move |tx| {
                    let (id, changes) = (id.clone(), changes.clone());
                    Box::pin(async move {
                        let port = tx.get::<Port>(&id).await?.ok_or_else(|| Fault::not_found("port"))?;
                        port::ops::update_in(tx, port, &changes).await
                    })
                })
                .await
                .map(|_| ())
        }
    };
    assert_eq!(change(json!(other)).await.unwrap_err().kind, "QosResourceRequestInUse");
    assert_eq!(change(Value::Null).await.unwrap_err().kind, "QosResourceRequestInUse");
    change(json!(policy)).await.unwrap();
}
