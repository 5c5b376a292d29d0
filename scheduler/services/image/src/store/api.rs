//! `/v2/stores/{store_id}/{image_id}`
use super::object;
use crate::{Image, image};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Image>> {
    vec![
        Route::delete("/v2/stores/{store_id}/{image_id}", delete)
            .rule_by_handler("delete_image_location")
            .summary("Delete an image's data from one store"),
    ]
}

async fn delete(svc: Arc<Image>, call: Call) -> Reply {
    let (store, id) = (call.param("store_id"), call.param("image_id"));
    let stored = image::ops::visible(&svc.store, &call.ctx, id).await?;
    let target = image::ops::target(&svc.store, &call.ctx, &stored).await?;
    call.enforce("get_image_location", &target)?;
    call.authorize(&target)?;
    if svc.stores.find(store).is_none() {
        return Err(Fault::conflict(format!("The selected store {store} is not available on this node.")));
    }
    let gone = image::ops::drop_copy(&svc.store, &stored.id, store).await?;
    object::delete(&svc, &gone).await;
    Ok(Response::no_content())
}
