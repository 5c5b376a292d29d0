//! Cold migrations and resizes to another host, with this test in place of the two hosts.
use super::{
    Rig,
    migration::{cloud, port_of, says, told},
};
use crate::{
    server::model::VmState,
    tables::{Flavor, MoveStage, Moving, Seen, Server, WantedPower},
};
use pilvi_agent_api::v1;
use pilvi_kit::{Caller, testing::caller};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A server, and who acts on it.
struct Case {
    rig: Rig,
    admin: Caller,
    id: String,
    from: String,
    to: String,
}

impl Case {
    async fn new(off: bool) -> Self {
        let (rig, admin, server) = cloud(&["h1", "h2"]).await;
        if off {
            let stops = rig.svc.change(&server.id, |s| {
                (s.vm_state, s.wanted.power) = (VmState::Stopped, WantedPower::Stopped);
                Ok(true)
            });
            stops.await.unwrap();
        }
        let from = server.host.clone().unwrap();
        let to = if from == "h1" { "h2" } else { "h1" };
        Case { rig, admin, id: server.id, from, to: to.to_owned() }
    }

    async fn act(&self, version: &str, status: u16, body: Value) -> Value {
        self.rig.at(version, status, &self.admin, &format!("POST /v2.1/servers/{}/action", self.id), body).await
    }

    async fn record(&self) -> Server {
        self.rig.record(&self.id).await
    }

    async fn shown(&self) -> (String, String) {
        let shown = self.rig.want(200, &self.admin, &format!("GET /v2.1/servers/{}", self.id), Value::Null).await;
        let text = |key: &str| shown["server"][key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("OS-EXT-STS:task_state"))
    }

    async fn newest(&self) -> Value {
        let call = "GET /v2.1/os-migrations?limit=1";
        self.rig.at("2.80", 200, &self.admin, call, Value::Null).await["migrations"][0].clone()
    }

    /// Which hosts the server and its migration hold something of.
    async fn held(&self, consumer: &str) -> Vec<String> {
        self.rig.held(consumer).await.as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default()
    }

    /// What a host that did all that it was told says.
    async fn obeys(&self, host: &str) {
        let (told, s) = (told(&self.rig, host).await.unwrap(), self.record().await);
        let power = if told.power() == v1::Power::Running { WantedPower::Running } else { WantedPower::Stopped };
        let seen = Seen {
            generation: told.generation,
            power: Some(power),
            settled: true,
            hard_reboots: s.wanted.hard_reboots,
            runtime: "kvm".into(),
            disk_bytes: vec![1 << 30],
            ..Seen::default()
        };
        self.rig.svc.observe(host, &self.id, seen).await.unwrap();
    }

    /// From the first word of the host there to the last of the disks.
    async fn copied(&self) -> Moving {
        let moving = self.record().await.moving.unwrap();
        self.rig.svc.observe_move(&self.to, &self.id, &says(&moving, MoveStage::Waiting)).await.unwrap();
        assert_eq!(self.shown().await, ("RESIZE".into(), "resize_migrating".into()));
        assert_eq!(self.newest().await["status"], "migrating");
        self.rig.svc.observe_move(&self.to, &self.id, &says(&moving, MoveStage::Done)).await.unwrap();
        moving
    }

    async fn moved(&self) -> Moving {
        self.act("2.56", 202, json!({"migrate": null})).await;
        let moving = self.copied().await;
        assert_eq!(self.shown().await, ("RESIZE".into(), "resize_finish".into()));
        self.obeys(&self.to).await;
        assert_eq!(self.shown().await, ("VERIFY_RESIZE".into(), String::new()));
        moving
    }
}

