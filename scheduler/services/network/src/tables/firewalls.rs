//! Firewalls.
use crate::firewall::model::{FirewallGroup, FirewallPolicy, FirewallPort, FirewallRule};
use pilvi_store::{Claim, Column, Record, Value};

impl Record for FirewallGroup {
    const KIND: &'static str = "firewall_group";
    const COLUMNS: &'static [Column] =
        &[Column::int("open"), Column::text("ingress_firewall_policy_id"), Column::text("egress_firewall_policy_id")];
    named!();
    fn columns(&self) -> Vec<Value> {
        let policy = |id: &Option<String>| id.clone().unwrap_or_default().into();
        let (ingress, egress) = (&self.ingress_firewall_policy_id, &self.egress_firewall_policy_id);
        vec![self.shared.into(), policy(ingress), policy(egress)]
    }
    fn claims(&self) -> Vec<Claim> {
        let own =
            self.is_default().then(|| Claim { scope: "firewall_group:default".into(), value: self.project_id.clone() });
        own.into_iter().collect()
    }
}

impl Record for FirewallPolicy {
    const KIND: &'static str = "firewall_policy";
    const COLUMNS: &'static [Column] = &[Column::int("open")];
    named!();
    fn columns(&self) -> Vec<Value> {
        vec![self.shared.into()]
    }
    const LABELLED: bool = true;
    /// Its rules.
    fn labels(&self) -> Vec<String> {
        self.firewall_rules.clone()
    }
}

impl Record for FirewallRule {
    const KIND: &'static str = "firewall_rule";
    const COLUMNS: &'static [Column] = &[Column::int("open")];
    named!();
    fn columns(&self) -> Vec<Value> {
        vec![self.shared.into()]
    }
}

impl Record for FirewallPort {
    const KIND: &'static str = "firewall_port";
    const COLUMNS: &'static [Column] = &[Column::text("firewall_group_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.firewall_group_id.clone().into()]
    }
}
