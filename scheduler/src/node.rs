//! `pilvi node`: joining and listing hosts, and the programs that their guests run in. Works on the store itself, so it needs root and no password.
use crate::{
    cli::{Common, Guests, Token, UpgradeGuests},
    config::Config,
    output, preflight, site,
    state::State,
};
use anyhow::Result;
use pilvi_compute::server::program::{self, Of, Program};
use pilvi_fleet::Fleet;
use pilvi_store::Store;
use std::{sync::Arc, time::Duration};

async fn store(common: &Common) -> Result<(State, Config, Store)> {
    preflight::root("node")?;
    let state = State::open(common)?;
    let config = Config::load(common, &state, None)?;
    let store = site::open_store(&state, &config).await?;
    Ok((state, config, store))
}

async fn fleet(common: &Common) -> Result<Arc<Fleet>> {
    let (state, config, store) = store(common).await?;
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

fn say(guests: &[Program]) {
    output::line(&format!("{:<36}  {:<20}  {:<7}  {:<44}  newer", "server", "host", "runtime", "program"));
    for guest in guests {
        let newer = match (guest.newer.as_str(), guest.asked, guest.error.as_str()) {
            ("", ..) => String::new(),
            (newer, true, _) => format!("{newer}, asked for"),
            (newer, false, "") => newer.to_owned(),
            (newer, false, error) => format!("{newer}, failed: {error}"),
        };
        let (server, host, runtime, program) = (&guest.server, &guest.host, &guest.runtime, &guest.program);
        output::line(format!("{server:<36}  {host:<20}  {runtime:<7}  {program:<44}  {newer}").trim_end());
    }
}

pub async fn guests(common: &Common, arguments: &Guests) -> Result<()> {
    let (_, _, store) = store(common).await?;
    say(&program::programs(&store, arguments.host.as_deref().map_or(Of::All, Of::Host)).await?);
    Ok(())
}

pub async fn upgrade(common: &Common, arguments: &UpgradeGuests) -> Result<()> {
    let (_, _, store) = store(common).await?;
    let of = match (&arguments.server, &arguments.host) {
        (Some(server), _) => Of::Server(server),
        (None, Some(host)) => Of::Host(host),
        (None, None) => return Err(preflight::Refusal("name a host, or a server by --server".into()).into()),
    };
    let asked = program::upgrade(&store, of).await?;
    if asked.is_empty() {
        output::line("no guest there runs in another program than it would after a start");
        return Ok(());
    }
    say(&asked);
    Ok(())
}
