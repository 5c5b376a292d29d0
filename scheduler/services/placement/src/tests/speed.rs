//! How long a search takes in a cloud of 10,000 providers, answer included.
//!
//! Says something in an optimised build only:
//! `cargo test --release -p pilvi-placement --lib -- --ignored --nocapture ten_thousand`
use crate::{
    candidate::{
        answer::answer,
        model::{Group, Limits, Wanted},
        ops::{Found, shown},
        search::search,
    },
    provider::model::{Inventory, Provider},
    snapshot::index::Index,
};
use pilvi_kit::Version;
use pilvi_store::Stored;
use std::{collections::BTreeSet, time::Instant};

const PROVIDERS: usize = 10_000;

fn cloud() -> Index {
    let standard: Vec<&str> = crate::traits::model::standard().filter(|t| t.starts_with("COMPUTE_")).take(30).collect();
    let mut index = Index::default();
    for i in 0..PROVIDERS {
        let mut p = Provider::new(&format!("{i:08x}-0000-4000-8000-000000000000"), &format!("host-{i}"));
        for (class, total) in [("VCPU", 64), ("MEMORY_MB", 262_144), ("DISK_GB", 4_000)] {
            p.inventories.insert(class.into(), Inventory::plain(total));
            p.used.insert(class.into(), i64::try_from(i).unwrap() % total);
        }
        p.traits = standard.iter().map(|t| (*t).to_owned()).collect();
        if i % 4 == 0 {
            p.traits.insert("HW_CPU_X86_AVX512F".into());
        }
        p.aggregates = [format!("aggregate-{}", i % 8)].into();
        index.put(&Stored { record: p, rev: 1, created_us: 1, updated_us: 1 });
    }
    index
}

fn request(traits: &[&str], aggregates: &[&str], limit: Option<usize>) -> Wanted {
    let set = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<BTreeSet<String>>();
    let group = Group {
        resources: [("VCPU".to_owned(), 2), ("MEMORY_MB".to_owned(), 4096), ("DISK_GB".to_owned(), 20)].into(),
        required: traits.iter().map(|t| set(&[t])).collect(),
        member_of: if aggregates.is_empty() { vec![] } else { vec![set(aggregates)] },
        ..Group::default()
    };
    Wanted { groups: [(String::new(), group)].into(), limit, ..Wanted::default() }
}

#[test]
#[ignore = "measures; only an optimised build says anything"]
fn ten_thousand_providers_in_twenty_milliseconds() {
    let index = cloud();
    let limits = Limits::default();
    for (what, wanted) in [
        ("limit 1000", request(&[], &[], Some(1000))),
        (
            "trait, aggregates, limit 1000",
            request(&["HW_CPU_X86_AVX512F"], &["aggregate-0", "aggregate-4"], Some(1000)),
        ),
        ("limit 10", request(&["HW_CPU_X86_AVX512F"], &["aggregate-4"], Some(10))),
        ("none that fits", request(&["HW_CPU_X86_AVX512F"], &["aggregate-1"], Some(1000))),
        ("all", request(&[], &[], None)),
    ] {
        let mut took: Vec<(u128, u128, usize)> = Vec::new();
        for _ in 0..15 {
            let begun = Instant::now();
            let ways = search(&index, &wanted, &limits, None);
            let found = Found { providers: shown(&index, &ways, false), ways, names: index.names().clone() };
            let searched = begun.elapsed().as_micros();
            let bytes = answer(Version(1, 39), &wanted, &found).len();
            took.push((begun.elapsed().as_micros(), searched, bytes));
        }
        took.sort_unstable();
        let (all, searched, bytes) = took[7];
        println!("{what}: {all} us in the middle, {searched} us of it searching, {bytes} bytes");
        assert!(cfg!(debug_assertions) || what == "all" || all < 20_000, "{what}");
    }
}
