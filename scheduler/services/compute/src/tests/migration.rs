//! Live migrations, with this test in place of the two hosts.
use super::Rig;
use crate::{
    server::model::{TaskState, VmState},
    tables::{Gone, MoveStage, Moving, Seen, SeenMove, Server, WantedPower},
};
use pilvi_fleet::HostPart;
use pilvi_kit::{Caller, testing::caller};
use pilvi_network::port::model::Port;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A cloud of these hosts, and a server that runs on the first that took it.
pub(super) async fn cloud(hosts: &[&str]) -> (Rig, Caller, Server) {
    let rig = Rig::new().await;
    for host in hosts {
        rig.host(host, 0).await;
    }
    let network = rig.network(&rig.alice, "10.1.0.0/24", json!({})).await;
    let new = json!({"network_id": network, "project_id": "alice"});
    let port: Port = rig.api(new).await;
    let placed = rig.placed(&port.id).await;
    let id = placed.id.clone();
    let runs = rig.svc.change(&id, |s| {
        (s.vm_state, s.task_state) = (VmState::Active, None);
        let known = Seen {
            runtime: "kvm".into(),
            disk_bytes: vec![1 << 30],
            places: BTreeMap::from([("root".to_owned(), 3)]),
            ..Seen::default()
        };
        s.seen = Some(known);
        Ok(true)
    });
    let server = runs.await.unwrap().record;
    (rig, caller("admin", &["admin", "member", "reader"]), server)
}

fn body(host: Value) -> Value {
    json!({"os-migrateLive": {"host": host, "block_migration": "auto"}})
}

/// What a host says of the move.
pub(super) fn says(moving: &Moving, stage: MoveStage) -> Seen {
    let moved = SeenMove {
        id: moving.id.clone(),
        stage,
        error: "broke".into(),
        address: "192.0.2.2:77".into(),
        memory: None,
        disks: None,
    };
    Seen { moved: Some(moved), runtime: "kvm".into(), power: Some(WantedPower::Running), ..Seen::default() }
}

pub(super) async fn port_of(rig: &Rig, server: &Server) -> Port {
    rig.svc.store.get::<Port>(&server.ports[0].id).await.unwrap().unwrap().record
}

/// The server's part of what a host shall run.
pub(super) async fn told(rig: &Rig, host: &str) -> Option<pilvi_agent_api::v1::Instance> {
    let part = crate::ComputePart::new(rig.svc.clone());
    part.wanted(host).await.unwrap().instances.pop()
}

