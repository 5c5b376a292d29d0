//! Metering: which rules count what a router carries to and from the outside. The counting is in `bpf/meter.h`; the
//! counters are read by [`crate::DataPlane::meters`].
use crate::picture::Picture;
use crate::router::router_name;
use crate::table::{Bytes, METER_CHUNKS, METER_RULES, Table, name64, put};
use crate::wanted::{Direction, Label, MeterRule};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

const EXCLUDED: u32 = 1;

pub(crate) fn label_name(id: &str) -> u64 {
    name64(id)
}

/// A rule's row of one family; `None` for what is of the other. A rule without addresses is of both.
fn row(label: u64, rule: &MeterRule, v6: bool) -> Option<Vec<u8>> {
    let side = |row: Bytes, net: Option<IpNet>| match net.map(|n| n.trunc()) {
        None => Some(row.raw(&[0; 32][..if v6 { 32 } else { 8 }])),
        Some(IpNet::V4(net)) if !v6 => Some(row.ip(net.network()).ip(net.netmask())),
        Some(IpNet::V6(net)) if v6 => Some(row.raw(&net.network().octets()).raw(&net.netmask().octets())),
        Some(_) => None,
    };
    let flags = if rule.excluded { EXCLUDED } else { 0 };
    let row = side(side(Bytes::new().u64(label), rule.source)?, rule.destination)?;
    Some(row.u32(flags).u32(0).0)
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    let mut names = BTreeSet::new();
    let mut routers: BTreeMap<&str, Vec<&Label>> = BTreeMap::new();
    for label in &wanted.labels {
        if !names.insert(label_name(&label.id)) {
            picture.problem(None, format!("label {} shares its name with another", label.id));
            continue;
        }
        put(&mut picture.tables, Table::Meters, Bytes::new().u64(label_name(&label.id)), Bytes::new().u64(0).u64(0));
        for router in &label.routers {
            routers.entry(router).or_default().push(label);
        }
    }
    for (router, labels) in routers {
        for direction in [Direction::Ingress, Direction::Egress] {
            for v6 in [false, true] {
                draw_router(picture, router, &labels, direction, v6);
            }
        }
    }
}

fn draw_router(picture: &mut Picture<'_>, router: &str, labels: &[&Label], direction: Direction, v6: bool) {
    let table = if v6 { Table::MeterRules6 } else { Table::MeterRules };
    let mut rows: Vec<Vec<u8>> = Vec::new();
    for label in labels {
        // What a label leaves out is looked at first.
        for excluded in [true, false] {
            let rules = label.rules.iter().filter(|r| r.direction == direction && r.excluded == excluded);
            rows.extend(rules.filter_map(|r| row(label_name(&label.id), r, v6)));
        }
    }
    if rows.len() > METER_CHUNKS * METER_RULES {
        let most = METER_CHUNKS * METER_RULES;
        picture.problem(None, format!("router {router} has more than {most} metering rules"));
        rows.truncate(most);
    }
    let last = rows.len().div_ceil(METER_RULES).saturating_sub(1);
    for (i, chunk) in rows.chunks(METER_RULES).enumerate() {
        let index = u32::try_from(i).unwrap_or(u32::MAX);
        let used = u32::try_from(chunk.len()).unwrap_or(0);
        let direction = match direction {
            Direction::Ingress => 0,
            Direction::Egress => 1,
        };
        let key = Bytes::new().u64(router_name(router)).u32(direction).u32(index);
        let mut value = Bytes::new().u32(used).u32(u32::from(i < last)).raw(&chunk.concat());
        value.0.resize(table.sizes().1, 0);
        put(&mut picture.tables, table, key, value);
    }
}
