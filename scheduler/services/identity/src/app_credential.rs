//! Application credentials: a user's roles in one project (or some of them), under a secret of their own.
//!
//! The secret is shown once. With `access_rules` only the calls they name are allowed; without
//! `unrestricted` a token from it cannot make further credentials.
use crate::{
    Identity, access_rule,
    attributes::{Attributes, body_schema, types, with_extra},
    delegation,
    directory::{Area, RoleGraph},
    fault, listing, password,
    tables::{AccessRule, ApplicationCredential, user_exists_in},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, clock, id};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

const KNOWN: &[&str] =
    &["name", "description", "secret", "expires_at", "roles", "unrestricted", "access_rules", "project_id", "user_id"];
/// Roles and rules of one credential, at most.
const PARTS_MAX: usize = 64;

fn create_schema() -> Value {
    let role = json!({"type": "object", "properties": {"id": {"type": "string"}, "name": {"type": "string"}}, "minProperties": 1, "additionalProperties": true});
    body_schema(
        "application_credential",
        json!({"name": types::name(255), "description": types::text_or_null(), "secret": types::text_or_null(), "expires_at": types::text_or_null(),
            "unrestricted": {"type": ["boolean", "null"]}, "roles": {"type": "array", "items": role, "maxItems": PARTS_MAX},
            "access_rules": {"type": "array", "items": access_rule::item_schema(), "maxItems": PARTS_MAX}}),
        &["name"],
    )
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(create_schema));

pub(crate) fn routes() -> Vec<Route<Identity>> {
    const ALL: &str = "/v3/users/{user_id}/application_credentials";
    const ONE: &str = "/v3/users/{user_id}/application_credentials/{application_credential_id}";
    vec![
        Route::get(ALL, list)
            .rule("identity:list_application_credentials")
            .summary("List a user's application credentials"),
        Route::post(ALL, create)
            .rule("identity:create_application_credential")
            .schema(&CREATE)
            .summary("Create an application credential"),
        Route::get(ONE, show)
            .rule_by_handler("identity:get_application_credential")
            .summary("Show an application credential"),
        Route::delete(ONE, delete)
            .rule_by_handler("identity:delete_application_credential")
            .summary("Delete an application credential"),
    ]
}

fn roles(graph: &RoleGraph, ids: &[String]) -> Value {
    ids.iter().filter_map(|id| graph.roles.get(id)).map(|r| json!({"id": r.id, "name": r.name, "domain_id": r.domain_id, "description": r.description, "options": r.options})).collect()
}

async fn view(svc: &Identity, call: &Call, credential: &ApplicationCredential) -> Result<Value, Fault> {
    let graph = svc.directory.role_graph().await?;
    let path = format!("/v3/users/{}/application_credentials/{}", credential.user_id, credential.id);
    let mut out = json!({
        "id": credential.id, "name": credential.name, "description": credential.description, "project_id": credential.project_id,
        "user_id": credential.user_id, "system": null, "expires_at": credential.expires_us.map(clock::micros), "unrestricted": credential.unrestricted,
        "roles": roles(&graph, &credential.roles), "links": listing::self_link(call, &path),
    });
    if let Some(ids) = &credential.access_rules {
        let mut rules = Vec::with_capacity(ids.len());
        for id in ids {
            rules.extend(svc.store.get::<AccessRule>(id).await?.map(|r| access_rule::brief(&r)));
        }
        out["access_rules"] = rules.into();
    }
    Ok(with_extra(out, &credential.extra))
}

/// The credential, after the rule was asked about its owner, whoever's path it was asked for under.
async fn find(svc: &Identity, call: &Call) -> Result<ApplicationCredential, Fault> {
    let id = call.param("application_credential_id");
    let found = svc.store.get::<ApplicationCredential>(id).await?.map(|c| c.record);
    let mut target = call.target();
    if let Some(credential) = &found {
        target.insert("user_id".into(), credential.user_id.clone().into());
    }
    call.authorize(&target)?;
    found.ok_or_else(|| fault::missing("application credential", id))
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let mut items = Vec::new();
    for credential in
        svc.store.list::<ApplicationCredential>(ApplicationCredential::of_user(call.param("user_id"))).await?
    {
        items.push(view(&svc, &call, &credential).await?);
    }
    listing::answer(&svc, &call, "application_credentials", items, &["name"])
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let credential = find(&svc, &call).await?;
    Ok(Response::ok(json!({"application_credential": view(&svc, &call, &credential).await?})))
}

