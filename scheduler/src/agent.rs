//! `pilvi agent`: the agent of this host, from the same library as the small program.
use crate::{
    cli::{Agent, Common},
    config::LogFormat,
    preflight::{self, Refusal},
    serve,
    state::State,
};
use anyhow::Result;
use tokio_util::sync::CancellationToken;

/// This program with `vmm`: how the agent starts a guest on KVM.
pub fn vmm_command() -> Result<Vec<String>> {
    let program = std::env::current_exe()?;
    Ok(vec![program.display().to_string(), "vmm".to_owned()])
}

pub async fn run(common: &Common, arguments: &Agent) -> Result<()> {
    preflight::root("agent")?;
    let state = State::open(common)?;
    serve::log_to_stderr(common.log.as_deref().unwrap_or("info"), common.log_format.unwrap_or(LogFormat::Text))?;
    let mut config = match &arguments.agent_config {
        Some(path) => pilvi_agent::Config::from_file(path)?,
        None => pilvi_agent::Config {
            state_dir: state.agent(),
            prefix: state.prefix(),
            vmm_command: vmm_command()?,
            ..Default::default()
        },
    };
    if let Some(scheduler) = &arguments.scheduler {
        config.scheduler_url.clone_from(scheduler);
    }
    if let Some(name) = &arguments.name {
        config.name.clone_from(name);
    }
    if arguments.join_token_file.is_some() {
        config.join_token_file.clone_from(&arguments.join_token_file);
    }
    if config.scheduler_url.is_empty() {
        return Err(Refusal("an agent needs its scheduler: --scheduler https://HOST:PORT".into()).into());
    }
    let shutdown = CancellationToken::new();
    let (mut stop, ended) = (serve::stop_signal()?, shutdown.clone());
    tokio::spawn(async move {
        pilvi_kit::server::stopped(&mut stop).await;
        ended.cancel();
    });
    pilvi_agent::run(config, shutdown).await?;
    Ok(())
}
