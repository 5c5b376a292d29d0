//! `/v2.0/qos/alias_..._rules/{id}`: rules by their own id, without their policy's.
use super::model::{Bandwidth, Dscp, Kind, LeastBandwidth, LeastPacketRate, QosRule};
use crate::{
    Network,
    attribute::Verb,
    list,
    verbs::{self, Api, gate, raw_of},
};
use pilvi_kit::{Call, Reply, Response, Route, Schema};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| json!({"type": "object", "maxProperties": 1})));

macro_rules! by_id {
    ($kind:ty, $name:literal) => {
        [
            Route::get(concat!("/v2.0/qos/alias_", $name, "s/{id}"), show::<$kind>)
                .rule_by_handler(concat!("get_alias_", $name)),
            Route::put(concat!("/v2.0/qos/alias_", $name, "s/{id}"), update::<$kind>)
                .rule_by_handler(concat!("update_alias_", $name))
                .schema(&UPDATE),
            Route::delete(concat!("/v2.0/qos/alias_", $name, "s/{id}"), verbs::delete::<QosRule<$kind>>)
                .rule_by_handler(concat!("delete_alias_", $name)),
        ]
    };
}

pub fn routes() -> Vec<Route<Network>> {
    let all = [
        by_id!(Bandwidth, "bandwidth_limit_rule"),
        by_id!(Dscp, "dscp_marking_rule"),
        by_id!(LeastBandwidth, "minimum_bandwidth_rule"),
        by_id!(LeastPacketRate, "minimum_packet_rate_rule"),
    ];
    all.into_iter().flatten().map(|r| r.summary("A rule by its own id")).collect()
}

fn name<K: Kind>() -> String {
    format!("alias_{}", K::RESOURCE.name)
}

async fn show<K: Kind>(svc: Arc<Network>, call: Call) -> Reply {
    let raw = raw_of::<QosRule<K>>(&svc.store, &call.ctx, call.param("id")).await;
    let _ = call.may(call.rule(), &call.target());
    let raw = raw?;
    gate(&call, K::RESOURCE, &raw)?;
    Ok(Response::ok(json!({ name::<K>(): list::view(&call, K::RESOURCE, &raw) })))
}

async fn update<K: Kind>(svc: Arc<Network>, call: Call) -> Reply {
    let id = call.param("id").to_owned();
    let raw = raw_of::<QosRule<K>>(&svc.store, &call.ctx, &id).await;
    let _ = call.may(call.rule(), &call.target());
    gate(&call, K::RESOURCE, &raw?)?;
    let sent = call.body.get(name::<K>()).cloned().unwrap_or(Value::Null);
    let changes = K::RESOURCE.parse(&sent, Verb::Update, "")?;
    let (ctx, key) = (call.ctx.clone(), id.clone());
    svc.store
        .write(move |tx| {
            let (ctx, id, changes) = (ctx.clone(), key.clone(), changes.clone());
            Box::pin(async move {
                let found = tx.get::<QosRule<K>>(&id).await?.ok_or_else(|| K::RESOURCE.not_found(&id))?;
                QosRule::<K>::update_in(tx, &ctx, found, &changes).await
            })
        })
        .await?;
    let raw = raw_of::<QosRule<K>>(&svc.store, &call.ctx, &id).await?;
    Ok(Response::ok(json!({ name::<K>(): list::view(&call, K::RESOURCE, &raw) })))
}
