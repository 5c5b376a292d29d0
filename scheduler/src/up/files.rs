//! What `up` leaves for the user: `clouds.yaml`, an ssh configuration, and the summary on the terminal.
use crate::{
    config::Config,
    connect, output,
    output::Progress,
    state::{self, State},
};
use anyhow::Result;
use pilvi_netdev::edge_name;

/// The first server, as far as the summary names it.
#[derive(Debug)]
pub struct First {
    pub name: String,
    pub address: String,
    pub user: &'static str,
    /// What `hostname` said over ssh; `None` for runtimes whose guest has no ssh.
    pub hostname: Option<String>,
    pub active_s: f64,
    pub ready_s: f64,
}

/// Name of the user's cloud in `clouds.yaml`; the administrator's has `-admin` behind it.
pub const CLOUD: &str = "pilvi";

pub fn write_clouds(state: &State, config: &Config, demo_password: Option<&str>, admin_password: &str) -> Result<()> {
    let mut text =
        String::from("# Written by `pilvi up`; use it with: export OS_CLIENT_CONFIG_FILE=<this file>\nclouds:\n");
    let mut cloud = |name: &str, user: &str, project: &str, password: &str| {
        text.push_str(&format!(
            "  {name}:\n    auth:\n      auth_url: {}/identity/v3\n      username: {user}\n      password: {}\n      project_name: {project}\n      \
             user_domain_id: default\n      project_domain_id: default\n    region_name: {}\n    identity_api_version: 3\n    cacert: {}\n",
            config.public_url(),
            serde_json::Value::from(password),
            config.region,
            state.ca().display(),
        ));
    };
    if let Some(password) = demo_password {
        cloud(CLOUD, "demo", "demo", password);
    }
    cloud(&format!("{CLOUD}-admin"), "admin", "admin", admin_password);
    state::write_secret(&state.clouds(), &text)
}

/// `ssh -F STATE_DIR/ssh_config ADDRESS` reaches a floating IP without touching the host's network.
pub fn write_ssh_config(state: &State, user: &str) -> Result<()> {
    let program = std::env::current_exe()?;
    let text = format!(
        "# Written by `pilvi up`.\nHost *\n  User {user}\n  IdentityFile {}\n  IdentitiesOnly yes\n  ProxyCommand {} connect --netns {} %h %p\n  \
         StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n",
        state.demo_key().display(),
        program.display(),
        edge_name(&state.prefix()),
    );
    state::write_secret(&state.ssh_config(), &text)
}

pub fn summary(state: &State, config: &Config, first: Option<&First>, progress: Progress) -> Result<()> {
    if first.is_none() {
        write_clouds(state, config, None, &state::read_secret(&state.admin_password())?)?;
    }
    output::line("");
    if let Some(first) = first {
        output::line(&format!(
            "Server {} is ACTIVE ({:.1} s) and answered ssh ({:.1} s){}.",
            first.name,
            first.active_s,
            first.ready_s,
            first.hostname.as_ref().map_or(String::new(), |h| format!(": hostname is {h}"))
        ));
    }
    output::line(&format!("API            {}", config.public_url()));
    output::line(&format!("clouds.yaml    {}", state.clouds().display()));
    output::line(&format!("log            {}", state.log().display()));
    output::line(&format!(
        "edge           ip netns exec {} ...   ({})",
        edge_name(&state.prefix()),
        connect::namespace(&edge_name(&state.prefix())).display()
    ));
    if let Some(first) = first {
        output::line(&format!(
            "ssh            ssh -F {} {}   (user {})",
            state.ssh_config().display(),
            first.address,
            first.user
        ));
    }
    output::line("\nTry:");
    let cloud = if first.is_some() { CLOUD.to_owned() } else { format!("{CLOUD}-admin") };
    output::line(&format!("  export OS_CLIENT_CONFIG_FILE={} OS_CLOUD={cloud}", state.clouds().display()));
    output::line("  openstack server list");
    output::line(&format!("  openstack console log show {}", first.map_or("SERVER", |f| &f.name)));
    output::line("  openstack catalog list");
    output::line(&format!("\n(up after {:.1} s)", progress.seconds()));
    Ok(())
}
