//! Ways through and out: routers, floating IPs and what belongs to both, local IPs.
use crate::{
    conntrack_helper::model::ConntrackHelper,
    floating_ip::model::FloatingIp,
    local_ip::model::{Association, LocalIp},
    ndp_proxy::model::NdpProxy,
    port_forwarding::model::PortForwarding,
    router::model::Router,
};
use pilvi_store::{Claim, Column, Record, Value};

impl Record for Router {
    const KIND: &'static str = "router";
    const COLUMNS: &'static [Column] =
        &[Column::text("external_network_id"), Column::text("flavor_id"), Column::text("qos_policy_id")];
    named!();
    fn columns(&self) -> Vec<Value> {
        let outside = self.external_gateway_info.as_ref().map(|g| g.network_id.clone()).unwrap_or_default();
        let policy = self.external_gateway_info.as_ref().and_then(|g| g.qos_policy_id.clone()).unwrap_or_default();
        vec![outside.into(), self.flavor_id.clone().unwrap_or_default().into(), policy.into()]
    }
}

impl Record for FloatingIp {
    const KIND: &'static str = "floating_ip";
    const COLUMNS: &'static [Column] = &[
        Column::text("port_id"),
        Column::text("router_id"),
        Column::text("floating_network_id"),
        Column::text("qos_policy_id"),
    ];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![
            self.port_id.clone().unwrap_or_default().into(),
            self.router_id.clone().unwrap_or_default().into(),
            self.floating_network_id.clone().into(),
            self.qos_policy_id.clone().unwrap_or_default().into(),
        ]
    }
    fn claims(&self) -> Vec<Claim> {
        match (&self.port_id, &self.fixed_ip_address) {
            (Some(port), Some(fixed)) => vec![Claim { scope: format!("floating:{port}"), value: fixed.clone() }],
            _ => Vec::new(),
        }
    }
}

impl Record for PortForwarding {
    const KIND: &'static str = "port_forwarding";
    const COLUMNS: &'static [Column] =
        &[Column::text("floatingip_id"), Column::text("internal_port_id"), Column::text("router_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        [&self.floatingip_id, &self.internal_port_id, &self.router_id].map(|v| v.clone().into()).to_vec()
    }
}

impl Record for LocalIp {
    const KIND: &'static str = "local_ip";
    const COLUMNS: &'static [Column] = &[Column::text("local_port_id")];
    named!();
    fn columns(&self) -> Vec<Value> {
        vec![self.local_port_id.clone().into()]
    }
}

impl Record for Association {
    const KIND: &'static str = "local_ip_association";
    const COLUMNS: &'static [Column] = &[Column::text("local_ip_id"), Column::text("fixed_port_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        [&self.local_ip_id, &self.fixed_port_id].map(|v| v.clone().into()).to_vec()
    }
}

impl Record for NdpProxy {
    const KIND: &'static str = "ndp_proxy";
    const COLUMNS: &'static [Column] = &[Column::text("router_id"), Column::text("port_id")];
    named!();
    fn columns(&self) -> Vec<Value> {
        [&self.router_id, &self.port_id].map(|v| v.clone().into()).to_vec()
    }
}

impl Record for ConntrackHelper {
    const KIND: &'static str = "conntrack_helper";
    const COLUMNS: &'static [Column] = &[Column::text("router_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.router_id.clone().into()]
    }
}
