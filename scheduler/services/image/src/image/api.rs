//! `/v2/images`
use super::{
    filter,
    model::{Image as Record, Visibility},
    ops, patch, view,
};
use crate::{Image, fault, location, store::object};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use pilvi_store::Stored;
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

pub fn routes() -> Vec<Route<Image>> {
    vec![
        Route::get("/v2/images", list).rule("get_images").summary("List images"),
        Route::post("/v2/images", create).rule_by_handler("add_image").schema(&CREATE).summary("Create an image"),
        Route::delete("/v2/images", delete_none).authenticated("deletes nothing").summary("Refused"),
        Route::get("/v2/images/{image_id}", show).rule_by_handler("get_image").summary("Show an image"),
        Route::patch("/v2/images/{image_id}", update)
            .rule_by_handler("modify_image")
            .schema(&PATCH)
            .body_type("application/openstack-images-v2.1-json-patch")
            .summary("Update an image"),
        Route::delete("/v2/images/{image_id}", delete).rule_by_handler("delete_image").summary("Delete an image"),
        Route::post("/v2/images/{image_id}/actions/deactivate", deactivate)
            .rule_by_handler("deactivate")
            .summary("Deactivate an image"),
        Route::post("/v2/images/{image_id}/actions/reactivate", reactivate)
            .rule_by_handler("reactivate")
            .summary("Reactivate an image"),
    ]
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(crate::schema::documents::create));
static PATCH: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| json!({"type": "array", "maxItems": 1000, "items": {"type": "object"}})));

/// A slash after the collection names an image without an id.
fn no_id(call: &Call) -> Result<(), Fault> {
    if call.path.ends_with('/') { Err(fault::no_image("''")) } else { Ok(()) }
}

/// Deleting all images is no call, but deleting the image without an id is one for an image that is not there.
async fn delete_none(_: Arc<Image>, call: Call) -> Reply {
    no_id(&call)?;
    Err(Fault::new(405, "The method is not allowed for this resource.").header("allow", "GET, POST"))
}

async fn list(svc: Arc<Image>, call: Call) -> Reply {
    no_id(&call)?;
    let filter = filter::parse(&call)?;
    let (items, more) = ops::page(&svc.store, &call.ctx, filter).await?;
    let query = |marker: Option<&str>| {
        let mut out = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in call.query.0.iter().filter(|(key, _)| key != "marker") {
            out.append_pair(key, value);
        }
        if let Some(marker) = marker {
            out.append_pair("marker", marker);
        }
        out.finish()
    };
    let link = |query: String| if query.is_empty() { "/v2/images".to_owned() } else { format!("/v2/images?{query}") };
    let mut listing = view::Listing::begin();
    for item in &items {
        listing.push(&whole(&svc, &call, item).await?)?;
    }
    let mut rest = Map::new();
    rest.insert("first".into(), json!(link(query(None))));
    rest.insert("schema".into(), json!("/v2/schemas/images"));
    if let Some(last) = items.last()
        && more
    {
        rest.insert("next".into(), json!(link(query(Some(&last.record.id)))));
    }
    Ok(Response::bytes(200, "application/json", listing.finish(&rest)?))
}

/// An image in JSON, with its locations where they are shown.
async fn whole(svc: &Image, call: &Call, stored: &Stored<Record>) -> Result<Value, Fault> {
    let mut shown = view::one(stored);
    location::view::add(svc, call, stored, &mut shown).await?;
    Ok(shown)
}

/// Making an image visible to more people has rules of its own.
fn check_visibility(call: &Call, visibility: Visibility, target: &pilvi_kit::Target) -> Result<(), Fault> {
    match visibility {
        Visibility::Public => call.enforce("publicize_image", target),
        Visibility::Community => call.enforce("communitize_image", target),
        Visibility::Private | Visibility::Shared => Ok(()),
    }
}

async fn create(svc: Arc<Image>, call: Call) -> Reply {
    let image = view::new(&call.body, call.caller().project_id())?;
    let mut target = pilvi_kit::call::owned_by(call.ctx.project_id());
    target.insert("owner".into(), image.owner.clone().into());
    target.insert("visibility".into(), image.visibility.as_str().into());
    call.authorize(&target)?;
    check_visibility(&call, image.visibility, &target)?;
    crate::quota::check_create(&svc, &image).await?;
    let stored = ops::create(&svc.store, image).await?;
    Ok(Response::created(whole(&svc, &call, &stored).await?)
        .header("location", call.url(&format!("/v2/images/{}", stored.record.id)))
        .header("openstack-image-import-methods", svc.config.import.methods.join(","))
        .header("openstack-image-store-ids", svc.stores.ids()))
}

async fn show(svc: Arc<Image>, call: Call) -> Reply {
    let stored = ops::visible(&svc.store, &call.ctx, call.param("image_id")).await?;
    call.authorize(&ops::target(&svc.store, &call.ctx, &stored).await?)?;
    Ok(Response::ok(whole(&svc, &call, &stored).await?))
}

async fn update(svc: Arc<Image>, call: Call) -> Reply {
    let stored = ops::visible(&svc.store, &call.ctx, call.param("image_id")).await?;
    let target = ops::target(&svc.store, &call.ctx, &stored).await?;
    call.authorize(&target)?;
    let changes = patch::parse(call.header("content-type").unwrap_or_default(), &call.body)?;
    let named = location::patch::prepare(&svc, &call, &target, &stored, &changes).await?;
    let mut wanted = stored.record.clone();
    patch::apply_all(&mut wanted, &changes, &named)?;
    if wanted.visibility != stored.record.visibility {
        check_visibility(&call, wanted.visibility, &target)?;
    }
    if wanted.owner != stored.record.owner && !call.caller().has_role("admin") {
        return Err(Fault::forbidden("You are not permitted to change the owner of this image."));
    }
    // Checked against what was read above, applied to what is there now: an upload may have ended since.
    let saved =
        ops::change(&svc.store, &stored.record.id, move |image| patch::apply_all(image, &changes, &named)).await?;
    object::delete(&svc, &ops::dropped(&stored, &saved)).await;
    Ok(Response::ok(whole(&svc, &call, &saved).await?))
}

async fn delete(svc: Arc<Image>, call: Call) -> Reply {
    let id = call.param("image_id");
    let stored = ops::visible(&svc.store, &call.ctx, id).await.map_err(|fault| match fault.code() {
        404 => Fault::not_found(format!("Failed to find image {id} to delete")),
        _ => fault,
    })?;
    call.authorize(&ops::target(&svc.store, &call.ctx, &stored).await?)?;
    crate::data::ops::delete_image(&svc, &stored.record.id).await?;
    Ok(Response::no_content())
}

async fn deactivate(svc: Arc<Image>, call: Call) -> Reply {
    switch(svc, call, super::model::Event::Deactivate).await
}

async fn reactivate(svc: Arc<Image>, call: Call) -> Reply {
    switch(svc, call, super::model::Event::Reactivate).await
}

async fn switch(svc: Arc<Image>, call: Call, event: super::model::Event) -> Reply {
    let stored = ops::visible(&svc.store, &call.ctx, call.param("image_id")).await?;
    call.authorize(&ops::target(&svc.store, &call.ctx, &stored).await?)?;
    if !ops::owns(&call.ctx, &stored) {
        return Err(fault::no_image(&stored.record.id));
    }
    ops::step(&svc.store, &stored.record.id, event, |_| {}).await?;
    Ok(Response::no_content())
}
