//! Disks and cards of a QEMU guest, on the command line and while it runs: pure.
//!
//! ```text
//!  place p    device disk<p>.<id> --- node<p> (raw or qcow2) --- file, or a descriptor that QEMU was given
//!             device nic<p>.<id>  --- net<p> --- tap
//!  q35        each in a port of its own, from which it can be taken: port<p>
//!  pc         on the one bus, at number 3 + p
//! ```
//! The device's name in QEMU says its place and id: whoever comes later reads them there.
use crate::runtime::{DiskFormat, MachineDisk, MachineNic};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Places on the bus.
pub const PLACES: u8 = 24;
/// First device number of the root ports on q35, eight of them a number.
const PORTS_AT: u8 = 0x10;
/// Device number of the first place on `pc`.
const FIRST_ON_PC: u8 = 3;

/// Which machine QEMU imitates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Board {
    Q35,
    Pc,
}

/// What sits on a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Disk,
    Nic,
}

impl Board {
    /// What the image asks for.
    #[must_use]
    pub fn of(properties: &BTreeMap<String, String>) -> Self {
        match property(properties, "hw_machine_type") {
            kind if kind.starts_with("pc") => Self::Pc,
            _ => Self::Q35,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            Self::Pc => "pc",
        }
    }

    /// Puts a PCI device on its place.
    fn seat(self, place: u8, device: &mut Value) {
        match self {
            Self::Q35 => device["bus"] = json!(port_name(place)),
            Self::Pc => {
                device["bus"] = json!("pci.0");
                device["addr"] = json!(format!("{:#x}", FIRST_ON_PC + place));
            }
        }
    }
}

/// One property's value, "" when it is not there.
pub fn property<'a>(properties: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    properties.get(name).map_or("", String::as_str)
}

pub fn port_name(place: u8) -> String {
    format!("port{place}")
}

/// The port of a place on q35.
pub fn port(place: u8) -> Value {
    json!({
        "driver": "pcie-root-port", "id": port_name(place), "bus": "pcie.0", "chassis": place + 1,
        "addr": format!("{:#x}.{:#x}", PORTS_AT + place / 8, place % 8), "multifunction": true,
    })
}

/// The name of a device in QEMU.
pub fn name(kind: Kind, place: u8, id: &str) -> String {
    let kind = match kind {
        Kind::Disk => "disk",
        Kind::Nic => "nic",
    };
    format!("{kind}{place}.{id}")
}

/// Kind, place and id from such a name.
pub fn parse(name: &str) -> Option<(Kind, u8, &str)> {
    let (head, id) = name.split_once('.')?;
    let (kind, place) = match head.strip_prefix("disk") {
        Some(place) => (Kind::Disk, place),
        None => (Kind::Nic, head.strip_prefix("nic")?),
    };
    Some((kind, place.parse().ok()?, id))
}

/// Whether a device has a name that does not tell its id: of a guest that an earlier agent started.
pub fn is_nameless(name: &str) -> bool {
    let number = name.strip_prefix("disk").or_else(|| name.strip_prefix("nic"));
    number.is_some_and(|number| number.parse::<u8>().is_ok())
}

pub fn node_name(place: u8) -> String {
    format!("node{place}")
}

pub fn net_name(place: u8) -> String {
    format!("net{place}")
}

/// The device of a disk. `boot`: as how many-th it is tried at boot.
pub fn disk(
    board: Board,
    place: u8,
    disk: &MachineDisk,
    properties: &BTreeMap<String, String>,
    boot: Option<usize>,
) -> Value {
    let serial: String = disk.serial.chars().take(20).collect();
    let driver = match property(properties, "hw_disk_bus") {
        "ide" | "sata" => "ide-hd",
        _ => "virtio-blk-pci",
    };
    let mut device = json!({
        "driver": driver, "id": name(Kind::Disk, place, &disk.id), "drive": node_name(place), "serial": serial,
    });
    if let Some(boot) = boot {
        device["bootindex"] = json!(boot);
    }
    if driver != "ide-hd" {
        board.seat(place, &mut device);
    }
    device
}

/// The block graph of one disk, with every format said: nothing is ever guessed from content. `file` is a path, or the
/// name of a set of descriptors.
pub fn node(place: u8, disk: &MachineDisk, file: &str) -> Value {
    let of = |name: &str| json!({"driver": "file", "filename": name});
    let mut node = match &disk.format {
        DiskFormat::Raw => json!({"driver": "raw", "file": of(file)}),
        DiskFormat::Overlay(base) => json!({
            "driver": "qcow2", "file": of(file),
            "backing": {"driver": "raw", "read-only": true, "file": of(&base.to_string_lossy())},
        }),
    };
    node["node-name"] = json!(node_name(place));
    node["read-only"] = json!(disk.read_only);
    if !disk.read_only {
        node["discard"] = json!("unmap");
    }
    node
}

/// The device of a card; its taps are behind `net<place>`, if it has any.
pub fn nic(board: Board, place: u8, nic: &MachineNic, properties: &BTreeMap<String, String>) -> Value {
    let model = match property(properties, "hw_vif_model") {
        "e1000" => "e1000",
        "e1000e" => "e1000e",
        "rtl8139" => "rtl8139",
        _ => "virtio-net-pci",
    };
    let mut device = json!({
        "driver": model, "id": name(Kind::Nic, place, &nic.id), "mac": nic.mac, "romfile": "",
    });
    if !nic.taps.is_empty() {
        device["netdev"] = json!(net_name(place));
    }
    if model == "virtio-net-pci" {
        if nic.taps.len() > 1 {
            device["mq"] = json!(true);
        }
        if nic.mtu >= 68 {
            device["host_mtu"] = json!(nic.mtu);
        }
    }
    board.seat(place, &mut device);
    device
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_place_and_id() {
        for (kind, place, id) in [(Kind::Disk, 0, "root"), (Kind::Nic, 23, "3f1c2b1e-0000-4000-8000-000000000001")] {
            assert_eq!(parse(&name(kind, place, id)), Some((kind, place, id)));
        }
        for other in ["port3", "rng0", "disk.x", "diskx.y", "nic999.z", "disk3"] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert!(is_nameless("disk0") && is_nameless("nic12") && !is_nameless("disk0.root") && !is_nameless("nicety"));
    }

    #[test]
    fn all_ports_have_numbers_of_their_own() {
        let at: std::collections::BTreeSet<String> = (0..PLACES).map(|p| port(p)["addr"].to_string()).collect();
        assert_eq!(at.len(), usize::from(PLACES));
        assert!(FIRST_ON_PC + PLACES <= 32 && PORTS_AT + PLACES.div_ceil(8) <= 0x1f);
    }
}
