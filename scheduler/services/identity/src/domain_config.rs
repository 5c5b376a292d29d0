//! Settings of one domain, kept for whoever looks up its users elsewhere (LDAP).
//!
//! Only the options named here are taken; a password is kept but never shown.
use crate::{
    Identity,
    directory::Area,
    fault,
    tables::{DomainConfig, Extra, Project},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

/// group -> options that may be set and shown
const OPTIONS: [(&str, &[&str]); 2] = [
    ("identity", &["driver", "list_limit"]),
    (
        "ldap",
        &[
            "url",
            "user",
            "suffix",
            "query_scope",
            "page_size",
            "alias_dereferencing",
            "debug_level",
            "chase_referrals",
            "user_tree_dn",
            "user_filter",
            "user_objectclass",
            "user_id_attribute",
            "user_name_attribute",
            "user_mail_attribute",
            "user_description_attribute",
            "user_pass_attribute",
            "user_enabled_attribute",
            "user_enabled_invert",
            "user_enabled_mask",
            "user_enabled_default",
            "user_attribute_ignore",
            "user_default_project_id_attribute",
            "user_enabled_emulation",
            "user_enabled_emulation_dn",
            "user_enabled_emulation_use_group_config",
            "user_additional_attribute_mapping",
            "group_tree_dn",
            "group_filter",
            "group_objectclass",
            "group_id_attribute",
            "group_name_attribute",
            "group_members_are_ids",
            "group_member_attribute",
            "group_desc_attribute",
            "group_attribute_ignore",
            "group_additional_attribute_mapping",
            "tls_cacertfile",
            "tls_cacertdir",
            "use_tls",
            "tls_req_cert",
            "use_pool",
            "pool_size",
            "pool_retry_max",
            "pool_retry_delay",
            "pool_connection_timeout",
            "pool_connection_lifetime",
            "use_auth_pool",
            "auth_pool_size",
            "auth_pool_connection_lifetime",
        ],
    ),
];
/// Taken, but never shown.
const SENSITIVE: [(&str, &str); 1] = [("ldap", "password")];

static BODY: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(
        || json!({"type": "object", "required": ["config"], "properties": {"config": {"type": "object", "minProperties": 1}}}),
    )
});

pub(crate) fn routes() -> Vec<Route<Identity>> {
    const ALL: &str = "/v3/domains/{domain_id}/config";
    const GROUP: &str = "/v3/domains/{domain_id}/config/{group}";
    const OPTION: &str = "/v3/domains/{domain_id}/config/{group}/{option}";
    const SHOW: &str = "identity:get_domain_config";
    const UPDATE: &str = "identity:update_domain_config";
    const DELETE: &str = "identity:delete_domain_config";
    const DEFAULT: &str = "identity:get_domain_config_default";
    const COMPLIANCE: &str = "identity:get_security_compliance_domain_config";
    vec![
        Route::get("/v3/domains/{domain_id}/config/security_compliance", compliance)
            .rule(COMPLIANCE)
            .summary("Show the rules for passwords"),
        Route::get("/v3/domains/{domain_id}/config/security_compliance/{option}", compliance)
            .rule(COMPLIANCE)
            .summary("Show one of the rules for passwords"),
        Route::get("/v3/domains/config/default", defaults).rule(DEFAULT).summary("Show the default settings"),
        Route::get("/v3/domains/config/{group}/default", defaults)
            .rule(DEFAULT)
            .summary("Show the default settings of a group"),
        Route::get("/v3/domains/config/{group}/{option}/default", defaults)
            .rule(DEFAULT)
            .summary("Show the default of a setting"),
        Route::put(ALL, create).rule("identity:create_domain_config").schema(&BODY).summary("Set a domain's settings"),
        Route::get(ALL, show).rule(SHOW).summary("Show a domain's settings"),
        Route::patch(ALL, update).rule(UPDATE).schema(&BODY).summary("Change a domain's settings"),
        Route::delete(ALL, delete).rule(DELETE).summary("Delete a domain's settings"),
        Route::get(GROUP, show).rule(SHOW).summary("Show a group of a domain's settings"),
        Route::patch(GROUP, update).rule(UPDATE).schema(&BODY).summary("Change a group of a domain's settings"),
        Route::delete(GROUP, delete).rule(DELETE).summary("Delete a group of a domain's settings"),
        Route::get(OPTION, show).rule(SHOW).summary("Show one of a domain's settings"),
        Route::patch(OPTION, update).rule(UPDATE).schema(&BODY).summary("Change one of a domain's settings"),
        Route::delete(OPTION, delete).rule(DELETE).summary("Delete one of a domain's settings"),
    ]
}

