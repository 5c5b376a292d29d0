//! Who may see and send what: security groups and what their rules name, logs of what they decide, scopes, policies of sharing.
use crate::{
    address_group::model::AddressGroup,
    address_scope::model::AddressScope,
    default_rule::model::DefaultRule,
    flow_log::model::FlowLog,
    rbac::model::{RbacPolicy, label},
    security_group::model::{SecurityGroup, SecurityGroupRule},
};
use pilvi_store::{Claim, Column, Record, Value};

impl Record for SecurityGroup {
    const KIND: &'static str = "security_group";
    const COLUMNS: &'static [Column] = &[Column::int("open")];
    named!();
    fn columns(&self) -> Vec<Value> {
        vec![self.shared.into()]
    }
    const LABELLED: bool = true;
    fn labels(&self) -> Vec<String> {
        self.shared_with.iter().map(|p| label(p)).collect()
    }
    fn claims(&self) -> Vec<Claim> {
        if !self.is_default {
            return Vec::new();
        }
        vec![Claim { scope: "security_group:default".into(), value: self.project_id.clone() }]
    }
}

impl Record for SecurityGroupRule {
    const KIND: &'static str = "security_group_rule";
    const COLUMNS: &'static [Column] =
        &[Column::text("security_group_id"), Column::text("remote_group_id"), Column::text("remote_address_group_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![
            self.security_group_id.clone().into(),
            self.remote_group_id.clone().unwrap_or_default().into(),
            self.remote_address_group_id.clone().unwrap_or_default().into(),
        ]
    }
}

impl Record for DefaultRule {
    const KIND: &'static str = "default_security_group_rule";
    fn id(&self) -> &str {
        &self.id
    }
}

impl Record for AddressScope {
    const KIND: &'static str = "address_scope";
    const COLUMNS: &'static [Column] = &[Column::int("open")];
    named!();
    fn columns(&self) -> Vec<Value> {
        vec![self.shared.into()]
    }
    const LABELLED: bool = true;
    fn labels(&self) -> Vec<String> {
        self.shared_with.iter().map(|p| label(p)).collect()
    }
}

impl Record for AddressGroup {
    const KIND: &'static str = "address_group";
    const COLUMNS: &'static [Column] = &[Column::int("open")];
    named!();
    fn columns(&self) -> Vec<Value> {
        vec![self.shared.into()]
    }
    const LABELLED: bool = true;
    fn labels(&self) -> Vec<String> {
        self.shared_with.iter().map(|p| label(p)).collect()
    }
}

impl Record for RbacPolicy {
    const KIND: &'static str = "rbac_policy";
    const COLUMNS: &'static [Column] = &[Column::text("object_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.object_id.clone().into()]
    }
    fn claims(&self) -> Vec<Claim> {
        let scope = format!("rbac:{:?}:{}", self.action, self.object_id);
        vec![Claim { scope, value: self.target_tenant.clone() }]
    }
}

impl Record for FlowLog {
    const KIND: &'static str = "flow_log";
    const COLUMNS: &'static [Column] = &[Column::text("resource_id"), Column::text("target_id")];
    named!();
    fn columns(&self) -> Vec<Value> {
        [&self.resource_id, &self.target_id].map(|id| id.clone().unwrap_or_default().into()).to_vec()
    }
}
