//! Implied roles: whoever has the prior role has the implied one too.
use crate::{
    Identity,
    directory::{Area, RoleGraph},
    fault, listing,
    tables::{Inference, Role},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Vec<Route<Identity>> {
    const ONE: &str = "/v3/roles/{prior_role_id}/implies/{implied_role_id}";
    vec![
        Route::get("/v3/role_inferences", all)
            .rule("identity:list_role_inference_rules")
            .summary("List all role inference rules"),
        Route::get("/v3/roles/{prior_role_id}/implies", list)
            .rule("identity:list_implied_roles")
            .summary("List what a role implies"),
        Route::put(ONE, create).rule("identity:create_implied_role").summary("Let a role imply another"),
        Route::get(ONE, show)
            .rule_by_handler("identity:get_implied_role")
            .summary("Show a role inference rule; HEAD only checks it"),
        Route::delete(ONE, delete).rule("identity:delete_implied_role").summary("Let a role imply another no more"),
    ]
}

fn brief(call: &Call, role: &Role) -> Value {
    json!({"id": role.id, "name": role.name, "links": listing::self_link(call, &format!("/v3/roles/{}", role.id))})
}

fn inference(call: &Call, prior: &Role, implies: Value) -> Value {
    json!({"prior_role": brief(call, prior), "implies": implies})
}

fn find<'g>(graph: &'g RoleGraph, id: &str) -> Result<&'g Role, Fault> {
    graph.roles.get(id).ok_or_else(|| fault::missing("role", id))
}

fn implied_of(call: &Call, graph: &RoleGraph, prior: &str) -> Value {
    graph
        .implies
        .get(prior)
        .into_iter()
        .flatten()
        .filter_map(|id| graph.roles.get(id))
        .map(|r| brief(call, r))
        .collect()
}

async fn all(svc: Arc<Identity>, call: Call) -> Reply {
    let graph = svc.directory.role_graph().await?;
    let mut rules: Vec<Value> = Vec::new();
    for prior in graph.roles.values().filter(|r| graph.implies.contains_key(&r.id)) {
        rules.push(inference(&call, prior, implied_of(&call, &graph, &prior.id)));
    }
    Ok(Response::ok(json!({"role_inferences": rules, "links": {"self": call.url(&call.path)}})))
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let graph = svc.directory.role_graph().await?;
    let prior = find(&graph, call.param("prior_role_id"))?;
    let body = inference(&call, prior, implied_of(&call, &graph, &prior.id));
    Ok(Response::ok(json!({"role_inference": body, "links": {"self": call.url(&call.path)}})))
}

async fn one(svc: &Identity, call: &Call) -> Result<Value, Fault> {
    let graph = svc.directory.role_graph().await?;
    let (prior, implied) = (find(&graph, call.param("prior_role_id"))?, find(&graph, call.param("implied_role_id"))?);
    if !graph.implies.get(&prior.id).is_some_and(|list| list.contains(&implied.id)) {
        return Err(no_rule(&prior.id, &implied.id));
    }
    Ok(inference(call, prior, brief(call, implied)))
}

fn no_rule(prior: &str, implied: &str) -> Fault {
    Fault::not_found(format!("{prior} does not imply {implied}."))
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let checks = call.method.as_str() == "HEAD";
    call.enforce(if checks { "identity:check_implied_role" } else { "identity:get_implied_role" }, &call.target())?;
    let body = one(&svc, &call).await?;
    if checks {
        return Ok(Response::no_content());
    }
    Ok(Response::ok(json!({"role_inference": body, "links": {"self": call.url(&call.path)}})))
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let graph = svc.directory.role_graph().await?;
    let (prior, implied) = (find(&graph, call.param("prior_role_id"))?, find(&graph, call.param("implied_role_id"))?);
    if implied.name == "admin" && implied.domain_id.is_none() {
        return Err(Fault::forbidden(format!("{} cannot be an implied role.", implied.id)));
    }
    if implied.domain_id.is_some() && prior.domain_id.is_none() {
        return Err(Fault::forbidden(format!(
            "Role {} of a domain cannot be implied by a role of the whole cloud.",
            implied.id
        )));
    }
    if prior.id == implied.id || graph.expand([implied.id.as_str()]).contains(&prior.id) {
        return Err(Fault::forbidden("A role cannot imply itself, by whatever way."));
    }
    let rule = Inference::new(&prior.id, &implied.id);
    svc.write(Area::Roles, move |tx| {
        let rule = rule.clone();
        Box::pin(async move {
            tx.get::<Role>(&rule.prior).await?.ok_or_else(|| fault::missing("role", &rule.prior))?;
            tx.get::<Role>(&rule.implied).await?.ok_or_else(|| fault::missing("role", &rule.implied))?;
            if tx.get::<Inference>(&rule.id).await?.is_none() {
                tx.insert(&rule).await?;
            }
            Ok(())
        })
    })
    .await?;
    let body = one(&svc, &call).await?;
    Ok(Response::created(json!({"role_inference": body, "links": {"self": call.url(&call.path)}})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let graph = svc.directory.role_graph().await?;
    let (prior, implied) = (
        find(&graph, call.param("prior_role_id"))?.id.clone(),
        find(&graph, call.param("implied_role_id"))?.id.clone(),
    );
    svc.write(Area::Roles, move |tx| {
        let (prior, implied) = (prior.clone(), implied.clone());
        Box::pin(async move {
            if !tx.delete::<Inference>(&Inference::key(&prior, &implied)).await? {
                return Err(no_rule(&prior, &implied));
            }
            Ok(())
        })
    })
    .await?;
    Ok(Response::no_content())
}
