//! `/flavors`, their extra specs and their access lists.
use super::schema;
use crate::{Compute, tables::Flavor, version as v};
use pilvi_kit::{
    Call, Fault, Reply, Response, Route,
    call::boolean,
    id,
    page::{Page, PageRules},
};
use pilvi_store::{Query, Stored};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

pub fn routes() -> Vec<Route<Compute>> {
    const SPECS: &str = "/v2.1/flavors/{flavor_id}/os-extra_specs";
    const SPEC: &str = "/v2.1/flavors/{flavor_id}/os-extra_specs/{key}";
    vec![
        Route::get("/v2.1/flavors", list).rule("os_compute_api:flavors").summary("List flavors"),
        Route::get("/v2.1/flavors/detail", detail).rule("os_compute_api:flavors").summary("List flavors with detail"),
        Route::post("/v2.1/flavors", create).rule("os_compute_api:os-flavor-manage:create").schema(&schema::CREATE),
        Route::get("/v2.1/flavors/{flavor_id}", show).rule("os_compute_api:flavors"),
        Route::put("/v2.1/flavors/{flavor_id}", update)
            .rule("os_compute_api:os-flavor-manage:update")
            .schema(&schema::UPDATE)
            .since(2, 55),
        Route::delete("/v2.1/flavors/{flavor_id}", delete).rule("os_compute_api:os-flavor-manage:delete"),
        Route::get("/v2.1/flavors/{flavor_id}/os-flavor-access", access).rule("os_compute_api:os-flavor-access"),
        Route::post("/v2.1/flavors/{flavor_id}/action", change_access)
            .rule("os_compute_api:os-flavor-access:add_tenant_access")
            .schema(&schema::ACCESS)
            .actions(&[
                ("addTenantAccess", "os_compute_api:os-flavor-access:add_tenant_access"),
                ("removeTenantAccess", "os_compute_api:os-flavor-access:remove_tenant_access"),
            ]),
        Route::get(SPECS, specs).rule("os_compute_api:os-flavor-extra-specs:index"),
        Route::post(SPECS, specs_add).rule("os_compute_api:os-flavor-extra-specs:create").schema(&schema::SPECS),
        Route::get(SPEC, spec).rule("os_compute_api:os-flavor-extra-specs:show"),
        Route::put(SPEC, spec_set).rule("os_compute_api:os-flavor-extra-specs:update").schema(&schema::SPEC),
        Route::delete(SPEC, spec_remove).rule("os_compute_api:os-flavor-extra-specs:delete"),
    ]
}

const PAGES: PageRules = PageRules {
    max: Some(1000),
    default: None,
    keys: &[
        "created_at",
        "description",
        "disabled",
        "ephemeral_gb",
        "flavorid",
        "id",
        "is_public",
        "memory_mb",
        "name",
        "root_gb",
        "rxtx_factor",
        "swap",
        "updated_at",
        "vcpu_weight",
        "vcpus",
        "ram",
        "disk",
    ],
};

fn missing(id: &str) -> Fault {
    Fault::not_found(format!("Flavor {id} could not be found."))
}

/// The flavor of the path; a private one exists only for those who may use it.
async fn found(svc: &Compute, call: &Call) -> Result<Stored<Flavor>, Fault> {
    let id = call.param("flavor_id");
    let flavor = svc.store.get::<Flavor>(id).await?.ok_or_else(|| missing(id))?;
    let may = flavor.public || call.caller().has_role("admin") || flavor.access.contains(call.ctx.project_id());
    if may { Ok(flavor) } else { Err(missing(id)) }
}

async fn change(
    svc: &Compute,
    call: &Call,
    change: impl Fn(&mut Flavor) -> Result<(), Fault> + Clone + Send + Sync + 'static,
) -> Result<Stored<Flavor>, Fault> {
    let id = found(svc, call).await?.record.id;
    svc.store
        .write(move |tx| {
            let (id, change) = (id.clone(), change.clone());
            Box::pin(async move {
                let mut flavor = tx.get::<Flavor>(&id).await?.ok_or_else(|| missing(&id))?;
                change(&mut flavor.record)?;
                Ok::<_, Fault>(tx.update(&flavor).await?)
            })
        })
        .await
}

