//! The verbs of subnet pools, and cutting a subnet's block from one.
use super::model::SubnetPool;
use crate::{
    address, address_scope,
    attribute::overlay,
    check::{cidr_text, plain},
    delegation::{
        self,
        model::{NONE, POOL},
    },
    fault,
    list::Raw,
    network::ops::sees_all,
    quota,
    rbac::{
        self,
        model::{Action, EVERYONE},
        shared::Shareable,
    },
    subnet::model::Subnet,
    tables::find,
};
use ipnet::IpNet;
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Query, Stored, Tx};
use serde_json::{Value, json};

/// Blocks of a pool, neighbours and overlaps joined.
fn prefixes(texts: &[String]) -> Result<Vec<IpNet>, Fault> {
    let nets: Vec<IpNet> = texts.iter().map(|t| cidr_text(t).map_err(fault::invalid)).collect::<Result<_, _>>()?;
    if nets.is_empty() {
        return Err(fault::bad("EmptySubnetPoolPrefixList", "Empty subnet pool prefix list."));
    }
    if nets.iter().any(|n| n.addr().is_ipv4() != nets[0].addr().is_ipv4()) {
        return Err(fault::bad("PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool."));
    }
    let mut joined = IpNet::aggregate(&nets);
    joined.sort();
    Ok(joined)
}

fn texts(nets: &[IpNet]) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}

fn check_lengths(pool: &SubnetPool) -> Result<(), Fault> {
    let most = if pool.ip_version == 4 { 32 } else { 128 };
    let name = |n: u8, what: &str| {
        if n > most {
            return Err(fault::bad(
                "UnsupportedMaxSubnetPoolPrefix",
                format!("Prefix '{n}' not supported in IPv{} pool ({what}).", pool.ip_version),
            ));
        }
        Ok(())
    };
    name(pool.min_prefixlen, "min_prefixlen")?;
    name(pool.max_prefixlen, "max_prefixlen")?;
    name(pool.default_prefixlen, "default_prefixlen")?;
    if pool.min_prefixlen > pool.max_prefixlen {
        return Err(fault::bad(
            "IllegalSubnetPoolPrefixBounds",
            format!(
                "Illegal prefix bounds: min_prefixlen={}, max_prefixlen={}.",
                pool.min_prefixlen, pool.max_prefixlen
            ),
        ));
    }
    if pool.default_prefixlen < pool.min_prefixlen || pool.default_prefixlen > pool.max_prefixlen {
        return Err(fault::bad(
            "IllegalSubnetPoolPrefixBounds",
            format!(
                "Illegal prefix bounds: default_prefixlen={} is not between {} and {}.",
                pool.default_prefixlen, pool.min_prefixlen, pool.max_prefixlen
            ),
        ));
    }
    Ok(())
}

/// At most one default pool for each family.
async fn check_default(tx: &mut Tx, pool: &SubnetPool) -> Result<(), Fault> {
    if !pool.is_default {
        return Ok(());
    }
    let other = tx
        .list::<SubnetPool>(Query::all())
        .await?
        .into_iter()
        .any(|p| p.is_default && p.ip_version == pool.ip_version && p.id != pool.id);
    if other {
        Err(fault::invalid(
            "A default subnetpool for this IP family has already been set. Only one default may exist per IP family",
        ))
    } else {
        Ok(())
    }
}

pub async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<SubnetPool>, Fault> {
    let project = attrs.get("project_id").and_then(Value::as_str).unwrap_or_default();
    quota::check_in::<SubnetPool>(tx, project, "subnetpool").await?;
    let given: Vec<String> =
        serde_json::from_value(attrs.get("prefixes").cloned().unwrap_or(json!([]))).map_err(Fault::internal)?;
    let nets = prefixes(&given)?;
    let v4 = nets[0].addr().is_ipv4();
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    document.insert("prefixes".into(), json!(texts(&nets)));
    document.insert("ip_version".into(), json!(if v4 { 4 } else { 6 }));
    document.entry("min_prefixlen").or_insert(json!(if v4 { 8 } else { 64 }));
    document.entry("max_prefixlen").or_insert(json!(if v4 { 32 } else { 128 }));
    let least = document["min_prefixlen"].clone();
    document.entry("default_prefixlen").or_insert(least);
    document.entry("default_quota").or_insert(Value::Null);
    document.entry("address_scope_id").or_insert(Value::Null);
    let mut pool: SubnetPool = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    check_lengths(&pool)?;
    check_default(tx, &pool).await?;
    address_scope::ops::check_pool_in(tx, ctx, &pool, &nets, None).await?;
    if pool.shared {
        pool.check_in(tx, EVERYONE).await?;
        rbac::ops::follow_flag_in(tx, &mut pool, Action::Shared, true).await?;
    }
    Ok(tx.insert(&pool).await?)
}

