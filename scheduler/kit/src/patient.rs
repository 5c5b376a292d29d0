//! Threads that give way: what hosts are told and say can wait a moment, the person in front of a client cannot.
//!
//! A change in a large network is told to each of its hosts. Where all processors are busy with that, requests would
//! queue behind it; on threads of lower priority it takes what requests leave, which is at least a share of it: the
//! kernel weighs, it does not starve.
use rustix::process::setpriority_process;
use std::{io, thread};
use tokio::runtime::{Builder, Handle, Runtime};

/// Steps of `nice` below the threads that answer requests: about a tenth of a busy processor is left to these.
const NICE: i32 = 10;
/// Threads at most: they mostly encrypt and send.
const THREADS_MAX: usize = 4;

/// A runtime of such threads; it ends, with all that runs on it, when this is dropped.
#[derive(Debug)]
pub struct Patient {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Patient {
    /// # Errors
    /// The kernel gives no threads.
    pub fn start() -> io::Result<Self> {
        let threads = thread::available_parallelism().map_or(1, usize::from).clamp(1, THREADS_MAX);
        let give_way = || {
            if let Err(error) = setpriority_process(None, NICE) {
                tracing::warn!(%error, "a thread for hosts has the priority of those for requests");
            }
        };
        let mut builder = Builder::new_multi_thread();
        let runtime =
            builder.enable_all().worker_threads(threads).thread_name("hosts").on_thread_start(give_way).build()?;
        Ok(Patient { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Where to spawn what may wait.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Patient {
    /// From within another runtime, where waiting for threads is not allowed.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
