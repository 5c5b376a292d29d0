//! The way to the schedulers: several addresses, one of them in use.
//!
//! ```text
//! configured (scheduler_url) --+
//! told when joining -----------+--> order --dial, 2 s each--> the first that answers stays in use
//! told in the session ---------+        ^--------- the session ended: begin with the next ---------
//! ```
//! Any scheduler will do: what a host shall do is in the store that they share. What was told is kept in a file, so
//! that an agent finds a scheduler that was added after it was configured.
use crate::config::Config;
use crate::durable::{self, Loaded};
use crate::error::Error;
use crate::tls::{self, Target};
use parking_lot::Mutex;
use rustls::ClientConfig;
use std::path::PathBuf;
use std::sync::Arc;
use tonic::transport::Channel;

/// Addresses that are kept at most.
const MOST: usize = 8;

#[derive(Debug)]
struct Order {
    configured: Vec<Target>,
    told: Vec<Target>,
    /// Which of all is dialled first.
    first: usize,
}

impl Order {
    fn all(&self) -> Vec<Target> {
        let mut all: Vec<Target> = Vec::new();
        for target in self.told.iter().chain(&self.configured) {
            if !all.contains(target) && all.len() < MOST {
                all.push(target.clone());
            }
        }
        all
    }
}

/// Where schedulers are; clones share it.
#[derive(Debug, Clone)]
pub struct Addresses {
    order: Arc<Mutex<Order>>,
    file: PathBuf,
}

impl Addresses {
    /// Those of the configuration, and those that a scheduler named in an earlier run.
    ///
    /// # Errors
    /// [`Error::Config`] when one of the configuration is none.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let configured = Target::parse_all(&config.scheduler_url)?;
        let file = config.state_dir.join("tls").join("schedulers");
        let told = match durable::load(&file) {
            Ok(Loaded::Sound(body)) => serde_json::from_slice::<Vec<String>>(&body).unwrap_or_default(),
            // Only a convenience: the configured ones are there.
            _ => Vec::new(),
        };
        let told = told.iter().filter_map(|url| Target::parse(url).ok()).take(MOST).collect();
        Ok(Self { order: Arc::new(Mutex::new(Order { configured, told, first: 0 })), file })
    }

    /// In the order in which they are to be dialled.
    #[must_use]
    pub fn all(&self) -> Vec<Target> {
        let order = self.order.lock();
        let mut all = order.all();
        let first = order.first.checked_rem(all.len()).unwrap_or(0);
        all.rotate_left(first);
        all
    }

    /// A scheduler named them all. What it does not name is kept behind: it may only be away.
    pub fn told(&self, urls: &[String]) {
        let (told, known) = {
            let mut order = self.order.lock();
            let current = order.all().get(order.first).cloned();
            let mut told: Vec<Target> = urls.iter().filter_map(|url| Target::parse(url).ok()).collect();
            let former = order.told.iter().filter(|t| !told.contains(t)).cloned().collect::<Vec<_>>();
            told.extend(former);
            told.truncate(MOST);
            let known = told == order.told;
            order.told.clone_from(&told);
            // What is in use stays in use.
            order.first = order.all().iter().position(|t| Some(t) == current.as_ref()).unwrap_or(0);
            (told, known)
        };
        if known {
            return;
        }
        let urls: Vec<String> = told.iter().map(Target::url).collect();
        let saved =
            serde_json::to_vec(&urls).map_err(std::io::Error::other).and_then(|b| durable::save(&self.file, &b));
        if let Err(error) = saved {
            tracing::warn!(%error, "the schedulers' addresses could not be kept");
        }
    }

    /// This one answered.
    pub(crate) fn answered(&self, target: &Target) {
        let mut order = self.order.lock();
        order.first = order.all().iter().position(|t| t == target).unwrap_or(0);
    }

    /// Begin with the next one.
    fn turn(&self) {
        let mut order = self.order.lock();
        order.first = (order.first + 1).checked_rem(order.all().len()).unwrap_or(0);
    }
}

/// The connection in use, replaced when its scheduler is of no use any more.
#[derive(Debug)]
pub struct Link {
    pub addresses: Addresses,
    tls: Arc<ClientConfig>,
    channel: Mutex<Channel>,
}

impl Link {
    /// Connects when it is first used.
    ///
    /// # Errors
    /// [`Error::Config`] when there is no address.
    pub fn new(addresses: Addresses, tls: Arc<ClientConfig>) -> Result<Self, Error> {
        let channel = Mutex::new(tls::channel(addresses.clone(), tls.clone())?);
        Ok(Self { addresses, tls, channel })
    }

    /// The connection in use.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.lock().clone()
    }

    /// The session ended: with another scheduler to go to, a new connection is made, to that one first. What still runs
    /// over the old connection goes on as long as it can.
    pub fn turn(&self) {
        if self.addresses.all().len() < 2 {
            return;
        }
        self.addresses.turn();
        match tls::channel(self.addresses.clone(), self.tls.clone()) {
            Ok(channel) => *self.channel.lock() = channel,
            Err(error) => tracing::warn!(%error, "no new connection"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &std::path::Path, urls: &str) -> Addresses {
        let config = Config { state_dir: folder.into(), scheduler_url: urls.into(), ..Config::default() };
        Addresses::open(&config).unwrap()
    }

    fn urls(addresses: &Addresses) -> Vec<String> {
        addresses.all().iter().map(Target::url).collect()
    }

    #[test]
    fn told_addresses_come_first_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tls")).unwrap();
        let addresses = open(dir.path(), "https://a:1");
        assert_eq!(urls(&addresses), ["https://a:1"]);
        addresses.told(&["https://b:1".into(), "https://a:1".into(), "nonsense".into()]);
        assert_eq!(urls(&addresses), ["https://a:1", "https://b:1"], "what is in use stays in use");
        addresses.turn();
        assert_eq!(urls(&addresses), ["https://b:1", "https://a:1"]);
        addresses.turn();
        assert_eq!(urls(&addresses)[0], "https://a:1");
        // One that is away is not forgotten.
        addresses.told(&["https://b:1".into()]);
        assert_eq!(urls(&open(dir.path(), "https://c:1")), ["https://b:1", "https://a:1", "https://c:1"]);
    }

    #[test]
    fn there_is_an_end_to_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = open(dir.path(), "https://a:1,https://b:2");
        addresses.told(&(0..100).map(|n| format!("https://h{n}:1")).collect::<Vec<_>>());
        assert_eq!(addresses.all().len(), MOST);
    }
}
