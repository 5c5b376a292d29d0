//! Calls through the whole kit on a store in memory: one file per subject.
mod address;
mod bgp;
mod bindings;
mod conntrack_helper;
mod delegation;
mod dns;
mod extras;
mod firewalls;
mod flow_log;
mod forwarding;
mod host;
mod hosting;
mod leak;
mod local_ip;
mod metering;
mod names;
mod ndp_proxy;
mod neighbours;
mod network;
mod outside;
mod private;
mod promises;
mod qos;
mod rbac;
mod security_group;
mod segments;
mod spare;
mod taps;
mod templates;
mod trunk;
mod vlan;
mod ways_out;

use crate::{Network, kinds, service};
use pilvi_kit::{
    Caller,
    service::Mounting,
    testing::{App, caller},
};
use pilvi_store::Store;
use serde_json::{Value, json};
use std::sync::Arc;

/// The service, mounted, and callers of two projects.
pub struct Rig {
    pub app: App,
    pub svc: Arc<Network>,
    pub admin: Caller,
    pub alice: Caller,
    pub bob: Caller,
    pub reader: Caller,
    pub manager: Caller,
}

impl Rig {
    pub async fn new() -> Self {
        let mut all = kinds();
        all.push(pilvi_store::KindSpec::of::<pilvi_kit::quota::QuotaOverride>());
        let store = Store::open("sqlite::memory:", all).await.unwrap();
        let svc = Network::new(store);
        let state = svc.clone();
        let app = App::new(move |authenticator| {
            service().mount(state, Mounting { authenticator, policy_file: None }).unwrap()
        });
        Rig {
            app,
            svc,
            admin: caller("admin-project", &["admin", "member", "reader"]),
            alice: caller("alice", &["member", "reader"]),
            bob: caller("bob", &["member", "reader"]),
            reader: caller("alice", &["reader"]),
            manager: caller("alice", &["manager", "member", "reader"]),
        }
    }

    /// The call's JSON, after checking its status.
    pub async fn want(&self, status: u16, who: &Caller, method: &str, path: &str, body: Value) -> Value {
        let body = if body.is_null() { None } else { Some(body) };
        let answer = self.app.call(method, path, Some(who), body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        answer.body
    }

    pub async fn get(&self, who: &Caller, path: &str) -> Value {
        self.want(200, who, "GET", path, Value::Null).await
    }

    /// The type of the fault.
    pub async fn refused(&self, status: u16, who: &Caller, method: &str, path: &str, body: Value) -> String {
        let answer = self.want(status, who, method, path, body).await;
        answer["NeutronError"]["type"].as_str().unwrap_or_default().to_owned()
    }

    /// Creates one resource and gives its members.
    pub async fn make(&self, who: &Caller, path: &str, kind: &str, attrs: Value) -> Value {
        self.want(201, who, "POST", path, json!({ kind: attrs })).await[kind].clone()
    }

    pub async fn network(&self, who: &Caller, name: &str) -> String {
        id(&self.make(who, "/v2.0/networks", "network", json!({"name": name})).await)
    }

    pub async fn subnet(&self, who: &Caller, network: &str, cidr: &str) -> String {
        let version = if cidr.contains(':') { 6 } else { 4 };
        id(&self
            .make(who, "/v2.0/subnets", "subnet", json!({"network_id": network, "cidr": cidr, "ip_version": version}))
            .await)
    }

    pub async fn port(&self, who: &Caller, network: &str) -> Value {
        self.make(who, "/v2.0/ports", "port", json!({"network_id": network})).await
    }

    /// The external network with 172.24.4.0/24.
    pub async fn external(&self) -> String {
        let attrs = json!({"name": "public", "router:external": true, "provider:network_type": "flat", "provider:physical_network": "external"});
        let network = id(&self.make(&self.admin, "/v2.0/networks", "network", attrs).await);
        self.subnet(&self.admin, &network, "172.24.4.0/24").await;
        network
    }
}

pub fn id(resource: &Value) -> String {
    resource["id"].as_str().unwrap().to_owned()
}

pub fn ids(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(id).collect()
}
