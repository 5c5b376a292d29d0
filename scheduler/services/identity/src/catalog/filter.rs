//! Which endpoints a project sees (`OS-EP-FILTER`): single ones, or groups of them chosen by what they share.
//!
//! A project that was given none sees all.
use super::{endpoint, render};
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types},
    directory::Area,
    fault, listing, project,
    tables::{Endpoint, EndpointGroup, EndpointLink, Project},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

fn properties() -> Value {
    let filters = json!({"type": "object", "additionalProperties": false, "properties": {
        "service_id": types::text(), "region_id": types::text(), "interface": {"type": "string", "enum": ["admin", "internal", "public"]}, "enabled": types::flag()}});
    json!({"name": types::name(255), "description": types::text_or_null(), "filters": filters})
}

static CREATE: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| body_schema("endpoint_group", properties(), &["name", "filters"])));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("endpoint_group", properties(), &[])));

pub(super) fn routes() -> Vec<Route<Identity>> {
    let mut routes = groups();
    routes.extend(links());
    routes
}

fn groups() -> Vec<Route<Identity>> {
    const ALL: &str = "/v3/OS-EP-FILTER/endpoint_groups";
    const ONE: &str = "/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}";
    vec![
        Route::get(ALL, list).rule("identity:list_endpoint_groups").summary("List endpoint groups"),
        Route::post(ALL, create)
            .rule("identity:create_endpoint_group")
            .schema(&CREATE)
            .summary("Create an endpoint group"),
        Route::get(ONE, show).rule("identity:get_endpoint_group").summary("Show an endpoint group"),
        Route::patch(ONE, update)
            .rule("identity:update_endpoint_group")
            .schema(&UPDATE)
            .summary("Change an endpoint group"),
        Route::delete(ONE, delete).rule("identity:delete_endpoint_group").summary("Delete an endpoint group"),
        Route::get("/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/endpoints", endpoints_in_group)
            .rule("identity:list_endpoints_associated_with_endpoint_group")
            .summary("List the endpoints of a group"),
        Route::get("/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects", projects_of)
            .rule("identity:list_projects_associated_with_endpoint_group")
            .summary("List the projects that were given a group"),
    ]
}

fn links() -> Vec<Route<Identity>> {
    const ENDPOINT: &str = "/v3/OS-EP-FILTER/projects/{project_id}/endpoints/{endpoint_id}";
    const GROUP: &str = "/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects/{project_id}";
    vec![
        Route::put(ENDPOINT, link).rule("identity:add_endpoint_to_project").summary("Give a project an endpoint"),
        Route::get(ENDPOINT, check)
            .rule("identity:check_endpoint_in_project")
            .summary("Was a project given an endpoint?"),
        Route::delete(ENDPOINT, unlink)
            .rule("identity:remove_endpoint_from_project")
            .summary("Take an endpoint from a project"),
        Route::put(GROUP, link)
            .rule("identity:add_endpoint_group_to_project")
            .summary("Give a project an endpoint group"),
        Route::get(GROUP, check)
            .rule("identity:get_endpoint_group_in_project")
            .summary("Was a project given an endpoint group?"),
        Route::delete(GROUP, unlink)
            .rule("identity:remove_endpoint_group_from_project")
            .summary("Take an endpoint group from a project"),
        Route::get("/v3/OS-EP-FILTER/endpoints/{endpoint_id}/projects", projects_of)
            .rule("identity:list_projects_for_endpoint")
            .summary("List the projects that were given an endpoint"),
        Route::get("/v3/OS-EP-FILTER/projects/{project_id}/endpoints", endpoints_of)
            .rule("identity:list_endpoints_for_project")
            .summary("List the endpoints a project was given"),
        Route::get("/v3/OS-EP-FILTER/projects/{project_id}/endpoint_groups", groups_of)
            .rule("identity:list_endpoint_groups_for_project")
            .summary("List the endpoint groups a project was given"),
    ]
}

fn view(call: &Call, group: &EndpointGroup) -> Value {
    json!({"id": group.id, "name": group.name, "description": group.description, "filters": group.filters,
        "links": listing::self_link(call, &format!("/v3/OS-EP-FILTER/endpoint_groups/{}", group.id))})
}

