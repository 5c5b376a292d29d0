//! What a namespace holds: `objects`, `properties`, `tags`, `resource_types`; one set of handlers for all.
use super::{
    api::authorized,
    model::{Namespace, Part},
    ops, schemas, view,
};
use crate::Image;
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, clock};
use serde_json::{Map, Value, json};
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, LazyLock},
};

static OBJECT: LazyLock<Schema> = LazyLock::new(|| Schema::new(schemas::object));
static PROPERTY: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| schemas::property(true)));
static TAG: LazyLock<Schema> = LazyLock::new(|| Schema::new(schemas::tag));
static TAGS: LazyLock<Schema> = LazyLock::new(|| Schema::new(schemas::tags));
static ASSOCIATION: LazyLock<Schema> = LazyLock::new(|| Schema::new(schemas::association));

const OBJECTS: &str = "/v2/metadefs/namespaces/{namespace}/objects";
const OBJECTS_ONE: &str = "/v2/metadefs/namespaces/{namespace}/objects/{name}";
const PROPERTIES: &str = "/v2/metadefs/namespaces/{namespace}/properties";
const PROPERTIES_ONE: &str = "/v2/metadefs/namespaces/{namespace}/properties/{name}";
const TAGS_ALL: &str = "/v2/metadefs/namespaces/{namespace}/tags";
const TAGS_ONE: &str = "/v2/metadefs/namespaces/{namespace}/tags/{name}";
const TYPES: &str = "/v2/metadefs/namespaces/{namespace}/resource_types";
const TYPES_ONE: &str = "/v2/metadefs/namespaces/{namespace}/resource_types/{name}";

type Handled = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// A handler that knows its part.
fn of<F, Fut>(part: Part, handler: F) -> impl Fn(Arc<Image>, Call) -> Handled + Send + Sync + 'static
where
    F: Fn(Arc<Image>, Call, Part) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Reply> + Send + 'static,
{
    move |svc, call| Box::pin(handler(svc, call, part))
}

pub fn routes() -> Vec<Route<Image>> {
    use Part::{Associations, Objects, Properties, Tags};
    vec![
        Route::get(OBJECTS, of(Objects, list)).rule_by_handler("get_metadef_objects").summary("List objects"),
        Route::post(OBJECTS, of(Objects, create))
            .rule_by_handler("add_metadef_object")
            .schema(&OBJECT)
            .summary("Create an object"),
        Route::delete(OBJECTS, of(Objects, clear))
            .rule_by_handler("delete_metadef_namespace")
            .summary("Delete all objects"),
        Route::get(OBJECTS_ONE, of(Objects, show)).rule_by_handler("get_metadef_object").summary("Show an object"),
        Route::put(OBJECTS_ONE, of(Objects, update))
            .rule_by_handler("modify_metadef_object")
            .schema(&OBJECT)
            .summary("Update an object"),
        Route::delete(OBJECTS_ONE, of(Objects, delete))
            .rule_by_handler("delete_metadef_object")
            .summary("Delete an object"),
        Route::get(PROPERTIES, of(Properties, list))
            .rule_by_handler("get_metadef_properties")
            .summary("List properties"),
        Route::post(PROPERTIES, of(Properties, create))
            .rule_by_handler("add_metadef_property")
            .schema(&PROPERTY)
            .summary("Create a property"),
        Route::delete(PROPERTIES, of(Properties, clear))
            .rule_by_handler("delete_metadef_namespace")
            .summary("Delete all properties"),
        Route::get(PROPERTIES_ONE, of(Properties, show))
            .rule_by_handler("get_metadef_property")
            .summary("Show a property"),
        Route::put(PROPERTIES_ONE, of(Properties, update))
            .rule_by_handler("modify_metadef_property")
            .schema(&PROPERTY)
            .summary("Update a property"),
        Route::delete(PROPERTIES_ONE, of(Properties, delete))
            .rule_by_handler("remove_metadef_property")
            .summary("Delete a property"),
        Route::get(TAGS_ALL, of(Tags, list)).rule_by_handler("get_metadef_tags").summary("List tags"),
        Route::post(TAGS_ALL, set_tags).rule_by_handler("add_metadef_tags").schema(&TAGS).summary("Set all tags"),
        Route::delete(TAGS_ALL, of(Tags, clear)).rule_by_handler("delete_metadef_tags").summary("Delete all tags"),
        Route::get(TAGS_ONE, of(Tags, show)).rule_by_handler("get_metadef_tag").summary("Show a tag"),
        Route::post(TAGS_ONE, add_tag).rule_by_handler("add_metadef_tag").summary("Create a tag"),
        Route::put(TAGS_ONE, of(Tags, update))
            .rule_by_handler("modify_metadef_tag")
            .schema(&TAG)
            .summary("Rename a tag"),
        Route::delete(TAGS_ONE, of(Tags, delete)).rule_by_handler("delete_metadef_tag").summary("Delete a tag"),
        Route::get(TYPES, of(Associations, list))
            .rule_by_handler("get_metadef_resource_type")
            .summary("List resource types of a namespace"),
        Route::post(TYPES, of(Associations, create))
            .rule_by_handler("add_metadef_resource_type_association")
            .schema(&ASSOCIATION)
            .summary("Associate a resource type"),
        Route::delete(TYPES_ONE, of(Associations, delete))
            .rule_by_handler("remove_metadef_resource_type_association")
            .summary("Dissociate a resource type"),
    ]
}

