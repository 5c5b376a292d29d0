//! Giving and taking roles: one actor (user, group) at one place (project, domain, system).
//!
//! The path says all: `/v3/projects/{p}/users/{u}/roles/{r}`, `/v3/system/groups/{g}/roles/{r}`, and, for a
//! role that holds below a project or domain but not in it, `/v3/OS-INHERIT/.../inherited_to_projects`.
use super::api::view;
use crate::{
    Identity,
    directory::Area,
    fault,
    tables::{
        Actor, ApplicationCredential, Assignment, AssignmentKey, Place, Project, Role, group_exists_in, user_exists_in,
    },
    target,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Target};
use pilvi_store::Tx;
use serde_json::json;
use std::sync::Arc;

/// (list path, one's path) of every pair of place and actor.
const PLACES: [(&str, &str); 8] = [
    ("/v3/projects/{project_id}/users/{user_id}/roles", "/v3/projects/{project_id}/users/{user_id}/roles/{role_id}"),
    (
        "/v3/projects/{project_id}/groups/{group_id}/roles",
        "/v3/projects/{project_id}/groups/{group_id}/roles/{role_id}",
    ),
    ("/v3/domains/{domain_id}/users/{user_id}/roles", "/v3/domains/{domain_id}/users/{user_id}/roles/{role_id}"),
    ("/v3/domains/{domain_id}/groups/{group_id}/roles", "/v3/domains/{domain_id}/groups/{group_id}/roles/{role_id}"),
    (
        "/v3/OS-INHERIT/projects/{project_id}/users/{user_id}/roles/inherited_to_projects",
        "/v3/OS-INHERIT/projects/{project_id}/users/{user_id}/roles/{role_id}/inherited_to_projects",
    ),
    (
        "/v3/OS-INHERIT/projects/{project_id}/groups/{group_id}/roles/inherited_to_projects",
        "/v3/OS-INHERIT/projects/{project_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects",
    ),
    (
        "/v3/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/inherited_to_projects",
        "/v3/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/{role_id}/inherited_to_projects",
    ),
    (
        "/v3/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/inherited_to_projects",
        "/v3/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects",
    ),
];

pub(super) fn routes() -> Vec<Route<Identity>> {
    let mut routes = Vec::new();
    for (list_path, path) in PLACES {
        routes.push(
            Route::get(list_path, list)
                .rule_by_handler("identity:list_grants")
                .summary("List the roles of an actor at a place"),
        );
        routes.push(
            Route::put(path, create)
                .rule_by_handler("identity:create_grant")
                .summary("Give an actor a role at a place"),
        );
        routes.push(
            Route::get(path, check).rule_by_handler("identity:check_grant").summary("Has an actor a role at a place?"),
        );
        routes.push(
            Route::delete(path, revoke)
                .rule_by_handler("identity:revoke_grant")
                .summary("Take a role at a place from an actor"),
        );
    }
    let (users, user) = ("/v3/system/users/{user_id}/roles", "/v3/system/users/{user_id}/roles/{role_id}");
    let (groups, group) = ("/v3/system/groups/{group_id}/roles", "/v3/system/groups/{group_id}/roles/{role_id}");
    routes.extend([
        Route::get(users, list)
            .rule_by_handler("identity:list_system_grants_for_user")
            .summary("List a user's roles on the system"),
        Route::put(user, create)
            .rule_by_handler("identity:create_system_grant_for_user")
            .summary("Give a user a role on the system"),
        Route::get(user, check)
            .rule_by_handler("identity:check_system_grant_for_user")
            .summary("Has a user a role on the system?"),
        Route::delete(user, revoke)
            .rule_by_handler("identity:revoke_system_grant_for_user")
            .summary("Take a role on the system from a user"),
        Route::get(groups, list)
            .rule_by_handler("identity:list_system_grants_for_group")
            .summary("List a group's roles on the system"),
        Route::put(group, create)
            .rule_by_handler("identity:create_system_grant_for_group")
            .summary("Give a group a role on the system"),
        Route::get(group, check)
            .rule_by_handler("identity:check_system_grant_for_group")
            .summary("Has a group a role on the system?"),
        Route::delete(group, revoke)
            .rule_by_handler("identity:revoke_system_grant_for_group")
            .summary("Take a role on the system from a group"),
    ]);
    routes
}

