//! What is done with volumes and snapshots by their users and by operators.
use super::Rig;
use crate::tables::Seen;
use pilvi_fleet::{ImageStage, SeenImage};
use serde_json::{Value, json};

async fn act(rig: &Rig, status: u16, who: &pilvi_kit::Caller, id: &str, verb: &str, given: Value) -> Value {
    rig.want(status, who, &format!("POST /v3/volumes/{id}/action"), json!({ verb: given })).await
}

async fn status(rig: &Rig, id: &str) -> String {
    rig.record(id).await.status.as_str().to_owned()
}

#[tokio::test]
async fn a_volume_grows_when_its_host_has_made_it_larger() {
    let rig = Rig::new().await;
    let id = rig.volume(&rig.alice, json!({})).await;
    act(&rig, 400, &rig.alice, &id, "os-extend", json!({"new_size": 1})).await;
    act(&rig, 400, &rig.alice, &id, "os-extend", json!({"new_size": null})).await;
    act(&rig, 400, &rig.alice, &id, "os-extend", json!({"new_size": 500})).await;
    act(&rig, 202, &rig.alice, &id, "os-extend", json!({"new_size": 4})).await;
    assert_eq!((status(&rig, &id).await.as_str(), rig.taken("h1").await), ("extending", 4));
    rig.host_does(&id).await;
    let shown = rig.want(200, &rig.alice, &format!("GET /v3/volumes/{id}"), Value::Null).await;
    assert_eq!((&shown["volume"]["status"], &shown["volume"]["size"]), (&json!("available"), &json!(4)));
    // What cannot be is taken back: the room too.
    act(&rig, 202, &rig.alice, &id, "os-extend", json!({"new_size": 9})).await;
    let failed = Seen { error: "no space".into(), ..rig.done(&id).await };
    rig.host_says(&id, failed).await;
    assert_eq!((status(&rig, &id).await.as_str(), rig.taken("h1").await), ("error_extending", 4));
}

#[tokio::test]
async fn clients_of_their_own_attach_and_detach() {
    let rig = Rig::new().await;
    let id = rig.volume(&rig.alice, json!({})).await;
    let server = pilvi_kit::id::new();
    act(&rig, 202, &rig.alice, &id, "os-reserve", Value::Null).await;
    assert_eq!(status(&rig, &id).await, "attaching");
    act(&rig, 400, &rig.alice, &id, "os-reserve", Value::Null).await;
    act(&rig, 202, &rig.alice, &id, "os-unreserve", Value::Null).await;
    assert_eq!(status(&rig, &id).await, "available");
    let given = json!({"instance_uuid": server, "mountpoint": "/dev/vdc"});
    act(&rig, 202, &rig.alice, &id, "os-attach", given).await;
    let shown = rig.want(200, &rig.alice, &format!("GET /v3/volumes/{id}"), Value::Null).await;
    let attached = &shown["volume"]["attachments"][0];
    assert_eq!((&attached["server_id"], &attached["device"]), (&json!(server), &json!("/dev/vdc")));
    assert_eq!(shown["volume"]["status"], "in-use");
    rig.want(400, &rig.alice, &format!("DELETE /v3/volumes/{id}"), Value::Null).await;
    act(&rig, 403, &rig.alice, &id, "os-reset_status", json!({"status": "error"})).await;
    act(&rig, 202, &rig.admin, &id, "os-reset_status", json!({"status": "error"})).await;
    let given = json!({"attachment_id": attached["attachment_id"], "connector": null});
    act(&rig, 202, &rig.admin, &id, "os-force_detach", given).await;
    assert_eq!(status(&rig, &id).await, "available");
}

#[tokio::test]
async fn attachments_are_reserved_connected_and_completed() {
    let rig = Rig::new().await;
    let id = rig.volume(&rig.alice, json!({})).await;
    let body = json!({"attachment": {"volume_uuid": id, "instance_uuid": pilvi_kit::id::new()}});
    let made = rig.want(200, &rig.alice, "POST /v3/attachments", body.clone()).await["attachment"].clone();
    assert_eq!(
        (&made["status"], &made["attached_at"], &made["connection_info"]),
        (&json!("reserved"), &json!(""), &json!({}))
    );
    assert_eq!(status(&rig, &id).await, "reserved");
    let other = json!({"attachment": {"volume_uuid": id, "instance_uuid": pilvi_kit::id::new()}});
    rig.want(400, &rig.alice, "POST /v3/attachments", other).await;
    let path = format!("/v3/attachments/{}", made["id"].as_str().unwrap());
    let body = json!({"attachment": {"connector": {"host": "c1", "mountpoint": "/dev/x"}}});
    let now = rig.want(200, &rig.alice, &format!("PUT {path}"), body).await["attachment"].clone();
    assert_eq!((&now["status"], &now["connection_info"]["volume_id"]), (&json!("attaching"), &json!(id)));
    rig.want(204, &rig.alice, &format!("POST {path}/action"), json!({"os-complete": null})).await;
    assert_eq!(status(&rig, &id).await, "in-use");
    rig.want(404, &rig.bob, &format!("GET {path}"), Value::Null).await;
    let left = rig.want(200, &rig.alice, &format!("DELETE {path}"), Value::Null).await;
    assert_eq!((left, status(&rig, &id).await.as_str()), (json!({"attachments": []}), "available"));
    rig.at("3.26", 404, &rig.alice, "GET /v3/attachments", Value::Null).await;
}