async fn list(svc: Arc<Image>, call: Call, part: Part) -> Reply {
    let stored = authorized(&svc, &call).await?;
    let entries = stored.part(part);
    let shown: Vec<Value> = entries.iter().map(|(name, e)| view::entry(&stored.name, part, name, e)).collect();
    let first = format!("/v2{}", call.path.strip_prefix("/v2").unwrap_or(&call.path));
    Ok(Response::ok(match part {
        Part::Objects => json!({"objects": shown, "first": first, "schema": "/v2/schemas/metadefs/objects"}),
        Part::Properties => json!({"properties": view::properties(entries)}),
        Part::Tags => json!({"tags": shown, "first": first, "schema": "/v2/schemas/metadefs/tags"}),
        Part::Associations => json!({"resource_type_associations": shown}),
    }))
}

fn one(namespace: &Namespace, part: Part, name: &str) -> Result<Value, Fault> {
    let entry = namespace.part(part).get(name).ok_or_else(|| namespace.missing(part, name))?;
    Ok(view::entry(&namespace.name, part, name, entry))
}

async fn show(svc: Arc<Image>, call: Call, part: Part) -> Reply {
    let stored = authorized(&svc, &call).await?;
    let name = call.param("name");
    let Some(wanted) = call.query.get("resource_type").filter(|w| part == Part::Properties && !w.is_empty()) else {
        return Ok(Response::ok(one(&stored, part, name)?));
    };
    if !stored.associations.contains_key(wanted) {
        return Err(stored.missing(Part::Associations, wanted));
    }
    let plain = view::prefix(&stored, wanted).and_then(|prefix| name.strip_prefix(prefix));
    let plain = plain.ok_or_else(|| {
        Fault::not_found(format!("Property {name} does not start with the prefix of the resource type {wanted}."))
    })?;
    Ok(Response::ok(one(&stored, part, plain)?))
}

async fn add(svc: &Image, namespace: &str, part: Part, name: String, body: Map<String, Value>) -> Reply {
    let now = clock::now_us();
    let wanted = name.clone();
    let saved = ops::change(&svc.store, namespace, move |n| n.add(part, &wanted, body.clone(), now)).await?;
    Ok(Response::created(one(&saved, part, &name)?))
}

async fn create(svc: Arc<Image>, call: Call, part: Part) -> Reply {
    let stored = authorized(&svc, &call).await?;
    let (name, body) = view::named(&call.body)?;
    add(&svc, &stored.name, part, name, body).await
}

async fn add_tag(svc: Arc<Image>, call: Call) -> Reply {
    let stored = authorized(&svc, &call).await?;
    add(&svc, &stored.name, Part::Tags, call.param("name").to_owned(), Map::new()).await
}

async fn update(svc: Arc<Image>, call: Call, part: Part) -> Reply {
    let stored = authorized(&svc, &call).await?;
    let (old, now) = (call.param("name").to_owned(), clock::now_us());
    let (name, body) = view::named(&call.body)?;
    let new = name.clone();
    let saved = ops::change(&svc.store, &stored.name, move |n| n.replace(part, &old, &new, body.clone(), now)).await?;
    Ok(Response::ok(one(&saved, part, &name)?))
}

async fn delete(svc: Arc<Image>, call: Call, part: Part) -> Reply {
    let stored = authorized(&svc, &call).await?;
    let name = call.param("name").to_owned();
    ops::change(&svc.store, &stored.name, move |n| match n.part_mut(part).remove(&name) {
        Some(_) => Ok(()),
        None => Err(n.missing(part, &name)),
    })
    .await?;
    Ok(Response::no_content())
}

async fn clear(svc: Arc<Image>, call: Call, part: Part) -> Reply {
    let stored = authorized(&svc, &call).await?;
    ops::change(&svc.store, &stored.name, move |n| {
        n.part_mut(part).clear();
        Ok(())
    })
    .await?;
    Ok(Response::no_content())
}

/// Sets all tags; `X-Openstack-Append: true` keeps those that are there.
async fn set_tags(svc: Arc<Image>, call: Call) -> Reply {
    let stored = authorized(&svc, &call).await?;
    let append = call.header("x-openstack-append").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let (tags, now) = (call.body["tags"].clone(), clock::now_us());
    let saved = ops::change(&svc.store, &stored.name, move |n| {
        if !append {
            n.tags.clear();
        }
        for item in tags.as_array().into_iter().flatten() {
            let (name, body) = view::named(item)?;
            n.add(Part::Tags, &name, body, now)?;
        }
        Ok(())
    })
    .await?;
    let shown: Vec<Value> = saved.tags.iter().map(|(name, e)| view::entry(&saved.name, Part::Tags, name, e)).collect();
    Ok(Response::created(
        json!({"tags": shown, "first": format!("/v2/metadefs/namespaces/{}/tags", saved.name), "schema": "/v2/schemas/metadefs/tags"}),
    ))
}
