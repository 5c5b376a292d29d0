//! Guest memory that is not there yet: whoever touches a missing page waits until it has been brought (userfaultfd).
//!
//! ```text
//!   processor, worker, kernel ──touches──► missing page ── event ──► a thread of the pager ──► the page ──► they go on
//! ```
//! Two pagers exist: [`image`] brings memory out of a snapshot's image, checked as it comes, and `migrate::post` from a
//! source over a stream. Their threads touch no guest memory and pass no gate, so nobody whom they serve can hold them up.
//! A page that was brought once and then given back to the host (balloon, free page reporting) is a page of zeroes.
//!
//! When what is missing cannot be brought the machine is *stuck*: a thread that waits for a page would never come to the
//! gate. Such a machine is left as it stands and its threads end with the process: woken without its page, a worker
//! would write what was never there to a disk.

pub mod image;
mod missing;
pub mod uffd;

pub use missing::{Bits, Missing};

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use vmm_sys_util::eventfd::EventFd;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// What can be seen of a pager from other threads.
pub struct Seen {
    /// Pages that are missing.
    pub left: AtomicU64,
    /// Times that somebody waited for one.
    pub faults: AtomicU64,
    /// They cannot be brought just now.
    pub stuck: AtomicBool,
    /// The machine cannot be written down or moved before all are there.
    pub arriving: bool,
    /// The gate has been opened: threads may act on what they find in memory.
    pub began: AtomicBool,
    /// Readable when the threads are to end.
    pub stop: EventFd,
}

impl Seen {
    /// Of a pager that has this many pages to bring.
    pub fn new(left: u64, arriving: bool) -> io::Result<Seen> {
        let stop = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Seen { left: left.into(), faults: 0.into(), stuck: false.into(), arriving, began: false.into(), stop })
    }

    /// Whether pages are on their way from another process.
    pub fn is_arriving(&self) -> bool {
        self.arriving && self.left.load(Ordering::Acquire) > 0
    }

    /// Whether threads may wait for pages that do not come.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Acquire)
    }
}

/// The threads behind missing memory.
pub struct Pager {
    /// How far it is.
    pub seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

impl Pager {
    /// Of these threads.
    pub fn new(seen: Arc<Seen>, threads: Vec<JoinHandle<()>>) -> Pager {
        Pager { seen, threads }
    }

    /// And this one.
    pub fn add(&mut self, thread: JoinHandle<()>) {
        self.threads.push(thread);
    }
}

impl Drop for Pager {
    /// Nobody touches guest memory any more.
    fn drop(&mut self) {
        let _ = self.seen.stop.write(1);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
