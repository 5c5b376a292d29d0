//! Text that has broken other stores.
use crate::harness::{Place, Thing, insert};
use pilvi_store::{Error, Query};

const HARD: &[&str] = &[
    "'; DROP TABLE thing; --",
    "\"quoted\"",
    "back\\slash",
    "$1 ?1 :x @y",
    "%_",
    "new\nline\r\ttab",
    "\u{feff}bom",
    "e\u{301} is not é",
    "日本語 عربى 😀\u{10ffff}",
    "\u{1}\u{7f}\u{80}",
    " spaces ",
];

pub async fn any_text_survives(place: Place) {
    let store = place.open().await;
    for hard in HARD {
        let thing = Thing {
            project: Some((*hard).into()),
            name: Some((*hard).into()),
            state: Some((*hard).into()),
            user: Some((*hard).into()),
            note: (*hard).into(),
            ..Thing::claiming(hard, hard, hard)
        };
        insert(&store, &thing).await.unwrap();
        assert_eq!(store.get::<Thing>(hard).await.unwrap().unwrap().record, thing);
        for query in [
            Query::all().name(*hard).project(*hard).state(*hard).eq("user", *hard),
            Query::all().one_of("user", [*hard, "other"]),
            Query::all().like_prefix("name", *hard),
        ] {
            assert_eq!(store.list::<Thing>(query).await.unwrap()[0].record, thing);
        }
        assert!(matches!(insert(&store, &Thing::claiming("x", hard, hard)).await, Err(Error::Claimed { .. })));
    }
    assert_eq!(store.count::<Thing>(Query::all()).await.unwrap(), HARD.len() as u64);
    assert_eq!(store.count::<Thing>(Query::all().like_prefix("name", "%")).await.unwrap(), 1);
    let ids: Vec<String> = store.changes(0, 100).await.unwrap().into_iter().map(|c| c.id).collect();
    assert_eq!(ids, HARD);
}

pub async fn nul_is_refused_in_columns_only(place: Place) {
    let store = place.open().await;
    let bad = "a\0b";
    for thing in [
        Thing::new(bad),
        Thing { name: Some(bad.into()), ..Thing::new("a") },
        Thing { project: Some(bad.into()), ..Thing::new("a") },
        Thing { user: Some(bad.into()), ..Thing::new("a") },
        Thing::claiming("a", "s", bad),
        Thing::claiming("a", bad, "v"),
    ] {
        assert!(matches!(insert(&store, &thing).await, Err(Error::Invalid { .. })));
    }
    let thing = Thing { note: bad.into(), ..Thing::new("a") };
    insert(&store, &thing).await.unwrap();
    assert_eq!(store.get::<Thing>("a").await.unwrap().unwrap().note, bad);
    assert_eq!(store.get::<Thing>(bad).await.unwrap(), None);
    for (query, found) in [
        (Query::all().name(bad), 0),
        (Query::all().one_of("id", [bad, "a"]), 1),
        (Query::all().ne("name", bad), 1),
        (Query::all().like_prefix("id", bad), 0),
    ] {
        assert_eq!(store.count::<Thing>(query).await.unwrap(), found);
    }
    let gone = store.write(|tx| Box::pin(async move { tx.delete::<Thing>("a\0b").await }));
    assert!(!gone.await.unwrap());
}
