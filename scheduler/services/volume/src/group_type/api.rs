//! `/group_types` and `/group_types/{id}/group_specs`.
use crate::{
    Volumes,
    list::{Listing, Sorted, common_column},
    route,
    schema::{flag, text as text_or_null},
    tables::{Group, GroupType},
    volume::api::{text, truth},
    volume_type::ops::DEFAULT_GROUP_TYPE,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, call::boolean, id};
use pilvi_store::{Query, Stored};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

pub fn routes() -> Vec<Route<Volumes>> {
    const ONE: &str = "/v3/group_types/{group_type_id}";
    const SPECS: &str = "/v3/group_types/{group_type_id}/group_specs";
    const SPEC: &str = "/v3/group_types/{group_type_id}/group_specs/{key}";
    const ANYBODY: &str = "types of groups are for everybody to choose from";
    let routes = vec![
        route::post("/v3/group_types", create).rule("group:group_types:create").schema(&CREATE),
        route::get("/v3/group_types", list).authenticated(ANYBODY),
        route::get(ONE, show).authenticated(ANYBODY),
        route::put(ONE, update).rule("group:group_types:update").schema(&UPDATE),
        route::delete(ONE, delete).rule("group:group_types:delete"),
        route::get(SPECS, specs).rule("group:group_types_specs:get_all"),
        route::post(SPECS, add_specs).rule("group:group_types_specs:create").schema(&ADD),
        route::get(SPEC, spec).rule("group:group_types_specs:get"),
        route::put(SPEC, set_spec).rule("group:group_types_specs:update").schema(&SET),
        route::delete(SPEC, drop_spec).rule("group:group_types_specs:delete"),
    ];
    routes.into_iter().map(|route| route.since(3, 11)).collect()
}

fn pairs() -> Value {
    json!({"type": "object", "additionalProperties": false, "maxProperties": 128, "patternProperties": {
        r"^[a-zA-Z0-9\-_:.]{1,255}$": {"type": ["string", "null"], "maxLength": 255}}})
}
static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["group_type"], "additionalProperties": false, "properties": {"group_type": {
            "type": "object", "required": ["name"], "additionalProperties": false, "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"\S"},
                "description": text_or_null(), "is_public": flag(), "group_specs": pairs()}}}})
    })
});
static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["group_type"], "additionalProperties": false, "properties": {"group_type": {
            "type": "object", "additionalProperties": false, "properties": {
                "name": {"type": ["string", "null"], "maxLength": 255}, "description": text_or_null(),
                "is_public": flag()}}}})
    })
});
static ADD: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["group_specs"], "additionalProperties": false,
            "properties": {"group_specs": pairs()}})
    })
});
static SET: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let mut one = pairs();
        (one["minProperties"], one["maxProperties"]) = (json!(1), json!(1));
        one
    })
});

fn no_type(id: &str) -> Fault {
    Fault::not_found(format!("Group type {id} could not be found."))
}

fn view(call: &Call, found: &GroupType) -> Value {
    let mut view =
        json!({"id": found.id, "name": found.name, "description": found.description, "is_public": found.public});
    if call.may("group:access_group_types_specs", &call.target()) {
        view["group_specs"] = json!(found.specs);
    }
    view
}

fn may_use(call: &Call, found: &GroupType) -> bool {
    found.public || call.caller().has_role("admin") || found.access.contains(call.ctx.project_id())
}

async fn named(svc: &Volumes, call: &Call) -> Result<Stored<GroupType>, Fault> {
    let id = call.param("group_type_id");
    let found = svc.store.get::<GroupType>(id).await?;
    found.filter(|t| may_use(call, t)).ok_or_else(|| no_type(id))
}

fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let pairs = value.and_then(Value::as_object).into_iter().flatten();
    pairs.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
}

fn exists(fault: Fault, name: &str) -> Fault {
    if fault.code() == 409 && fault.kind != "Conflict" {
        return Fault::conflict(format!("Group Type {name} already exists."));
    }
    fault
}

async fn create(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("group_type")?;
    let new = GroupType {
        id: id::new(),
        name: text(body, &["name"]).unwrap_or_default(),
        description: text(body, &["description"]),
        public: body.get("is_public").is_none_or(|public| truth(Some(public))),
        specs: texts(body.get("group_specs")),
        access: BTreeSet::new(),
    };
    let name = new.name.clone();
    let made = svc.write(new, |tx, new| Box::pin(async move { Ok(tx.insert(&new).await?) })).await;
    let made = made.map_err(|fault| exists(fault, &name))?;
    Ok(Response::accepted(json!({"group_type": view(&call, &made)})))
}

