//! Waiting for the first guest: does it answer ssh, and is it the one we made?
use crate::state::State;
use anyhow::{Context, Result, bail};
use std::{process::Stdio, time::Duration};
use tokio::process::Command;

/// Makes the demo's key pair with OpenSSH's own tool, once.
pub async fn key(state: &State) -> Result<String> {
    let path = state.demo_key();
    if !path.exists() {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "pilvi-demo", "-f"])
            .arg(&path)
            .stdin(Stdio::null())
            .status()
            .await
            .context("ssh-keygen")?;
        if !made.success() {
            bail!("ssh-keygen failed");
        }
    }
    Ok(std::fs::read_to_string(path.with_extension("pub"))?.trim().to_owned())
}

/// Runs one command in the guest, trying until it answers.
pub async fn ssh(state: &State, address: &str, command: &str, patience: Duration) -> Result<String> {
    let until = tokio::time::Instant::now() + patience;
    loop {
        let tried = Command::new("ssh")
            .arg("-F")
            .arg(state.ssh_config())
            .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", address, command])
            .stdin(Stdio::null())
            .output()
            .await
            .context("ssh")?;
        if tried.status.success() {
            return Ok(String::from_utf8_lossy(&tried.stdout).trim().to_owned());
        }
        if tokio::time::Instant::now() > until {
            bail!("the guest does not answer ssh: {}", String::from_utf8_lossy(&tried.stderr).trim());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
