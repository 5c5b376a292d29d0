//! The driver's part of a move from host to host.
//!
//! ```text
//!  there   Room -> Receive -> Arrive (the doorman lets the streams in) -> Arrived
//!  here    Depart -> ... in the background ... -> Departed | DepartureFailed
//! ```
//! The other host is reached through [`crate::peer`]; what flows there is the runtimes' own. An agent that dies takes its
//! streams with it: then the move has failed, unless the guest had arrived already, and that is seen. Of a guest that is
//! off the disks alone go: see [`cold`].
mod cold;

use super::{Driver, io};
use crate::error::Trouble;
use crate::instance::plan::moving::{MoveStep, Sending, Wish};
use crate::ledger::{MoveEnd, Moving};
use crate::peer::{Calls, Expecting};
use crate::runtime::{Going, Gone, Kind, Run};
use crate::{disk, durable};
use pilvi_agent_api::v1::{self, Departure, Instance, MoveStage, ObservedMove};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// How long it is believed how much has gone.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// A guest on its way; dropping it ends the streams, and with them the move.
#[derive(Debug)]
pub struct Way {
    move_id: String,
    ended: watch::Receiver<Option<Result<(), String>>>,
    /// It was told to hurry.
    hurried: bool,
    /// How much has gone, as it was asked last.
    going: Option<(Going, Instant)>,
    _task: AbortOnDropHandle<()>,
}

/// What is not in the ledger of the moves of one instance.
#[derive(Default)]
pub struct Moves {
    /// What was wanted at the last look.
    pub(super) wish: Option<Wish>,
    expecting: Option<Expecting>,
    way: Option<Way>,
}

impl Driver {
    /// What is wanted of a move.
    pub(super) fn wish(&mut self, wanted: &Instance) -> Wish {
        let wish = match (&wanted.arrival, &wanted.departure) {
            _ if wanted.kept => Wish::Keep,
            (Some(arrival), _) if arrival.cold => {
                Wish::Bring(arrival.move_id.clone(), self.sending(&arrival.move_id, false))
            }
            (Some(arrival), _) => Wish::Arrive(arrival.move_id.clone()),
            (None, Some(departure)) => {
                let sending = self.sending(&departure.move_id, departure.hurry);
                let wish = if departure.cold { Wish::Hand } else { Wish::Depart };
                wish(departure.move_id.clone(), sending)
            }
            (None, None) => Wish::Stay,
        };
        if wish == Wish::Keep {
            // Its ports are on the other host now.
            self.context.plane.release(&self.guest.id);
        }
        self.moves.wish = Some(wish.clone());
        wish
    }

    /// How far the sending is that this agent began for the move.
    fn sending(&self, move_id: &str, hurry: bool) -> Sending {
        let way = self.moves.way.as_ref().filter(|way| way.move_id == move_id);
        match way.map(|way| way.ended.borrow().is_some() || way.ended.has_changed().is_err()) {
            None => Sending::None,
            Some(false) if hurry && way.is_some_and(|way| !way.hurried) => Sending::Hurried,
            Some(false) => Sending::UnderWay,
            Some(true) => Sending::Ended,
        }
    }

    /// How far the wanted move is, for the observation.
    pub(super) fn move_seen(&self) -> Option<ObservedMove> {
        let (known, id, begun) = match self.moves.wish.as_ref()? {
            Wish::Arrive(id) | Wish::Bring(id, _) => (&self.doc.arrival, id, MoveStage::MoveWaiting),
            Wish::Depart(id, _) | Wish::Hand(id, _) => (&self.doc.departure, id, MoveStage::MoveSending),
            Wish::Keep | Wish::Stay => return None,
        };
        let known = known.as_ref().filter(|known| known.id == *id)?;
        let here = self.moves.expecting.as_ref().map(|expecting| expecting.address.to_string());
        let stage = match known.end {
            MoveEnd::Open if begun == MoveStage::MoveWaiting && here.is_none() => return None,
            MoveEnd::Open => begun,
            MoveEnd::Done => MoveStage::MoveDone,
            MoveEnd::Failed => MoveStage::MoveFailed,
            MoveEnd::Lost => MoveStage::MoveLost,
        };
        let address = here.filter(|_| stage == MoveStage::MoveWaiting).unwrap_or_default();
        let way = self.moves.way.as_ref().filter(|way| way.move_id == *id && stage == MoveStage::MoveSending);
        let going = way.and_then(|way| way.going).map(|(going, _)| going);
        let wire = |gone: Gone| v1::Gone { total: gone.total, processed: gone.processed, remaining: gone.remaining };
        Some(ObservedMove {
            move_id: id.clone(),
            stage: stage.into(),
            error: known.error.clone(),
            address,
            memory: going.map(|going| wire(going.memory)),
            disks: going.map(|going| wire(going.disks)),
        })
    }

