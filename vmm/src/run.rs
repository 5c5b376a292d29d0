//! The command line of the program: arguments in, exit code out.

use crate::boot::probe::{self as disk_probe, ProbeError};
use crate::config::{Config, ConfigError, Gdb, Lazy, Restore, Source, User};
use crate::control::server::{self, Server};
use crate::control::{ClientError, command};
use crate::cpu::run_loop;
use crate::machine::{MachineError, Parts};
use crate::monitor::{Monitor, Signals};
use crate::sandbox::{self, SandboxError, Threads, jail, seccomp};
use crate::state::{EXIT_CONFIG, EXIT_FAILURE, Report};
use crate::{journal, probe, program};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
Runs one guest on KVM, in the foreground, until it ends.

Usage: pilvi-vmm --config FILE [--restore STATE MEMORY | --incoming SOCKET] [--no-sandbox]
                 [--gdb SOCKET | --gdb-wait SOCKET]
       pilvi-vmm ctl SOCKET VERB [ARGUMENT...]
       pilvi-vmm boots DISK [UID GID]
       pilvi-vmm probe

  --config FILE   JSON configuration of the machine (/dev/fd/N works)
  --restore STATE MEMORY
                  goes on from this snapshot of a machine with the same configuration
  --incoming SOCKET
                  waits there for a running machine with the same configuration to move in
  --gdb SOCKET    lets gdb in there (`target remote SOCKET`); with --gdb-wait the guest does not begin before it says so
  --no-sandbox    no namespaces, user change or system call filters: for debugging only
  ctl             asks a running machine; `ctl --help` lists the verbs
  boots           prints as JSON whether a raw disk has a kernel that is started without firmware, or a boot sector; looks
                  at it as that user
  probe           prints as JSON whether /dev/kvm can really run guests here
  --help, --version  (the latter with the build, as in the status)

Exit codes: 0 the guest powered off, 1 the monitor failed, 2 bad arguments or configuration, 3 the guest reset (with
on_reset = exit), 4 the guest crashed, 5 killed through the control socket or by SIGTERM, 6 a forbidden system call,
7 the guest has moved to another process.
";

/// Why the program ends without a guest having ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Arguments(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("cannot open the control socket: {0}")]
    Socket(io::Error),
    #[error("cannot open the report file: {0}")]
    Report(io::Error),
    #[error(transparent)]
    Asked(#[from] ClientError),
    #[error(transparent)]
    Looked(#[from] ProbeError),
    #[error("{0}")]
    System(#[from] io::Error),
}

enum Command {
    Run { config: PathBuf, restore: Option<Restore>, incoming: Option<Source>, gdb: Option<Gdb>, sandbox: bool },
    Ask(Vec<OsString>),
    Boots(PathBuf, Option<User>),
    Probe,
    Help,
    Version,
}

/// Runs the program with the arguments after its name.
pub fn main_with(args: impl Iterator<Item = OsString>) -> ExitCode {
    let outcome = parse(args).and_then(|command| match command {
        Command::Help => say(HELP),
        Command::Version => say(&format!("pilvi-vmm {} ({})\n", env!("CARGO_PKG_VERSION"), program::own_build())),
        Command::Probe => say(&format!("{}\n", serde_json::json!(probe::probe()))),
        Command::Ask(words) => ask(&words),
        Command::Boots(disk, user) => say(&format!("{}\n", serde_json::json!(disk_probe::boots(&disk, user)?))),
        Command::Run { config, restore, incoming, gdb, sandbox } => {
            let mut config = Config::load(&config)?;
            config.gdb = gdb.or(config.gdb);
            config.restore = restore.or(config.restore);
            config.incoming = incoming.or(config.incoming);
            config.validate()?;
            run(config, sandbox)
        }
    });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            journal::line("-", format_args!("{failure}"));
            let config = matches!(failure, Failure::Arguments(_) | Failure::Config(_));
            ExitCode::from(if config { EXIT_CONFIG } else { EXIT_FAILURE })
        }
    }
}

