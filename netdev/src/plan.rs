//! The pure plan: wanted against found, out come steps. No step depends on how an earlier pass ended, so a
//! crash between any two and a rerun converge: what was done is found, what was not is planned again.
//!
//! ```text
//!   links:   delete strays -> unpin leftovers -> create -> change -> attach     (repeated until empty,
//!            since a created device has its index only afterwards)
//!   tables:  put in Table order -> delete in reverse -> raise the epoch if judgements may differ
//! ```
//! Rows are put before the rows that point to them and deleted after, so that no packet meets half a change.
use crate::loader::{Attached, Program};
use crate::netlink::Link;
use crate::table::{Settings, Table, Tables, movable_at};
use std::collections::{BTreeMap, BTreeSet};

/// A device that shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedLink {
    pub name: String,
    /// Marks our ports: `port:<id>`. Empty: a device that others make and keep.
    pub alias: String,
    pub mtu: Option<u32>,
    /// Frames to other addresses than the device's own are taken in.
    pub promiscuous: bool,
    pub programs: Vec<Program>,
}

/// What is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundLinks {
    pub links: Vec<Link>,
    pub attached: BTreeSet<Attached>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkStep {
    Delete { index: u32, name: String },
    Detach { index: u32, program: Program },
    Create { name: String, alias: String },
    Change { index: u32, name: String, up: bool, promiscuous: bool, mtu: Option<u32>, alias: Option<String> },
    Attach { index: u32, name: String, program: Program },
}

impl LinkStep {
    /// The device that the step is about, if it has a name.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        match self {
            LinkStep::Delete { name, .. }
            | LinkStep::Create { name, .. }
            | LinkStep::Change { name, .. }
            | LinkStep::Attach { name, .. } => Some(name),
            LinkStep::Detach { .. } => None,
        }
    }
}

/// Marks a device as a port of ours.
pub const PORT_ALIAS: &str = "port:";

/// The steps that bring devices and programs nearer to what is wanted. `spare` are aliases that are neither
/// wanted nor to be deleted: devices that a caller has just opened.
#[must_use]
pub fn links(wanted: &[WantedLink], found: &FoundLinks, spare: &BTreeSet<String>) -> Vec<LinkStep> {
    let aliases: BTreeSet<&str> = wanted.iter().map(|w| w.alias.as_str()).filter(|a| !a.is_empty()).collect();
    let mut steps = Vec::new();
    let mut kept: BTreeMap<u32, &Link> = BTreeMap::new();
    for link in &found.links {
        let ours = link.alias.starts_with(PORT_ALIAS);
        if ours && !aliases.contains(link.alias.as_str()) && !spare.contains(&link.alias) {
            steps.push(LinkStep::Delete { index: link.index, name: link.name.clone() });
        } else {
            kept.insert(link.index, link);
        }
    }
    for (index, program) in &found.attached {
        if !kept.contains_key(index) {
            steps.push(LinkStep::Detach { index: *index, program: *program });
        }
    }
    let by_name: BTreeMap<&str, &Link> = kept.values().map(|l| (l.name.as_str(), *l)).collect();
    for want in wanted {
        match by_name.get(want.name.as_str()) {
            None if want.alias.is_empty() => {}
            None => steps.push(LinkStep::Create { name: want.name.clone(), alias: want.alias.clone() }),
            Some(link) => complete(want, link, &found.attached, &mut steps),
        }
    }
    steps
}

