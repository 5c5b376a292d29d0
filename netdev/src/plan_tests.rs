//! The plan against itself: whatever is found, and wherever a pass stops, it ends at what is wanted.
use super::*;
use proptest::prelude::*;

fn want(name: &str) -> WantedLink {
    WantedLink {
        name: name.into(),
        alias: format!("port:{name}"),
        mtu: Some(1500),
        promiscuous: false,
        programs: vec![Program::FromGuest, Program::ToGuest],
    }
}

/// A kernel of a few lines: does what a step says.
fn act(found: &mut FoundLinks, step: &LinkStep, next: &mut u32) {
    match step {
        LinkStep::Delete { index, .. } => found.links.retain(|l| l.index != *index),
        LinkStep::Detach { index, program } => {
            found.attached.remove(&(*index, *program));
        }
        LinkStep::Create { name, alias } => {
            *next += 1;
            let link = Link { index: *next, name: name.clone(), alias: alias.clone(), mtu: 1500, ..Link::default() };
            found.links.push(link);
        }
        LinkStep::Change { index, up, mtu, alias, .. } => {
            for l in found.links.iter_mut().filter(|l| l.index == *index) {
                l.up = *up;
                l.mtu = mtu.unwrap_or(l.mtu);
                l.alias = alias.clone().unwrap_or_else(|| l.alias.clone());
            }
        }
        LinkStep::Attach { index, program, .. } => {
            found.attached.insert((*index, *program));
        }
    }
}

#[test]
fn a_port_is_made_step_by_step_and_taken_away_wholly() {
    let (mut found, mut next) = (FoundLinks::default(), 6);
    let none = BTreeSet::new();
    let wanted = [want("tapa")];
    let first = links(&wanted, &found, &none);
    assert_eq!(first, [LinkStep::Create { name: "tapa".into(), alias: "port:tapa".into() }]);
    act(&mut found, &first[0], &mut next);
    let second = links(&wanted, &found, &none);
    assert_eq!(second.len(), 3, "two programs, then up: {second:?}");
    assert!(matches!(second[2], LinkStep::Change { index: 7, up: true, .. }));
    for s in &second {
        act(&mut found, s, &mut next);
    }
    assert_eq!(links(&wanted, &found, &none), []);
    for _ in 0..2 {
        for s in links(&[], &found, &none) {
            act(&mut found, &s, &mut next);
        }
    }
    assert_eq!(found, FoundLinks::default(), "nothing is left when the last port goes");
}

#[test]
fn foreign_and_spare_devices_stay() {
    let link = |index, name: &str, alias: &str| Link {
        index,
        name: name.into(),
        alias: alias.into(),
        up: true,
        ..Link::default()
    };
    let found = FoundLinks {
        links: vec![link(1, "lo", ""), link(2, "eth0", "uplink"), link(3, "tapx", "port:x"), link(4, "tapy", "port:y")],
        attached: BTreeSet::new(),
    };
    let spare = BTreeSet::from(["port:x".to_owned()]);
    assert_eq!(links(&[], &found, &spare), [LinkStep::Delete { index: 4, name: "tapy".into() }]);
    let clash = WantedLink { alias: "port:z".into(), ..want("tapx") };
    assert_eq!(links(&[clash], &found, &BTreeSet::from(["port:x".into(), "port:y".into()])), []);
}

#[test]
fn whatever_can_change_a_verdict_raises_the_epoch() {
    let settings = |epoch: u32| {
        let row = Settings { epoch, ..Settings::default() }.bytes().0;
        BTreeMap::from([(0u32.to_ne_bytes().to_vec(), row)])
    };
    let rows = |rows: &[(u8, u8)]| rows.iter().map(|(k, v)| (vec![*k], vec![*v])).collect::<BTreeMap<_, _>>();
    let tables_of =
        |chunks: &[(u8, u8)], epoch| Tables::from([(Table::Chunks, rows(chunks)), (Table::Settings, settings(epoch))]);
    let epoch_after = |wanted: &Tables, found: &Tables| {
        let mut now = found.clone();
        for s in tables(wanted, found) {
            apply(&mut now, &s);
        }
        assert_eq!(tables(wanted, &now), [], "a second pass does nothing");
        Settings::epoch_of(now[&Table::Settings].values().next())
    };
    let found = tables_of(&[(1, 1)], 5);
    assert_eq!(epoch_after(&tables_of(&[(1, 1)], 0), &found), 5, "nothing changed");
    assert_eq!(epoch_after(&tables_of(&[(1, 1), (2, 1)], 0), &found), 6, "what was cut may be allowed again");
    assert_eq!(epoch_after(&tables_of(&[(1, 2)], 0), &found), 6, "a chunk changed");
    assert_eq!(epoch_after(&tables_of(&[], 0), &found), 6, "a chunk went");
    let last = tables(&tables_of(&[], 0), &found).pop();
    assert!(matches!(last, Some(RowStep::Put { table: Table::Settings, .. })), "the epoch comes last");
}

