//! `/v2.0/security-groups-default-statefulness`: whether new groups keep flows in mind when nobody says so.
//!
//! ```text
//!  what the client said --> its project's setting --> the cloud's (no project) --> yes
//! ```
use crate::{
    Network,
    attribute::{Absent, Resource, once, open, overlay},
    check::{self, Checked},
    crud::crud,
    fault,
    list::Raw,
    network::ops::sees_all,
    tables::find,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

pub fn routes() -> Vec<Route<Network>> {
    crud!(
        Statefulness,
        STATEFULNESS,
        "/v2.0/security-groups-default-statefulness",
        "security_groups_default_statefulness",
        "default statefulness of security groups",
        open
    )
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
