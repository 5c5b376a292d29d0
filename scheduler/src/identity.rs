//! `pilvi identity`: what an operator does to identity itself. Works on the store and the keys, so it needs root
//! and no password; a scheduler that runs takes up what changed.
use crate::{
    cli::{Common, ImportKeystone, RotateKeys},
    config::Config,
    output, preflight, site,
    state::State,
};
use anyhow::{Context, Result};
use pilvi_identity::Identity;
use std::{fs::File, io::BufReader, sync::Arc};

async fn identity(common: &Common) -> Result<Arc<Identity>> {
    preflight::root("identity")?;
    let state = State::open(common)?;
    let config = Config::load(common, &state, None)?;
    let store = site::open_store(&state, &config).await?;
    site::identity(&state, &config, &store).await
}

/// Takes an existing Keystone's people, places and roles from a dump of its database.
pub async fn import_keystone(common: &Common, arguments: &ImportKeystone) -> Result<()> {
    let name = arguments.dump.display();
    let dump = File::open(&arguments.dump).with_context(|| name.to_string())?;
    let report =
        identity(common).await?.import_keystone(BufReader::new(dump)).await.with_context(|| name.to_string())?;
    report.to_string().lines().for_each(output::line);
    Ok(())
}

/// Makes the next keys; without a choice those of tokens and those of sealed credentials.
pub async fn rotate_keys(common: &Common, arguments: &RotateKeys) -> Result<()> {
    let identity = identity(common).await?;
    let both = arguments.tokens == arguments.credentials;
    if arguments.tokens || both {
        identity.rotate_keys().context("keys of tokens")?;
        output::line("keys of tokens: rotated");
    }
    if arguments.credentials || both {
        let count = identity.rotate_credential_keys().await.context("keys of credentials")?;
        output::line(&format!("keys of credentials: rotated, {count} credentials sealed anew"));
    }
    Ok(())
}
