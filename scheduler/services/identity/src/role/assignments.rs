//! `GET /v3/role_assignments`: who has what where, as stored or as it works out.
//!
//! With `effective`, groups become their users, inherited assignments the projects they reach, and roles
//! all that they imply; roles of a domain vanish, as they do in tokens.
use crate::{
    Identity,
    directory::RoleGraph,
    fault, listing,
    tables::{Actor, Assignment, Membership, Place, Project},
    target,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};

pub(super) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::get("/v3/role_assignments", list)
            .rule_by_handler("identity:list_role_assignments")
            .summary("List role assignments"),
    ]
}

/// An assignment, stored or worked out, with where it came from.
#[derive(Debug, Clone)]
struct Row {
    role_id: String,
    actor: Actor,
    place: Place,
    inherited: bool,
    /// The assignment it comes from.
    source: Assignment,
    /// The role that implied this one.
    prior: Option<String>,
}

/// What the query wants.
struct Wish {
    user: Option<String>,
    group: Option<String>,
    role: Option<String>,
    project: Option<String>,
    domain: Option<String>,
    system: bool,
    inherited: Option<bool>,
    effective: bool,
    names: bool,
    subtree: bool,
}

impl Wish {
    fn of(call: &Call) -> Result<Self, Fault> {
        let text = |name: &str| listing::exact(call, name).filter(|v| !v.is_empty()).map(str::to_owned);
        // A key alone, or with anything but 0 or false, counts as true.
        let on = |name: &str| {
            call.query.get(name).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false"))
        };
        let wish = Wish {
            user: text("user.id"),
            group: text("group.id"),
            role: text("role.id"),
            project: text("scope.project.id"),
            domain: text("scope.domain.id"),
            system: call.query.has("scope.system"),
            inherited: call.query.get("scope.OS-INHERIT:inherited_to").map(|v| v == "projects"),
            effective: on("effective"),
            names: on("include_names"),
            subtree: on("include_subtree"),
        };
        wish.check()?;
        Ok(wish)
    }

    fn check(&self) -> Result<(), Fault> {
        let refuse = |text: &str| Err(Fault::bad_request(text));
        if self.user.is_some() && self.group.is_some() {
            return refuse("Specify a user or group, not both");
        }
        if [self.project.is_some(), self.domain.is_some(), self.system].iter().filter(|s| **s).count() > 1 {
            return refuse("Specify system, domain, or project, not more than one of them");
        }
        if self.effective && self.group.is_some() {
            return refuse("Combining effective and group filter will always result in an empty list.");
        }
        if self.effective && self.inherited == Some(true) && self.domain.is_some() {
            return refuse("Combining effective, domain and inherited filters will always result in an empty list.");
        }
        Ok(())
    }

    fn query(&self) -> Query {
        if self.effective || self.subtree {
            return Query::all();
        }
        let actor = self.user.as_ref().or(self.group.as_ref());
        match (actor, self.project.as_ref().or(self.domain.as_ref()), &self.role) {
            (Some(actor), _, _) => Assignment::of_actor(actor),
            (None, Some(place), _) => Assignment::at(place),
            (None, None, Some(role)) => Assignment::of_role(role),
            _ => Query::all(),
        }
    }

    fn wants(&self, row: &Row, subtree: Option<&[String]>) -> bool {
        let is = |wanted: &Option<String>, have: Option<&str>| wanted.as_deref().is_none_or(|w| have == Some(w));
        let (user, group) = match &row.actor {
            Actor::User(id) => (Some(id.as_str()), None),
            Actor::Group(id) => (None, Some(id.as_str())),
        };
        let (project, domain) = match &row.place {
            Place::Project(id) => (Some(id.as_str()), None),
            Place::Domain(id) => (None, Some(id.as_str())),
            Place::System => (None, None),
        };
        let here = match subtree {
            Some(ids) => project.is_some_and(|p| ids.iter().any(|i| i == p)),
            None => is(&self.project, project),
        };
        here && is(&self.user, user)
            && is(&self.group, group)
            && is(&self.role, Some(&row.role_id))
            && is(&self.domain, domain)
            && (!self.system || row.place == Place::System)
            && self.inherited.is_none_or(|wanted| row.source.key.inherited == wanted)
    }
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let wish = Wish::of(&call)?;
    let mut subtree = None;
    let mut asked = target::scope_domain(&call);
    let mut rule = "identity:list_role_assignments";
    if wish.subtree {
        rule = "identity:list_role_assignments_for_tree";
        let root = match &wish.project {
            Some(id) => svc.directory.project(id).await?,
            None => None,
        };
        asked = root.as_ref().and_then(|p| p.domain_id.clone());
        call.enforce(rule, &target::about(&call, [("domain_id", asked.clone().map(Value::from))]))?;
        let Some(id) = &wish.project else {
            return Err(Fault::bad_request("scope.project.id must be specified if include_subtree is also specified"));
        };
        let root = root.ok_or_else(|| fault::missing("project", id))?;
        subtree = Some(below(&svc, &root.id).await?);
    }
    call.enforce(rule, &target::about(&call, [("domain_id", asked.map(Value::from))]))?;
    let mut rows = stored(&svc, &wish).await?;
    if wish.effective {
        rows = effective(&svc, rows).await?;
    }
    rows.retain(|row| wish.wants(row, subtree.as_deref()));
    if let Some(domain) = target::scope_domain(&call) {
        rows = in_domain(&svc, rows, &domain).await?;
    }
    let graph = svc.directory.role_graph().await?;
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        items.push(entry(&svc, &call, row, wish.names, &graph).await?);
    }
    Ok(Response::ok(
        json!({"role_assignments": items, "links": {"self": call.url(&call.path), "next": null, "previous": null}}),
    ))
}

