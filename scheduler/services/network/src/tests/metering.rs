//! Metering: who may, what is refused, what hosts are told, what becomes of what they count.
use super::{Rig, id};
use crate::host::HostInfo;
use pilvi_agent_api::v1::ObservedMeter;
use serde_json::{Value, json};

const LABELS: &str = "/v2.0/metering/metering-labels";
const RULES: &str = "/v2.0/metering/metering-label-rules";

#[tokio::test]
async fn labels_and_rules_are_the_managers() {
    let rig = Rig::new().await;
    let label = rig.make(&rig.manager, LABELS, "metering_label", json!({"name": "out"})).await;
    assert_eq!((&label["shared"], &label["project_id"]), (&json!(false), &json!("alice")));
    let path = format!("{LABELS}/{}", id(&label));
    rig.want(403, &rig.alice, "POST", LABELS, json!({"metering_label": {"name": "x"}})).await;
    assert_eq!(rig.get(&rig.reader, &path).await["metering_label"], label);
    assert_eq!(rig.refused(404, &rig.bob, "GET", &path, Value::Null).await, "MeteringLabelNotFound");
    assert_eq!(rig.get(&rig.bob, LABELS).await["metering_labels"], json!([]));
    rig.want(405, &rig.manager, "PUT", &path, json!({"metering_label": {"name": "y"}})).await;
    let rule = json!({"metering_label_id": id(&label), "direction": "egress", "remote_ip_prefix": "10.0.0.0/24"});
    let made = rig.make(&rig.manager, RULES, "metering_label_rule", rule.clone()).await;
    assert_eq!((&made["excluded"], &made["source_ip_prefix"]), (&json!(false), &Value::Null));
    let refused = |attrs: Value| {
        let mut body = rule.clone();
        body.as_object_mut().unwrap().extend(attrs.as_object().unwrap().clone());
        json!({"metering_label_rule": body})
    };
    for (status, attrs) in [
        (409, json!({"remote_ip_prefix": "10.0.0.128/25"})),
        (400, json!({"remote_ip_prefix": null})),
        (400, json!({"source_ip_prefix": "10.0.0.0/8"})),
        (400, json!({"direction": "sideways"})),
        (400, json!({"remote_ip_prefix": "10.0.0.0/99"})),
        (400, json!({"remote_ip_prefix": null, "source_ip_prefix": "10.0.0.0/8", "destination_ip_prefix": "fd00::/8"})),
        (404, json!({"metering_label_id": "7d6b1dcb-7a3e-4a38-9a0a-3a3a3a3a3a3a"})),
    ] {
        rig.want(status, &rig.manager, "POST", RULES, refused(attrs)).await;
    }
    let listed = rig.get(&rig.reader, &format!("{RULES}?direction=egress")).await["metering_label_rules"].clone();
    assert_eq!(listed, json!([made]));
    rig.want(404, &rig.bob, "DELETE", &format!("{RULES}/{}", id(&made)), Value::Null).await;
    rig.want(204, &rig.manager, "DELETE", &path, Value::Null).await;
    assert_eq!(rig.get(&rig.admin, RULES).await["metering_label_rules"], json!([]), "rules go with their label");
}

#[tokio::test]
async fn hosts_are_told_and_their_counts_are_summed() {
    let rig = Rig::new().await;
    let external = rig.external().await;
    let gateway = json!({"external_gateway_info": {"network_id": external}});
    let router = id(&rig.make(&rig.alice, "/v2.0/routers", "router", gateway.clone()).await);
    rig.make(&rig.bob, "/v2.0/routers", "router", gateway).await;
    let label = id(&rig.make(&rig.manager, LABELS, "metering_label", json!({})).await);
    let all = id(&rig.make(&rig.admin, LABELS, "metering_label", json!({"shared": true})).await);
    let rule = json!({"metering_label_id": label, "direction": "ingress", "remote_ip_prefix": "10.0.0.0/24"});
    rig.make(&rig.manager, RULES, "metering_label_rule", rule).await;
    let host =
        |n: usize| HostInfo { name: format!("h{n}"), vtep: format!("10.255.0.{n}"), up: true, ..HostInfo::default() };
    let hosts = [host(1), host(2)];
    let mut told = Vec::new();
    for name in ["h1", "h2"] {
        told.extend(rig.svc.host_network(name, &hosts).await.unwrap().labels);
    }
    let own = told.iter().find(|l| l.id == label && !l.routers.is_empty()).unwrap();
    assert_eq!((&own.routers, own.rules.len()), (&vec![router], 1));
    assert_eq!((own.rules[0].source.as_str(), own.rules[0].destination.as_str()), ("", "10.0.0.0/24"));
    let counted: usize = told.iter().filter(|l| l.id == all).map(|l| l.routers.len()).sum();
    assert_eq!(counted, 2, "a shared label counts for all routers");
    let meter = |packets| ObservedMeter { label_id: label.clone(), packets, bytes: packets * 100 };
    let sample = rig.svc.metered("h1", &[meter(5)]).await.unwrap();
    assert_eq!((sample[0].packets, sample[0].bytes, sample[0].project_id.as_str()), (5, 500, "alice"));
    assert_eq!(sample[0].payload()["pkts"], json!(5));
    assert!(rig.svc.metered("h1", &[meter(5)]).await.unwrap().is_empty(), "nothing new");
    rig.svc.metered("h2", &[meter(7)]).await.unwrap();
    let path = format!("{LABELS}/{label}/counters");
    let counters = rig.get(&rig.reader, &path).await["counters"].clone();
    assert_eq!((&counters["packets"], &counters["bytes"]), (&json!(12), &json!(1200)));
    rig.want(404, &rig.bob, "GET", &path, Value::Null).await;
    rig.want(204, &rig.manager, "DELETE", &format!("{LABELS}/{label}"), Value::Null).await;
    assert!(rig.svc.metered("h1", &[meter(9)]).await.unwrap().is_empty(), "a label that is gone counts nothing");
}