/// What the path names, and what was found of it.
struct Named {
    key: AssignmentKey,
    role: Option<Role>,
}

fn key_of(call: &Call) -> AssignmentKey {
    let named = |name: &str| Some(call.param(name).to_owned()).filter(|v| !v.is_empty());
    let actor = match named("user_id") {
        Some(id) => Actor::User(id),
        None => Actor::Group(call.param("group_id").to_owned()),
    };
    let target = match (named("project_id"), named("domain_id")) {
        (Some(id), _) => Place::Project(id),
        (None, Some(id)) => Place::Domain(id),
        (None, None) => Place::System,
    };
    AssignmentKey { actor, target, inherited: call.path.ends_with("/inherited_to_projects") }
}

/// Looks up all that the path names, asks the rule about it, and answers 404 for what is not there.
/// An actor or place that is gone may still have its grants checked and taken.
async fn authorized(svc: &Identity, call: &Call) -> Result<Named, Fault> {
    let key = key_of(call);
    let user = match &key.actor {
        Actor::User(id) => svc.directory.user(id).await?,
        Actor::Group(_) => None,
    };
    let group = match &key.actor {
        Actor::Group(id) => svc.directory.group(id).await?,
        Actor::User(_) => None,
    };
    let place = match &key.target {
        Place::System => None,
        Place::Project(id) | Place::Domain(id) => svc.directory.project(id).await?,
    };
    let role_id = call.param("role_id");
    let role = if role_id.is_empty() { None } else { svc.store.get::<Role>(role_id).await?.map(|r| r.record) };
    let (project, domain) = match &key.target {
        Place::Project(_) => (place.as_deref(), None),
        Place::Domain(_) => (None, place.as_deref().filter(|p| p.is_domain)),
        Place::System => (None, None),
    };
    let target: Target = target::about(
        call,
        [
            ("user", user.as_deref().map(target::user)),
            ("group", group.as_ref().map(target::group)),
            ("project", project.map(target::project)),
            ("domain", domain.map(target::project)),
            ("role", role.as_ref().map(target::role)),
        ],
    );
    call.authorize(&target)?;
    if role.is_none() && !role_id.is_empty() {
        return Err(fault::missing("role", role_id));
    }
    match &key.target {
        Place::Project(id) if project.is_none() => return Err(fault::missing("project", id)),
        Place::Domain(id) if domain.is_none() => return Err(fault::missing("domain", id)),
        _ => {}
    }
    match &key.actor {
        Actor::User(id) if user.is_none() && call.method.as_str() != "DELETE" => {
            return Err(fault::missing("user", id));
        }
        Actor::Group(id) if group.is_none() && call.method.as_str() != "DELETE" => {
            return Err(fault::missing("group", id));
        }
        _ => {}
    }
    Ok(Named { key, role })
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let named = authorized(&svc, &call).await?;
    let mut items = Vec::new();
    for assignment in svc.store.list::<Assignment>(Assignment::between(&named.key)).await? {
        if assignment.key == named.key
            && let Some(role) = svc.store.get::<Role>(&assignment.role_id).await?
        {
            items.push(view(&call, &role));
        }
    }
    Ok(Response::ok(json!({"roles": items, "links": {"self": call.url(&call.path), "next": null, "previous": null}})))
}

