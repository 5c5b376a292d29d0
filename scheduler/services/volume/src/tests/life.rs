//! A volume's life as its user sees it, with a host that does what is wanted of it.
use super::Rig;
use crate::tables::Seen;
use serde_json::{Value, json};

#[tokio::test]
async fn a_volume_is_placed_made_and_removed() {
    let rig = Rig::new().await;
    let body = json!({"volume": {"size": 2, "name": "v", "metadata": {"a": "b"}}});
    let made = rig.want(202, &rig.alice, "POST /v3/volumes", body).await;
    let (id, one) = (made["volume"]["id"].as_str().unwrap().to_owned(), &made["volume"]);
    assert_eq!(
        (&one["status"], &one["size"], &one["volume_type"]),
        (&json!("creating"), &json!(2), &json!("__DEFAULT__"))
    );
    rig.pass(&id).await;
    assert_eq!(rig.taken("h1").await, 2);
    let path = format!("GET /v3/alice/volumes/{id}");
    rig.host_does(&id).await;
    let shown = rig.want(200, &rig.alice, &path, Value::Null).await;
    assert_eq!(shown["volume"]["status"], "available");
    assert!(shown["volume"].get("os-vol-host-attr:host").is_none());
    let shown = rig.want(200, &rig.admin, &format!("GET /v3/volumes/{id}"), Value::Null).await;
    assert_eq!(shown["volume"]["os-vol-host-attr:host"], "h1@files#files");
    // Somebody else's volume does not exist, and a project in the path is the token's.
    rig.want(404, &rig.bob, &format!("GET /v3/volumes/{id}"), Value::Null).await;
    rig.want(400, &rig.bob, &path, Value::Null).await;
    rig.want(403, &rig.reader, &format!("DELETE /v3/volumes/{id}"), Value::Null).await;
    rig.want(202, &rig.alice, &format!("DELETE /v3/volumes/{id}"), Value::Null).await;
    rig.want(400, &rig.alice, &format!("DELETE /v3/volumes/{id}"), Value::Null).await;
    assert_eq!(rig.taken("h1").await, 2);
    rig.svc.release(&id).await.unwrap();
    assert_eq!(rig.taken("h1").await, 0);
    rig.want(404, &rig.alice, &format!("GET /v3/volumes/{id}"), Value::Null).await;
}

#[tokio::test]
async fn the_emptiest_host_takes_it_and_what_fits_nowhere_is_an_error() {
    let rig = Rig::new().await;
    rig.host("h2", 150).await;
    let id = rig.volume(&rig.alice, json!({"size": 120})).await;
    assert_eq!(rig.record(&id).await.host.as_deref(), Some("h2"));
    let id = rig.volume(&rig.alice, json!({"size": 90})).await;
    assert_eq!(rig.record(&id).await.host.as_deref(), Some("h1"));
    let made = rig.want(202, &rig.alice, "POST /v3/volumes", json!({"volume": {"size": 50}})).await;
    let id = made["volume"]["id"].as_str().unwrap();
    rig.pass(id).await;
    assert_eq!(rig.record(id).await.status.as_str(), "error");
    let messages = rig.svc.store.list::<crate::tables::Message>(pilvi_store::Query::all()).await.unwrap();
    assert_eq!(messages[0].event_id, "VOLUME_VOLUME_001_003");
}

#[tokio::test]
async fn clones_and_volumes_of_snapshots_lie_where_their_source_does() {
    let rig = Rig::new().await;
    let source = rig.volume(&rig.alice, json!({"size": 2})).await;
    rig.host("h2", 1000).await;
    let clone = rig.volume(&rig.alice, json!({"size": 3, "source_volid": source})).await;
    assert_eq!(rig.record(&clone).await.host.as_deref(), Some("h1"));
    let body = json!({"volume": {"size": 1, "source_volid": source}});
    rig.want(400, &rig.alice, "POST /v3/volumes", body).await;
    // A clone without a size has that of its source.
    let made = rig.want(202, &rig.alice, "POST /v3/volumes", json!({"volume": {"source_volid": source}})).await;
    assert_eq!(made["volume"]["size"], 2);
}

#[tokio::test]
async fn quota_counts_volumes_and_their_size() {
    let rig = Rig::new().await;
    let too_large = json!({"volume": {"size": 1001}});
    let answer = rig.want(413, &rig.alice, "POST /v3/volumes", too_large).await;
    assert!(answer["overLimit"]["message"].as_str().unwrap().contains("gigabytes quota"));
    for _ in 0..10 {
        rig.want(202, &rig.alice, "POST /v3/volumes", json!({"volume": {"size": 1}})).await;
    }
    rig.want(413, &rig.alice, "POST /v3/volumes", json!({"volume": {"size": 1}})).await;
    rig.want(202, &rig.bob, "POST /v3/volumes", json!({"volume": {"size": 1}})).await;
}

#[tokio::test]
async fn what_its_host_cannot_make_is_an_error() {
    let rig = Rig::new().await;
    let made = rig.want(202, &rig.alice, "POST /v3/volumes", json!({"volume": {"size": 1}})).await;
    let id = made["volume"]["id"].as_str().unwrap();
    rig.pass(id).await;
    let failed = Seen { generation: 1, settled: true, error: "no space left".into(), ..Seen::default() };
    rig.host_says(id, failed).await;
    assert_eq!(rig.record(id).await.status.as_str(), "error");
    rig.want(202, &rig.alice, &format!("DELETE /v3/volumes/{id}"), Value::Null).await;
}
