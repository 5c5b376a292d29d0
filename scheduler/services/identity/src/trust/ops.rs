//! The verbs of trusts.
use crate::{
    Identity,
    attributes::Attributes,
    fault, revocation,
    tables::{Place, RevocationEvent, Trust},
};
use pilvi_kit::{Call, Fault, clock, id};
use pilvi_store::Tx;
use serde_json::Value;

/// Trusts made from trusts, at most.
const REDELEGATION_MAX: i64 = 3;
const KNOWN: &[&str] = &[
    "trustor_user_id",
    "trustee_user_id",
    "project_id",
    "impersonation",
    "roles",
    "expires_at",
    "remaining_uses",
    "redelegation_count",
    "allow_redelegation",
    "redelegated_trust_id",
    "deleted_at",
];

fn expiry(wanted: &Attributes) -> Result<Option<i64>, Fault> {
    let Some(text) = wanted.text("expires_at") else { return Ok(None) };
    let malformed = "The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.";
    let at = clock::parse(&text)
        .ok_or_else(|| Fault::bad_request(format!("Timestamp not in expected format. {malformed}")))?;
    if at <= clock::now_us() {
        return Err(Fault::bad_request(format!("The 'expires_at' must not be before now. {malformed}")));
    }
    Ok(Some(at))
}

fn refuse<T>(text: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::forbidden(text))
}

impl Identity {
    /// The trust that a request describes, checked against the caller and, if he acts by a trust, against that.
    pub(super) async fn trust_of(&self, call: &Call, wanted: &Attributes) -> Result<Trust, Fault> {
        let trustor = wanted.need("trustor_user_id", "trust")?;
        if trustor != call.caller().user_id {
            return refuse(
                "You are not authorized to perform the requested action: The authenticated user should match the trustor.",
            );
        }
        let trustee = wanted.need("trustee_user_id", "trust")?;
        if trustee.contains('\0') || self.directory.user(&trustee).await?.is_none() {
            return Err(fault::missing("user", &trustee));
        }
        let remaining = wanted.0.get("remaining_uses").and_then(Value::as_i64);
        let allow = wanted.flag("allow_redelegation").unwrap_or(false);
        let count = wanted.0.get("redelegation_count").and_then(Value::as_i64);
        let mut trust = Trust {
            id: id::hex(),
            trustor_user_id: trustor,
            trustee_user_id: trustee,
            project_id: wanted.text("project_id"),
            impersonation: wanted.flag("impersonation").ok_or_else(|| fault::expecting("impersonation", "trust"))?,
            roles: self.role_ids(wanted).await?,
            expires_us: expiry(wanted)?,
            remaining_uses: remaining,
            redelegation_count: if allow { count.unwrap_or(REDELEGATION_MAX) } else { 0 },
            allow_redelegation: allow,
            redelegated_trust_id: None,
            deleted_us: None,
            extra: wanted.extra(KNOWN),
        };
        if trust.project_id.is_some() && trust.roles.is_empty() {
            return refuse(
                "You are not authorized to perform the requested action: At least one role should be specified.",
            );
        }
        if count.is_some_and(|c| !(0..=REDELEGATION_MAX).contains(&c)) {
            return refuse(format!(
                "Requested redelegation depth of {} is greater than allowed {REDELEGATION_MAX}.",
                count.unwrap_or_default()
            ));
        }
        if allow && remaining.is_some() {
            return Err(Fault::bad_request("remaining_uses must not be set if redelegation is allowed."));
        }
        let owner = self.redelegate(call, &mut trust, count).await?;
        self.check_owner_has_roles(&owner, &trust).await?;
        Ok(trust)
    }

    /// The ids of `roles`, each named by id or, if that is of the whole cloud, by name.
    async fn role_ids(&self, wanted: &Attributes) -> Result<Vec<String>, Fault> {
        let graph = self.directory.role_graph().await?;
        let mut out: Vec<String> = Vec::new();
        for role in wanted.list("roles").into_iter().flatten() {
            let named = |key: &str| role.get(key).and_then(Value::as_str);
            let found = match (named("id"), named("name")) {
                (Some(id), _) => graph.roles.get(id),
                (None, Some(name)) => graph.roles.values().find(|r| r.name == name && r.domain_id.is_none()),
                (None, None) => return Err(fault::expecting("id or name", "role")),
            };
            let role =
                found.ok_or_else(|| fault::missing("role", named("id").or(named("name")).unwrap_or_default()))?;
            if !out.contains(&role.id) {
                out.push(role.id.clone());
            }
        }
        Ok(out)
    }

