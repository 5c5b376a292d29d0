//! Encryption between hosts: one WireGuard device, and a namespace that leaves no other way.
//!
//! ```text
//!   node namespace <prefix>                            namespace <prefix>-wire
//!     [programs] --> overlay0 ==(its socket is there)==> UDP 4789 --> route: all by --> wg (allowed: who is who)
//!     <underlay> <-- UDP 51820, encrypted <==(its socket is here)=====================/
//! ```
//! Both devices know two namespaces, as the kernel lets tunnels: overlay0 takes frames in the node's and speaks VXLAN in the
//! wire's; the WireGuard device takes packets in the wire's and speaks UDP in the node's. In the wire's namespace there is
//! nothing else. So what goes to another host is encrypted or goes nowhere, and a VXLAN packet that comes unencrypted finds no
//! socket: there is no rule that could be wrong, and no moment in which one is not there yet. The same underlay addresses are
//! used outside and inside: tunnel ends are who they were, and the device vouches for each by its key.
//!
//! The kernel's WireGuard is used where it has one, else the program that the operator names (`wireguard-go`), which outlives
//! this process as the kernel's device does. Peers are planned and repaired ([`plan`]) like all else; a host that does not
//! encrypt is no peer, and nothing goes to it.
mod kernel;
mod key;
pub(crate) mod plan;
mod uapi;

pub use key::PrivateKey;

use crate::config::{Config, Encryption, OVERLAY_LINK, ns_path};
use crate::edge;
use crate::error::{Error, Result, Step};
use crate::namespace;
use crate::netlink::{Change, Link, Netlink};
use crate::standing;
use crate::table::name64;
use crate::wanted::Tunnel;
use plan::Device;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Bytes that encryption adds to a packet between hosts: an IP header, UDP, and WireGuard's own 32. The header counts as one of
/// IPv6, which is what WireGuard's tools reckon with: one of IPv4 leaves room for the bytes that fill the last block, which a
/// program that has not heard of the device's MTU may add.
pub const OVERHEAD: u32 = 40 + 8 + 32;
/// How the kernel calls its own.
const KERNEL: &str = "wireguard";
/// Where programs have their sockets.
const SOCKETS: &str = "/var/run/wireguard";
/// How long a program has to make its device, in looks of 20 ms.
const LOOKS: u32 = 250;
const LOOK: Duration = Duration::from_millis(20);
/// A port that nobody listens on: what goes there makes two hosts agree on a session.
const DISCARD: u16 = 9;

/// The encrypted way to other hosts.
pub(crate) struct Wire {
    encryption: Encryption,
    /// Of this host on the underlay.
    address: Ipv4Addr,
    underlay: String,
    node: PathBuf,
    namespace: String,
    /// Of the device: one in the machine, as programs name their sockets by it.
    name: String,
    log: PathBuf,
    /// Started by this process.
    child: Option<Child>,
}

impl Wire {
    /// `None`: nothing is to be encrypted.
    pub fn of(config: &Config) -> Option<Self> {
        let underlay = config.underlay.as_ref()?;
        Some(Self {
            encryption: underlay.encryption.clone()?,
            address: underlay.address,
            underlay: underlay.device.clone(),
            node: ns_path(&config.node()),
            namespace: config.wire(),
            name: format!("wg{:011x}", name64(&config.prefix) & 0xfff_ffff_ffff),
            log: config.state_dir.join("wireguard.log"),
            child: None,
        })
    }

