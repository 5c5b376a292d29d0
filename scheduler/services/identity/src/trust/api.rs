//! `/v3/OS-TRUST/trusts`
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types, with_extra},
    fault, listing,
    tables::{Role, Trust},
    target,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, clock};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

fn create_schema() -> Value {
    let role = json!({"type": "object", "properties": {"id": {"type": "string"}, "name": {"type": "string"}}, "minProperties": 1, "additionalProperties": false});
    body_schema(
        "trust",
        json!({"trustor_user_id": types::id(), "trustee_user_id": types::id(), "project_id": types::id_or_null(), "impersonation": types::flag(),
            "expires_at": types::text_or_null(), "remaining_uses": {"type": ["integer", "null"], "minimum": 1},
            "redelegation_count": {"type": ["integer", "null"], "minimum": 0}, "allow_redelegation": types::flag(),
            "roles": {"type": "array", "items": role, "maxItems": 256}}),
        &["trustor_user_id", "trustee_user_id", "impersonation"],
    )
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(create_schema));

pub(crate) fn routes() -> Vec<Route<Identity>> {
    const ONE: &str = "/v3/OS-TRUST/trusts/{trust_id}";
    vec![
        Route::get("/v3/OS-TRUST/trusts", list).rule_by_handler("identity:list_trusts").summary("List trusts"),
        Route::post("/v3/OS-TRUST/trusts", create)
            .rule_by_handler("identity:create_trust")
            .schema(&CREATE)
            .summary("Create a trust"),
        Route::get(ONE, show).rule_by_handler("identity:get_trust").summary("Show a trust"),
        Route::delete(ONE, delete).rule_by_handler("identity:delete_trust").summary("Delete a trust"),
        Route::get("/v3/OS-TRUST/trusts/{trust_id}/roles", roles)
            .rule_by_handler("identity:list_roles_for_trust")
            .summary("List a trust's roles"),
        Route::get("/v3/OS-TRUST/trusts/{trust_id}/roles/{role_id}", role)
            .rule_by_handler("identity:get_role_for_trust")
            .summary("Show a role of a trust"),
    ]
}

fn role_view(call: &Call, role: &Role) -> Value {
    json!({"id": role.id, "name": role.name, "domain_id": role.domain_id, "links": listing::self_link(call, &format!("/v3/roles/{}", role.id))})
}

async fn role_views(svc: &Identity, call: &Call, trust: &Trust) -> Result<Vec<Value>, Fault> {
    let graph = svc.directory.role_graph().await?;
    Ok(trust.roles.iter().filter_map(|id| graph.roles.get(id)).map(|r| role_view(call, r)).collect())
}

/// As lists show it: without roles.
fn summary(call: &Call, trust: &Trust) -> Value {
    let mut out = json!({
        "id": trust.id, "trustor_user_id": trust.trustor_user_id, "trustee_user_id": trust.trustee_user_id, "project_id": trust.project_id,
        "impersonation": trust.impersonation, "expires_at": trust.expires_us.map(clock::micros_z), "deleted_at": null,
        "remaining_uses": trust.remaining_uses, "redelegation_count": trust.redelegation_count,
        "links": listing::self_link(call, &format!("/v3/OS-TRUST/trusts/{}", trust.id)),
    });
    if let Some(parent) = &trust.redelegated_trust_id {
        out["redelegated_trust_id"] = parent.clone().into();
    }
    with_extra(out, &trust.extra)
}

async fn view(svc: &Identity, call: &Call, trust: &Trust) -> Result<Value, Fault> {
    let mut out = summary(call, trust);
    out["roles"] = role_views(svc, call, trust).await?.into();
    out["roles_links"] =
        json!({"self": call.url(&format!("/v3/OS-TRUST/trusts/{}/roles", trust.id)), "next": null, "previous": null});
    Ok(out)
}

fn about(call: &Call, trust: Option<&Trust>) -> pilvi_kit::Target {
    target::about(
        call,
        [("trust", trust.map(|t| json!({"trustor_user_id": t.trustor_user_id, "trustee_user_id": t.trustee_user_id})))],
    )
}

/// A trust that was not deleted, after the rule was asked about it.
async fn authorized(svc: &Identity, call: &Call) -> Result<Trust, Fault> {
    let id = call.param("trust_id");
    let found = svc.store.get::<Trust>(id).await?.map(|t| t.record).filter(|t| t.deleted_us.is_none());
    // As Keystone: whether a trust exists is told to all, so a missing one is 404 for everybody.
    let Some(trust) = found else {
        let _ = call.may(call.rule(), &call.target());
        return Err(fault::missing("trust", id));
    };
    call.authorize(&about(call, Some(&trust)))?;
    no_app_credential(call)?;
    Ok(trust)
}

/// A restricted application credential may not look at or make trusts.
fn no_app_credential(call: &Call) -> Result<(), Fault> {
    let caller = call.caller();
    if caller.application_credential_id.is_some() && !caller.unrestricted {
        return Err(Fault::forbidden(
            "You are not authorized to perform the requested action: Using method 'application_credential' is not allowed for managing trusts.",
        ));
    }
    Ok(())
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let (trustor, trustee) = (listing::exact(&call, "trustor_user_id"), listing::exact(&call, "trustee_user_id"));
    let (rule, member, query) = match (trustor, trustee) {
        (Some(id), _) => {
            ("identity:list_trusts_for_trustor", Some(json!({"trustor_user_id": id})), Trust::by_trustor(id))
        }
        (None, Some(id)) => {
            ("identity:list_trusts_for_trustee", Some(json!({"trustee_user_id": id})), Trust::to_trustee(id))
        }
        (None, None) => ("identity:list_trusts", None, Query::all()),
    };
    call.enforce(rule, &target::about(&call, [("trust", member)]))?;
    no_app_credential(&call)?;
    let trusts = svc.store.list::<Trust>(query).await?;
    let living = trusts.iter().filter(|t| t.deleted_us.is_none());
    listing::answer(
        &svc,
        &call,
        "trusts",
        living.map(|t| summary(&call, t)).collect(),
        &["trustor_user_id", "trustee_user_id"],
    )
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "trust")?;
    let trustor = wanted.need("trustor_user_id", "trust")?;
    call.authorize(&target::about(
        &call,
        [("trust", Some(json!({"trustor_user_id": trustor, "trustee_user_id": wanted.text("trustee_user_id")})))],
    ))?;
    no_app_credential(&call)?;
    let trust = svc.trust_of(&call, &wanted).await?;
    let trust = svc.store_trust(trust).await?;
    Ok(Response::created(json!({"trust": view(&svc, &call, &trust).await?})))
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let trust = authorized(&svc, &call).await?;
    Ok(Response::ok(json!({"trust": view(&svc, &call, &trust).await?})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let trust = authorized(&svc, &call).await?;
    svc.delete_trust(&trust.id).await?;
    Ok(Response::no_content())
}

async fn roles(svc: Arc<Identity>, call: Call) -> Reply {
    let trust = authorized(&svc, &call).await?;
    let items = role_views(&svc, &call, &trust).await?;
    Ok(listing::whole(&call, "roles", items))
}

async fn role(svc: Arc<Identity>, call: Call) -> Reply {
    let trust = authorized(&svc, &call).await?;
    let id = call.param("role_id");
    let graph = svc.directory.role_graph().await?;
    let role = graph.roles.get(id).filter(|r| trust.roles.contains(&r.id)).ok_or_else(|| fault::missing("role", id))?;
    Ok(Response::ok(json!({"role": role_view(&call, role)})))
}
