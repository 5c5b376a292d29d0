//! `/allocations` and `/resource_providers/{uuid}/allocations`
use super::{ops, schema, view};
use crate::{
    Placement, provider,
    version::{fresh, read},
};
use pilvi_kit::{Call, Reply, Response, Route, Schema, clock};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

const ONE: &str = "/allocations/{consumer_uuid}";

pub fn routes() -> Vec<Route<Placement>> {
    let put = |since: u16, until: u16, schema: &'static LazyLock<Schema>| {
        Route::put(ONE, set)
            .rule("placement:allocations:update")
            .schema(schema)
            .since(1, since)
            .until(1, until)
            .summary("Set a consumer's allocations")
    };
    let post = |since: u16, until: u16, schema: &'static LazyLock<Schema>| {
        Route::post("/allocations", set_many)
            .rule("placement:allocations:manage")
            .schema(schema)
            .since(1, since)
            .until(1, until)
            .summary("Set allocations of several consumers")
    };
    vec![
        read(ONE, of_consumer).rule("placement:allocations:list").summary("List a consumer's allocations"),
        put(0, 7, &schema::PUT_1_0),
        put(8, 11, &schema::PUT_1_8),
        put(12, 27, &schema::PUT_1_12),
        put(28, 33, &schema::PUT_1_28),
        put(34, 37, &schema::PUT_1_34),
        put(38, u16::MAX, &schema::PUT_1_38),
        post(13, 27, &schema::POST_1_13),
        post(28, 33, &schema::POST_1_28),
        post(34, 37, &schema::POST_1_34),
        post(38, u16::MAX, &schema::POST_1_38),
        Route::delete(ONE, delete).rule("placement:allocations:delete").summary("Delete a consumer's allocations"),
        read("/resource_providers/{uuid}/allocations", of_provider)
            .rule("placement:resource_providers:allocations:list")
            .summary("List a provider's allocations"),
    ]
}

async fn of_consumer(svc: Arc<Placement>, call: Call) -> Reply {
    let uuid = call.param("consumer_uuid");
    let consumer = ops::consumer(&svc.store, uuid).await?;
    let held = ops::of(&svc.store, uuid).await?;
    let mut generations = BTreeMap::new();
    for provider in held.keys() {
        generations.insert(provider.clone(), provider::ops::get(&svc.store, provider).await?.generation);
    }
    let modified = consumer.as_ref().map_or_else(clock::now_us, |c| c.updated_us);
    let body = view::of_consumer(&call, consumer.as_ref().map(|c| &c.record), &held, &generations);
    Ok(fresh(&call, Response::ok(body), modified))
}

async fn of_provider(svc: Arc<Placement>, call: Call) -> Reply {
    let provider = provider::ops::get(&svc.store, call.param("uuid")).await?;
    let rows = ops::of_provider(&svc.store, &provider.uuid).await?;
    let mut consumers = BTreeMap::new();
    if view::tells_generations(&call) {
        for row in &rows {
            if let Some(consumer) = ops::consumer(&svc.store, &row.consumer).await? {
                consumers.insert(row.consumer.clone(), consumer.generation);
            }
        }
    }
    let modified = rows.iter().map(|r| r.updated_us).max().unwrap_or_else(clock::now_us);
    Ok(fresh(&call, Response::ok(view::of_provider(&call, provider.generation, &rows, &consumers)), modified))
}

async fn set(svc: Arc<Placement>, call: Call) -> Reply {
    let claim = view::claim(&call, call.param("consumer_uuid"), &call.body)?;
    ops::replace(&svc.store, vec![claim]).await?;
    Ok(Response::no_content())
}

async fn set_many(svc: Arc<Placement>, call: Call) -> Reply {
    ops::replace(&svc.store, view::claims(&call, &call.body)?).await?;
    Ok(Response::no_content())
}

async fn delete(svc: Arc<Placement>, call: Call) -> Reply {
    ops::delete(&svc.store, call.param("consumer_uuid")).await?;
    Ok(Response::no_content())
}
