//! Realms: networks that routers join. Within one an address says who has it; two tenants' networks may both have it, and
//! a group that both use must not take one for the other.
//!
//! ```text
//!   n0 --- router --- n1      n2          realm of n0 and n1: the lower of their identifiers; of n2: its own
//! ```
//! Only legs join: what comes by a gateway has its outside address, which no member has.
use crate::wanted::Wanted;
use std::collections::HashMap;

#[derive(Debug, Default)]
pub(crate) struct Realms {
    by_network: HashMap<String, u32>,
    by_vni: HashMap<u32, u32>,
}

impl Realms {
    pub fn of_wanted(wanted: &Wanted) -> Self {
        let vnis: HashMap<&str, u32> = wanted.networks.iter().map(|n| (n.id.as_str(), n.vni)).collect();
        let mut above: HashMap<u32, u32> = vnis.values().map(|v| (*v, *v)).collect();
        for router in &wanted.routers {
            let mut legs = router.interfaces.iter().filter_map(|l| vnis.get(l.network.as_str()).copied());
            let Some(first) = legs.next() else { continue };
            for leg in legs {
                let (a, b) = (root(&above, first), root(&above, leg));
                above.insert(a.max(b), a.min(b));
            }
        }
        let by_vni = above.keys().map(|v| (*v, root(&above, *v))).collect();
        let by_network = vnis.iter().map(|(id, v)| ((*id).to_owned(), root(&above, *v))).collect();
        Self { by_network, by_vni }
    }

    /// The realm of a network; `None` if nobody knows it.
    pub fn of_network(&self, id: &str) -> Option<u32> {
        self.by_network.get(id).copied()
    }

    pub fn of(&self, vni: u32) -> u32 {
        self.by_vni.get(&vni).copied().unwrap_or(vni)
    }
}

/// Each step leads to a lower number, so it ends.
fn root(above: &HashMap<u32, u32>, mut vni: u32) -> u32 {
    while let Some(next) = above.get(&vni).filter(|n| **n < vni) {
        vni = *next;
    }
    vni
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::network;
    use crate::wanted::{Interface, Mac, Router};

    fn router(legs: &[&str]) -> Router {
        let leg = |n: &&str| Interface {
            network: (*n).to_owned(),
            address: [10, 0, 0, 1].into(),
            prefix: 24,
            mac: Mac([2; 6]),
            leaked: false,
        };
        Router {
            id: legs.concat(),
            interfaces: legs.iter().map(leg).collect(),
            gateway: None,
            gateway6: None,
            routes: vec![],
        }
    }

    #[test]
    fn routers_join_networks_and_nothing_else_does() {
        let networks = vec![network("a", 9), network("b", 4), network("c", 7), network("d", 2), network("e", 1)];
        let routers = vec![router(&["a", "b"]), router(&["c"]), router(&["c", "a", "gone"]), router(&["d", "e"])];
        let realms = Realms::of_wanted(&Wanted { networks, routers, ..Wanted::default() });
        let of = |id| realms.of_network(id).unwrap();
        assert_eq!((of("a"), of("b"), of("c")), (4, 4, 4));
        assert_eq!((of("d"), of("e")), (1, 1));
        assert_eq!((realms.of(7), realms.of(99), realms.of_network("gone")), (4, 99, None));
    }
}