/// Whoever is given something must still be there when the transaction commits.
async fn ends_exist_in(tx: &mut Tx, key: &AssignmentKey) -> Result<(), Fault> {
    match &key.actor {
        Actor::User(id) => user_exists_in(tx, id).await?,
        Actor::Group(id) => group_exists_in(tx, id).await?,
    }
    match &key.target {
        Place::System => Ok(()),
        Place::Project(id) | Place::Domain(id) => {
            tx.get::<Project>(id).await?.map(|_| ()).ok_or_else(|| fault::missing("project", id))
        }
    }
}

/// Stores an assignment unless it is there.
pub(crate) async fn grant_in(tx: &mut Tx, key: &AssignmentKey, role_id: &str) -> Result<(), Fault> {
    let assignment = Assignment::new(key.clone(), role_id);
    if tx.get::<Assignment>(&assignment.id).await?.is_none() {
        tx.insert(&assignment).await?;
    }
    Ok(())
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let named = authorized(&svc, &call).await?;
    let Some(role) = named.role else { return Err(fault::missing("role", call.param("role_id"))) };
    if let Some(domain) = &role.domain_id {
        check_domain_role(&svc, &role, domain, &named.key.target).await?;
    }
    let (key, role_id) = (named.key, role.id);
    svc.write(Area::People, move |tx| {
        let (key, role_id) = (key.clone(), role_id.clone());
        Box::pin(async move {
            ends_exist_in(tx, &key).await?;
            tx.get::<Role>(&role_id).await?.ok_or_else(|| fault::missing("role", &role_id))?;
            grant_in(tx, &key, &role_id).await
        })
    })
    .await?;
    Ok(Response::no_content())
}

/// A role of a domain is not for the system, and not for projects of other domains.
async fn check_domain_role(svc: &Identity, role: &Role, domain: &str, place: &Place) -> Result<(), Fault> {
    let fits = match place {
        Place::System => false,
        // It shows in no token, so on a domain it does no harm; the original allows it.
        Place::Domain(_) => true,
        Place::Project(id) => svc.directory.project(id).await?.is_some_and(|p| p.domain_id.as_deref() == Some(domain)),
    };
    if fits {
        return Ok(());
    }
    Err(Fault::forbidden(format!("Role {} of domain {domain} cannot be assigned outside of it.", role.id)))
}

fn no_grant(call: &Call, key: &AssignmentKey) -> Fault {
    Fault::not_found(format!(
        "Could not find role assignment with role: {}, user or group: {}, project, domain, or system: {}.",
        call.param("role_id"),
        key.actor.id(),
        key.target.id()
    ))
}

async fn check(svc: Arc<Identity>, call: Call) -> Reply {
    let named = authorized(&svc, &call).await?;
    let id = Assignment::key(&named.key, call.param("role_id"));
    svc.store.get::<Assignment>(&id).await?.ok_or_else(|| no_grant(&call, &named.key))?;
    Ok(Response::no_content())
}

async fn revoke(svc: Arc<Identity>, call: Call) -> Reply {
    let named = authorized(&svc, &call).await?;
    let missing = no_grant(&call, &named.key);
    let (key, role_id) = (named.key, call.param("role_id").to_owned());
    svc.write(Area::People, move |tx| {
        let (key, role_id, missing) = (key.clone(), role_id.clone(), missing.clone());
        Box::pin(async move {
            if !tx.delete::<Assignment>(&Assignment::key(&key, &role_id)).await? {
                return Err(missing);
            }
            drop_credentials_in(tx, &key).await
        })
    })
    .await?;
    Ok(Response::no_content())
}

/// Application credentials of a user in a project end when a role of his there is taken.
async fn drop_credentials_in(tx: &mut Tx, key: &AssignmentKey) -> Result<(), Fault> {
    let (Actor::User(user), Place::Project(project)) = (&key.actor, &key.target) else { return Ok(()) };
    for credential in tx.list::<ApplicationCredential>(ApplicationCredential::of_user(user)).await? {
        if credential.project_id == *project {
            tx.delete::<ApplicationCredential>(&credential.id).await?;
        }
    }
    Ok(())
}
