//! Routes and verbs of roles. A role of a domain has rules of its own.
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types, with_extra},
    cascade,
    directory::Area,
    fault, listing,
    tables::Role,
    target, user,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const KNOWN: &[&str] = &["name", "domain_id", "description", "options"];

fn properties() -> Value {
    json!({"name": types::name(255), "domain_id": types::id_or_null(), "description": types::text_or_null(), "options": types::options()})
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("role", properties(), &["name"])));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("role", properties(), &[])));

pub(super) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::get("/v3/roles", list).rule_by_handler("identity:list_roles").summary("List roles"),
        Route::post("/v3/roles", create)
            .rule_by_handler("identity:create_role")
            .schema(&CREATE)
            .summary("Create a role"),
        Route::get("/v3/roles/{role_id}", show).rule_by_handler("identity:get_role").summary("Show a role"),
        Route::patch("/v3/roles/{role_id}", update)
            .rule_by_handler("identity:update_role")
            .schema(&UPDATE)
            .summary("Change a role"),
        Route::delete("/v3/roles/{role_id}", delete).rule_by_handler("identity:delete_role").summary("Delete a role"),
    ]
}

pub(crate) fn view(call: &Call, role: &Role) -> Value {
    let base = json!({"id": role.id, "name": role.name, "domain_id": role.domain_id, "description": role.description,
        "options": role.options, "links": listing::self_link(call, &format!("/v3/roles/{}", role.id))});
    with_extra(base, &role.extra)
}

/// Finds the role, asks `rule` (or `domain_rule` for a role of a domain) about it, then 404 if there is none.
async fn authorized(svc: &Identity, call: &Call, rule: &str, domain_rule: &str) -> Result<Role, Fault> {
    let id = call.param("role_id");
    // Which rule is asked depends on the role, so a missing one is 404 for everybody, as in the original.
    let Some(role) = svc.store.get::<Role>(id).await?.map(|r| r.record) else {
        let _ = call.may(rule, &call.target());
        return Err(fault::missing("role", id));
    };
    let rule = if role.domain_id.is_some() { domain_rule } else { rule };
    call.enforce(rule, &target::about(call, [("role", Some(target::role(&role)))]))?;
    Ok(role)
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let domain = listing::exact(&call, "domain_id").filter(|d| !d.is_empty() && !d.eq_ignore_ascii_case("null"));
    let rule = if domain.is_some() { "identity:list_domain_roles" } else { "identity:list_roles" };
    call.enforce(rule, &call.target())?;
    let roles = match domain {
        Some(domain) => svc.store.list::<Role>(Role::in_domain(domain)).await?,
        None => svc.store.list::<Role>(Query::all()).await?,
    };
    // Without a domain only the roles of the whole cloud are listed.
    let seen = roles.iter().filter(|r| r.domain_id.as_deref() == domain);
    // Who is no administrator of roles sees those he may see one by one.
    let items = seen.filter(|r| {
        call.may("identity:get_role", &target::about(&call, [("role", Some(target::role(r)))])) || domain.is_some()
    });
    listing::answer(&svc, &call, "roles", items.map(|r| view(&call, r)).collect(), &["name"])
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "role")?;
    let domain_id = wanted.text("domain_id");
    call.enforce(
        if domain_id.is_some() { "identity:create_domain_role" } else { "identity:create_role" },
        &call.target(),
    )?;
    let mut role = Role {
        id: id::hex(),
        name: wanted.need("name", "role")?.trim().to_owned(),
        domain_id,
        description: wanted.text("description"),
        options: Default::default(),
        extra: wanted.extra(KNOWN),
    };
    wanted.merge_options(&mut role.options);
    let role = svc
        .write(Area::Roles, move |tx| {
            let role = role.clone();
            Box::pin(async move {
                if let Some(domain) = &role.domain_id {
                    user::ops::domain_in(tx, domain).await?;
                }
                tx.insert(&role)
                    .await
                    .map_err(|e| fault::named_twice(e, "role", &role.name, role.domain_id.as_deref()))?;
                Ok(role)
            })
        })
        .await?;
    Ok(Response::created(json!({"role": view(&call, &role)})))
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let role = authorized(&svc, &call, "identity:get_role", "identity:get_domain_role").await?;
    Ok(Response::ok(json!({"role": view(&call, &role)})))
}

fn change(role: &mut Role, wanted: &Attributes) -> Result<(), Fault> {
    let unlocks = wanted.object("options").is_some_and(|o| o.get("immutable").is_some_and(|v| v != true));
    if role.immutable() && !unlocks {
        return Err(fault::immutable("role", &role.id));
    }
    wanted.unchanged("domain_id", role.domain_id.as_deref())?;
    if let Some(name) = wanted.text("name") {
        name.trim().clone_into(&mut role.name);
    }
    if wanted.has("description") {
        role.description = wanted.text("description");
    }
    wanted.merge_options(&mut role.options);
    wanted.merge_extra(&mut role.extra, KNOWN);
    Ok(())
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let role = authorized(&svc, &call, "identity:update_role", "identity:update_domain_role").await?;
    let wanted = Attributes::of(&call, "role")?;
    let role = svc
        .write(Area::Roles, move |tx| {
            let (id, wanted) = (role.id.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored = tx.get::<Role>(&id).await?.ok_or_else(|| fault::missing("role", &id))?;
                change(&mut stored.record, &wanted)?;
                let (name, domain) = (stored.name.clone(), stored.domain_id.clone());
                Ok(tx
                    .update(&stored)
                    .await
                    .map_err(|e| fault::named_twice(e, "role", &name, domain.as_deref()))?
                    .record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"role": view(&call, &role)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let role = authorized(&svc, &call, "identity:delete_role", "identity:delete_domain_role").await?;
    svc.write(Area::Roles, move |tx| {
        let id = role.id.clone();
        Box::pin(async move {
            let role = tx.get::<Role>(&id).await?.ok_or_else(|| fault::missing("role", &id))?;
            if role.immutable() {
                return Err(fault::immutable("role", &id));
            }
            cascade::role_in(tx, &id).await
        })
    })
    .await?;
    svc.directory.changed(Area::People);
    Ok(Response::no_content())
}