/// Gives a pool other blocks, which the caller has found to hold all its subnets.
pub async fn set_prefixes_in(
    tx: &mut Tx,
    ctx: &Ctx,
    mut found: Stored<SubnetPool>,
    blocks: &[IpNet],
) -> Result<Vec<String>, Fault> {
    let nets = prefixes(&texts(blocks))?;
    if nets[0].addr().is_ipv4() != (found.ip_version == 4) {
        return Err(fault::bad("PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool."));
    }
    let before = found.record.clone();
    found.prefixes = texts(&nets);
    address_scope::ops::check_pool_in(tx, ctx, &found.record, &nets, Some(&before)).await?;
    Ok(tx.update(&found).await?.record.prefixes)
}

/// A pool may grow but not lose blocks.
pub async fn update_in(tx: &mut Tx, ctx: &Ctx, mut found: Stored<SubnetPool>, changes: &Raw) -> Result<(), Fault> {
    let mut after: SubnetPool = overlay(&found.record, changes)?;
    let nets = prefixes(&after.prefixes)?;
    let lost = prefixes(&found.prefixes)?.into_iter().any(|old| !nets.iter().any(|new| new.contains(&old)));
    if lost {
        return Err(fault::bad(
            "IllegalSubnetPoolPrefixUpdate",
            "Illegal update to prefixes: a subnet pool can only be extended.",
        ));
    }
    if (nets[0].addr().is_ipv4()) != (after.ip_version == 4) {
        return Err(fault::bad("PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool."));
    }
    after.prefixes = texts(&nets);
    check_lengths(&after)?;
    check_default(tx, &after).await?;
    address_scope::ops::check_pool_in(tx, ctx, &after, &nets, Some(&found.record)).await?;
    found.record = after;
    tx.update(&found).await?;
    Ok(())
}

pub async fn delete_in(tx: &mut Tx, found: Stored<SubnetPool>) -> Result<(), Fault> {
    if tx.count::<Subnet>(find::from_pool(&found.id)).await? > 0 {
        return Err(fault::conflict(
            "SubnetPoolInUse",
            format!("Unable to complete operation on subnet pool {}. Subnets still in use.", found.id),
        ));
    }
    rbac::ops::forget_in(tx, &found.id).await?;
    tx.delete::<SubnetPool>(&found.id).await?;
    Ok(())
}

/// The block of a new subnet, and the pool that it comes from.
pub async fn block_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<(IpNet, Option<String>), Fault> {
    if attrs.get("use_default_subnetpool") == Some(&json!(true))
        && attrs.get("subnetpool_id").is_some_and(|p| !p.is_null())
    {
        let why = "subnetpool_id and use_default_subnetpool cannot both be specified";
        return Err(fault::bad("BadRequest", format!("Bad subnets request: {why}.")));
    }
    if delegation::ops::is_wish(attrs)? {
        return Ok((NONE.parse().map_err(Fault::internal)?, Some(POOL.to_owned())));
    }
    let cidr = attrs.get("cidr").and_then(Value::as_str);
    let length = attrs.get("prefixlen").and_then(Value::as_u64).and_then(|n| u8::try_from(n).ok());
    let pool = match attrs.get("subnetpool_id").and_then(Value::as_str) {
        // With a block of its own nothing is lent.
        Some(POOL) => None,
        Some(id) => Some(find_pool(tx, ctx, id).await?),
        None if attrs.get("use_default_subnetpool") == Some(&json!(true)) => Some(default_pool(tx, attrs).await?),
        None => None,
    };
    if cidr.is_some() && length.is_some() {
        return Err(fault::bad("BadRequest", "Bad subnets request: cidr and prefixlen must not be supplied together."));
    }
    match (pool, cidr) {
        (None, Some(cidr)) => Ok((cidr_text(cidr).map_err(fault::invalid)?, None)),
        (None, None) => Err(fault::bad(
            "BadRequest",
            "Bad subnets request: a subnetpool must be specified in the absence of a cidr.",
        )),
        (Some(pool), cidr) => cut(tx, attrs, &pool, cidr, length).await,
    }
}

