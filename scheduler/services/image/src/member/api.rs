//! `/v2/images/{image_id}/members`
use super::{model::Acceptance, ops, view};
use crate::{
    Image,
    image::{
        self,
        model::{Image as Record, Visibility},
    },
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, Target};
use pilvi_store::Stored;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const ALL: &str = "/v2/images/{image_id}/members";
const ONE: &str = "/v2/images/{image_id}/members/{member_id}";

pub fn routes() -> Vec<Route<Image>> {
    vec![
        Route::get(ALL, list).rule_by_handler("get_members").summary("List an image's members"),
        Route::post(ALL, create).rule_by_handler("add_member").schema(&CREATE).summary("Share an image with a project"),
        Route::get(ONE, show).rule_by_handler("get_member").summary("Show a member"),
        Route::put(ONE, update).rule_by_handler("modify_member").schema(&UPDATE).summary("Accept or reject an image"),
        Route::delete(ONE, delete).rule_by_handler("delete_member").summary("Stop sharing an image with a project"),
    ]
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(
        || json!({"type": "object", "required": ["member"], "properties": {"member": {"type": "string", "minLength": 1, "maxLength": 255}}}),
    )
});
static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| json!({"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}))
});

/// The image, which must be shared, and what rules look at.
async fn shared(svc: &Image, call: &Call) -> Result<(Stored<Record>, Target), Fault> {
    let stored = image::ops::visible(&svc.store, &call.ctx, call.param("image_id")).await?;
    let target = image::ops::target(&svc.store, &call.ctx, &stored).await?;
    if stored.visibility != Visibility::Shared {
        // A rule is asked all the same, so that nobody learns more than their roles allow.
        call.authorize(&target)?;
        return Err(Fault::forbidden("Only shared images have members."));
    }
    Ok((stored, target))
}

/// A member sees itself, the owner sees all.
fn shows(call: &Call, image: &Record, member: &str) -> bool {
    image::ops::owns(&call.ctx, image) || member == call.ctx.project_id()
}

async fn list(svc: Arc<Image>, call: Call) -> Reply {
    let (image, target) = shared(&svc, &call).await?;
    call.authorize(&target)?;
    let members = ops::of_image(&svc.store, &image.id).await?;
    let shown: Vec<Value> = members.iter().filter(|m| shows(&call, &image, &m.member_id)).map(view::one).collect();
    Ok(Response::ok(json!({"members": shown, "schema": "/v2/schemas/members"})))
}

async fn create(svc: Arc<Image>, call: Call) -> Reply {
    let (image, target) = shared(&svc, &call).await?;
    call.authorize(&target)?;
    let member = call.member("member")?.as_str().unwrap_or_default();
    Ok(Response::ok(view::one(&ops::add(&svc.store, &image.id, member).await?)))
}

async fn show(svc: Arc<Image>, call: Call) -> Reply {
    let (image, target) = shared(&svc, &call).await?;
    let member = call.param("member_id");
    call.authorize(&target).map_err(|_| ops::unknown(&image.id, member))?;
    let found = ops::find(&svc.store, &image.id, member).await?.filter(|m| shows(&call, &image, &m.member_id));
    Ok(Response::ok(view::one(&found.ok_or_else(|| ops::unknown(&image.id, member))?)))
}

async fn update(svc: Arc<Image>, call: Call) -> Reply {
    let (image, mut target) = shared(&svc, &call).await?;
    let member = call.param("member_id");
    let found = ops::find(&svc.store, &image.id, member).await?.filter(|m| shows(&call, &image, &m.member_id));
    let found = match found {
        Some(found) => found,
        None => {
            call.authorize(&target)?;
            return Err(ops::unknown(&image.id, member));
        }
    };
    target.insert("member_id".into(), found.member_id.clone().into());
    call.authorize(&target)?;
    let text = call.member("status")?.as_str().unwrap_or_default();
    let status = Acceptance::parse(text).ok_or_else(|| {
        Fault::bad_request(format!("Incorrect request: Status {text} is not one of pending, accepted, rejected"))
    })?;
    Ok(Response::ok(view::one(&ops::answer(&svc.store, &image.id, member, status).await?)))
}

async fn delete(svc: Arc<Image>, call: Call) -> Reply {
    let (image, target) = shared(&svc, &call).await?;
    call.authorize(&target)?;
    ops::remove(&svc.store, &image.id, call.param("member_id")).await?;
    Ok(Response::no_content())
}
