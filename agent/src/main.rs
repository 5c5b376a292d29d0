//! The `pilvi-agent` program: configuration in, one agent until a signal ends it.
//!
//! Settings come from a TOML file, then the environment, then the command line; the later wins.
//! `pilvi-agent vmm ...` is pilvi-vmm, so that a node needs this one file: the agent starts its
//! guests on KVM with it unless the configuration names another program.
use clap::Parser;
use pilvi_agent::{Config, Error, Secret};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Runs the guests of one host and wires their networks, as the scheduler wants it.
#[derive(Parser)]
#[command(version, after_help = "`pilvi-agent vmm --help` shows the guest monitor that is built in.")]
struct Arguments {
    /// TOML file with the settings; see the documentation of `Config`.
    #[arg(long, env = "PILVI_AGENT_CONFIG")]
    config: Option<PathBuf>,
    /// Where everything that the agent keeps lies.
    #[arg(long, env = "PILVI_AGENT_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// The scheduler, https://host:port.
    #[arg(long, env = "PILVI_AGENT_SCHEDULER")]
    scheduler: Option<String>,
    /// Name of this host, unique in the cloud.
    #[arg(long, env = "PILVI_AGENT_NAME")]
    name: Option<String>,
    /// File with the join token; the token itself may be given in PILVI_AGENT_JOIN_TOKEN.
    #[arg(long, env = "PILVI_AGENT_JOIN_TOKEN_FILE")]
    join_token_file: Option<PathBuf>,
    /// Ends all guests of this host, removes its networks and its state, and leaves.
    #[arg(long)]
    remove_all: bool,
}

impl Arguments {
    fn config(&self) -> Result<Config, Error> {
        let mut config = match &self.config {
            Some(path) => Config::from_file(path)?,
            None => Config::default(),
        };
        if let Some(state_dir) = &self.state_dir {
            config.state_dir.clone_from(state_dir);
        }
        if let Some(scheduler) = &self.scheduler {
            config.scheduler_url.clone_from(scheduler);
        }
        if let Some(name) = &self.name {
            config.name.clone_from(name);
        }
        if let Some(file) = &self.join_token_file {
            config.join_token_file = Some(file.clone());
        }
        // Not an argument: command lines can be read by everybody on the host.
        if let Ok(token) = std::env::var("PILVI_AGENT_JOIN_TOKEN") {
            config.join_token = Some(Secret::new(token));
        }
        if config.vmm_command == Config::default().vmm_command {
            let own = std::env::current_exe().map_err(|e| Error::Config(format!("vmm_command: {e}")))?;
            config.vmm_command = vec![own.to_string_lossy().into_owned(), "vmm".into()];
        }
        Ok(config)
    }
}

fn main() -> ExitCode {
    // Before anything else: a guest monitor starts with one thread.
    if std::env::args_os().nth(1).is_some_and(|word| word == "vmm") {
        return pilvi_vmm::main_with(std::env::args_os().skip(2));
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Colours are for a terminal, not for a file or a journal.
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(carry_out(&arguments)),
        Err(error) => Err(Error::Config(format!("no async runtime: {error}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error);
            ExitCode::FAILURE
        }
    }
}

async fn carry_out(arguments: &Arguments) -> Result<(), Error> {
    let config = arguments.config()?;
    if arguments.remove_all {
        return pilvi_agent::remove_all(&config).await;
    }
    let shutdown = CancellationToken::new();
    let on_signal = shutdown.clone();
    tokio::spawn(async move {
        let (Ok(mut end), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return;
        };
        tokio::select! { _ = end.recv() => {} _ = interrupt.recv() => {} }
        on_signal.cancel();
    });
    pilvi_agent::run(config, shutdown).await
}
