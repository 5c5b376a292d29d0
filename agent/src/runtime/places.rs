//! Where a machine's disks and cards sit on its bus: pure.
//!
//! ```text
//! a fresh start:        disks in their order, then cards           0 1 2 ...
//! from before:          each where it was, whatever went meanwhile 0 . 2 ...
//! one that is plugged:  the first place that is free               0 1 2 ...
//! ```
//! A guest that is restored, or arrives from another host, knows its devices by their places: they must be the same.
use super::Machine;
use std::collections::{BTreeMap, BTreeSet};

/// The places of a machine's disks, then of its cards.
///
/// # Errors
/// When there are more devices than places, or two devices of before on one place.
pub fn assign(machine: &Machine, limit: u8) -> Result<Vec<u8>, String> {
    let ids = machine.disks.iter().map(|disk| &disk.id).chain(machine.nics.iter().map(|nic| &nic.id));
    let known = |id: &String| machine.places.get(id).copied();
    let mut taken = BTreeSet::new();
    for (id, place) in ids.clone().filter_map(|id| Some((id, known(id)?))) {
        if place >= limit || !taken.insert(place) {
            return Err(format!("{id} cannot be on place {place} of the bus"));
        }
    }
    let mut places = Vec::new();
    for id in ids {
        let place = known(id).or_else(|| free(&taken, limit)).ok_or("the machine has too many disks and cards")?;
        taken.insert(place);
        places.push(place);
    }
    Ok(places)
}

/// The first free place.
#[must_use]
pub fn free(taken: &BTreeSet<u8>, limit: u8) -> Option<u8> {
    (0..limit).find(|place| !taken.contains(place))
}

/// Devices as they are told to another host or to a later start.
#[must_use]
pub fn of(devices: &[super::Device]) -> BTreeMap<String, u8> {
    devices.iter().map(|device| (device.id.clone(), device.place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{DiskFormat, MachineDisk, MachineNic};

    fn machine(disks: &[&str], nics: &[&str], places: &[(&str, u8)]) -> Machine {
        let disk = |id: &&str| MachineDisk {
            id: (*id).into(),
            path: "/x".into(),
            format: DiskFormat::Raw,
            read_only: false,
            serial: String::new(),
        };
        let nic = |id: &&str| MachineNic { id: (*id).into(), mac: String::new(), mtu: 0, taps: Vec::new() };
        Machine {
            disks: disks.iter().map(disk).collect(),
            nics: nics.iter().map(nic).collect(),
            places: places.iter().map(|(id, place)| ((*id).to_owned(), *place)).collect(),
            ..Machine::default()
        }
    }

    #[test]
    fn in_order_around_what_was_there_before() {
        assert_eq!(assign(&machine(&["a", "b"], &["n"], &[]), 8), Ok(vec![0, 1, 2]));
        assert_eq!(assign(&machine(&["a", "b"], &["n"], &[("n", 0), ("gone", 1)]), 8), Ok(vec![1, 2, 0]));
        assert_eq!(assign(&machine(&["a", "v"], &["n"], &[("a", 0), ("n", 2), ("v", 5)]), 8), Ok(vec![0, 5, 2]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(assign(&machine(&["a", "b"], &["n"], &[]), 2).is_err());
        assert!(assign(&machine(&["a", "b"], &[], &[("a", 1), ("b", 1)]), 8).is_err());
        assert!(assign(&machine(&["a"], &[], &[("a", 8)]), 8).is_err());
    }
}
