//! `pilvi down`: ends what `up` started and removes what it made. Safe to repeat, and safe where there is nothing.
use crate::{
    agent,
    cli::{Common, Down},
    output, preflight,
    state::State,
};
use anyhow::{Context, Result};
use std::fs;

pub async fn run(common: &Common, arguments: &Down) -> Result<()> {
    preflight::root("down")?;
    if !common.state_dir.exists() {
        output::line(&format!("nothing is in {}", common.state_dir.display()));
        return Ok(());
    }
    let state = State::open(common)?;
    let lock = state.lock()?;
    let config = pilvi_agent::Config {
        state_dir: state.agent(),
        prefix: state.prefix(),
        vmm_command: agent::vmm_command()?,
        scheduler_url: "https://127.0.0.1:1".into(),
        ..Default::default()
    };
    output::line("ending guests, removing networks");
    pilvi_agent::remove_all(&config).await.context("the agent's guests and networks")?;
    let kept = |name: &std::ffi::OsStr| arguments.keep_cache && name == "cache";
    for entry in fs::read_dir(&state.root)? {
        let entry = entry?;
        if kept(&entry.file_name()) || entry.file_name() == "lock" {
            continue;
        }
        let path = entry.path();
        let removed = if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| path.display().to_string())?;
    }
    drop(lock);
    if !arguments.keep_cache {
        fs::remove_file(state.root.join("lock"))?;
        fs::remove_dir(&state.root).with_context(|| state.root.display().to_string())?;
    }
    output::line("all that `pilvi up` made is gone");
    Ok(())
}
