//! Which runtime an instance gets: pure.
//!
//! ```text
//! the image or the flavor names one -> that one, or an error that says why not
//! else, in the host's order of preference, the first usable one that can:
//!   kvm   only with a kernel of its own (pilvi-vmm has no firmware) and on real KVM
//!   qemu  always (with KVM where it is real)
//!   fake  always
//! ```
use super::Kind;

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

/// Chooses among `offers`, which are in order of preference.
///
/// # Errors
/// Text for the user: what was asked for and why it cannot be had.
pub fn choose(named: &str, has_kernel: bool, offers: &[Offer]) -> Result<Kind, String> {
    if !named.is_empty() {
        let Some(kind) = Kind::from_word(named) else {
            return Err(format!("there is no runtime {named:?}: kvm, qemu or fake"));
        };
        return match offers.iter().find(|offer| offer.kind == kind) {
            None => Err(format!("this host does not offer the {kind} runtime")),
            Some(offer) if !offer.usable => Err(format!("the {kind} runtime is not usable: {}", offer.reason)),
            Some(_) if kind == Kind::Kvm && !has_kernel => {
                Err("the kvm runtime needs an image with a kernel (kernel_id)".into())
            }
            Some(_) => Ok(kind),
        };
    }
    let fits = |offer: &&Offer| offer.usable && (offer.kind != Kind::Kvm || (has_kernel && offer.ordinary));
    if let Some(offer) = offers.iter().find(fits) {
        return Ok(offer.kind);
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

    #[test]
    fn by_itself() {
        let real = [offer(Kind::Kvm, true, true), offer(Kind::Qemu, true, true)];
        assert_eq!(choose("", true, &real), Ok(Kind::Kvm));
        assert_eq!(choose("", false, &real), Ok(Kind::Qemu));
        let soft = [offer(Kind::Kvm, true, false), offer(Kind::Qemu, true, true)];
        assert_eq!(choose("", true, &soft), Ok(Kind::Qemu));
        let none = [offer(Kind::Kvm, true, false), offer(Kind::Qemu, false, true)];
        assert!(choose("", true, &none).unwrap_err().contains("qemu: because"));
    }

    #[test]
    fn by_name() {
        let soft = [offer(Kind::Kvm, true, false), offer(Kind::Qemu, false, true)];
        assert_eq!(choose("kvm", true, &soft), Ok(Kind::Kvm));
        assert!(choose("kvm", false, &soft).unwrap_err().contains("kernel"));
        assert!(choose("qemu", true, &soft).unwrap_err().contains("because"));
        assert!(choose("fake", true, &soft).unwrap_err().contains("does not offer"));
        assert!(choose("xen", true, &soft).unwrap_err().contains("xen"));
    }
}
