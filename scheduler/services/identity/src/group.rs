//! Groups of users of one domain; roles given to a group are had by all in it.
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types, with_extra},
    cascade,
    directory::Area,
    fault,
    ldap::writable,
    listing,
    tables::{Group, Membership, Source, User, user_exists_in},
    target, user,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const KNOWN: &[&str] = &["name", "domain_id", "description"];

fn properties() -> Value {
    json!({"name": types::name(64), "domain_id": types::id(), "description": types::text_or_null()})
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("group", properties(), &["name"])));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("group", properties(), &[])));

pub(crate) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::get("/v3/groups", list).rule_by_handler("identity:list_groups").summary("List groups"),
        Route::post("/v3/groups", create)
            .rule_by_handler("identity:create_group")
            .schema(&CREATE)
            .summary("Create a group"),
        Route::get("/v3/groups/{group_id}", show).rule_by_handler("identity:get_group").summary("Show a group"),
        Route::patch("/v3/groups/{group_id}", update)
            .rule_by_handler("identity:update_group")
            .schema(&UPDATE)
            .summary("Change a group"),
        Route::delete("/v3/groups/{group_id}", delete)
            .rule_by_handler("identity:delete_group")
            .summary("Delete a group"),
        Route::get("/v3/groups/{group_id}/users", users)
            .rule_by_handler("identity:list_users_in_group")
            .summary("List a group's users"),
        Route::put("/v3/groups/{group_id}/users/{user_id}", add)
            .rule_by_handler("identity:add_user_to_group")
            .summary("Add a user to a group"),
        Route::get("/v3/groups/{group_id}/users/{user_id}", check)
            .rule_by_handler("identity:check_user_in_group")
            .summary("Is a user in a group?"),
        Route::delete("/v3/groups/{group_id}/users/{user_id}", remove)
            .rule_by_handler("identity:remove_user_from_group")
            .summary("Remove a user from a group"),
    ]
}

pub(crate) fn view(call: &Call, group: &Group) -> Value {
    let base = json!({"id": group.id, "name": group.name, "domain_id": group.domain_id, "description": group.description,
        "links": listing::self_link(call, &format!("/v3/groups/{}", group.id))});
    with_extra(base, &group.extra)
}

/// The group, and the user of the path if it names one, after the rule was asked about both.
async fn authorized(svc: &Identity, call: &Call) -> Result<(Group, Option<Arc<User>>), Fault> {
    let (group_id, user_id) = (call.param("group_id"), call.param("user_id"));
    let group = svc.directory.group(group_id).await?;
    let user = if user_id.is_empty() { None } else { svc.directory.user(user_id).await? };
    call.authorize(&target::about(
        call,
        [("group", group.as_ref().map(target::group)), ("user", user.as_deref().map(target::user))],
    ))?;
    let group = group.ok_or_else(|| fault::missing("group", group_id))?;
    if user.is_none() && !user_id.is_empty() {
        return Err(fault::missing("user", user_id));
    }
    Ok((group, user))
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let domain = target::scope_domain(&call);
    call.authorize(&target::about(&call, [("group", domain.clone().map(|d| json!({"domain_id": d})))]))?;
    if let Some(asked) = listing::exact(&call, "domain_id").or(domain.as_deref())
        && let Some(groups) = svc.directory.remote_groups(asked, listing::exact(&call, "name")).await?
    {
        let seen = groups.iter().filter(|g| domain.as_ref().is_none_or(|d| *d == g.domain_id));
        return listing::answer(&svc, &call, "groups", seen.map(|g| view(&call, g)).collect(), ATTRIBUTES.filters);
    }
    let base = domain.as_deref().map_or_else(Query::all, Group::in_domain);
    let show = |groups: Vec<Group>| std::future::ready(Ok(groups.iter().map(|g| view(&call, g)).collect()));
    listing::stored::list(&svc, &call, "groups", base, &ATTRIBUTES, None, show).await
}

