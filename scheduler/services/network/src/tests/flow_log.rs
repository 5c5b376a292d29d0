//! Logs of security groups: who may, what is refused, what hosts are told.
use super::{Rig, id, ids};
use crate::host::HostInfo;
use serde_json::{Value, json};

const LOGS: &str = "/v2.0/log/logs";

#[tokio::test]
async fn logs_are_the_managers() {
    let rig = Rig::new().await;
    let resources = rig.get(&rig.manager, "/v2.0/log/loggable-resources").await;
    assert_eq!(resources, json!({"loggable_resources": [{"type": "security_group"}]}));
    rig.want(403, &rig.alice, "GET", "/v2.0/log/loggable-resources", Value::Null).await;
    let group = id(&rig.make(&rig.alice, "/v2.0/security-groups", "security_group", json!({"name": "g"})).await);
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let port = id(&rig.port(&rig.alice, &network).await);
    let attrs = json!({"name": "l", "resource_type": "security_group", "resource_id": group});
    rig.want(403, &rig.alice, "POST", LOGS, json!({ "log": attrs })).await;
    let log = rig.make(&rig.manager, LOGS, "log", attrs).await;
    assert_eq!((&log["event"], &log["enabled"], &log["target_id"]), (&json!("ALL"), &json!(true), &Value::Null));
    let path = format!("{LOGS}/{}", id(&log));
    assert_eq!(rig.refused(404, &rig.bob, "GET", &path, Value::Null).await, "LogResourceNotFound");
    let body = |attrs: Value| {
        let mut log = json!({"resource_type": "security_group"});
        log.as_object_mut().unwrap().extend(attrs.as_object().unwrap().clone());
        json!({ "log": log })
    };
    let nobody = "7d6b1dcb-7a3e-4a38-9a0a-3a3a3a3a3a3a";
    for (status, kind, attrs) in [
        (400, "InvalidLogResourceType", json!({"resource_type": "firewall_group"})),
        (400, "HTTPBadRequest", json!({"event": "SOME"})),
        (404, "ResourceNotFound", json!({"resource_id": nobody})),
        (404, "TargetResourceNotFound", json!({"target_id": nobody})),
        (400, "InvalidResourceConstraint", json!({"resource_id": group, "target_id": port})),
    ] {
        assert_eq!(rig.refused(status, &rig.manager, "POST", LOGS, body(attrs)).await, kind);
    }
    rig.want(400, &rig.manager, "PUT", &path, json!({"log": {"event": "DROP"}})).await;
    let changed = rig.want(200, &rig.manager, "PUT", &path, json!({"log": {"enabled": "false"}})).await;
    assert_eq!((&changed["log"]["enabled"], &changed["log"]["revision_number"]), (&json!(false), &json!(2)));
    let of_port = id(&rig.make(&rig.manager, LOGS, "log", body(json!({"target_id": port}))["log"].clone()).await);
    let listed = rig.get(&rig.manager, &format!("{LOGS}?enabled=true&sort_key=name")).await["logs"].clone();
    assert_eq!(ids(&listed), [of_port]);
    // Both go with what they name.
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/security-groups/{group}"), Value::Null).await;
    rig.want(204, &rig.alice, "DELETE", &format!("/v2.0/ports/{port}"), Value::Null).await;
    assert_eq!(rig.get(&rig.admin, LOGS).await["logs"], json!([]));
}

#[tokio::test]
async fn hosts_are_told_of_the_ports_that_a_log_means() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let group = id(&rig.make(&rig.alice, "/v2.0/security-groups", "security_group", json!({"name": "g"})).await);
    let mut ports = Vec::new();
    for attrs in [json!({"security_groups": [group]}), json!({}), json!({"port_security_enabled": false})] {
        let mut port = json!({"network_id": network, "project_id": "alice", "binding:host_id": "h1", "device_owner": "compute:nova"});
        port.as_object_mut().unwrap().extend(attrs.as_object().unwrap().clone());
        ports.push(id(&rig.make(&rig.admin, "/v2.0/ports", "port", port).await));
    }
    let hosts = [HostInfo { name: "h1".into(), up: true, ..HostInfo::default() }];
    let told = || async {
        let logs = rig.svc.host_network("h1", &hosts).await.unwrap().logs;
        logs.into_iter().map(|l| (l.id, l.ports, l.accepted, l.dropped)).collect::<Vec<_>>()
    };
    assert_eq!(told().await, []);
    let kind = "security_group";
    let attrs = json!({"resource_type": kind, "resource_id": group, "event": "DROP"});
    let of_group = id(&rig.make(&rig.manager, LOGS, "log", attrs).await);
    assert_eq!(told().await, [(of_group.clone(), vec![ports[0].clone()], false, true)]);
    rig.want(204, &rig.manager, "DELETE", &format!("{LOGS}/{of_group}"), Value::Null).await;
    let of_all = id(&rig.make(&rig.manager, LOGS, "log", json!({"resource_type": kind, "event": "ACCEPT"})).await);
    let (_, mut meant, accepted, dropped) = told().await.pop().unwrap();
    meant.sort();
    let mut both = ports[..2].to_vec();
    both.sort();
    assert_eq!((meant, accepted, dropped), (both, true, false), "a port without security has no decisions");
    rig.want(200, &rig.manager, "PUT", &format!("{LOGS}/{of_all}"), json!({"log": {"enabled": false}})).await;
    assert_eq!(told().await, []);
}
