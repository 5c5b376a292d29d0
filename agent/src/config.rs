//! Everything that is decided before the agent starts, validated once.
//!
//! `pilvi up` fills the struct in the same process; `pilvi agent` reads it from a TOML file, the
//! environment and the command line. Unknown fields are refused, so a misspelt one is not silent.
use crate::error::Error;
use crate::runtime::Kind;
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A value that must not show in logs.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Which packet path the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// pilvi-netdev: taps, overlay, DHCP, metadata.
    #[default]
    Real,
    /// Ports are called wired and nothing is made: for simulated hosts.
    None,
}

/// The device and address that traffic between hosts uses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Underlay {
    /// Device in the node's namespace.
    pub device: String,
    /// This host's address on it, also its VTEP.
    pub address: Ipv4Addr,
}

/// What encrypts packets between hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encrypt {
    /// WireGuard.
    Wireguard,
}

/// The networks that span hosts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overlay {
    /// Unset: packets between hosts are not encrypted. Set: this host speaks only with hosts that encrypt.
    pub encrypt: Option<Encrypt>,
    /// UDP port that encrypted packets come to.
    pub port: u16,
    /// What stands in for the kernel's WireGuard where it has none, such as `/usr/bin/wireguard-go`.
    pub wireguard: Option<PathBuf>,
}

impl Default for Overlay {
    fn default() -> Self {
        Self { encrypt: None, port: 51_820, wireguard: None }
    }
}

/// How a host reaches the external network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum External {
    /// A namespace of our own stands for the provider's network.
    #[default]
    Edge,
    /// A device that the operator has put into the node's namespace.
    Device(String),
    /// Not at all.
    None,
}

/// When guests that run in another build of the monitor than the one that starts guests now move into one of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Upgrade {
    /// Never: with their next start.
    Off,
    /// When an operator asks for it.
    #[default]
    Asked,
    /// By themselves, one after the other.
    On,
}

/// What the host keeps for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reserved {
    /// Processors.
    pub vcpus: u32,
    /// MiB of memory.
    pub memory_mib: u64,
    /// GiB of disk below the state directory.
    pub disk_gib: u64,
}

/// What the host has, said instead of measured: simulated hosts are larger than the machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Processors.
    pub vcpus: u32,
    /// MiB of memory.
    pub memory_mib: u64,
    /// GiB of disk.
    pub disk_gib: u64,
}

/// What of the host's link to its networks may be promised to ports (QoS rules of a minimum). 0: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// 1000 bits a second, from guests.
    pub egress_kbps: u64,
    /// Towards guests.
    pub ingress_kbps: u64,
    /// 1000 packets a second, both ways together.
    pub kpps: u64,
    /// The same each way, where rules have a direction.
    pub egress_kpps: u64,
    pub ingress_kpps: u64,
}

/// The log of what security groups decided, `flow.log` in the state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowLog {
    /// Lines that one port may cause in a second, in the long run.
    pub rate: u32,
    /// And at once.
    pub burst: u32,
    /// Size at which a new file is begun; the one before is kept.
    pub max_mib: u32,
}

impl Default for FlowLog {
    fn default() -> Self {
        Self { rate: 100, burst: 25, max_mib: 64 }
    }
}

