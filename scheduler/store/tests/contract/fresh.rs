//! Catching up with other processes: nothing that was committed before the question is missed.
use crate::harness::{Engine, Other, Place, Thing, insert, update};
use futures::future::BoxFuture;
use pilvi_store::{Change, Error, Listen};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

#[derive(Default)]
struct Ear {
    told: Mutex<Vec<String>>,
    lost: AtomicU64,
    deaf: AtomicBool,
}

impl Listen for Ear {
    fn kinds(&self) -> Vec<&'static str> {
        vec!["thing"]
    }
    fn changed<'a>(&'a self, changes: &'a [Change]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            if self.deaf.load(Ordering::SeqCst) {
                return Err(Error::Closed);
            }
            self.told.lock().unwrap().extend(changes.iter().map(|c| c.id.clone()));
            Ok(())
        })
    }
    fn lost(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.lost.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }
}

pub async fn what_others_committed_is_told_before_the_next_answer(place: Place) {
    if !place.is_shared() {
        return;
    }
    let (here, there) = (place.open().await, place.open().await);
    let ear = Arc::new(Ear::default());
    there.listen(ear.clone());
    there.catch_up().await.unwrap();
    if place.engine != Engine::Postgres {
        assert_eq!(there.stats().catch_ups, 0, "alone, nothing is asked");
        return;
    }
    assert_eq!(ear.lost.load(Ordering::SeqCst), 1, "at first everything is new");
    for n in 0..100 {
        let id = format!("t{n}");
        let thing = insert(&here, &Thing::new(&id)).await.unwrap();
        there.catch_up().await.unwrap();
        assert!(ear.told.lock().unwrap().contains(&id), "{id} was acknowledged and is not known");
        if n % 10 == 0 {
            ear.told.lock().unwrap().clear();
            update(&here, &thing).await.unwrap();
            there.catch_up().await.unwrap();
            assert!(ear.told.lock().unwrap().contains(&id));
        }
    }
    insert(&here, &Other { id: "o".into(), count: 0 }).await.unwrap();
    there.catch_up().await.unwrap();
    assert!(!ear.told.lock().unwrap().contains(&"o".to_owned()), "of other kinds nothing is told");
    // Many at once share few questions, and still miss nothing.
    let before = there.stats().catch_ups;
    insert(&here, &Thing::new("last")).await.unwrap();
    let all = (0..200).map(|_| {
        let (there, ear) = (there.clone(), ear.clone());
        tokio::spawn(async move {
            there.catch_up().await.unwrap();
            assert!(ear.told.lock().unwrap().contains(&"last".to_owned()));
        })
    });
    for done in futures::future::join_all(all).await {
        done.unwrap();
    }
    let asked = there.stats().catch_ups - before;
    assert!(asked < 100, "{asked} questions for 200 requests");
    // Cut off behind us: everything is new.
    here.compact_changes(0).await.unwrap();
    insert(&here, &Thing::new("after")).await.unwrap();
    here.compact_changes(0).await.unwrap();
    there.catch_up().await.unwrap();
    assert!(ear.lost.load(Ordering::SeqCst) == 2 || ear.told.lock().unwrap().contains(&"after".to_owned()));
}

pub async fn a_listener_that_fails_is_told_again(place: Place) {
    if place.engine != Engine::Postgres {
        return;
    }
    let store = place.open().await;
    let ear = Arc::new(Ear::default());
    store.listen(ear.clone());
    store.catch_up().await.unwrap();
    insert(&store, &Thing::new("a")).await.unwrap();
    store.head().await.unwrap();
    ear.deaf.store(true, Ordering::SeqCst);
    assert_eq!(store.catch_up().await.unwrap_err(), Error::Closed);
    ear.deaf.store(false, Ordering::SeqCst);
    store.catch_up().await.unwrap();
    assert_eq!(*ear.told.lock().unwrap(), ["a"]);
}