/// The ids of the roles wanted, all of which the caller's token must carry; without a wish, all it carries.
fn wanted_roles(call: &Call, wanted: &Attributes) -> Result<Vec<String>, Fault> {
    let have = &call.caller().roles;
    let Some(list) = wanted.list("roles").filter(|l| !l.is_empty()) else {
        return Ok(have.iter().map(|(id, _)| id.clone()).collect());
    };
    let mut out = Vec::new();
    for role in list {
        let named = |key: &str| role.get(key).and_then(Value::as_str);
        let found = have.iter().find(|(id, name)| {
            named("id").is_some_and(|w| w == id) || (named("id").is_none() && named("name").is_some_and(|w| w == name))
        });
        let Some((id, _)) = found else {
            let text = named("id").or_else(|| named("name")).unwrap_or_default();
            return Err(Fault::bad_request(format!(
                "Invalid application credential: Could not find role assignment with role: {text}, user or group: {}, project, domain, or system: {}.",
                call.caller().user_id,
                call.ctx.project_id()
            )));
        };
        if !out.contains(id) {
            out.push(id.clone());
        }
    }
    Ok(out)
}

fn expiry(wanted: &Attributes) -> Result<Option<i64>, Fault> {
    let Some(text) = wanted.text("expires_at") else { return Ok(None) };
    let at = clock::parse(&text).ok_or_else(|| {
        Fault::bad_request("Timestamp not in expected format. The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.")
    })?;
    if at <= clock::now_us() {
        return Err(Fault::bad_request(
            "The 'expires_at' must not be before now. The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.",
        ));
    }
    Ok(Some(at))
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    delegation::unrestricted(&call)?;
    let wanted = Attributes::of(&call, "application_credential")?;
    let Some(project) = call.caller().project_id().map(str::to_owned) else {
        return Err(fault::expecting("project", "token scope"));
    };
    let secret = wanted.text("secret").unwrap_or_else(password::generate_secret);
    let credential = ApplicationCredential {
        id: id::hex(),
        name: wanted.need("name", "application_credential")?.trim().to_owned(),
        description: wanted.text("description"),
        user_id: call.param("user_id").to_owned(),
        project_id: project,
        secret_hash: svc.hasher.hash(&secret).await?,
        roles: wanted_roles(&call, &wanted)?,
        expires_us: expiry(&wanted)?,
        unrestricted: wanted.flag("unrestricted").unwrap_or(false),
        access_rules: None,
        extra: wanted.extra(KNOWN),
    };
    let rules = wanted.list("access_rules").cloned();
    let credential = svc.store_app_credential(credential, rules).await?;
    let mut shown = view(&svc, &call, &credential).await?;
    shown["secret"] = secret.into();
    Ok(Response::created(json!({"application_credential": shown})))
}

impl Identity {
    async fn store_app_credential(
        &self,
        credential: ApplicationCredential,
        rules: Option<Vec<Value>>,
    ) -> Result<ApplicationCredential, Fault> {
        // Ids are chosen once: the closure may run again.
        let fresh: HashMap<usize, String> = rules.iter().flatten().enumerate().map(|(i, _)| (i, id::hex())).collect();
        self.write(Area::Quiet, move |tx| {
            let (mut credential, rules, fresh) = (credential.clone(), rules.clone(), fresh.clone());
            Box::pin(async move {
                user_exists_in(tx, &credential.user_id).await?;
                if let Some(rules) = &rules {
                    let mut ids = Vec::with_capacity(rules.len());
                    for (i, rule) in rules.iter().enumerate() {
                        let new_id = fresh.get(&i).cloned().unwrap_or_default();
                        ids.push(access_rule::find_or_make_in(tx, &credential.user_id, rule, new_id).await?);
                    }
                    credential.access_rules = Some(ids);
                }
                tx.insert(&credential)
                    .await
                    .map_err(|e| fault::named_twice(e, "application_credential", &credential.name, None))?;
                Ok(credential)
            })
        })
        .await
    }
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    delegation::unrestricted(&call)?;
    let credential = find(&svc, &call).await?;
    svc.write(Area::People, move |tx| {
        let id = credential.id.clone();
        Box::pin(async move {
            if !tx.delete::<ApplicationCredential>(&id).await? {
                return Err(fault::missing("application credential", &id));
            }
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}
