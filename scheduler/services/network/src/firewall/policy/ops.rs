//! The verbs of firewall policies; the only writer of the record, but for those that come with a default group.
use super::api::FIREWALL_POLICY;
use crate::{
    attribute::overlay,
    fault,
    firewall::{
        knows, made,
        model::{FirewallGroup, FirewallPolicy, FirewallRule, RULES_MAX},
        rule::api::FIREWALL_RULE,
        text,
    },
    list::Raw,
    quota,
    tables::find,
};
use pilvi_kit::{Ctx, Fault, id::is_uuid};
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};

/// A rule, and the one that it is put before or after; the head of the list if there is none.
#[derive(Debug, Clone)]
pub struct Place {
    rule: String,
    reference: Option<(String, bool)>,
}

impl Place {
    pub fn of(body: &Value) -> Result<Self, Fault> {
        let Some(rule) = body.get("firewall_rule_id") else {
            let text = "Missing rule info argument for insert/remove rule operation.";
            return Err(fault::bad("FirewallRuleInfoMissing", text));
        };
        let rule = rule.as_str().unwrap_or_default();
        if !is_uuid(rule) {
            return Err(FIREWALL_RULE.not_found(&rule.chars().take(64).collect::<String>()));
        }
        let named = |name: &str| body.get(name).and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
        let before = named("insert_before").map(|id| (id, true));
        let reference = before.or_else(|| named("insert_after").map(|id| (id, false)));
        Ok(Self { rule: rule.to_owned(), reference })
    }
}

async fn rule_in(tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<FirewallRule, Fault> {
    let found = tx.get::<FirewallRule>(id).await?.filter(|r| knows(ctx, &r.project_id, r.shared));
    Ok(found.ok_or_else(|| FIREWALL_RULE.not_found(id))?.record)
}

async fn policy_in(tx: &mut Tx, id: &str) -> Result<Stored<FirewallPolicy>, Fault> {
    tx.get::<FirewallPolicy>(id).await?.ok_or_else(|| FIREWALL_POLICY.not_found(id))
}

fn check_length(policy: &FirewallPolicy) -> Result<(), Fault> {
    if policy.firewall_rules.len() > RULES_MAX {
        let text = format!("A firewall policy has at most {RULES_MAX} rules.");
        return Err(fault::conflict("FirewallPolicyRuleLimitReached", text));
    }
    Ok(())
}

/// Every rule is there, and whoever may use the policy may use it too.
async fn check_rules(tx: &mut Tx, ctx: &Ctx, policy: &FirewallPolicy) -> Result<(), Fault> {
    check_length(policy)?;
    for id in &policy.firewall_rules {
        let rule = rule_in(tx, ctx, id).await?;
        if policy.shared && !rule.shared {
            let text = format!(
                "Operation cannot be performed since firewall policy {} could not find the firewall rule {id}. Please confirm if the firewall rule exists and is shared.",
                policy.id
            );
            return Err(Fault::not_found(text).kind("FirewallRuleSharingConflict"));
        }
        check_owner(&rule, policy)?;
    }
    Ok(())
}

fn check_owner(rule: &FirewallRule, policy: &FirewallPolicy) -> Result<(), Fault> {
    if rule.shared || rule.project_id == policy.project_id {
        return Ok(());
    }
    let text = format!(
        "Operation cannot be performed since firewall rule {} is not shared and belongs to another project {}.",
        rule.id, rule.project_id
    );
    Err(fault::conflict("FirewallRuleConflict", text))
}

pub async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<FirewallPolicy>, Fault> {
    quota::check_in::<FirewallPolicy>(tx, text(attrs, "project_id"), "firewall_policy").await?;
    let policy: FirewallPolicy = made(attrs)?;
    if policy.is_default() {
        let text =
            format!("Operation cannot be performed since '{}' is a reserved name for Firewall Policy.", policy.name);
        return Err(fault::conflict("FirewallDefaultParameterExists", text));
    }
    check_rules(tx, ctx, &policy).await?;
    Ok(tx.insert(&policy).await?)
}

/// What is changed has been audited by nobody, unless the change says so.
pub async fn update_in(tx: &mut Tx, ctx: &Ctx, mut found: Stored<FirewallPolicy>, changes: &Raw) -> Result<(), Fault> {
    if found.is_default() {
        let text = format!("Operation cannot be performed on default object '{}' of type Firewall Group.", found.id);
        return Err(fault::conflict("FirewallDefaultObjectUpdateRestricted", text));
    }
    let mut after: FirewallPolicy = overlay(&found.record, changes)?;
    after.audited = changes.get("audited") == Some(&json!(true));
    let sharing = changes.get("shared").and_then(Value::as_bool);
    if sharing == Some(false) {
        let users = tx.list::<FirewallGroup>(find::with_firewall_policy(&found.id)).await?;
        if users.iter().any(|g| g.project_id != found.project_id) {
            return Err(in_use(&found.id));
        }
    }
    if changes.contains_key("firewall_rules") {
        check_rules(tx, ctx, &after).await?;
    } else if sharing == Some(true) {
        for id in &after.firewall_rules {
            if tx.get::<FirewallRule>(id).await?.is_some_and(|r| !r.shared) {
                let text = format!(
                    "Operation cannot be performed. Before sharing firewall policy {}, share associated firewall rule {id}.",
                    found.id
                );
                return Err(fault::conflict("FirewallPolicySharingConflict", text));
            }
        }
    }
    found.record = after;
    tx.update(&found).await?;
    Ok(())
}

fn in_use(id: &str) -> Fault {
    fault::conflict("FirewallPolicyInUse", format!("Firewall policy {id} is being used."))
}

/// Its rules stay.
pub async fn delete_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    if tx.count::<FirewallGroup>(find::with_firewall_policy(id)).await? > 0 {
        return Err(in_use(id));
    }
    tx.delete::<FirewallPolicy>(id).await?;
    Ok(())
}

fn not_in(policy: &str, rule: &str) -> Fault {
    let text = format!("Firewall rule {rule} is not associated with firewall policy {policy}.");
    fault::bad("FirewallRuleNotAssociatedWithPolicy", text)
}

pub async fn insert_rule_in(tx: &mut Tx, ctx: &Ctx, id: &str, place: &Place) -> Result<(), Fault> {
    let mut policy = policy_in(tx, id).await?;
    if policy.firewall_rules.contains(&place.rule) {
        let text = format!(
            "Operation cannot be performed since firewall rule {} is already associated with firewall policy {id}.",
            place.rule
        );
        return Err(fault::conflict("FirewallRuleAlreadyAssociated", text));
    }
    let rule = rule_in(tx, ctx, &place.rule).await?;
    check_owner(&rule, &policy)?;
    let at = match &place.reference {
        None => 0,
        Some((other, before)) => {
            let at = policy.firewall_rules.iter().position(|r| r == other).ok_or_else(|| not_in(id, other))?;
            if *before { at } else { at + 1 }
        }
    };
    policy.firewall_rules.insert(at, place.rule.clone());
    policy.audited = false;
    check_length(&policy)?;
    tx.update(&policy).await?;
    Ok(())
}

pub async fn remove_rule_in(tx: &mut Tx, ctx: &Ctx, id: &str, place: &Place) -> Result<(), Fault> {
    let mut policy = policy_in(tx, id).await?;
    rule_in(tx, ctx, &place.rule).await?;
    let at = policy.firewall_rules.iter().position(|r| *r == place.rule).ok_or_else(|| not_in(id, &place.rule))?;
    policy.firewall_rules.remove(at);
    policy.audited = false;
    tx.update(&policy).await?;
    Ok(())
}
