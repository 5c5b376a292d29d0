//! A small TCP front for several schedulers, as a cloud with two has in front of it.
//!
//! ```text
//!  client --> accept --> dial one that answered last, else the others --> bytes both ways
//!                           '-- refused or silent: the next one; nothing of the client was sent yet
//! ```
//! It looks into nothing: once a connection stands, its end is the client's to see, and what was sent is never sent
//! again by somebody else.
use anyhow::{Result, anyhow};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

/// For one scheduler to take a connection.
const DIAL: Duration = Duration::from_millis(500);
/// Rounds through all of them before a client is turned away.
const ROUNDS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Front {
    backends: Vec<SocketAddr>,
    next: AtomicUsize,
    /// Connections that went to another than the first choice.
    turned: AtomicU64,
}

/// Runs until it is dropped.
#[derive(Debug)]
pub struct Balancer {
    pub port: u16,
    front: Arc<Front>,
    _runtime: Runtime,
}

impl Balancer {
    /// Listens on `port` of 127.0.0.1 for schedulers on the `backends` ports.
    pub fn start(port: u16, backends: &[u16]) -> Result<Self> {
        Self::serve(std::net::TcpListener::bind(("127.0.0.1", port))?, port, backends)
    }

    /// The scheduler at `port`, at the same address in a network namespace.
    pub fn inside(namespace: &str, port: u16) -> Result<Self> {
        let file = File::open(format!("/run/netns/{namespace}"))?;
        // A thread of its own, which ends there.
        let listen = std::thread::spawn(move || -> Result<std::net::TcpListener> {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            Ok(std::net::TcpListener::bind(("127.0.0.1", port))?)
        });
        let listener = listen.join().map_err(|_| anyhow!("the thread that listens in {namespace} ended"))??;
        Self::serve(listener, port, &[port])
    }

    fn serve(listener: std::net::TcpListener, port: u16, backends: &[u16]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let backends = backends.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect();
        let front = Arc::new(Front { backends, next: AtomicUsize::new(0), turned: AtomicU64::new(0) });
        listener.set_nonblocking(true)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        runtime.spawn(serve(listener, front.clone()));
        Ok(Balancer { port, front, _runtime: runtime })
    }

    /// Connections that found their first choice dead.
    #[must_use]
    pub fn turned(&self) -> u64 {
        self.front.turned.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, front: Arc<Front>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        tokio::spawn(pass(client, front.clone()));
    }
}

async fn pass(mut client: TcpStream, front: Arc<Front>) {
    let _ = client.set_nodelay(true);
    let Some(mut scheduler) = dial(&front).await else { return };
    let _ = scheduler.set_nodelay(true);
    let _ = copy_bidirectional(&mut client, &mut scheduler).await;
}

/// In turns, so that a client that connects twice meets both.
async fn dial(front: &Front) -> Option<TcpStream> {
    let first = front.next.fetch_add(1, Ordering::Relaxed);
    for round in 0..ROUNDS {
        for at in 0..front.backends.len() {
            let backend = front.backends[(first + at) % front.backends.len()];
            if let Ok(Ok(stream)) = tokio::time::timeout(DIAL, TcpStream::connect(backend)).await {
                if round > 0 || at > 0 {
                    front.turned.fetch_add(1, Ordering::Relaxed);
                }
                return Some(stream);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    None
}