const KEYS: &[&str] = &["id", "name", "created_at", "updated_at", "is_public"];
const SORTED: Sorted<GroupType> = Sorted { column: common_column, key: |found, _| json!(found.public) };

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    let listing = Listing::of(&call, KEYS)?;
    let wanted = match call.query.get("is_public").filter(|_| call.caller().has_role("admin")) {
        None => Some(true),
        Some(text) if text.eq_ignore_ascii_case("none") => None,
        Some(text) => {
            Some(boolean(text).ok_or_else(|| Fault::bad_request(format!("Invalid is_public filter [{text}]")))?)
        }
    };
    let keep = |t: &Stored<GroupType>| may_use(&call, t) && wanted.is_none_or(|public| public == t.public);
    let (found, more) = listing.select(&svc.store, Query::all(), SORTED, keep, no_type).await?;
    let shown = found.iter().map(|t| view(&call, t)).collect();
    Ok(Response::ok(listing.document_of(&call, ("group_types", "group_type"), shown, &found, more)))
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    if call.param("group_type_id") == "default" {
        return Err(Fault::not_found("Default group type can not be found."));
    }
    let found = named(&svc, &call).await?;
    Ok(Response::ok(json!({"group_type": view(&call, &found)})))
}

impl Volumes {
    async fn change_group_type(
        &self,
        id: &str,
        change: impl Fn(&mut GroupType) -> Result<(), Fault> + Clone + Send + Sync + 'static,
    ) -> Result<Stored<GroupType>, Fault> {
        self.write((id.to_owned(), change), |tx, (id, change)| {
            Box::pin(async move {
                let mut found = tx.get::<GroupType>(&id).await?.ok_or_else(|| no_type(&id))?;
                change(&mut found.record)?;
                Ok(tx.update(&found).await?)
            })
        })
        .await
    }
}

async fn update(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("group_type")?.clone();
    let (name, description) = (text(&body, &["name"]), text(&body, &["description"]));
    let public = body.get("is_public").filter(|p| !p.is_null()).map(|p| truth(Some(p)));
    if name.as_deref() == Some("") {
        return Err(Fault::bad_request("Group type name can not be empty."));
    }
    if name.is_none() && description.is_none() && public.is_none() {
        return Err(Fault::bad_request("Specify group type name, description or a combination thereof."));
    }
    let shown = name.clone().unwrap_or_default();
    let change = move |found: &mut GroupType| {
        found.name = name.clone().unwrap_or_else(|| found.name.clone());
        found.description = description.clone().or(found.description.take());
        found.public = public.unwrap_or(found.public);
        Ok(())
    };
    let changed = svc.change_group_type(call.param("group_type_id"), change).await;
    let changed = changed.map_err(|fault| exists(fault, &shown))?;
    Ok(Response::ok(json!({"group_type": view(&call, &changed)})))
}

async fn delete(svc: Arc<Volumes>, call: Call) -> Reply {
    svc.write(call.param("group_type_id").to_owned(), |tx, id| {
        Box::pin(async move {
            let found = tx.get::<GroupType>(&id).await?.ok_or_else(|| no_type(&id))?;
            let used = tx.count::<Group>(Query::all().eq("group_type", id.as_str())).await? > 0;
            if used || found.name == DEFAULT_GROUP_TYPE {
                return Err(Fault::bad_request("Target group type is still in use."));
            }
            tx.delete::<GroupType>(&id).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::empty(202))
}

async fn specs(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = named(&svc, &call).await?;
    Ok(Response::ok(json!({"group_specs": found.specs})))
}

fn missing(found: &GroupType, key: &str) -> Fault {
    Fault::not_found(format!("Group Type {} has no specs with key {key}.", found.id))
}

async fn spec(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = named(&svc, &call).await?;
    let key = call.param("key");
    let value = found.specs.get(key).ok_or_else(|| missing(&found, key))?;
    Ok(Response::ok(json!({ key: value })))
}

async fn add_specs(svc: Arc<Volumes>, call: Call) -> Reply {
    let new = texts(call.body.get("group_specs"));
    let add = move |found: &mut GroupType| {
        found.specs.extend(new.clone());
        Ok(())
    };
    svc.change_group_type(call.param("group_type_id"), add).await?;
    Ok(Response::accepted(call.body))
}

async fn set_spec(svc: Arc<Volumes>, call: Call) -> Reply {
    let new = texts(Some(&call.body));
    if !new.contains_key(call.param("key")) {
        return Err(Fault::bad_request("Request body and URI mismatch"));
    }
    let set = move |found: &mut GroupType| {
        found.specs.extend(new.clone());
        Ok(())
    };
    svc.change_group_type(call.param("group_type_id"), set).await?;
    Ok(Response::ok(call.body))
}

async fn drop_spec(svc: Arc<Volumes>, call: Call) -> Reply {
    let key = call.param("key").to_owned();
    let remove = move |found: &mut GroupType| {
        let gone = found.specs.remove(&key);
        gone.map(|_| ()).ok_or_else(|| missing(found, &key))
    };
    svc.change_group_type(call.param("group_type_id"), remove).await?;
    Ok(Response::empty(202))
}