fn links(call: &Call, id: &str) -> Value {
    json!([
        {"rel": "self", "href": format!("{}/v2.1/flavors/{id}", call.base_url)},
        {"rel": "bookmark", "href": format!("{}/flavors/{id}", call.base_url)},
    ])
}

fn brief(call: &Call, flavor: &Flavor) -> Value {
    let mut out = json!({"id": flavor.id, "name": flavor.name, "links": links(call, &flavor.id)});
    if call.at_least(2, 55) {
        out["description"] = json!(flavor.description);
    }
    out
}

fn view(call: &Call, flavor: &Flavor) -> Value {
    // Before 2.75 no swap is an empty text.
    let swap =
        if flavor.swap_mib == 0 && call.version < v::UNIFORM_SERVERS { json!("") } else { json!(flavor.swap_mib) };
    let mut out = json!({
        "id": flavor.id, "name": flavor.name, "ram": flavor.memory_mib, "vcpus": flavor.vcpus, "disk": flavor.disk_gib, "swap": swap,
        "OS-FLV-EXT-DATA:ephemeral": flavor.ephemeral_gib, "OS-FLV-DISABLED:disabled": flavor.disabled,
        "os-flavor-access:is_public": flavor.public, "rxtx_factor": flavor.rxtx_factor, "links": links(call, &flavor.id),
    });
    if call.at_least(2, 55) {
        out["description"] = json!(flavor.description);
    }
    if call.at_least(2, 61) {
        out["extra_specs"] = json!(flavor.extra_specs);
    }
    out
}

fn sort_value(flavor: &Stored<Flavor>, key: &str) -> Value {
    match key {
        "name" => json!(flavor.name),
        "memory_mb" | "ram" => json!(flavor.memory_mib),
        "root_gb" | "disk" => json!(flavor.disk_gib),
        "ephemeral_gb" => json!(flavor.ephemeral_gib),
        "vcpus" => json!(flavor.vcpus),
        "swap" => json!(flavor.swap_mib),
        "is_public" => json!(flavor.public),
        "created_at" => json!(flavor.created_us),
        "updated_at" => json!(flavor.updated_us),
        _ => json!(flavor.record.id),
    }
}

fn minimum(call: &Call, key: &str) -> Result<u64, Fault> {
    match call.query.get(key) {
        None => Ok(0),
        Some(text) => text.parse().map_err(|_| Fault::bad_request(format!("Invalid {key} filter [{text}]"))),
    }
}

async fn page(svc: &Compute, call: &Call) -> Result<(Vec<Stored<Flavor>>, Vec<Value>), Fault> {
    let mut flavors = svc.store.list::<Flavor>(Query::all()).await?;
    let admin = call.caller().has_role("admin");
    let project = call.ctx.project_id().to_owned();
    match call.query.get("is_public") {
        Some(word) if admin && word.eq_ignore_ascii_case("none") => {}
        Some(word) if admin => {
            let wish = boolean(word).ok_or_else(|| Fault::bad_request(format!("Invalid is_public filter [{word}]")))?;
            flavors.retain(|f| f.public == wish);
        }
        _ => flavors.retain(|f| f.public || f.access.contains(&project)),
    }
    let (ram, disk) = (minimum(call, "minRam")?, minimum(call, "minDisk")?);
    flavors.retain(|f| f.memory_mib >= ram && f.disk_gib >= disk);
    if let Some(name) = call.query.get("name").filter(|_| call.at_least(2, 102)) {
        flavors.retain(|f| f.name == name);
    }
    let mut page = Page::of(call, PAGES)?;
    if page.sort.is_empty() {
        page.sort = vec![("flavorid".into(), pilvi_kit::page::Dir::Asc)];
    }
    let (flavors, more) = page.cut(flavors, |f| &f.record.id, sort_value)?;
    let links = page.links(call, &flavors, more, |f| &f.record.id);
    Ok((flavors, links.into_iter().filter(|l| l["rel"] == "next").collect()))
}