fn say(text: &str) -> Result<u8, Failure> {
    io::stdout().write_all(text.as_bytes())?;
    Ok(0)
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, Failure> {
    let (mut config, mut restore, mut incoming, mut gdb, mut sandbox) = (None, None, None, None, true);
    let mut args = args;
    let missing = |what: &str| Failure::Arguments(format!("{what}; see --help"));
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("ctl") => return Ok(Command::Ask(args.collect())),
            Some("boots") => return boots(&args.collect::<Vec<_>>()),
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--version") => return Ok(Command::Version),
            Some("probe") => return Ok(Command::Probe),
            Some("--no-sandbox") => sandbox = false,
            Some("--config") => {
                let path = args.next().ok_or_else(|| missing("--config needs a file"))?;
                config = Some(PathBuf::from(path));
            }
            Some("--incoming") => {
                let path = args.next().ok_or_else(|| missing("--incoming needs a path"))?;
                incoming = Some(Source::Path(path.into()));
            }
            Some(word @ ("--gdb" | "--gdb-wait")) => {
                let path = args.next().ok_or_else(|| missing("a debugger's door needs a path"))?;
                gdb = Some(Gdb { socket: Source::Path(path.into()), wait: word == "--gdb-wait" });
            }
            Some("--restore") => {
                let mut file = || args.next().map(|path| Source::Path(path.into()));
                let (Some(state), Some(memory)) = (file(), file()) else {
                    return Err(missing("--restore needs a state file and a memory image"));
                };
                restore = Some(Restore { state, memory, verify: true, lazy: Lazy::Map });
            }
            _ => return Err(Failure::Arguments(format!("unknown argument {}; see --help", arg.display()))),
        }
    }
    let config = config.ok_or_else(|| missing("no --config FILE given"))?;
    Ok(Command::Run { config, restore, incoming, gdb, sandbox })
}

fn boots(words: &[OsString]) -> Result<Command, Failure> {
    let number = |word: &OsString| word.to_str().and_then(|text| text.parse::<u32>().ok()).filter(|id| *id != 0);
    match words {
        [disk] => Ok(Command::Boots(disk.into(), None)),
        [disk, uid, gid] => match (number(uid), number(gid)) {
            (Some(uid), Some(gid)) => Ok(Command::Boots(disk.into(), Some(User { uid, gid }))),
            _ => Err(Failure::Arguments("a user is two numbers other than 0; see --help".into())),
        },
        _ => Err(Failure::Arguments("boots takes a disk, and maybe a user; see --help".into())),
    }
}

/// The verbs of the control socket by hand.
fn ask(words: &[OsString]) -> Result<u8, Failure> {
    match words {
        [socket, verb, rest @ ..] if socket.to_str() != Some("--help") => say(&command::run(socket, verb, rest)?),
        _ => say(command::HELP),
    }
}

/// Opens everything, closes the jail, builds the machine, runs it.
fn run(config: Config, jailed: bool) -> Result<u8, Failure> {
    let signals = Signals::block()?;
    run_loop::install_kick()?;
    let parts = Parts::open(&config, &signals)?;
    let build = program::own_build();
    // Emptied now, so that nobody takes the report of an earlier run for one of this.
    let report = config.report.as_ref().map(|source| source.open_log().and_then(|file| file.set_len(0).map(|()| file)));
    let report = report.transpose().map_err(Failure::Report)?;
    let gdb = config.gdb.as_ref().map(|gdb| Ok((server::listen(&gdb.socket)?, gdb.wait)));
    let gdb = gdb.transpose().map_err(Failure::Socket)?;
    // The last door to open: whoever finds it open finds all others open too.
    let server = Server::open(&config.control_socket).map_err(Failure::Socket)?;

    let threads = if jailed {
        sandbox::quiet_allocator();
        seccomp::install_report()?;
        if !jail::close(config.user)? {
            journal::line(&config.id, format_args!("not started as root: no namespaces of its own"));
        }
        Threads::filtered()?
    } else {
        Threads::free()
    };
    let id = config.id.clone();
    let mut monitor = Monitor::new(config, build, parts, threads, server, signals)?;
    if let Some((listener, awaited)) = gdb {
        monitor.debug_by(listener, awaited)?;
    }
    monitor.build()?;
    monitor.confine()?;
    let (reason, resets) = monitor.run()?;

    journal::line(&id, format_args!("ended: {reason:?} after {resets} resets"));
    let code = reason.exit_code();
    if let Some(mut file) = report {
        let report = Report { id, reason, resets };
        file.write_all(serde_json::json!(report).to_string().as_bytes())?;
        file.sync_all()?;
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Command, Failure> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn arguments_are_refused_with_a_reason() {
        for (args, word) in [(&[][..], "--config"), (&["--config"], "needs a file"), (&["--frob"], "--frob")] {
            let Err(Failure::Arguments(text)) = parsed(args) else { panic!() };
            assert!(text.contains(word), "{text}");
        }
        let Ok(Command::Run { sandbox, .. }) = parsed(&["--no-sandbox", "--config", "x"]) else { panic!() };
        assert!(!sandbox);
    }

    #[test]
    fn a_missing_file_is_a_configuration_error() {
        let code = main_with(["--config", "/nonexistent/x"].iter().map(OsString::from));
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(EXIT_CONFIG)));
    }
}
