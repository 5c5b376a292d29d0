//! Who may ask, and what is called how for whom: made of the wanted state with each pass. Pure.
use super::station;
use crate::wanted::{Mac, Name, Wanted, Zone};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The book as it stands; a question is answered from one edition.
pub(crate) type Shelf = RwLock<Arc<Book>>;

/// A port that asks.
#[derive(Debug)]
pub(crate) struct Client {
    /// What stands for its interface: [`crate::packet::send`] takes it.
    pub name: u32,
    pub mac: [u8; 6],
    /// What its answers come from.
    pub station: [u8; 6],
    pub names: Arc<Names>,
}

/// How things are called on one network. Names are in lower case and without the dot at their end.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub domain: String,
    /// Nobody else knows of the domain.
    pub closed: bool,
    addresses: HashMap<String, Vec<IpAddr>>,
    called: HashMap<IpAddr, String>,
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    /// By network and hardware address.
    near: HashMap<(u32, [u8; 6]), Arc<Client>>,
    /// Routers by network and the hardware address of their leg, as numbers.
    legs: HashMap<(u32, [u8; 6]), usize>,
    /// By router and address: what a router has passed on.
    routed: HashMap<(usize, Ipv4Addr), Arc<Client>>,
    /// By what stands for the interface.
    named: HashMap<u32, Arc<Client>>,
}

impl Names {
    fn new(zone: &Zone) -> Self {
        let domain = bare(&zone.domain);
        let mut names = Names { domain: domain.clone(), closed: zone.closed, ..Names::default() };
        let also = bare(&zone.also);
        for Name { name, addresses } in &zone.names {
            let short = bare(name);
            let below = |domain: &str| {
                let stands = name.ends_with('.') || domain.is_empty();
                if stands { short.clone() } else { format!("{short}.{domain}") }
            };
            let whole = below(&domain);
            for key in BTreeSet::from([whole.clone(), below(&also), short]) {
                names.addresses.entry(key).or_default().extend(addresses);
            }
            for address in addresses {
                names.called.entry(*address).or_insert_with(|| whole.clone());
            }
        }
        names
    }
    pub fn addresses(&self, name: &str) -> Option<&[IpAddr]> {
        self.addresses.get(name).map(Vec::as_slice)
    }
    pub fn called(&self, address: &IpAddr) -> Option<&str> {
        self.called.get(address).map(String::as_str)
    }
}

fn bare(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// `devices`: the interface of each local port that has one.
pub(crate) fn book(wanted: &Wanted, devices: &BTreeMap<String, u32>) -> Book {
    let zones: HashMap<&str, Arc<Names>> =
        wanted.zones.iter().map(|z| (z.network.as_str(), Arc::new(Names::new(z)))).collect();
    let vnis: HashMap<&str, u32> = wanted.networks.iter().map(|n| (n.id.as_str(), n.vni)).collect();
    let mut book = Book::default();
    let mut on: HashMap<&str, Vec<(Ipv4Addr, Arc<Client>)>> = HashMap::new();
    for port in wanted.ports.iter().filter(|p| p.up) {
        let network = port.network.as_str();
        let (Some(names), Some(&vni), Some(&name)) = (zones.get(network), vnis.get(network), devices.get(&port.id))
        else {
            continue;
        };
        let Mac(mac) = port.mac;
        let client = Arc::new(Client { name, mac, station: station(vni), names: names.clone() });
        book.named.insert(name, client.clone());
        book.near.entry((vni, mac)).or_insert_with(|| client.clone());
        let own = crate::port::addresses(&port.fixed).map(|ip| (ip, client.clone()));
        on.entry(network).or_default().extend(own);
    }
    for (number, router) in wanted.routers.iter().enumerate() {
        for leg in &router.interfaces {
            let Some(&vni) = vnis.get(leg.network.as_str()) else { continue };
            book.legs.insert((vni, leg.mac.0), number);
            for (ip, client) in on.get(leg.network.as_str()).into_iter().flatten() {
                book.routed.entry((number, *ip)).or_insert_with(|| client.clone());
            }
        }
    }
    book
}

impl Book {
    /// Whoever sent a frame: to the resolver of network `vni`, from a hardware address of that network.
    pub fn client(&self, vni: u32, mac: [u8; 6], address: IpAddr) -> Option<&Arc<Client>> {
        match (self.legs.get(&(vni, mac)), address) {
            (Some(router), IpAddr::V4(address)) => self.routed.get(&(*router, address)),
            // No router passes on what is for a link-local address.
            (Some(_), IpAddr::V6(_)) => None,
            (None, _) => self.near.get(&(vni, mac)),
        }
    }
    pub fn named(&self, name: u32) -> Option<&Arc<Client>> {
        self.named.get(&name)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sample::{self, network};

    pub fn names(domain: &str, closed: bool, names: &[(&str, &str)]) -> Names {
        let name = |(name, ip): &(&str, &str)| Name { name: (*name).into(), addresses: vec![ip.parse().unwrap()] };
        let names = names.iter().map(name).collect();
        Names::new(&Zone { network: "n".into(), domain: domain.into(), closed, also: "own.example".into(), names })
    }

    fn port(id: &str, network: &str, n: u8, address: &str) -> crate::wanted::Port {
        crate::wanted::Port {
            fixed: vec![crate::wanted::Fixed { subnet: "s".into(), address: address.parse().unwrap() }],
            secured: true,
            metadata: true,
            ..sample::port(id, network, Mac([n; 6]))
        }
    }

    #[test]
    fn who_asked_follows_from_the_station_and_the_leg() {
        let leg = |network: &str, n: u8| crate::wanted::Interface {
            network: network.into(),
            address: "10.0.0.1".parse().unwrap(),
            prefix: 24,
            mac: Mac([n; 6]),
            leaked: false,
        };
        let router = |id: &str, interfaces| crate::wanted::Router {
            id: id.into(),
            interfaces,
            gateway: None,
            gateway6: None,
            routes: vec![],
        };
        let zone = |network: &str| Zone {
            network: network.into(),
            domain: String::new(),
            closed: true,
            also: String::new(),
            names: vec![],
        };
        // Two tenants with the same addresses behind routers that meet in one network.
        let wanted = Wanted {
            networks: vec![network("one", 1), network("two", 2), network("meet", 3)],
            ports: vec![port("a", "one", 10, "10.0.1.5"), port("b", "two", 10, "10.0.1.5")],
            routers: vec![
                router("r1", vec![leg("meet", 21), leg("one", 22)]),
                router("r2", vec![leg("meet", 31), leg("two", 32)]),
            ],
            zones: vec![zone("one"), zone("two"), zone("meet")],
            ..Wanted::default()
        };
        let book = book(&wanted, &BTreeMap::from([("a".into(), 7), ("b".into(), 8)]));
        let ip = IpAddr::from([10, 0, 1, 5]);
        let who = |vni: u32, mac: u8| book.client(vni, [mac; 6], ip).map(|c| c.name);
        assert_eq!([who(1, 10), who(2, 10)], [Some(7), Some(8)], "by its own network");
        assert_eq!([who(3, 21), who(3, 31)], [Some(7), Some(8)], "by the leg of its router");
        assert_eq!([who(3, 10), who(1, 32), who(9, 10)], [None, None, None]);
        assert!(book.client(3, [21; 6], IpAddr::from([10, 0, 1, 6])).is_none(), "nobody has that address");
        assert!(book.client(3, [21; 6], "fe80::5".parse().unwrap()).is_none(), "no router passes it on");
        assert!(book.named(7).is_some() && book.named(9).is_none());
    }
}
