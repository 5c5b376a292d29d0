//! The short way for what changes most: the rules of some groups, nothing else.
//!
//! A whole pass looks at every device, port and address of the host; here only the chunks of those sets of groups are
//! drawn that a changed group is in. Who uses a group is kept from one whole pass to the next ([`Users`]).
//!
//! ```text
//!   groups -> sets that have them -> rows of chunks -> writes -> epoch, if a rule went
//! ```
//! Not all changes fit: a rule that names a group whose members are not drawn yet needs them, so a whole pass runs.
use crate::error::Result;
use crate::filter::{CHANGED, draw_policy, peers, policy_name};
use crate::node::Node;
use crate::plan;
use crate::table::{Bytes, Table, Tables};
use crate::v6;
use crate::wanted::{Group, Peer, Wanted};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Who uses which group, as the last whole pass saw it.
#[derive(Debug, Default)]
pub(crate) struct Users {
    /// Where each group stands in the wanted list.
    place: HashMap<String, usize>,
    /// The sets that each group is in: their name and all their groups.
    sets: HashMap<String, Vec<(u64, Vec<String>)>>,
    /// Groups whose members are drawn.
    peers: BTreeSet<String>,
}

impl Users {
    pub fn of(wanted: &Wanted) -> Self {
        let place = wanted.groups.iter().enumerate().map(|(i, g)| (g.id.clone(), i)).collect();
        let mut sets: HashMap<String, Vec<(u64, Vec<String>)>> = HashMap::new();
        let mut seen = BTreeSet::new();
        for port in wanted.ports.iter().filter(|p| p.secured) {
            let name = policy_name(&port.groups);
            if seen.insert(name) {
                for group in port.groups.iter().collect::<BTreeSet<_>>() {
                    sets.entry(group.clone()).or_default().push((name, port.groups.clone()));
                }
            }
        }
        Self { place, sets, peers: peers(wanted).into_iter().map(str::to_owned).collect() }
    }

    /// Whether these groups' rules can be drawn by themselves.
    fn enough_for(&self, groups: &[Group]) -> bool {
        groups.iter().all(|g| {
            let known = |p: &Peer| if let Peer::Group(id) = p { self.peers.contains(id) } else { true };
            self.place.contains_key(&g.id) && g.rules.iter().all(|r| known(&r.peer))
        })
    }
}

/// The rows of the chunks of some sets, and what did not fit.
fn draw(wanted: &Wanted, users: &Users, groups: &[Group]) -> (BTreeSet<u64>, Tables, Vec<String>) {
    let (mut names, mut tables, mut problems) = (BTreeSet::new(), Tables::new(), Vec::new());
    for (name, members) in groups.iter().filter_map(|g| users.sets.get(&g.id)).flatten() {
        if names.insert(*name) {
            let members: BTreeSet<&String> = members.iter().collect();
            let known = members.iter().filter_map(|id| wanted.groups.get(*users.place.get(*id)?));
            let known: Vec<&Group> = known.collect();
            problems.extend(draw_policy(&mut tables, *name, &known));
            problems.extend(v6::draw_policy(&mut tables, *name, &known));
        }
    }
    (names, tables, problems)
}

/// The rows that a table has of these sets.
fn standing(found: &Tables, names: &BTreeSet<u64>) -> Tables {
    let mut out = Tables::new();
    for table in CHANGED {
        let Some(rows) = found.get(&table) else { continue };
        let mut ours = BTreeMap::new();
        for name in names {
            // A key begins with the name of the set.
            let prefix = Bytes::new().u64(*name).0;
            let rows = rows.range(prefix.clone()..).take_while(|(k, _)| k.starts_with(&prefix));
            ours.extend(rows.map(|(k, v)| (k.clone(), v.clone())));
        }
        out.insert(table, ours);
    }
    let settings = found.get(&Table::Settings).cloned().unwrap_or_default();
    out.insert(Table::Settings, settings);
    out
}

/// The groups that have other rules, if nothing else differs.
pub(crate) fn only_rules(old: &Wanted, new: &Wanted) -> Option<Vec<Group>> {
    let same_groups =
        old.groups.len() == new.groups.len() && old.groups.iter().zip(&new.groups).all(|(a, b)| a.id == b.id);
    // Every field by name, so that a new one is not forgotten here.
    let Wanted {
        networks,
        ports,
        remotes,
        groups,
        routers,
        floating,
        by_leg,
        forwards,
        qualities,
        labels,
        zones,
        views,
        watches,
        locals,
        scopes,
        helpers,
        ways,
        taps,
        sinks,
        firewalls,
        delegations,
        bfd,
        lent,
        left,
        peers,
        tunnels,
    } = old;
    let same = same_groups
        && *networks == new.networks
        && *ports == new.ports
        && *remotes == new.remotes
        && *routers == new.routers
        && *floating == new.floating
        && *by_leg == new.by_leg
        && *forwards == new.forwards
        && *qualities == new.qualities
        && *labels == new.labels
        && *zones == new.zones
        && *views == new.views
        && *watches == new.watches
        && *locals == new.locals
        && *scopes == new.scopes
        && *helpers == new.helpers
        && *ways == new.ways
        && *delegations == new.delegations
        && *bfd == new.bfd
        && *lent == new.lent
        && *taps == new.taps
        && *sinks == new.sinks
        && *firewalls == new.firewalls
        && *left == new.left
        && *peers == new.peers
        && *tunnels == new.tunnels;
    same.then(|| groups.iter().zip(&new.groups).filter(|(a, b)| a != b).map(|(_, b)| b.clone()).collect())
}

impl Node {
    /// Gives groups that are there other rules. `false`: it needs a whole pass, with these groups in what is wanted.
    pub fn regroup(&mut self, groups: Vec<Group>) -> Result<bool> {
        let fits = self.drawn.as_ref().is_some_and(|d| d.is_fresh() && d.users.enough_for(&groups));
        for group in &groups {
            let place = self.drawn.as_ref().and_then(|d| d.users.place.get(&group.id).copied());
            let place = place.or_else(|| self.wanted.groups.iter().position(|g| g.id == group.id));
            match place.and_then(|i| self.wanted.groups.get_mut(i)) {
                Some(old) => *old = group.clone(),
                None => self.wanted.groups.push(group.clone()),
            }
        }
        let (Some(drawn), true, Some((mut found, read))) = (self.drawn.take(), fits, self.known.take()) else {
            return Ok(false);
        };
        let (names, mut want, problems) = draw(&self.wanted, &drawn.users, &groups);
        let have = standing(&found, &names);
        want.insert(Table::Settings, have.get(&Table::Settings).cloned().unwrap_or_default());
        let mut failed = !problems.is_empty();
        for step in plan::tables(&want, &have) {
            match self.write_row(&step) {
                Ok(()) => plan::apply(&mut found, &step),
                Err(error) => {
                    tracing::warn!(%error, "rules not written");
                    failed = true;
                }
            }
        }
        self.known = Some((found, read));
        if failed {
            return Ok(false);
        }
        self.drawn = Some(drawn);
        Ok(true)
    }
}

#[cfg(test)]
#[path = "regroup_tests.rs"]
mod tests;
