//! A template of a rule: new groups begin with a copy, default groups and others each with theirs. Pure.
use crate::security_group::model::{Direction, SecurityGroup, SecurityGroupRule};
use serde::{Deserialize, Serialize};

/// As `remote_group_id`: the group that gets the rule.
pub const PARENT: &str = "PARENT";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DefaultRule {
    pub id: String,
    pub description: Option<String>,
    pub direction: Direction,
    pub ethertype: String,
    pub protocol: Option<String>,
    pub port_range_min: Option<i64>,
    pub port_range_max: Option<i64>,
    pub remote_ip_prefix: Option<String>,
    pub remote_group_id: Option<String>,
    pub remote_address_group_id: Option<String>,
    pub used_in_default_sg: bool,
    pub used_in_non_default_sg: bool,
}

impl DefaultRule {
    /// The rule of a new group.
    pub fn rule(&self, group: &SecurityGroup) -> SecurityGroupRule {
        let remote = self.remote_group_id.clone().map(|g| if g == PARENT { group.id.clone() } else { g });
        SecurityGroupRule {
            id: pilvi_kit::id::new(),
            project_id: group.project_id.clone(),
            security_group_id: group.id.clone(),
            description: None,
            direction: self.direction,
            ethertype: self.ethertype.clone(),
            protocol: self.protocol.clone(),
            port_range_min: self.port_range_min,
            port_range_max: self.port_range_max,
            remote_ip_prefix: self.remote_ip_prefix.clone(),
            remote_group_id: remote,
            remote_address_group_id: self.remote_address_group_id.clone(),
            belongs_to_default_sg: group.is_default,
            tags: Vec::new(),
        }
    }

    pub fn is_for(&self, group: &SecurityGroup) -> bool {
        if group.is_default { self.used_in_default_sg } else { self.used_in_non_default_sg }
    }

    /// Would some group get the same rule by both?
    pub fn meets(&self, other: &Self) -> bool {
        let shared = (self.used_in_default_sg && other.used_in_default_sg)
            || (self.used_in_non_default_sg && other.used_in_non_default_sg);
        let nowhere = SecurityGroup::unnamed();
        shared && self.rule(&nowhere).same_as(&other.rule(&nowhere))
    }

    /// What groups began with before there were templates: everything out, and in from the default group itself.
    pub fn first() -> Vec<Self> {
        let one = |direction, ethertype: &str| {
            let out = direction == Direction::Egress;
            let word = if out { "egress" } else { "ingress" };
            DefaultRule {
                id: pilvi_kit::id::new(),
                description: Some(format!("Legacy default SG rule for {word} traffic")),
                direction,
                ethertype: ethertype.to_owned(),
                protocol: None,
                port_range_min: None,
                port_range_max: None,
                remote_ip_prefix: None,
                remote_group_id: if out { None } else { Some(PARENT.to_owned()) },
                remote_address_group_id: None,
                used_in_default_sg: true,
                used_in_non_default_sg: out,
            }
        };
        let families = ["IPv4", "IPv6"];
        families.iter().flat_map(|f| [one(Direction::Egress, f), one(Direction::Ingress, f)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_meet_where_one_group_would_get_both() {
        let first = DefaultRule::first();
        assert_eq!(first.iter().filter(|r| r.used_in_non_default_sg).count(), 2);
        let twin = DefaultRule { used_in_default_sg: false, ..first[0].clone() };
        assert!(twin.meets(&first[0]), "both are for groups that are no default");
        let apart = DefaultRule { used_in_non_default_sg: false, ..first[0].clone() };
        assert!(!twin.meets(&apart));
        assert!(!first[0].meets(&first[1]));
    }
}
