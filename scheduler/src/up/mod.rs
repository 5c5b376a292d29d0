//! `pilvi up`: a whole cloud on this machine and a first server in it.
//!
//! ```text
//!  preflight -> starter image (cached)  --.
//!            -> scheduler -> agent -------+-> demo: users, image, network, server -> ssh answers -> summary -> wait
//! ```
//! Not a demo beside the product: scheduler and agent are those of `serve` and `agent` in one process, and
//! the demo is made with the public API by an ordinary user. Everything is found again by its name, so a
//! second `up` goes on where the first one ended.
mod demo;
mod files;
mod guest;
pub mod rest;

use crate::{
    agent,
    cli::{Common, Up},
    config::{Config, LogFormat},
    image,
    output::{self, Progress},
    preflight, serve,
    site::Scheduler,
    state::{self, State},
};
use anyhow::{Context, Result};
use pilvi_netdev::edge_name;
use pilvi_starter::Kind;
use std::{sync::Mutex, time::Duration};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Name of the one host.
const HOST: &str = "local";
/// How long the edge namespace may take to appear.
const EDGE_SECONDS: u64 = 30;

/// What runs, and how to end it.
struct Running {
    scheduler: JoinHandle<()>,
    agent: JoinHandle<Result<(), pilvi_agent::Error>>,
    edge: JoinHandle<()>,
    shutdown: CancellationToken,
}

pub async fn run(common: &Common, arguments: &Up) -> Result<()> {
    preflight::root("up")?;
    let state = State::open(common)?;
    let config = Config::load(common, &state, arguments.listen)?;
    let _lock = state.lock()?;
    preflight::port_free(config.listen)?;
    let mut needed = preflight::FOR_GUESTS.to_vec();
    needed.extend(pilvi_starter::needed_packages());
    preflight::packages(&needed, !arguments.no_install)?;
    log_to_file(&state, &config)?;
    let progress = Progress::start();
    let stop = serve::stop_signal()?;
    let starter =
        tokio::spawn(image::make(Kind::Starter, state.starter(Kind::Starter), state.packages(), false, progress));
    let running = start(&state, &config, stop.clone(), progress).await?;
    let story = async {
        if arguments.no_demo {
            return Ok(None);
        }
        let starter = starter.await??;
        progress.step("starter image ready");
        demo::run(&state, &config, &starter, arguments, progress).await.map(Some)
    };
    let mut stopped = stop.clone();
    let told = tokio::select! {
        told = story => told,
        () = pilvi_kit::server::stopped(&mut stopped) => Ok(None),
    };
    if let Ok(first) = &told {
        files::summary(&state, &config, first.as_ref(), progress)?;
        if !arguments.once && !*stop.borrow() {
            output::line("\nCtrl-C stops scheduler and agent; the guests go on, and the next `pilvi up` finds them.");
            pilvi_kit::server::stopped(&mut stopped).await;
        }
    }
    end(running).await;
    let _ = std::fs::remove_file(state.running());
    told.map(|_| ())
}

async fn start(state: &State, config: &Config, stop: watch::Receiver<bool>, progress: Progress) -> Result<Running> {
    let scheduler = Scheduler::start(state, config).await?;
    let listener =
        pilvi_kit::server::listen(config.listen).await.with_context(|| format!("listening on {}", config.listen))?;
    progress.step(&format!("scheduler answers on {}", config.public_url()));
    let token = scheduler.fleet.new_join_token(Duration::from_secs(600), Some(HOST.into())).await?;
    let (site, tls) = (scheduler.site.clone(), scheduler.tls.clone());
    // The scheduler of `up` ends after the agent, so it has a stop of its own.
    let shutdown = CancellationToken::new();
    let (end_scheduler, scheduler_stop) = watch::channel(false);
    let scheduler = tokio::spawn(async move {
        let _sender = &end_scheduler;
        scheduler.run(vec![listener], scheduler_stop).await;
    });
    let settings = pilvi_agent::Config {
        state_dir: state.agent(),
        scheduler_url: format!("https://{}", config.listen),
        name: HOST.into(),
        join_token: Some(pilvi_agent::Secret::new(token)),
        prefix: state.prefix(),
        vmm_command: agent::vmm_command()?,
        ..Default::default()
    };
    let agent = tokio::spawn(pilvi_agent::run(settings, shutdown.clone()));
    let url = serde_json::json!({"url": config.public_url(), "pid": std::process::id()});
    state::write_secret(&state.running(), &url.to_string())?;
    let edge = edge_listener(state, config).await;
    let edge = match edge {
        Ok(listener) => {
            progress.step("agent is up, networks are in their namespaces");
            tokio::spawn(pilvi_kit::server::serve(listener, tls, site, stop))
        }
        Err(error) => {
            if agent.is_finished() {
                agent.await?.context("the agent could not start")?;
                anyhow::bail!("the agent ended");
            }
            return Err(error);
        }
    };
    Ok(Running { scheduler, agent, edge, shutdown })
}

/// The API inside the edge namespace, at the same address as outside: what runs there (Tempest, a user's
/// shell by `ip netns exec`) reaches floating IPs and the API alike.
async fn edge_listener(state: &State, config: &Config) -> Result<TcpListener> {
    let namespace = crate::connect::namespace(&edge_name(&state.prefix()));
    let mut last =
        anyhow::anyhow!("the agent did not make its namespaces in {EDGE_SECONDS} s; see {}", state.log().display());
    for _ in 0..EDGE_SECONDS * 10 {
        match pilvi_netdev::listen_in_ns(&namespace, config.listen) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                return Ok(TcpListener::from_std(listener)?);
            }
            Err(error) => last = anyhow::Error::new(error).context("listening in the edge namespace"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(last)
}

/// Agent first, so that its last words still reach the scheduler.
async fn end(running: Running) {
    const PATIENCE: Duration = Duration::from_secs(10);
    running.shutdown.cancel();
    let _ = tokio::time::timeout(PATIENCE, running.agent).await;
    running.edge.abort();
    running.scheduler.abort();
    let _ = running.scheduler.await;
}

fn log_to_file(state: &State, config: &Config) -> Result<()> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(state.log()).context("the log file")?;
    let filter = EnvFilter::try_new(&config.log).context("the log filter")?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(file));
    let _ = match config.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    Ok(())
}
