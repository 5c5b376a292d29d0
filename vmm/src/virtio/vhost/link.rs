//! What connects a device to its backend: the monitor puts connections in, the device's worker uses them. It outlives
//! the machine, so a reset keeps the connection.

use super::backend::Backend;
use super::shape::Shape;
use crate::gate::lock;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::EventFd;

/// One device's link.
#[derive(Debug)]
pub struct Link {
    /// The device's name.
    pub name: String,
    /// What the guest sees.
    pub shape: Shape,
    /// What the first backend offered: those after it must offer as much.
    pub(super) features: u64,
    /// Of the machine before this one, or of the start; with its part of the configuration space.
    pub(super) idle: Mutex<Option<(Backend, Vec<u8>)>>,
    next: Mutex<Option<OwnedFd>>,
    pub(super) connected: AtomicBool,
    pub(super) sectors: AtomicU64,
    /// Has the worker look.
    pub(super) wake: EventFd,
}

impl Link {
    /// Comes to terms with a backend: some seconds at most.
    pub fn open(name: &str, socket: OwnedFd, shape: Shape) -> io::Result<Arc<Link>> {
        let (backend, config) = Backend::open(socket, &shape)?;
        let sectors = shape.sectors(&config).unwrap_or(0);
        Ok(Arc::new(Link {
            name: name.to_owned(),
            features: backend.features,
            shape,
            idle: Mutex::new(Some((backend, config))),
            next: Mutex::new(None),
            connected: AtomicBool::new(true),
            sectors: AtomicU64::new(sectors),
            wake: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
        }))
    }

    /// Another connection, to be used as soon as the one before has broken.
    pub fn give(&self, socket: OwnedFd) {
        *lock(&self.next) = Some(socket);
        let _ = self.wake.write(1);
    }

    pub(super) fn take_next(&self) -> Option<OwnedFd> {
        lock(&self.next).take()
    }

    /// Whether a backend is there.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Length of a disk.
    pub fn bytes(&self) -> Option<u64> {
        let sectors = self.sectors.load(Ordering::Acquire);
        (self.shape.number() == 2).then(|| sectors.saturating_mul(512))
    }
}
