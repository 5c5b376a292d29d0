//! Reading connections: opened when needed, kept, used on blocking threads.
//!
//! What is read for hosts ([`wait_for_clients`]) waits in a queue of its own and never has all connections, so that a
//! client's request finds one.
use super::{at_once, open_reader};
use crate::{
    Error,
    session::{Engine, Session},
    stats::Counters,
    work::Reading,
};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::{cell::Cell, path::PathBuf, sync::Arc};
use tokio::{runtime::Handle, sync::Semaphore};

thread_local! {
    static PATIENT: Cell<bool> = const { Cell::new(false) };
}

/// Whatever this thread reads from now on is not for a client that waits.
pub fn wait_for_clients() {
    PATIENT.set(true);
}

#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    patient: Arc<Semaphore>,
    counters: Arc<Counters>,
}

impl Readers {
    pub fn new(path: PathBuf, counters: Arc<Counters>) -> Self {
        let most = std::thread::available_parallelism().map_or(4, |n| n.get().clamp(4, 16));
        let (permits, patient) = (Arc::new(Semaphore::new(most)), Arc::new(Semaphore::new(most / 2)));
        Readers { path, idle: Arc::default(), permits, patient, counters }
    }

    /// Runs `work` on one snapshot of the database.
    pub async fn run(&self, work: Reading) -> Result<(), Error> {
        // Off the runtime we are inside a write transaction's closure, whose thread must not wait.
        let runtime = Handle::try_current().map_err(|_| Error::ForeignAwait)?;
        let patient = match PATIENT.get() {
            true => Some(self.patient.clone().acquire_owned().await.map_err(|_| Error::Closed)?),
            false => None,
        };
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let (path, idle, counters) = (self.path.clone(), self.idle.clone(), self.counters.clone());
        let task = runtime.spawn_blocking(move || {
            let kept = idle.lock().pop();
            let conn = match kept {
                Some(conn) => conn,
                None => open_reader(&path)?,
            };
            let mut session = Session::new(Engine::Sqlite(conn), counters);
            let result = at_once(async {
                session.execute("BEGIN", &[]).await?;
                let result = work(&mut session).await;
                session.execute("COMMIT", &[]).await?;
                result
            });
            if let Engine::Sqlite(conn) = session.engine
                && conn.is_autocommit()
            {
                idle.lock().push(conn);
            }
            drop((permit, patient));
            result?.map(drop)
        });
        task.await.map_err(Error::of_task)?
    }
}