async fn group(svc: &Identity, id: &str) -> Result<EndpointGroup, Fault> {
    Ok(svc.store.get::<EndpointGroup>(id).await?.ok_or_else(|| fault::missing("endpoint group", id))?.record)
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let groups = svc.store.list::<EndpointGroup>(Query::all()).await?;
    listing::answer(&svc, &call, "endpoint_groups", groups.iter().map(|g| view(&call, g)).collect(), &["name"])
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let group = group(&svc, call.param("endpoint_group_id")).await?;
    Ok(Response::ok(json!({"endpoint_group": view(&call, &group)})))
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "endpoint_group")?;
    let group = EndpointGroup {
        id: id::hex(),
        name: wanted.need("name", "endpoint_group")?,
        description: wanted.text("description"),
        filters: wanted.object("filters").unwrap_or_default(),
    };
    let group = svc
        .write(Area::Catalog, move |tx| {
            let group = group.clone();
            Box::pin(async move { Ok(tx.insert(&group).await?.record) })
        })
        .await?;
    Ok(Response::created(json!({"endpoint_group": view(&call, &group)})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let (id, wanted) = (call.param("endpoint_group_id").to_owned(), Attributes::of(&call, "endpoint_group")?);
    let group = svc
        .write(Area::Catalog, move |tx| {
            let (id, wanted) = (id.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored =
                    tx.get::<EndpointGroup>(&id).await?.ok_or_else(|| fault::missing("endpoint group", &id))?;
                if let Some(name) = wanted.text("name") {
                    stored.record.name = name;
                }
                if wanted.has("description") {
                    stored.record.description = wanted.text("description");
                }
                if let Some(filters) = wanted.object("filters") {
                    stored.record.filters = filters;
                }
                Ok(tx.update(&stored).await?.record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"endpoint_group": view(&call, &group)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("endpoint_group_id").to_owned();
    svc.write(Area::Catalog, move |tx| {
        let id = id.clone();
        Box::pin(async move {
            for link in tx.list::<EndpointLink>(EndpointLink::of_linked(&id)).await? {
                tx.delete::<EndpointLink>(&link.id).await?;
            }
            if tx.delete::<EndpointGroup>(&id).await? { Ok(()) } else { Err(fault::missing("endpoint group", &id)) }
        })
    })
    .await?;
    Ok(Response::no_content())
}

/// (id of the endpoint or group, is it a group?) of the path.
fn linked(call: &Call) -> (&str, bool) {
    match call.param("endpoint_id") {
        "" => (call.param("endpoint_group_id"), true),
        id => (id, false),
    }
}

async fn link(svc: Arc<Identity>, call: Call) -> Reply {
    let (id, is_group) = linked(&call);
    let link = EndpointLink::new(call.param("project_id"), id, is_group);
    svc.write(Area::Catalog, move |tx| {
        let link = link.clone();
        Box::pin(async move {
            if link.is_group {
                tx.get::<EndpointGroup>(&link.linked_id)
                    .await?
                    .ok_or_else(|| fault::missing("endpoint group", &link.linked_id))?;
            } else {
                tx.get::<Endpoint>(&link.linked_id)
                    .await?
                    .ok_or_else(|| fault::missing("endpoint", &link.linked_id))?;
            }
            tx.get::<Project>(&link.project_id).await?.ok_or_else(|| fault::missing("project", &link.project_id))?;
            if tx.get::<EndpointLink>(&link.id).await?.is_none() {
                tx.insert(&link).await?;
            }
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}

fn no_link(call: &Call) -> Fault {
    Fault::not_found(format!("Could not find {} for project {}.", linked(call).0, call.param("project_id")))
}

async fn check(svc: Arc<Identity>, call: Call) -> Reply {
    let (id, is_group) = linked(&call);
    svc.store
        .get::<EndpointLink>(&EndpointLink::key(call.param("project_id"), id))
        .await?
        .ok_or_else(|| no_link(&call))?;
    if is_group {
        let group = group(&svc, id).await?;
        return Ok(Response::ok(json!({"endpoint_group": view(&call, &group)})));
    }
    Ok(Response::no_content())
}

async fn unlink(svc: Arc<Identity>, call: Call) -> Reply {
    let (key, missing) = (EndpointLink::key(call.param("project_id"), linked(&call).0), no_link(&call));
    svc.write(Area::Catalog, move |tx| {
        let (key, missing) = (key.clone(), missing.clone());
        Box::pin(async move { if tx.delete::<EndpointLink>(&key).await? { Ok(()) } else { Err(missing) } })
    })
    .await?;
    Ok(Response::no_content())
}

async fn projects_of(svc: Arc<Identity>, call: Call) -> Reply {
    let (id, is_group) = linked(&call);
    if is_group {
        group(&svc, id).await?;
    } else {
        endpoint::find(&svc, id).await?;
    }
    let mut items = Vec::new();
    for link in svc.store.list::<EndpointLink>(EndpointLink::of_linked(id)).await? {
        if let Some(found) = svc.directory.project(&link.project_id).await? {
            items.push(project::view::view(&call, &found));
        }
    }
    Ok(listing::whole(&call, "projects", items))
}

async fn endpoints_in_group(svc: Arc<Identity>, call: Call) -> Reply {
    let group = group(&svc, call.param("endpoint_group_id")).await?;
    let records = svc.directory.catalog_records().await?;
    let chosen = records.endpoints.iter().filter(|e| render::chosen(&group, e));
    Ok(listing::whole(&call, "endpoints", chosen.map(|e| endpoint::view(&call, e)).collect()))
}

async fn known_project(svc: &Identity, call: &Call) -> Result<Arc<Project>, Fault> {
    let id = call.param("project_id");
    svc.directory.project(id).await?.ok_or_else(|| fault::missing("project", id))
}

async fn endpoints_of(svc: Arc<Identity>, call: Call) -> Reply {
    let project = known_project(&svc, &call).await?;
    let records = svc.directory.catalog_records().await?;
    let given = render::given(&records, &project.id);
    // The catalogue of a project that was given none has all; this list has what was given.
    let seen = records.endpoints.iter().filter(|e| given.as_ref().is_some_and(|g| g.contains(&e.id)));
    Ok(listing::whole(&call, "endpoints", seen.map(|e| endpoint::view(&call, e)).collect()))
}

async fn groups_of(svc: Arc<Identity>, call: Call) -> Reply {
    let project = known_project(&svc, &call).await?;
    let records = svc.directory.catalog_records().await?;
    let linked = |g: &&EndpointGroup| records.links.iter().any(|l| l.project_id == project.id && l.linked_id == g.id);
    Ok(listing::whole(&call, "endpoint_groups", records.groups.iter().filter(linked).map(|g| view(&call, g)).collect()))
}
