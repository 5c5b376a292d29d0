//! OAuth 1 consumers: programs that may ask users for access. Their secret is shown once.
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types, with_extra},
    cascade,
    directory::Area,
    fault, listing, password,
    tables::OauthConsumer,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const KNOWN: &[&str] = &["description", "secret"];

static BODY: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| body_schema("consumer", json!({"description": types::text_or_null()}), &[])));

pub(super) fn routes() -> Vec<Route<Identity>> {
    const ALL: &str = "/v3/OS-OAUTH1/consumers";
    const ONE: &str = "/v3/OS-OAUTH1/consumers/{consumer_id}";
    vec![
        Route::get(ALL, list).rule("identity:list_consumers").summary("List OAuth consumers"),
        Route::post(ALL, create).rule("identity:create_consumer").schema(&BODY).summary("Create an OAuth consumer"),
        Route::get(ONE, show).rule("identity:get_consumer").summary("Show an OAuth consumer"),
        Route::patch(ONE, update).rule("identity:update_consumer").schema(&BODY).summary("Change an OAuth consumer"),
        Route::delete(ONE, delete).rule("identity:delete_consumer").summary("Delete an OAuth consumer"),
    ]
}

fn view(call: &Call, consumer: &OauthConsumer) -> Value {
    let base = json!({"id": consumer.id, "description": consumer.description, "links": listing::self_link(call, &format!("/v3/OS-OAUTH1/consumers/{}", consumer.id))});
    with_extra(base, &consumer.extra)
}

pub(super) fn missing(id: &str) -> Fault {
    fault::missing("consumer", id)
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let consumers = svc.store.list::<OauthConsumer>(Query::all()).await?;
    listing::answer(&svc, &call, "consumers", consumers.iter().map(|c| view(&call, c)).collect(), &[])
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("consumer_id");
    let consumer = svc.store.get::<OauthConsumer>(id).await?.ok_or_else(|| missing(id))?;
    Ok(Response::ok(json!({"consumer": view(&call, &consumer)})))
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "consumer")?;
    let consumer = OauthConsumer {
        id: id::hex(),
        description: wanted.text("description"),
        secret: password::generate(),
        extra: wanted.extra(KNOWN),
    };
    let consumer = svc
        .write(Area::Quiet, move |tx| {
            let consumer = consumer.clone();
            Box::pin(async move { Ok(tx.insert(&consumer).await?.record) })
        })
        .await?;
    let mut shown = view(&call, &consumer);
    shown["secret"] = consumer.secret.into();
    Ok(Response::created(json!({"consumer": shown})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let (id, wanted) = (call.param("consumer_id").to_owned(), Attributes::of(&call, "consumer")?);
    if wanted.has("secret") {
        return Err(Fault::bad_request("Cannot change consumer secret"));
    }
    let consumer = svc
        .write(Area::Quiet, move |tx| {
            let (id, wanted) = (id.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored = tx.get::<OauthConsumer>(&id).await?.ok_or_else(|| missing(&id))?;
                if wanted.has("description") {
                    stored.record.description = wanted.text("description");
                }
                wanted.merge_extra(&mut stored.record.extra, KNOWN);
                Ok(tx.update(&stored).await?.record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"consumer": view(&call, &consumer)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("consumer_id").to_owned();
    svc.write(Area::People, move |tx| {
        let id = id.clone();
        Box::pin(async move {
            if !tx.delete::<OauthConsumer>(&id).await? {
                return Err(missing(&id));
            }
            cascade::consumer_in(tx, &id).await
        })
    })
    .await?;
    Ok(Response::no_content())
}
