//! `/v2/images/{image_id}/tags/{tag}`
use crate::{
    Image,
    image::{self, view::TAGS_MAX},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use std::sync::Arc;

const PATH: &str = "/v2/images/{image_id}/tags/{tag}";

pub fn routes() -> Vec<Route<Image>> {
    vec![
        Route::put(PATH, add).rule_by_handler("modify_image").summary("Tag an image"),
        Route::delete(PATH, remove).rule_by_handler("modify_image").summary("Remove a tag from an image"),
    ]
}

async fn authorized(svc: &Image, call: &Call) -> Result<String, Fault> {
    let stored = image::ops::visible(&svc.store, &call.ctx, call.param("image_id")).await?;
    call.authorize(&image::ops::target(&svc.store, &call.ctx, &stored).await?)?;
    Ok(stored.record.id)
}

async fn add(svc: Arc<Image>, call: Call) -> Reply {
    let id = authorized(&svc, &call).await?;
    let tag = call.param("tag").to_owned();
    if tag.chars().count() > 255 {
        return Err(Fault::bad_request("A tag has at most 255 characters."));
    }
    image::ops::change(&svc.store, &id, move |image| {
        image.tags.insert(tag.clone());
        if image.tags.len() > TAGS_MAX {
            return Err(Fault::too_large(format!("An image has at most {TAGS_MAX} tags.")));
        }
        Ok(())
    })
    .await?;
    Ok(Response::no_content())
}

async fn remove(svc: Arc<Image>, call: Call) -> Reply {
    let id = authorized(&svc, &call).await?;
    let tag = call.param("tag").to_owned();
    image::ops::change(&svc.store, &id, move |image| {
        if image.tags.remove(&tag) { Ok(()) } else { Err(Fault::not_found(format!("Tag {tag} not found."))) }
    })
    .await?;
    Ok(Response::no_content())
}
