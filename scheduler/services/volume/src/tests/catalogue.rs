//! What operators offer: types, promises, groups, hosts.
use super::Rig;
use serde_json::{Value, json};

async fn made(rig: &Rig, call: &str, kind: &str, members: Value) -> String {
    let status = if kind == "group_type" { 202 } else { 200 };
    let made = rig.want(status, &rig.admin, call, json!({ kind: members })).await;
    made[kind]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn types_are_for_whom_they_are_and_ask_for_what_there_is() {
    let rig = Rig::new().await;
    let members = json!({"name": "gold", "os-volume-type-access:is_public": false});
    let gold = made(&rig, "POST /v3/types", "volume_type", members.clone()).await;
    rig.want(409, &rig.admin, "POST /v3/types", json!({"volume_type": members})).await;
    rig.want(403, &rig.alice, "POST /v3/types", json!({"volume_type": {"name": "x"}})).await;
    rig.want(404, &rig.alice, &format!("GET /v3/types/{gold}"), Value::Null).await;
    let body = json!({"volume": {"size": 1, "volume_type": gold}});
    rig.want(404, &rig.alice, "POST /v3/volumes", body).await;
    let access = json!({"addProjectAccess": {"project": "alice"}});
    rig.want(202, &rig.admin, &format!("POST /v3/types/{gold}/action"), access.clone()).await;
    rig.want(409, &rig.admin, &format!("POST /v3/types/{gold}/action"), access).await;
    let volume = rig.volume(&rig.alice, json!({"volume_type": "gold"})).await;
    let specs = json!({"extra_specs": {"volume_backend_name": "elsewhere"}});
    rig.want(400, &rig.admin, &format!("POST /v3/types/{gold}/extra_specs"), specs.clone()).await;
    rig.want(400, &rig.admin, &format!("DELETE /v3/types/{gold}"), Value::Null).await;
    let far = made(&rig, "POST /v3/types", "volume_type", json!({"name": "far"})).await;
    rig.want(200, &rig.admin, &format!("POST /v3/types/{far}/extra_specs"), specs).await;
    let shown = rig.want(200, &rig.alice, &format!("GET /v3/types/{far}"), Value::Null).await;
    assert_eq!(shown["volume_type"]["extra_specs"], json!({}));
    let made = rig.want(202, &rig.alice, "POST /v3/volumes", json!({"volume": {"size": 1, "volume_type": far}})).await;
    let nowhere = made["volume"]["id"].as_str().unwrap();
    rig.pass(nowhere).await;
    assert_eq!(rig.record(nowhere).await.status.as_str(), "error");
    // A project's own default, and everybody's, which stays.
    let path = "/v3/default-types/alice";
    rig.want(200, &rig.admin, &format!("PUT {path}"), json!({"default_type": {"volume_type": "gold"}})).await;
    let made = rig.want(202, &rig.alice, "POST /v3/volumes", json!({"volume": {"size": 1}})).await;
    assert_eq!((&made["volume"]["volume_type"], &made["volume"]["volume_type_id"]), (&json!("gold"), &json!(gold)));
    let all = rig.want(200, &rig.alice, "GET /v3/types/default", Value::Null).await;
    assert_eq!(all["volume_type"]["name"], "gold");
    let retype = json!({"os-retype": {"new_type": "__DEFAULT__"}});
    rig.want(202, &rig.alice, &format!("POST /v3/volumes/{volume}/action"), retype.clone()).await;
    rig.want(400, &rig.alice, &format!("POST /v3/volumes/{volume}/action"), retype).await;
}

#[tokio::test]
async fn promises_go_with_types() {
    let rig = Rig::new().await;
    let body = json!({"qos_specs": {"name": "q", "consumer": "both", "iops": "9"}});
    let made_qos = rig.want(200, &rig.admin, "POST /v3/qos-specs", body).await["qos_specs"].clone();
    assert_eq!((&made_qos["consumer"], &made_qos["specs"]), (&json!("both"), &json!({"iops": "9"})));
    let qos = format!("/v3/qos-specs/{}", made_qos["id"].as_str().unwrap());
    rig.want(200, &rig.admin, &format!("PUT {qos}"), json!({"qos_specs": {"bps": "1"}})).await;
    rig.want(202, &rig.admin, &format!("PUT {qos}/delete_keys"), json!({"keys": ["iops"]})).await;
    let of_type = made(&rig, "POST /v3/types", "volume_type", json!({"name": "t"})).await;
    rig.want(202, &rig.admin, &format!("GET {qos}/associate?vol_type_id={of_type}"), Value::Null).await;
    let with = rig.want(200, &rig.admin, &format!("GET {qos}/associations"), Value::Null).await;
    assert_eq!(with["qos_associations"][0]["id"], json!(of_type));
    rig.want(400, &rig.admin, &format!("DELETE {qos}"), Value::Null).await;
    rig.want(202, &rig.admin, &format!("GET {qos}/disassociate_all"), Value::Null).await;
    rig.want(202, &rig.admin, &format!("DELETE {qos}"), Value::Null).await;
    rig.want(404, &rig.admin, &format!("GET {qos}"), Value::Null).await;
}

#[tokio::test]
async fn a_group_has_its_volumes_snapshots_and_copies() {
    let rig = Rig::new().await;
    let of_type = made(&rig, "POST /v3/types", "volume_type", json!({"name": "t"})).await;
    let kind = made(&rig, "POST /v3/group_types", "group_type", json!({"name": "g"})).await;
    let body = json!({"group": {"group_type": kind, "volume_types": [of_type], "name": "all"}});
    let group = rig.want(202, &rig.alice, "POST /v3/groups", body).await["group"]["id"].as_str().unwrap().to_owned();
    let volume = rig.volume(&rig.alice, json!({"volume_type": "t", "group_id": group})).await;
    rig.want(400, &rig.alice, "POST /v3/volumes", json!({"volume": {"size": 1, "group_id": group}})).await;
    rig.want(400, &rig.alice, &format!("DELETE /v3/volumes/{volume}"), Value::Null).await;
    let body = json!({"group_snapshot": {"group_id": group}});
    let taken = rig.want(202, &rig.alice, "POST /v3/group_snapshots", body).await;
    let path = format!("/v3/group_snapshots/{}", taken["group_snapshot"]["id"].as_str().unwrap());
    rig.host_does(&volume).await;
    let shown = rig.want(200, &rig.alice, &format!("GET {path}"), Value::Null).await;
    assert_eq!(shown["group_snapshot"]["status"], "available");
    let from = json!({"create-from-src": {"group_snapshot_id": taken["group_snapshot"]["id"]}});
    let copy = rig.want(202, &rig.alice, "POST /v3/groups/action", from).await;
    let copy = copy["group"]["id"].as_str().unwrap();
    let shown = rig.want(200, &rig.alice, &format!("GET /v3/groups/{copy}?list_volume=true"), Value::Null).await;
    assert_eq!(shown["group"]["volumes"].as_array().unwrap().len(), 1);
    rig.want(202, &rig.alice, &format!("DELETE {path}"), Value::Null).await;
    rig.host_does(&volume).await;
    rig.want(404, &rig.alice, &format!("GET {path}"), Value::Null).await;
    let delete = |with: bool| json!({"delete": {"delete-volumes": with}});
    rig.want(400, &rig.alice, &format!("POST /v3/groups/{group}/action"), delete(false)).await;
    rig.want(202, &rig.alice, &format!("POST /v3/groups/{group}/action"), delete(true)).await;
    assert_eq!(rig.record(&volume).await.status.as_str(), "deleting");
}

#[tokio::test]
async fn operators_see_hosts_and_close_them() {
    let rig = Rig::new().await;
    let volume = rig.volume(&rig.alice, json!({"size": 7})).await;
    let pools = rig.want(200, &rig.admin, "GET /v3/scheduler-stats/get_pools?detail=true", Value::Null).await;
    let pool = &pools["pools"][0];
    assert_eq!((&pool["name"], &pool["capabilities"]["free_capacity_gb"]), (&json!("h1@files#files"), &json!(93)));
    rig.want(403, &rig.alice, "GET /v3/scheduler-stats/get_pools", Value::Null).await;
    rig.want(200, &rig.admin, "GET /v3/capabilities/h1@files", Value::Null).await;
    rig.want(404, &rig.admin, "GET /v3/capabilities/h9@files", Value::Null).await;
    let services = rig.want(200, &rig.admin, "GET /v3/os-services?binary=cinder-volume", Value::Null).await;
    assert_eq!(services["services"][0]["host"], "h1@files");
    let body = json!({"host": "h1@files", "binary": "cinder-volume", "disabled_reason": "disk"});
    rig.want(200, &rig.admin, "PUT /v3/os-services/disable-log-reason", body).await;
    let made = rig.want(202, &rig.alice, "POST /v3/volumes", json!({"volume": {"size": 1}})).await;
    let closed = made["volume"]["id"].as_str().unwrap();
    rig.pass(closed).await;
    assert_eq!(rig.record(closed).await.status.as_str(), "error");
    rig.want(200, &rig.admin, "PUT /v3/os-services/freeze", json!({"host": "h1@files"})).await;
    rig.want(400, &rig.alice, &format!("DELETE /v3/volumes/{volume}"), Value::Null).await;
    rig.want(400, &rig.admin, "PUT /v3/os-services/freeze", json!({"host": "h9@files"})).await;
    rig.want(404, &rig.admin, "PUT /v3/os-services/enable", json!({"host": "h9", "binary": "cinder-volume"})).await;
    let shown = rig.want(200, &rig.admin, "GET /v3/os-hosts/h1@files", Value::Null).await;
    assert_eq!(shown["host"][0]["resource"]["total_volume_gb"], "7");
}
