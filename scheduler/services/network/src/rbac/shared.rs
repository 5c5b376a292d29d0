//! What can be opened to others: one implementation for each kind of thing, and who uses it by which policy.
use super::model::Action;
use crate::{
    address_group::model::AddressGroup,
    address_scope::{self, model::AddressScope},
    fault,
    floating_ip::model::FloatingIp,
    network::model::VirtualNetwork,
    port::model::{FLOATING, Port, ROUTER_GATEWAY},
    qos::{self, model::QosPolicy},
    rbac::model::EVERYONE,
    router::model::Router,
    security_group::model::{SecurityGroup, SecurityGroupRule},
    subnet::model::Subnet,
    subnet_pool::model::SubnetPool,
    tables::find,
    verbs::Api,
};
use pilvi_kit::Fault;
use pilvi_store::{Query, Tx};
use std::future::Future;

/// A record that policies can open.
pub trait Shareable: Api {
    /// `object_type` of its policies.
    const TYPE: &'static str;
    const ACTIONS: &'static [Action] = &[Action::Shared];

    fn owner(&self) -> &str;
    /// Takes over whom the policies of one action name now.
    fn set(&mut self, action: Action, targets: &[String]);
    /// Projects that use it, owner or not.
    fn users_in(&self, tx: &mut Tx, action: Action) -> impl Future<Output = Result<Vec<String>, Fault>> + Send;
    /// May it be opened to `target` at all?
    fn check_in(&self, _tx: &mut Tx, _target: &str) -> impl Future<Output = Result<(), Fault>> + Send {
        std::future::ready(Ok(()))
    }
    /// May the wildcard of this action go?
    fn keeps_wildcard(&self, _action: Action) -> bool {
        false
    }
}

/// The wildcard as a flag, and the others.
fn split(targets: &[String]) -> (bool, Vec<String>) {
    let all = targets.iter().any(|t| t == EVERYONE);
    (all, targets.iter().filter(|t| *t != EVERYONE).cloned().collect())
}

impl Shareable for VirtualNetwork {
    const TYPE: &'static str = "network";
    const ACTIONS: &'static [Action] = &[Action::Shared, Action::External];

    fn owner(&self) -> &str {
        &self.project_id
    }
    fn set(&mut self, action: Action, targets: &[String]) {
        match action {
            Action::Shared => (self.shared, self.shared_with) = split(targets),
            Action::External => {
                self.external = !targets.is_empty();
                self.external_for = targets.to_vec();
            }
        }
    }
    async fn users_in(&self, tx: &mut Tx, action: Action) -> Result<Vec<String>, Fault> {
        if action == Action::Shared {
            let ports = tx.list::<Port>(find::on_network(&self.id)).await?;
            let by_address = |p: &Port| matches!(p.device_owner.as_str(), ROUTER_GATEWAY | FLOATING);
            return Ok(ports.into_iter().filter(|p| !by_address(p)).map(|p| p.record.project_id).collect());
        }
        let gateways = tx.list::<Port>(find::owned_on([self.id.as_str()], ROUTER_GATEWAY)).await?;
        let ids: Vec<&str> = gateways.iter().map(|p| p.device_id.as_str()).collect();
        let routers = tx.list::<Router>(Query::all().ids(ids)).await?;
        let floating = tx.list::<FloatingIp>(find::of_floating_network(&self.id)).await?;
        let mut users: Vec<String> = routers.into_iter().map(|r| r.record.project_id).collect();
        users.extend(floating.into_iter().map(|f| f.record.project_id));
        Ok(users)
    }
    /// Topologies that are made by themselves lead out over the default external network.
    fn keeps_wildcard(&self, action: Action) -> bool {
        action == Action::External && self.is_default
    }
}

impl Shareable for SubnetPool {
    const TYPE: &'static str = "subnetpool";

    fn owner(&self) -> &str {
        &self.project_id
    }
    fn set(&mut self, _action: Action, targets: &[String]) {
        (self.shared, self.shared_with) = split(targets);
    }
    async fn users_in(&self, tx: &mut Tx, _action: Action) -> Result<Vec<String>, Fault> {
        let subnets = tx.list::<Subnet>(find::from_pool(&self.id)).await?;
        Ok(subnets.into_iter().map(|s| s.record.project_id).collect())
    }
    /// Who gets a pool must have its address scope too.
    async fn check_in(&self, tx: &mut Tx, target: &str) -> Result<(), Fault> {
        let Some(scope) = &self.address_scope_id else { return Ok(()) };
        let scope = tx.get::<AddressScope>(scope).await?.ok_or_else(|| address_scope::ops::missing(scope))?;
        if scope.shared
            || (target != EVERYONE && (scope.project_id == target || scope.shared_with.contains(&target.to_owned())))
        {
            return Ok(());
        }
        Err(fault::invalid(format!(
            "Subnetpool {} cannot be shared with {target}: its address scope {} is not accessible to it",
            self.id, scope.id
        )))
    }
}

impl Shareable for AddressScope {
    const TYPE: &'static str = "address_scope";

    fn owner(&self) -> &str {
        &self.project_id
    }
    fn set(&mut self, _action: Action, targets: &[String]) {
        (self.shared, self.shared_with) = split(targets);
    }
    async fn users_in(&self, tx: &mut Tx, _action: Action) -> Result<Vec<String>, Fault> {
        let pools = tx.list::<SubnetPool>(find::in_scope(&self.id)).await?;
        Ok(pools.into_iter().map(|p| p.record.project_id).collect())
    }
}

impl Shareable for QosPolicy {
    const TYPE: &'static str = "qos_policy";

    fn owner(&self) -> &str {
        &self.project_id
    }
    fn set(&mut self, _action: Action, targets: &[String]) {
        (self.shared, self.shared_with) = split(targets);
    }
    async fn users_in(&self, tx: &mut Tx, _action: Action) -> Result<Vec<String>, Fault> {
        qos::ops::users_in(tx, &self.id).await
    }
}

impl Shareable for AddressGroup {
    const TYPE: &'static str = "address_group";

    fn owner(&self) -> &str {
        &self.project_id
    }
    fn set(&mut self, _action: Action, targets: &[String]) {
        (self.shared, self.shared_with) = split(targets);
    }
    async fn users_in(&self, tx: &mut Tx, _action: Action) -> Result<Vec<String>, Fault> {
        let rules = tx.list::<SecurityGroupRule>(find::with_address_group(&self.id)).await?;
        Ok(rules.into_iter().map(|r| r.record.project_id).collect())
    }
}

impl Shareable for SecurityGroup {
    const TYPE: &'static str = "security_group";

    fn owner(&self) -> &str {
        &self.project_id
    }
    fn set(&mut self, _action: Action, targets: &[String]) {
        (self.shared, self.shared_with) = split(targets);
    }
    /// Ports of the projects that may use it; with a wildcard those are all.
    async fn users_in(&self, tx: &mut Tx, _action: Action) -> Result<Vec<String>, Fault> {
        let mut users = Vec::new();
        if self.shared {
            let ports = tx.list::<Port>(Query::all()).await?;
            users.extend(
                ports.into_iter().filter(|p| p.security_groups.contains(&self.id)).map(|p| p.record.project_id),
            );
            return Ok(users);
        }
        for project in self.shared_with.iter().chain([&self.project_id]) {
            let ports = tx.list::<Port>(find::of_project(project)).await?;
            if ports.iter().any(|p| p.security_groups.contains(&self.id)) {
                users.push(project.clone());
            }
        }
        Ok(users)
    }
}