#[tokio::test]
async fn snapshots_come_go_and_give_volumes() {
    let rig = Rig::new().await;
    let id = rig.volume(&rig.alice, json!({"size": 2})).await;
    let body = json!({"snapshot": {"volume_id": id, "name": "s", "metadata": {"a": "b"}}});
    let taken = rig.want(202, &rig.alice, "POST /v3/snapshots", body).await["snapshot"].clone();
    let snapshot = taken["id"].as_str().unwrap().to_owned();
    assert_eq!((&taken["status"], &taken["size"]), (&json!("creating"), &json!(2)));
    rig.want(400, &rig.alice, &format!("DELETE /v3/snapshots/{snapshot}"), Value::Null).await;
    rig.host_does(&id).await;
    let path = format!("GET /v3/snapshots/{snapshot}");
    let shown = rig.want(200, &rig.alice, &path, Value::Null).await["snapshot"].clone();
    assert_eq!(shown["os-extended-snapshot-attributes:progress"], "100%");
    rig.want(404, &rig.bob, &path, Value::Null).await;
    rig.want(400, &rig.alice, &format!("DELETE /v3/volumes/{id}"), Value::Null).await;
    let small = json!({"volume": {"size": 1, "snapshot_id": snapshot}});
    rig.want(400, &rig.alice, "POST /v3/volumes", small).await;
    let made = rig.volume(&rig.alice, json!({"size": 3, "snapshot_id": snapshot})).await;
    assert_eq!(rig.record(&made).await.snapshot_id.as_deref(), Some(snapshot.as_str()));
    // Back to it, and it is there again for the next time.
    act(&rig, 202, &rig.alice, &id, "revert", json!({"snapshot_id": snapshot})).await;
    assert_eq!(status(&rig, &id).await, "reverting");
    rig.want(400, &rig.alice, &format!("DELETE /v3/snapshots/{snapshot}"), Value::Null).await;
    rig.host_does(&id).await;
    let shown = rig.want(200, &rig.alice, &path, Value::Null).await["snapshot"].clone();
    assert_eq!((status(&rig, &id).await.as_str(), &shown["status"]), ("available", &json!("available")));
    rig.want(202, &rig.alice, &format!("DELETE /v3/volumes/{id}?cascade=true"), Value::Null).await;
    rig.svc.release(&id).await.unwrap();
    rig.want(404, &rig.alice, &path, Value::Null).await;
}

#[tokio::test]
async fn an_upload_makes_an_image_and_a_failed_one_removes_it() {
    let rig = Rig::new().await;
    let id = rig.volume(&rig.alice, json!({})).await;
    let given = json!({"image_name": "i", "disk_format": "qcow2"});
    let told = act(&rig, 202, &rig.alice, &id, "os-volume_upload_image", given.clone()).await;
    let image = told["os-volume_upload_image"]["image_id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&told["os-volume_upload_image"]["status"], status(&rig, &id).await.as_str()),
        (&json!("uploading"), "uploading")
    );
    assert!(rig.svc.awaits_upload("h1", &image).await.unwrap());
    assert!(!rig.svc.awaits_upload("h2", &image).await.unwrap());
    act(&rig, 400, &rig.alice, &id, "os-volume_upload_image", given).await;
    let stage = ImageStage::Failed("cut off".into());
    let seen = Seen { upload: Some(SeenImage { image_id: image.clone(), stage }), ..rig.done(&id).await };
    rig.host_says(&id, seen).await;
    assert_eq!(status(&rig, &id).await, "available");
    assert!(!rig.svc.awaits_upload("h1", &image).await.unwrap());
    rig.pass(&id).await;
    let gone = pilvi_image::image::ops::get_any(&rig.svc.store, &image).await;
    assert_eq!(gone.unwrap_err().code(), 404);
    let told = rig.want(200, &rig.alice, "GET /v3/messages", Value::Null).await;
    assert_eq!(told["messages"][0]["event_id"], "VOLUME_VOLUME_003_004");
}