#[tokio::test]
async fn a_server_moves_with_its_ports_and_its_claim() {
    let (rig, admin, server) = cloud(&["h1", "h2"]).await;
    let id = &server.id;
    let from = server.host.clone().unwrap();
    let to = if from == "h1" { "h2" } else { "h1" };
    let act = format!("POST /v2.1/servers/{id}/action");
    rig.at("2.25", 202, &admin, &act, body(Value::Null)).await;
    let moving = rig.record(id).await.moving.unwrap();
    assert_eq!((moving.to.as_str(), port_of(&rig, &server).await.also_on.as_str()), (to, to));
    assert_eq!(rig.held(id).await.as_object().unwrap().len(), 2, "claimed on both hosts");
    let shown = rig.want(200, &admin, &format!("GET /v2.1/servers/{id}"), Value::Null).await;
    assert_eq!(shown["server"]["status"], "MIGRATING");
    // Busy: another verb has to wait.
    rig.want(409, &admin, &act, json!({"os-stop": null})).await;
    rig.at("2.25", 409, &admin, &act, body(Value::Null)).await;

    let (here, there) = (told(&rig, &from).await.unwrap(), told(&rig, to).await.unwrap());
    assert!(here.departure.is_none() && here.arrival.is_none());
    let arrival = there.arrival.unwrap();
    assert_eq!((arrival.places[0].id.as_str(), arrival.places[0].place), ("root", 3), "where its devices are");
    assert_eq!(
        (arrival.node_id, arrival.disk_bytes, there.runtime.as_str()),
        (moving.from_node.clone(), vec![1 << 30], "kvm")
    );
    rig.svc.observe_move(to, id, &says(&moving, MoveStage::Waiting)).await.unwrap();
    let departure = told(&rig, &from).await.unwrap().departure.unwrap();
    assert_eq!((departure.address.as_str(), departure.node_id), ("192.0.2.2:77", moving.to_node.clone()));
    let open = format!("GET /v2.1/servers/{id}/migrations");
    let open = rig.at("2.80", 200, &admin, &open, Value::Null).await["migrations"][0].clone();
    let want = json!([from, to, "192.0.2.2", "running", id, moving.id]);
    let got = json!([
        open["source_compute"],
        open["dest_compute"],
        open["dest_host"],
        open["status"],
        open["server_uuid"],
        open["uuid"]
    ]);
    assert_eq!(got, want);

    // How much has gone is told while it goes.
    assert_eq!((&open["memory_total_bytes"], &open["disk_processed_bytes"]), (&Value::Null, &Value::Null));
    let gone = |total, processed| Some(Gone { total, processed, remaining: total - processed });
    let mut sending = says(&moving, MoveStage::Sending);
    if let Some(moved) = &mut sending.moved {
        (moved.memory, moved.disks) = (gone(64 << 20, 5), gone(1 << 30, 1 << 20));
    }
    rig.svc.observe(&from, id, sending).await.unwrap();
    let call = format!("GET /v2.1/servers/{id}/migrations/{}", open["id"]);
    let shown = rig.at("2.23", 200, &admin, &call, Value::Null).await["migration"].clone();
    let bytes =
        |of: &str| ["total", "processed", "remaining"].map(|n| shown[format!("{of}_{n}_bytes")].as_u64().unwrap());
    assert_eq!(bytes("memory"), [64 << 20, 5, (64 << 20) - 5]);
    assert_eq!(bytes("disk"), [1 << 30, 1 << 20, (1 << 30) - (1 << 20)]);

    // It can be told to switch over however long it then stands still.
    assert!(!told(&rig, &from).await.unwrap().departure.unwrap().hurry);
    let force = format!("POST /v2.1/servers/{id}/migrations/{}/action", open["id"]);
    rig.at("2.21", 404, &admin, &force, json!({"force_complete": null})).await;
    rig.at("2.22", 400, &admin, &force, json!({"force_complete": 1})).await;
    rig.at("2.22", 403, &rig.alice, &force, json!({"force_complete": null})).await;
    rig.at("2.22", 202, &admin, &force, json!({"force_complete": null})).await;
    assert!(told(&rig, &from).await.unwrap().departure.unwrap().hurry);

    // What the host here says of its end decides nothing.
    rig.svc.observe_move(&from, id, &says(&moving, MoveStage::Done)).await.unwrap();
    assert_eq!(rig.record(id).await.host.as_ref(), Some(&from));
    rig.svc.observe_move(to, id, &says(&moving, MoveStage::Done)).await.unwrap();
    let after = rig.record(id).await;
    assert_eq!((after.host.as_deref(), after.moving, after.task_state), (Some(to), None, None));
    let port = port_of(&rig, &server).await;
    assert_eq!((port.host_id.as_str(), port.also_on.as_str()), (to, ""));
    assert_eq!(rig.held(id).await.as_object().unwrap().keys().collect::<Vec<_>>(), [&moving.to_node]);
    assert!(told(&rig, &from).await.is_none() && told(&rig, to).await.unwrap().arrival.is_none());
    let all = rig.at("2.23", 200, &admin, "GET /v2.1/os-migrations", Value::Null).await["migrations"].clone();
    assert_eq!((&all[0]["status"], &all[0]["migration_type"]), (&json!("completed"), &json!("live-migration")));
    assert!(all[0].get("links").is_none(), "only of one that is under way");
}

