//! Address scopes: networks of one scope have addresses that mean one thing, so a router passes packets between them as they
//! are. Between scopes it passes none, but by floating addresses and by source NAT on its way out.
//!
//! ```text
//!   scopes   {network, family} -> number of its scope       a network without one has the number of none
//!   routes   each row has the number of the scope that it leads to; 0 where none of a router's networks has one, so that
//!            routers which know nothing of scopes pay nothing for them
//! ```
//! A way out whose network is in a scope hides nobody of the same scope: the provider routes to him.
use crate::picture::Picture;
use crate::table::{Bytes, Table, name64, put};
use crate::wanted::{Family, Router, Wanted};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// What a network without a scope is in.
const NONE: u32 = 1;

/// The number of a scope: of two with one number a router would pass packets, so the whole name decides in 31 bits.
fn number(id: &str) -> u32 {
    u32::try_from(name64(id) >> 33).unwrap_or(u32::MAX).saturating_add(2)
}

/// The scope of each network, by family.
pub(crate) type Index<'w> = HashMap<(&'w str, Family), &'w str>;

pub(crate) fn index(wanted: &Wanted) -> Index<'_> {
    wanted.scopes.iter().map(|s| ((s.network.as_str(), s.family), s.id.as_str())).collect()
}

/// The scopes of one router's networks.
pub(crate) struct Scopes<'w> {
    index: Rc<Index<'w>>,
    family: Family,
    /// Some network has one.
    any: bool,
    /// Some network inside is in the scope of the outside.
    open: bool,
}

impl<'w> Scopes<'w> {
    pub fn of(index: &Rc<Index<'w>>, router: &'w Router, family: Family) -> Self {
        let gateway = match family {
            Family::V4 => router.gateway.as_ref().map(|g| g.network.as_str()),
            Family::V6 => router.gateway6.as_ref().map(|g| g.network.as_str()),
        };
        let v6 = family == Family::V6;
        let legs = router.interfaces.iter().filter(|l| l.address.is_ipv6() == v6).map(|l| l.network.as_str());
        let scope_of = |network: &'w str| index.get(&(network, family)).copied();
        let inside: BTreeSet<Option<&str>> = legs.map(scope_of).collect();
        let outside = gateway.and_then(scope_of);
        let any = outside.is_some() || inside.iter().any(Option::is_some);
        Scopes { index: index.clone(), family, any, open: outside.is_some() && inside.contains(&outside) }
    }

    /// What a route to this network says; 0: there is nothing to look at.
    pub fn number(&self, network: &str) -> u32 {
        let index: &Index<'_> = &self.index;
        if self.any { index.get(&(network, self.family)).map_or(NONE, |id| number(id)) } else { 0 }
    }

    /// Whether the provider routes to some of the inside.
    pub fn is_open(&self) -> bool {
        self.open
    }
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for scope in &wanted.scopes {
        let Some(vni) = picture.networks.get(scope.network.as_str()).map(|n| n.vni) else { continue };
        let family = if scope.family == Family::V6 { 6 } else { 4 };
        put(&mut picture.tables, Table::Scopes, Bytes::new().u32(vni).u32(family), Bytes::new().u32(number(&scope.id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wanted::{Gateway, Interface, Mac, Scope};

    fn router(networks: &[&str], gateway: Option<&str>) -> Router {
        let leg = |n: &&str| Interface {
            network: (*n).into(),
            address: "10.0.0.1".parse().unwrap(),
            prefix: 24,
            mac: Mac([2; 6]),
            leaked: false,
        };
        let gateway = gateway.map(|n| Gateway {
            network: n.into(),
            address: "203.0.113.1".parse().unwrap(),
            prefix: 24,
            next_hop: None,
            mac: Mac([2; 6]),
            snat: true,
            vtep: None,
        });
        let interfaces = networks.iter().map(leg).collect();
        Router { id: "r".into(), interfaces, gateway, gateway6: None, routes: vec![] }
    }

    #[test]
    fn only_a_router_between_scopes_looks_at_them() {
        let scope = |id: &str, network: &str| Scope { id: id.into(), family: Family::V4, network: network.into() };
        let scopes = vec![scope("s", "a"), scope("s", "b"), scope("t", "c"), scope("s", "out")];
        let wanted = Wanted { scopes, ..Wanted::default() };
        let index = Rc::new(index(&wanted));
        let routers = [
            router(&["x", "y"], Some("elsewhere")),
            router(&["a", "b"], Some("out")),
            router(&["a", "c", "x"], Some("out")),
            router(&["c"], Some("out")),
            router(&["a", "c"], None),
        ];
        let of = |n: usize| Scopes::of(&index, &routers[n], Family::V4);
        let plain = of(0);
        assert_eq!((plain.number("x"), plain.is_open()), (0, false));
        let one = of(1);
        assert_eq!((one.number("a"), one.is_open()), (one.number("out"), true));
        let mixed = of(2);
        assert_eq!(mixed.number("a"), mixed.number("out"));
        assert_ne!(mixed.number("a"), mixed.number("c"));
        assert_eq!((mixed.number("x"), mixed.is_open()), (NONE, true));
        assert!(!of(3).is_open());
        assert_eq!(Scopes::of(&index, &routers[4], Family::V6).number("a"), 0, "a family by itself");
    }
}
