//! Leases and fencing.
use crate::harness::{Place, Thing};
use pilvi_store::{Error, Store};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(60);

async fn write_under(store: &Store, id: &'static str, epoch: i64) -> Result<(), Error> {
    store
        .write(move |tx| {
            Box::pin(async move {
                tx.insert(&Thing::new(id)).await?;
                tx.fence("job", epoch).await
            })
        })
        .await
}

pub async fn take_over_raises_the_epoch(place: Place) {
    let store = place.open().await;
    let first = store.lease("job", "a", LONG).await.unwrap().unwrap();
    assert_eq!(first.epoch, 1);
    assert_eq!(store.lease("job", "b", LONG).await.unwrap(), None);
    assert_eq!(store.lease("another", "b", LONG).await.unwrap().unwrap().epoch, 1);
    let renewed = store.lease("job", "a", SHORT).await.unwrap().unwrap();
    assert_eq!(renewed.epoch, 1);
    assert!(renewed.expires_us < first.expires_us);
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(store.lease("job", "b", LONG).await.unwrap().unwrap().epoch, 2);
    assert_eq!(store.lease("job", "a", LONG).await.unwrap(), None);
    assert!(!store.release("job", "a").await.unwrap());
    assert!(store.release("job", "b").await.unwrap());
    assert_eq!(store.lease("job", "b", LONG).await.unwrap().unwrap().epoch, 3);
    assert!(matches!(store.lease("", "b", LONG).await, Err(Error::BadQuery { .. })));
}

pub async fn a_fenced_holder_changes_nothing(place: Place) {
    let store = place.open().await;
    let fenced = Error::Fenced { lease: "job".into() };
    assert_eq!(write_under(&store, "none", 0).await.unwrap_err(), fenced);
    let a = store.lease("job", "a", SHORT).await.unwrap().unwrap();
    write_under(&store, "one", a.epoch).await.unwrap();
    tokio::time::sleep(SHORT * 2).await;
    // Late, but nobody has taken over.
    write_under(&store, "two", a.epoch).await.unwrap();
    let b = store.lease("job", "b", LONG).await.unwrap().unwrap();
    assert_eq!(write_under(&store, "three", a.epoch).await.unwrap_err(), fenced);
    assert_eq!(store.get::<Thing>("three").await.unwrap(), None);
    write_under(&store, "four", b.epoch).await.unwrap();
    store.release("job", "b").await.unwrap();
    assert_eq!(write_under(&store, "five", b.epoch).await.unwrap_err(), fenced);
}

pub async fn one_of_many_gets_it(place: Place) {
    let store = place.open().await;
    let racers: Vec<_> = (0..8)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.lease("job", &format!("h{n}"), LONG).await.unwrap() })
        })
        .collect();
    let mut held = vec![];
    for racer in racers {
        held.extend(racer.await.unwrap());
    }
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].epoch, 1);
}
