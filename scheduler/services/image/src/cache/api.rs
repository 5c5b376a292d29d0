//! `/v2/cache`
use super::{
    disk::Entry,
    ops::{self, disk},
};
use crate::{
    Image,
    image::{self, model::Image as Record},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

const ALL: &str = "/v2/cache";
const ONE: &str = "/v2/cache/{image_id}";

pub fn routes() -> Vec<Route<Image>> {
    vec![
        Route::get(ALL, show).rule("cache_list").summary("List cached and queued images"),
        Route::delete(ALL, clear).rule("cache_delete").summary("Clear the cache"),
        Route::post("/v2/cache/clean", clean).rule("cache_clean").summary("Remove what no image has from the cache"),
        Route::post("/v2/cache/prune", prune).rule("cache_prune").summary("Make the cache fit its limit"),
        Route::get("/v2/cache/nodes/{image_id}", nodes)
            .rule("list_cached_nodes")
            .summary("Tell which nodes cache an image"),
        Route::put(ONE, queue).rule_by_handler("cache_image").summary("Queue an image for the cache"),
        Route::delete(ONE, remove).rule_by_handler("cache_delete").summary("Remove an image from the cache"),
    ]
}

fn entry(entry: &Entry) -> Value {
    json!({"image_id": entry.image, "hits": entry.hits, "last_accessed": entry.last_accessed,
        "last_modified": entry.last_modified, "size": entry.size})
}

async fn show(svc: Arc<Image>, _call: Call) -> Reply {
    let disk = disk(&svc)?;
    let cached: Vec<Value> = disk.entries().await.map_err(Fault::internal)?.iter().map(entry).collect();
    Ok(Response::ok(json!({"cached_images": cached, "queued_images": disk.queued().await.map_err(Fault::internal)?})))
}

async fn clear(svc: Arc<Image>, call: Call) -> Reply {
    let disk = disk(&svc)?;
    let target = call.header("x-image-cache-clear-target").unwrap_or_default().to_ascii_lowercase();
    let (cache, queue) = match target.as_str() {
        "" => (true, true),
        "cache" => (true, false),
        "queue" => (false, true),
        _ => {
            return Err(Fault::bad_request(
                "If provided 'x-image-cache-clear-target' must be 'cache', 'queue' or empty string.",
            ));
        }
    };
    if queue {
        for id in disk.queued().await.map_err(Fault::internal)? {
            disk.unqueue(&id).await.map_err(Fault::internal)?;
        }
    }
    if cache {
        disk.clear().await.map_err(Fault::internal)?;
    }
    Ok(Response::no_content())
}

async fn clean(svc: Arc<Image>, _call: Call) -> Reply {
    ops::clean(&svc).await?;
    Ok(Response::empty(200))
}

async fn prune(svc: Arc<Image>, _call: Call) -> Reply {
    let (files, bytes) = disk(&svc)?.prune().await.map_err(Fault::internal)?;
    Ok(Response::ok(json!({"total_files_pruned": files, "total_bytes_pruned": bytes})))
}

async fn nodes(svc: Arc<Image>, _call: Call) -> Reply {
    disk(&svc)?;
    Err(Fault::conflict("Centralized caching is not enabled"))
}

async fn queue(svc: Arc<Image>, call: Call) -> Reply {
    let stored = image::ops::visible(&svc.store, &call.ctx, call.param("image_id")).await?;
    call.authorize(&image::ops::target(&svc.store, &call.ctx, &stored).await?)?;
    ops::queue(&svc, &stored).await?;
    Ok(Response::empty(202))
}

async fn remove(svc: Arc<Image>, call: Call) -> Reply {
    let id = call.param("image_id");
    // An image may be gone while the cache still has it.
    let target = match svc.store.get::<Record>(id).await? {
        Some(stored) => image::ops::target(&svc.store, &call.ctx, &stored).await?,
        None => pilvi_kit::Target::new(),
    };
    call.authorize(&target)?;
    let disk = disk(&svc)?;
    let cached = disk.remove(id).await.map_err(Fault::internal)?;
    let queued = disk.unqueue(id).await.map_err(Fault::internal)?;
    if !cached && !queued && target.is_empty() {
        return Err(Fault::not_found(format!("Image {id} not found.")));
    }
    Ok(Response::no_content())
}
