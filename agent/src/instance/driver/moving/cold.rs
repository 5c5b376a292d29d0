//! The driver's part of a move of a guest that is off: its disks go over one stream between the two agents.
//!
//! ```text
//!  there   Await: room, a socket in its folder, the doorman lets the other host in -> ... -> Brought
//!  here    Hand: the disks are read and sent, and stay ------------------------------> ... -> Handed
//! ```
//! Both go on in the background, and end with the task that has them: a stream is hung up when nobody waits for it any
//! more. An agent that dies ends its side; if all disks had their names there by then, the next one sees that.
use super::{Driver, Way, arrival_id, io};
use crate::disk::carry::{self, Manifest};
use crate::durable;
use crate::error::Trouble;
use crate::instance::driver::own_disks;
use crate::ledger::{MoveEnd, Moving};
use crate::peer::Calls;
use crate::runtime::{Kind, Wires};
use crate::socket::Short;
use crate::uefi;
use pilvi_agent_api::v1::{Departure, Instance};
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Name of the socket at which disks come in, and of its door.
const DOOR: &str = "disks-in";
const DOOR_NAME: &str = "disks";
/// The other host is silent for so long: it is not coming any more.
const SILENCE: Duration = Duration::from_secs(300);

/// Ends the stream for both sides when nobody waits for it any more.
struct HangUp(UnixStream);

impl Drop for HangUp {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// What happens in the background of a move.
fn begin(move_id: &str, work: impl Future<Output = Result<(), String>> + Send + 'static) -> Way {
    let (tell, ended) = watch::channel(None);
    let task = tokio::spawn(async move {
        let outcome = work.await;
        tell.send_replace(Some(outcome));
    });
    Way { move_id: move_id.to_owned(), ended, hurried: false, going: None, _task: AbortOnDropHandle::new(task) }
}

/// Carries something out that blocks. Whoever does not wait for it any more hangs up, and it ends.
async fn over<F>(mut stream: UnixStream, work: F) -> std::io::Result<()>
where
    F: FnOnce(&mut UnixStream) -> std::io::Result<()> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(move || work(&mut stream)).await;
    done.unwrap_or_else(|e| Err(std::io::Error::other(e)))
}

/// Takes the one call that can be the disks.
async fn take(listener: UnixListener, dir: PathBuf, manifest: Manifest) -> std::io::Result<()> {
    let (stream, _) = listener.accept().await?;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut hang_up = HangUp(stream.try_clone()?);
    let (to, what) = (dir.clone(), manifest.clone());
    over(stream, move |stream| carry::receive(stream, &to, &what)).await?;
    // Here, not in the background: whoever does not wait any more shall not find them named.
    carry::settle(&dir, &manifest)?;
    hang_up.0.write_all(&[carry::WHOLE])
}

/// The disks that shall come, with their lengths over there.
fn manifest(wanted: &Instance) -> Result<Manifest, Trouble> {
    let sizes = wanted.arrival.as_ref().map_or(&[][..], |arrival| &arrival.disk_bytes);
    let all = wanted.disks.iter().enumerate().filter(|(_, disk)| disk.volume.is_none());
    all.map(|(at, disk)| {
        let size = sizes.get(at).copied().filter(|size| *size > 0);
        Ok((disk.id.clone(), size.ok_or("the size of a disk on the other host is not known")?))
    })
    .collect()
}

impl Driver {
    /// What shall come: the disks, and the variables of a guest with UEFI.
    fn announced(&self, wanted: &Instance) -> Result<Manifest, Trouble> {
        let mut announced = manifest(wanted)?;
        if Kind::from_word(&wanted.runtime) == Some(Kind::Qemu) && uefi::is_asked_for(&wanted.properties) {
            announced.insert(uefi::VARS.into(), self.context.uefi.vars_bytes(&wanted.properties)?);
        }
        Ok(announced)
    }

