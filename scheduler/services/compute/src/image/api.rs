//! `/images`: the image service's images in compute's old JSON.
use crate::{Compute, network::api::OLD};
use pilvi_image::image::{
    model::{Image, Status},
    ops::{self, Asked, Shared},
};
use pilvi_kit::{
    Call, Fault, Reply, Response, Route, clock,
    page::{Dir, Page, PageRules},
};
use pilvi_store::Stored;
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Compute>> {
    const WHY: &str = "the image service decides about each image";
    let mut routes = vec![
        Route::get("/v2.1/images", list).authenticated(WHY),
        Route::get("/v2.1/images/detail", detail).authenticated(WHY),
        Route::get("/v2.1/images/{image_id}", show).authenticated(WHY),
        Route::delete("/v2.1/images/{image_id}", delete).authenticated(WHY),
    ];
    for route in &mut routes {
        route.versions.1 = OLD;
    }
    routes
}

const PAGES: PageRules = PageRules { max: Some(1000), default: None, keys: &["id", "name", "created_at"] };

/// Properties that say from which server an image was made.
const FROM_SERVER: &str = "instance_uuid";
/// What old clients ask for in one of two words.
const IMAGE_TYPE: &str = "image_type";

fn missing(id: &str) -> Fault {
    Fault::not_found(format!("Image {id} could not be found."))
}

/// The image of the path, if the caller sees it.
pub async fn found(svc: &Compute, call: &Call) -> Result<Stored<Image>, Fault> {
    let id = call.param("image_id");
    ops::visible(&svc.store, &call.ctx, id).await.map_err(|f| if f.code() == 404 { missing(id) } else { f })
}

fn status(image: &Image) -> &'static str {
    match image.status {
        Status::Active => "ACTIVE",
        Status::Queued | Status::Saving | Status::Uploading | Status::Importing => "SAVING",
        Status::Deactivated => "UNKNOWN",
    }
}

fn progress(image: &Image) -> u8 {
    match image.status {
        Status::Active => 100,
        Status::Saving | Status::Importing => 50,
        Status::Queued | Status::Uploading => 25,
        Status::Deactivated => 0,
    }
}

fn links(call: &Call, id: &str) -> Value {
    let glance = call.base_url.strip_suffix("/compute").unwrap_or(&call.base_url);
    json!([
        {"rel": "self", "href": format!("{}/v2.1/images/{id}", call.base_url)},
        {"rel": "bookmark", "href": format!("{}/images/{id}", call.base_url)},
        {"rel": "alternate", "type": "application/vnd.openstack.image", "href": format!("{glance}/image/images/{id}")},
    ])
}

fn brief(call: &Call, image: &Stored<Image>) -> Value {
    json!({"id": image.record.id, "name": image.record.name, "links": links(call, &image.record.id)})
}

/// Properties as metadata: everything there is text.
pub fn metadata(image: &Image) -> Map<String, Value> {
    image.properties.iter().map(|(k, v)| (k.clone(), json!(v.clone().unwrap_or_default()))).collect()
}

fn view(call: &Call, image: &Stored<Image>) -> Value {
    let mut out = json!({
        "id": image.record.id, "name": image.record.name, "status": status(image), "progress": progress(image),
        "created": clock::seconds_z(image.created_us), "updated": clock::seconds_z(image.updated_us),
        "minDisk": image.min_disk, "minRam": image.min_ram, "metadata": metadata(image),
        "OS-EXT-IMG-SIZE:size": image.size.unwrap_or(0), "links": links(call, &image.record.id),
    });
    if let Some(server) = image.property(FROM_SERVER) {
        out["server"] = json!({"id": server, "links": [
            {"rel": "self", "href": format!("{}/v2.1/servers/{server}", call.base_url)},
            {"rel": "bookmark", "href": format!("{}/servers/{server}", call.base_url)}]});
    }
    out
}

/// Made from a server, or brought from outside?
fn kind(image: &Image) -> &str {
    image.property(IMAGE_TYPE).unwrap_or(if image.property(FROM_SERVER).is_some() { "snapshot" } else { "base" })
}

fn matches(call: &Call, image: &Stored<Image>, since: Option<i64>) -> bool {
    let is = |key: &str, have: &str| call.query.get(key).is_none_or(|wanted| wanted.eq_ignore_ascii_case(have));
    let server = call.query.get("server").map(|s| s.rsplit('/').next().unwrap_or_default());
    let equal = |key: &str, have: i64| call.query.get(key).is_none_or(|t| t.parse().is_ok_and(|n: i64| have == n));
    call.query.get("name").is_none_or(|n| image.name.as_deref() == Some(n))
        && is("status", status(image))
        && is("type", kind(image))
        && server.is_none_or(|s| image.property(FROM_SERVER) == Some(s))
        && equal("minDisk", image.min_disk)
        && equal("minRam", image.min_ram)
        && since.is_none_or(|t| image.updated_us >= t)
}

async fn page(svc: &Compute, call: &Call) -> Result<(Vec<Stored<Image>>, Vec<Value>), Fault> {
    let since = match call.query.get("changes-since") {
        None => None,
        Some(text) => Some(clock::parse(text).ok_or_else(|| Fault::bad_request("Invalid changes-since value"))?),
    };
    let mut images = ops::list(&svc.store, &call.ctx, Asked::Usual, Shared::All).await?;
    images.retain(|i| matches(call, i, since));
    let mut page = Page::of(call, PAGES)?;
    page.sort = vec![("created_at".into(), Dir::Desc)];
    let key = |i: &Stored<Image>, key: &str| if key == "created_at" { json!(i.created_us) } else { json!(i.record.id) };
    let (images, more) = page.cut(images, |i| &i.record.id, key)?;
    let links = page.links(call, &images, more, |i| &i.record.id);
    Ok((images, links.into_iter().filter(|l| l["rel"] == "next").collect()))
}

async fn list_as(svc: &Compute, call: &Call, shape: fn(&Call, &Stored<Image>) -> Value) -> Reply {
    let (images, links) = page(svc, call).await?;
    let mut body = json!({"images": images.iter().map(|i| shape(call, i)).collect::<Vec<_>>()});
    if !links.is_empty() {
        body["images_links"] = json!(links);
    }
    Ok(Response::ok(body))
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    list_as(&svc, &call, brief).await
}

async fn detail(svc: Arc<Compute>, call: Call) -> Reply {
    list_as(&svc, &call, view).await
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let image = found(&svc, &call).await?;
    Ok(Response::ok(json!({"image": view(&call, &image)})))
}

/// 403 unless the image is the caller's.
pub fn refuse_foreign(call: &Call, image: &Image) -> Result<(), Fault> {
    let writes = call.caller().has_role("member") || call.caller().has_role("admin");
    if writes && ops::owns(&call.ctx, image) {
        return Ok(());
    }
    Err(Fault::forbidden(format!("You are not allowed to change image {}.", image.id)))
}

async fn delete(svc: Arc<Compute>, call: Call) -> Reply {
    let image = found(&svc, &call).await?;
    refuse_foreign(&call, &image)?;
    pilvi_image::data::ops::delete_image(&svc.images, &image.record.id).await?;
    Ok(Response::no_content())
}