#[tokio::test]
async fn a_server_goes_with_its_disks_and_may_be_confirmed() {
    for off in [false, true] {
        let case = Case::new(off).await;
        case.act("2.56", 202, json!({"migrate": {"host": case.to}})).await;
        assert_eq!(case.shown().await, ("RESIZE".into(), "resize_prep".into()));
        case.act("2.1", 409, json!({"migrate": null})).await;
        let moving = case.record().await.moving.unwrap();
        assert_eq!(case.held(&case.id).await, std::slice::from_ref(&moving.to_node));
        assert_eq!(case.held(&moving.id).await, std::slice::from_ref(&moving.from_node), "as Nova: the migration's");
        let (here, there) = (told(&case.rig, &case.from).await.unwrap(), told(&case.rig, &case.to).await.unwrap());
        assert_eq!((here.power(), here.departure), (v1::Power::Stopped, None), "it is switched off at once");
        assert_eq!(there.power(), v1::Power::Stopped, "and starts there only when it is at home there");
        let arrival = there.arrival.unwrap();
        assert!(arrival.cold && arrival.disk_bytes == [1 << 30]);
        case.copied().await;
        let (here, there) = (told(&case.rig, &case.from).await.unwrap(), told(&case.rig, &case.to).await.unwrap());
        assert!(here.kept && !there.kept && there.arrival.is_none());
        let power = if off { v1::Power::Stopped } else { v1::Power::Running };
        assert_eq!((here.power(), there.power()), (v1::Power::Stopped, power));
        assert_eq!(port_of(&case.rig, &case.record().await).await.host_id, case.to);
        // What the host there said of an earlier wish ends nothing.
        let early = Seen { settled: true, power: Some(WantedPower::Stopped), ..Seen::default() };
        case.rig.svc.observe(&case.to, &case.id, early).await.unwrap();
        assert_eq!(case.shown().await.0, "RESIZE");
        case.obeys(&case.to).await;
        assert_eq!(case.shown().await, ("VERIFY_RESIZE".into(), String::new()));
        let row = case.newest().await;
        assert_eq!((&row["status"], &row["migration_type"]), (&json!("finished"), &json!("migration")));
        assert_eq!((&row["source_compute"], &row["dest_compute"]), (&json!(case.from), &json!(case.to)));
        case.act("2.1", 204, json!({"confirmResize": null})).await;
        assert_eq!(case.shown().await.0, if off { "SHUTOFF" } else { "ACTIVE" });
        assert_eq!(case.newest().await["status"], "confirmed");
        assert!(told(&case.rig, &case.from).await.is_none(), "it may be forgotten there");
        assert!(case.held(&moving.id).await.is_empty() && case.held(&case.id).await == [moving.to_node.clone()]);
        case.act("2.1", 409, json!({"revertResize": null})).await;
    }
}

#[tokio::test]
async fn a_server_comes_back_to_what_it_left() {
    for off in [false, true] {
        let case = Case::new(off).await;
        let before = case.rig.held(&case.id).await;
        let moving = case.moved().await;
        case.act("2.1", 202, json!({"revertResize": null})).await;
        assert_eq!(case.shown().await, ("REVERT_RESIZE".into(), "resize_reverting".into()));
        assert!(told(&case.rig, &case.to).await.is_none(), "there it goes first");
        assert!(told(&case.rig, &case.from).await.unwrap().kept, "and is not on before that");
        case.rig.svc.come_back(&case.id).await.unwrap();
        case.rig.svc.come_back(&case.id).await.unwrap();
        let here = told(&case.rig, &case.from).await.unwrap();
        assert!(!here.kept && here.arrival.is_none() && here.departure.is_none());
        case.obeys(&case.from).await;
        assert_eq!(case.shown().await.0, if off { "SHUTOFF" } else { "ACTIVE" });
        let after = case.record().await;
        assert_eq!((after.host.as_ref(), after.resized), (Some(&case.from), None));
        assert_eq!((case.newest().await["status"].clone(), case.rig.held(&case.id).await), (json!("reverted"), before));
        assert!(case.held(&moving.id).await.is_empty());
        assert_eq!(port_of(&case.rig, &case.record().await).await.host_id, case.from);
    }
}

#[tokio::test]
async fn what_did_not_go_is_as_it_was() {
    for (off, there) in [(false, true), (false, false), (true, true)] {
        let case = Case::new(off).await;
        let before = case.rig.held(&case.id).await;
        case.act("2.1", 202, json!({"migrate": null})).await;
        let moving = case.record().await.moving.unwrap();
        let who = if there { &case.to } else { &case.from };
        case.rig.svc.observe_move(who, &case.id, &says(&moving, MoveStage::Failed)).await.unwrap();
        let here = told(&case.rig, &case.from).await.unwrap();
        assert_eq!(here.power(), if off { v1::Power::Stopped } else { v1::Power::Running });
        assert!(here.departure.is_none() && told(&case.rig, &case.to).await.is_none());
        case.obeys(&case.from).await;
        let state = (if off { "SHUTOFF" } else { "ACTIVE" }.to_owned(), String::new());
        assert_eq!((case.shown().await, case.rig.held(&case.id).await), (state, before));
        assert_eq!(case.newest().await["status"], "error");
        assert_eq!(port_of(&case.rig, &case.record().await).await.also_on, "");
    }
}

/// It was copied, and cannot be started there.
#[tokio::test]
async fn what_cannot_be_there_comes_back_by_itself() {
    let case = Case::new(false).await;
    case.act("2.1", 202, json!({"migrate": null})).await;
    case.copied().await;
    let generation = case.record().await.wanted.generation;
    let broken = Seen { settled: true, generation, error: "no processor".into(), ..Seen::default() };
    case.rig.svc.observe(&case.to, &case.id, broken).await.unwrap();
    assert!(told(&case.rig, &case.to).await.is_none());
    case.rig.svc.come_back(&case.id).await.unwrap();
    case.obeys(&case.from).await;
    assert_eq!(case.shown().await, ("ACTIVE".into(), String::new()));
    let after = case.record().await;
    assert_eq!((after.host.as_ref(), after.resized, after.fault), (Some(&case.from), None, None));
    assert_eq!(case.newest().await["status"], "error");
}