#[tokio::test]
async fn a_server_that_did_not_go_stays_as_it_was() {
    let (rig, admin, server) = cloud(&["h1", "h2"]).await;
    let id = &server.id;
    let from = server.host.clone().unwrap();
    let act = format!("POST /v2.1/servers/{id}/action");
    let before = rig.held(id).await;
    for (who, cancelled, status) in [(0, false, "error"), (1, false, "error"), (1, true, "cancelled")] {
        rig.at("2.25", 202, &admin, &act, body(Value::Null)).await;
        let moving = rig.record(id).await.moving.unwrap();
        let mut seen = says(&moving, MoveStage::Failed);
        if cancelled {
            rig.svc.observe_move(&moving.to, id, &says(&moving, MoveStage::Waiting)).await.unwrap();
            let open = format!("GET /v2.1/servers/{id}/migrations");
            let number = rig.at("2.24", 200, &admin, &open, Value::Null).await["migrations"][0]["id"].clone();
            let force = format!("POST /v2.1/servers/{id}/migrations/{number}/action");
            let one = format!("DELETE /v2.1/servers/{id}/migrations/{number}");
            rig.at("2.24", 202, &admin, &one, Value::Null).await;
            rig.at("2.24", 400, &admin, &one, Value::Null).await;
            rig.at("2.22", 400, &admin, &force, json!({"force_complete": null})).await;
            assert!(told(&rig, &from).await.unwrap().departure.is_none());
            seen = Seen { settled: true, generation: 99, moved: None, ..seen };
        }
        let speaker = if who == 0 { moving.to.clone() } else { from.clone() };
        rig.svc.observe_move(&speaker, id, &seen).await.unwrap();
        let after = rig.record(id).await;
        assert_eq!((after.host.as_ref(), after.moving, after.task_state), (Some(&from), None, None));
        assert_eq!(after.vm_state, VmState::Active, "it runs on");
        assert_eq!((rig.held(id).await, port_of(&rig, &server).await.also_on.as_str()), (before.clone(), ""));
        let newest = rig.at("2.59", 200, &admin, "GET /v2.1/os-migrations?limit=1", Value::Null).await;
        assert_eq!(newest["migrations"][0]["status"], status);
    }
}

#[tokio::test]
async fn what_cannot_move_is_refused_with_a_reason() {
    let (rig, admin, server) = cloud(&["h1"]).await;
    let id = &server.id;
    let act = format!("POST /v2.1/servers/{id}/action");
    let manager = caller("alice", &["manager", "member", "reader"]);
    rig.at("2.25", 403, &rig.alice, &act, body(Value::Null)).await;
    rig.at("2.25", 403, &manager, &act, body(json!("h1"))).await;
    rig.at("2.25", 400, &manager, &act, body(Value::Null)).await;
    for host in ["h1", "nowhere"] {
        rig.at("2.25", 400, &admin, &act, body(json!(host))).await;
    }
    // Since 2.34 only the log of actions tells that there was no host.
    rig.at("2.34", 202, &admin, &act, body(Value::Null)).await;
    let log = format!("GET /v2.1/servers/{id}/os-instance-actions");
    let log = rig.want(200, &admin, &log, Value::Null).await["instanceActions"][0].clone();
    assert_eq!((&log["action"], &log["message"]), (&json!("live-migration"), &json!("Error")));
    let shape = |members: Value| json!({"os-migrateLive": members});
    let old = json!({"host": null, "block_migration": true, "disk_over_commit": false});
    rig.want(400, &admin, &act, shape(old.clone())).await;
    rig.at("2.25", 400, &admin, &act, shape(old)).await;
    rig.want(400, &admin, &act, body(Value::Null)).await;
    let forced = json!({"host": "h1", "block_migration": "auto", "force": true});
    rig.at("2.68", 400, &admin, &act, shape(forced.clone())).await;
    rig.at("2.29", 400, &admin, &act, shape(forced)).await;
    let shared = json!({"host": null, "block_migration": false});
    rig.at("2.25", 400, &admin, &act, shape(shared)).await;
    rig.svc
        .change(id, |s| {
            s.vm_state = VmState::Stopped;
            Ok(true)
        })
        .await
        .unwrap();
    rig.at("2.25", 409, &admin, &act, body(Value::Null)).await;
    rig.at("2.23", 404, &admin, &format!("GET /v2.1/servers/{id}/migrations/1"), Value::Null).await;
    rig.at("2.22", 404, &admin, &format!("GET /v2.1/servers/{id}/migrations"), Value::Null).await;
    assert!(rig.record(id).await.task_state != Some(TaskState::Migrating));
}
