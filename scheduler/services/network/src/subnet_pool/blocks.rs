//! Blocks of a pool that come and go: prefix operations, and subnets that join a pool after they were made.
use super::{api::SUBNET_POOL, model::SubnetPool, ops};
use crate::{
    Network, address, check, fault,
    network::{model::VirtualNetwork, ops as networks},
    subnet::model::Subnet,
    tables::find,
    verbs::{gate, raw_of},
};
use ipnet::IpNet;
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Route, Schema};
use pilvi_store::Tx;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static PREFIXES: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| json!({"type": "object", "required": ["prefixes"], "properties": {"prefixes": {"type": "array"}}}))
});
static ONBOARD: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(
        || json!({"type": "object", "required": ["network_id"], "properties": {"network_id": {"type": "string"}}}),
    )
});

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::put("/v2.0/subnetpools/{id}/add_prefixes", add)
            .rule_by_handler("add_prefixes")
            .schema(&PREFIXES)
            .summary("Adds blocks to a pool"),
        Route::put("/v2.0/subnetpools/{id}/remove_prefixes", remove)
            .rule_by_handler("remove_prefixes")
            .schema(&PREFIXES)
            .summary("Takes blocks out of a pool"),
        Route::put("/v2.0/subnetpools/{id}/onboard_network_subnets", onboard)
            .rule_by_handler("onboard_network_subnets")
            .schema(&ONBOARD)
            .summary("Puts the subnets of a network into a pool"),
    ]
}

/// The pool's id, once the rule has let the caller past.
async fn asked(svc: &Network, call: &mut Call) -> Result<String, Fault> {
    let id = call.param("id").to_owned();
    let raw = raw_of::<SubnetPool>(&svc.store, &call.ctx, &id).await;
    let _ = call.may(call.rule(), &call.target());
    gate(call, &SUBNET_POOL, &raw?)?;
    Ok(id)
}

async fn add(svc: Arc<Network>, call: Call) -> Reply {
    change(svc, call, true).await
}

async fn remove(svc: Arc<Network>, call: Call) -> Reply {
    change(svc, call, false).await
}

async fn change(svc: Arc<Network>, mut call: Call, add: bool) -> Reply {
    let id = asked(&svc, &mut call).await?;
    let given = check::cidrs(call.member("prefixes")?)
        .map_err(|reason| Fault::bad_request(format!("Invalid input for prefixes. Reason: {reason}.")))?;
    let given: Vec<IpNet> = given.as_array().into_iter().flatten().filter_map(|b| b.as_str()?.parse().ok()).collect();
    let ctx = call.ctx.clone();
    let prefixes = svc
        .store
        .write(move |tx| {
            let (ctx, id, given) = (ctx.clone(), id.clone(), given.clone());
            Box::pin(async move { change_in(tx, &ctx, &id, &given, add).await })
        })
        .await?;
    Ok(Response::ok(json!({"prefixes": prefixes})))
}

async fn change_in(tx: &mut Tx, ctx: &Ctx, id: &str, given: &[IpNet], add: bool) -> Result<Vec<String>, Fault> {
    let pool = tx.get::<SubnetPool>(id).await?.ok_or_else(|| SUBNET_POOL.not_found(id))?;
    let have: Vec<IpNet> = pool.prefixes.iter().filter_map(|p| p.parse().ok()).collect();
    let mut after = have;
    if add {
        after.extend_from_slice(given);
    } else {
        for cut in given {
            after = after.iter().flat_map(|block| without(*block, cut)).collect();
        }
        let cut = |net: &IpNet| given.iter().any(|g| address::overlap(g, net));
        if tx.list::<Subnet>(find::from_pool(id)).await?.iter().filter_map(|s| s.net()).any(|n| cut(&n)) {
            return Err(fault::bad(
                "IllegalSubnetPoolPrefixUpdate",
                "Illegal update to prefixes: subnets have been allocated from a block that would go.",
            ));
        }
    }
    ops::set_prefixes_in(tx, ctx, pool, &after).await
}