fn complete(want: &WantedLink, link: &Link, attached: &BTreeSet<Attached>, steps: &mut Vec<LinkStep>) {
    // A name that somebody else's device has is not ours to take: the port has an error instead.
    if link.alias.starts_with(PORT_ALIAS) && link.alias != want.alias {
        return;
    }
    for program in &want.programs {
        if !attached.contains(&(link.index, *program)) {
            steps.push(LinkStep::Attach { index: link.index, name: link.name.clone(), program: *program });
        }
    }
    let mtu = want.mtu.filter(|m| *m != link.mtu);
    let alias = Some(&want.alias).filter(|a| !a.is_empty() && **a != link.alias).cloned();
    let promiscuous = want.promiscuous && !link.promiscuous;
    if !link.up || promiscuous || mtu.is_some() || alias.is_some() {
        let name = link.name.clone();
        steps.push(LinkStep::Change { index: link.index, name, up: true, promiscuous, mtu, alias });
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowStep {
    Put { table: Table, key: Vec<u8>, value: Vec<u8> },
    Delete { table: Table, key: Vec<u8> },
}

/// What says of a flow that is under way whether it may go on.
const JUDGED: [Table; 7] = [
    Table::Chunks,
    Table::Members,
    Table::Chunks6,
    Table::Members6,
    Table::FirewallRules,
    Table::Firewalls,
    Table::Ports,
];

/// The writes that turn `found` into `wanted`. The epoch in the settings' row is the plan's own: it grows
/// when rules, memberships or a port's policy changed, and every flow is judged again.
#[must_use]
pub fn tables(wanted: &Tables, found: &Tables) -> Vec<RowStep> {
    let empty = BTreeMap::new();
    let mut puts = Vec::new();
    let mut deletes = Vec::new();
    let mut judge_again = false;
    for table in Table::ALL.into_iter().filter(|t| *t != Table::Settings) {
        let (want, have) = (wanted.get(&table).unwrap_or(&empty), found.get(&table).unwrap_or(&empty));
        let judged = JUDGED.contains(&table);
        for (key, value) in want {
            let old = have.get(key);
            if old.is_some_and(|old| settled(wanted, table, value, old)) {
                continue;
            }
            // A new port has no flows yet; a new rule or member may allow again what was cut.
            judge_again |= judged && (old.is_some() || table != Table::Ports);
            puts.push(RowStep::Put { table, key: key.clone(), value: value.clone() });
        }
        for key in have.keys().filter(|k| !want.contains_key(*k)) {
            judge_again |= judged;
            deletes.push(RowStep::Delete { table, key: key.clone() });
        }
    }
    deletes.reverse();
    puts.extend(deletes);
    puts.extend(settings(wanted, found, judge_again));
    puts
}

/// Whether the row found may stay: it is the one wanted, or the programs write what differs.
fn settled(wanted: &Tables, table: Table, value: &[u8], old: &[u8]) -> bool {
    let moved = || {
        let at = matches!(table, Table::Addresses | Table::Addresses6) && movable_at(value).is_some();
        let holder = movable_at(old).filter(|_| at).map(|ifindex| ifindex.to_ne_bytes().to_vec());
        // The holder must still be a port.
        holder.is_some_and(|key| wanted.get(&Table::Ports).is_some_and(|ports| ports.contains_key(&key)))
    };
    value == old || table.presence_only() || moved()
}

fn settings(wanted: &Tables, found: &Tables, judge_again: bool) -> Option<RowStep> {
    let key = 0u32.to_ne_bytes().to_vec();
    let row = |t: &Tables| t.get(&Table::Settings).and_then(|r| r.get(&key)).cloned();
    let (mut value, old) = (row(wanted)?, row(found));
    let epoch = Settings::epoch_of(old.as_ref());
    let epoch = if judge_again || epoch == 0 { epoch.wrapping_add(1).max(1) } else { epoch };
    value.get_mut(..4)?.copy_from_slice(&epoch.to_ne_bytes());
    (old.as_ref() != Some(&value)).then_some(RowStep::Put { table: Table::Settings, key, value })
}

/// What the tables hold once `steps` are done: kept in memory, so that the next pass need not read them.
pub fn apply(found: &mut Tables, step: &RowStep) {
    match step {
        RowStep::Put { table, key, value } => {
            found.entry(*table).or_default().insert(key.clone(), value.clone());
        }
        RowStep::Delete { table, key } => {
            found.entry(*table).or_default().remove(key);
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
