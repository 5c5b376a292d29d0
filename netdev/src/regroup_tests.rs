//! The short way against the whole one: the same rows, whatever changes.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::picture;
use crate::sample;
use crate::table::Settings;
use crate::wanted::{Direction, Family, Fixed, Mac, Port, Ports, Rule};

fn rule(n: u16, family: Family, peer: Peer) -> Rule {
    let id = n.to_string();
    Rule { id, direction: Direction::Ingress, family, protocol: Some(6), ports: Ports::Range(n, n), peer }
}

fn port(id: &str, last: u8, groups: &[&str]) -> Port {
    Port {
        fixed: vec![Fixed { subnet: "s".into(), address: format!("10.0.0.{last}").parse().unwrap() }],
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        secured: true,
        ..sample::port(id, "n", Mac([2, 0, 0, 0, 0, last]))
    }
}

fn group(id: &str, rules: Vec<Rule>) -> Group {
    Group { id: id.into(), stateful: true, rules }
}

fn wanted() -> Wanted {
    Wanted {
        networks: vec![sample::network("n", 5)],
        ports: vec![port("a", 1, &["x"]), port("b", 2, &["x", "y"]), port("c", 3, &["y"])],
        groups: vec![
            group("x", (0..70).map(|n| rule(n, Family::V4, Peer::Any)).collect()),
            group("y", vec![rule(9, Family::V6, Peer::Group("x".into()))]),
        ],
        ..Wanted::default()
    }
}

fn whole(wanted: &Wanted) -> Tables {
    let devices = wanted.ports.iter().zip(1u32..).map(|(p, i)| (p.id.clone(), i)).collect();
    picture::draw(wanted, &devices, None, &Settings::default()).0
}

/// Rows of rules after the short way, beside those of a whole pass.
fn both(before: &Wanted, after: &Wanted, changed: &[Group]) -> (Tables, Tables) {
    let mut found = whole(before);
    let users = Users::of(before);
    assert!(users.enough_for(changed));
    let (names, want, problems) = draw(after, &users, changed);
    assert!(problems.is_empty());
    for step in plan::tables(&want, &standing(&found, &names)) {
        plan::apply(&mut found, &step);
    }
    (found, whole(after))
}

#[test]
fn every_set_that_has_the_group_gets_its_rules_and_loses_those_that_went() {
    let before = wanted();
    for rules in [vec![], vec![rule(1, Family::V6, Peer::Group("x".into())), rule(2, Family::V4, Peer::Any)]] {
        let mut after = wanted();
        after.groups[0].rules = rules;
        let (short, long) = both(&before, &after, &after.groups[..1]);
        for table in CHANGED {
            assert_eq!(short.get(&table), long.get(&table), "{table:?}");
        }
        assert_ne!(whole(&before).get(&Table::Chunks), short.get(&Table::Chunks));
    }
}

#[test]
fn members_that_nobody_asked_for_yet_need_a_whole_pass() {
    let users = Users::of(&wanted());
    assert!(users.enough_for(&[group("x", vec![rule(1, Family::V4, Peer::Group("x".into()))])]));
    assert!(!users.enough_for(&[group("x", vec![rule(1, Family::V4, Peer::Group("y".into()))])]));
    assert!(!users.enough_for(&[group("z", vec![])]));
}

#[test]
fn only_other_rules_take_the_short_way() {
    let old = wanted();
    assert_eq!(only_rules(&old, &old), Some(vec![]));
    let mut new = wanted();
    new.groups[1].rules.clear();
    assert_eq!(only_rules(&old, &new), Some(vec![new.groups[1].clone()]));
    new.ports[0].up = false;
    assert_eq!(only_rules(&old, &new), None);
    let mut fewer = wanted();
    fewer.groups.pop();
    assert_eq!(only_rules(&old, &fewer), None);
}
