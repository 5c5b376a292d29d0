//! `pilvi image build`: the starter image, also as `up` makes it, and the one with tools.
use crate::{
    cli::{Build, Common},
    output::{self, Progress},
    preflight,
    state::State,
};
use anyhow::{Context, Result};
use pilvi_starter::{Built, Kind, Request};
use std::path::PathBuf;

pub async fn build(common: &Common, arguments: &Build) -> Result<()> {
    let state = State::open(common)?;
    let kind = if arguments.tools { Kind::Tools } else { Kind::Starter };
    let out = arguments.out.clone().unwrap_or_else(|| state.starter(kind));
    preflight::packages(pilvi_starter::needed_packages(), !arguments.no_install)?;
    let progress = Progress::start();
    let built = make(kind, out, state.packages(), arguments.force, progress).await?;
    for file in [&built.image, &built.kernel, &built.initrd] {
        let size = std::fs::metadata(file).map(|m| m.len()).unwrap_or(0);
        output::line(&format!("{:>10} KiB  {}", size / 1024, file.display()));
    }
    Ok(())
}

/// The cached image, or a new one.
pub async fn make(kind: Kind, out: PathBuf, cache: PathBuf, force: bool, progress: Progress) -> Result<Built> {
    let work = move || -> Result<Built> {
        if !force && let Some(built) = pilvi_starter::cached(kind, &out) {
            return Ok(built);
        }
        let tell = |text: &str| progress.step(&format!("{} image: {text}", kind.name()));
        pilvi_starter::build(&Request { kind, out, cache, progress: &tell })
            .with_context(|| format!("the {} image could not be built", kind.name()))
    };
    tokio::task::spawn_blocking(work).await?
}
