//! Who may use types that are not public.
use super::api::named;
use crate::{Volumes, fault, route, schema::action, tables::VolumeType};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const ADD: &str = "volume_extension:volume_type_access:addProjectAccess";
const REMOVE: &str = "volume_extension:volume_type_access:removeProjectAccess";

pub fn routes() -> Vec<Route<Volumes>> {
    vec![
        route::get("/v3/types/{type_id}/os-volume-type-access", list)
            .rule("volume_extension:volume_type_access:get_all_for_type"),
        route::post("/v3/types/{type_id}/action", act)
            .rule(ADD)
            .actions(&[("addProjectAccess", ADD), ("removeProjectAccess", REMOVE)]),
    ]
}

fn project() -> Value {
    json!({"project": {"type": "string", "minLength": 1, "maxLength": 255}})
}
static ADDS: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| action("addProjectAccess", project(), &["project"])));
static REMOVES: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| action("removeProjectAccess", project(), &["project"])));

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = named(&svc, &call).await?;
    if found.public {
        return Err(Fault::not_found("Access list not available for public volume types."));
    }
    let rows: Vec<Value> =
        found.access.iter().map(|project| json!({"volume_type_id": found.record.id, "project_id": project})).collect();
    Ok(Response::ok(json!({"volume_type_access": rows})))
}

async fn act(svc: Arc<Volumes>, call: Call) -> Reply {
    let adds = call.body.get("addProjectAccess").is_some();
    if adds {
        ADDS.check(&call.body)?;
    } else if call.body.get("removeProjectAccess").is_some() {
        REMOVES.check(&call.body)?;
    } else {
        return Err(Fault::bad_request("There is no such action."));
    }
    let given = call.body.get(if adds { "addProjectAccess" } else { "removeProjectAccess" });
    let project = given.and_then(|g| g["project"].as_str()).unwrap_or_default().to_owned();
    svc.write((call.param("type_id").to_owned(), project, adds), |tx, (id, project, adds)| {
        Box::pin(async move {
            let mut found = tx.get::<VolumeType>(&id).await?.ok_or_else(|| fault::no_type(&id))?;
            if found.public {
                return Err(fault::invalid_input("Type access modification is not applicable to public volume type."));
            }
            if adds && !found.record.access.insert(project.clone()) {
                return Err(Fault::conflict(format!(
                    "Volume type access for {id} / {project} combination already exists."
                )));
            }
            if !adds && !found.record.access.remove(&project) {
                return Err(Fault::not_found(format!(
                    "Volume type access not found for {id} / {project} combination."
                )));
            }
            tx.update(&found).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::empty(202))
}
