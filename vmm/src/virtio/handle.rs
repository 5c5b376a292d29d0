//! What the monitor can change on a device while it runs, without knowing the device: shared values that the device
//! reads when it works.

use super::balloon::Target;
use super::console::Input;
use super::limit::Setting;
use super::memory::Wanted;
use super::vhost::Link;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// By kind of device.
#[derive(Clone, Default)]
pub enum Handle {
    /// Nothing.
    #[default]
    Fixed,
    /// A disk.
    Disk {
        /// Its limit on reads and writes together.
        rate: Arc<Setting>,
        /// Its length.
        sectors: Arc<AtomicU64>,
    },
    /// A card's limits.
    Card {
        /// From the guest.
        transmit: Arc<Setting>,
        /// To the guest.
        receive: Arc<Setting>,
    },
    /// How much memory the guest is asked to give back.
    Balloon(Arc<Target>),
    /// How much memory is wanted to be plugged, and is.
    Memory(Arc<Wanted>),
    /// Whoever serves it elsewhere.
    Backend(Arc<Link>),
    /// What is typed.
    Console(Arc<Input>),
}
