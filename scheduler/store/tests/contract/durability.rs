//! What was acknowledged survives: kill -9 of the writing process at any moment, and a copy of a live store.
use crate::harness::{Engine, Other, Place, Thing, insert};
use pilvi_store::{Error, KindSpec, Query, Store};
use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const URL: &str = "PILVI_STORE_CHILD_URL";
const ROUND: &str = "PILVI_STORE_CHILD_ROUND";

async fn pair(store: &Store, id: String) {
    let written = store.write(move |tx| {
        let id = id.clone();
        Box::pin(async move {
            tx.insert(&Thing::claiming(&id, "id", &id)).await?;
            tx.insert(&Other { id, count: 1 }).await
        })
    });
    written.await.unwrap();
}

/// Not a test: the process that `killed_writers_lose_nothing` kills. It tells what was acknowledged.
#[test]
#[ignore = "runs as the child of killed_writers_lose_nothing"]
fn child() {
    let (Ok(url), Ok(round)) = (std::env::var(URL), std::env::var(ROUND)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&url, vec![KindSpec::of::<Thing>(), KindSpec::of::<Other>()]).await.unwrap();
        let writers = (0..16).map(|writer| {
            let (store, round) = (store.clone(), round.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    let id = format!("{round}-{writer}-{n}");
                    pair(&store, id.clone()).await;
                    // One write call a line: a line is told as a whole or not at all.
                    std::io::stdout().lock().write_all(format!("\nACK {id}\n").as_bytes()).unwrap();
                }
            })
        });
        futures::future::join_all(writers).await;
    });
}

/// Runs the child and kills it after `life`; returns what it had acknowledged.
fn kill_one(url: &str, round: usize, life: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "durability::child", "--ignored", "--nocapture"])
        .env(URL, url)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (first, started) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut acknowledged = vec![];
        for line in output.lines().map_while(Result::ok) {
            if let Some(id) = line.strip_prefix("ACK ") {
                acknowledged.push(id.to_owned());
                let _ = first.send(());
            }
        }
        acknowledged
    });
    started.recv_timeout(Duration::from_secs(60)).unwrap();
    std::thread::park_timeout(life);
    // SIGKILL
    child.kill().unwrap();
    child.wait().unwrap();
    let mut acknowledged = reader.join().unwrap();
    // The last line may be cut in the middle of its number.
    acknowledged.retain(|id| id.split('-').count() == 3);
    acknowledged
}

fn integrity(url: &str) -> String {
    let conn = rusqlite::Connection::open(url.strip_prefix("sqlite:").unwrap()).unwrap();
    conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_writers_lose_nothing() {
    let place = Place::new(Engine::File).unwrap();
    let mut acknowledged: HashSet<String> = HashSet::new();
    for round in 0..10 {
        let life = Duration::from_micros(u64::from(rand::random::<u32>() % 250_000));
        let url = place.url.clone();
        let told = tokio::task::spawn_blocking(move || kill_one(&url, round, life)).await.unwrap();
        assert!(!told.is_empty());
        acknowledged.extend(told);
        let store = place.open().await;
        let things: HashSet<String> =
            store.list::<Thing>(Query::all()).await.unwrap().into_iter().map(|t| t.record.id).collect();
        let others: HashSet<String> =
            store.list::<Other>(Query::all()).await.unwrap().into_iter().map(|t| t.record.id).collect();
        let lost: Vec<_> = acknowledged.difference(&things).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
        assert_eq!(things, others, "round {round}: a transaction was torn");
        let head = store.head().await.unwrap();
        assert_eq!(head, 2 * things.len() as i64, "round {round}: feed and records differ");
        let some = things.iter().next().unwrap();
        assert!(matches!(insert(&store, &Thing::claiming("x", "id", some)).await, Err(Error::Claimed { .. })));
        store.close().await;
        assert_eq!(integrity(&place.url), "ok");
    }
    println!("{} acknowledged transactions survived 10 kills", acknowledged.len());
}

async fn copy_of(place: &Place, dir: &Path) {
    let store = place.open().await;
    for n in 0..50 {
        pair(&store, n.to_string()).await;
    }
    let writer = store.clone();
    let busy = tokio::spawn(async move {
        for n in 50..150 {
            pair(&writer, n.to_string()).await;
        }
    });
    let to = dir.join("copy's.db");
    store.backup_to(&to).await.unwrap();
    busy.await.unwrap();
    assert!(matches!(store.backup_to(&to).await, Err(Error::Url { .. })), "nothing is overwritten");
    assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    let url = format!("sqlite:{}", to.display());
    let copy = Store::open(&url, vec![KindSpec::of::<Thing>(), KindSpec::of::<Other>()]).await.unwrap();
    let (things, others) =
        (copy.count::<Thing>(Query::all()).await.unwrap(), copy.count::<Other>(Query::all()).await.unwrap());
    assert!((50..=150).contains(&things));
    assert_eq!(things, others);
    assert_eq!(copy.head().await.unwrap(), 2 * things as i64);
    copy.close().await;
    assert_eq!(integrity(&url), "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_live_store_can_be_copied() {
    for engine in [Engine::File, Engine::Memory] {
        let dir = tempfile::tempdir().unwrap();
        copy_of(&Place::new(engine).unwrap(), dir.path()).await;
    }
}

#[tokio::test]
async fn the_file_is_its_owners_only() {
    let place = Place::new(Engine::File).unwrap();
    let store = place.open().await;
    insert(&store, &Thing::new("secret")).await.unwrap();
    let path = place.url.strip_prefix("sqlite:").unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let mode = std::fs::metadata(format!("{path}{suffix}")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{suffix}");
    }
    assert!(Store::open("sqlite:/does/not/exist/store.db", vec![]).await.is_err());
    assert!(Store::open("mysql://x", vec![]).await.is_err());
}

/// Transactions that share a COMMIT fail alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_share_commits() {
    let place = Place::new(Engine::File).unwrap();
    let store = place.open().await;
    let before = store.stats();
    let tasks: Vec<_> = (0..64)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..10 {
                    // Two writers want each id.
                    let written = insert(&store, &Thing::sized(&format!("{}-{n}", writer / 2), writer)).await;
                    match written {
                        Ok(thing) => assert_eq!(store.get::<Thing>(&thing.id).await.unwrap().as_ref(), Some(&thing)),
                        Err(error) => assert!(matches!(error, Error::Exists { .. })),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let after = store.stats();
    assert_eq!((after.writes - before.writes, after.failed_writes), (320, 320));
    assert_eq!(store.count::<Thing>(Query::all()).await.unwrap(), 320);
    assert_eq!(store.head().await.unwrap(), 320);
    let commits = after.commits - before.commits;
    assert!(commits < 320 && after.batch_max > 4, "{commits} commits, largest batch {}", after.batch_max);
    assert_eq!(after.queue_depth, 0);
}
