//! `pilvi status`: does a cloud run here, and what is in it?
use crate::{cli::Common, config::Config, node, output, state::State, up::rest::Rest};
use anyhow::Result;

pub async fn run(common: &Common) -> Result<()> {
    let state = State::open(common)?;
    let config = Config::load(common, &state, None)?;
    let url = running_url(&state).unwrap_or_else(|| config.public_url());
    let answers = match Rest::new(&url, &state.ca()) {
        Ok(rest) => rest.healthy().await,
        Err(_) => false,
    };
    output::line(&format!("state directory  {}", state.root.display()));
    output::line(&format!("API              {url} ({})", if answers { "answers" } else { "does not answer" }));
    if answers {
        node::list(common).await?;
    }
    Ok(())
}

/// Where the running `up` listens, as it wrote it down.
fn running_url(state: &State) -> Option<String> {
    let text = std::fs::read_to_string(state.running()).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    value["url"].as_str().map(str::to_owned)
}
