//! One host of a Pilvi cloud.
//!
//! The agent joins once, then keeps one stream to the scheduler over which it receives the whole
//! wanted state of its host; it makes that so and reports what it observes. It acts on what its
//! ledger says while the scheduler is away, and guests go on running while the agent is away.
//!
//! ```text
//!              session <-- gRPC, mutual TLS --> scheduler
//!  ledger <------ host -----> plane (packet path: netdev)
//!                  |
//!        one task per instance: plan (pure) -> driver -> images, disks, config drive, runtime
//!                  |                                                        |
//!                board --(coalesced)--> session                  kvm | qemu | fake: processes
//! ```
//! [`run`] is the whole agent, for `pilvi up` in the same process and for `pilvi agent`.
pub mod config;
pub mod configdrive;
pub mod console;
pub mod disk;
pub mod durable;
pub mod error;
pub mod host;
pub mod image;
pub mod instance;
pub mod inventory;
pub mod join;
pub mod ledger;
pub mod link;
pub mod mailbox;
pub mod metadata;
pub mod net;
pub mod peer;
pub mod process;
pub mod report;
pub mod runtime;
pub mod session;
pub mod snapshot;
pub mod socket;
pub mod tls;
pub mod turn;
pub mod uefi;
pub mod volume;

pub use config::{Config, NetworkMode, Secret, Upgrade};
pub use error::Error;

use host::Host;
use image::Cache;
use instance::Context;
use ledger::Ledger;
use net::{Network, NoNetwork, Plane, flowlog::FlowLog, neighbours::Neighbourhood, real::RealNetwork};
use pilvi_agent_api::v1;
use pilvi_netdev::PrivateKey;
use report::Board;
use runtime::set::Runtimes;
use session::{FromScheduler, Introduction};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How many times a state directory in use is tried again, 50 ms apart.
const LOCK_PATIENCE: u32 = 60;
/// How often images are looked through for unused ones, and tasks for missing ones.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// Runs the agent of this host until `shutdown` is cancelled. Guests go on running afterwards.
///
/// Needs a multi-threaded tokio runtime with I/O and time.
///
/// # Errors
/// When the configuration is wrong, the state directory cannot be used, or joining is refused. An
/// unreachable scheduler is no error: it is tried again and again.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    config.validate()?;
    let ledger = open_ledger(&config).await?;
    let member = tokio::select! {
        member = join::join(&config) => member?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let link = Arc::new(link::Link::new(link::Addresses::open(&config)?, member.tls)?);
    let runtimes = Runtimes::probe(&config).await;
    let key = net::encryption::key(&config)?;
    let network = network(&config, key.clone()).await?;
    let mut inventory = inventory::take(&config, runtimes.offers());
    inventory.overlay_error = network.overlay_error();
    inventory.wireguard =
        key.map(|key| v1::Wireguard { public_key: key.public().0.to_vec(), port: config.overlay.port.into() });
    let me =
        Introduction { node_id: member.node_id, name: config.name.clone(), boot_id: process::boot_id(), inventory };
    let source = Arc::new(FromScheduler(link.clone()));
    let images = Cache::new(ledger.root().join("images"), source.clone(), config.image_fetches);
    let uploads = snapshot::Uploads::new(source);
    let listen = config.moves_listen.unwrap_or_else(|| (peer::own_address(&config.schedulers()), 0).into());
    let neighbours = Neighbourhood::open(&ledger, me.inventory.vtep.clone()).map_err(Error::io(&config.state_dir))?;
    let context = Arc::new(Context {
        turns: turn::Turns::default(),
        upgrade: config.vmm_upgrade,
        uefi: uefi::Firmware::new(&config),
        upgrading: Arc::default(),
        volumes: volume::Volumes::new(ledger.root().join("volumes")),
        console_limit: config.console_kib << 10,
        ledger,
        neighbours,
        runtimes,
        images: Arc::new(images),
        uploads: Arc::new(uploads),
        plane: Plane::new(network),
        doorman: peer::Doorman::new(member.proof.clone(), listen),
        proof: member.proof,
        board: Board::default(),
        grace: Duration::from_secs(config.stop_grace_s),
        boot: me.boot_id.clone(),
    });
    let host = Host::new(context.clone());
    host.recover().map_err(Error::io(&config.state_dir))?;
    let keep = Duration::from_secs(config.image_keep_s);
    let flows = FlowLog::new(config.state_dir.join("flow.log"), config.flow_log.max_mib);
    tokio::select! {
        () = context.plane.run(&context.board) => {}
        () = context.plane.meter(&context.board) => {}
        () = context.plane.delegate(&context.board) => {}
        () = flows.keep(&context.plane) => {}
        () = context.neighbours.save(&context.ledger) => {}
        () = session::run(host.clone(), link, me, config) => {}
        () = serve_metadata(host.clone()) => {}
        () = keep_house(host.clone(), keep) => {}
        () = shutdown.cancelled() => {}
    }
    host.rest().await;
    Ok(())
}

/// Ends every guest of this host, removes its packet path and its state directory.
///
/// # Errors
/// [`Error::Locked`] while an agent runs on it; otherwise what could not be removed.
pub async fn remove_all(config: &Config) -> Result<(), Error> {
    config.validate()?;
    let ledger = open_ledger(config).await?;
    let ids = ledger.instance_ids().map_err(Error::io(&config.state_dir))?;
    for id in ids {
        let dir = ledger.instance_dir(&id);
        process::end(&dir).await.map_err(Error::io(&dir))?;
        durable::remove(&dir).map_err(Error::io(&dir))?;
    }
    if config.network == NetworkMode::Real {
        let cleared = net::real::clear(config).await;
        cleared.map_err(Error::Network)?;
    }
    durable::remove(&config.state_dir).map_err(Error::io(&config.state_dir))
}

/// Opens the state directory; a former agent of this host may be about to let go of it.
async fn open_ledger(config: &Config) -> Result<Ledger, Error> {
    let mut tries = 0;
    loop {
        match Ledger::open(&config.state_dir) {
            Err(Error::Locked(_)) if tries < LOCK_PATIENCE => tries += 1,
            other => return other,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn network(config: &Config, key: Option<PrivateKey>) -> Result<Arc<dyn Network>, Error> {
    match config.network {
        NetworkMode::None => Ok(Arc::new(NoNetwork)),
        NetworkMode::Real => match RealNetwork::open(config, key).await {
            Ok(network) => Ok(Arc::new(network)),
            Err(error) => Err(Error::Network(error)),
        },
    }
}

async fn serve_metadata(host: Arc<Host>) {
    let server = metadata::http::Server::new(host.clone());
    loop {
        match host.context.plane.network.accept_metadata().await {
            Ok((stream, port)) => {
                tokio::spawn(server.clone().serve(stream, port));
            }
            Err(error) => {
                tracing::warn!(error, "metadata listener");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn keep_house(host: Arc<Host>, keep: Duration) {
    loop {
        tokio::time::sleep(HOUSEKEEPING).await;
        host.refresh();
        let (images, needed) = (host.context.images.clone(), host.images());
        let cleaned = tokio::task::spawn_blocking(move || images.collect_garbage(&needed, keep));
        if let Ok(Err(error)) = cleaned.await {
            tracing::warn!(%error, "images");
        }
    }
}
