//! What is above and below a project, as `parents_as_list`, `subtree_as_ids` and their like show it.
use super::view::view;
use crate::{
    Identity,
    tables::{Place, Project},
};
use pilvi_kit::{Call, Fault};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Deepest tree that is drawn.
const DEPTH_MAX: usize = 64;

/// Adds `parents` or `subtree` to a project's JSON where the query asks for them.
pub(super) async fn hierarchy(svc: &Identity, call: &Call, project: &Project, shown: &mut Value) -> Result<(), Fault> {
    let asked = |name: &str| call.query.has(name);
    if asked("parents_as_list") && asked("parents_as_ids") || asked("subtree_as_list") && asked("subtree_as_ids") {
        return Err(Fault::bad_request(
            "Cannot use parents_as_list and parents_as_ids (or subtree_as_list and subtree_as_ids) query params at the same time.",
        ));
    }
    if asked("parents_as_list") || asked("parents_as_ids") {
        let above: Vec<Arc<Project>> = svc.directory.ancestors(project).await?;
        shown["parents"] = if asked("parents_as_ids") {
            above.iter().rev().fold(Value::Null, |inner, p| json!({ p.id.clone(): inner }))
        } else {
            let mut list = Vec::new();
            for p in above.iter().filter(|p| !p.is_domain) {
                if visible(svc, call, p).await? {
                    list.push(json!({"project": view(call, p)}));
                }
            }
            list.into()
        };
    }
    if asked("subtree_as_list") || asked("subtree_as_ids") {
        let children = children_of(svc, project).await?;
        shown["subtree"] = if asked("subtree_as_ids") {
            nested(&children, &project.id, 0)
        } else {
            let mut list = Vec::new();
            flat(&children, &project.id, 0, &mut list);
            let mut out = Vec::new();
            for p in list {
                if visible(svc, call, p).await? {
                    out.push(json!({"project": view(call, p)}));
                }
            }
            out.into()
        };
    }
    Ok(())
}

/// Lists show only projects where the caller has a role; administrators see all.
async fn visible(svc: &Identity, call: &Call, project: &Project) -> Result<bool, Fault> {
    if call.caller().has_role("admin") {
        return Ok(true);
    }
    let roles = svc.directory.role_ids_at(&call.caller().user_id, &Place::Project(project.id.clone())).await?;
    Ok(!roles.is_empty())
}

async fn children_of(svc: &Identity, project: &Project) -> Result<BTreeMap<String, Vec<Project>>, Fault> {
    let domain = project.domain_id.as_deref().unwrap_or(&project.id);
    let mut by_parent: BTreeMap<String, Vec<Project>> = BTreeMap::new();
    for found in svc.store.list::<Project>(Project::in_domain(domain)).await? {
        by_parent.entry(found.record.parent_id.clone().unwrap_or_default()).or_default().push(found.record);
    }
    Ok(by_parent)
}

fn nested(children: &BTreeMap<String, Vec<Project>>, id: &str, depth: usize) -> Value {
    match children.get(id).filter(|_| depth < DEPTH_MAX) {
        None => Value::Null,
        Some(list) => Value::Object(
            list.iter().map(|p| (p.id.clone(), nested(children, &p.id, depth + 1))).collect::<Map<_, _>>(),
        ),
    }
}

fn flat<'a>(children: &'a BTreeMap<String, Vec<Project>>, id: &str, depth: usize, out: &mut Vec<&'a Project>) {
    for project in children.get(id).into_iter().flatten().filter(|_| depth < DEPTH_MAX) {
        out.push(project);
        flat(children, &project.id, depth + 1, out);
    }
}
