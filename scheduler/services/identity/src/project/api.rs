//! Routes of projects.
use super::{FILTERS, ops, tags_schema, tree, view::view};
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types},
    fault, listing,
    tables::{Place, Project},
    target,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, call::boolean, id};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

fn properties() -> Value {
    json!({"name": types::name(64), "description": types::text_or_null(), "domain_id": types::id_or_null(), "parent_id": types::id_or_null(),
        "enabled": types::flag(), "is_domain": types::flag(), "tags": tags_schema(), "options": types::options()})
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("project", properties(), &["name"])));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("project", properties(), &[])));

pub(super) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::get("/v3/projects", list).rule_by_handler("identity:list_projects").summary("List projects"),
        Route::post("/v3/projects", create)
            .rule_by_handler("identity:create_project")
            .schema(&CREATE)
            .summary("Create a project"),
        Route::get("/v3/projects/{project_id}", show).rule_by_handler("identity:get_project").summary("Show a project"),
        Route::patch("/v3/projects/{project_id}", update)
            .rule_by_handler("identity:update_project")
            .schema(&UPDATE)
            .summary("Change a project"),
        Route::delete("/v3/projects/{project_id}", delete)
            .rule_by_handler("identity:delete_project")
            .summary("Delete a project"),
        Route::delete("/v3/projects/{project_id}/cascade", delete_tree)
            .rule_by_handler("identity:delete_project")
            .summary("Delete a disabled project with its subtree"),
    ]
}

/// The record if there is one, the rule asked about it, then 404 if there is none.
pub(super) async fn authorized(svc: &Identity, call: &Call) -> Result<Arc<Project>, Fault> {
    let id = call.param("project_id");
    let found = svc.directory.project(id).await?;
    call.authorize(&target::about(call, [("project", found.as_deref().map(target::project))]))?;
    found.ok_or_else(|| fault::missing("project", id))
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let domain = target::scope_domain(&call);
    call.authorize(&target::about(&call, [("domain_id", domain.clone().map(Value::from))]))?;
    let mut query = Query::all();
    if let Some(parent) = listing::exact(&call, "parent_id") {
        query = Project::below(parent);
    } else if let Some(wanted) = listing::exact(&call, "domain_id").map(str::to_owned).or_else(|| domain.clone()) {
        query = Project::in_domain(&wanted);
    }
    if let Some(name) = listing::exact(&call, "name") {
        query = query.name(name);
    }
    // Domains are shown only to who asks for them.
    let domains = call.query.get("is_domain").and_then(boolean).unwrap_or(false);
    let projects = svc.store.list::<Project>(query).await?;
    let seen = projects
        .iter()
        .filter(|p| p.is_domain == domains)
        .filter(|p| domain.as_ref().is_none_or(|d| p.domain_id.as_ref() == Some(d)))
        .filter(|p| tagged(&call, &p.tags));
    listing::answer(&svc, &call, "projects", seen.map(|p| view(&call, p)).collect(), FILTERS)
}

/// `tags` (all), `tags-any`, `not-tags` (not all), `not-tags-any`
fn tagged(call: &Call, tags: &[String]) -> bool {
    let asked =
        |name: &str| -> Option<Vec<String>> { call.query.get(name).map(|v| v.split(',').map(str::to_owned).collect()) };
    let all = |wanted: &Vec<String>| wanted.iter().all(|t| tags.contains(t));
    let any = |wanted: &Vec<String>| wanted.iter().any(|t| tags.contains(t));
    asked("tags").is_none_or(|w| all(&w))
        && asked("tags-any").is_none_or(|w| any(&w))
        && asked("not-tags").is_none_or(|w| !all(&w))
        && asked("not-tags-any").is_none_or(|w| !any(&w))
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "project")?;
    if wanted.flag("is_domain") == Some(true) {
        return create_domain(&svc, &call, &wanted).await;
    }
    let guess = wanted.text("domain_id").unwrap_or_else(|| target::default_domain(&call));
    call.authorize(&target::about(
        &call,
        [(
            "project",
            Some(json!({"domain_id": guess, "name": wanted.text("name"), "parent_id": wanted.text("parent_id")})),
        )],
    ))?;
    let place = svc.place_for(&wanted, guess).await?;
    // The parent may have led into another domain than the rule was asked about.
    call.authorize(&target::about(&call, [("project", Some(json!({"domain_id": place.0, "parent_id": place.1})))]))?;
    let project = svc.create_project(&wanted, place).await?;
    Ok(Response::created(json!({"project": view(&call, &project)})))
}

/// A project that is a domain has no domain and no parent.
async fn create_domain(svc: &Identity, call: &Call, wanted: &Attributes) -> Reply {
    call.authorize(&target::about(call, [("project", Some(json!({"domain_id": null})))]))?;
    if wanted.text("domain_id").is_some() || wanted.text("parent_id").is_some() {
        return Err(Fault::bad_request("A project that acts as a domain has neither a domain_id nor a parent_id."));
    }
    let domain = svc.insert_project(ops::fresh_domain(wanted, id::hex())?).await?;
    Ok(Response::created(json!({"project": view(call, &domain)})))
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let project = authorized(&svc, &call).await?;
    let mut shown = view(&call, &project);
    tree::hierarchy(&svc, &call, &project, &mut shown).await?;
    Ok(Response::ok(json!({"project": shown})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let project = authorized(&svc, &call).await?;
    let project = svc.update_project(&project.id, &Attributes::of(&call, "project")?).await?;
    Ok(Response::ok(json!({"project": view(&call, &project)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let project = authorized(&svc, &call).await?;
    svc.delete_project(&project.id, false).await?;
    Ok(Response::no_content())
}

async fn delete_tree(svc: Arc<Identity>, call: Call) -> Reply {
    let project = authorized(&svc, &call).await?;
    svc.delete_project(&project.id, true).await?;
    Ok(Response::no_content())
}

impl Identity {
    /// Projects where a user has a role, by any way; also by `groups` that he is in for now.
    pub(crate) async fn projects_of(&self, user_id: &str, groups: &[String]) -> Result<Vec<Arc<Project>>, Fault> {
        let mut found: BTreeMap<String, Arc<Project>> = BTreeMap::new();
        for assignment in self.directory.assignments_with(user_id, groups).await?.0 {
            match (&assignment.key.target, assignment.key.inherited) {
                (Place::Project(id), false) => self.take(id, &mut found).await?,
                (Place::Project(id), true) => self.take_below(id.clone(), &mut found).await?,
                (Place::Domain(id), true) => {
                    for project in self.store.list::<Project>(Project::in_domain(id)).await? {
                        found.insert(project.record.id.clone(), Arc::new(project.record));
                    }
                }
                _ => {}
            }
        }
        Ok(found.into_values().collect())
    }

    async fn take(&self, id: &str, found: &mut BTreeMap<String, Arc<Project>>) -> Result<(), Fault> {
        if let Some(project) = self.directory.project(id).await? {
            found.insert(project.id.clone(), project);
        }
        Ok(())
    }

    async fn take_below(&self, id: String, found: &mut BTreeMap<String, Arc<Project>>) -> Result<(), Fault> {
        let mut todo = vec![id];
        while let Some(parent) = todo.pop() {
            for child in self.store.list::<Project>(Project::below(&parent)).await? {
                if found.insert(child.record.id.clone(), Arc::new(child.record.clone())).is_none() {
                    todo.push(child.record.id);
                }
            }
        }
        Ok(())
    }
}
