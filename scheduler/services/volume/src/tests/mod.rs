//! Calls through the whole kit on a store in memory, with a test that plays the host: one file per subject.
mod actions;
mod catalogue;
mod life;
mod people;
mod seam;

use crate::{
    Config, Volumes, service,
    tables::{Seen, SeenSnapshot, Snapshot, Volume},
};
use pilvi_fleet::{Authority, Fleet, Node};
use pilvi_image::Image;
use pilvi_kit::{
    Caller, Ctx,
    service::Mounting,
    testing::{App, caller},
};
use pilvi_placement::{
    Placement,
    provider::{
        model::Inventory,
        ops::{Wanted, ensure_in},
    },
};
use pilvi_reconcile::Reconcile;
use pilvi_store::{KindSpec, Query, Store, Stored};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// The service, mounted, on one host with some room, and callers of two projects.
pub struct Rig {
    pub app: App,
    pub svc: Arc<Volumes>,
    pub admin: Caller,
    pub alice: Caller,
    pub bob: Caller,
    pub reader: Caller,
    _folder: tempfile::TempDir,
}

impl Rig {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut kinds = crate::kinds();
        for more in [pilvi_image::kinds(), pilvi_placement::kinds(), pilvi_fleet::kinds()] {
            kinds.extend(more);
        }
        kinds.push(KindSpec::of::<pilvi_kit::quota::QuotaOverride>());
        let store = Store::open("sqlite::memory:", kinds).await.unwrap();
        let authority = Authority::open(&folder.path().join("pki")).unwrap();
        let svc = Volumes::new(
            store.clone(),
            Fleet::new(store.clone(), authority, pilvi_fleet::Config::default()),
            Image::new(store.clone(), pilvi_image::Config::new(folder.path().join("images"))).unwrap(),
            Placement::new(store),
            Config::default(),
        );
        svc.prepare().await.unwrap();
        let state = svc.clone();
        let app = App::new(move |authenticator| {
            service().mount(state, Mounting { authenticator, policy_file: None }).unwrap().literally()
        });
        let member = |project: &str| caller(project, &["member", "reader"]);
        let rig = Rig {
            app,
            svc,
            admin: caller("ops", &["admin", "manager", "member", "reader"]),
            alice: member("alice"),
            bob: member("bob"),
            reader: caller("alice", &["reader"]),
            _folder: folder,
        };
        rig.host("h1", 100).await;
        rig
    }

    /// A host that is up, with so much disk.
    pub async fn host(&self, name: &str, disk_gib: i64) {
        let node: Node = serde_json::from_value(json!({
            "id": pilvi_kit::id::new(), "name": name, "state": "up", "fingerprint": "", "agent_version": "1",
            "boot_id": "", "last_seen_us": 1, "disabled": false, "disabled_reason": null, "forced_down": false,
            "inventory": {"vcpus": 1, "memory_mib": 1, "disk_gib": disk_gib, "cpu_model": "", "cpu_arch": "",
                "traits": [], "runtimes": [], "vtep": "", "hypervisor_version": "", "host_ip": ""},
        }))
        .unwrap();
        let stock = Inventory {
            total: disk_gib,
            reserved: 0,
            min_unit: 1,
            max_unit: disk_gib,
            step_size: 1,
            allocation_ratio: 1.0,
        };
        let offer = Wanted {
            uuid: node.id.clone(),
            name: name.into(),
            inventories: BTreeMap::from([("DISK_GB".into(), stock)]),
            traits: vec![],
        };
        self.svc
            .write((node, offer), |tx, (node, offer)| {
                Box::pin(async move {
                    tx.insert(&node).await?;
                    ensure_in(tx, offer).await?;
                    Ok(())
                })
            })
            .await
            .unwrap();
    }

    /// The call's JSON at a microversion, after checking its status.
    pub async fn at(&self, version: &str, status: u16, who: &Caller, call: &str, body: Value) -> Value {
        let (method, path) = call.split_once(' ').unwrap();
        let body = if body.is_null() { None } else { Some(body) };
        let version = format!("volume {version}");
        let headers = [("openstack-api-version", version.as_str())];
        let answer = self.app.call_with(method, path, Some(who), body, &headers).await;
        assert_eq!(answer.status, status, "{call}: {}", answer.body);
        answer.body
    }

    /// The same at the newest version.
    pub async fn want(&self, status: u16, who: &Caller, call: &str, body: Value) -> Value {
        self.at("3.71", status, who, call, body).await
    }

    /// The reconciler's pass over a volume.
    pub async fn pass(&self, id: &str) {
        crate::VolumePlaces::new(self.svc.clone()).reconcile(id).await.unwrap();
    }

    /// The host has done all that is wanted of a volume.
    pub async fn host_does(&self, id: &str) {
        let seen = self.done(id).await;
        self.host_says(id, seen).await;
    }

    pub async fn done(&self, id: &str) -> Seen {
        let volume = self.record(id).await;
        let snapshots = self.svc.store.list::<Snapshot>(Query::all().eq("volume_id", id)).await.unwrap();
        Seen {
            generation: volume.wanted.generation,
            settled: true,
            bytes: volume.wanted.size_gib << 30,
            reverts: volume.wanted.reverts,
            reimages: volume.wanted.reimages,
            snapshots: snapshots
                .iter()
                .filter(|s| !s.delete)
                .map(|s| SeenSnapshot { id: s.record.id.clone(), error: String::new(), bytes: 1 })
                .collect(),
            ..Seen::default()
        }
    }

    pub async fn host_says(&self, id: &str, seen: Seen) {
        let host = self.record(id).await.record.host.unwrap();
        self.svc.observe(&host, id, seen).await.unwrap();
    }

    pub async fn record(&self, id: &str) -> Stored<Volume> {
        self.svc.store.get::<Volume>(id).await.unwrap().unwrap()
    }

    /// A volume of the caller that its host has made.
    pub async fn volume(&self, who: &Caller, members: Value) -> String {
        let mut volume = json!({"size": 1});
        volume.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let made = self.want(202, who, "POST /v3/volumes", json!({"volume": volume})).await;
        let id = made["volume"]["id"].as_str().unwrap().to_owned();
        self.pass(&id).await;
        self.host_does(&id).await;
        id
    }

    /// GiB of a host that are taken.
    pub async fn taken(&self, host: &str) -> i64 {
        let node = self.svc.fleet.node_by_name(host).await.unwrap().unwrap();
        let held = pilvi_placement::allocation::ops::of_provider(&self.svc.store, &node.record.id).await.unwrap();
        held.iter().map(|a| a.record.resources.get("DISK_GB").copied().unwrap_or(0)).sum()
    }
}

/// The caller as operations see one.
pub fn ctx(who: &Caller) -> Ctx {
    Ctx { caller: Arc::new(who.clone()), ..Ctx::internal() }
}
