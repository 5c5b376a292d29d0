//! How much a project may have: `/v2.0/quotas`, and the check that every create makes in its transaction.
use crate::{
    Network,
    address_group::model::AddressGroup,
    fault,
    firewall::model::{FirewallGroup, FirewallPolicy, FirewallRule},
    floating_ip::model::FloatingIp,
    network::model::VirtualNetwork,
    port::model::Port,
    rbac::model::RbacPolicy,
    router::model::Router,
    security_group::model::{SecurityGroup, SecurityGroupRule},
    subnet::model::Subnet,
    subnet_pool::model::SubnetPool,
    tables::find,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, call::owned_by, quota::Quotas};
use pilvi_store::{Record, Store, Tx};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, OnceLock},
};

/// What the operator has instead of Neutron's defaults.
static CHOSEN: OnceLock<BTreeMap<String, i64>> = OnceLock::new();

/// Takes the operator's defaults, once, before anything is counted.
///
/// # Errors
/// Text that names a resource which has no quota, or a limit that cannot be.
pub fn choose(limits: BTreeMap<String, i64>) -> Result<(), String> {
    if let Some((name, limit)) = limits.iter().find(|(_, limit)| **limit < -1) {
        return Err(format!("{name} = {limit}: a limit is -1 (none) or more"));
    }
    if let Some(name) = limits.keys().find(|name| DEFAULTS.iter().all(|(known, _)| known != name)) {
        return Err(format!("{name} has no quota"));
    }
    // Who comes second in a process (a test) finds what the first has chosen.
    let _ = CHOSEN.set(limits);
    Ok(())
}

/// Neutron's own.
const DEFAULTS: &[(&str, i64)] = &[
    ("network", 100),
    ("subnet", 100),
    ("subnetpool", -1),
    ("port", 500),
    ("router", 10),
    ("floatingip", 50),
    ("security_group", 10),
    ("security_group_rule", 100),
    ("rbac_policy", 10),
    ("address_group", 10),
    ("firewall_group", 10),
    ("firewall_policy", 10),
    ("firewall_rule", 100),
];

pub static QUOTAS: LazyLock<Quotas> = LazyLock::new(|| {
    let mut quotas = Quotas::new("network", DEFAULTS);
    for (name, limit) in CHOSEN.get().into_iter().flatten() {
        if let Some(known) = quotas.defaults.get_mut(name.as_str()) {
            *known = *limit;
        }
    }
    quotas
});

/// 409 `OverQuota` if `project` has no room for one more `R`. Service-owned records (no project) are not counted.
pub async fn check_in<R: Record>(tx: &mut Tx, project: &str, resource: &'static str) -> Result<(), Fault> {
    check_many_in::<R>(tx, project, resource, 1).await
}

/// The same for `more` at once.
pub async fn check_many_in<R: Record>(
    tx: &mut Tx,
    project: &str,
    resource: &'static str,
    more: i64,
) -> Result<(), Fault> {
    if project.is_empty() {
        return Ok(());
    }
    let limits = QUOTAS.limits_in(tx, project).await?;
    let limit = limits.get(resource).copied().unwrap_or(-1);
    if limit < 0 {
        return Ok(());
    }
    let used = tx.count::<R>(find::of_project(project)).await?;
    if i64::try_from(used).unwrap_or(i64::MAX).saturating_add(more) > limit {
        Err(fault::over_quota(resource))
    } else {
        Ok(())
    }
}

static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(
        || json!({"type": "object", "required": ["quota"], "properties": {"quota": {"type": "object", "maxProperties": 32}}}),
    )
});

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/quotas", list).rule_by_handler("get_quota").summary("Quotas of projects that have their own"),
        Route::get("/v2.0/quotas/{project_id}", show).rule("get_quota").summary("Quotas of a project"),
        Route::get("/v2.0/quotas/{project_id}/default", defaults).rule("get_quota").summary("Default quotas"),
        Route::get("/v2.0/quotas/{project_id}/details.json", details).rule("get_quota").summary("Quotas and usage"),
        Route::get("/v2.0/quotas/{project_id}/details", details).rule("get_quota").summary("Quotas and usage"),
        Route::put("/v2.0/quotas/{project_id}", update)
            .rule("update_quota")
            .schema(&UPDATE)
            .summary("Sets quotas of a project"),
        Route::delete("/v2.0/quotas/{project_id}", clear).rule("delete_quota").summary("Back to the defaults"),
    ]
}

/// Administrators see every project with quotas of its own, others their own project.
async fn list(svc: Arc<Network>, call: Call) -> Reply {
    let all = call.may("update_quota", &owned_by(""));
    let overrides = svc.store.list::<pilvi_kit::quota::QuotaOverride>(pilvi_store::Query::all()).await?;
    let mut projects: Vec<String> = overrides
        .iter()
        .filter(|o| o.service == QUOTAS.service && (all || o.project_id == call.ctx.project_id()))
        .map(|o| o.project_id.clone())
        .collect();
    projects.sort();
    projects.dedup();
    let mut quotas = Vec::new();
    for project in projects.iter().take(1000) {
        let mut one = json!(QUOTAS.limits(&svc.store, project).await?);
        one["project_id"] = json!(project);
        one["tenant_id"] = json!(project);
        quotas.push(one);
    }
    Ok(Response::ok(json!({"quotas": quotas})))
}

