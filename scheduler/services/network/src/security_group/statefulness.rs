//! `/v2.0/security-groups-default-statefulness`: whether new groups keep flows in mind when nobody says so.
//!
//! ```text
//!  what the client said --> its project's setting --> the cloud's (no project) --> yes
//! ```
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, once, open, overlay},
    check::{self, Checked},
    fault,
    list::Raw,
    network::ops::sees_all,
    tables::find,
    verbs::{self, Api},
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Route, Schema, call::Query, response::Body};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Statefulness {
    pub id: String,
    /// `None`: of the whole cloud.
    pub project_id: Option<String>,
    pub stateful: bool,
}

pub static STATEFULNESS: Resource = Resource {
    name: "security_groups_default_statefulness",
    collection: "security_groups_default_statefulness",
    missing: "SecurityGroupDefaultStatefulnessNotFound",
    label: "Security group default statefulness",
    attrs: &[
        once("project_id", project_or_null).absent(Absent::Null),
        once("tenant_id", project_or_null).hidden(),
        open("stateful", check::boolean).absent(Absent::Bool(true)),
    ],
    lacks: &["name", "description", "tags", "created_at", "updated_at", "revision_number"],
    below: "",
};

/// The cloud's own setting has none.
fn project_or_null(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { check::text::<255>(value) }
}

/// What openstacksdk calls one of them; the original has the collection's name for it.
const BY_CLIENT: &str = "security_group_default_statefulness";

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| STATEFULNESS.schema(Verb::Create)));

pub fn routes() -> Vec<Route<Network>> {
    let path = "/v2.0/security-groups-default-statefulness";
    let one = "/v2.0/security-groups-default-statefulness/{id}";
    vec![
        Route::get(path, verbs::list::<Statefulness>)
            .rule_by_handler("get_security_groups_default_statefulness")
            .summary("Lists what new security groups are"),
        Route::post(path, create)
            .rule_by_handler("create_security_groups_default_statefulness")
            .schema(&CREATE)
            .summary("Says what new security groups are"),
        Route::get(one, show)
            .rule_by_handler("get_security_groups_default_statefulness")
            .summary("Shows what new security groups are"),
        // Under either name: what is sent is looked at by hand.
        Route::put(one, update)
            .rule_by_handler("update_security_groups_default_statefulness")
            .schema(&CREATE)
            .summary("Says otherwise what new security groups are"),
        Route::delete(one, verbs::delete::<Statefulness>)
            .rule_by_handler("delete_security_groups_default_statefulness")
            .summary("Says no more what new security groups are"),
    ]
}

/// The body under the original's name.
fn renamed(mut call: Call) -> Call {
    if let Some(sent) = call.body.as_object_mut().and_then(|body| body.remove(BY_CLIENT)) {
        call.body[STATEFULNESS.name] = sent;
    }
    call
}

/// The answer under both names, so that either client finds it.
fn under_both(mut reply: Response) -> Response {
    if let Body::Json(body) = &mut reply.body
        && let Some(one) = body.get(STATEFULNESS.name).cloned()
    {
        body[BY_CLIENT] = one;
    }
    reply
}

async fn create(svc: Arc<Network>, call: Call) -> Reply {
    verbs::create::<Statefulness>(svc, renamed(call)).await.map(under_both)
}

async fn show(svc: Arc<Network>, call: Call) -> Reply {
    verbs::show::<Statefulness>(svc, call).await.map(under_both)
}

async fn update(svc: Arc<Network>, call: Call) -> Reply {
    verbs::update::<Statefulness>(svc, renamed(call)).await.map(under_both)
}

impl Api for Statefulness {
    const RESOURCE: &'static Resource = &STATEFULNESS;

    async fn candidates(store: &Store, ctx: &Ctx, _query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        let mut found = store.list::<Self>(Find::all()).await?;
        found.retain(|s| sees_all(ctx) || s.project_id.as_deref() == Some(ctx.project_id()));
        Ok(found)
    }

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        let project = attrs.get("project_id").and_then(Value::as_str).filter(|p| !p.is_empty()).map(str::to_owned);
        let others = tx.list::<Self>(Find::all()).await?;
        if others.iter().any(|o| o.project_id == project) {
            return Err(fault::conflict(
                "SecurityGroupDefaultStatefulnessAlreadyExists",
                format!(
                    "A security group default statefulness setting already exists for project '{}'.",
                    project.as_deref().unwrap_or("system-wide")
                ),
            ));
        }
        let stateful = attrs.get("stateful") != Some(&json!(false));
        Ok(tx.insert(&Statefulness { id: pilvi_kit::id::new(), project_id: project, stateful }).await?)
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, mut found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        found.record = overlay(&found.record, changes)?;
        tx.update(&found).await?;
        Ok(())
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        tx.delete::<Self>(&found.id).await?;
        Ok(())
    }
}

/// What a project's new groups are unless somebody says otherwise.
pub async fn default_in(tx: &mut Tx, project: &str) -> Result<bool, Fault> {
    let own = tx.list::<Statefulness>(find::of_project(project)).await?;
    if let Some(own) = own.first() {
        return Ok(own.stateful);
    }
    let all = tx.list::<Statefulness>(Find::all()).await?;
    Ok(all.iter().find(|s| s.project_id.is_none()).is_none_or(|s| s.stateful))
}
