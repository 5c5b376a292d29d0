//! Opening: migrations, new columns, old documents, newer stores.
use crate::harness::{Engine, Place, Thing, insert};
use pilvi_store::{Claim, Column, Error, KindSpec, Query, Record, Value};
use serde::{Deserialize, Serialize};

pub async fn many_may_open_at_once(place: Place) {
    let opened = futures::future::join_all((0..6).map(|_| place.open())).await;
    for (n, store) in opened.iter().enumerate() {
        insert(store, &Thing::new(&n.to_string())).await.unwrap();
    }
    let expected = if place.is_shared() { 6 } else { 1 };
    assert_eq!(opened[0].count::<Thing>(Query::all()).await.unwrap(), expected);
}

/// PostgreSQL serves many; a file serves one, while other programs (as `pilvi node`) may still use its records.
pub async fn a_file_serves_one_scheduler(place: Place) {
    let store = place.open().await;
    let held = store.sole().unwrap();
    if !place.is_shared() {
        return;
    }
    let other = place.open().await;
    let second = other.sole();
    match place.engine {
        Engine::File => {
            assert!(matches!(second, Err(Error::InUse { .. })), "{second:?}");
            drop(held);
            other.sole().unwrap();
        }
        _ => drop(second.unwrap()),
    }
    insert(&other, &Thing::new("x")).await.unwrap();
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Disk {
    id: String,
    gib: i64,
    host: String,
}
impl Record for Disk {
    const KIND: &'static str = "disk";
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> Option<&str> {
        Some(&self.host)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct DiskWithColumns(Disk);
impl Record for DiskWithColumns {
    const KIND: &'static str = "disk";
    const COLUMNS: &'static [Column] = &[Column::int("gib"), Column::text("host")];
    fn id(&self) -> &str {
        &self.0.id
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.0.gib.into(), self.0.host.clone().into()]
    }
}

/// `gib` has become text, `host` is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct DiskWithText(Disk);
impl Record for DiskWithText {
    const KIND: &'static str = "disk";
    const COLUMNS: &'static [Column] = &[Column::text("gib")];
    fn id(&self) -> &str {
        &self.0.id
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.0.gib.to_string().into()]
    }
}

pub async fn a_new_column_is_filled(place: Place) {
    if !place.is_shared() {
        return;
    }
    // More than one batch of the migration.
    let count = 1203;
    let store = place.open_with(vec![KindSpec::of::<Disk>()]).await.unwrap();
    let filled = store.write(move |tx| {
        Box::pin(async move {
            for n in 0..count {
                tx.insert(&Disk { id: format!("{n}"), gib: n % 10, host: format!("h{}", n % 3) }).await?;
            }
            Ok::<(), Error>(())
        })
    });
    filled.await.unwrap();
    let head = store.head().await.unwrap();
    store.close().await;
    let store = place.open_with(vec![KindSpec::of::<DiskWithColumns>()]).await.unwrap();
    assert_eq!(store.count::<DiskWithColumns>(Query::all().eq("gib", 3)).await.unwrap(), 120);
    assert_eq!(store.count::<DiskWithColumns>(Query::all().eq("host", "h1").lt("gib", 100)).await.unwrap(), 401);
    assert_eq!(store.get::<DiskWithColumns>("7").await.unwrap().unwrap().rev, 1);
    assert_eq!(store.head().await.unwrap(), head, "nothing changed for readers");
    store.close().await;
    let store = place.open_with(vec![KindSpec::of::<DiskWithText>()]).await.unwrap();
    assert_eq!(store.count::<DiskWithText>(Query::all().eq("gib", "3")).await.unwrap(), 120);
    // Back again: it is filled again.
    let store = place.open_with(vec![KindSpec::of::<DiskWithColumns>()]).await.unwrap();
    assert_eq!(store.count::<DiskWithColumns>(Query::all().eq("host", "h1")).await.unwrap(), 401);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct NewDisk {
    id: String,
    bytes: i64,
}
impl Record for NewDisk {
    const KIND: &'static str = "disk";
    const VERSION: u32 = 3;
    const COLUMNS: &'static [Column] = &[Column::int("bytes")];
    fn id(&self) -> &str {
        &self.id
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.bytes.into()]
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim::new("disk", &self.id)]
    }
    fn upgrade(version: u32, mut doc: serde_json::Value) -> Result<serde_json::Value, String> {
        if version != 1 {
            return Err(format!("version {version} never was"));
        }
        let gib = doc["gib"].as_i64().ok_or("no gib")?;
        doc["bytes"] = (gib << 30).into();
        Ok(doc)
    }
}