    fn inside<T: Send + 'static>(&self, job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        namespace::inside(&ns_path(&self.namespace), job)
    }

    /// Makes what is missing. `netlink` is in the node namespace. Whether the overlay has another device now.
    pub fn ensure(&mut self, netlink: &mut Netlink) -> Result<bool> {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            tracing::error!(%status, log = %self.log.display(), "the WireGuard program has ended");
            self.child = None;
        }
        let fresh = namespace::ensure(&self.namespace)?;
        let overlay = netlink.link(OVERLAY_LINK)?;
        // One that does not encrypt is gone before anything else; one of a namespace that has gone is going.
        let stale = overlay.as_ref().filter(|link| fresh || !link.elsewhere);
        stale.map_or(Ok(()), |link| netlink.delete(link.index))?;
        let mtu = self.mtu(netlink)?;
        if self.device()?.is_none() {
            self.make(netlink, mtu)?;
        }
        let (name, address) = (self.name.clone(), self.address);
        self.inside(move || settle(&name, address, mtu))?;
        let kept = overlay.is_some() && stale.is_none();
        if !kept {
            let node = self.node.clone();
            self.inside(move || give_overlay(&node))?;
        }
        Ok(!kept)
    }

    /// What fits between hosts.
    fn mtu(&self, netlink: &mut Netlink) -> Result<u32> {
        let link = netlink.link(&self.underlay)?;
        let link = link.ok_or_else(|| Error::Config(format!("device {} is not in the namespace", self.underlay)))?;
        link.mtu.checked_sub(OVERHEAD).filter(|mtu| *mtu >= 576).ok_or_else(|| {
            Error::Config(format!("device {} has an MTU of {}: too small to encrypt", self.underlay, link.mtu))
        })
    }

    /// The WireGuard device, once it is where it belongs.
    fn device(&self) -> Result<Option<Link>> {
        let name = self.name.clone();
        self.inside(move || Netlink::open()?.link(&name))
    }

    /// The device begins in the node namespace, where its socket stays.
    fn make(&mut self, netlink: &mut Netlink, mtu: u32) -> Result<()> {
        if netlink.link(&self.name)?.is_none() {
            match netlink.create_wireguard(&self.name) {
                Err(Error::System { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    self.start(netlink)?;
                }
                other => other?,
            }
        }
        let link = netlink.link(&self.name)?.ok_or_else(|| Error::NoPort(self.name.clone()))?;
        // A program may hear of it here; of what happens to its device elsewhere it does not.
        netlink.change(link.index, &Change { mtu: Some(mtu), ..Change::default() })?;
        let wire = ns_path(&self.namespace);
        let wire = File::open(&wire).step(format!("open {}", wire.display()))?;
        netlink.change(link.index, &Change { namespace: Some(wire.as_fd()), ..Change::default() })
    }

    /// The program that stands in for the kernel. It has nothing of this process but a log; its key comes by its socket.
    fn start(&mut self, netlink: &mut Netlink) -> Result<()> {
        let Some(program) = &self.encryption.program else {
            return Err(Error::Config(
                "this kernel has no WireGuard, and no program is named that stands in for it".into(),
            ));
        };
        let log = File::create(&self.log).step(format!("create {}", self.log.display()))?;
        let mut child = Command::new(program)
            .args(["-f", &self.name])
            .env_clear()
            .env("LOG_LEVEL", "error")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().step("open the log")?)
            .stderr(log)
            // Not of the group that a terminal's interrupt goes to: it outlives this process.
            .process_group(0)
            .spawn()
            .step(format!("start {}", program.display()))?;
        for _ in 0..LOOKS {
            if let Some(status) = child.try_wait().step("look at the WireGuard program")? {
                return Err(Error::Config(format!(
                    "{} ended at once ({status}): see {}",
                    program.display(),
                    self.log.display()
                )));
            }
            if netlink.link(&self.name)?.is_some() && self.socket().exists() {
                self.child = Some(child);
                return Ok(());
            }
            std::thread::park_timeout(LOOK);
        }
        child.kill().and_then(|()| child.wait()).step("end the WireGuard program")?;
        Err(Error::Config(format!("{} made no device: see {}", program.display(), self.log.display())))
    }

    fn socket(&self) -> PathBuf {
        Path::new(SOCKETS).join(format!("{}.sock", self.name))
    }

    /// Brings key, port and peers to what is wanted. What cannot be.
    pub fn sync(&self, tunnels: &[Tunnel]) -> Result<Vec<String>> {
        let Encryption { key, port, .. } = &self.encryption;
        let (wanted, problems) = plan::wanted(key, *port, self.address, tunnels);
        let link = self.device()?.ok_or_else(|| Error::Config("the WireGuard device is gone".into()))?;
        let (name, socket, address) = (self.name.clone(), self.socket(), self.address);
        self.inside(move || {
            if link.kind == KERNEL {
                bring(&wanted, address, || kernel::read(&name), |steps| kernel::write(&name, steps))
            } else {
                bring(&wanted, address, || uapi::read(&socket), |steps| uapi::write(&socket, steps))
            }
        })?;
        Ok(problems)
    }
}

fn bring(
    wanted: &Device,
    own: Ipv4Addr,
    read: impl FnOnce() -> Result<Device>,
    write: impl FnOnce(&[plan::Step]) -> Result<()>,
) -> Result<()> {
    let found = read()?;
    let steps = plan::steps(wanted, &found);
    if steps.is_empty() {
        return Ok(());
    }
    write(&steps)?;
    greet(own, &plan::renewed(&steps, &found));
    Ok(())
}

/// A word to hosts that have another key now: the session is made at once, not with their next packet.
fn greet(own: Ipv4Addr, hosts: &[IpAddr]) {
    if hosts.is_empty() {
        return;
    }
    let sent = UdpSocket::bind((own, 0))
        .and_then(|socket| hosts.iter().try_for_each(|host| socket.send_to(b"", (*host, DISCARD)).map(drop)));
    if let Err(error) = sent {
        tracing::debug!(%error, "hosts with new keys are spoken to with the next packet");
    }
}

/// In the wire's namespace: the device is up, has this host's address and is the only way.
fn settle(name: &str, address: Ipv4Addr, mtu: u32) -> Result<()> {
    standing::silence6()?;
    let mut netlink = Netlink::open()?;
    let link = netlink.link(name)?.ok_or_else(|| Error::NoPort(name.to_owned()))?;
    if link.mtu != mtu || !link.up {
        netlink.change(link.index, &Change { mtu: Some(mtu), up: Some(true), ..Change::default() })?;
    }
    for (other, prefix) in netlink.addresses(link.index)?.into_iter().filter(|(ip, _)| *ip != address) {
        netlink.delete_address(link.index, other, prefix)?;
    }
    netlink.add_address(link.index, address, 32)?;
    netlink.add_link_route(link.index, Ipv4Addr::UNSPECIFIED, 0)
}

/// In the wire's namespace: makes the overlay's device, whose socket stays here, and gives it to the node.
fn give_overlay(node: &Path) -> Result<()> {
    let mut netlink = Netlink::open()?;
    if netlink.link(OVERLAY_LINK)?.is_none() {
        netlink.create_overlay(OVERLAY_LINK)?;
    }
    let link = netlink.link(OVERLAY_LINK)?.ok_or_else(|| Error::NoPort(OVERLAY_LINK.into()))?;
    let file = File::open(node).step(format!("open {}", node.display()))?;
    netlink.change(link.index, &Change { namespace: Some(file.as_fd()), ..Change::default() })
}

/// Takes away what an encrypted life has left; a program ends with its device.
pub(crate) fn clear(config: &Config) -> Result<()> {
    let path = ns_path(&config.wire());
    if namespace::exists(&path) {
        namespace::inside(&path, edge::delete_links)?;
    }
    namespace::remove(&config.wire())
}