    /// Cuts `trust` to what the trust the caller acts by allows; gives the user whose roles are handed on.
    async fn redelegate(&self, call: &Call, trust: &mut Trust, asked: Option<i64>) -> Result<String, Fault> {
        let Some(by) = &call.caller().trust_id else { return Ok(trust.trustor_user_id.clone()) };
        let parent = self
            .store
            .get::<Trust>(by)
            .await?
            .map(|t| t.record)
            .filter(|t| t.deleted_us.is_none())
            .ok_or_else(|| fault::missing("trust", by))?;
        if !(1..=REDELEGATION_MAX).contains(&parent.redelegation_count) {
            return refuse(format!(
                "Remaining redelegation depth of {} out of allowed range of [0..{REDELEGATION_MAX}].",
                parent.redelegation_count
            ));
        }
        if asked.is_some() {
            return refuse(
                "Modifying \"redelegation_count\" upon redelegation is forbidden. Omitting this parameter is advised.",
            );
        }
        if trust.remaining_uses.is_some() {
            return refuse("Field \"remaining_uses\" is set while it must not be set in order to redelegate a trust.");
        }
        if trust.project_id != parent.project_id || trust.roles.iter().any(|r| !parent.roles.contains(r)) {
            return refuse("Some of requested roles are not in redelegated trust.");
        }
        if trust.impersonation && !parent.impersonation {
            return refuse("Impersonation is not allowed because redelegated trust does not specify impersonation.");
        }
        match (trust.expires_us, parent.expires_us) {
            (Some(own), Some(limit)) if own > limit => {
                return refuse("Requested expiration time is more than redelegated trust can provide.");
            }
            (None, limit) => trust.expires_us = limit,
            _ => {}
        }
        trust.redelegation_count = if trust.allow_redelegation { parent.redelegation_count - 1 } else { 0 };
        trust.redelegated_trust_id = Some(parent.id.clone());
        let (mut owner, mut above) = (parent.trustor_user_id, parent.redelegated_trust_id);
        for _ in 0..REDELEGATION_MAX {
            let Some(id) = above else { break };
            let next =
                self.store.get::<Trust>(&id).await?.map(|t| t.record).ok_or_else(|| fault::missing("trust", &id))?;
            (owner, above) = (next.trustor_user_id, next.redelegated_trust_id);
        }
        Ok(owner)
    }

    async fn check_owner_has_roles(&self, owner: &str, trust: &Trust) -> Result<(), Fault> {
        let Some(project) = &trust.project_id else { return Ok(()) };
        if project.contains('\0') || self.directory.project(project).await?.is_none() {
            return Err(fault::missing("project", project));
        }
        let held = self.directory.role_ids_at(owner, &Place::Project(project.clone())).await?;
        match trust.roles.iter().find(|id| !held.contains(*id)) {
            Some(id) => Err(fault::missing("role", id)),
            None => Ok(()),
        }
    }

    pub(super) async fn store_trust(&self, trust: Trust) -> Result<Trust, Fault> {
        self.write(crate::directory::Area::Quiet, move |tx| {
            let trust = trust.clone();
            Box::pin(async move { Ok(tx.insert(&trust).await?.record) })
        })
        .await
    }

    /// Deletes a trust and all made from it; their tokens end.
    pub(super) async fn delete_trust(&self, id: &str) -> Result<(), Fault> {
        let events = vec![RevocationEvent { trust_id: Some(id.to_owned()), ..revocation() }];
        let id = id.to_owned();
        self.write_and_revoke(events, move |tx| {
            let id = id.clone();
            Box::pin(async move { delete_in(tx, id).await })
        })
        .await
    }
}

async fn delete_in(tx: &mut Tx, id: String) -> Result<(), Fault> {
    let mut todo = vec![id];
    while let Some(id) = todo.pop() {
        if let Some(mut trust) = tx.get::<Trust>(&id).await?
            && trust.deleted_us.is_none()
        {
            trust.record.deleted_us = Some(clock::now_us());
            tx.update(&trust).await?;
            todo.extend(tx.list::<Trust>(Trust::made_from(&id)).await?.into_iter().map(|t| t.record.id));
        }
    }
    Ok(())
}