/// What is left of a block without another: halves of halves.
fn without(block: IpNet, cut: &IpNet) -> Vec<IpNet> {
    if block.addr().is_ipv4() != cut.addr().is_ipv4() || !address::overlap(&block, cut) {
        return vec![block];
    }
    if cut.contains(&block) {
        return Vec::new();
    }
    let halves = block.subnets(block.prefix_len().saturating_add(1));
    halves.into_iter().flatten().flat_map(|half| without(half, cut)).collect()
}

async fn onboard(svc: Arc<Network>, mut call: Call) -> Reply {
    let id = asked(&svc, &mut call).await?;
    let network = call.member("network_id")?.as_str().unwrap_or_default().to_owned();
    let ctx = call.ctx.clone();
    let joined = svc
        .store
        .write(move |tx| {
            let (ctx, id, network) = (ctx.clone(), id.clone(), network.clone());
            Box::pin(async move { onboard_in(tx, &ctx, &id, &network).await })
        })
        .await?;
    Ok(Response::ok(Value::Array(joined)))
}

/// The network's subnets of the pool's family join it; their blocks become the pool's where they are not yet.
async fn onboard_in(tx: &mut Tx, ctx: &Ctx, id: &str, network_id: &str) -> Result<Vec<Value>, Fault> {
    let pool = tx.get::<SubnetPool>(id).await?.ok_or_else(|| SUBNET_POOL.not_found(id))?;
    let network = tx.get::<VirtualNetwork>(network_id).await?;
    let usable = |n: &VirtualNetwork| networks::sees_all(ctx) || n.project_id == ctx.project_id();
    network.filter(|n| usable(n)).ok_or_else(|| fault::network_missing(network_id))?;
    let all = tx.list::<Subnet>(find::on_network(network_id)).await?;
    let joining: Vec<_> = all.into_iter().filter(|s| s.ip_version == pool.ip_version).collect();
    if let Some(other) = joining.iter().find(|s| s.subnetpool_id.as_ref().is_some_and(|p| p != id)) {
        return Err(fault::bad(
            "IllegalSubnetPoolUpdate",
            format!("Illegal subnetpool update : subnet {} is in another subnetpool.", other.id),
        ));
    }
    let fresh: Vec<IpNet> = joining.iter().filter(|s| s.subnetpool_id.is_none()).filter_map(|s| s.net()).collect();
    let cut = tx.list::<Subnet>(find::from_pool(id)).await?;
    if cut.iter().filter_map(|s| s.net()).any(|n| fresh.iter().any(|f| address::overlap(f, &n))) {
        return Err(fault::bad(
            "IllegalSubnetPoolPrefixUpdate",
            "Illegal update to prefixes: subnets of the pool overlap those of the network.",
        ));
    }
    let mut blocks: Vec<IpNet> = pool.prefixes.iter().filter_map(|p| p.parse().ok()).collect();
    blocks.extend(fresh);
    ops::set_prefixes_in(tx, ctx, pool, &blocks).await?;
    let mut joined = Vec::new();
    for mut subnet in joining {
        joined.push(json!({"id": subnet.id, "cidr": subnet.cidr}));
        if subnet.subnetpool_id.is_none() {
            subnet.subnetpool_id = Some(id.to_owned());
            tx.update(&subnet).await?;
        }
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_without_its_middle_is_what_surrounds_it() {
        let net = |s: &str| s.parse::<IpNet>().unwrap();
        let left = without(net("10.0.0.0/8"), &net("10.64.0.0/10"));
        assert_eq!(left, [net("10.0.0.0/10"), net("10.128.0.0/9")]);
        assert_eq!(without(net("10.0.0.0/8"), &net("11.0.0.0/8")), [net("10.0.0.0/8")]);
        assert!(without(net("10.0.0.0/8"), &net("0.0.0.0/0")).is_empty());
        assert_eq!(without(net("::/0"), &net("10.0.0.0/8")), [net("::/0")]);
    }
}
