//! The runtimes of this host: which may be used, which can be, and what the probe of each found.
//!
//! ```text
//! config.runtimes (order of preference) -> probe each once at start -> offers
//! ```
use super::choose::{self, Choice, Offer, Start};
use super::fake::Fake;
use super::kvm::Kvm;
use super::qemu::{Qemu, command::Host};
use super::{Kind, Runtime};
use crate::config::Config;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a probe may take.
const PROBE_LIMIT: Duration = Duration::from_secs(20);
/// Users that guests may run as, by preference.
const GUEST_USERS: [&str; 3] = ["pilvi-guest", "libvirt-qemu", "nobody"];

/// What this host can run guests with.
#[derive(Default)]
pub struct Runtimes {
    offers: Vec<Offer>,
    runtimes: BTreeMap<Kind, Arc<dyn Runtime>>,
}

impl Runtimes {
    /// Probes what the configuration allows.
    pub async fn probe(config: &Config) -> Self {
        let mut set = Self::default();
        let needed = config.runtimes.iter().any(|kind| *kind != Kind::Fake);
        let probe = if needed { super::kvm::probe().await } else { super::kvm::unprobed() };
        let user = guest_user(config);
        for kind in &config.runtimes {
            match kind {
                Kind::Fake => set.add(Fake, Offer::usable(Kind::Fake, "always there")),
                Kind::Kvm => set.add(Kvm::new(config, user.as_deref(), &probe), super::kvm::offer(config, &probe)),
                Kind::Qemu => {
                    let offer = probe_qemu(&config.qemu_binary).await;
                    let host = Host {
                        binary: config.qemu_binary.clone().into(),
                        kvm: probe.usable && !probe.emulated,
                        user: user.clone(),
                    };
                    set.add(Qemu::new(host), offer);
                }
            }
        }
        for offer in &set.offers {
            let Offer { kind, usable, ordinary, reason } = offer;
            tracing::info!(%kind, usable, ordinary, reason, "runtime");
        }
        set
    }

    /// Adds a runtime behind those that are there.
    pub fn add(&mut self, runtime: impl Runtime + 'static, offer: Offer) {
        self.runtimes.insert(offer.kind, Arc::new(runtime));
        self.offers.push(offer);
    }

    /// What the probes found, in order of preference.
    #[must_use]
    pub fn offers(&self) -> &[Offer] {
        &self.offers
    }

    /// A runtime by kind, usable or not: what it started earlier must still be looked after.
    #[must_use]
    pub fn get(&self, kind: Kind) -> Option<Arc<dyn Runtime>> {
        self.runtimes.get(&kind).cloned()
    }

    /// Whether the choice may depend on what is on an instance's disk.
    #[must_use]
    pub fn asks_for_disk(&self, named: &str) -> bool {
        choose::asks_for_disk(named, &self.offers)
    }

    /// Which runtime an instance gets.
    ///
    /// # Errors
    /// Text for the user.
    pub fn choose(&self, named: &str, start: &Start) -> Result<Choice, String> {
        choose::choose(named, start, &self.offers)
    }
}

/// The unprivileged user that guests' processes change to; none when the agent has no privileges to give up.
fn guest_user(config: &Config) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let there = |name: &str| matches!(nix::unistd::User::from_name(name), Ok(Some(_)));
    match &config.guest_user {
        Some(user) => Some(user.clone()),
        None => GUEST_USERS.into_iter().find(|name| there(name)).map(str::to_owned),
    }
}

async fn probe_qemu(binary: &Path) -> Offer {
    let mut command = tokio::process::Command::new(binary);
    command.arg("--version").stdin(std::process::Stdio::null()).kill_on_drop(true);
    let shown = binary.display();
    let reason = match tokio::time::timeout(PROBE_LIMIT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().next().unwrap_or_default().to_owned();
            return Offer::usable(Kind::Qemu, &line);
        }
        Ok(Ok(output)) => format!("{shown} --version ended with {}", output.status),
        Ok(Err(error)) => format!("{shown}: {error}"),
        Err(_) => format!("{shown} --version did not end"),
    };
    Offer::unusable(Kind::Qemu, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_emulator_is_told() {
        let offer = probe_qemu(Path::new("/nonexistent/qemu")).await;
        assert!(!offer.usable && offer.reason.contains("/nonexistent/qemu"));
        let offer = probe_qemu(Path::new("false")).await;
        assert!(!offer.usable && offer.reason.contains("ended with"));
    }
}
