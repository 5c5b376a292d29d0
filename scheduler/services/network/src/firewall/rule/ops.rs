//! The verbs of firewall rules; the only writer of the record, but for those that come with a default group.
use crate::{
    attribute::overlay,
    fault,
    firewall::{
        made,
        model::{FirewallPolicy, FirewallRule},
        text,
    },
    list::Raw,
    quota,
    tables::find,
};
use pilvi_kit::Fault;
use pilvi_store::{Stored, Tx};
use serde_json::json;

pub async fn create_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<FirewallRule>, Fault> {
    quota::check_in::<FirewallRule>(tx, text(attrs, "project_id"), "firewall_rule").await?;
    let mut attrs = attrs.clone();
    attrs.entry("ip_version").or_insert(json!(4));
    let rule: FirewallRule = made(&attrs)?;
    check(&rule)?;
    Ok(tx.insert(&rule).await?)
}

/// Whoever has audited a policy has not seen what becomes of its rule.
pub async fn update_in(tx: &mut Tx, mut found: Stored<FirewallRule>, changes: &Raw) -> Result<(), Fault> {
    found.record = overlay(&found.record, changes)?;
    check(&found.record)?;
    tx.update(&found).await?;
    for mut policy in tx.list::<FirewallPolicy>(find::with_firewall_rule(&found.id)).await? {
        if policy.audited {
            policy.audited = false;
            tx.update(&policy).await?;
        }
    }
    Ok(())
}

pub async fn delete_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    if tx.count::<FirewallPolicy>(find::with_firewall_rule(id)).await? > 0 {
        return Err(fault::conflict("FirewallRuleInUse", format!("Firewall rule {id} is being used.")));
    }
    tx.delete::<FirewallRule>(id).await?;
    Ok(())
}

fn check(rule: &FirewallRule) -> Result<(), Fault> {
    match rule.protocol.as_deref() {
        Some("tcp" | "udp") => {}
        Some(_) if rule.has_ports() => {
            return Err(fault::bad(
                "FirewallRuleInvalidICMPParameter",
                "Source, destination port are not allowed when protocol is set to ICMP.",
            ));
        }
        None if rule.has_ports() => {
            return Err(fault::bad(
                "FirewallRuleWithPortWithoutProtocolInvalid",
                "Source/destination port requires a protocol.",
            ));
        }
        _ => {}
    }
    if !rule.is_of_one_version() {
        return Err(fault::bad(
            "FirewallIpAddressConflict",
            "Invalid input - IP addresses do not agree with IP Version.",
        ));
    }
    Ok(())
}