async fn stored(svc: &Identity, wish: &Wish) -> Result<Vec<Row>, Fault> {
    let all = match &wish.user {
        // Only what reaches this user can become his.
        Some(user) if wish.effective => svc.directory.assignments_reaching(user).await?,
        _ => svc.store.list::<Assignment>(wish.query()).await?.into_iter().map(|a| a.record).collect(),
    };
    let row = |a: Assignment| Row {
        role_id: a.role_id.clone(),
        actor: a.key.actor.clone(),
        place: a.key.target.clone(),
        inherited: a.key.inherited,
        source: a,
        prior: None,
    };
    Ok(all.into_iter().map(row).collect())
}

/// The ids of a project and all below it.
async fn below(svc: &Identity, id: &str) -> Result<Vec<String>, Fault> {
    let (mut out, mut todo) = (vec![id.to_owned()], vec![id.to_owned()]);
    while let Some(parent) = todo.pop() {
        for child in svc.store.list::<Project>(Project::below(&parent)).await? {
            out.push(child.id.clone());
            todo.push(child.record.id);
        }
    }
    Ok(out)
}

async fn effective(svc: &Identity, rows: Vec<Row>) -> Result<Vec<Row>, Fault> {
    let graph = svc.directory.role_graph().await?;
    let mut members: HashMap<String, Vec<String>> = HashMap::new();
    let mut out = Vec::new();
    for row in rows {
        let actors = match &row.actor {
            Actor::User(_) => vec![row.actor.clone()],
            Actor::Group(id) => {
                if !members.contains_key(id) {
                    let found = svc.store.list::<Membership>(Membership::of_group(id)).await?;
                    let mut users: Vec<String> = found.into_iter().map(|m| m.record.user_id).collect();
                    users.extend(svc.directory.remote_members(id).await?.into_iter().map(|u| u.id));
                    members.insert(id.clone(), users);
                }
                members[id].iter().map(|u| Actor::User(u.clone())).collect()
            }
        };
        let places = places_of(svc, &row).await?;
        for (role_id, prior) in roles_of(&graph, &row.role_id) {
            for actor in &actors {
                for place in &places {
                    out.push(Row {
                        role_id: role_id.clone(),
                        actor: actor.clone(),
                        place: place.clone(),
                        inherited: false,
                        prior: prior.clone(),
                        ..row.clone()
                    });
                }
            }
        }
    }
    Ok(out)
}

async fn places_of(svc: &Identity, row: &Row) -> Result<Vec<Place>, Fault> {
    if !row.inherited {
        return Ok(vec![row.place.clone()]);
    }
    Ok(match &row.place {
        Place::Project(id) => below(svc, id).await?.into_iter().skip(1).map(Place::Project).collect(),
        Place::Domain(id) => svc
            .store
            .list::<Project>(Project::in_domain(id))
            .await?
            .into_iter()
            .map(|p| Place::Project(p.record.id))
            .collect(),
        Place::System => Vec::new(),
    })
}

/// A role and all it implies, each with the role that implied it first; roles of domains are left out.
fn roles_of(graph: &RoleGraph, role_id: &str) -> Vec<(String, Option<String>)> {
    let mut found: Vec<(String, Option<String>)> = vec![(role_id.to_owned(), None)];
    let mut at = 0;
    while let Some((prior, _)) = found.get(at).cloned() {
        for implied in graph.implies.get(&prior).into_iter().flatten() {
            if !found.iter().any(|(id, _)| id == implied) {
                found.push((implied.clone(), Some(prior.clone())));
            }
        }
        at += 1;
    }
    found.retain(|(id, _)| graph.roles.get(id).is_some_and(|r| r.domain_id.is_none()));
    found
}