const ATTRIBUTES: listing::stored::Attributes<Group> = listing::stored::Attributes {
    columns: &[("name", "name"), ("domain_id", "domain_id")],
    filters: &["name", "domain_id"],
    read: |group, name| match name {
        "id" => group.id.clone().into(),
        "name" => group.name.clone().into(),
        "domain_id" => group.domain_id.clone().into(),
        "description" => group.description.clone().into(),
        other => group.extra.get(other).cloned().unwrap_or_default(),
    },
};

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "group")?;
    let domain_id = wanted.text("domain_id").unwrap_or_else(|| target::default_domain(&call));
    call.authorize(&target::about(&call, [("group", Some(json!({"domain_id": domain_id})))]))?;
    svc.directory.refuse_remote(&domain_id).await?;
    let group = Group {
        id: id::hex(),
        name: wanted.need("name", "group")?.trim().to_owned(),
        domain_id,
        description: wanted.text("description").unwrap_or_default(),
        extra: wanted.extra(KNOWN),
        ..Group::default()
    };
    let group = svc
        .write(Area::Quiet, move |tx| {
            let group = group.clone();
            Box::pin(async move {
                user::ops::domain_in(tx, &group.domain_id).await?;
                tx.insert(&group)
                    .await
                    .map_err(|e| fault::named_twice(e, "group", &group.name, Some(&group.domain_id)))?;
                Ok(group)
            })
        })
        .await?;
    Ok(Response::created(json!({"group": view(&call, &group)})))
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let (group, _) = authorized(&svc, &call).await?;
    Ok(Response::ok(json!({"group": view(&call, &group)})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let (group, _) = authorized(&svc, &call).await?;
    writable(&group.source)?;
    let wanted = Attributes::of(&call, "group")?;
    wanted.unchanged("domain_id", Some(&group.domain_id))?;
    let group = svc
        .write(Area::Quiet, move |tx| {
            let (id, wanted) = (group.id.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored = tx.get::<Group>(&id).await?.ok_or_else(|| fault::missing("group", &id))?;
                let group = &mut stored.record;
                if let Some(name) = wanted.text("name") {
                    name.trim().clone_into(&mut group.name);
                }
                if let Some(description) = wanted.text("description") {
                    group.description = description;
                }
                wanted.merge_extra(&mut group.extra, KNOWN);
                let (name, domain) = (group.name.clone(), group.domain_id.clone());
                Ok(tx.update(&stored).await.map_err(|e| fault::named_twice(e, "group", &name, Some(&domain)))?.record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"group": view(&call, &group)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("group_id");
    // As in the original, a missing group is 404 for everybody here.
    if svc.directory.group(id).await?.is_none() {
        let _ = call.may(call.rule(), &call.target());
        return Err(fault::missing("group", id));
    }
    let (group, _) = authorized(&svc, &call).await?;
    writable(&group.source)?;
    svc.write(Area::People, move |tx| {
        let id = group.id.clone();
        Box::pin(async move {
            tx.get::<Group>(&id).await?.ok_or_else(|| fault::missing("group", &id))?;
            cascade::group_in(tx, &id).await
        })
    })
    .await?;
    Ok(Response::no_content())
}

async fn users(svc: Arc<Identity>, call: Call) -> Reply {
    let (group, _) = authorized(&svc, &call).await?;
    // With a token for a domain one sees only that domain's.
    let domain = target::scope_domain(&call);
    let expiry = user::expiry::Expiry::of(&call)?;
    let mut members = svc.directory.remote_members(&group.id).await?;
    members.retain(|u| domain.as_ref().is_none_or(|d| *d == u.domain_id) && expiry.holds(u));
    for membership in svc.store.list::<Membership>(Membership::of_group(&group.id)).await? {
        if let Some(found) = svc.directory.user(&membership.user_id).await?
            && domain.as_ref().is_none_or(|d| *d == found.domain_id)
            && expiry.holds(&found)
        {
            members.push(found.as_ref().clone());
        }
    }
    let items = svc.as_shown(members).await?.iter().map(|u| user::view::view(&call, u)).collect();
    listing::answer(&svc, &call, "users", items, &["name", "enabled", "domain_id"])
}

async fn add(svc: Arc<Identity>, call: Call) -> Reply {
    let (group, _) = authorized(&svc, &call).await?;
    writable(&group.source)?;
    let membership = Membership::new(call.param("user_id"), &group.id);
    svc.write(Area::People, move |tx| {
        let membership = membership.clone();
        Box::pin(async move {
            user_exists_in(tx, &membership.user_id).await?;
            tx.get::<Group>(&membership.group_id)
                .await?
                .ok_or_else(|| fault::missing("group", &membership.group_id))?;
            if tx.get::<Membership>(&membership.id).await?.is_none() {
                tx.insert(&membership).await?;
            }
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}

fn not_in(call: &Call) -> Fault {
    fault::missing("user", &format!("{} in group {}", call.param("user_id"), call.param("group_id")))
}

async fn check(svc: Arc<Identity>, call: Call) -> Reply {
    let (group, _) = authorized(&svc, &call).await?;
    if group.source != Source::Own {
        let there = svc.directory.remote_groups_of(call.param("user_id")).await?.contains(&group.id);
        return if there { Ok(Response::no_content()) } else { Err(not_in(&call)) };
    }
    let id = Membership::key(call.param("user_id"), &group.id);
    svc.store.get::<Membership>(&id).await?.ok_or_else(|| not_in(&call))?;
    Ok(Response::no_content())
}

async fn remove(svc: Arc<Identity>, call: Call) -> Reply {
    let (group, _) = authorized(&svc, &call).await?;
    writable(&group.source)?;
    let id = Membership::key(call.param("user_id"), &group.id);
    let missing = not_in(&call);
    svc.write(Area::People, move |tx| {
        let (id, missing) = (id.clone(), missing.clone());
        Box::pin(async move {
            tx.get::<Membership>(&id).await?.ok_or(missing)?;
            tx.delete::<Membership>(&id).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}
