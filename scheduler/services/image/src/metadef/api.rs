//! `/v2/metadefs/namespaces` and `/v2/metadefs/resource_types`
use super::{
    model::{Namespace, RESOURCE_TYPES},
    ops, schemas, view,
};
use crate::Image;
use pilvi_kit::{
    Call, Fault, Reply, Response, Route, Schema, clock,
    page::{Page, PageRules},
};
use pilvi_store::Stored;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

const ALL: &str = "/v2/metadefs/namespaces";
const ONE: &str = "/v2/metadefs/namespaces/{namespace}";

pub fn routes() -> Vec<Route<Image>> {
    vec![
        Route::get(ALL, list).rule("get_metadef_namespaces").summary("List namespaces"),
        Route::post(ALL, create).rule("add_metadef_namespace").schema(&BODY).summary("Create a namespace"),
        Route::get(ONE, show).rule_by_handler("get_metadef_namespace").summary("Show a namespace"),
        Route::put(ONE, update).rule_by_handler("modify_metadef_namespace").schema(&BODY).summary("Update a namespace"),
        Route::delete(ONE, delete).rule_by_handler("delete_metadef_namespace").summary("Delete a namespace"),
        Route::get("/v2/metadefs/resource_types", types)
            .rule("list_metadef_resource_types")
            .summary("List resource types"),
    ]
}

static BODY: LazyLock<Schema> = LazyLock::new(|| Schema::new(schemas::namespace));

/// The namespace of the path, when the route's rule allows it.
pub(super) async fn authorized(svc: &Image, call: &Call) -> Result<Stored<Namespace>, Fault> {
    let stored = ops::visible(&svc.store, &call.ctx, call.param("namespace")).await?;
    call.authorize(&ops::target(&stored))?;
    Ok(stored)
}

fn key(stored: &Stored<Namespace>, key: &str) -> Value {
    match key {
        "namespace" => stored.name.clone().into(),
        "updated_at" => stored.updated_us.into(),
        _ => stored.created_us.into(),
    }
}

async fn list(svc: Arc<Image>, call: Call) -> Reply {
    const RULES: PageRules =
        PageRules { max: Some(1000), default: Some(25), keys: &["created_at", "updated_at", "namespace"] };
    let mut page = Page::of(&call, RULES)?;
    if page.sort.is_empty() {
        page.sort.push(("created_at".into(), pilvi_kit::page::Dir::Desc));
    }
    let mut found = ops::all(&svc.store).await?;
    let types: Vec<&str> = call.query.get("resource_types").map(|t| t.split(',').collect()).unwrap_or_default();
    found.retain(|n| {
        ops::sees(&call.ctx, n)
            && call.query.get("visibility").is_none_or(|v| v == view::visibility(n.public))
            && (types.is_empty() || types.iter().any(|t| n.associations.contains_key(*t)))
    });
    let (items, more) = page.cut(found, |n| &n.record.name, key)?;
    let shown: Vec<Value> = items.iter().map(|n| view::namespace(n, false)).collect();
    let mut body =
        json!({"namespaces": shown, "first": "/v2/metadefs/namespaces", "schema": "/v2/schemas/metadefs/namespaces"});
    if let Some(last) = items.last()
        && more
    {
        let url = page.next_url(&call, &last.record.name);
        body["next"] = json!(url.strip_prefix(&call.base_url).unwrap_or(&url));
    }
    Ok(Response::ok(body))
}

async fn create(svc: Arc<Image>, call: Call) -> Reply {
    let stored = ops::create(&svc.store, view::new(&call.body, call.ctx.project_id(), clock::now_us())?).await?;
    Ok(Response::created(view::namespace(&stored, true))
        .header("location", call.url(&format!("{ALL}/{}", stored.name))))
}

async fn show(svc: Arc<Image>, call: Call) -> Reply {
    let stored = authorized(&svc, &call).await?;
    let mut shown = view::namespace(&stored, true);
    if let Some(prefix) = call.query.get("resource_type").and_then(|wanted| view::prefix(&stored, wanted)) {
        view::with_prefix(&mut shown, prefix);
    }
    Ok(Response::ok(shown))
}

async fn update(svc: Arc<Image>, call: Call) -> Reply {
    let stored = authorized(&svc, &call).await?;
    let wanted = view::new(&call.body, &stored.owner, clock::now_us())?;
    // What a namespace holds has calls of its own and stays.
    let saved = ops::change(&svc.store, &stored.name, move |n| {
        (n.name, n.owner) = (wanted.name.clone(), wanted.owner.clone());
        (n.display_name, n.description) = (wanted.display_name.clone(), wanted.description.clone());
        (n.public, n.protected) = (wanted.public, wanted.protected);
        Ok(())
    })
    .await?;
    Ok(Response::ok(view::namespace(&saved, false)))
}

async fn delete(svc: Arc<Image>, call: Call) -> Reply {
    let stored = authorized(&svc, &call).await?;
    ops::delete(&svc.store, &stored.name).await?;
    Ok(Response::no_content())
}

async fn types(svc: Arc<Image>, call: Call) -> Reply {
    let mut names: BTreeMap<String, i64> = BTreeMap::new();
    for stored in ops::all(&svc.store).await?.iter().filter(|n| ops::sees(&call.ctx, n)) {
        for (name, entry) in &stored.associations {
            names.insert(name.clone(), entry.created_us);
        }
    }
    let usual = RESOURCE_TYPES.iter().map(|name| ((*name).to_owned(), 0));
    let found: Vec<Value> = usual
        .chain(names.into_iter().filter(|(name, _)| !RESOURCE_TYPES.contains(&name.as_str())))
        .map(|(name, us)| json!({"name": name, "created_at": clock::seconds_z(us), "updated_at": clock::seconds_z(us)}))
        .collect();
    Ok(Response::ok(json!({"resource_types": found})))
}
