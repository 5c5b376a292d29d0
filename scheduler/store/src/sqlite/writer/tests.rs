//! What a batch does when something in it, or the COMMIT itself, fails.
use super::*;
use crate::{KindSpec, Record, work::Slot};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Blob {
    id: String,
    bytes: String,
}
impl Record for Blob {
    const KIND: &'static str = "blob";
    fn id(&self) -> &str {
        &self.id
    }
}

type Answer = (oneshot::Receiver<Result<(), Error>>, Slot<(), Error>);

/// A writer over a store in memory on which `script` was run, and jobs of one batch.
struct Bench {
    thread: Thread,
    queue: (mpsc::Sender<Command>, mpsc::Receiver<Command>),
    answers: Vec<Answer>,
}

impl Bench {
    fn new(script: &str) -> Self {
        let kinds = Arc::new(Kinds::new(&[KindSpec::of::<Blob>()]).unwrap());
        let counters = Arc::new(Counters::default());
        let (conn, _) = crate::sqlite::prepare(None, &kinds, &counters, 1).unwrap();
        conn.execute_batch(script).unwrap();
        let session = Session::new(Engine::Sqlite(conn), counters.clone());
        let head = watch::channel(0).0;
        Bench {
            thread: Thread { tx: Tx::new(session, kinds), counters, head, last_us: 0 },
            queue: mpsc::channel(100),
            answers: vec![],
        }
    }
    fn job<F>(&mut self, f: F)
    where
        F: for<'a> Fn(&'a mut Tx) -> BoxFuture<'a, Result<(), Error>> + Send + Sync + 'static,
    {
        let (work, slot) = crate::work::transaction(f);
        let (job, answered) = Job::new(Work::Write(work));
        assert!(self.queue.0.try_send(Command::Run(job)).is_ok());
        self.thread.counters.queue_depth.fetch_add(1, Ordering::Relaxed);
        self.answers.push((answered, slot));
    }
    fn insert(&mut self, id: &'static str, bytes: usize) {
        self.job(move |tx| {
            let blob = Blob { id: id.to_owned(), bytes: "x".repeat(bytes) };
            Box::pin(async move { tx.insert(&blob).await.map(drop) })
        });
    }
    fn run(&mut self) -> Vec<Result<(), Error>> {
        while let Ok(Command::Run(job)) = self.queue.1.try_recv() {
            assert!(self.thread.batch(job, &mut self.queue.1).is_none());
        }
        self.answers.drain(..).map(|(mut answered, slot)| slot.take(answered.try_recv().unwrap())).collect()
    }
    fn ids(&mut self) -> Vec<String> {
        let rows = at_once(self.thread.tx.session.query("SELECT id FROM blob ORDER BY id", &[])).unwrap().unwrap();
        rows.iter().map(|row| row.text(0).to_owned()).collect()
    }
}

#[test]
fn a_failed_commit_fails_the_batch_and_only_it() {
    let mut bench = Bench::new(
        "PRAGMA foreign_keys = ON; CREATE TABLE parent (id TEXT PRIMARY KEY);
         CREATE TABLE child (id TEXT REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);",
    );
    bench.insert("before", 1);
    assert_eq!(bench.run(), [Ok(())]);
    bench.insert("a", 1);
    // Nothing is wrong with it until the COMMIT.
    bench.job(|tx| {
        Box::pin(async move { tx.session.execute("INSERT INTO child VALUES ('orphan')", &[]).await.map(drop) })
    });
    bench.insert("b", 1);
    bench.insert("before", 1);
    let answers = bench.run();
    assert!(answers[..3].iter().all(|a| matches!(a, Err(Error::Engine { .. }))), "{answers:?}");
    assert!(matches!(answers[3], Err(Error::Exists { .. })), "its own failure is the more exact answer");
    assert_eq!(bench.ids(), ["before"]);
    assert_eq!(*bench.thread.head.borrow(), 1);
    bench.insert("after", 1);
    assert_eq!(bench.run(), [Ok(())]);
    assert_eq!(bench.ids(), ["after", "before"]);
    assert_eq!(*bench.thread.head.borrow(), 2);
}

#[test]
fn a_full_disk_is_an_error_and_heals() {
    let mut bench = Bench::new("PRAGMA max_page_count = 60");
    bench.insert("small", 10);
    bench.insert("large", 1 << 20);
    bench.insert("late", 10);
    let answers = bench.run();
    assert!(matches!(answers[1], Err(Error::Engine { .. })), "{answers:?}");
    // Whatever was answered with Ok is there, whatever was not is not.
    let mut there: Vec<&str> = vec![];
    for (id, answer) in ["large", "late", "small"].iter().zip([&answers[1], &answers[2], &answers[0]]) {
        if answer.is_ok() {
            there.push(id);
        }
    }
    assert_eq!(bench.ids(), there);
    at_once(bench.thread.tx.session.script("PRAGMA max_page_count = 100000")).unwrap().unwrap();
    bench.insert("large", 1 << 20);
    assert_eq!(bench.run(), [Ok(())]);
}

#[test]
fn a_swallowed_failure_is_not_kept() {
    let mut bench = Bench::new("");
    bench.job(|tx| {
        Box::pin(async move {
            tx.insert(&Blob { id: "half".into(), bytes: String::new() }).await?;
            let _ = tx.session.execute("INSERT INTO nowhere VALUES (1)", &[]).await;
            Ok(())
        })
    });
    assert!(matches!(bench.run()[..], [Err(Error::Engine { .. })]));
    assert!(bench.ids().is_empty());
}

#[test]
fn a_batch_is_bounded() {
    let mut bench = Bench::new("");
    for _ in 0..3 {
        bench.job(|_| {
            let started = Instant::now();
            while started.elapsed() < BATCH_TIME {}
            Box::pin(async { Ok(()) })
        });
    }
    assert_eq!(bench.run(), [Ok(()), Ok(()), Ok(())]);
    assert_eq!(bench.thread.counters.read().batch_max, 1);
    assert_eq!(bench.thread.counters.read().queue_depth, 0);
}
