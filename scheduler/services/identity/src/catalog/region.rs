//! Regions: places in a tree, whose ids are chosen by the operator.
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types, with_extra},
    directory::Area,
    fault, listing,
    tables::{Endpoint, Region},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use pilvi_store::{Query, Tx};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const KNOWN: &[&str] = &["id", "description", "parent_region_id"];

fn properties() -> Value {
    let id = json!({"type": "string", "minLength": 1, "maxLength": 255});
    json!({"id": id, "description": types::text_or_null(), "parent_region_id": {"type": ["string", "null"], "minLength": 1, "maxLength": 255}})
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("region", properties(), &[])));

pub(super) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::get("/v3/regions", list).rule("identity:list_regions").summary("List regions"),
        Route::post("/v3/regions", create).rule("identity:create_region").schema(&CREATE).summary("Create a region"),
        Route::put("/v3/regions/{region_id}", create)
            .rule("identity:create_region")
            .schema(&CREATE)
            .summary("Create a region with this id"),
        Route::get("/v3/regions/{region_id}", show).rule("identity:get_region").summary("Show a region"),
        Route::patch("/v3/regions/{region_id}", update)
            .rule("identity:update_region")
            .schema(&CREATE)
            .summary("Change a region"),
        Route::delete("/v3/regions/{region_id}", delete).rule("identity:delete_region").summary("Delete a region"),
    ]
}

fn view(call: &Call, region: &Region) -> Value {
    let base = json!({"id": region.id, "description": region.description, "parent_region_id": region.parent_region_id,
        "links": listing::self_link(call, &format!("/v3/regions/{}", region.id))});
    with_extra(base, &region.extra)
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let regions = svc.store.list::<Region>(Query::all()).await?;
    listing::answer(&svc, &call, "regions", regions.iter().map(|r| view(&call, r)).collect(), &["parent_region_id"])
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("region_id");
    let region = svc.store.get::<Region>(id).await?.ok_or_else(|| fault::missing("region", id))?;
    Ok(Response::ok(json!({"region": view(&call, &region)})))
}

/// The parent must exist and must not be below the region.
async fn check_parent_in(tx: &mut Tx, region: &Region) -> Result<(), Fault> {
    let mut next = region.parent_region_id.clone();
    for _ in 0..64 {
        let Some(id) = next else { return Ok(()) };
        if id == region.id {
            break;
        }
        let above = tx.get::<Region>(&id).await?.ok_or_else(|| fault::missing("region", &id))?;
        next = above.record.parent_region_id;
    }
    let parent = region.parent_region_id.clone().unwrap_or_default();
    Err(Fault::bad_request(format!("The specified parent region {parent} would create a circular region hierarchy.")))
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "region")?;
    let named = Some(call.param("region_id").to_owned()).filter(|id| !id.is_empty());
    if let (Some(path), Some(body)) = (&named, wanted.text("id"))
        && *path != body
    {
        return Err(Fault::bad_request(format!("Conflicting region IDs specified: \"{path}\" != \"{body}\"")));
    }
    let id = named.or_else(|| wanted.text("id")).unwrap_or_else(id::hex);
    if id.len() > 255 || id.contains('\0') {
        return Err(Fault::bad_request("A region's id has at most 255 characters."));
    }
    let region = Region {
        id,
        description: wanted.text("description").unwrap_or_default(),
        parent_region_id: wanted.text("parent_region_id"),
        extra: wanted.extra(KNOWN),
    };
    let region = svc
        .write(Area::Catalog, move |tx| {
            let region = region.clone();
            Box::pin(async move {
                check_parent_in(tx, &region).await?;
                tx.insert(&region).await.map_err(|e| match e {
                    pilvi_store::Error::Exists { .. } => {
                        fault::duplicate("region", format_args!("Duplicate ID, {}", region.id))
                    }
                    other => other.into(),
                })?;
                Ok(region)
            })
        })
        .await?;
    Ok(Response::created(json!({"region": view(&call, &region)})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let (id, wanted) = (call.param("region_id").to_owned(), Attributes::of(&call, "region")?);
    wanted.unchanged("id", Some(&id))?;
    let region = svc
        .write(Area::Catalog, move |tx| {
            let (id, wanted) = (id.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored = tx.get::<Region>(&id).await?.ok_or_else(|| fault::missing("region", &id))?;
                if wanted.has("description") {
                    stored.record.description = wanted.text("description").unwrap_or_default();
                }
                if wanted.has("parent_region_id") {
                    stored.record.parent_region_id = wanted.text("parent_region_id");
                }
                wanted.merge_extra(&mut stored.record.extra, KNOWN);
                check_parent_in(tx, &stored.record).await?;
                Ok(tx.update(&stored).await?.record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"region": view(&call, &region)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("region_id").to_owned();
    svc.write(Area::Catalog, move |tx| {
        let id = id.clone();
        Box::pin(async move {
            tx.get::<Region>(&id).await?.ok_or_else(|| fault::missing("region", &id))?;
            let (mut all, mut at) = (vec![id.clone()], 0);
            while let Some(region) = all.get(at).cloned() {
                if tx.count::<Endpoint>(Endpoint::in_region(&region)).await? > 0 {
                    return Err(Fault::forbidden(format!(
                        "Unable to delete region {id} because it or its child regions have associated endpoints."
                    )));
                }
                all.extend(tx.list::<Region>(Region::below(&region)).await?.into_iter().map(|r| r.record.id));
                at += 1;
            }
            for region in &all {
                tx.delete::<Region>(region).await?;
            }
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}
