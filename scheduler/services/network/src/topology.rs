//! `/v2.0/auto-allocated-topology/{project}`: one call makes a network, a subnet and a router that leads out.
//!
//! It needs a default external network and a default subnet pool. The network is recognised by its name, so
//! that asking again gives the same one.
use crate::{
    Network,
    attribute::{Resource, Verb},
    fault,
    network::{self, api::NETWORK, model::VirtualNetwork},
    router::{self, api::ROUTER, interface::Wish, model::Router},
    subnet::{self, api::SUBNET, model::Subnet},
    subnet_pool::model::SubnetPool,
    tables::find,
    verbs::Api,
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Route, call::owned_by};
use pilvi_store::{Query, Tx};
use serde_json::{Value, json};
use std::sync::Arc;

const NETWORK_NAME: &str = "auto_allocated_network";
const SUBNET_NAME: &str = "auto_allocated_subnet_v";
const ROUTER_NAME: &str = "auto_allocated_router";

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/auto-allocated-topology/{project_id}", show)
            .rule_by_handler("get_auto_allocated_topology")
            .summary("Gives or makes the project's topology"),
        Route::delete("/v2.0/auto-allocated-topology/{project_id}", remove)
            .rule_by_handler("delete_auto_allocated_topology")
            .summary("Removes it"),
    ]
}

fn project(call: &Call) -> Result<String, Fault> {
    let project = match call.param("project_id") {
        "None" | "null" => call.ctx.project_id(),
        given => given,
    };
    call.authorize(&owned_by(project))?;
    Ok(project.to_owned())
}

fn failed(reason: &str) -> Fault {
    fault::bad("AutoAllocationFailure", format!("Deployment error: {reason}."))
}

async fn show(svc: Arc<Network>, call: Call) -> Reply {
    let project = project(&call)?;
    let external = network::ops::default_external(&svc.store)
        .await?
        .ok_or_else(|| failed("No default router:external network"))?;
    let pools = svc.store.list::<SubnetPool>(Query::all()).await?;
    // A subnet of each default pool that there is.
    let versions: Vec<u8> =
        [4, 6].into_iter().filter(|v| pools.iter().any(|p| p.is_default && p.ip_version == *v)).collect();
    if versions.is_empty() {
        return Err(failed("No default subnetpools defined"));
    }
    if call.query.all("fields").any(|f| f == "dry-run") {
        return Ok(answer("dry-run=pass", &project));
    }
    let (ctx, key, outside) = (call.ctx.clone(), project.clone(), external.record.id);
    let id = svc
        .store
        .write(move |tx| {
            let (ctx, project, outside, versions) = (ctx.clone(), key.clone(), outside.clone(), versions.clone());
            Box::pin(async move { ensure_in(tx, &ctx, &project, &outside, &versions).await })
        })
        .await?;
    Ok(answer(&id, &project))
}

fn answer(id: &str, project: &str) -> Response {
    Response::ok(json!({"auto_allocated_topology": {"id": id, "tenant_id": project, "project_id": project}}))
}

fn attrs(res: &Resource, wanted: &Value, project: &str) -> Result<serde_json::Map<String, Value>, Fault> {
    res.parse(wanted, Verb::Create, project)
}

async fn ensure_in(tx: &mut Tx, ctx: &Ctx, project: &str, outside: &str, versions: &[u8]) -> Result<String, Fault> {
    if let Some(found) = tx.list::<VirtualNetwork>(find::named(project, NETWORK_NAME)).await?.into_iter().next() {
        return Ok(found.record.id);
    }
    let network = attrs(&NETWORK, &json!({"name": NETWORK_NAME}), project)?;
    let network = network::ops::create_in(tx, ctx, &network).await?.record.id;
    let router = json!({"name": ROUTER_NAME, "external_gateway_info": {"network_id": outside}});
    let router = router::ops::create_in(tx, ctx, &attrs(&ROUTER, &router, project)?).await?.record.id;
    for version in versions {
        let name = format!("{SUBNET_NAME}{version}");
        let subnet =
            json!({"name": name, "network_id": network, "ip_version": version, "use_default_subnetpool": true});
        let subnet = subnet::ops::create_in(tx, ctx, &attrs(&SUBNET, &subnet, project)?).await?.record.id;
        router::interface::add_in(tx, ctx, &router, &Wish { subnet_id: Some(subnet), port_id: None }).await?;
    }
    Ok(network)
}

async fn remove(svc: Arc<Network>, call: Call) -> Reply {
    let project = project(&call)?;
    let ctx = call.ctx.clone();
    svc.store
        .write(move |tx| {
            let (ctx, project) = (ctx.clone(), project.clone());
            Box::pin(async move { remove_in(tx, &ctx, &project).await })
        })
        .await?;
    Ok(Response::no_content())
}

/// Refused like the removal of each part: while servers are on the network, it stays.
async fn remove_in(tx: &mut Tx, ctx: &Ctx, project: &str) -> Result<(), Fault> {
    let networks = tx.list::<VirtualNetwork>(find::named(project, NETWORK_NAME)).await?;
    if networks.is_empty() {
        return Err(Fault::not_found(format!("Auto allocated topology for project {project} could not be found."))
            .kind("AutoAllocatedTopologyNotFound"));
    }
    for router in tx.list::<Router>(find::named(project, ROUTER_NAME)).await? {
        for port in router::interface::ports_in(tx, &router.id).await? {
            let wish = Wish { subnet_id: None, port_id: Some(port.record.id) };
            router::interface::remove_in(tx, &router.id, &wish).await?;
        }
        if let Some(fresh) = tx.get::<Router>(&router.id).await? {
            router::ops::delete_in(tx, fresh).await?;
        }
    }
    for network in networks {
        for subnet in tx.list::<Subnet>(find::on_network(&network.id)).await? {
            subnet::ops::delete_in(tx, subnet).await?;
        }
        VirtualNetwork::delete_in(tx, ctx, network).await?;
    }
    Ok(())
}
