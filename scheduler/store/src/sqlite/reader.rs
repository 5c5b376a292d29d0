//! Reading connections: opened when needed, kept, used on blocking threads.
use super::{at_once, open_reader};
use crate::{
    Error,
    session::{Engine, Session},
    stats::Counters,
    work::Reading,
};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::{path::PathBuf, sync::Arc};
use tokio::{runtime::Handle, sync::Semaphore};

#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    counters: Arc<Counters>,
}

impl Readers {
    pub fn new(path: PathBuf, counters: Arc<Counters>) -> Self {
        let most = std::thread::available_parallelism().map_or(4, |n| n.get().clamp(4, 16));
        Readers { path, idle: Arc::default(), permits: Arc::new(Semaphore::new(most)), counters }
    }

    /// Runs `work` on one snapshot of the database.
    pub async fn run(&self, work: Reading) -> Result<(), Error> {
        // Off the runtime we are inside a write transaction's closure, whose thread must not wait.
        let runtime = Handle::try_current().map_err(|_| Error::ForeignAwait)?;
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
            drop(permit);
            result?.map(drop)
        });
        task.await.map_err(Error::of_task)?
    }
}
