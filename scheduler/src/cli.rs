//! The command line, and the help that it prints.
use crate::config::LogFormat;
use clap::{Args, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf};

#[derive(Debug, Parser)]
#[command(
    name = "pilvi",
    version,
    about = "A whole cloud in one program",
    long_about = "A whole cloud in one program: it speaks the OpenStack APIs, runs guests on this machine and wires their networks.\n\n\
        A first cloud:      pilvi up\n\
        Take it away:       pilvi down\n\
        Scheduler alone:    pilvi serve\n\
        Another host:       pilvi node token > token   (here)\n                    \
        pilvi agent --scheduler https://HOST:PORT --join-token-file token   (there)",
    after_help = "Exit codes: 0 done, 1 failed, 2 refused (the message says why and what to do)."
)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Where everything that Pilvi keeps on this machine lies.
    #[arg(long, global = true, env = "PILVI_STATE_DIR", default_value = "/var/lib/pilvi")]
    pub state_dir: PathBuf,
    /// Where downloaded packages and the built starter image are kept; default: STATE_DIR/cache
    #[arg(long, global = true, env = "PILVI_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Configuration file; default: STATE_DIR/pilvi.toml where that exists.
    #[arg(long, global = true, env = "PILVI_CONFIG")]
    pub config: Option<PathBuf>,
    /// Log filter, such as info, debug or compute=debug,warn.
    #[arg(long, global = true, env = "PILVI_LOG")]
    pub log: Option<String>,
    /// How the log is written; json: one document a line, with trace and request ids.
    #[arg(long, global = true, env = "PILVI_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a whole cloud on this machine and boots a first server in it.
    Up(Up),
    /// Ends the guests of `up` and removes everything that it made.
    Down(Down),
    /// Runs the scheduler: all APIs on one TLS port.
    Serve(Serve),
    /// Runs the agent of this host.
    Agent(Agent),
    /// Runs one guest on KVM; started by the agent.
    #[command(disable_help_flag = true)]
    Vmm {
        /// See `pilvi vmm --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Hosts of this cloud.
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Guest images.
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Keys and people of identity.
    Identity {
        #[command(subcommand)]
        command: IdentityCommand,
    },
    /// Shows what runs here.
    Status,
    /// Shows how much of each service's documented API is there, and what is not.
    Navigator(Navigator),
    /// Connects standard input and output with a TCP port inside a network namespace: a ProxyCommand for ssh.
    Connect(Connect),
}

#[derive(Debug, Clone, Args)]
pub struct Navigator {
    /// Every documented operation with its state, as JSON.
    #[arg(long)]
    pub json: bool,
    /// One service only, such as identity.
    pub service: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct Up {
    /// Address and port of the API.
    #[arg(long, env = "PILVI_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Start the cloud, but make no demo project and no server.
    #[arg(long)]
    pub no_demo: bool,
    /// Never install Debian packages: name the missing ones and stop.
    #[arg(long, env = "PILVI_NO_INSTALL")]
    pub no_install: bool,
    /// Leave when the first server answers (its guest goes on); for scripts.
    #[arg(long)]
    pub once: bool,
    /// Runtime of the first server: qemu, kvm or fake; default: what fits this machine.
    #[arg(long)]
    pub runtime: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct Down {
    /// Keep the downloaded packages and the built starter image for the next `up`.
    #[arg(long)]
    pub keep_cache: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Address and port of the API.
    #[arg(long, env = "PILVI_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Store: sqlite:PATH or postgres://USER@HOST/DATABASE.
    #[arg(long, env = "PILVI_STORE")]
    pub store: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct Agent {
    /// The scheduler: https://HOST:PORT; several, separated by commas, where there are several
    #[arg(long, env = "PILVI_AGENT_SCHEDULER")]
    pub scheduler: Option<String>,
    /// Name of this host, unique in the cloud.
    #[arg(long, env = "PILVI_AGENT_NAME")]
    pub name: Option<String>,
    /// File with the join token (`pilvi node token`); needed the first time only.
    #[arg(long, env = "PILVI_AGENT_JOIN_TOKEN_FILE")]
    pub join_token_file: Option<PathBuf>,
    /// TOML file with the agent's settings.
    #[arg(long, env = "PILVI_AGENT_CONFIG")]
    pub agent_config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Prints a token with which one host may join.
    Token(Token),
    /// Lists the hosts.
    List,
    /// Lists the guests, with the program that each runs in.
    Guests(Guests),
    /// Has running guests move into the monitor that is installed on their host now, those that run in another one.
    UpgradeGuests(UpgradeGuests),
}

#[derive(Debug, Clone, Args)]
pub struct Guests {
    /// Of this host only.
    pub host: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct UpgradeGuests {
    /// All guests of this host, one after the other.
    #[arg(required_unless_present = "server")]
    pub host: Option<String>,
    /// The guest of this server (its id) alone.
    #[arg(long, conflicts_with = "host")]
    pub server: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct Token {
    /// Only the host of this name may use it.
    #[arg(long)]
    pub host: Option<String>,
    /// Minutes for which it is good.
    #[arg(long, default_value_t = 60)]
    pub minutes: u64,
    /// So many tokens, a line each: one for each host of a rack.
    #[arg(long, default_value_t = 1, conflicts_with = "host", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: u32,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Builds the starter image: a small Linux guest, from Debian packages; or the same with tools.
    Build(Build),
}

#[derive(Debug, Clone, Args)]
pub struct Build {
    /// With Bash, Python, curl, ncat, nping, tcpdump, iperf3, iproute2 and the real ping (`tools.img`).
    #[arg(long)]
    pub tools: bool,
    /// Folder for the result; default: CACHE_DIR/starter, with tools CACHE_DIR/tools
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Build even if the folder holds a good image.
    #[arg(long)]
    pub force: bool,
    /// Never install Debian packages: name the missing ones and stop.
    #[arg(long, env = "PILVI_NO_INSTALL")]
    pub no_install: bool,
}

#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Takes users, projects, roles and what belongs to them from a dump of a Keystone's database. May run again.
    ImportKeystone(ImportKeystone),
    /// Makes the next keys of tokens and of sealed credentials.
    RotateKeys(RotateKeys),
}

#[derive(Debug, Clone, Args)]
pub struct ImportKeystone {
    /// What mysqldump, mariadb-dump, pg_dump (plain) or sqlite3's .dump wrote.
    pub dump: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct RotateKeys {
    /// Those of tokens.
    #[arg(long)]
    pub tokens: bool,
    /// Those of sealed credentials, which are sealed anew.
    #[arg(long)]
    pub credentials: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Connect {
    /// The namespace: a name under /run/netns.
    #[arg(long)]
    pub netns: String,
    /// Address of the guest.
    pub address: std::net::IpAddr,
    /// TCP port.
    pub port: u16,
}
