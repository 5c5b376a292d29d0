//! What compute calls, and the race for the last unit on both engines.
use super::*;
use crate::{
    allocation::ops::Claim,
    candidate::ops::{self as candidates, Request},
    provider::{
        model::Inventory,
        ops::{self as providers, Wanted},
    },
};
use pilvi_kit::Fault;
use pilvi_store::testing::PostgresServer;
use std::collections::BTreeMap;

fn host(uuid: &str, cores: i64) -> Wanted {
    let inventories =
        [("VCPU".to_owned(), Inventory::plain(cores)), ("MEMORY_MB".to_owned(), Inventory::plain(1 << 20))].into();
    Wanted { uuid: uuid.into(), name: format!("host-{uuid}"), inventories, traits: vec!["CUSTOM_RUNTIME_KVM".into()] }
}

async fn ensure(store: &Store, wanted: Wanted) {
    store
        .write(move |tx| {
            let wanted = wanted.clone();
            Box::pin(async move { providers::ensure_in(tx, wanted).await })
        })
        .await
        .unwrap();
}

async fn claim(store: &Store, consumer: String, host: &str, cores: i64) -> Result<(), Fault> {
    let amounts: BTreeMap<String, i64> = [("VCPU".to_owned(), cores), ("MEMORY_MB".to_owned(), 64)].into();
    let claim = Claim {
        consumer,
        project_id: "p".into(),
        user_id: "u".into(),
        consumer_type: "INSTANCE".into(),
        allocations: [(host.to_owned(), amounts)].into(),
    };
    store
        .write(move |tx| {
            let claim = claim.clone();
            Box::pin(async move { allocations::claim_in(tx, claim).await })
        })
        .await
}

#[tokio::test]
async fn compute_finds_claims_and_releases() {
    let b = Bench::new().await;
    let uuid = id::new();
    ensure(&b.store, host(&uuid, 4)).await;
    ensure(&b.store, host(&uuid, 4)).await;
    assert_eq!(providers::get(&b.store, &uuid).await.unwrap().rev, providers::all(&b.store).await.unwrap()[0].rev);
    let request = Request {
        resources: [("VCPU".to_owned(), 3)].into(),
        required: vec!["CUSTOM_RUNTIME_KVM".into()],
        ..Request::default()
    };
    let found = candidates::find(&b.placement, &request).await.unwrap();
    assert_eq!((found.len(), found[0].free_of("VCPU")), (1, 4));
    claim(&b.store, "guest".into(), &uuid, 3).await.unwrap();
    assert!(candidates::find(&b.placement, &request).await.unwrap().is_empty());
    assert_eq!(claim(&b.store, "other".into(), &uuid, 2).await.unwrap_err().code(), 409);
    for _ in 0..2 {
        b.store.write(|tx| Box::pin(async move { allocations::release_in(tx, "guest").await })).await.unwrap();
    }
    assert_eq!(candidates::find(&b.placement, &request).await.unwrap().len(), 1);
}

/// 60 claims race for 10 cores on each of two hosts; consumers come and go.
async fn race(store: Store) {
    let hosts = ["host-a", "host-b"];
    for name in hosts {
        ensure(&store, host(name, 10)).await;
    }
    let tasks: Vec<_> = (0..60)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                let consumer = format!("guest-{i}");
                let won = claim(&store, consumer.clone(), hosts[i % 2], 1).await;
                if won.is_ok() && i % 5 == 0 {
                    store
                        .write(move |tx| {
                            let consumer = consumer.clone();
                            Box::pin(async move { allocations::release_in(tx, &consumer).await })
                        })
                        .await
                        .unwrap();
                }
                won.map_err(|f| f.code())
            })
        })
        .collect();
    for task in tasks {
        assert!(matches!(task.await.unwrap(), Ok(()) | Err(409)));
    }
    for name in hosts {
        let provider = providers::get(&store, name).await.unwrap();
        let rows = allocations::of_provider(&store, name).await.unwrap();
        let sum: i64 = rows.iter().map(|r| r.resources["VCPU"]).sum();
        assert_eq!(sum, provider.used_of("VCPU"), "the counter is the sum");
        assert!(sum <= 10, "{name} gives {sum} of 10");
        for i in 0..10 - sum {
            claim(&store, format!("late-{name}-{i}"), name, 1).await.unwrap();
        }
        assert_eq!(claim(&store, "last".into(), name, 1).await.unwrap_err().code(), 409);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_claims_never_oversubscribe_sqlite() {
    race(Store::open("sqlite::memory:", kinds()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_claims_never_oversubscribe_postgres() {
    let Some(server) = PostgresServer::start().unwrap() else {
        eprintln!("PostgreSQL is not installed: not run");
        return;
    };
    race(Store::open(&server.database().unwrap(), kinds()).await.unwrap()).await;
}
