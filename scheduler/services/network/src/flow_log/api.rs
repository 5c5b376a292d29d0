//! `/v2.0/log/logs`, and what can be logged.
use super::{
    model::{FlowLog, SECURITY_GROUP},
    ops,
};
use crate::{
    Network,
    attribute::{Absent, Resource, once, open},
    check::{self, Checked},
    crud::crud,
    list::Raw,
    verbs::Api,
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Route};
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};
use std::sync::Arc;

pub static FLOW_LOG: Resource = Resource {
    name: "log",
    collection: "logs",
    missing: "LogResourceNotFound",
    label: "Log resource",
    attrs: &[
        open("enabled", check::boolean).absent(Absent::Bool(true)),
        once("event", check_event).absent(Absent::Text("ALL")),
        once("resource_type", check::text::<255>).required(),
        once("resource_id", check::uuid_or_null).absent(Absent::Null),
        once("target_id", check::uuid_or_null).absent(Absent::Null),
    ],
    lacks: &["tags"],
    below: "",
};

fn check_event(value: &Value) -> Checked {
    check::one_of(value, &["ACCEPT", "DROP", "ALL"])
}

pub fn routes() -> Vec<Route<Network>> {
    let mut routes = crud!(FlowLog, FLOW_LOG, "/v2.0/log/logs", "log", "logs", open);
    routes.push(
        Route::get("/v2.0/log/loggable-resources", loggable)
            .rule_by_handler("get_loggable_resource")
            .summary("Lists what can be logged"),
    );
    routes
}

async fn loggable(_svc: Arc<Network>, call: Call) -> Reply {
    call.authorize(&call.target())?;
    Ok(Response::ok(json!({"loggable_resources": [{"type": SECURITY_GROUP}]})))
}

impl Api for FlowLog {
    const RESOURCE: &'static Resource = &FLOW_LOG;

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, ctx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        tx.delete::<FlowLog>(&found.id).await?;
        Ok(())
    }
}
