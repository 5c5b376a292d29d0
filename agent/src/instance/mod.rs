//! One task for each instance: it alone acts on the instance, at its own pace.
//!
//! ```text
//!            +--> settled --wanted changed, guest changed, a second passed--+
//! pass ------+--> trouble --wanted changed, back-off passed-----------------+--> pass
//!            +--> removed (the task ends)
//! ```
//! Others only leave the newest target in the task's mailbox; steps that wait (a fetch, ports, a
//! guest that takes its time to power off) are given up when a newer target arrives.
pub mod driver;
pub mod plan;

use crate::config::Upgrade;
use crate::console::Log;
use crate::error::Trouble;
use crate::image::Cache;
use crate::ledger::Ledger;
use crate::mailbox::Pause;
use crate::net::{Plane, neighbours::Neighbourhood};
use crate::peer::{Doorman, Proof};
use crate::report::Board;
use crate::runtime::Guest;
use crate::runtime::set::Runtimes;
use crate::snapshot::Uploads;
use crate::turn::Turns;
use crate::volume::Volumes;
use driver::{Driver, goal};
use pilvi_agent_api::v1::Instance;
use plan::Step;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::Instrument;

/// What all instances of a host share.
pub struct Context {
    pub ledger: Ledger,
    pub runtimes: Runtimes,
    pub images: Arc<Cache>,
    pub uploads: Arc<Uploads>,
    pub plane: Plane,
    /// Lets guests of other hosts in.
    pub doorman: Doorman,
    /// What this host shows to other hosts.
    pub proof: Arc<Proof>,
    pub neighbours: Neighbourhood,
    pub board: Board,
    /// How long a guest has to power off when asked.
    pub grace: Duration,
    /// Whoever acts on an instance has its turn.
    pub turns: Turns,
    /// For guests whose image asks for it.
    pub uefi: crate::uefi::Firmware,
    /// When guests move into a newer program by themselves.
    pub upgrade: Upgrade,
    /// One at a time does.
    pub upgrading: Arc<tokio::sync::Mutex<()>>,
    pub volumes: Volumes,
    /// Bytes of a console that are kept.
    pub console_limit: u64,
    /// Boot id of the host.
    pub boot: String,
}

impl Context {
    /// The guest of an instance, there or not. `id` must be fit for a file name.
    #[must_use]
    pub fn guest(&self, id: &str) -> Guest {
        let dir = self.ledger.instance_dir(id);
        Guest { id: id.to_owned(), console: Log::new(&dir, self.console_limit), dir }
    }
}

/// What shall become of an instance.
pub type Target = crate::mailbox::Target<Instance>;

/// How long a settled instance is left alone.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long trouble that is expected to pass is kept to oneself.
const PATIENCE: Duration = Duration::from_secs(60);
/// More plans than this without being settled is a fault of ours.
const PLANS_LIMIT: usize = 40;

enum Pass {
    Settled,
    Removed,
    /// A newer target arrived.
    Interrupted,
}

