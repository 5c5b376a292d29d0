//! Calls through the whole kit on a store in memory, with the services that compute calls: one file per subject.
mod cold;
mod image;
mod interface;
mod least;
mod migration;
mod old_apis;
mod program;
mod segment;
mod volume;

use crate::{Compute, Config, service, tables::Server};
use pilvi_fleet::{Authority, Fleet};
use pilvi_image::Image;
use pilvi_kit::{
    Caller, Ctx,
    service::Mounting,
    testing::{App, caller},
};
use pilvi_network::{Network, attribute::Verb};
use pilvi_placement::Placement;
use pilvi_store::{KindSpec, Store};
use serde_json::{Value, json};
use std::sync::Arc;

/// The service, mounted, and callers of two projects.
pub struct Rig {
    pub app: App,
    pub svc: Arc<Compute>,
    pub alice: Caller,
    pub bob: Caller,
    pub reader: Caller,
    _folder: tempfile::TempDir,
}

impl Rig {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut kinds = crate::kinds();
        kinds.extend(pilvi_network::kinds());
        kinds.extend(pilvi_image::kinds());
        kinds.extend(pilvi_placement::kinds());
        kinds.extend(pilvi_volume::kinds());
        kinds.extend(pilvi_fleet::kinds());
        kinds.push(KindSpec::of::<pilvi_kit::quota::QuotaOverride>());
        let store = Store::open("sqlite::memory:", kinds).await.unwrap();
        let authority = Authority::open(&folder.path().join("pki")).unwrap();
        let fleet = Fleet::new(store.clone(), authority, pilvi_fleet::Config::default());
        let images = Image::new(store.clone(), pilvi_image::Config::new(folder.path().join("images"))).unwrap();
        let placement = Placement::new(store.clone());
        let volumes = pilvi_volume::Volumes::new(
            store.clone(),
            fleet.clone(),
            images.clone(),
            placement.clone(),
            pilvi_volume::Config::default(),
        );
        volumes.prepare().await.unwrap();
        let svc = Compute::new(
            store.clone(),
            fleet,
            Network::new(store.clone()),
            images,
            placement,
            volumes,
            Config::default(),
        );
        let state = svc.clone();
        let app = App::new(move |authenticator| {
            service().mount(state, Mounting { authenticator, policy_file: None }).unwrap()
        });
        let member = |project: &str| caller(project, &["member", "reader"]);
        let reader = caller("alice", &["reader"]);
        Rig { app, svc, alice: member("alice"), bob: member("bob"), reader, _folder: folder }
    }

    /// The call's JSON at a microversion, after checking its status.
    pub async fn at(&self, version: &str, status: u16, who: &Caller, call: &str, body: Value) -> Value {
        let (method, path) = call.split_once(' ').unwrap();
        let body = if body.is_null() { None } else { Some(body) };
        let version = format!("compute {version}");
        let headers = [("openstack-api-version", version.as_str())];
        let answer = self.app.call_with(method, path, Some(who), body, &headers).await;
        assert_eq!(answer.status, status, "{call}: {}", answer.body);
        answer.body
    }

    /// The same at 2.1.
    pub async fn want(&self, status: u16, who: &Caller, call: &str, body: Value) -> Value {
        self.at("2.1", status, who, call, body).await
    }

    /// A network of the caller with one subnet; gives its id.
    pub async fn network(&self, who: &Caller, cidr: &str, more: Value) -> String {
        let mut member = json!({"name": format!("net-{cidr}")});
        member.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let project = who.project_id().unwrap().to_owned();
        let parse = |resource: &pilvi_network::attribute::Resource, member: &Value| {
            resource.parse(member, Verb::Create, &project).unwrap()
        };
        let network = parse(&pilvi_network::network::api::NETWORK, &member);
        let ctx = ctx(who);
        let (c, n) = (ctx.clone(), network);
        let made = self
            .svc
            .store
            .write(move |tx| {
                let (ctx, attrs) = (c.clone(), n.clone());
                Box::pin(async move { pilvi_network::network::ops::create_in(tx, &ctx, &attrs).await })
            })
            .await
            .unwrap();
        let member = json!({"network_id": made.record.id, "cidr": cidr, "ip_version": 4});
        let subnet = parse(&pilvi_network::subnet::api::SUBNET, &member);
        self.svc
            .store
            .write(move |tx| {
                let (ctx, attrs) = (ctx.clone(), subnet.clone());
                Box::pin(async move { pilvi_network::subnet::ops::create_in(tx, &ctx, &attrs).await })
            })
            .await
            .unwrap();
        made.record.id
    }

    /// A server of the caller that runs on a host, with no interface yet.
    pub async fn server(&self, who: &Caller) -> String {
        let mut server = crate::server::model::tests::server();
        server.id = pilvi_kit::id::new();
        server.project_id = who.project_id().unwrap().to_owned();
        (server.vm_state, server.task_state) = (crate::server::model::VmState::Active, None);
        let id = server.id.clone();
        self.svc
            .store
            .write(move |tx| {
                let server = server.clone();
                Box::pin(async move { Ok::<_, pilvi_kit::Fault>(tx.insert(&server).await?) })
            })
            .await
            .unwrap();
        id
    }

    pub async fn record(&self, id: &str) -> Server {
        self.svc.store.get::<Server>(id).await.unwrap().unwrap().record
    }
}

/// The caller as operations see one.
pub fn ctx(who: &Caller) -> Ctx {
    Ctx { caller: Arc::new(who.clone()), ..Ctx::internal() }
}
