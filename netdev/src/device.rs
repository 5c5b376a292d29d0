//! A port's device: its name, the alias that says whose it is, and what a pass says of it at the end. The kernel
//! keeps the alias, so that an agent that starts anew finds its ports without a file of its own.
use crate::netlink::Link;
use crate::picture::Problem;
use crate::plan::PORT_ALIAS;
use crate::table::name64;
use crate::wanted::{Port, Wanted};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How one pass ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    pub ports: Vec<AppliedPort>,
    /// What went wrong and belongs to no single port.
    pub errors: Vec<String>,
    /// Why nothing goes to other hosts and comes from them.
    pub overlay: Option<String>,
    /// Rows of the kernel's tables that were written or deleted.
    pub rows: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedPort {
    pub id: String,
    /// Name of the device in the node namespace.
    pub device: String,
    /// The device is there and its traffic is forwarded.
    pub wired: bool,
    pub error: Option<String>,
}

/// The device of a port: a name that fits into 15 bytes and follows from the id.
#[must_use]
pub fn tap_name(port_id: &str) -> String {
    format!("tap{:011x}", name64(port_id) & 0xfff_ffff_ffff)
}

/// Marks the name of a port that has another's device: `SUBPORT` of `bpf/tables.h`.
const SUBPORT: u32 = 1 << 30;

/// What stands for an interface index where a port has none.
pub(crate) fn subport_name(device: u32, vlan: u16) -> Option<u32> {
    (device < 1 << 18 && (1..4095).contains(&vlan)).then(|| SUBPORT | device << 12 | u32::from(vlan))
}

/// `TAG_SERVICE` of `bpf/tables.h`: beside a tag's number, of which kind it is.
pub(crate) const SERVICE_TAG: u16 = 0x2000;
/// The same beside the name of a wire.
const SERVICE: u32 = 1 << 31;

/// A wire: the device and its tag there, with its kind.
pub(crate) fn wire_name(device: u32, tag: u16) -> Option<u32> {
    let service = if tag & SERVICE_TAG == 0 { 0 } else { SERVICE };
    subport_name(device, tag & !SERVICE_TAG).map(|name| name | service)
}

/// The device of a port's or a wire's name, and the tag as it stands in its frames there.
pub(crate) fn device_of(name: u32) -> (u32, Option<[u8; 4]>) {
    if name & SUBPORT == 0 {
        return (name, None);
    }
    let [kind, service] = if name & SERVICE == 0 { [0x81, 0] } else { [0x88, 0xa8] };
    let [.., high, low] = (name & 0xfff).to_be_bytes();
    (name >> 12 & 0x3_ffff, Some([kind, service, high, low]))
}

pub(crate) fn alias_of(port_id: &str) -> String {
    format!("{PORT_ALIAS}{port_id}")
}

/// Interface indexes of the wanted ports that have their device.
pub(crate) fn devices(wanted: &Wanted, links: &[Link]) -> BTreeMap<String, u32> {
    let by_alias: HashMap<&str, u32> = links.iter().map(|l| (l.alias.as_str(), l.index)).collect();
    let device = |id: &str| by_alias.get(alias_of(id).as_str()).copied();
    let index = |p: &Port| {
        let name = match &p.parent {
            None => device(&p.id),
            Some(parent) => device(&parent.port).and_then(|i| subport_name(i, parent.vlan)),
        };
        Some((p.id.clone(), name?))
    };
    wanted.ports.iter().filter_map(index).collect()
}

/// Those of the ports that packets may pass: an idle one has a device, and its addresses are on another host.
pub(crate) fn in_use(wanted: &Wanted, devices: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    let mut in_use = devices.clone();
    for port in wanted.ports.iter().filter(|p| p.idle) {
        in_use.remove(&port.id);
    }
    in_use
}

/// What a pass did for each port, and what belongs to none.
pub(crate) fn report(
    wanted: &Wanted,
    devices: &BTreeMap<String, u32>,
    failed: &BTreeMap<String, String>,
    problems: Vec<Problem>,
) -> Applied {
    let mut applied = Applied::default();
    for port in &wanted.ports {
        let device = tap_name(port.parent.as_ref().map_or(&port.id, |p| &p.port));
        let mut error = failed.get(&device).cloned();
        if error.is_none() && !devices.contains_key(&port.id) {
            error = Some("has no device".to_owned());
        }
        let says = problems.iter().find(|p| p.port.as_deref() == Some(&port.id));
        let error = error.or_else(|| says.map(|p| p.message.clone()));
        let closed = problems.iter().any(|p| p.closes && p.port.as_deref() == Some(&port.id));
        let wired = devices.contains_key(&port.id) && !failed.contains_key(&device) && !closed;
        applied.ports.push(AppliedPort { id: port.id.clone(), device, wired, error });
    }
    let ours: BTreeSet<&str> = applied.ports.iter().map(|p| p.device.as_str()).collect();
    applied.errors.extend(failed.iter().filter(|(d, _)| !ours.contains(d.as_str())).map(|(d, e)| format!("{d}: {e}")));
    applied.errors.extend(problems.into_iter().filter(|p| p.port.is_none()).map(|p| p.message));
    applied
}