/// 403 for a group or option that is none of ours.
fn check_names(group: Option<&str>, option: Option<&str>) -> Result<(), Fault> {
    let Some(group) = group else { return Ok(()) };
    let refuse = |text: String| Err(Fault::forbidden(format!("Invalid domain specific configuration: {text}.")));
    let Some((_, options)) = OPTIONS.iter().find(|(g, _)| *g == group) else {
        return refuse(format!("Group {group} is not supported for domain specific configurations"));
    };
    match option {
        Some(option) if !options.contains(&option) && !SENSITIVE.contains(&(group, option)) => {
            refuse(format!("Option {option} in group {group} is not supported for domain specific configurations"))
        }
        _ => Ok(()),
    }
}

/// Checks a whole configuration: `{group: {option: value}}`.
fn check(config: &Extra) -> Result<(), Fault> {
    for (group, options) in config {
        check_names(Some(group), None)?;
        let Some(options) = options.as_object().filter(|o| !o.is_empty()) else {
            return Err(Fault::forbidden(format!(
                "Invalid domain specific configuration: The value of group {group} specified in the config should be a dictionary of options."
            )));
        };
        for (option, value) in options {
            check_names(Some(group), Some(option))?;
            if value.is_object() || value.is_array() {
                return Err(Fault::bad_request(format!("The value of option {option} is neither text nor number.")));
            }
        }
    }
    Ok(())
}

fn shown(groups: &Extra) -> Extra {
    let mut out = groups.clone();
    for (group, option) in SENSITIVE {
        if let Some(options) = out.get_mut(group).and_then(Value::as_object_mut) {
            options.shift_remove(option);
        }
    }
    out
}

fn path(call: &Call) -> (Option<&str>, Option<&str>) {
    let named = |name: &str| Some(call.param(name)).filter(|v| !v.is_empty());
    (named("group"), named("option"))
}

/// What of `groups` the path names; `None` if it is not there.
fn part(groups: &Extra, (group, option): (Option<&str>, Option<&str>)) -> Option<Value> {
    let Some(group) = group else { return Some(Value::Object(groups.clone())).filter(|_| !groups.is_empty()) };
    let options = groups.get(group)?.as_object().filter(|o| !o.is_empty())?;
    match option {
        None => Some(json!({ group: options })),
        Some(option) => Some(json!({ option: options.get(option)? })),
    }
}

fn not_there(call: &Call) -> Fault {
    let what = match path(call) {
        (None, _) => "any options".to_owned(),
        (Some(group), None) => format!("group {group}"),
        (Some(group), Some(option)) => format!("option {option} in group {group}"),
    };
    Fault::not_found(format!("Could not find {what} in domain configuration for domain {}.", call.param("domain_id")))
}

async fn domain_exists(svc: &Identity, id: &str) -> Result<Arc<Project>, Fault> {
    svc.directory.domain(id).await?.ok_or_else(|| fault::missing("domain", id))
}

async fn domain(svc: &Identity, call: &Call) -> Result<Arc<Project>, Fault> {
    let found = domain_exists(svc, call.param("domain_id")).await?;
    let (group, option) = path(call);
    check_names(group, option)?;
    Ok(found)
}

async fn defaults(_svc: Arc<Identity>, call: Call) -> Reply {
    let (group, option) = path(&call);
    check_names(group, option)?;
    let mut all = Map::new();
    for (name, options) in OPTIONS {
        let value = |option: &str| if (name, option) == ("identity", "driver") { json!("sql") } else { Value::Null };
        all.insert(name.to_owned(), options.iter().map(|o| ((*o).to_owned(), value(o))).collect::<Map<_, _>>().into());
    }
    let part = part(&all, (group, option)).ok_or_else(|| not_there(&call))?;
    Ok(Response::ok(json!({"config": part})))
}

