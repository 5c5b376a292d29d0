//! Single records: compare-and-set, claims, refusals.
use crate::harness::{Other, Place, Thing, delete, insert, update};
use pilvi_store::{Error, Query};

pub async fn insert_get_update_delete(place: Place) {
    let store = place.open().await;
    assert_eq!(store.get::<Thing>("a").await.unwrap(), None);
    let mut thing = insert(&store, &Thing::sized("a", 1)).await.unwrap();
    assert_eq!((thing.rev, thing.size, thing.created_us), (1, Some(1), thing.updated_us));
    assert_eq!(store.get::<Thing>("a").await.unwrap().as_ref(), Some(&thing));
    assert_eq!(insert(&store, &Thing::new("a")).await.unwrap_err(), Error::Exists { kind: "thing", id: "a".into() });
    thing.size = Some(2);
    let updated = update(&store, &thing).await.unwrap();
    assert_eq!((updated.rev, updated.size, updated.created_us), (2, Some(2), thing.created_us));
    assert!(updated.updated_us > thing.updated_us);
    assert_eq!(store.get::<Thing>("a").await.unwrap().as_ref(), Some(&updated));
    assert_eq!(store.list::<Thing>(Query::all().eq("size", 2)).await.unwrap(), vec![updated]);
    assert!(store.list::<Thing>(Query::all().eq("size", 1)).await.unwrap().is_empty());
    assert!(delete::<Thing>(&store, "a").await.unwrap());
    assert!(!delete::<Thing>(&store, "a").await.unwrap());
    assert_eq!(store.get::<Thing>("a").await.unwrap(), None);
}

pub async fn a_stale_revision_is_refused(place: Place) {
    let store = place.open().await;
    let conflict = Error::Conflict { kind: "thing", id: "a".into() };
    let first = insert(&store, &Thing::new("a")).await.unwrap();
    let second = update(&store, &first).await.unwrap();
    assert_eq!(update(&store, &first).await.unwrap_err(), conflict);
    let stale = first.clone();
    let refused = store
        .write(move |tx| {
            let stale = stale.clone();
            Box::pin(async move { tx.delete_rev(&stale).await })
        })
        .await;
    assert_eq!(refused.unwrap_err(), conflict);
    assert_eq!(store.get::<Thing>("a").await.unwrap(), Some(second.clone()));
    let fresh = second.clone();
    store
        .write(move |tx| {
            let fresh = fresh.clone();
            Box::pin(async move { tx.delete_rev(&fresh).await })
        })
        .await
        .unwrap();
    assert_eq!(update(&store, &second).await.unwrap_err(), conflict, "an update must not bring it back");
    assert_eq!(store.get::<Thing>("a").await.unwrap(), None);
}

pub async fn a_recreated_record_is_another(place: Place) {
    let store = place.open().await;
    let first = insert(&store, &Thing::new("a")).await.unwrap();
    delete::<Thing>(&store, "a").await.unwrap();
    let second = insert(&store, &Thing::new("a")).await.unwrap();
    assert_eq!(first.rev, second.rev);
    assert!(matches!(update(&store, &first).await, Err(Error::Conflict { .. })));
}

pub async fn claims_are_exclusive_and_follow_the_record(place: Place) {
    let store = place.open().await;
    let claimed = |scope: &str, value: &str| Error::Claimed { scope: scope.into(), value: value.into() };
    let mut a = insert(&store, &Thing::claiming("a", "net1", "10.0.0.5")).await.unwrap();
    assert_eq!(
        insert(&store, &Thing::claiming("b", "net1", "10.0.0.5")).await.unwrap_err(),
        claimed("net1", "10.0.0.5")
    );
    let b = insert(&store, &Thing::claiming("b", "net2", "10.0.0.5")).await.unwrap();
    a.claims.push(("net2".into(), "10.0.0.5".into()));
    assert_eq!(update(&store, &a).await.unwrap_err(), claimed("net2", "10.0.0.5"));
    // A moves on: its old address is free, its new one is not.
    a.claims = vec![("net1".into(), "10.0.0.6".into()), ("net1".into(), "10.0.0.6".into())];
    update(&store, &a).await.unwrap();
    insert(&store, &Thing::claiming("c", "net1", "10.0.0.5")).await.unwrap();
    assert_eq!(
        insert(&store, &Thing::claiming("d", "net1", "10.0.0.6")).await.unwrap_err(),
        claimed("net1", "10.0.0.6")
    );
    // Deletion frees.
    delete::<Thing>(&store, &b.id).await.unwrap();
    insert(&store, &Thing::claiming("d", "net2", "10.0.0.5")).await.unwrap();
}

pub async fn a_refused_call_leaves_nothing(place: Place) {
    let store = place.open().await;
    insert(&store, &Thing::claiming("a", "s", "2")).await.unwrap();
    // Refusals are handled inside, and the transaction goes on.
    let kept = store.write(|tx| {
        Box::pin(async move {
            let two = Thing { claims: vec![("s".into(), "1".into()), ("s".into(), "2".into())], ..Thing::new("b") };
            assert!(matches!(tx.insert(&two).await, Err(Error::Claimed { .. })));
            assert!(tx.get::<Thing>("b").await?.is_none());
            assert!(matches!(tx.insert(&Thing::claiming("a", "s", "3")).await, Err(Error::Exists { .. })));
            let mut stale = tx.get::<Thing>("a").await?.unwrap();
            stale.rev = 77;
            stale.claims = vec![("s".into(), "4".into())];
            assert!(matches!(tx.update(&stale).await, Err(Error::Conflict { .. })));
            tx.insert(&Other { id: "o".into(), count: 1 }).await
        })
    });
    kept.await.unwrap();
    for free in ["1", "3", "4"] {
        insert(&store, &Thing::claiming(&format!("free{free}"), "s", free)).await.unwrap();
    }
    assert!(matches!(insert(&store, &Thing::claiming("z", "s", "2")).await, Err(Error::Claimed { .. })));
    assert_eq!(store.count::<Other>(Query::all()).await.unwrap(), 1);
    let changes = store.changes(0, 100).await.unwrap();
    assert_eq!(changes.len(), 5, "no change is told of a refused call: {changes:?}");
}

pub async fn records_that_cannot_be_stored_are_refused(place: Place) {
    let store = place.open().await;
    let long = "x".repeat(2001);
    let bad = [
        Thing::new(""),
        Thing::new(&long),
        Thing { name: Some(long.clone()), ..Thing::new("a") },
        Thing { user: Some(long.clone()), ..Thing::new("a") },
        Thing { project: Some("p".repeat(1500)), name: Some("n".repeat(1500)), ..Thing::new("a") },
        Thing::claiming("a", &long, &long),
    ];
    for thing in &bad {
        assert!(matches!(insert(&store, thing).await, Err(Error::Invalid { kind: "thing", .. })));
    }
    // The longest that is allowed fits into the indexes of every engine.
    let noise: String =
        (0..2000_u32).map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 26)).collect();
    let longest = Thing {
        name: Some(noise.clone()),
        project: Some(noise[..600].to_owned()),
        user: Some(noise.clone()),
        state: Some(noise.clone()),
        claims: vec![(noise[..600].to_owned(), noise.clone())],
        ..Thing::new(&noise)
    };
    insert(&store, &longest).await.unwrap();
    assert_eq!(store.get::<Thing>(&noise).await.unwrap().unwrap().record, longest);
}
