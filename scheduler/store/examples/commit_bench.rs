//! How many small durable writes a second the store acknowledges from concurrent writers, beside what the
//! disk can do: `cargo run --release -p pilvi-store --example commit_bench [seconds] [writers] [directory or postgres URL]`.
#![allow(clippy::print_stdout)]
use pilvi_store::{Claim, Column, Error, KindSpec, Record, Store, Value};
use serde::{Deserialize, Serialize};
use std::{
    error::Error as StdError,
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// About what a port is: two indexed columns, one claim.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Port {
    id: String,
    project: String,
    network: String,
    address: String,
}

impl Record for Port {
    const KIND: &'static str = "bench_port";
    const COLUMNS: &'static [Column] = &[Column::text("network")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.network.as_str().into()]
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim::new(format!("address:{}", self.network), &self.address)]
    }
}

/// One record without claims: the smallest write.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Small {
    id: String,
    text: String,
}

impl Record for Small {
    const KIND: &'static str = "bench_small";
    fn id(&self) -> &str {
        &self.id
    }
}

/// Pages of 4 KiB, each made durable, for a second: appended to a growing file, or written over in a file of
/// 16 MiB, which is what a log that is used again and again does.
fn fsync_rate(dir: &Path, over: bool) -> std::io::Result<f64> {
    const PAGES: u64 = 4096;
    let path = dir.join("commit_bench.fsync");
    let mut file = File::create(&path)?;
    if over {
        (0..PAGES).try_for_each(|_| file.write_all(&[1; 4096]))?;
        file.sync_all()?;
    }
    let (started, mut count) = (Instant::now(), 0_u64);
    while started.elapsed() < Duration::from_secs(1) {
        if over {
            file.seek(SeekFrom::Start(count % PAGES * 4096))?;
        }
        file.write_all(&[2; 4096])?;
        file.sync_data()?;
        count += 1;
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

async fn insert<R: Record>(store: &Store, record: R) -> Result<(), Error> {
    let insert = store.write(move |tx| {
        let record = record.clone();
        Box::pin(async move { tx.insert(&record).await.map(drop) })
    });
    insert.await
}

/// Each writer inserts one record after the other until the time is over; returns all latencies.
async fn load<R: Record>(
    store: &Store,
    writers: usize,
    time: Duration,
    make: fn(&str, usize, u64) -> R,
) -> Result<Vec<Duration>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    // Unlike those of an earlier run on the same database.
    let run: Arc<str> = format!("{:08x}", rand::random::<u32>()).into();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, stop, run) = (store.clone(), stop.clone(), run.clone());
            tokio::spawn(async move {
                let mut latencies = vec![];
                while !stop.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    insert(&store, make(&run, writer, latencies.len() as u64)).await?;
                    latencies.push(started.elapsed());
                }
                Ok::<_, Error>(latencies)
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = vec![];
    for task in tasks {
        all.extend(task.await.map_err(|_| Error::Closed)??);
    }
    all.sort();
    Ok(all)
}

async fn run<R: Record>(
    store: &Store,
    name: &str,
    writers: usize,
    seconds: u64,
    make: fn(&str, usize, u64) -> R,
) -> Result<(), Error> {
    let before = store.stats();
    let started = Instant::now();
    let latencies = load(store, writers, Duration::from_secs(seconds), make).await?;
    let took = started.elapsed().as_secs_f64();
    let after = store.stats();
    let commits = (after.commits - before.commits).max(1);
    let at = |part: usize| latencies.get(latencies.len() * part / 100).copied().unwrap_or_default();
    println!(
        "{name:<22} {:>7.0} writes/s  {:>6.0} commits/s  {:>5.1} writes/commit  p50 {:.2?}  p99 {:.2?}",
        latencies.len() as f64 / took,
        commits as f64 / took,
        latencies.len() as f64 / commits as f64,
        at(50),
        at(99),
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(5), |n| n.parse())?;
    let writers = arguments.next().map_or(Ok(64), |n| n.parse())?;
    let place = arguments.next().unwrap_or_else(|| ".".to_owned());
    let kinds = vec![KindSpec::of::<Port>(), KindSpec::of::<Small>()];
    let dir = tempfile::tempdir_in(if place.contains("://") { "." } else { &place })?;
    let store = if place.contains("://") {
        Store::open(&place, kinds).await?
    } else {
        let (append, over) = (fsync_rate(dir.path(), false)?, fsync_rate(dir.path(), true)?);
        println!("fsync of 4 KiB: {append:.0} /s appended, {over:.0} /s written over");
        Store::open(&format!("sqlite:{}", dir.path().join("bench.db").display()), kinds).await?
    };
    println!("{writers} writers, {seconds} s each, every write acknowledged after it is durable:");
    run(&store, "one small record", writers, seconds, |run, writer, n| Small {
        id: format!("{run}-{writer}-{n}"),
        text: "x".repeat(100),
    })
    .await?;
    run(&store, "record, claim, indexes", writers, seconds, |run, writer, n| Port {
        id: format!("{run}-{writer}-{n}"),
        project: format!("project{}", writer % 8),
        network: format!("network{}", writer % 16),
        address: format!("{run}.{writer}.{n}"),
    })
    .await?;
    store.close().await;
    Ok(())
}