#[tokio::test]
async fn what_cannot_go_is_refused_with_a_reason() {
    let case = Case::new(false).await;
    case.act("2.56", 400, json!({"migrate": {"host": "nowhere"}})).await;
    case.act("2.56", 400, json!({"migrate": {"host": case.from}})).await;
    case.act("2.56", 400, json!({"migrate": {"force": true}})).await;
    let act = format!("POST /v2.1/servers/{}/action", case.id);
    let manager = caller("alice", &["manager", "member", "reader"]);
    case.rig.want(403, &case.rig.alice, &act, json!({"migrate": null})).await;
    case.rig.at("2.56", 403, &manager, &act, json!({"migrate": {"host": case.to}})).await;
    let lock = |locked| json!({if locked { "lock" } else { "unlock" }: null});
    case.act("2.1", 202, lock(true)).await;
    case.rig.want(409, &manager, &act, json!({"migrate": null})).await;
    case.act("2.1", 202, lock(false)).await;
    // No other host has room: only the lists tell.
    let (rig, admin, server) = cloud(&["h1"]).await;
    let act = format!("POST /v2.1/servers/{}/action", server.id);
    rig.at("2.56", 202, &admin, &act, json!({"migrate": null})).await;
    let all = rig.at("2.23", 200, &admin, "GET /v2.1/os-migrations", Value::Null).await["migrations"].clone();
    assert_eq!((&all[0]["status"], &all[0]["dest_compute"]), (&json!("error"), &Value::Null));
    let after = rig.record(&server.id).await;
    assert_eq!((after.vm_state, after.task_state, after.moving), (VmState::Active, None, None));
}

/// Somebody else takes that much memory of a host.
async fn fill(rig: &Rig, node: &str, memory_mib: i64) {
    let claim = pilvi_placement::allocation::ops::Claim {
        consumer: pilvi_kit::id::new(),
        project_id: "bob".into(),
        user_id: "bob".into(),
        consumer_type: "INSTANCE".into(),
        allocations: BTreeMap::from([(node.to_owned(), BTreeMap::from([("MEMORY_MB".to_owned(), memory_mib)]))]),
    };
    let known = pilvi_placement::allocation::model::Known::Any;
    pilvi_placement::allocation::ops::replace(&rig.svc.store, vec![(claim, known)]).await.unwrap();
}

#[tokio::test]
async fn a_resize_goes_where_there_is_room() {
    let case = Case::new(false).await;
    let now = case.record().await.flavor;
    for (id, memory_mib) in [("2", now.memory_mib * 2), ("3", now.memory_mib * 3)] {
        let flavor = Flavor {
            id: id.into(),
            name: format!("f{id}"),
            description: None,
            vcpus: now.vcpus,
            memory_mib,
            disk_gib: now.disk_gib,
            ephemeral_gib: now.ephemeral_gib,
            swap_mib: now.swap_mib,
            rxtx_factor: 1.0,
            public: true,
            disabled: false,
            extra_specs: Default::default(),
            access: Default::default(),
        };
        let insert = case.rig.svc.store.write(move |tx| {
            let flavor = flavor.clone();
            Box::pin(async move { Ok::<_, pilvi_kit::Fault>(tx.insert(&flavor).await?) })
        });
        insert.await.unwrap();
    }
    // In place, and listed all the same.
    case.act("2.1", 202, json!({"resize": {"flavorRef": "2"}})).await;
    assert!(case.record().await.moving.is_none());
    let row = case.newest().await;
    assert_eq!((&row["migration_type"], &row["dest_compute"]), (&json!("resize"), &json!(case.from)));
    assert_ne!(row["old_instance_type_id"], row["new_instance_type_id"]);
    case.obeys(&case.from).await;
    assert_eq!(case.newest().await["status"], "finished");
    case.act("2.1", 202, json!({"revertResize": null})).await;
    case.obeys(&case.from).await;
    assert_eq!((case.shown().await.0, case.newest().await["status"].clone()), ("ACTIVE".into(), json!("reverted")));
    // Somebody takes what was left here.
    let node = case.rig.svc.fleet.node_by_name(&case.from).await.unwrap().unwrap().record.id;
    fill(&case.rig, &node, 8192 - 2 * i64::try_from(now.memory_mib).unwrap()).await;
    case.act("2.1", 202, json!({"resize": {"flavorRef": "3"}})).await;
    let moving = case.copied().await;
    assert_eq!(moving.flavor.unwrap().id, "3");
    case.obeys(&case.to).await;
    assert_eq!((case.shown().await.0.as_str(), case.record().await.flavor.id.as_str()), ("VERIFY_RESIZE", "3"));
    case.act("2.1", 202, json!({"revertResize": null})).await;
    case.rig.svc.come_back(&case.id).await.unwrap();
    case.obeys(&case.from).await;
    let after = case.record().await;
    assert_eq!((after.flavor, after.old_flavor, after.host), (now, None, Some(case.from.clone())));
}
