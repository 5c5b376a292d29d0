//! The jail around a guest's process: what is left when a guest has taken it over.
//!
//! ```text
//!   open everything ─► jail.rs: own namespaces, empty root, no capabilities, other user ─► threads, each with its
//!   seccomp.rs filter (vCPU, device worker, job, monitor) ─► gate opens, first guest instruction
//! ```
//! A process id namespace is not among it: it would need a fork between agent and guest, and no filter lets a thread
//! signal or trace another process anyway.

pub mod jail;
pub mod seccomp;

use crate::machine::Stop;
use crate::state::StopReason;
use seccompiler::BpfProgram;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Keeps glibc's allocator from opening files: before it first gives memory of a thread's heap back it reads
/// `/proc/sys/vm/overcommit_memory`, which no filter allows. Large pieces are mapped and given back each by itself.
pub fn quiet_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers; called before there are other threads.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}

/// Why the jail could not be closed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A system call of the jail.
    #[error("cannot {what}: {source}")]
    Jail {
        /// Which step.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A filter did not compile or was refused.
    #[error("cannot install a system call filter: {0}")]
    Filter(String),
}

/// Filters, compiled once. Without them (debugging) threads run free.
pub struct Threads {
    filters: Option<Filters>,
}

struct Filters {
    processor: BpfProgram,
    worker: BpfProgram,
    memory_worker: BpfProgram,
    socket_worker: BpfProgram,
    backend_worker: BpfProgram,
    job: BpfProgram,
    pager: BpfProgram,
    monitor: BpfProgram,
}

/// What a thread is for, which decides its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs guest code.
    Processor,
    /// Serves a device.
    Worker,
    /// Serves the memory device.
    MemoryWorker,
    /// Serves a device that has connections.
    SocketWorker,
    /// Watches over a device that another process serves.
    BackendWorker,
    /// Writes a snapshot or sends a migration.
    Job,
    /// Brings memory that is missing.
    Pager,
}

impl Threads {
    /// A virtual processor.
    pub const PROCESSOR: Kind = Kind::Processor;
    /// A device worker.
    pub const WORKER: Kind = Kind::Worker;
    /// The worker of the memory device.
    pub const MEMORY_WORKER: Kind = Kind::MemoryWorker;
    /// A device worker with connections.
    pub const SOCKET_WORKER: Kind = Kind::SocketWorker;
    /// The worker of a device that another process serves.
    pub const BACKEND_WORKER: Kind = Kind::BackendWorker;
    /// Long work beside the machine.
    pub const JOB: Kind = Kind::Job;
    /// Memory that comes when it is touched.
    pub const PAGER: Kind = Kind::Pager;

    /// Threads without filters.
    pub fn free() -> Threads {
        Threads { filters: None }
    }

    /// Compiles the filters.
    pub fn filtered() -> Result<Threads, SandboxError> {
        let compile = |rules| seccomp::compile(rules).map_err(|e| SandboxError::Filter(e.to_string()));
        Ok(Threads {
            filters: Some(Filters {
                processor: compile(seccomp::processor())?,
                worker: compile(seccomp::worker())?,
                memory_worker: compile(seccomp::memory_worker())?,
                socket_worker: compile(seccomp::socket_worker())?,
                backend_worker: compile(seccomp::backend_worker())?,
                job: compile(seccomp::job())?,
                pager: compile(seccomp::pager())?,
                monitor: compile(seccomp::monitor())?,
            }),
        })
    }

    /// Starts a thread that installs its filter before anything else. If it cannot, or if it panics, the machine stops.
    pub fn spawn(
        &self,
        name: &str,
        kind: Kind,
        stop: Arc<Stop>,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let filter = self.filters.as_ref().map(|f| match kind {
            Kind::Processor => f.processor.clone(),
            Kind::Worker => f.worker.clone(),
            Kind::MemoryWorker => f.memory_worker.clone(),
            Kind::SocketWorker => f.socket_worker.clone(),
            Kind::BackendWorker => f.backend_worker.clone(),
            Kind::Job => f.job.clone(),
            Kind::Pager => f.pager.clone(),
        });
        let guard = Guard { stop, name: name.to_owned() };
        std::thread::Builder::new().name(name.to_owned()).stack_size(512 * 1024).spawn(move || {
            let guard = guard;
            if let Some(filter) = filter
                && let Err(e) = seccompiler::apply_filter(&filter)
            {
                guard.stop.set(StopReason::Crashed { detail: format!("no filter for {}: {e}", guard.name) });
                return;
            }
            body();
        })
    }

    /// Installs the monitor's own filter.
    pub fn confine_monitor(&self) -> Result<(), SandboxError> {
        let Some(filters) = &self.filters else { return Ok(()) };
        seccompiler::apply_filter(&filters.monitor).map_err(|e| SandboxError::Filter(e.to_string()))
    }
}

/// Ends the machine when its thread panics: a guest with a missing part must not limp on.
struct Guard {
    stop: Arc<Stop>,
    name: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stop.set(StopReason::Crashed { detail: format!("thread {} panicked", self.name) });
        }
    }
}
