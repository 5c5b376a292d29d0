//! The change feed: resumable, gapless, bounded.
use crate::harness::{Engine, Other, Place, Thing, delete, insert, update};
use pilvi_store::{Change, Error, Op, Store};
use std::{collections::HashSet, time::Duration};

fn told(changes: &[Change]) -> Vec<(&str, &str, i64, Op)> {
    changes.iter().map(|c| (c.kind.as_str(), c.id.as_str(), c.rev, c.op)).collect()
}

pub async fn a_reader_resumes(place: Place) {
    let store = place.open().await;
    assert_eq!(store.head().await.unwrap(), 0);
    let thing = insert(&store, &Thing::new("a")).await.unwrap();
    update(&store, &thing).await.unwrap();
    insert(&store, &Other { id: "o".into(), count: 0 }).await.unwrap();
    delete::<Thing>(&store, "a").await.unwrap();
    let expected = [
        ("thing", "a", 1, Op::Insert),
        ("thing", "a", 2, Op::Update),
        ("other", "o", 1, Op::Insert),
        ("thing", "a", 2, Op::Delete),
    ];
    let all = store.changes(0, 100).await.unwrap();
    assert_eq!(told(&all), expected);
    assert_eq!(all.iter().map(|c| c.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(all.windows(2).all(|two| two[0].at_us < two[1].at_us));
    let first = store.changes(0, 1).await.unwrap();
    // Another process goes on where the first one stopped.
    let other = if place.is_shared() { place.open().await } else { store.clone() };
    assert_eq!(told(&other.changes(first[0].seq, 2).await.unwrap()), expected[1..3]);
    assert_eq!(told(&other.changes(3, 100).await.unwrap()), expected[3..]);
    assert!(other.changes(4, 100).await.unwrap().is_empty());
    assert_eq!(other.head().await.unwrap(), 4);
}

async fn follow(store: Store, count: usize) -> Vec<Change> {
    let mut watch = store.watch();
    let mut seen: Vec<Change> = vec![];
    while seen.len() < count {
        let after = seen.last().map_or(0, |c| c.seq);
        let next = store.changes(after, 7).await.unwrap();
        if next.is_empty() {
            watch.changed().await.unwrap();
        }
        seen.extend(next);
    }
    seen
}

/// The reader runs beside the writers: a number that appears below what was read already would be missed.
pub async fn a_reader_sees_every_change_once(place: Place) {
    let store = place.open().await;
    let (writers, each) = (8, 25);
    let reader = tokio::spawn(follow(store.clone(), writers * each * 2));
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..each {
                    let done = store.write(move |tx| {
                        Box::pin(async move {
                            tx.insert(&Thing::new(&format!("{writer}-{n}"))).await?;
                            tx.insert(&Other { id: format!("{writer}-{n}"), count: 0 }).await
                        })
                    });
                    done.await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let seen = tokio::time::timeout(Duration::from_secs(60), reader).await.unwrap().unwrap();
    let numbers: Vec<i64> = seen.iter().map(|c| c.seq).collect();
    assert_eq!(numbers, (1..=(writers * each * 2) as i64).collect::<Vec<_>>());
    let records: HashSet<_> = seen.iter().map(|c| (&c.kind, &c.id)).collect();
    assert_eq!(records.len(), writers * each * 2);
    // The two changes of one transaction stand together.
    assert!(seen.chunks(2).all(|two| two[0].id == two[1].id && two[0].kind == "thing" && two[1].kind == "other"));
}

pub async fn a_reader_behind_the_horizon_is_told(place: Place) {
    let store = place.open().await;
    for n in 0..10 {
        insert(&store, &Thing::new(&n.to_string())).await.unwrap();
    }
    store.compact_changes(100).await.unwrap();
    assert_eq!(store.changes(0, 100).await.unwrap().len(), 10);
    store.compact_changes(4).await.unwrap();
    assert_eq!(store.changes(0, 100).await.unwrap_err(), Error::FeedTruncated { horizon: 6 });
    assert_eq!(store.changes(5, 100).await.unwrap_err(), Error::FeedTruncated { horizon: 6 });
    assert_eq!(store.changes(6, 100).await.unwrap().len(), 4);
    assert_eq!(store.head().await.unwrap(), 10);
    store.compact_changes(0).await.unwrap();
    assert!(store.changes(10, 100).await.unwrap().is_empty());
    insert(&store, &Thing::new("after")).await.unwrap();
    assert_eq!(store.changes(10, 100).await.unwrap()[0].seq, 11);
}

pub async fn watchers_wake(place: Place) {
    let store = place.open().await;
    insert(&store, &Thing::new("before")).await.unwrap();
    assert_eq!(store.head().await.unwrap(), 1);
    let mut watch = store.watch();
    let failed = insert(&store, &Thing::new("before")).await;
    assert!(failed.is_err());
    let nothing = store.write(|tx| Box::pin(async move { tx.get::<Thing>("before").await }));
    nothing.await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(100), watch.changed()).await.is_err());
    insert(&store, &Thing::new("after")).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.unwrap().unwrap();
    assert_eq!(*watch.borrow(), 2);
}

pub async fn another_store_sees_commits(place: Place) {
    let store = place.open().await;
    if !place.is_shared() {
        return;
    }
    let other = place.open().await;
    let mut watch = other.watch();
    insert(&store, &Thing::new("a")).await.unwrap();
    assert!(other.get::<Thing>("a").await.unwrap().is_some());
    assert_eq!(other.changes(0, 10).await.unwrap().len(), 1);
    if place.engine == Engine::Postgres {
        tokio::time::timeout(Duration::from_secs(10), watch.wait_for(|head| *head == 1)).await.unwrap().unwrap();
    }
    insert(&other, &Thing::new("b")).await.unwrap();
    assert_eq!(store.changes(1, 10).await.unwrap()[0].seq, 2);
}