#[test]
fn a_movable_address_stays_with_its_holder_while_the_holder_is_a_port() {
    let row = |ifindex| crate::table::Hop::movable(ifindex, [2; 6]).0;
    let tables_of = |holder: u32, ports: &[u32]| {
        let ports = ports.iter().map(|i| (i.to_ne_bytes().to_vec(), vec![0])).collect();
        Tables::from([(Table::Addresses, BTreeMap::from([(vec![1], row(holder))])), (Table::Ports, ports)])
    };
    let wanted = tables_of(7, &[7, 8]);
    assert_eq!(tables(&wanted, &tables_of(8, &[7, 8])), []);
    let wanted = tables_of(7, &[7]);
    let steps = tables(&wanted, &tables_of(8, &[7, 8]));
    assert_eq!(steps[0], RowStep::Put { table: Table::Addresses, key: vec![1], value: row(7) });
}

fn any_tables() -> impl Strategy<Value = Tables> {
    let rows = proptest::collection::btree_map(0u8..6, 0u8..3, 0..6);
    proptest::collection::btree_map(0usize..11, rows, 0..6).prop_map(|t| {
        let mut out: Tables = t
            .into_iter()
            .map(|(i, rows)| (Table::ALL[i], rows.into_iter().map(|(k, v)| (vec![k], vec![v])).collect()))
            .collect();
        let row = Settings::default().bytes().0;
        out.insert(Table::Settings, BTreeMap::from([(0u32.to_ne_bytes().to_vec(), row)]));
        out
    })
}

/// Equal but for what the plan does not compare: the epoch, and values that the programs write.
fn same(a: &Tables, b: &Tables) -> bool {
    Table::ALL.into_iter().filter(|t| *t != Table::Settings).all(|t| {
        let (a, b) = (a.get(&t).cloned().unwrap_or_default(), b.get(&t).cloned().unwrap_or_default());
        if t.presence_only() { a.keys().eq(b.keys()) } else { a == b }
    })
}

proptest! {
    #[test]
    fn a_crash_after_any_step_and_a_rerun_converge(wanted in any_tables(), found in any_tables(), cut in 0usize..64) {
        let mut now = found;
        for step in tables(&wanted, &now.clone()).iter().take(cut) {
            apply(&mut now, step);
        }
        for step in tables(&wanted, &now.clone()) {
            apply(&mut now, &step);
        }
        prop_assert!(same(&wanted, &now));
        prop_assert_eq!(tables(&wanted, &now), vec![]);
    }

    #[test]
    fn links_converge_from_any_crash(
        wanted in proptest::collection::btree_set("[a-d]", 0..4),
        before in proptest::collection::btree_set("[a-f]", 0..5),
        cut in 0usize..20,
    ) {
        let (mut found, mut next) = (FoundLinks::default(), 1);
        let none = BTreeSet::new();
        let list = |names: &BTreeSet<String>| names.iter().map(|n| want(n)).collect::<Vec<_>>();
        let mut done = 0;
        for _ in 0..3 {
            for s in links(&list(&before), &found.clone(), &none) {
                if done < cut { act(&mut found, &s, &mut next); }
                done += 1;
            }
        }
        for _ in 0..3 {
            for s in links(&list(&wanted), &found.clone(), &none) {
                act(&mut found, &s, &mut next);
            }
        }
        prop_assert_eq!(links(&list(&wanted), &found, &none), vec![]);
        let names: BTreeSet<String> = found.links.iter().map(|l| l.name.clone()).collect();
        prop_assert_eq!(names, wanted.clone());
        prop_assert_eq!(found.attached.len(), 2 * wanted.len());
    }
}