/// Keeps one instance as its target says until it is gone.
pub async fn run(context: Arc<Context>, guest: Guest, mut mailbox: watch::Receiver<Target>) {
    let mut driver: Option<Driver> = None;
    let mut pause = Pause::default();
    let mut troubled_since: Option<Instant> = None;
    let mut former = Target::Unknown;
    loop {
        let target = mailbox.borrow_and_update().clone();
        if former == Target::Unknown && target != former {
            // What was only looked at is taken up now.
            driver = None;
        }
        former = target.clone();
        let passed = match &mut driver {
            Some(driver) => {
                driver.turn = Some(context.turns.take(&guest.id).await);
                let passed = pass(driver, &target, &mut mailbox).instrument(span_of(&guest, &target)).await;
                driver.turn = None;
                passed
            }
            none => match take_up(&context, &guest, &target) {
                Ok(fresh) => {
                    *none = Some(fresh);
                    continue;
                }
                Err(trouble) => Err(trouble),
            },
        };
        match passed {
            Ok(Pass::Removed) => {
                context.board.remove_instance(&guest.id);
                if *mailbox.borrow() == Target::Gone {
                    return;
                }
                driver = None;
            }
            Ok(Pass::Interrupted) => continue,
            Ok(Pass::Settled) => {
                (pause, troubled_since) = (Pause::default(), None);
                if idle(driver.as_ref(), &guest, &mut mailbox).await.is_err() {
                    return;
                }
            }
            Err(trouble) => {
                let since = *troubled_since.get_or_insert_with(Instant::now);
                tell(&context, driver.as_ref(), &guest, &target, &trouble, since);
                if pause.sleep(&mut mailbox).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What every line of a pass carries: the instance, and the request that wanted it so.
fn span_of(guest: &Guest, target: &Target) -> tracing::Span {
    match target {
        Target::Wanted(instance) => tracing::info_span!("instance", id = guest.id, request_id = instance.request_id),
        _ => tracing::info_span!("instance", id = guest.id),
    }
}

fn take_up(context: &Arc<Context>, guest: &Guest, target: &Target) -> Result<Driver, Trouble> {
    let wanted = match target {
        Target::Wanted(instance) => Some(instance.as_ref()),
        _ => None,
    };
    if !matches!(target, Target::Gone) {
        context.plane.hold(&guest.id);
    }
    Driver::take_up(context.clone(), guest.clone(), wanted)
}

/// Puts trouble on the board, unless it is expected to pass and has not lasted.
fn tell(context: &Context, driver: Option<&Driver>, guest: &Guest, target: &Target, trouble: &Trouble, since: Instant) {
    tracing::warn!(instance = guest.id, %trouble, "instance is not as wanted");
    if trouble.passing && since.elapsed() < PATIENCE {
        return;
    }
    let generation = match target {
        Target::Wanted(instance) => instance.generation,
        _ => 0,
    };
    let mut seen = driver.map(|driver| driver.seen(generation)).unwrap_or_default();
    seen.id.clone_from(&guest.id);
    seen.generation = generation;
    // Given up for now: it is tried again after the back-off, and whatever comes of that is told anew.
    seen.settled = true;
    seen.error.clone_from(&trouble.text);
    context.board.set_instance(seen);
}

/// Waits until there is a reason to look again; fails when the host is going down.
async fn idle(
    driver: Option<&Driver>,
    guest: &Guest,
    mailbox: &mut watch::Receiver<Target>,
) -> Result<(), watch::error::RecvError> {
    let runtime = driver.and_then(Driver::runtime);
    let changed = async {
        match &runtime {
            Some(runtime) => runtime.changed(guest).await,
            None => std::future::pending().await,
        }
    };
    let snapshot = async {
        match driver {
            Some(driver) => driver.snapshot_moved().await,
            None => std::future::pending().await,
        }
    };
    let way = async {
        match driver {
            Some(driver) => driver.way_ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        told = mailbox.changed() => told?,
        () = changed => {}
        () = snapshot => {}
        () = way => {}
        () = tokio::time::sleep(LOOK_AGAIN) => {
            if let Some(runtime) = &runtime {
                // Output is bounded where it waits: fetched often enough, nothing is lost.
                let _ = runtime.collect_console(guest).await;
            }
        }
    }
    Ok(())
}

/// Plans and acts until nothing is left to do.
async fn pass(driver: &mut Driver, target: &Target, mailbox: &mut watch::Receiver<Target>) -> Result<Pass, Trouble> {
    let wanted = match target {
        Target::Unknown => {
            driver.observe(None).await?;
            let mut seen = driver.seen(0);
            seen.step = "waiting for the scheduler".into();
            driver.context.board.set_instance(seen);
            return Ok(Pass::Settled);
        }
        Target::Wanted(instance) => Some(instance.as_ref()),
        Target::Gone => None,
    };
    let generation = wanted.map_or(0, |instance| instance.generation);
    for _ in 0..PLANS_LIMIT {
        // A guest whose state cannot be read must still be removable.
        let found = match (driver.observe(wanted).await, wanted) {
            (Ok(found), _) => found,
            (Err(trouble), Some(_)) => return Err(trouble),
            (Err(_), None) => plan::Found::unreadable(),
        };
        let steps = plan::plan(wanted.map(goal).as_ref(), &found);
        if steps.is_empty() {
            let mut seen = driver.seen(generation);
            seen.settled = !driver.devices_open();
            driver.context.board.set_instance(seen);
            return Ok(Pass::Settled);
        }
        for step in steps {
            let mut seen = driver.seen(generation);
            seen.step = step.word().into();
            // What went wrong last stays to be read until it has been overcome.
            if let Some(last) = driver.context.board.instance(&seen.id) {
                seen.error = last.error;
            }
            driver.context.board.set_instance(seen);
            tracing::info!(instance = driver.guest.id, ?step, generation, "step");
            if step.waits() {
                tokio::select! {
                    biased;
                    done = driver.run(step, wanted) => done?,
                    told = mailbox.changed() => {
                        return told.map(|()| Pass::Interrupted).map_err(|e| e.to_string().into());
                    }
                }
            } else {
                driver.run(step, wanted).await?;
            }
            if step == Step::RemoveFiles {
                return Ok(Pass::Removed);
            }
        }
    }
    Err("it does not settle".into())
}
