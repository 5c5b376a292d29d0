//! What this machine must have before anything starts: each refusal says why and what to do.
use crate::output;
use anyhow::{Context, Result};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Not done, for a reason that the user can mend.
#[derive(Debug)]
pub struct Refusal(pub String);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Refusal {}

/// Namespaces, taps and guests need root.
pub fn root(command: &str) -> Result<(), Refusal> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Refusal(format!(
        "`pilvi {command}` makes network namespaces and runs guests, which needs root. Try: sudo pilvi {command}"
    )))
}

/// Is the API's port free?
pub fn port_free(listen: SocketAddr) -> Result<(), Refusal> {
    match std::net::TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(Refusal(format!(
            "the port of {listen} is taken. Stop the program that has it, or choose another: --listen 127.0.0.1:PORT"
        ))),
        Err(error) => Err(Refusal(format!("cannot listen on {listen}: {error}"))),
    }
}

fn present(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).any(|folder| folder.join(program).is_file())
}

/// (program or file, Debian package) that a cloud on this machine needs.
pub const FOR_GUESTS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
];

/// Installs what is missing, after saying so; or names it when that is not wanted.
pub fn packages(needed: &[(&str, &str)], may_install: bool) -> Result<()> {
    let mut missing: Vec<&str> =
        needed.iter().filter(|(program, _)| !present(program)).map(|(_, package)| *package).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !may_install || !present("apt-get") {
        return Err(Refusal(format!(
            "these Debian packages are missing: {list}. Install them: apt-get install {list}"
        ))
        .into());
    }
    output::line(&format!("These Debian packages are missing and are installed now: {list}"));
    let apt = |arguments: &[&str]| -> Result<bool> {
        let status = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("apt-get")?;
        Ok(status.success())
    };
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(&missing);
    if !apt(&install)? {
        // A machine that has never asked for package lists has none.
        apt(&["update", "-qq"])?;
        if !apt(&install)? {
            return Err(Refusal(format!(
                "apt-get could not install: {list}. Its own message is above; try it by hand: apt-get install {list}"
            ))
            .into());
        }
    }
    Ok(())
}
