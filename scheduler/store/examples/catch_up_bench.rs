//! What catching up costs a request, on a private PostgreSQL: alone, beside a busy writer, and many at once.
//!
//! `cargo run --release -p pilvi-store --features testing --example catch_up_bench`
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use pilvi_store::{Change, Error, KindSpec, Listen, Record, Store, Told, testing::PostgresServer};
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Thing {
    id: String,
}
impl Record for Thing {
    const KIND: &'static str = "thing";
    fn id(&self) -> &str {
        &self.id
    }
}

struct Ear;
impl Listen for Ear {
    fn kinds(&self) -> Vec<&'static str> {
        vec!["thing"]
    }
    fn changed<'a>(&'a self, _changes: &'a [Change]) -> Told<'a> {
        Box::pin(async { Ok(()) })
    }
    fn lost(&self) -> Told<'_> {
        Box::pin(async { Ok(()) })
    }
}

const RUN: Duration = Duration::from_secs(3);

async fn measure(store: &Store, what: &str, at_once: usize) {
    let (asked, started) = (store.stats().catch_ups, Instant::now());
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut took = vec![];
                while started.elapsed() < RUN {
                    let begin = Instant::now();
                    store.catch_up().await.unwrap();
                    took.push(begin.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = vec![];
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    took.sort();
    let at = |part: usize| took[(took.len() - 1) * part / 100].as_micros();
    println!(
        "{what}, {at_once} at once: {} requests/s, p50 {} us, p99 {} us, {:.2} questions a request",
        took.len() as u64 / RUN.as_secs(),
        at(50),
        at(99),
        (store.stats().catch_ups - asked) as f64 / took.len() as f64
    );
}

#[tokio::main]
async fn main() {
    let Some(server) = PostgresServer::start().unwrap() else {
        println!("PostgreSQL is not installed");
        return;
    };
    let url = server.database().unwrap();
    let open = || Store::open(&url, vec![KindSpec::of::<Thing>()]);
    let (store, other) = (open().await.unwrap(), open().await.unwrap());
    store.listen(Arc::new(Ear));
    for at_once in [1, 16, 256] {
        measure(&store, "nothing happens", at_once).await;
    }
    let writer = tokio::spawn(async move {
        for n in 0_u64.. {
            let written = other.write(move |tx| {
                Box::pin(async move {
                    tx.insert(&Thing { id: n.to_string() }).await?;
                    Ok::<_, Error>(())
                })
            });
            written.await.unwrap();
        }
    });
    for at_once in [1, 16, 256] {
        measure(&store, "another writes", at_once).await;
    }
    writer.abort();
}