/// How one host's agent runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Ledger, instances, images and keys live here; made with mode 0700.
    pub state_dir: PathBuf,
    /// `https://host:port` of the scheduler; several, separated by commas, where there are several.
    pub scheduler_url: String,
    /// Host name, unique in the cloud.
    pub name: String,
    /// `pilvi1.<secret>.<pin>`, needed only until the host has its certificate.
    pub join_token: Option<Secret>,
    /// File that holds the token, for those who keep it out of the environment.
    pub join_token_file: Option<PathBuf>,
    /// Short name that starts every device and namespace of this agent.
    pub prefix: String,
    /// Runtimes that may be used, in order of preference.
    pub runtimes: Vec<Kind>,
    /// Which packet path the host has.
    pub network: NetworkMode,
    /// The link to other hosts; unset on a single-node cloud.
    pub underlay: Option<Underlay>,
    /// The networks that span hosts.
    pub overlay: Overlay,
    /// How this host reaches the external network.
    pub external: External,
    /// Names of the physical networks that it is thus connected to; unset: any that a network is of.
    pub physical_networks: Option<Vec<String>>,
    /// Availability zone of its networks and routers; "": that of hosts which say nothing.
    pub zone: String,
    /// With `external = "edge"`: name of an existing edge namespace to join instead of owning one.
    pub join_edge: Option<String>,
    /// Name servers that answer guests' questions about the outside; none: those of `/etc/resolv.conf`.
    pub name_servers: Vec<IpAddr>,
    /// What starts a VMM: program and leading arguments, such as `["/usr/bin/pilvi", "vmm"]`.
    pub vmm_command: Vec<String>,
    /// When guests of `kvm` that run in another build of the VMM than `vmm_command` now is move into that one.
    pub vmm_upgrade: Upgrade,
    /// Whether guests of `kvm` start with memory that a newer VMM takes over as it is. Otherwise it copies it, for which
    /// the host needs as much again meanwhile. Unset: where the kernel gives such memory huge pages.
    pub vmm_shared_memory: Option<bool>,
    /// The BIOS with which VMMs start disks that have a boot sector, but no kernel that is found; without such a file
    /// they start none of these.
    pub vmm_firmware: PathBuf,
    /// The emulator.
    pub qemu_binary: PathBuf,
    /// Code and variables of UEFI for guests of `qemu` whose image asks for it.
    pub uefi_code: PathBuf,
    pub uefi_vars: PathBuf,
    /// The same where only what is signed shall start (`os_secure_boot=required`).
    pub uefi_secure_code: PathBuf,
    pub uefi_secure_vars: PathBuf,
    /// Unprivileged user that qemu changes to; unset: the first of `pilvi-guest`,
    /// `libvirt-qemu` and `nobody` that exists, when the agent is root.
    pub guest_user: Option<String>,
    /// What the host keeps for itself.
    pub reserved: Reserved,
    /// What may be promised of its link; unset: nothing.
    pub link: Option<Link>,
    /// How much is written down where somebody asks for a log.
    pub flow_log: FlowLog,
    /// Said instead of measured.
    pub capacity: Option<Capacity>,
    /// Where other hosts' agents bring guests that move here; port 0 is any. Unset: any port of the address from which
    /// the scheduler is reached. Nobody listens before a guest is expected.
    pub moves_listen: Option<SocketAddr>,
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u64,
    /// Seconds that a guest has to power off before it is ended.
    pub stop_grace_s: u64,
    /// Seconds that an image is kept after its last use.
    pub image_keep_s: u64,
    /// Images fetched at the same time.
    pub image_fetches: usize,
    /// KiB of console output kept for each instance.
    pub console_kib: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/pilvi/agent".into(),
            scheduler_url: String::new(),
            name: host_name(),
            join_token: None,
            join_token_file: None,
            prefix: "pilvi".into(),
            runtimes: vec![Kind::Kvm, Kind::Qemu],
            network: NetworkMode::Real,
            underlay: None,
            overlay: Overlay::default(),
            external: External::default(),
            physical_networks: None,
            zone: String::new(),
            join_edge: None,
            name_servers: Vec::new(),
            vmm_command: vec!["pilvi-vmm".into()],
            vmm_upgrade: Upgrade::default(),
            vmm_shared_memory: None,
            vmm_firmware: "/usr/share/seabios/bios-256k.bin".into(),
            qemu_binary: "qemu-system-x86_64".into(),
            uefi_code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            uefi_vars: "/usr/share/OVMF/OVMF_VARS_4M.fd".into(),
            uefi_secure_code: "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd".into(),
            uefi_secure_vars: "/usr/share/OVMF/OVMF_VARS_4M.ms.fd".into(),
            guest_user: None,
            reserved: Reserved::default(),
            link: None,
            flow_log: FlowLog::default(),
            capacity: None,
            moves_listen: None,
            heartbeat_ms: 2_000,
            stop_grace_s: 60,
            image_keep_s: 24 * 3600,
            image_fetches: 2,
            console_kib: 1024,
        }
    }
}

