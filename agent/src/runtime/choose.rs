//! Which runtime an instance gets: pure.
//!
//! ```text
//! the image or the flavor names one -> that one, or an error that says why not
//! else, in the host's order of preference, the first usable one that can:
//!   kvm   only on real KVM: with a kernel, or from a disk that it can start (by a kernel that is found on it, or a boot
//!         sector), if the image asks for no devices that it has not
//!   qemu  always (with KVM where it is real)
//!   fake  always
//! ```
use super::Kind;
use std::collections::BTreeMap;

/// What a host found out about one of its runtimes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub kind: Kind,
    /// It can start guests.
    pub usable: bool,
    /// Ordinary guests run well on it: `false` for KVM that emulates privileged code.
    pub ordinary: bool,
    /// Why not, or what the probe found.
    pub reason: String,
}

impl Offer {
    /// A runtime that can run ordinary guests.
    #[must_use]
    pub fn usable(kind: Kind, reason: &str) -> Self {
        Self { kind, usable: true, ordinary: true, reason: reason.to_owned() }
    }

    /// A runtime that cannot start guests, and why.
    #[must_use]
    pub fn unusable(kind: Kind, reason: String) -> Self {
        Self { kind, usable: false, ordinary: false, reason }
    }
}

/// How a guest can be started by the own VMM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// By the kernel that it comes with.
    Kernel,
    /// By what is on its disk.
    Disk,
    /// Not at all, and why.
    Firmware(String),
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub kind: Kind,
    /// Why it is not the one that comes first on this host; "" when it is.
    pub note: String,
}

/// Whether the choice may depend on what is on the guest's disk.
#[must_use]
pub fn asks_for_disk(named: &str, offers: &[Offer]) -> bool {
    let named = Kind::from_word(named);
    let kvm = offers.iter().find(|offer| offer.kind == Kind::Kvm && offer.usable);
    kvm.is_some_and(|kvm| named == Some(Kind::Kvm) || (named.is_none() && kvm.ordinary))
}

/// What an image asks for that only machines with firmware have; none when it is nothing.
#[must_use]
pub fn firmware_devices(properties: &BTreeMap<String, String>) -> Option<String> {
    let is_virtio = |value: &str| value == "virtio" || value.is_empty();
    let other = |name: &&str| properties.get(*name).is_some_and(|value| !is_virtio(value));
    let asked = ["hw_disk_bus", "hw_vif_model"].into_iter().find(other)?;
    Some(format!("its image asks for {asked}={}", properties[asked]))
}

/// Chooses among `offers`, which are in order of preference.
///
/// # Errors
/// Text for the user: what was asked for and why it cannot be had.
pub fn choose(named: &str, start: &Start, offers: &[Offer]) -> Result<Choice, String> {
    let of = |kind| Choice { kind, note: String::new() };
    if !named.is_empty() {
        let Some(kind) = Kind::from_word(named) else {
            return Err(format!("there is no runtime {named:?}: kvm, qemu or fake"));
        };
        return match offers.iter().find(|offer| offer.kind == kind) {
            None => Err(format!("this host does not offer the {kind} runtime")),
            Some(offer) if !offer.usable => Err(format!("the {kind} runtime is not usable: {}", offer.reason)),
            Some(_) => match start {
                Start::Firmware(why) if kind == Kind::Kvm => Err(format!(
                    "the kvm runtime needs an image with a kernel (kernel_id), or a disk that starts by itself: {why}"
                )),
                _ => Ok(of(kind)),
            },
        };
    }
    let mut note = String::new();
    for offer in offers.iter().filter(|offer| offer.usable) {
        match start {
            _ if offer.kind != Kind::Kvm => return Ok(Choice { kind: offer.kind, note }),
            // Told by the host itself, for all its guests.
            _ if !offer.ordinary => {}
            Start::Firmware(why) => note = format!("not kvm: {why}"),
            Start::Kernel | Start::Disk => return Ok(of(Kind::Kvm)),
        }
    }
    let why: Vec<String> = offers.iter().map(|offer| format!("{}: {}", offer.kind, offer.reason)).collect();
    Err(format!("no usable runtime on this host ({})", why.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(kind: Kind, usable: bool, ordinary: bool) -> Offer {
        let reason = "because".to_owned();
        Offer { kind, usable, ordinary, reason }
    }

    fn firmware() -> Start {
        Start::Firmware("no kernel is on it".into())
    }

    fn kind(named: &str, start: &Start, offers: &[Offer]) -> Kind {
        choose(named, start, offers).unwrap().kind
    }

    #[test]
    fn by_itself() {
        let real = [offer(Kind::Kvm, true, true), offer(Kind::Qemu, true, true)];
        assert_eq!(kind("", &Start::Kernel, &real), Kind::Kvm);
        assert_eq!(choose("", &Start::Disk, &real), Ok(Choice { kind: Kind::Kvm, note: String::new() }));
        let fallen = choose("", &firmware(), &real).unwrap();
        assert!(fallen.kind == Kind::Qemu && fallen.note.contains("no kernel is on it"));
        let soft = [offer(Kind::Kvm, true, false), offer(Kind::Qemu, true, true)];
        assert_eq!(kind("", &Start::Kernel, &soft), Kind::Qemu);
        assert_eq!(choose("", &firmware(), &soft).unwrap().note, "");
        let none = [offer(Kind::Kvm, true, false), offer(Kind::Qemu, false, true)];
        assert!(choose("", &Start::Kernel, &none).unwrap_err().contains("qemu: because"));
        // The operator wants qemu first.
        let turned = [offer(Kind::Qemu, true, true), offer(Kind::Kvm, true, true)];
        assert_eq!(choose("", &firmware(), &turned).unwrap().note, "");
    }

    #[test]
    fn by_name() {
        let soft = [offer(Kind::Kvm, true, false), offer(Kind::Qemu, false, true)];
        assert_eq!(kind("kvm", &Start::Kernel, &soft), Kind::Kvm);
        assert_eq!(kind("kvm", &Start::Disk, &soft), Kind::Kvm);
        assert!(choose("kvm", &firmware(), &soft).unwrap_err().contains("no kernel is on it"));
        assert!(choose("qemu", &Start::Kernel, &soft).unwrap_err().contains("because"));
        assert!(choose("fake", &Start::Kernel, &soft).unwrap_err().contains("does not offer"));
        assert!(choose("xen", &Start::Kernel, &soft).unwrap_err().contains("xen"));
    }

    #[test]
    fn a_disk_is_looked_at_only_where_that_decides() {
        let real = [offer(Kind::Kvm, true, true), offer(Kind::Qemu, true, true)];
        let soft = [offer(Kind::Kvm, true, false), offer(Kind::Qemu, true, true)];
        assert!(asks_for_disk("", &real) && asks_for_disk("kvm", &soft));
        assert!(!asks_for_disk("", &soft) && !asks_for_disk("qemu", &real) && !asks_for_disk("kvm", &real[1..]));
    }

    #[test]
    fn images_for_other_devices_keep_their_firmware() {
        let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(firmware_devices(&of(&[("hw_disk_bus", "virtio"), ("os_distro", "debian")])), None);
        assert!(firmware_devices(&of(&[("hw_vif_model", "e1000")])).unwrap().contains("e1000"));
    }
}