/// What a domain's own people may see: assignments on the domain and in its projects.
async fn in_domain(svc: &Identity, rows: Vec<Row>, domain: &str) -> Result<Vec<Row>, Fault> {
    let mut out = Vec::new();
    for row in rows {
        let inside = match &row.place {
            Place::Domain(id) => id == domain,
            Place::Project(id) => {
                svc.directory.project(id).await?.is_some_and(|p| p.domain_id.as_deref() == Some(domain))
            }
            Place::System => false,
        };
        if inside {
            out.push(row);
        }
    }
    Ok(out)
}

async fn domain_brief(svc: &Identity, id: Option<&str>) -> Result<Value, Fault> {
    let Some(id) = id else { return Ok(Value::Null) };
    let name = svc.directory.domain(id).await?.map(|d| d.name.clone());
    Ok(json!({"id": id, "name": name}))
}

async fn entry(svc: &Identity, call: &Call, row: &Row, names: bool, graph: &RoleGraph) -> Result<Value, Fault> {
    let mut role = json!({"id": row.role_id});
    if names && let Some(found) = graph.roles.get(&row.role_id) {
        role["name"] = found.name.clone().into();
        if found.domain_id.is_some() {
            role["domain"] = domain_brief(svc, found.domain_id.as_deref()).await?;
        }
    }
    let mut out = json!({"role": role, "scope": scope(svc, row, names).await?, "links": links(call, row)});
    match &row.actor {
        Actor::User(id) => out["user"] = actor(svc, id, names, false).await?,
        Actor::Group(id) => out["group"] = actor(svc, id, names, true).await?,
    }
    Ok(out)
}

async fn actor(svc: &Identity, id: &str, names: bool, is_group: bool) -> Result<Value, Fault> {
    let mut out = json!({ "id": id });
    if !names {
        return Ok(out);
    }
    let found = if is_group {
        svc.directory.group(id).await?.map(|g| (g.name, g.domain_id))
    } else {
        svc.directory.user(id).await?.map(|u| (u.name.clone(), u.domain_id.clone()))
    };
    if let Some((name, domain)) = found {
        out["name"] = name.into();
        out["domain"] = domain_brief(svc, Some(&domain)).await?;
    }
    Ok(out)
}

async fn scope(svc: &Identity, row: &Row, names: bool) -> Result<Value, Fault> {
    let mut out = match &row.place {
        Place::System => json!({"system": {"all": true}}),
        Place::Domain(id) if names => json!({"domain": domain_brief(svc, Some(id)).await?}),
        Place::Domain(id) => json!({"domain": {"id": id}}),
        Place::Project(id) => {
            let mut project = json!({ "id": id });
            if names && let Some(found) = svc.directory.project(id).await? {
                project["name"] = found.name.clone().into();
                project["domain"] = domain_brief(svc, found.domain_id.as_deref()).await?;
            }
            json!({ "project": project })
        }
    };
    if row.source.key.inherited && (row.inherited || row.prior.is_some() || row.place != row.source.key.target) {
        out["OS-INHERIT:inherited_to"] = "projects".into();
    }
    Ok(out)
}

fn links(call: &Call, row: &Row) -> Value {
    let source = &row.source;
    let place = match &source.key.target {
        Place::Project(id) => format!("projects/{id}"),
        Place::Domain(id) => format!("domains/{id}"),
        Place::System => "system".to_owned(),
    };
    let actor = match &source.key.actor {
        Actor::User(id) => format!("users/{id}"),
        Actor::Group(id) => format!("groups/{id}"),
    };
    let path = if source.key.inherited {
        format!("/v3/OS-INHERIT/{place}/{actor}/roles/{}/inherited_to_projects", source.role_id)
    } else {
        format!("/v3/{place}/{actor}/roles/{}", source.role_id)
    };
    let mut out = json!({"assignment": call.url(&path)});
    if let (Actor::Group(group), Actor::User(user)) = (&source.key.actor, &row.actor) {
        out["membership"] = call.url(&format!("/v3/groups/{group}/users/{user}")).into();
    }
    if let Some(prior) = &row.prior {
        out["prior_role"] = call.url(&format!("/v3/roles/{prior}")).into();
    }
    out
}