impl Config {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Config`] when a field is unknown or wrong.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        toml::from_str(&text).map_err(|e| Error::Config(format!("{}: {e}", path.display())))
    }

    /// Checks every field that can be wrong on its own.
    ///
    /// # Errors
    /// [`Error::Config`] names the field and what is expected.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |text: &str| Err(Error::Config(text.to_owned()));
        if !self.state_dir.is_absolute() {
            return wrong("state_dir must be an absolute path");
        }
        let spelled = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.len() > 253 || !self.name.chars().all(spelled) {
            return wrong("name must be 1 to 253 letters, digits, '-', '_' or '.'");
        }
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.prefix.is_empty() || self.prefix.len() > 48 || !self.prefix.chars().all(named) {
            return wrong("prefix must be 1 to 48 letters, digits or '-'");
        }
        if self.runtimes.is_empty() {
            return wrong("runtimes must name at least one of kvm, qemu, fake");
        }
        if self.vmm_command.is_empty() && self.runtimes.contains(&Kind::Kvm) {
            return wrong("vmm_command must name a program");
        }
        if !(50..=60_000).contains(&self.heartbeat_ms) {
            return wrong("heartbeat_ms must be 50 to 60000");
        }
        if self.image_fetches == 0 || self.console_kib == 0 {
            return wrong("image_fetches and console_kib must be at least 1");
        }
        if self.flow_log.rate == 0 || self.flow_log.burst == 0 || !(1..=65_536).contains(&self.flow_log.max_mib) {
            return wrong("flow_log: rate, burst and max_mib must be at least 1, max_mib at most 65536");
        }
        if self.overlay.port == 0 || self.overlay.wireguard.as_ref().is_some_and(|program| !program.is_absolute()) {
            return wrong("overlay: port must not be 0, and wireguard must be an absolute path");
        }
        if self.overlay.encrypt.is_some() && self.underlay.is_none() {
            return wrong("overlay: encrypt needs an underlay: without one nothing goes to other hosts");
        }
        let named = self.physical_networks.as_deref().unwrap_or_default();
        if named.len() > 64 || named.iter().any(|name| name.is_empty() || name.len() > 64) {
            return wrong("physical_networks must be at most 64 names of 1 to 64 bytes");
        }
        if self.zone.len() > 64 || self.zone.contains(char::is_control) {
            return wrong("zone must be a name of at most 64 bytes");
        }
        crate::tls::Target::parse_all(&self.scheduler_url).map(|_| ())
    }

    /// The join token, from the field or the file.
    pub(crate) fn token(&self) -> Result<Option<Secret>, Error> {
        match (&self.join_token, &self.join_token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
                Ok(Some(Secret::new(text.trim())))
            }
            (None, None) => Ok(None),
        }
    }

    /// Host and port of each scheduler that is configured.
    pub(crate) fn schedulers(&self) -> Vec<(String, u16)> {
        let targets = crate::tls::Target::parse_all(&self.scheduler_url).unwrap_or_default();
        targets.into_iter().map(|target| (target.host, target.port)).collect()
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_field_is_refused() {
        let text = "scheduler_url = 'https://127.0.0.1:1'\nheartbeat_sm = 3";
        let error = toml::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains("heartbeat_sm"), "{error}");
    }

    #[test]
    fn the_token_does_not_show() {
        let config = Config { join_token: Some(Secret::new("pilvi1.hush.x")), ..Config::default() };
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn says_what_is_wrong() {
        let good = Config { scheduler_url: "https://127.0.0.1:8774".into(), name: "n1".into(), ..Config::default() };
        good.validate().unwrap();
        for (field, bad) in [
            ("state_dir", Config { state_dir: "x".into(), ..good.clone() }),
            ("name", Config { name: "a b".into(), ..good.clone() }),
            ("prefix", Config { prefix: "way/out".into(), ..good.clone() }),
            ("runtimes", Config { runtimes: vec![], ..good.clone() }),
            ("scheduler_url", Config { scheduler_url: "http://x".into(), ..good.clone() }),
            ("heartbeat_ms", Config { heartbeat_ms: 1, ..good.clone() }),
            ("physical_networks", Config { physical_networks: Some(vec![String::new()]), ..good.clone() }),
            ("zone", Config { zone: "a\nb".into(), ..good.clone() }),
            ("overlay", Config { overlay: Overlay { port: 0, ..Overlay::default() }, ..good.clone() }),
            (
                "underlay",
                Config { overlay: Overlay { encrypt: Some(Encrypt::Wireguard), ..Overlay::default() }, ..good.clone() },
            ),
            ("flow_log", Config { flow_log: FlowLog { rate: 0, ..FlowLog::default() }, ..good.clone() }),
        ] {
            let error = bad.validate().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
