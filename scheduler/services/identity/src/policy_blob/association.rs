//! Which policy is for which endpoint (`OS-ENDPOINT-POLICY`): named for the endpoint itself, else for its
//! service in its region (or the regions above), else for its service.
use crate::{
    Identity,
    directory::Area,
    fault, listing,
    tables::{Endpoint, Policy, PolicyAssociation, Region, Service},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use pilvi_store::{Query, Tx};
use serde_json::json;
use std::sync::Arc;

/// Regions above regions that are followed.
const DEPTH_MAX: usize = 64;

pub(super) fn routes() -> Vec<Route<Identity>> {
    const ENDPOINT: &str = "/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}";
    const SERVICE: &str = "/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}";
    const REGION: &str = "/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}";
    vec![
        Route::put(ENDPOINT, create)
            .rule("identity:create_policy_association_for_endpoint")
            .summary("Name a policy for an endpoint"),
        Route::get(ENDPOINT, check)
            .rule("identity:check_policy_association_for_endpoint")
            .summary("Is a policy named for an endpoint?"),
        Route::delete(ENDPOINT, delete)
            .rule("identity:delete_policy_association_for_endpoint")
            .summary("Name a policy for an endpoint no more"),
        Route::put(SERVICE, create)
            .rule("identity:create_policy_association_for_service")
            .summary("Name a policy for a service"),
        Route::get(SERVICE, check)
            .rule("identity:check_policy_association_for_service")
            .summary("Is a policy named for a service?"),
        Route::delete(SERVICE, delete)
            .rule("identity:delete_policy_association_for_service")
            .summary("Name a policy for a service no more"),
        Route::put(REGION, create)
            .rule("identity:create_policy_association_for_region_and_service")
            .summary("Name a policy for a service in a region"),
        Route::get(REGION, check)
            .rule("identity:check_policy_association_for_region_and_service")
            .summary("Is a policy named for a service in a region?"),
        Route::delete(REGION, delete)
            .rule("identity:delete_policy_association_for_region_and_service")
            .summary("Name a policy for a service in a region no more"),
        Route::get("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints", endpoints)
            .rule("identity:list_endpoints_for_policy")
            .summary("List the endpoints a policy is for"),
        Route::get("/v3/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy", policy_of)
            .rule("identity:get_policy_for_endpoint")
            .summary("Show the policy of an endpoint"),
    ]
}

/// One policy at most for each endpoint, service, or service in a region: the id says which.
fn association(call: &Call) -> PolicyAssociation {
    let named = |name: &str| Some(call.param(name).to_owned()).filter(|v| !v.is_empty());
    let (endpoint_id, service_id, region_id) = (named("endpoint_id"), named("service_id"), named("region_id"));
    let part = |v: &Option<String>| v.clone().unwrap_or_else(|| "-".to_owned());
    let id = format!("{}:{}:{}", part(&endpoint_id), part(&service_id), part(&region_id));
    PolicyAssociation { id, policy_id: call.param("policy_id").to_owned(), endpoint_id, service_id, region_id }
}

async fn ends_exist_in(tx: &mut Tx, wanted: &PolicyAssociation) -> Result<(), Fault> {
    tx.get::<Policy>(&wanted.policy_id).await?.ok_or_else(|| fault::missing("policy", &wanted.policy_id))?;
    if let Some(id) = &wanted.endpoint_id {
        tx.get::<Endpoint>(id).await?.ok_or_else(|| fault::missing("endpoint", id))?;
    }
    if let Some(id) = &wanted.service_id {
        tx.get::<Service>(id).await?.ok_or_else(|| fault::missing("service", id))?;
    }
    if let Some(id) = &wanted.region_id {
        tx.get::<Region>(id).await?.ok_or_else(|| fault::missing("region", id))?;
    }
    Ok(())
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = association(&call);
    svc.write(Area::Quiet, move |tx| {
        let wanted = wanted.clone();
        Box::pin(async move {
            ends_exist_in(tx, &wanted).await?;
            match tx.get::<PolicyAssociation>(&wanted.id).await? {
                None => tx.insert(&wanted).await?,
                Some(mut known) => {
                    known.record.policy_id = wanted.policy_id;
                    tx.update(&known).await?
                }
            };
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}

fn missing() -> Fault {
    Fault::not_found("Could not find policy association.")
}

async fn check(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = association(&call);
    svc.store.get::<Policy>(&wanted.policy_id).await?.ok_or_else(|| fault::missing("policy", &wanted.policy_id))?;
    let found = svc.store.get::<PolicyAssociation>(&wanted.id).await?;
    if found.is_some_and(|f| f.policy_id == wanted.policy_id) { Ok(Response::no_content()) } else { Err(missing()) }
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = association(&call);
    svc.write(Area::Quiet, move |tx| {
        let wanted = wanted.clone();
        Box::pin(async move {
            ends_exist_in(tx, &wanted).await?;
            let found = tx.get::<PolicyAssociation>(&wanted.id).await?;
            if found.is_none_or(|f| f.policy_id != wanted.policy_id) {
                return Err(missing());
            }
            tx.delete::<PolicyAssociation>(&wanted.id).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}

/// The policy of an endpoint, by the most special association.
async fn find_for(svc: &Identity, all: &[PolicyAssociation], endpoint: &Endpoint) -> Result<Option<String>, Fault> {
    if let Some(own) = all.iter().find(|a| a.endpoint_id.as_ref() == Some(&endpoint.id)) {
        return Ok(Some(own.policy_id.clone()));
    }
    let of_service = |region: Option<&String>| {
        all.iter().find(|a| a.service_id.as_ref() == Some(&endpoint.service_id) && a.region_id.as_ref() == region)
    };
    let mut region = endpoint.region_id.clone();
    for _ in 0..DEPTH_MAX {
        let Some(id) = region else { break };
        if let Some(found) = of_service(Some(&id)) {
            return Ok(Some(found.policy_id.clone()));
        }
        region = svc.store.get::<Region>(&id).await?.and_then(|r| r.record.parent_region_id);
    }
    Ok(of_service(None).map(|a| a.policy_id.clone()))
}

async fn associations(svc: &Identity) -> Result<Vec<PolicyAssociation>, Fault> {
    Ok(svc.store.list::<PolicyAssociation>(Query::all()).await?.into_iter().map(|a| a.record).collect())
}

async fn endpoints(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("policy_id");
    svc.store.get::<Policy>(id).await?.ok_or_else(|| fault::missing("policy", id))?;
    let all = associations(&svc).await?;
    let records = svc.directory.catalog_records().await?;
    let mut items = Vec::new();
    for endpoint in &records.endpoints {
        if find_for(&svc, &all, endpoint).await?.as_deref() == Some(id) {
            items.push(crate::catalog::endpoint_view(&call, endpoint));
        }
    }
    Ok(listing::whole(&call, "endpoints", items))
}

async fn policy_of(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("endpoint_id");
    let endpoint = svc.store.get::<Endpoint>(id).await?.ok_or_else(|| fault::missing("endpoint", id))?;
    let all = associations(&svc).await?;
    let found = find_for(&svc, &all, &endpoint).await?.ok_or_else(missing)?;
    let policy = svc.store.get::<Policy>(&found).await?.ok_or_else(missing)?;
    Ok(Response::ok(json!({"policy": super::view(&call, &policy)})))
}