async fn list_as(svc: &Compute, call: &Call, shape: fn(&Call, &Flavor) -> Value) -> Reply {
    let (flavors, links) = page(svc, call).await?;
    let mut body = json!({"flavors": flavors.iter().map(|f| shape(call, f)).collect::<Vec<_>>()});
    if !links.is_empty() {
        body["flavors_links"] = json!(links);
    }
    Ok(Response::ok(body))
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    list_as(&svc, &call, brief).await
}

async fn detail(svc: Arc<Compute>, call: Call) -> Reply {
    list_as(&svc, &call, view).await
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let flavor = found(&svc, &call).await?;
    Ok(Response::ok(json!({"flavor": view(&call, &flavor)})))
}

fn number(body: &Value, key: &str) -> Result<u64, Fault> {
    const MOST: u64 = 2_147_483_647;
    let value = &body[key];
    let n = value.as_u64().or_else(|| value.as_str().and_then(|s| s.parse().ok()));
    match n {
        None if value.is_null() => Ok(0),
        Some(n) if n <= MOST => Ok(n),
        _ => Err(Fault::bad_request(format!("Invalid input for field/attribute {key}."))),
    }
}

async fn create(svc: Arc<Compute>, call: Call) -> Reply {
    let body = call.member("flavor")?;
    if body.get("description").is_some() && !call.at_least(2, 55) {
        return Err(Fault::bad_request("Additional properties are not allowed ('description' was unexpected)"));
    }
    let flavor_id = match &body["id"] {
        Value::Null => id::new(),
        Value::String(s) if s == "auto" => id::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    let (vcpus, memory_mib) = (number(body, "vcpus")?, number(body, "ram")?);
    if vcpus == 0 || memory_mib == 0 {
        return Err(Fault::bad_request("Invalid input for field/attribute ram or vcpus: the least is 1."));
    }
    let rxtx = &body["rxtx_factor"];
    let flavor = Flavor {
        id: flavor_id.clone(),
        name: body["name"].as_str().unwrap_or_default().trim().to_owned(),
        description: body["description"].as_str().map(str::to_owned),
        vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX),
        memory_mib,
        disk_gib: number(body, "disk")?,
        ephemeral_gib: number(body, "OS-FLV-EXT-DATA:ephemeral")?,
        swap_mib: number(body, "swap")?,
        rxtx_factor: rxtx.as_f64().or_else(|| rxtx.as_str().and_then(|s| s.parse().ok())).unwrap_or(1.0),
        public: body.get("os-flavor-access:is_public").is_none_or(crate::server::api::truth),
        disabled: false,
        extra_specs: Default::default(),
        access: BTreeSet::new(),
    };
    let made = svc
        .store
        .write(move |tx| {
            let flavor = flavor.clone();
            Box::pin(async move { tx.insert(&flavor).await.map_err(|e| taken(e, &flavor)) })
        })
        .await?;
    Ok(Response::ok(json!({"flavor": view(&call, &made)})))
}

fn taken(error: pilvi_store::Error, flavor: &Flavor) -> Fault {
    match error {
        pilvi_store::Error::Exists { .. } => Fault::conflict(format!("Flavor with ID {} already exists.", flavor.id)),
        pilvi_store::Error::Claimed { .. } => {
            Fault::conflict(format!("Flavor with name {} already exists.", flavor.name))
        }
        error => error.into(),
    }
}

