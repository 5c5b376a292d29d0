//! Which way a router takes to a destination, and how it spreads flows over several.
//!
//! ```text
//!   offers: {router, prefix} -> ways, each from a leg or way out (connected), a static route, or a default gateway
//!     the nearest kind wins; connected: its first way      one way   -> a row of `routes`
//!                                                          several   -> a row that names a group, and `choices` {group, index}
//! ```
//! The program takes the index from a hash of the flow's addresses and ports, so a flow keeps its way, here and on the host that
//! holds the way out, while the number of ways stays.
use crate::picture::Picture;
use crate::table::{Bytes, Table, name64, put};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// `ROUTE_SHARED` of `bpf/tables.h`: added to a kind.
const SHARED: u32 = 4;
const LEG: u32 = 1;
const EXTERNAL: u32 = 2;
/// Ways to one destination; more are left out.
const WAYS_MAX: usize = 16;

/// How a way was come by; what is nearer wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Connected,
    Static,
    Default,
}

type Ways = BTreeMap<Vec<u8>, (Rank, Vec<Vec<u8>>)>;

/// All ways that routers know of, before the nearest are chosen; by row key.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    v4: Ways,
    v6: Ways,
}

impl Offers {
    pub fn offer(&mut self, key: Bytes, rank: Rank, row: Bytes) {
        Self::note(&mut self.v4, key, rank, row);
    }

    pub fn offer6(&mut self, key: Bytes, rank: Rank, row: Bytes) {
        Self::note(&mut self.v6, key, rank, row);
    }

    fn note(ways: &mut Ways, key: Bytes, rank: Rank, row: Bytes) {
        let (best, rows) = ways.entry(key.0).or_insert_with(|| (rank, Vec::new()));
        if rank > *best || (rank == Rank::Connected && *best == rank && !rows.is_empty()) {
            return;
        }
        if rank < *best {
            *best = rank;
            rows.clear();
        }
        if rows.len() < WAYS_MAX && !rows.contains(&row.0) {
            rows.push(row.0);
        }
    }
}

/// A number for the group of ways to one destination of one router.
fn group(key: &[u8]) -> u64 {
    name64(&key.iter().map(|b| format!("{b:02x}")).collect::<String>())
}

fn kind(row: &[u8]) -> u32 {
    row.first_chunk::<4>().map_or(0, |k| u32::from_ne_bytes(*k))
}

/// Inside, if any of them leads there: nobody outside has its addresses.
fn shared(rows: &[Vec<u8>]) -> u32 {
    SHARED | if rows.iter().any(|r| kind(r) == LEG) { LEG } else { EXTERNAL }
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let Offers { v4, v6 } = std::mem::take(&mut picture.offers);
    let none = Ipv4Addr::UNSPECIFIED;
    for (key, (_, rows)) in v4 {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let row = Bytes::new().u32(shared(&rows)).u32(count).u64(group(&key)).ip(none).raw(&[0; 8]).u32(0);
        write(picture, (Table::Routes, Table::Choices), key, rows, row);
    }
    for (key, (_, rows)) in v6 {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let own = rows.first().and_then(|r| r.get(28..44)).map(<[u8]>::to_vec).unwrap_or_default();
        let row = Bytes::new().u32(shared(&rows)).u32(count).ip(none).u64(group(&key)).u64(0).raw(&own);
        write(picture, (Table::Routes6, Table::Choices6), key, rows, row.raw(&[0; 8]).u32(0));
    }
}

fn write(picture: &mut Picture<'_>, into: (Table, Table), key: Vec<u8>, rows: Vec<Vec<u8>>, row: Bytes) {
    if let [only] = rows.as_slice() {
        put(&mut picture.tables, into.0, Bytes(key), Bytes(only.clone()));
        return;
    }
    let name = group(&key);
    for (index, way) in (0u32..).zip(rows) {
        put(&mut picture.tables, into.1, Bytes::new().u64(name).u32(index).u32(0), Bytes(way));
    }
    put(&mut picture.tables, into.0, Bytes(key), row);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: u32, n: u8) -> Bytes {
        Bytes::new().u32(kind).raw(&[n; 28])
    }

    #[test]
    fn the_nearest_kind_of_way_wins_and_connected_is_one() {
        let mut offers = Offers::default();
        let key = || Bytes::new().u32(64).u64(7).u32(0);
        offers.offer(key(), Rank::Default, row(EXTERNAL, 1));
        offers.offer(key(), Rank::Default, row(EXTERNAL, 2));
        offers.offer(key(), Rank::Default, row(EXTERNAL, 2));
        assert_eq!(offers.v4[&key().0].1.len(), 2, "each way once");
        offers.offer(key(), Rank::Static, row(LEG, 3));
        offers.offer(key(), Rank::Default, row(EXTERNAL, 4));
        assert_eq!(offers.v4[&key().0], (Rank::Static, vec![row(LEG, 3).0]));
        offers.offer(key(), Rank::Connected, row(LEG, 5));
        offers.offer(key(), Rank::Connected, row(LEG, 6));
        assert_eq!(offers.v4[&key().0], (Rank::Connected, vec![row(LEG, 5).0]));
        (0..40).for_each(|n| offers.offer6(key(), Rank::Static, row(LEG, n)));
        assert_eq!(offers.v6[&key().0].1.len(), WAYS_MAX);
        assert_eq!(shared(&[row(EXTERNAL, 1).0, row(LEG, 1).0]), SHARED | LEG);
        assert_eq!(shared(&[row(EXTERNAL, 1).0]), SHARED | EXTERNAL);
    }
}