#[tokio::test]
async fn flags_metadata_and_what_is_refused() {
    let rig = Rig::new().await;
    let id = rig.volume(&rig.alice, json!({"metadata": {"a": "1"}})).await;
    act(&rig, 200, &rig.alice, &id, "os-set_bootable", json!({"bootable": true})).await;
    act(&rig, 202, &rig.alice, &id, "os-update_readonly_flag", json!({"readonly": "true"})).await;
    let shown = rig.want(200, &rig.alice, &format!("GET /v3/volumes/{id}"), Value::Null).await["volume"].clone();
    assert_eq!((&shown["bootable"], &shown["metadata"]["readonly"]), (&json!("true"), &json!("True")));
    let path = format!("/v3/volumes/{id}/metadata");
    rig.want(200, &rig.alice, &format!("POST {path}"), json!({"metadata": {"b": "2"}})).await;
    rig.want(200, &rig.alice, &format!("PUT {path}/b"), json!({"meta": {"b": "3"}})).await;
    rig.want(400, &rig.alice, &format!("PUT {path}/b"), json!({"meta": {"c": "3"}})).await;
    rig.want(200, &rig.alice, &format!("DELETE {path}/a"), Value::Null).await;
    rig.want(404, &rig.alice, &format!("GET {path}/a"), Value::Null).await;
    let set = json!({"metadata": {"kernel_id": "k"}});
    let told = act(&rig, 200, &rig.alice, &id, "os-set_image_metadata", set).await;
    assert_eq!(told["metadata"]["kernel_id"], "k");
    act(&rig, 200, &rig.alice, &id, "os-unset_image_metadata", json!({"key": "kernel_id"})).await;
    act(&rig, 404, &rig.alice, &id, "os-unset_image_metadata", json!({"key": "kernel_id"})).await;
    for (verb, given) in [
        ("os-migrate_volume", json!({"host": "h2@files#files"})),
        ("os-unmanage", Value::Null),
        ("os-no_such_thing", Value::Null),
        ("os-reset_status", json!({"status": "gone fishing"})),
        ("os-reset_status", json!({"status": "in-use"})),
    ] {
        act(&rig, 400, &rig.admin, &id, verb, given).await;
    }
    // An id that was forgotten is an address that is not there.
    for call in ["GET /v3/alice/volumes/", "DELETE /v3/alice/volumes/", "PATCH /v3/alice/volumes"] {
        rig.want(404, &rig.alice, call, Value::Null).await;
    }
}

/// The image of a backup has all its bytes.
async fn filled(rig: &Rig, image: &str) {
    pilvi_image::image::ops::change(&rig.svc.store, image, |image| {
        image.status = pilvi_image::image::model::Status::Active;
        (image.size, image.read_hash) = (Some(9), Some("ab".into()));
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_backup_is_kept_when_its_volume_is_gone_and_gives_another() {
    let rig = Rig::new().await;
    let id = rig.volume(&rig.alice, json!({"size": 2, "metadata": {"k": "v"}})).await;
    let ask = json!({"backup": {"volume_id": id, "name": "b"}});
    let made = rig.want(202, &rig.alice, "POST /v3/backups", ask.clone()).await["backup"].clone();
    assert_eq!(status(&rig, &id).await, "backing-up");
    rig.want(400, &rig.alice, "POST /v3/backups", ask).await;
    let path = format!("/v3/backups/{}", made["id"].as_str().unwrap());
    rig.want(404, &rig.bob, &format!("GET {path}"), Value::Null).await;
    rig.want(400, &rig.alice, &format!("POST {path}/restore"), json!({"restore": {}})).await;
    let image = rig.record(&id).await.wanted.upload.clone().unwrap().image_id;
    assert!(rig.svc.awaits_upload("h1", &image).await.unwrap());
    filled(&rig, &image).await;
    let upload = Some(SeenImage { image_id: image.clone(), stage: ImageStage::Done });
    let seen = Seen { upload, ..rig.done(&id).await };
    rig.host_says(&id, seen).await;
    let shown = rig.want(200, &rig.alice, &format!("GET {path}"), Value::Null).await["backup"].clone();
    assert_eq!(
        (&shown["status"], &shown["size"], status(&rig, &id).await.as_str()),
        (&json!("available"), &json!(2), "available")
    );
    rig.want(202, &rig.alice, &format!("DELETE /v3/volumes/{id}"), Value::Null).await;
    rig.svc.release(&id).await.unwrap();
    let told = rig.want(202, &rig.alice, &format!("POST {path}/restore"), json!({"restore": {"name": "r"}})).await;
    let restored = told["restore"]["volume_id"].as_str().unwrap().to_owned();
    rig.want(400, &rig.alice, &format!("DELETE {path}"), Value::Null).await;
    rig.pass(&restored).await;
    let volume = rig.record(&restored).await.record;
    assert_eq!((volume.image.unwrap().id, volume.metadata["k"].as_str(), volume.size_gib), (image.clone(), "v", 2));
    rig.host_does(&restored).await;
    let exported = rig.want(200, &rig.admin, &format!("GET {path}/export_record"), Value::Null).await;
    rig.want(400, &rig.admin, "POST /v3/backups/import_record", exported).await;
    rig.want(202, &rig.alice, &format!("DELETE {path}"), Value::Null).await;
    rig.pass(&crate::volume::reconcile::backup_key(made["id"].as_str().unwrap())).await;
    rig.want(404, &rig.alice, &format!("GET {path}"), Value::Null).await;
    assert_eq!(pilvi_image::image::ops::get_any(&rig.svc.store, &image).await.unwrap_err().code(), 404);
}
