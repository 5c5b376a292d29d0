//! Domains: the roots of the project tree, and the name space of users, groups and projects.
//!
//! A domain is a project with `is_domain`. It is deleted with all that is in it, but only once disabled.
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types, with_extra},
    fault, listing, project,
    tables::Project,
    target,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

fn properties() -> Value {
    json!({"name": types::name(64), "description": types::text_or_null(), "enabled": types::flag(), "options": types::options(),
        "explicit_domain_id": {"type": "string", "pattern": "^[a-f0-9]{32}$"},
        "tags": project::tags_schema()})
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("domain", properties(), &["name"])));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("domain", properties(), &[])));

pub(crate) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::get("/v3/domains", list).rule_by_handler("identity:list_domains").summary("List domains"),
        Route::post("/v3/domains", create).rule("identity:create_domain").schema(&CREATE).summary("Create a domain"),
        Route::get("/v3/domains/{domain_id}", show).rule_by_handler("identity:get_domain").summary("Show a domain"),
        Route::patch("/v3/domains/{domain_id}", update)
            .rule_by_handler("identity:update_domain")
            .schema(&UPDATE)
            .summary("Change a domain"),
        Route::delete("/v3/domains/{domain_id}", delete)
            .rule("identity:delete_domain")
            .summary("Delete a disabled domain"),
    ]
}

pub(crate) fn view(call: &Call, domain: &Project) -> Value {
    let base = json!({"id": domain.id, "name": domain.name, "description": domain.description, "enabled": domain.enabled,
        "tags": domain.tags, "options": domain.options, "links": listing::self_link(call, &format!("/v3/domains/{}", domain.id))});
    with_extra(base, &domain.extra)
}

async fn find(svc: &Identity, id: &str) -> Result<Arc<Project>, Fault> {
    svc.directory.domain(id).await?.ok_or_else(|| fault::missing("domain", id))
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let own = target::scope_domain(&call);
    call.authorize(&target::about(&call, [("domain", own.clone().map(|id| json!({"id": id})))]))?;
    let domains = svc.store.list::<Project>(Project::domains()).await?;
    let seen = domains.iter().filter(|d| own.as_ref().is_none_or(|own| *own == d.id));
    listing::answer(&svc, &call, "domains", seen.map(|d| view(&call, d)).collect(), &["name", "enabled", "id"])
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "domain")?;
    let domain = project::ops::fresh_domain(&wanted, wanted.text("explicit_domain_id").unwrap_or_else(id::hex))?;
    let domain = svc.insert_project(domain).await?;
    Ok(Response::created(json!({"domain": view(&call, &domain)})))
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("domain_id");
    let found = svc.directory.domain(id).await?;
    call.authorize(&target::about(&call, [("domain", found.as_deref().map(target::project))]))?;
    let domain = found.ok_or_else(|| fault::missing("domain", id))?;
    Ok(Response::ok(json!({"domain": view(&call, &domain)})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    // As in the original, whether the domain exists is told before it is asked who asks.
    let allowed = call.authorize(&call.target());
    let domain = find(&svc, call.param("domain_id")).await?;
    allowed?;
    let domain = svc.update_project(&domain.id, &Attributes::of(&call, "domain")?).await?;
    Ok(Response::ok(json!({"domain": view(&call, &domain)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let domain = find(&svc, call.param("domain_id")).await?;
    svc.delete_domain(&domain.id).await?;
    Ok(Response::no_content())
}
