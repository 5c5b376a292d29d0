//! Routes of users.
use super::{expiry::Expiry, password, view::view};
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types},
    fault, group,
    ldap::writable,
    listing, project,
    tables::{Membership, User},
    target,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

fn options() -> Value {
    let flag = json!({"type": ["boolean", "null"]});
    json!({"type": "object", "additionalProperties": false, "properties": {
        "ignore_change_password_upon_first_use": flag, "ignore_password_expiry": flag, "ignore_lockout_failure_attempts": flag,
        "lock_password": flag, "ignore_user_inactivity": flag, "multi_factor_auth_enabled": flag,
        "multi_factor_auth_rules": {"type": ["array", "null"], "uniqueItems": true, "maxItems": 64, "items": {"type": "array", "minItems": 1, "uniqueItems": true, "items": {"type": "string"}}},
    }})
}

fn properties() -> Value {
    json!({"name": types::name(255), "domain_id": types::id(), "default_project_id": types::id_or_null(), "enabled": types::flag(),
        "password": types::text_or_null(), "description": types::text_or_null(), "email": types::text_or_null(), "options": options()})
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("user", properties(), &["name"])));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("user", properties(), &[])));
static PASSWORD: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        body_schema(
            "user",
            json!({"original_password": types::text(), "password": types::text()}),
            &["original_password", "password"],
        )
    })
});

const FILTERS: &[&str] = &["name", "enabled", "domain_id", "default_project_id", "idp_id", "protocol_id", "unique_id"];

const ATTRIBUTES: listing::stored::Attributes<User> = listing::stored::Attributes {
    columns: &[
        ("name", "name"),
        ("domain_id", "domain_id"),
        ("enabled", "enabled"),
        ("default_project_id", "default_project"),
    ],
    filters: FILTERS,
    read: attribute,
};

/// What a list of users is filtered and sorted by where no column holds it.
fn attribute(user: &User, name: &str) -> Value {
    match name {
        "id" => user.id.clone().into(),
        "name" => user.name.clone().into(),
        "domain_id" => user.domain_id.clone().into(),
        "enabled" => user.enabled.into(),
        "default_project_id" => user.default_project_id.clone().into(),
        "password_expires_at" => user.password_expires_us().into(),
        other => user.extra.get(other).cloned().unwrap_or_default(),
    }
}

pub(crate) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::get("/v3/users", list).rule_by_handler("identity:list_users").summary("List users"),
        Route::post("/v3/users", create)
            .rule_by_handler("identity:create_user")
            .schema(&CREATE)
            .summary("Create a user"),
        Route::get("/v3/users/{user_id}", show).rule_by_handler("identity:get_user").summary("Show a user"),
        Route::patch("/v3/users/{user_id}", update)
            .rule_by_handler("identity:update_user")
            .schema(&UPDATE)
            .summary("Change a user"),
        Route::delete("/v3/users/{user_id}", delete).rule_by_handler("identity:delete_user").summary("Delete a user"),
        Route::post("/v3/users/{user_id}/password", password::change)
            .public("the old password is the proof, also when it has run out")
            .schema(&PASSWORD)
            .summary("Change one's own password"),
        Route::get("/v3/users/{user_id}/groups", groups)
            .rule_by_handler("identity:list_groups_for_user")
            .summary("List a user's groups"),
        Route::get("/v3/users/{user_id}/projects", projects)
            .rule_by_handler("identity:list_user_projects")
            .summary("List a user's projects"),
    ]
}

/// The record if there is one, the rule asked about it, then 404 if there is none.
pub(crate) async fn authorized(svc: &Identity, call: &Call) -> Result<Arc<User>, Fault> {
    let id = call.param("user_id");
    let found = svc.directory.user(id).await?;
    call.authorize(&target::about(call, [("user", found.as_deref().map(target::user))]))?;
    found.ok_or_else(|| fault::missing("user", id))
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let domain = target::scope_domain(&call);
    call.authorize(&target::about(&call, [("domain_id", domain.clone().map(Value::from))]))?;
    let expiry = Expiry::of(&call)?;
    if let Some(asked) = listing::exact(&call, "domain_id").or(domain.as_deref())
        && let Some(users) = svc.directory.remote_users(asked, listing::exact(&call, "name")).await?
    {
        let seen = users.iter().filter(|u| domain.as_ref().is_none_or(|d| *d == u.domain_id));
        let items = seen.filter(|u| expiry.holds(u)).map(|u| view(&call, u)).collect();
        return listing::answer(&svc, &call, "users", items, FILTERS);
    }
    let base = domain.as_deref().map_or_else(Query::all, User::in_domain);
    // Whether somebody has been away for too long stands in no column.
    let refined = !expiry.is_empty() || (svc.config.disable_inactive_days.is_some() && call.query.has("enabled"));
    if refined {
        let users = svc.store.list::<User>(base).await?.into_iter().map(|u| u.record);
        let users = svc.as_shown(users.filter(|u| expiry.holds(u)).collect()).await?;
        return listing::answer(&svc, &call, "users", users.iter().map(|u| view(&call, u)).collect(), FILTERS);
    }
    let show = |users| async { Ok(svc.as_shown(users).await?.iter().map(|u| view(&call, u)).collect()) };
    listing::stored::list(&svc, &call, "users", base, &ATTRIBUTES, None, show).await
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "user")?;
    let domain = wanted.text("domain_id").unwrap_or_else(|| target::default_domain(&call));
    // Whoever may make users in one domain only must name it.
    let mut asked = json!({"name": wanted.text("name")});
    if let Some(named) = wanted.text("domain_id") {
        asked["domain_id"] = named.into();
    }
    call.authorize(&target::about(&call, [("user", Some(asked))]))?;
    svc.directory.refuse_remote(&domain).await?;
    let user = svc.create_user(&wanted, domain).await?;
    Ok(Response::created(json!({"user": view(&call, &user)})))
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let user = authorized(&svc, &call).await?;
    respond(&svc, &call, user.as_ref().clone()).await
}

async fn respond(svc: &Identity, call: &Call, user: User) -> Reply {
    let shown = svc.as_shown(vec![user]).await?;
    Ok(Response::ok(json!({"user": shown.first().map(|u| view(call, u))})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let user = authorized(&svc, &call).await?;
    writable(&user.source)?;
    let user = svc.update_user(&user.id, &Attributes::of(&call, "user")?).await?;
    respond(&svc, &call, user).await
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let user = authorized(&svc, &call).await?;
    writable(&user.source)?;
    svc.delete_user(&user.id).await?;
    Ok(Response::no_content())
}

async fn groups(svc: Arc<Identity>, call: Call) -> Reply {
    let user = authorized(&svc, &call).await?;
    // With a token for a domain one sees only that domain's.
    let domain = target::scope_domain(&call);
    let (mut items, mut groups) = (Vec::new(), svc.directory.remote_groups_of(&user.id).await?);
    for membership in svc.store.list::<Membership>(Membership::of_user(&user.id)).await? {
        groups.push(membership.record.group_id);
    }
    for id in groups {
        if let Some(found) = svc.directory.group(&id).await?
            && domain.as_ref().is_none_or(|d| *d == found.domain_id)
        {
            items.push(group::view(&call, &found));
        }
    }
    listing::answer(&svc, &call, "groups", items, &["name"])
}

async fn projects(svc: Arc<Identity>, call: Call) -> Reply {
    let user = authorized(&svc, &call).await?;
    let items = svc.projects_of(&user.id, &[]).await?;
    let items = items.iter().map(|p| project::view::view(&call, p)).collect();
    listing::answer(&svc, &call, "projects", items, project::FILTERS)
}