    /// Asks how much has gone of a guest that is on its way, now and then.
    pub(super) async fn observe_way(&mut self) {
        let runtime = self.runtime();
        let Some(way) = self.moves.way.as_mut().filter(|way| way.ended.borrow().is_none()) else { return };
        if way.going.is_some_and(|(_, at)| at.elapsed() < ASK_AGAIN) {
            return;
        }
        let Some(runtime) = runtime else { return };
        // It may be over by now: then there is nothing to tell.
        if let Ok(Some(mut going)) = runtime.going(&self.guest).await {
            // Disks that are there are forgotten before the memory is.
            if let Some((before, _)) = way.going.filter(|_| going.disks == Gone::default()) {
                going.disks = Gone { remaining: 0, ..before.disks };
            }
            way.going = Some((going, Instant::now()));
        }
    }

    /// Returns when a guest that is on its way has arrived, or has not.
    pub(crate) async fn way_ended(&self) {
        match &self.moves.way {
            // An error means that the task is gone, which is an end too.
            Some(way) if way.ended.borrow().is_none() => {
                let _ = way.ended.clone().wait_for(Option::is_some).await;
            }
            _ => std::future::pending().await,
        }
    }

    pub(super) async fn run_move(&mut self, step: MoveStep, wanted: &Instance) -> Result<(), Trouble> {
        match step {
            MoveStep::Room => self.room(wanted),
            MoveStep::Receive => self.receive(wanted).await,
            MoveStep::Arrive => self.arrive(wanted).await,
            MoveStep::Arrived => self.arrived(wanted),
            MoveStep::ArrivalFailed => self.arrival_ended(wanted, MoveEnd::Failed, "its process ended"),
            MoveStep::Depart => self.depart(wanted),
            MoveStep::Hurry => {
                // Refused between two steps of the move: it is asked again.
                let asked = self.needed()?.hurry_send(&self.guest).await;
                asked.map_err(|e| Trouble::passing(e.to_string()))?;
                self.moves.way.iter_mut().for_each(|way| way.hurried = true);
                Ok(())
            }
            MoveStep::Departed => self.departure_ended(wanted, MoveEnd::Done, ""),
            MoveStep::DepartureFailed => self.departure_failed(wanted).await,
            MoveStep::Await => self.await_disks(wanted).await,
            MoveStep::Brought => self.brought(wanted),
            MoveStep::Hand => self.hand(wanted),
            MoveStep::Handed => self.handed(wanted),
            MoveStep::Stay => {
                self.moves.way = None;
                if self.last.run != Run::Absent {
                    self.needed()?.cancel_send(&self.guest).await?;
                }
                self.save(|doc| doc.departure = None)
            }
        }
    }

    fn room(&self, wanted: &Instance) -> Result<(), Trouble> {
        let sizes = wanted.arrival.as_ref().map_or(&[][..], |arrival| &arrival.disk_bytes);
        for (at, wanted) in wanted.disks.iter().enumerate().filter(|(_, disk)| disk.volume.is_none()) {
            let path = self.disk_path(wanted)?;
            // Whatever an earlier try left there is not what comes now.
            durable::remove(&path).map_err(io("a former disk"))?;
            let size = sizes.get(at).copied().filter(|size| *size > 0);
            let size = size.ok_or("the size of a disk on the other host is not known")?;
            disk::make(&path, None, size).map_err(io("an empty disk"))?;
        }
        Ok(())
    }

    /// Starts the process that waits. What it cannot do at the first try it cannot do: the move has failed.
    async fn receive(&mut self, wanted: &Instance) -> Result<(), Trouble> {
        let kind = Kind::from_word(&wanted.runtime).ok_or("the runtime of the other host is not known")?;
        let mut machine = self.machine(wanted, kind).await?;
        machine.restore = false;
        durable::save_plain(&self.guest.dir.join("runtime"), kind.word().as_bytes()).map_err(io("runtime mark"))?;
        self.context.plane.hold(&self.guest.id);
        let id = arrival_id(wanted);
        self.save(|doc| {
            doc.runtime = Some(kind);
            doc.arrival = Some(Moving { id, ..Moving::default() });
        })?;
        let received = match self.needed() {
            Ok(runtime) => runtime.receive(&self.guest, machine).await.map_err(|e| e.to_string()),
            Err(trouble) => Err(trouble.text),
        };
        match received {
            Ok(()) => Ok(()),
            Err(error) => self.arrival_ended(wanted, MoveEnd::Failed, &error),
        }
    }

