//! `pilvi node`: joining and listing hosts. Works on the store itself, so it needs root and no password.
use crate::{
    cli::{Common, Token},
    config::Config,
    output, preflight, site,
    state::State,
};
use anyhow::Result;
use pilvi_fleet::Fleet;
use std::{sync::Arc, time::Duration};

async fn fleet(common: &Common) -> Result<Arc<Fleet>> {
    preflight::root("node")?;
    let state = State::open(common)?;
    let config = Config::load(common, &state, None)?;
    let store = site::open_store(&state, &config).await?;
    let authority = site::shared_authority(&store, &state, &config).await?;
    Ok(Fleet::new(store, authority, pilvi_fleet::Config::default()))
}

pub async fn token(common: &Common, arguments: &Token) -> Result<()> {
    let ttl = Duration::from_secs(arguments.minutes.saturating_mul(60));
    let tokens = fleet(common).await?.new_join_tokens(ttl, arguments.host.clone(), arguments.count).await?;
    tokens.iter().for_each(|token| output::line(token));
    Ok(())
}

pub async fn list(common: &Common) -> Result<()> {
    let nodes = fleet(common).await?.nodes().await?;
    output::line(&format!("{:<36}  {:<20}  {:<10}  {:>5}  {:>10}  runtimes", "id", "name", "state", "vcpus", "memory"));
    for node in nodes {
        let usable: Vec<&str> = node.inventory.runtimes.iter().filter(|r| r.1).map(|r| r.0.as_str()).collect();
        let state = if node.disabled { "disabled" } else { node.state.as_str() };
        output::line(&format!(
            "{:<36}  {:<20}  {state:<10}  {:>5}  {:>6} MiB  {}",
            node.record.id,
            node.record.name,
            node.inventory.vcpus,
            node.inventory.memory_mib,
            usable.join(",")
        ));
    }
    Ok(())
}
