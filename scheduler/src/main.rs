//! The `pilvi` program: the scheduler, and everything else in one file.
//!
//! ```text
//!  pilvi up      serve + agent in one process, then a first server through the public API
//!  pilvi serve   the scheduler alone        pilvi agent   the agent of one host alone
//!  pilvi vmm     one guest on KVM           pilvi down    removes what `up` made
//!  pilvi node token|list|guests|upgrade-guests    pilvi image build    pilvi status    pilvi navigator    pilvi connect
//!  pilvi identity import-keystone|rotate-keys
//! ```
//!
//! One binary is enough to install a node: agent and VMM are the same library crates that their own small
//! programs use.
mod agent;
mod allocator;
mod bgp;
mod cli;
mod config;
mod connect;
mod dns;
mod down;
mod events;
mod federation;
mod identity;
mod image;
mod navigator;
mod node;
mod output;
mod preflight;
mod serve;
mod site;
mod state;
mod status;
mod up;

use clap::Parser;
use cli::{Cli, Command, IdentityCommand, ImageCommand, NodeCommand};
use std::process::ExitCode;

/// What a command ends with: refusals (wrong use, missing things) are told apart from failures.
pub const EXIT_REFUSED: u8 = 2;

fn main() -> ExitCode {
    // The VMM is single-threaded until it decides otherwise, and reads its own arguments.
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|a| a == "vmm") {
        return pilvi_vmm::main_with(std::env::args_os().skip(2));
    }
    let cli = Cli::parse();
    allocator::tune();
    // One crypto provider for the whole process; it can be installed once only, so a second try is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(workers()).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&anyhow::Error::new(error).context("the runtime could not start"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(cli));
    runtime.shutdown_timeout(std::time::Duration::from_secs(3));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            let refused = error.downcast_ref::<preflight::Refusal>().is_some();
            if refused { ExitCode::from(EXIT_REFUSED) } else { ExitCode::FAILURE }
        }
    }
}

/// Few threads: nearly everything here waits.
pub(crate) fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8)
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let common = cli.common;
    match cli.command {
        Command::Up(arguments) => up::run(&common, &arguments).await,
        Command::Down(arguments) => down::run(&common, &arguments).await,
        Command::Serve(arguments) => serve::run(&common, &arguments).await,
        Command::Agent(arguments) => agent::run(&common, &arguments).await,
        Command::Node { command: NodeCommand::Token(arguments) } => node::token(&common, &arguments).await,
        Command::Node { command: NodeCommand::List } => node::list(&common).await,
        Command::Node { command: NodeCommand::Guests(arguments) } => node::guests(&common, &arguments).await,
        Command::Node { command: NodeCommand::UpgradeGuests(arguments) } => node::upgrade(&common, &arguments).await,
        Command::Image { command: ImageCommand::Build(arguments) } => image::build(&common, &arguments).await,
        Command::Identity { command: IdentityCommand::ImportKeystone(arguments) } => {
            identity::import_keystone(&common, &arguments).await
        }
        Command::Identity { command: IdentityCommand::RotateKeys(arguments) } => {
            identity::rotate_keys(&common, &arguments).await
        }
        Command::Status => status::run(&common).await,
        Command::Navigator(arguments) => navigator::run(&arguments),
        Command::Connect(arguments) => connect::run(&arguments).await,
        Command::Vmm { .. } => Ok(()),
    }
}
