//! Transactions: all or nothing, serialisable, unharmed by what their closures do.
use crate::harness::{Engine, Other, Place, Thing, insert};
use pilvi_store::{Error, Query, Store};
use std::time::Duration;

pub async fn several_records_or_none(place: Place) {
    let store = place.open().await;
    insert(&store, &Thing::claiming("taken", "s", "v")).await.unwrap();
    let before = store.head().await.unwrap();
    let lost = store.write(|tx| {
        Box::pin(async move {
            tx.insert(&Other { id: "o".into(), count: 1 }).await?;
            tx.insert(&Thing::claiming("mine", "s", "w")).await?;
            tx.delete::<Thing>("taken").await?;
            assert_eq!(tx.count::<Thing>(Query::all()).await?, 1, "it sees its own writes");
            assert_eq!(tx.list::<Thing>(Query::all()).await?[0].id, "mine");
            tx.insert(&Thing::new("mine")).await
        })
    });
    assert!(matches!(lost.await, Err(Error::Exists { .. })));
    assert_eq!(store.get::<Other>("o").await.unwrap(), None);
    assert_eq!(store.get::<Thing>("mine").await.unwrap(), None);
    assert!(store.get::<Thing>("taken").await.unwrap().is_some());
    assert_eq!(store.head().await.unwrap(), before);
    insert(&store, &Thing::claiming("other", "s", "w")).await.unwrap();
    assert!(matches!(insert(&store, &Thing::claiming("x", "s", "v")).await, Err(Error::Claimed { .. })));
}

pub async fn racing_claims_have_one_winner(place: Place) {
    let store = place.open().await;
    // Two processes, where there can be.
    let rival = if place.is_shared() { place.open().await } else { store.clone() };
    for round in 0..40 {
        let value = round.to_string();
        let (a, b) =
            (Thing::claiming(&format!("a{round}"), "s", &value), Thing::claiming(&format!("b{round}"), "s", &value));
        let (one, two) = (store.clone(), rival.clone());
        let (a, b) = tokio::join!(
            tokio::spawn(async move { insert(&one, &a).await }),
            tokio::spawn(async move { insert(&two, &b).await })
        );
        let lost = match (a.unwrap(), b.unwrap()) {
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => error,
            (a, b) => panic!("round {round}: {a:?} {b:?}"),
        };
        assert_eq!(lost, Error::Claimed { scope: "s".into(), value });
    }
    assert_eq!(store.count::<Thing>(Query::all()).await.unwrap(), 40);
}

/// Each looks whether there is one and else makes one, under different ids: only serialisability stops two.
pub async fn a_check_then_insert_is_serialisable(place: Place) {
    let store = place.open().await;
    for round in 0..15 {
        let state = format!("round{round}");
        let racers = (0..4).map(|racer| {
            let (store, state) = (store.clone(), state.clone());
            tokio::spawn(async move {
                let made = store.write(move |tx| {
                    let state = state.clone();
                    Box::pin(async move {
                        if tx.count::<Thing>(Query::all().state(&state)).await? > 0 {
                            return Ok(false);
                        }
                        let id = format!("{state}-{racer}");
                        tx.insert(&Thing { state: Some(state), ..Thing::new(&id) }).await?;
                        Ok::<_, Error>(true)
                    })
                });
                made.await.unwrap()
            })
        });
        let mut made = 0;
        for racer in racers.collect::<Vec<_>>() {
            made += usize::from(racer.await.unwrap());
        }
        assert_eq!(made, 1);
        assert_eq!(store.count::<Thing>(Query::all().state(&state)).await.unwrap(), 1);
    }
}

async fn increment(store: &Store, id: &'static str) -> Result<i64, Error> {
    store
        .write(move |tx| {
            Box::pin(async move {
                let mut other = tx.get::<Other>(id).await?.unwrap();
                other.count += 1;
                Ok(tx.update(&other).await?.count)
            })
        })
        .await
}

pub async fn no_increment_is_lost(place: Place) {
    let store = place.open().await;
    insert(&store, &Other { id: "n".into(), count: 0 }).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    increment(&store, "n").await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.get::<Other>("n").await.unwrap().unwrap().count, 80);
    let stats = store.stats();
    assert_eq!((stats.writes, stats.failed_writes, stats.queue_depth), (81, 0, 0));
}

pub async fn a_panic_is_contained(place: Place) {
    let store = place.open().await;
    let panicked = store.write(|tx| {
        Box::pin(async move {
            tx.insert(&Thing::new("half")).await?;
            if tx.now_us() > 0 {
                panic!("on purpose");
            }
            Ok::<(), Error>(())
        })
    });
    assert_eq!(panicked.await.unwrap_err(), Error::Panicked { reason: "on purpose".into() });
    assert_eq!(store.get::<Thing>("half").await.unwrap(), None);
    insert(&store, &Thing::new("after")).await.unwrap();
}

pub async fn only_the_tx_may_be_awaited(place: Place) {
    let store = place.open().await;
    let inner = store.clone();
    let reads = store.write(move |_| {
        let inner = inner.clone();
        Box::pin(async move { inner.get::<Thing>("a").await })
    });
    assert_eq!(reads.await.unwrap_err(), Error::ForeignAwait);
    let inner = store.clone();
    let writes = store.write(move |tx| {
        let inner = inner.clone();
        Box::pin(async move {
            tx.insert(&Thing::new("outer")).await?;
            insert(&inner, &Thing::new("inner")).await
        })
    });
    assert_eq!(writes.await.unwrap_err(), Error::ForeignAwait);
    if place.engine != Engine::Postgres {
        let waits = store.write(|_| {
            Box::pin(async {
                tokio::task::yield_now().await;
                Ok::<(), Error>(())
            })
        });
        assert_eq!(waits.await.unwrap_err(), Error::ForeignAwait);
    }
    assert_eq!(store.count::<Thing>(Query::all()).await.unwrap(), 0);
    insert(&store, &Thing::new("after")).await.unwrap();
}

pub async fn a_caller_that_leaves_does_no_harm(place: Place) {
    let store = place.open().await;
    for round in 0..40_u64 {
        let left =
            insert(&store, &Thing { size: Some(1), ..Thing::claiming(&format!("t{round}"), "s", &round.to_string()) })
                .await;
        drop(left);
        let id = format!("t{round}");
        let both = store.write(move |tx| {
            let id = id.clone();
            Box::pin(async move {
                let mut thing = tx.get::<Thing>(&id).await?.unwrap();
                thing.size = Some(2);
                tx.update(&thing).await?;
                tx.insert(&Other { id: thing.id.clone(), count: 1 }).await
            })
        });
        let _ = tokio::time::timeout(Duration::from_micros(round * 50), both).await;
    }
    // What was left has either happened as a whole or not at all, and nothing hangs.
    insert(&store, &Thing::new("last")).await.unwrap();
    let mut settled = false;
    for _ in 0..50 {
        let (big, others) = (
            store.count::<Thing>(Query::all().eq("size", 2)).await.unwrap(),
            store.count::<Other>(Query::all()).await.unwrap(),
        );
        settled = big == others;
        if settled {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(settled);
}
