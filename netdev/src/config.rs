//! Which packet path this is: the names of everything it owns follow from one prefix, so that several
//! nodes and clouds live on one machine without knowing of each other.
use crate::error::{Error, Result};
use crate::wireguard::PrivateKey;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Where bind mounts of network namespaces are kept, as `ip netns` expects them.
pub const NETNS_DIR: &str = "/run/netns";
/// Bytes of a prefix: namespace names stay readable and file names short.
const PREFIX_MAX: usize = 48;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Names the namespaces `<prefix>` and `<prefix>-edge`: letters, digits and `-`, at most 48.
    pub prefix: String,
    /// Holds the private bpffs (`bpf/`) and a lock. One prefix, one directory.
    pub state_dir: PathBuf,
    /// The link to other hosts; without it there is no overlay.
    pub underlay: Option<Underlay>,
    pub external: External,
    /// With [`External::Edge`]: name of an existing edge namespace to join instead of owning one.
    pub join_edge: Option<String>,
    pub notes: NoteRate,
}

/// How many notes of what its groups decide one port may cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoteRate {
    /// In a second, in the long run; at least 1.
    pub rate: u32,
    /// At once.
    pub burst: u32,
}

impl Default for NoteRate {
    /// As Neutron's drivers.
    fn default() -> Self {
        Self { rate: 100, burst: 25 }
    }
}

impl NoteRate {
    /// Nanoseconds that a note costs, and how many may be owed.
    pub(crate) fn times(self) -> (u64, u64) {
        let cost = 1_000_000_000 / u64::from(self.rate.max(1));
        (cost, cost.saturating_mul(u64::from(self.burst.saturating_sub(1))))
    }
}

/// The device in the node namespace that VXLAN runs over. If it is not there and an edge namespace is, it
/// is made: a link to the bridge `under0` in the edge namespace, with `address`/16. So several nodes of one
/// machine that join one edge find each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    pub device: String,
    pub address: Ipv4Addr,
    /// What goes to other hosts is encrypted, and nothing else is taken from them; `None`: it goes as it is.
    pub encryption: Option<Encryption>,
}

/// WireGuard between hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    pub key: PrivateKey,
    /// UDP port that encrypted packets come to.
    pub port: u16,
    /// What stands in for the kernel's WireGuard where it has none: a program like `wireguard-go`.
    pub program: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum External {
    /// A namespace of our own stands for the provider's network.
    Edge,
    /// A device in the node namespace, given by the caller.
    Device(String),
    None,
}

/// A namespace of this packet path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ns {
    Node,
    Edge,
}

/// Name of the node namespace of a prefix.
#[must_use]
pub fn node_name(prefix: &str) -> String {
    prefix.to_owned()
}

/// Name of the edge namespace that a prefix owns when it owns one.
#[must_use]
pub fn edge_name(prefix: &str) -> String {
    format!("{prefix}-edge")
}

/// Name of the namespace that an encrypting host's packets to other hosts pass through.
pub(crate) fn wire_name(prefix: &str) -> String {
    format!("{prefix}-wire")
}

/// The file that names a namespace.
#[must_use]
pub fn ns_path(name: &str) -> PathBuf {
    PathBuf::from(NETNS_DIR).join(name)
}

impl Config {
    pub(crate) fn check(&self) -> Result<()> {
        let name = |s: &str| {
            !s.is_empty()
                && s.len() <= PREFIX_MAX + 5
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !s.starts_with('-')
        };
        if !name(&self.prefix) || self.prefix.len() > PREFIX_MAX {
            return Err(Error::Config(format!("prefix {:?}", self.prefix)));
        }
        if let Some(edge) = &self.join_edge
            && !name(edge)
        {
            return Err(Error::Config(format!("join_edge {edge:?}")));
        }
        let device =
            |s: &str| (1..16).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        if let Some(u) = &self.underlay
            && !device(&u.device)
        {
            return Err(Error::Config(format!("underlay device {:?}", u.device)));
        }
        if let Some(e) = self.underlay.as_ref().and_then(|u| u.encryption.as_ref())
            && (e.port == 0 || e.program.as_ref().is_some_and(|p| !p.is_absolute()))
        {
            return Err(Error::Config(
                "encryption: the port must not be 0, and a program's path must be absolute".into(),
            ));
        }
        if let External::Device(d) = &self.external
            && !device(d)
        {
            return Err(Error::Config(format!("external device {d:?}")));
        }
        if !self.state_dir.is_absolute() {
            return Err(Error::Config("state_dir must be absolute".into()));
        }
        Ok(())
    }

    /// Name of the node namespace.
    #[must_use]
    pub fn node(&self) -> String {
        node_name(&self.prefix)
    }

    /// Name of the edge namespace, if there is one.
    #[must_use]
    pub fn edge(&self) -> Option<String> {
        match self.external {
            External::Edge => Some(self.join_edge.clone().unwrap_or_else(|| edge_name(&self.prefix))),
            External::Device(_) | External::None => None,
        }
    }

    /// Name of the namespace between the overlay and the underlay where that is encrypted.
    pub(crate) fn wire(&self) -> String {
        wire_name(&self.prefix)
    }

    pub(crate) fn owns_edge(&self) -> bool {
        self.external == External::Edge && self.join_edge.is_none()
    }

    pub(crate) fn bpffs(&self) -> PathBuf {
        self.state_dir.join("bpf")
    }

    /// Name of the edge link's device in the node namespace.
    pub(crate) fn edge_device(&self) -> Option<&str> {
        match &self.external {
            External::Edge => Some(EDGE_LINK),
            External::Device(d) => Some(d),
            External::None => None,
        }
    }
}

pub(crate) const EDGE_LINK: &str = "edge0";
pub(crate) const EDGE_BRIDGE: &str = "ext0";
pub(crate) const UNDERLAY_BRIDGE: &str = "under0";
pub(crate) const OVERLAY_LINK: &str = "overlay0";
pub(crate) const AGENT_LINK: &str = "agent0";
pub(crate) const PUNT_LINK: &str = "agent1";
pub(crate) const COPY_LINK: &str = "copy0";
pub(crate) const COPY_PEER: &str = "copy1";

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            prefix: "pilvi-1a2b".into(),
            state_dir: "/var/lib/x".into(),
            underlay: None,
            external: External::Edge,
            join_edge: None,
            notes: NoteRate::default(),
        }
    }

    #[test]
    fn names_follow_from_the_prefix() {
        let c = config();
        assert!(c.check().is_ok());
        assert_eq!((c.node().as_str(), c.edge().as_deref()), ("pilvi-1a2b", Some("pilvi-1a2b-edge")));
        assert_eq!(ns_path("a"), PathBuf::from("/run/netns/a"));
    }

    #[test]
    fn names_cannot_leave_their_directory() {
        for bad in ["", "../x", "a/b", "-n", "a b", &"x".repeat(49)] {
            let c = Config { prefix: bad.into(), ..config() };
            assert!(c.check().is_err(), "{bad:?}");
        }
        let c = Config { external: External::Device("a/b".into()), ..config() };
        assert!(c.check().is_err());
        let c = Config { state_dir: "relative".into(), ..config() };
        assert!(c.check().is_err());
    }
}
