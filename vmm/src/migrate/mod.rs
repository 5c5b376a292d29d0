//! Live migration: a running machine moves into another process, on this host or behind any stream that is passed in.
//!
//! ```text
//!   source                                         target
//!   running   all pages, then again what changed ─►  receives, in the jail, nothing of the guest runs
//!      │      ... until the rest fits into the allowed pause
//!   paused    the rest, the state ────────────────►  builds the machine, takes the disks
//!      │      ◄──────────────────────────── ready
//!      │      go ─────────────────────────────────►  opens the gate
//!   ends      ◄────────────────────────── running
//! ```
//! Until `go` is sent the source can cancel, and whatever fails, it goes on as if nothing had been: the target has run no
//! instruction and ends. After `go` only the target's word counts: when that does not come, the source stays paused and
//! says so, because two running copies are worse than none. Disks make it safe besides: their lock goes from the one to
//! the other, and a source that is resumed must get it back first.
//!
//! Whoever cannot wait has it switch over after the pass under way, however long the guest then stands still (`hurry`).
//! A guest that changes memory faster than it goes over is slowed down (`cpu::throttle`), more with each pass, until the
//! rest is small enough; terms can forbid that. Disks go over as well where that is asked for ([`disks`]): before the memory,
//! in the same passes and with the rest. Otherwise both processes have the same files.
//!
//! Where the terms allow it (`post_copy`), a guest that cannot be moved so runs there before all of its memory has come
//! ([`post`]).
//!
//! Between two processes of one host memory need not be copied at all ([`handed`]).
//!
//! What changed is known from two sides: KVM logs what the guest writes, a bitmap what this process writes.
//! Encryption, authentication and who may be a target are the business of whoever passes the stream.

pub mod disks;
pub mod handed;
pub mod post;
pub mod receive;
pub mod send;
mod stream;
pub mod wire;

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How much the guest may be disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Terms {
    /// How long the guest may stand still while the last pages go over.
    pub pause_ms: u32,
    /// After so many passes over changed pages, a guest that changes them faster than they go over is not moved.
    pub passes: u32,
    /// Move it even then, however long it stands still.
    pub force: bool,
    /// Slow its processors down, more from pass to pass, when it changes memory so fast that it cannot be moved.
    pub converge: bool,
    /// Let it run there before all of its memory has come, after those passes (instead of not moving it) or when somebody
    /// says so. From then on both sides and the stream between them are needed until all is there.
    pub post_copy: bool,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { pause_ms: 300, passes: 30, force: false, converge: true, post_copy: false }
    }
}

/// How far it is, for the status.
#[derive(Debug, Default)]
pub struct Progress {
    /// Passes begun, the first over all memory.
    pub passes: AtomicU64,
    /// Pages sent with contents, those of disks among them.
    pub pages: AtomicU64,
    /// Pages that the pass under way still has to send.
    pub left: AtomicU64,
    /// Of disks that go along: bytes in all, bytes done with, and bytes that are due.
    pub disk_bytes: AtomicU64,
    pub disk_sent: AtomicU64,
    pub disk_left: AtomicU64,
    /// Share of their time that processors rest, in percent.
    pub slowed: AtomicU64,
    /// No more passes than the one under way.
    pub hurry: AtomicBool,
    /// The target can run it without all of its memory.
    pub can_post_copy: AtomicBool,
    /// It shall.
    pub post_copy: AtomicBool,
    /// It was told to, and the machine is not to be had here any more.
    pub told: AtomicBool,
    /// This process ends.
    pub ending: Arc<AtomicBool>,
}

/// The same at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ProgressStatus {
    pub passes: u64,
    pub pages: u64,
    pub left: u64,
    #[serde(default)]
    pub disk_bytes: u64,
    #[serde(default)]
    pub disk_sent: u64,
    #[serde(default)]
    pub disk_left: u64,
    #[serde(default)]
    pub slowed: u64,
    #[serde(default)]
    pub post_copy: bool,
}

impl Progress {
    /// Reads all.
    pub fn status(&self) -> ProgressStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProgressStatus {
            passes: read(&self.passes),
            pages: read(&self.pages),
            left: read(&self.left),
            disk_bytes: read(&self.disk_bytes),
            disk_sent: read(&self.disk_sent),
            disk_left: read(&self.disk_left),
            slowed: read(&self.slowed),
            post_copy: self.told.load(Ordering::Acquire),
        }
    }
}

/// Why a machine did not move.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The stream broke.
    #[error("the other side is lost: {0}")]
    Stream(#[from] std::io::Error),
    /// Somebody asked for it.
    #[error("cancelled")]
    Cancelled,
    /// The guest is too busy.
    #[error("the guest changes memory faster than it goes over: {left} pages were left after {passes} passes")]
    Busy {
        /// Pages of the last pass.
        left: u64,
        /// Passes.
        passes: u64,
    },
    /// A target that does not answer the greeting.
    #[error("the target hung up at the greeting: it refuses this machine, or is of a version that knows no post-copy")]
    Older,
    /// The stream is no migration of this version, or breaks its rules.
    #[error("the stream makes no sense: {0}")]
    Nonsense(&'static str),
    /// The machine there is another one, or its state does not fit.
    #[error(transparent)]
    State(#[from] crate::snapshot::SnapshotError),
    /// KVM keeps no log.
    #[error("KVM cannot log changed pages: {0}")]
    Log(kvm_ioctls::Error),
    /// Memory that was handed over.
    #[error(transparent)]
    Handed(#[from] crate::memory::MemoryError),
    /// Guest memory.
    #[error("guest memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}
