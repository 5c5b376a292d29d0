//! The action `migrate`: a server goes to another host while it is off.
use super::{api::host, cold::Cold};
use crate::{Compute, tables::Server, version as v};
use pilvi_kit::{Call, Reply, Response, Schema, call::owned_by};
use pilvi_store::Stored;
use serde_json::{Value, json};
use std::sync::LazyLock;

const MOVE_TO: &str = "os_compute_api:os-migrate-server:migrate:host";

static NAMED: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let members = json!({"host": host()});
        json!({"type": ["object", "null"], "additionalProperties": false, "properties": members})
    })
});

/// The handler of the action.
pub async fn migrate(svc: &Compute, call: &Call, server: &Stored<Server>, body: &Value) -> Reply {
    let mut named = None;
    if call.version >= v::COLD_MIGRATION_HOST {
        NAMED.check(body)?;
        named = body["host"].as_str().map(str::to_owned);
    }
    if named.is_some() {
        call.enforce(MOVE_TO, &owned_by(&server.project_id))?;
    }
    match svc.cold_migrate(&call.ctx, server, &Cold { host: named, flavor: None }).await {
        // What the scheduler finds is told by the list of migrations and the log of actions alone.
        Err(fault) if fault.message.starts_with("No valid host") => {
            svc.note_failed_cold(&call.ctx, server, &fault.message).await?;
            Ok(Response::empty(202))
        }
        outcome => outcome.map(|()| Response::empty(202)),
    }
}
