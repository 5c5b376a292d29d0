//! The threads that speak with hosts and work for them, apart from those that answer clients.
//!
//! ```text
//!  client  --request--> threads of clients ----reads, writes----> store
//!  host <==session====> threads of hosts   ----reads that wait--'
//! ```
//! One change may have to be told to hundreds of hosts. Among the same threads every step of a request would wait until all
//! of them have been told; between threads the kernel decides, and these are nicer than those who answer: where there is
//! not enough for all, hosts hear a little later what a client has done, and the next client does not wait for that.
use tokio::runtime::{Builder, Handle, Runtime};

/// A third of the share that a thread of clients has.
const NICER: i32 = 5;

pub struct Hosts(Option<Runtime>);

impl Hosts {
    /// # Errors
    /// The kernel gives no threads.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        // Of this process; threads inherit what those have that start them.
        let nice = rustix::process::getpriority_process(None)? + NICER;
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().worker_threads(threads).thread_name("hosts").on_thread_start(move || {
            pilvi_store::wait_for_clients();
            // Of this thread alone. Without it all goes on, only less quick.
            let _ = rustix::process::setpriority_process(None, nice);
        });
        Ok(Hosts(Some(builder.build()?)))
    }

    pub fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Hosts {
    /// It may end among the threads of others, which must not wait.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
