//! A machine at rest, written down: everything that is needed to go on elsewhere as if nothing had happened.
//!
//! ```text
//!   running ──pause──► paused ──┬─ capture ─► MachineState ─► file.rs    versioned, checksummed
//!                               └─ memory.rs ──────────────► image       sparse, one checksum a MiB
//!
//!   state file + image ─► checked against each other and against the configuration ─► machine built with them
//! ```
//! The hardware is not in it a second time: a restore takes the same configuration as the first start (other files,
//! taps and sockets may stand behind the same devices), and what does not fit is refused before a processor runs.
//! Guest memory comes back by a private mapping of the image, so a restore reads no page before the guest needs it and
//! many guests can start from one image; what they write is their own. The image must stay as it is meanwhile. Or each MiB
//! is brought and checked when it is touched ([`crate::fault::image`]).
//!
//! Both files are hostile input: lengths are checked before anything is reserved, every queue and descriptor goes
//! through the same checks as one that a driver made.

pub mod chips;
pub mod file;
pub mod memory;

use crate::cpu::state::ProcessorState;
use crate::device::PortsState;
use crate::virtio::mmio::MmioState;
use crate::virtio::pci::PciState;
use chips::Chips;
use memory::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Why a snapshot was not written, or is refused.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file is something else.
    #[error("this is no {0}")]
    Foreign(&'static str),
    /// Written by another version of this program.
    #[error("the snapshot has format version {found}, this program reads version {}", file::VERSION)]
    Version {
        /// What the file says.
        found: u32,
    },
    /// Cut off, or grown.
    #[error("the {what} has {found} bytes where {wanted} belong: it was cut off or is not whole")]
    Length {
        /// State file or memory image.
        what: &'static str,
        /// By its own account.
        wanted: u64,
        /// As it is.
        found: u64,
    },
    /// A checksum does not match.
    #[error("the {0} was altered: its checksum does not match")]
    Altered(String),
    /// The parts belong to different snapshots.
    #[error("memory image and state file are not of the same snapshot")]
    Strangers,
    /// Well checksummed nonsense.
    #[error("the snapshot is malformed: {0}")]
    Malformed(String),
    /// The configuration describes another machine.
    #[error("the snapshot is of another machine: {0}")]
    Mismatch(String),
    /// KVM.
    #[error("KVM cannot {what}: {source}")]
    Kvm {
        /// Which step.
        what: String,
        /// What it said.
        source: kvm_ioctls::Error,
    },
    /// Reading or writing.
    #[error("cannot {what}: {source}")]
    File {
        /// Which step.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl SnapshotError {
    /// For `map_err`.
    pub fn kvm(what: impl Into<String>) -> impl FnOnce(kvm_ioctls::Error) -> SnapshotError {
        move |source| SnapshotError::Kvm { what: what.into(), source }
    }

    /// For `map_err`.
    pub fn file(what: &'static str) -> impl FnOnce(std::io::Error) -> SnapshotError {
        move |source| SnapshotError::File { what, source }
    }
}

/// Everything but guest memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct MachineState {
    /// Processors that are to be there.
    pub vcpus: u16,
    /// Processors that there can be; 0 where the machine was written down by a version that had no others.
    #[serde(default)]
    pub max_vcpus: u16,
    /// Guest memory.
    pub memory_mib: u32,
    /// Memory that can come besides.
    #[serde(default)]
    pub max_hot_mib: u32,
    /// Interrupt chips, timer, clock.
    pub chips: Chips,
    /// One for each processor that has ever been there, by number.
    pub processors: Vec<ProcessorState>,
    /// What sits on ports.
    pub ports: PortsState,
    /// virtio devices in MMIO slots, in their order.
    pub slots: Vec<MmioState>,
    /// virtio devices on PCI; they are known again by their names.
    pub pci: Vec<PciState>,
}

/// What a state file holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The machine.
    pub machine: MachineState,
    /// What the image must be.
    pub memory: Digest,
}

impl MachineState {
    /// How many queues the device of this name had.
    pub fn queues_of(&self, name: &str) -> Option<usize> {
        let (slots, pci) = (self.slots.iter().map(MmioState::queues), self.pci.iter().map(PciState::queues));
        slots.chain(pci).find(|(device, _)| *device == name).map(|(_, queues)| queues)
    }

    /// Refuses a configuration that describes another machine. Devices compare themselves when they are restored.
    pub fn fits(
        &self,
        max_vcpus: u16,
        (memory_mib, max_hot_mib): (u32, u32),
        slots: usize,
    ) -> Result<(), SnapshotError> {
        let pairs = [
            ("processors at most", self.max_vcpus.max(self.vcpus).into(), max_vcpus.into()),
            ("MiB of memory", u64::from(self.memory_mib), u64::from(memory_mib)),
            ("MiB of memory that comes and goes", self.max_hot_mib.into(), max_hot_mib.into()),
            ("devices", (self.slots.len() + self.pci.len()) as u64, slots as u64),
        ];
        let states = 1..=usize::from(max_vcpus);
        if !states.contains(&self.processors.len()) || !states.contains(&usize::from(self.vcpus)) {
            return Err(SnapshotError::Malformed("states of no or too many processors".into()));
        }
        match pairs.iter().find(|(_, had, has)| had != has) {
            Some((what, had, has)) => Err(SnapshotError::Mismatch(format!("it had {had} {what}, this has {has}"))),
            None => Ok(()),
        }
    }
}

/// To MessagePack with names, so that a field that comes later does not shift the others.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, SnapshotError> {
    rmp_serde::to_vec_named(value).map_err(|e| SnapshotError::Malformed(e.to_string()))
}

/// From MessagePack. Nothing may follow.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SnapshotError> {
    let mut rest = bytes;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    // Deeper than anything here, far from the stack's end.
    reader.set_max_depth(32);
    let value = T::deserialize(&mut reader).map_err(|e| SnapshotError::Malformed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(SnapshotError::Malformed("something follows the state".into()));
    }
    Ok(value)
}