pub async fn old_documents_are_upgraded(place: Place) {
    if !place.is_shared() {
        return;
    }
    let old = place.open_with(vec![KindSpec::of::<Disk>()]).await.unwrap();
    insert(&old, &Disk { id: "d".into(), gib: 2, host: "h".into() }).await.unwrap();
    let new = place.open_with(vec![KindSpec::of::<NewDisk>()]).await.unwrap();
    let disk = new.get::<NewDisk>("d").await.unwrap().unwrap();
    assert_eq!(disk.record, NewDisk { id: "d".into(), bytes: 2 << 30 });
    assert_eq!(new.count::<NewDisk>(Query::all().eq("bytes", 2_i64 << 30)).await.unwrap(), 1);
    assert!(matches!(insert(&new, &Thing::claiming("t", "disk", "d")).await, Err(Error::UnknownKind { .. })));
    // A process of the old version that still runs cannot read the document, and says why.
    assert!(matches!(old.get::<Disk>("d").await, Err(Error::NewerStore { .. })));
}

pub async fn a_newer_store_is_refused(place: Place) {
    if !place.is_shared() {
        return;
    }
    let new = place.open_with(vec![KindSpec::of::<NewDisk>()]).await.unwrap();
    insert(&new, &NewDisk { id: "d".into(), bytes: 1 }).await.unwrap();
    let refused = place.open_with(vec![KindSpec::of::<Disk>()]).await;
    assert!(matches!(refused, Err(Error::NewerStore { .. })));
    let still = place.open_with(vec![KindSpec::of::<NewDisk>()]).await.unwrap();
    assert_eq!(still.count::<NewDisk>(Query::all().eq("bytes", 1)).await.unwrap(), 1);
}

macro_rules! misdeclared {
    ($name:ident, $kind:expr, $columns:expr) => {
        #[derive(Clone, Serialize, Deserialize)]
        struct $name;
        impl Record for $name {
            const KIND: &'static str = $kind;
            const COLUMNS: &'static [Column] = $columns;
            fn id(&self) -> &str {
                "x"
            }
        }
    };
}
misdeclared!(Quoted, "a\"b", &[]);
misdeclared!(Reserved, "store_claim", &[]);
misdeclared!(BuiltIn, "k", &[Column::text("name")]);
misdeclared!(Twice, "k", &[Column::text("a"), Column::int("a")]);
misdeclared!(Upper, "k", &[Column::text("A")]);
misdeclared!(Missing, "k", &[Column::text("a")]);

pub async fn kinds_must_be_declared_properly(place: Place) {
    for spec in [
        KindSpec::of::<Quoted>(),
        KindSpec::of::<Reserved>(),
        KindSpec::of::<BuiltIn>(),
        KindSpec::of::<Twice>(),
        KindSpec::of::<Upper>(),
    ] {
        assert!(matches!(place.open_with(vec![spec]).await, Err(Error::Schema { .. })));
    }
    let twice = vec![KindSpec::of::<Disk>(), KindSpec::of::<NewDisk>()];
    assert!(matches!(place.open_with(twice).await, Err(Error::Schema { .. })));
    let store = place.open_with(vec![KindSpec::of::<Missing>()]).await.unwrap();
    assert!(matches!(insert(&store, &Missing).await, Err(Error::Invalid { .. })));
}