async fn find_pool(tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<Stored<SubnetPool>, Fault> {
    let found = tx.get::<SubnetPool>(id).await?;
    found
        .filter(|p| sees_all(ctx) || p.is_open_to(ctx.project_id()))
        .ok_or_else(|| fault::missing("SubnetPoolNotFound", "Subnet pool", id))
}

async fn default_pool(tx: &mut Tx, attrs: &Raw) -> Result<Stored<SubnetPool>, Fault> {
    let version = attrs.get("ip_version").and_then(Value::as_u64).unwrap_or(4);
    let all = tx.list::<SubnetPool>(Query::all()).await?;
    all.into_iter()
        .find(|p| p.is_default && u64::from(p.ip_version) == version)
        .ok_or_else(|| fault::missing("SubnetPoolNotFound", "Subnet pool", &format!("default for IPv{version}")))
}

async fn cut(
    tx: &mut Tx,
    attrs: &Raw,
    pool: &SubnetPool,
    cidr: Option<&str>,
    length: Option<u8>,
) -> Result<(IpNet, Option<String>), Fault> {
    if attrs.get("ip_version").and_then(Value::as_u64).is_some_and(|v| v != u64::from(pool.ip_version)) {
        let wanted = plain(&attrs["ip_version"]);
        return Err(fault::bad(
            "BadRequest",
            format!("Bad subnets request: Cannot allocate IPv{wanted} subnet from IPv{} subnet pool.", pool.ip_version),
        ));
    }
    let blocks = prefixes(&pool.prefixes)?;
    let subnets = tx.list::<Subnet>(find::from_pool(&pool.id)).await?;
    let taken: Vec<IpNet> = subnets.iter().filter_map(|s| s.net()).collect();
    let net = match cidr {
        Some(cidr) => {
            let net = cidr_text(cidr).map_err(fault::invalid)?;
            if !blocks.iter().any(|b| b.contains(&net)) {
                return Err(fault::bad(
                    "SubnetAllocationError",
                    "Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes.",
                ));
            }
            if taken.iter().any(|t| address::overlap(t, &net)) {
                return Err(fault::conflict(
                    "SubnetAllocationError",
                    "Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes.",
                ));
            }
            net
        }
        None => {
            let length = length.unwrap_or(pool.default_prefixlen);
            address::free_block(&blocks, &taken, length).ok_or_else(|| {
                fault::conflict(
                    "SubnetAllocationError",
                    format!("Failed to allocate subnet: Insufficient prefix space to allocate subnet size /{length}."),
                )
            })?
        }
    };
    let length = net.prefix_len();
    if length < pool.min_prefixlen {
        return Err(fault::bad(
            "MinPrefixSubnetAllocationError",
            format!(
                "Unable to allocate subnet with prefix length {length}, minimum allowed prefix is {}.",
                pool.min_prefixlen
            ),
        ));
    }
    if length > pool.max_prefixlen {
        return Err(fault::bad(
            "MaxPrefixSubnetAllocationError",
            format!(
                "Unable to allocate subnet with prefix length {length}, maximum allowed prefix is {}.",
                pool.max_prefixlen
            ),
        ));
    }
    check_quota(pool, attrs, &subnets, &net)?;
    Ok((net, Some(pool.id.clone())))
}

/// A pool's quota counts addresses (IPv4) or /64 blocks (IPv6) of one project.
fn check_quota(pool: &SubnetPool, attrs: &Raw, subnets: &[Stored<Subnet>], net: &IpNet) -> Result<(), Fault> {
    let Some(limit) = pool.default_quota else { return Ok(()) };
    let base: u8 = if pool.ip_version == 4 { 32 } else { 64 };
    let units = |n: &IpNet| 1u128 << base.saturating_sub(n.prefix_len());
    let project = attrs.get("project_id").and_then(Value::as_str).unwrap_or_default();
    let used: u128 =
        subnets.iter().filter(|s| s.project_id == project).filter_map(|s| s.net()).map(|n| units(&n)).sum();
    if used.saturating_add(units(net)) > u128::from(limit) {
        return Err(fault::conflict("SubnetPoolQuotaExceeded", "Per-tenant subnet pool prefix quota exceeded."));
    }
    Ok(())
}