    pub(super) async fn await_disks(&mut self, wanted: &Instance) -> Result<(), Trouble> {
        let id = arrival_id(wanted);
        let node = wanted.arrival.as_ref().map(|arrival| arrival.node_id.clone()).unwrap_or_default();
        let (dir, manifest) = (self.guest.dir.clone(), self.announced(wanted)?);
        if self.doc.arrival.as_ref().is_some_and(|known| known.id == id) && carry::is_there(&dir, &manifest) {
            // An earlier agent has seen them come.
            return self.disks_came(wanted);
        }
        carry::clear(&dir, &manifest).map_err(io("room for disks"))?;
        self.save(|doc| doc.arrival = Some(Moving { id: id.clone(), ..Moving::default() }))?;
        durable::remove(&dir.join(DOOR)).map_err(io("door"))?;
        let socket = Short::to(&dir, DOOR).map_err(io("instance folder"))?;
        let listener = UnixListener::bind(socket.path()).map_err(io("door"))?;
        let behind = dir.join(DOOR);
        let doors = Box::new(move |door: &str| (door == DOOR_NAME).then(|| behind.clone()));
        let expecting = self.context.doorman.admit(&id, &node, doors).await;
        self.moves.expecting = Some(expecting.map_err(io("no way in for the other host"))?);
        let work =
            async move { take(listener, dir, manifest).await.map_err(|e| format!("the disks did not come: {e}")) };
        self.moves.way = Some(begin(&id, work));
        Ok(())
    }

    /// How the way of disks or of their guest ended, as far as this agent knows.
    fn told(&mut self) -> Result<(), String> {
        let way = self.moves.way.take();
        let told = way.and_then(|way| way.ended.borrow().clone());
        told.unwrap_or_else(|| Err("the host's agent was restarted".to_owned()))
    }

    pub(super) fn brought(&mut self, wanted: &Instance) -> Result<(), Trouble> {
        let told = self.told();
        durable::remove(&self.guest.dir.join(DOOR)).map_err(io("door"))?;
        match told {
            Ok(()) => self.disks_came(wanted),
            Err(error) => self.arrival_ended(wanted, MoveEnd::Failed, &error),
        }
    }

    fn disks_came(&mut self, wanted: &Instance) -> Result<(), Trouble> {
        let kind = Kind::from_word(&wanted.runtime);
        self.save(|doc| doc.runtime = kind)?;
        self.arrival_ended(wanted, MoveEnd::Done, "")
    }

    pub(super) fn hand(&mut self, wanted: &Instance) -> Result<(), Trouble> {
        let Some(Departure { move_id, node_id, address, .. }) = wanted.departure.clone() else { return Ok(()) };
        let mut disks = Vec::new();
        for disk in own_disks(wanted) {
            disks.push((disk.id.clone(), self.disk_path(disk)?));
        }
        if self.doc.runtime == Some(Kind::Qemu) && uefi::is_asked_for(&wanted.properties) {
            disks.push((uefi::VARS.into(), self.context.uefi.make(&wanted.properties, &self.guest.dir)?));
        }
        self.save(|doc| doc.departure = Some(Moving { id: move_id.clone(), ..Moving::default() }))?;
        let calls = Calls::new(self.context.proof.clone(), &move_id, &node_id, &address);
        let work = async move {
            let stream = calls.open(DOOR_NAME).await.map_err(|e| format!("the other host: {e}"))?;
            let _hang_up = HangUp(stream.try_clone().map_err(|e| e.to_string())?);
            let sent = over(stream, move |stream| carry::send(stream, &disks)).await;
            sent.map_err(|e| format!("the disks did not go: {e}"))
        };
        self.moves.way = Some(begin(&move_id, work));
        Ok(())
    }

    pub(super) fn handed(&mut self, wanted: &Instance) -> Result<(), Trouble> {
        match self.told() {
            Ok(()) => self.departure_ended(wanted, MoveEnd::Done, ""),
            Err(error) => self.departure_ended(wanted, MoveEnd::Failed, &error),
        }
    }
}
