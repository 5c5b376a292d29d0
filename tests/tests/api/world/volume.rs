//! Volume: a volume with a snapshot, an attachment, a transfer and a message, types and groups, over image and placement.
use super::{Facts, NOTHING, World, make, map, root, text};
use crate::persona;
use pilvi_fleet::{Authority, Fleet};
use pilvi_image::Image;
use pilvi_kit::{Fault, service::Mounting, testing::App};
use pilvi_placement::Placement;
use pilvi_store::{KindSpec, Store};
use pilvi_volume::{
    Config, Volumes,
    tables::{Message, Volume},
    volume::model::Status,
};
use serde_json::{Value, json};
use std::collections::HashMap;

const FACTS: Facts = Facts {
    bodies: &[
        ("POST", "/v3/backups/{backup_id}/action (os-reset_status)", r#"{"os-reset_status": {"status": "error"}}"#),
        ("PUT", "/v3/attachments/{attachment_id}", r#"{"attachment": {"connector": {"host": "x"}}}"#),
        ("PUT", "/v3/os-quota-sets/{project_id}", r#"{"quota_set": {"volumes": 3}}"#),
        (
            "POST",
            "/v3/volumes/{volume_id}/action (os-attach)",
            r#"{"os-attach": {"mountpoint": "/dev/x", "host_name": "x"}}"#,
        ),
        ("POST", "/v3/volumes/{volume_id}/action (os-detach)", r#"{"os-detach": {}}"#),
        (
            "POST",
            "/v3/volumes/{volume_id}/action (os-initialize_connection)",
            r#"{"os-initialize_connection": {"connector": {}}}"#,
        ),
        (
            "POST",
            "/v3/volumes/{volume_id}/action (os-terminate_connection)",
            r#"{"os-terminate_connection": {"connector": {}}}"#,
        ),
        (
            "POST",
            "/v3/volumes/{volume_id}/action (os-volume_upload_image)",
            r#"{"os-volume_upload_image": {"image_name": "x"}}"#,
        ),
        ("POST", "/v3/volumes/{volume_id}/action (os-extend)", r#"{"os-extend": {"new_size": 9}}"#),
        (
            "POST",
            "/v3/volumes/{volume_id}/action (os-update_readonly_flag)",
            r#"{"os-update_readonly_flag": {"readonly": true}}"#,
        ),
        ("POST", "/v3/volumes/{volume_id}/action (os-retype)", r#"{"os-retype": {"new_type": "t-own"}}"#),
        ("POST", "/v3/volumes/{volume_id}/action (os-set_bootable)", r#"{"os-set_bootable": {"bootable": true}}"#),
        (
            "POST",
            "/v3/volumes/{volume_id}/action (os-reimage)",
            r#"{"os-reimage": {"image_id": "11111111-1111-4111-8111-111111111111"}}"#,
        ),
        ("POST", "/v3/volumes/{volume_id}/action (revert)", r#"{"revert": {"snapshot_id": "x"}}"#),
        (
            "POST",
            "/v3/volumes/{volume_id}/action (os-set_image_metadata)",
            r#"{"os-set_image_metadata": {"metadata": {"a": "b"}}}"#,
        ),
        (
            "POST",
            "/v3/volumes/{volume_id}/action (os-unset_image_metadata)",
            r#"{"os-unset_image_metadata": {"key": "a"}}"#,
        ),
        ("POST", "/v3/volumes/{volume_id}/action (os-reset_status)", r#"{"os-reset_status": {"status": "error"}}"#),
        ("POST", "/v3/volumes/{volume_id}/action (os-force_detach)", r#"{"os-force_detach": {}}"#),
        ("POST", "/v3/volumes/{volume_id}/action (os-migrate_volume)", r#"{"os-migrate_volume": {"host": "x"}}"#),
        (
            "POST",
            "/v3/volumes/{volume_id}/action (os-migrate_volume_completion)",
            r#"{"os-migrate_volume_completion": {"new_volume": "11111111-1111-4111-8111-111111111111"}}"#,
        ),
        (
            "POST",
            "/v3/volumes/{volume_id}/action (os-extend_volume_completion)",
            r#"{"os-extend_volume_completion": {}}"#,
        ),
        (
            "POST",
            "/v3/snapshots/{snapshot_id}/action (os-update_snapshot_status)",
            r#"{"os-update_snapshot_status": {"status": "error"}}"#,
        ),
        ("POST", "/v3/snapshots/{snapshot_id}/action (os-reset_status)", r#"{"os-reset_status": {"status": "error"}}"#),
        ("POST", "/v3/types/{type_id}/action (addProjectAccess)", r#"{"addProjectAccess": {"project": "p-new"}}"#),
        (
            "POST",
            "/v3/types/{type_id}/action (removeProjectAccess)",
            r#"{"removeProjectAccess": {"project": "p-own"}}"#,
        ),
        ("POST", "/v3/groups/{group_id}/action (delete)", r#"{"delete": {}}"#),
        ("POST", "/v3/groups/{group_id}/action (reset_status)", r#"{"reset_status": {"status": "error"}}"#),
        (
            "POST",
            "/v3/group_snapshots/{group_snapshot_id}/action (reset_status)",
            r#"{"reset_status": {"status": "error"}}"#,
        ),
        ("POST", "/v3/groups/action", r#"{"create-from-src": {"source_group_id": "<source_group_id>"}}"#),
        ("PUT", "/v3/volumes/{volume_id}/metadata/{key}", r#"{"meta": {"a-key": "other"}}"#),
        ("PUT", "/v3/snapshots/{snapshot_id}/metadata/{key}", r#"{"meta": {"a-key": "other"}}"#),
    ],
    // The same handlers, for clients that name their project.
    aliases: &["/v3/{project}/"],
    unseeded: 2,
    ..Facts::NONE
};
const NEW: &[(&str, &str)] = &[("openstack-api-version", "volume 3.71")];

/// Its host has made it: snapshots can be taken of it, and it can be given away.
async fn made(store: &Store, id: &str) {
    let id = id.to_owned();
    let work = store.write(move |tx| {
        let id = id.clone();
        Box::pin(async move {
            let mut volume = tx.get::<Volume>(&id).await?.unwrap();
            (volume.record.host, volume.record.made, volume.record.status) =
                (Some("h".into()), true, Status::Available);
            tx.update(&volume).await?;
            Ok::<_, Fault>(())
        })
    });
    work.await.unwrap();
}

async fn message(store: &Store, volume: &str) -> String {
    let message = Message {
        id: pilvi_kit::id::new(),
        project_id: "p-own".into(),
        request_id: "req-x".into(),
        resource_type: "VOLUME".into(),
        resource_id: volume.into(),
        event_id: "VOLUME_VOLUME_001_003".into(),
        text: "x".into(),
        level: "ERROR".into(),
        expires_us: i64::MAX,
    };
    let id = message.id.clone();
    let insert = store.write(move |tx| {
        let message = message.clone();
        Box::pin(async move { Ok::<_, Fault>(tx.insert(&message).await?) })
    });
    insert.await.unwrap();
    id
}

pub async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let mut all = pilvi_fleet::kinds();
    for kinds in [pilvi_image::kinds(), pilvi_placement::kinds(), pilvi_volume::kinds()] {
        all.extend(kinds);
    }
    all.push(KindSpec::of::<pilvi_kit::quota::QuotaOverride>());
    let store = Store::open("sqlite::memory:", all).await.unwrap();
    let image = Image::new(store.clone(), pilvi_image::Config::new(dir.path().join("images"))).unwrap();
    let authority = Authority::open(&dir.path().join("pki")).unwrap();
    let fleet = Fleet::new(store.clone(), authority, pilvi_fleet::Config::default());
    let volumes = Volumes::new(store.clone(), fleet, image, Placement::new(store.clone()), Config::default());
    volumes.prepare().await.unwrap();
    let app = App::new(move |authenticator| {
        pilvi_volume::service().mount(volumes, Mounting { authenticator, policy_file: None }).unwrap().literally()
    });
    let names = HashMap::new();
    let owner = persona::named("owner", &names).caller;
    let post = async |who: &pilvi_kit::Caller, path: &str, kind: &str, members: Value| {
        text(&make(&app, who, "POST", path, json!({ kind: members }), NEW).await[kind]["id"])
    };
    let private = json!({"name": "t-own", "os-volume-type-access:is_public": false, "extra_specs": {"a-key": "v"}});
    let of_type = post(&root(), "/v3/types", "volume_type", private).await;
    let access = json!({"addProjectAccess": {"project": "p-own"}});
    make(&app, &root(), "POST", &format!("/v3/types/{of_type}/action"), access, NEW).await;
    let members = json!({"name": "v-own", "size": 1, "metadata": {"a-key": "v"}});
    let volume = post(&owner, "/v3/volumes", "volume", members.clone()).await;
    let given = post(&owner, "/v3/volumes", "volume", members).await;
    made(&store, &volume).await;
    made(&store, &given).await;
    let members = json!({"volume_id": volume, "metadata": {"a-key": "v"}});
    let snapshot = post(&owner, "/v3/snapshots", "snapshot", members).await;
    let transfer = post(&owner, "/v3/volume-transfers", "transfer", json!({"volume_id": given})).await;
    let members = json!({"volume_uuid": volume, "instance_uuid": NOTHING});
    let attachment = post(&owner, "/v3/attachments", "attachment", members).await;
    let qos = text(
        &make(&app, &root(), "POST", "/v3/qos-specs", json!({"qos_specs": {"name": "q"}}), NEW).await["qos_specs"]["id"],
    );
    let members = json!({"name": "g", "is_public": false, "group_specs": {"a-key": "v"}});
    let private_kind = post(&root(), "/v3/group_types", "group_type", members).await;
    let kind = post(&root(), "/v3/group_types", "group_type", json!({"name": "h"})).await;
    let members = json!({"group_type": kind, "volume_types": [of_type]});
    let group = post(&owner, "/v3/groups", "group", members).await;
    let members = json!({"size": 1, "volume_type": "t-own", "group_id": group});
    let grouped = post(&owner, "/v3/volumes", "volume", members).await;
    made(&store, &grouped).await;
    let group_snapshot = post(&owner, "/v3/group_snapshots", "group_snapshot", json!({"group_id": group})).await;
    let default = json!({"default_type": {"volume_type": of_type}});
    make(&app, &root(), "PUT", "/v3/default-types/p-own", default, NEW).await;
    let message = message(&store, &volume).await;
    let members = json!({"name": "kept", "size": 1});
    let kept = post(&owner, "/v3/volumes", "volume", members).await;
    made(&store, &kept).await;
    let backup = post(&owner, "/v3/backups", "backup", json!({"volume_id": kept})).await;
    let params = map([
        ("{volume_id}", volume.as_str()),
        ("{snapshot_id}", &snapshot),
        ("{attachment_id}", &attachment),
        ("{transfer_id}", &transfer),
        ("{message_id}", &message),
        ("{type_id}", &of_type),
        ("{qos_id}", &qos),
        ("{group_type_id}", &private_kind),
        ("{group_id}", &group),
        ("{group_snapshot_id}", &group_snapshot),
        ("{project_id}", "p-own"),
        ("{class}", "default"),
        ("{key}", "a-key"),
        ("{alias}", "os-hosts"),
        ("{action}", "enable"),
        ("{backup_id}", &backup),
        ("{encryption_id}", "provider"),
        ("{host_name}", "h@files"),
    ]);
    let fill = map([
        ("volume_id", volume.as_str()),
        ("volume_uuid", &volume),
        ("group_id", &group),
        ("source_group_id", &group),
    ]);
    World { app, store, names, params, fill, facts: FACTS, judged_by_original: true, _dir: Some(dir) }
}
