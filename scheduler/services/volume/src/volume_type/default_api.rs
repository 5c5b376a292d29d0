//! `/default-types` (3.62): projects' own default types.
use super::ops;
use crate::{Volumes, route, tables::DefaultType};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use pilvi_store::{Query, Stored};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub fn routes() -> Vec<Route<Volumes>> {
    const ONE: &str = "/v3/default-types/{project_id}";
    vec![
        route::get("/v3/default-types", list).rule("volume_extension:default_get_all").since(3, 62),
        route::get(ONE, show).rule("volume_extension:default_get").since(3, 62),
        route::put(ONE, set).rule("volume_extension:default_set_or_update").schema(&SET).since(3, 62),
        route::delete(ONE, unset).rule("volume_extension:default_unset").since(3, 62),
    ]
}

static SET: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["default_type"], "properties": {"default_type": {"type": "object",
            "required": ["volume_type"], "additionalProperties": false, "properties": {
                "volume_type": {"type": "string", "minLength": 1, "maxLength": 255}}}}})
    })
});

fn view(found: &Stored<DefaultType>) -> Value {
    json!({"project_id": found.record.id, "volume_type_id": found.volume_type})
}

async fn list(svc: Arc<Volumes>, _call: Call) -> Reply {
    let all = svc.store.list::<DefaultType>(Query::all()).await?;
    Ok(Response::ok(json!({"default_types": all.iter().map(view).collect::<Vec<_>>()})))
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let project = call.param("project_id");
    let found = svc.store.get::<DefaultType>(project).await?;
    let found = found.ok_or_else(|| Fault::not_found(format!("Default type for project {project} not found.")))?;
    Ok(Response::ok(json!({"default_type": view(&found)})))
}

async fn set(svc: Arc<Volumes>, call: Call) -> Reply {
    let wish = call.member("default_type")?["volume_type"].as_str().unwrap_or_default().to_owned();
    let made = svc
        .write((call.param("project_id").to_owned(), wish), |tx, (project, wish)| {
            Box::pin(async move {
                let of_type = ops::find_in(tx, &wish).await.map_err(|fault| Fault::bad_request(fault.message))?;
                let of_type = of_type.record.id;
                match tx.get::<DefaultType>(&project).await? {
                    Some(mut known) => {
                        known.record.volume_type = of_type;
                        Ok(tx.update(&known).await?)
                    }
                    None => Ok(tx.insert(&DefaultType { id: project, volume_type: of_type }).await?),
                }
            })
        })
        .await?;
    Ok(Response::ok(json!({"default_type": view(&made)})))
}

async fn unset(svc: Arc<Volumes>, call: Call) -> Reply {
    svc.write(call.param("project_id").to_owned(), |tx, project| {
        Box::pin(async move {
            tx.delete::<DefaultType>(&project).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}
