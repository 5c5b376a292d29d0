//! `/servers/{id}/os-volume_attachments`
use super::ops::Attach;
use crate::{
    Compute,
    server::{api::owned, schema::boolean},
    tables::{Server, VolumeOf},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub fn routes() -> Vec<Route<Compute>> {
    const ALL: &str = "/v2.1/servers/{server_id}/os-volume_attachments";
    const ONE: &str = "/v2.1/servers/{server_id}/os-volume_attachments/{volume_id}";
    vec![
        Route::get(ALL, list)
            .rule_by_handler("os_compute_api:os-volumes-attachments:index")
            .summary("List a server's volumes"),
        Route::post(ALL, attach)
            .rule_by_handler("os_compute_api:os-volumes-attachments:create")
            .schema(&ATTACH)
            .summary("Attach a volume"),
        Route::get(ONE, show)
            .rule_by_handler("os_compute_api:os-volumes-attachments:show")
            .summary("Show how a volume is attached"),
        Route::put(ONE, update)
            .rule_by_handler("os_compute_api:os-volumes-attachments:update")
            .schema(&UPDATE)
            .summary("Change whether a volume goes with the server"),
        Route::delete(ONE, detach)
            .rule_by_handler("os_compute_api:os-volumes-attachments:delete")
            .summary("Detach a volume"),
    ]
}

fn attachment_schema(required: &[&str], more: &Value) -> Value {
    let mut properties = json!({
        "volumeId": {"type": "string", "format": "uuid"},
        "device": {"type": ["string", "null"], "pattern": r"(^/dev/x{0,1}[a-z]{0,1}d{0,1})([a-z]+)[0-9]*$"},
        "tag": {"type": "string", "minLength": 1, "maxLength": 60, "pattern": "^[^,/]*$"},
        "delete_on_termination": boolean(),
    });
    if let (Some(all), Some(more)) = (properties.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    json!({"type": "object", "required": ["volumeAttachment"], "additionalProperties": false, "properties": {
        "volumeAttachment": {"type": "object", "required": required, "additionalProperties": false, "properties": properties}}})
}

static ATTACH: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| attachment_schema(&["volumeId"], &json!({}))));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        attachment_schema(
            &["volumeId"],
            &json!({"id": {"type": "string"}, "serverId": {"type": "string", "format": "uuid"}}),
        )
    })
});

/// The fault of a volume that the server does not have.
pub fn not_attached(volume_id: &str) -> Fault {
    Fault::not_found(format!("volume_id not found: {volume_id}"))
}

fn view(call: &Call, server: &Server, volume: &VolumeOf) -> Value {
    let mut shown = json!({"serverId": server.id, "volumeId": volume.volume_id, "device": volume.device});
    if call.at_least(2, 70) {
        shown["tag"] = json!(volume.tag);
    }
    if call.at_least(2, 79) {
        shown["delete_on_termination"] = json!(volume.delete_on_termination);
    }
    if call.at_least(2, 89) {
        shown["attachment_id"] = json!(volume.attachment_id);
        shown["bdm_uuid"] = json!(volume.attachment_id);
    } else {
        shown["id"] = json!(volume.volume_id);
    }
    shown
}

fn find<'s>(server: &'s Server, volume_id: &str) -> Result<&'s VolumeOf, Fault> {
    server.volumes.iter().find(|volume| volume.volume_id == volume_id).ok_or_else(|| not_attached(volume_id))
}

/// `limit` and `offset` of a list.
pub(super) fn window<T>(call: &Call, all: impl IntoIterator<Item = T>) -> Result<Vec<T>, Fault> {
    const MOST: usize = 1000;
    let number = |key: &str| -> Result<Option<usize>, Fault> {
        let Some(text) = call.query.get(key) else { return Ok(None) };
        let wrong = |_| Fault::bad_request(format!("Invalid input for query parameters {key}. Value: {text}."));
        text.parse().map(Some).map_err(wrong)
    };
    let (offset, limit) = (number("offset")?.unwrap_or(0), number("limit")?.unwrap_or(MOST).min(MOST));
    Ok(all.into_iter().skip(offset).take(limit).collect())
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    let shown: Vec<Value> =
        window(&call, &server.volumes)?.into_iter().map(|volume| view(&call, &server, volume)).collect();
    Ok(Response::ok(json!({"volumeAttachments": shown})))
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    let volume = find(&server, call.param("volume_id"))?;
    Ok(Response::ok(json!({"volumeAttachment": view(&call, &server, volume)})))
}

/// 400 for members that came with a later microversion.
fn check_members(call: &Call, body: &Value, members: &[(&str, u16)]) -> Result<(), Fault> {
    for (member, since) in members {
        if body.get(*member).is_some() && !call.at_least(2, *since) {
            return Err(Fault::bad_request(format!(
                "Additional properties are not allowed ('{member}' was unexpected)"
            )));
        }
    }
    Ok(())
}

async fn attach(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    let body = call.member("volumeAttachment")?.clone();
    check_members(&call, &body, &[("tag", 49), ("delete_on_termination", 79)])?;
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    let wish = Attach {
        volume_id: text("volumeId").unwrap_or_default(),
        device: text("device"),
        tag: text("tag"),
        delete_on_termination: body.get("delete_on_termination").is_some_and(crate::server::api::truth),
    };
    let (server, volume) = svc.attach_volume(&call.ctx, &server, wish).await?;
    Ok(Response::ok(json!({"volumeAttachment": view(&call, &server, &volume)})))
}

async fn update(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    let body = call.member("volumeAttachment")?.clone();
    let volume_id = call.param("volume_id").to_owned();
    if body["volumeId"] != json!(volume_id) {
        // Only administrators could: their volumes would have to be copied under a running guest.
        call.enforce("os_compute_api:os-volumes-attachments:swap", &call.target())?;
        return Err(Fault::bad_request("Swapping a volume for another is not offered."));
    }
    let volume = find(&server, &volume_id)?;
    check_members(
        &call,
        &body,
        &[("delete_on_termination", 85), ("tag", 85), ("device", 85), ("serverId", 85), ("id", 85)],
    )?;
    let same = |key: &str, value: Value| body.get(key).is_none_or(|said| *said == value);
    if !same("device", json!(volume.device))
        || !same("tag", json!(volume.tag))
        || !same("serverId", json!(server.record.id))
        || !same("id", json!(volume.volume_id))
    {
        return Err(Fault::bad_request("Only delete_on_termination of an attachment can be changed."));
    }
    if let Some(delete) = body.get("delete_on_termination") {
        svc.keep_volume(&server.record.id, &volume_id, crate::server::api::truth(delete)).await?;
    }
    Ok(Response::empty(202))
}

async fn detach(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    svc.detach_volume(&call.ctx, &server.record.id, call.param("volume_id")).await?;
    Ok(Response::empty(202))
}