/// What a new password must look like: told to everybody, since everybody must follow it.
async fn compliance(svc: Arc<Identity>, call: Call) -> Reply {
    if domain_exists(&svc, call.param("domain_id")).await?.id != crate::bootstrap::DEFAULT_DOMAIN {
        return Err(Fault::forbidden("The rules for passwords are those of the default domain."));
    }
    let mut all = Map::new();
    let (form, words) = (&svc.config.password_regex, &svc.config.password_regex_description);
    all.insert("security_compliance".into(), json!({"password_regex": form, "password_regex_description": words}));
    let part = part(&all, (Some("security_compliance"), path(&call).1)).ok_or_else(|| not_there(&call))?;
    Ok(Response::ok(json!({"config": part})))
}

fn body(call: &Call) -> Result<Extra, Fault> {
    Ok(crate::attributes::Attributes::of(call, "config")?.0)
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let (domain, groups) = (domain(&svc, &call).await?, body(&call)?);
    check(&groups)?;
    let (id, stored) = (domain.id.clone(), groups.clone());
    let new = svc
        .write(Area::People, move |tx| {
            let (id, groups) = (id.clone(), stored.clone());
            Box::pin(async move {
                match tx.get::<DomainConfig>(&id).await? {
                    None => tx.insert(&DomainConfig { id, groups }).await.map(|_| true).map_err(Fault::from),
                    Some(mut known) => {
                        known.record.groups = groups;
                        tx.update(&known).await?;
                        Ok(false)
                    }
                }
            })
        })
        .await?;
    Ok(Response::json(if new { 201 } else { 200 }, json!({"config": shown(&groups)})))
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let domain = domain(&svc, &call).await?;
    let groups = svc.store.get::<DomainConfig>(&domain.id).await?.map(|c| shown(&c.groups)).unwrap_or_default();
    let part = part(&groups, path(&call)).ok_or_else(|| not_there(&call))?;
    Ok(Response::ok(json!({"config": part})))
}

/// The body as a whole configuration, whatever part of it the path names.
fn widened(call: &Call, config: Extra) -> Result<Extra, Fault> {
    let config = match path(call) {
        (Some(group), Some(option)) => {
            let value = config.get(option).ok_or_else(|| {
                Fault::forbidden(format!(
                    "Invalid domain specific configuration: The request body does not hold the option {option}."
                ))
            })?;
            let mut out = Map::new();
            out.insert(group.to_owned(), json!({ option: value }));
            out
        }
        (Some(group), None) if !config.contains_key(group) || config.len() != 1 => {
            return Err(Fault::forbidden(format!(
                "Invalid domain specific configuration: The request body must hold the group {group} alone."
            )));
        }
        _ => config,
    };
    check(&config)?;
    Ok(config)
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let domain = domain(&svc, &call).await?;
    let wanted = widened(&call, body(&call)?)?;
    let (missing, at) = (not_there(&call), (path(&call).0.map(str::to_owned), path(&call).1.map(str::to_owned)));
    let groups = svc
        .write(Area::People, move |tx| {
            let (id, wanted, missing, at) = (domain.id.clone(), wanted.clone(), missing.clone(), at.clone());
            Box::pin(async move {
                let mut stored = tx.get::<DomainConfig>(&id).await?.ok_or_else(|| missing.clone())?;
                part(&stored.groups, (at.0.as_deref(), at.1.as_deref())).ok_or(missing)?;
                for (group, options) in &wanted {
                    let known = stored.record.groups.entry(group.clone()).or_insert_with(|| json!({}));
                    for (option, value) in options.as_object().into_iter().flatten() {
                        known[option] = value.clone();
                    }
                }
                Ok(tx.update(&stored).await?.record.groups)
            })
        })
        .await?;
    Ok(Response::ok(json!({"config": shown(&groups)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let domain = domain(&svc, &call).await?;
    let (missing, at) = (not_there(&call), (path(&call).0.map(str::to_owned), path(&call).1.map(str::to_owned)));
    svc.write(Area::People, move |tx| {
        let (id, missing, at) = (domain.id.clone(), missing.clone(), at.clone());
        Box::pin(async move {
            let mut stored = tx.get::<DomainConfig>(&id).await?.ok_or_else(|| missing.clone())?;
            part(&stored.groups, (at.0.as_deref(), at.1.as_deref())).ok_or(missing)?;
            let Some(group) = &at.0 else {
                tx.delete::<DomainConfig>(&id).await?;
                return Ok(());
            };
            match (&at.1, stored.record.groups.get_mut(group).and_then(Value::as_object_mut)) {
                (Some(option), Some(options)) => options.shift_remove(option),
                _ => stored.record.groups.shift_remove(group),
            };
            tx.update(&stored).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}