    /// Waits for the guest. The wait may be given up and begun again.
    async fn arrive(&mut self, wanted: &Instance) -> Result<(), Trouble> {
        let runtime = self.needed()?;
        let (id, node) = (arrival_id(wanted), wanted.arrival.as_ref().map(|a| a.node_id.clone()).unwrap_or_default());
        if self.moves.expecting.is_none() {
            let (guest, behind) = (self.guest.clone(), runtime.clone());
            let doors = Box::new(move |door: &str| behind.door(&guest, door));
            let expecting = self.context.doorman.admit(&id, &node, doors).await;
            self.moves.expecting = Some(expecting.map_err(io("no way in for the other host"))?);
            let mut seen = self.seen(wanted.generation);
            seen.step = "arriving".into();
            self.context.board.set_instance(seen);
        }
        let arrived = runtime.arrive(&self.guest).await;
        self.moves.expecting = None;
        match arrived {
            Ok(()) => {
                // Its packets come and go here from this moment on, whatever the scheduler has heard of it yet.
                self.context.plane.present(&self.guest.id);
                self.arrived(wanted)
            }
            Err(error) => self.arrival_ended(wanted, MoveEnd::Failed, &error.to_string()),
        }
    }

    fn arrived(&mut self, wanted: &Instance) -> Result<(), Trouble> {
        self.moves.expecting = None;
        let boot = self.context.boot.clone();
        self.save(|doc| {
            doc.started = boot;
            (doc.starting, doc.ended, doc.suspended) = (false, None, false);
        })?;
        self.arrival_ended(wanted, MoveEnd::Done, "")
    }

    fn arrival_ended(&mut self, wanted: &Instance, end: MoveEnd, error: &str) -> Result<(), Trouble> {
        self.moves.expecting = None;
        tracing::info!(instance = self.guest.id, ?end, error, "arrival ended");
        let ended = Moving { id: arrival_id(wanted), end, error: error.to_owned() };
        self.save(|doc| doc.arrival = Some(ended))
    }

    fn depart(&mut self, wanted: &Instance) -> Result<(), Trouble> {
        let Some(Departure { move_id, node_id, address, .. }) = wanted.departure.clone() else { return Ok(()) };
        let runtime = self.needed()?;
        let begun = Moving { id: move_id.clone(), ..Moving::default() };
        self.save(|doc| doc.departure = Some(begun))?;
        let calls = Calls::new(self.context.proof.clone(), &move_id, &node_id, &address);
        let (tell, ended) = watch::channel(None);
        let (guest, context) = (self.guest.clone(), self.context.clone());
        let task = tokio::spawn(async move {
            let sent = runtime.send(&guest, &calls).await;
            if sent.is_ok() {
                // At once: what others send here until they are told is for the guest there.
                context.plane.departed(&guest.id);
            }
            tell.send_replace(Some(sent.map_err(|e| e.to_string())));
        });
        self.moves.way = Some(Way { move_id, ended, hurried: false, going: None, _task: AbortOnDropHandle::new(task) });
        Ok(())
    }

    /// It did not go. Whether it runs on here, or stands still because the other side may have it, its status says.
    async fn departure_failed(&mut self, wanted: &Instance) -> Result<(), Trouble> {
        let way = self.moves.way.take();
        let told = way.as_ref().and_then(|way| way.ended.borrow().clone());
        let error = match (told, self.last.run) {
            (Some(Err(error)), _) => error,
            (_, Run::Running | Run::Paused) if way.is_none() && self.doc.departure.is_some() => {
                "the host's agent was restarted".to_owned()
            }
            (_, Run::Running | Run::Paused) => "it did not go".to_owned(),
            _ => "the guest does not run".to_owned(),
        };
        drop(way);
        if matches!(self.last.run, Run::Running) {
            self.needed()?.cancel_send(&self.guest).await?;
        }
        let end = if self.last.run == Run::Paused { MoveEnd::Lost } else { MoveEnd::Failed };
        self.departure_ended(wanted, end, &error)
    }

    fn departure_ended(&mut self, wanted: &Instance, end: MoveEnd, error: &str) -> Result<(), Trouble> {
        self.moves.way = None;
        tracing::info!(instance = self.guest.id, ?end, error, "departure ended");
        let id = wanted.departure.as_ref().map(|departure| departure.move_id.clone()).unwrap_or_default();
        let ended = Moving { id, end, error: error.to_owned() };
        self.save(|doc| doc.departure = Some(ended))
    }
}

fn arrival_id(wanted: &Instance) -> String {
    wanted.arrival.as_ref().map(|arrival| arrival.move_id.clone()).unwrap_or_default()
}