async fn show(svc: Arc<Network>, call: Call) -> Reply {
    Ok(Response::ok(json!({"quota": QUOTAS.limits(&svc.store, call.param("project_id")).await?})))
}

async fn defaults(_svc: Arc<Network>, _call: Call) -> Reply {
    Ok(Response::ok(json!({"quota": QUOTAS.defaults})))
}

/// How many of each a project has.
async fn used(store: &Store, project: &str) -> Result<Vec<(&'static str, i64)>, Fault> {
    let q = || find::of_project(project);
    let used = [
        ("network", store.count::<VirtualNetwork>(q()).await?),
        ("subnet", store.count::<Subnet>(q()).await?),
        ("subnetpool", store.count::<SubnetPool>(q()).await?),
        ("port", store.count::<Port>(q()).await?),
        ("router", store.count::<Router>(q()).await?),
        ("floatingip", store.count::<FloatingIp>(q()).await?),
        ("security_group", store.count::<SecurityGroup>(q()).await?),
        ("security_group_rule", store.count::<SecurityGroupRule>(q()).await?),
        ("rbac_policy", store.count::<RbacPolicy>(q()).await?),
        ("address_group", store.count::<AddressGroup>(q()).await?),
        ("firewall_group", store.count::<FirewallGroup>(q()).await?),
        ("firewall_policy", store.count::<FirewallPolicy>(q()).await?),
        ("firewall_rule", store.count::<FirewallRule>(q()).await?),
    ];
    Ok(used.into_iter().map(|(name, n)| (name, i64::try_from(n).unwrap_or(i64::MAX))).collect())
}

async fn details(svc: Arc<Network>, call: Call) -> Reply {
    let project = call.param("project_id").to_owned();
    let limits = QUOTAS.limits(&svc.store, &project).await?;
    let used = used(&svc.store, &project).await?;
    let quota: Map<String, Value> = limits
        .iter()
        .map(|(name, limit)| {
            let used = used.iter().find(|(n, _)| n == name).map_or(0, |(_, u)| *u);
            (name.clone(), json!({"limit": limit, "used": used, "reserved": 0}))
        })
        .collect();
    Ok(Response::ok(json!({"quota": quota})))
}

async fn update(svc: Arc<Network>, call: Call) -> Reply {
    let mut limits = Vec::new();
    let mut force = false;
    for (name, value) in call.member("quota")?.as_object().into_iter().flatten() {
        if matches!(name.as_str(), "force" | "check_limit") {
            let set = crate::check::boolean(value)
                .map_err(|reason| Fault::bad_request(format!("Invalid input for {name}. Reason: {reason}.")))?;
            force |= name == "force" && set == json!(true);
            continue;
        }
        if matches!(name.as_str(), "tenant_id" | "project_id") {
            continue;
        }
        if !QUOTAS.defaults.contains_key(name.as_str()) {
            return Err(Fault::bad_request(format!("Unrecognized attribute(s) '{name}'")));
        }
        let limit = crate::check::int::<-1, 2_147_483_647>(value)
            .map_err(|reason| Fault::bad_request(format!("Invalid input for {name}. Reason: {reason}.")))?;
        limits.push((name.clone(), limit.as_i64().unwrap_or(-1)));
    }
    let project = call.param("project_id").to_owned();
    let used = used(&svc.store, &project).await?;
    let too_low = |(name, limit): &&(String, i64)| *limit >= 0 && used.iter().any(|(n, u)| *n == name && u > limit);
    if let Some((name, limit)) = limits.iter().find(too_low).filter(|_| !force) {
        return Err(fault::bad(
            "QuotaLimitTooLow",
            format!("Quota limit too low: {limit} {name} are fewer than project {project} has."),
        ));
    }
    let key = project.clone();
    svc.store
        .write(move |tx| {
            let (project, limits) = (key.clone(), limits.clone());
            Box::pin(async move { QUOTAS.set_in(tx, &project, &limits).await })
        })
        .await?;
    Ok(Response::ok(json!({"quota": QUOTAS.limits(&svc.store, &project).await?})))
}

async fn clear(svc: Arc<Network>, call: Call) -> Reply {
    let project = call.param("project_id").to_owned();
    svc.store
        .write(move |tx| {
            let project = project.clone();
            Box::pin(async move { QUOTAS.clear_in(tx, &project).await })
        })
        .await?;
    Ok(Response::no_content())
}

#[cfg(test)]
mod tests {
    use super::choose;
    use std::collections::BTreeMap;

    #[test]
    fn an_operator_cannot_limit_what_is_not_counted() {
        let one = |name: &str, limit| choose(BTreeMap::from([(name.to_owned(), limit)]));
        assert!(one("rooter", 5).unwrap_err().contains("rooter"));
        assert!(one("router", -2).unwrap_err().contains("-2"));
    }
}
