//! `pilvi image build`: the starter image, also as `up` makes it.
use crate::{
    cli::{Build, Common},
    output::{self, Progress},
    preflight,
    state::State,
};
use anyhow::{Context, Result};
use pilvi_starter::{Built, Request};
use std::path::PathBuf;

pub async fn build(common: &Common, arguments: &Build) -> Result<()> {
    let state = State::open(common)?;
    let out = arguments.out.clone().unwrap_or_else(|| state.starter());
    preflight::packages(pilvi_starter::needed_packages(), !arguments.no_install)?;
    let progress = Progress::start();
    let built = make(out, state.packages(), arguments.force, progress).await?;
    for file in [&built.image, &built.kernel, &built.initrd] {
        let size = std::fs::metadata(file).map(|m| m.len()).unwrap_or(0);
        output::line(&format!("{:>10} KiB  {}", size / 1024, file.display()));
    }
    Ok(())
}

/// The cached image, or a new one.
pub async fn make(out: PathBuf, cache: PathBuf, force: bool, progress: Progress) -> Result<Built> {
    let work = move || -> Result<Built> {
        if !force && let Some(built) = pilvi_starter::cached(&out) {
            return Ok(built);
        }
        let tell = |text: &str| progress.step(&format!("starter image: {text}"));
        pilvi_starter::build(&Request { out, cache, progress: &tell }).context("the starter image could not be built")
    };
    tokio::task::spawn_blocking(work).await?
}
