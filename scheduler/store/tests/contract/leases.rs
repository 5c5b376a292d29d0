//! Leases and fencing.
use crate::harness::{Place, Thing};
use pilvi_store::{Error, Guard, Query, Store, under};
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

fn guard(epoch: i64) -> Guard {
    Guard { lease: "job".into(), epoch }
}

async fn insert(store: &Store, id: &'static str) -> Result<(), Error> {
    store.write(move |tx| Box::pin(async move { tx.insert(&Thing::new(id)).await.map(drop) })).await
}

pub async fn work_under_a_lost_lease_is_refused(place: Place) {
    let store = place.open().await;
    let a = store.lease("job", "a", SHORT).await.unwrap().unwrap();
    under(guard(a.epoch), insert(&store, "one")).await.unwrap();
    tokio::time::sleep(SHORT * 2).await;
    let b = store.lease("job", "b", LONG).await.unwrap().unwrap();
    let late = under(guard(a.epoch), insert(&store, "two")).await;
    assert_eq!(late.unwrap_err(), Error::Fenced { lease: "job".into() });
    // Of nested guards every one must hold.
    let other = store.lease("other", "b", LONG).await.unwrap().unwrap();
    let both = Guard { lease: "other".into(), epoch: other.epoch };
    let nested = under(guard(a.epoch), under(both.clone(), insert(&store, "three")));
    assert_eq!(nested.await.unwrap_err(), Error::Fenced { lease: "job".into() });
    under(guard(b.epoch), under(both, insert(&store, "four"))).await.unwrap();
    // Reads are nobody's privilege.
    assert_eq!(under(guard(a.epoch), store.count::<Thing>(Query::all())).await.unwrap(), 2);
    insert(&store, "five").await.unwrap();
}

pub async fn seizing_fences_whoever_held_it(place: Place) {
    let store = place.open().await;
    let a = store.lease("job", "a", LONG).await.unwrap().unwrap();
    let b = store.seize("job", "b", LONG).await.unwrap();
    assert_eq!(b.epoch, a.epoch + 1);
    assert_eq!(store.renew("job", "a", a.epoch, LONG).await.unwrap(), None);
    assert!(store.renew("job", "b", b.epoch, LONG).await.unwrap().is_some());
    assert_eq!(store.renew("job", "b", a.epoch, LONG).await.unwrap(), None);
    // A second session of the same holder is another one.
    let again = store.seize("job", "b", LONG).await.unwrap();
    assert_eq!(again.epoch, b.epoch + 1);
    assert_eq!(under(guard(b.epoch), insert(&store, "x")).await.unwrap_err(), Error::Fenced { lease: "job".into() });
}

pub async fn a_lease_that_ran_out_can_be_renewed_until_it_is_taken(place: Place) {
    let store = place.open().await;
    let a = store.lease("job", "a", SHORT).await.unwrap().unwrap();
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(store.renew("job", "a", a.epoch, LONG).await.unwrap().unwrap().epoch, a.epoch);
    assert_eq!(store.lease("job", "b", LONG).await.unwrap(), None);
    assert!(store.forget_lease("job", "a").await.unwrap());
    assert_eq!(store.renew("job", "a", a.epoch, LONG).await.unwrap(), None, "nobody renews what was removed");
    assert_eq!(write_under(&store, "x", a.epoch).await.unwrap_err(), Error::Fenced { lease: "job".into() });
}

pub async fn holdings_are_listed_by_prefix(place: Place) {
    let store = place.open().await;
    store.lease("host/2", "a", LONG).await.unwrap();
    store.lease("host/1", "b", SHORT).await.unwrap();
    store.lease("hosts", "b", LONG).await.unwrap();
    store.lease("host/3", "c", LONG).await.unwrap();
    store.release("host/3", "c").await.unwrap();
    tokio::time::sleep(SHORT * 2).await;
    let seen = store.holdings("host/").await.unwrap();
    let seen: Vec<_> = seen.iter().map(|h| (h.name.as_str(), h.holder.as_str(), h.epoch, h.live)).collect();
    assert_eq!(seen, [("host/1", "b", 1, false), ("host/2", "a", 1, true)]);
}
