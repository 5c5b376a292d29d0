//! What a peer has been told, and what it must be told now. Pure.
use crate::{
    Family,
    update::{self, Style},
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

/// Destinations and their next hops.
pub type Routes = BTreeMap<IpNet, IpAddr>;

/// One session's view.
#[derive(Debug, Default)]
pub struct Told {
    routes: Routes,
}

impl Told {
    /// Nothing is taken for told any more: all is told again, what is gone meanwhile is still taken back.
    pub fn repeat(&self, style: &Style) -> VecDeque<Vec<u8>> {
        let mut messages = VecDeque::new();
        announce_all(style, self.routes.iter().map(|(net, hop)| (*net, *hop)), &mut messages);
        messages
    }

    /// Messages that make the peer's routes the wanted ones.
    pub fn follow(&mut self, style: &Style, wanted: &Routes) -> VecDeque<Vec<u8>> {
        let fits = |net: &IpNet, hop: &IpAddr| match style.family {
            Family::V4 => matches!((net, hop), (IpNet::V4(_), IpAddr::V4(_))),
            Family::V6 => matches!((net, hop), (IpNet::V6(_), IpAddr::V6(_))),
        };
        let wanted: Routes = wanted.iter().filter(|(net, hop)| fits(net, hop)).map(|(n, h)| (*n, *h)).collect();
        let gone: Vec<IpNet> = self.routes.keys().filter(|net| !wanted.contains_key(*net)).copied().collect();
        let new = wanted.iter().filter(|(net, hop)| self.routes.get(*net) != Some(*hop)).map(|(n, h)| (*n, *h));
        let mut messages: VecDeque<Vec<u8>> = update::withdraw(style.family, &gone).into();
        announce_all(style, new, &mut messages);
        self.routes = wanted;
        messages
    }

    pub fn count(&self) -> usize {
        self.routes.len()
    }
}

fn announce_all(style: &Style, routes: impl Iterator<Item = (IpNet, IpAddr)>, out: &mut VecDeque<Vec<u8>>) {
    let mut by_hop: BTreeMap<IpAddr, Vec<IpNet>> = BTreeMap::new();
    for (net, hop) in routes {
        by_hop.entry(hop).or_default().push(net);
    }
    for (hop, nets) in by_hop {
        out.extend(update::announce(style, hop, &nets));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(all: &[(&str, &str)]) -> Routes {
        all.iter().map(|(net, hop)| (net.parse().unwrap(), hop.parse().unwrap())).collect()
    }

    #[test]
    fn only_differences_are_told() {
        let style = Style { family: Family::V4, local_as: 65001, internal: false, as4: true };
        let mut told = Told::default();
        let first = routes(&[("10.0.0.0/24", "192.0.2.1"), ("10.0.1.0/24", "192.0.2.2"), ("10.0.2.0/24", "192.0.2.1")]);
        assert_eq!(told.follow(&style, &first).len(), 2, "one message for each next hop");
        assert!(told.follow(&style, &first).is_empty());
        let moved = routes(&[("10.0.0.0/24", "192.0.2.2"), ("10.0.1.0/24", "192.0.2.2")]);
        let messages = told.follow(&style, &moved);
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0], update::withdraw(Family::V4, &["10.0.2.0/24".parse().unwrap()])[0]);
        let hop = "192.0.2.2".parse().unwrap();
        assert_eq!(messages[1], update::announce(&style, hop, &["10.0.0.0/24".parse().unwrap()])[0]);
        assert_eq!((told.count(), told.repeat(&style).len()), (2, 1));
        // Routes of the other family are not this peering's.
        let mixed = routes(&[("2001:db8::/64", "2001:db8::1"), ("10.9.0.0/24", "2001:db8::1")]);
        told.follow(&style, &mixed);
        assert_eq!(told.count(), 0);
    }
}