async fn update(svc: Arc<Compute>, call: Call) -> Reply {
    let text = call.body["flavor"]["description"].as_str().map(str::to_owned);
    let flavor = change(&svc, &call, move |f| {
        f.description.clone_from(&text);
        Ok(())
    })
    .await?;
    Ok(Response::ok(json!({"flavor": view(&call, &flavor)})))
}

async fn delete(svc: Arc<Compute>, call: Call) -> Reply {
    let id = found(&svc, &call).await?.record.id;
    svc.store
        .write(move |tx| {
            let id = id.clone();
            Box::pin(async move { Ok::<_, Fault>(tx.delete::<Flavor>(&id).await?) })
        })
        .await?;
    Ok(Response::empty(202))
}

fn access_list(flavor: &Flavor) -> Value {
    let list: Vec<Value> = flavor.access.iter().map(|p| json!({"flavor_id": flavor.id, "tenant_id": p})).collect();
    json!({"flavor_access": list})
}

async fn access(svc: Arc<Compute>, call: Call) -> Reply {
    let flavor = found(&svc, &call).await?;
    if flavor.public {
        return Err(Fault::not_found("Access list not available for public flavors."));
    }
    Ok(Response::ok(access_list(&flavor)))
}

async fn change_access(svc: Arc<Compute>, call: Call) -> Reply {
    let add = call.body.get("addTenantAccess").is_some();
    let project = call.body[if add { "addTenantAccess" } else { "removeTenantAccess" }]["tenant"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let flavor = change(&svc, &call, move |f| {
        if f.public {
            return Err(Fault::conflict("Can not add or remove access of a public flavor."));
        }
        match (add, f.access.contains(&project)) {
            (true, true) => Err(Fault::conflict(format!(
                "Flavor access already exists for flavor {} and project {project} combination.",
                f.id
            ))),
            (false, false) => {
                Err(Fault::not_found(format!("Flavor access not found for {} / {project} combination.", f.id)))
            }
            (true, false) => {
                f.access.insert(project.clone());
                Ok(())
            }
            (false, true) => {
                f.access.remove(&project);
                Ok(())
            }
        }
    })
    .await?;
    Ok(Response::ok(access_list(&flavor)))
}

fn spec_texts(value: Option<&Value>) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    value.and_then(Value::as_object).into_iter().flatten().map(|(k, v)| (k.clone(), text(v))).collect()
}

async fn specs(svc: Arc<Compute>, call: Call) -> Reply {
    Ok(Response::ok(json!({"extra_specs": found(&svc, &call).await?.extra_specs})))
}

async fn specs_add(svc: Arc<Compute>, call: Call) -> Reply {
    let new = spec_texts(call.body.get("extra_specs"));
    let shown = call.body.clone();
    change(&svc, &call, move |f| {
        f.extra_specs.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Response::ok(shown))
}

fn no_spec(call: &Call) -> Fault {
    Fault::not_found(format!("Flavor {} has no extra specs with key {}.", call.param("flavor_id"), call.param("key")))
}

async fn spec(svc: Arc<Compute>, call: Call) -> Reply {
    let flavor = found(&svc, &call).await?;
    let value = flavor.extra_specs.get(call.param("key")).ok_or_else(|| no_spec(&call))?;
    Ok(Response::ok(json!({call.param("key"): value})))
}

async fn spec_set(svc: Arc<Compute>, call: Call) -> Reply {
    let new = spec_texts(Some(&call.body));
    if new.iter().all(|(k, _)| k != call.param("key")) {
        return Err(Fault::bad_request("Request body and URI mismatch"));
    }
    let shown = call.body.clone();
    change(&svc, &call, move |f| {
        f.extra_specs.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Response::ok(shown))
}

async fn spec_remove(svc: Arc<Compute>, call: Call) -> Reply {
    let (key, fault) = (call.param("key").to_owned(), no_spec(&call));
    change(&svc, &call, move |f| f.extra_specs.remove(&key).map(|_| ()).ok_or_else(|| fault.clone())).await?;
    Ok(Response::empty(200))
}
