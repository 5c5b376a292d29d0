//! `pilvi serve`: the scheduler alone, until a signal ends it.
use crate::{
    cli::{Common, Serve},
    config::{Config, LogFormat},
    output, preflight,
    site::Scheduler,
    state::State,
};
use anyhow::{Context, Result};
use std::io::IsTerminal;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

/// Logs go to standard error (`serve`, `agent`) or to a file (`up`, whose terminal shows progress).
pub fn log_to_stderr(filter: &str, format: LogFormat) -> Result<()> {
    let filter = EnvFilter::try_new(filter).context("the log filter")?;
    // Colours are for a terminal, not for a file or a journal.
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    let _ = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Turns true at Ctrl-C or SIGTERM. A second Ctrl-C ends the program at once, as everywhere.
pub fn stop_signal() -> Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let _ = sender.send(true);
        // Kept open: a closed channel would look like a wish to stop again.
        interrupt.recv().await;
        std::process::abort();
    });
    Ok(receiver)
}

pub async fn run(common: &Common, arguments: &Serve) -> Result<()> {
    let state = State::open(common)?;
    let mut config = Config::load(common, &state, arguments.listen)?;
    if let Some(store) = &arguments.store {
        config.store = Some(store.clone());
    }
    log_to_stderr(&config.log, config.log_format)?;
    let _lock = state.lock()?;
    preflight::port_free(config.listen)?;
    let scheduler = Scheduler::start(&state, &config).await?;
    let listener =
        pilvi_kit::server::listen(config.listen).await.with_context(|| format!("listening on {}", config.listen))?;
    let stop = stop_signal()?;
    output::line(&format!(
        "pilvi serves {}; the administrator's password is in {}",
        config.public_url(),
        state.admin_password().display()
    ));
    scheduler.run(vec![listener], stop).await;
    Ok(())
}
