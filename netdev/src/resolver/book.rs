//! Who may ask, and what is called how for whom: made of the wanted state with each pass. Pure.
use super::station;
use crate::wanted::{Mac, Name, Wanted, Zone};
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};
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
}

impl Names {
    fn new(zone: &Zone) -> Self {
        let domain = bare(&zone.domain);
        let mut names = Names { domain: domain.clone(), ..Names::default() };
        for Name { name, addresses } in &zone.names {
            let short = bare(name);
            let whole =
                if name.ends_with('.') || domain.is_empty() { short.clone() } else { format!("{short}.{domain}") };
            for key in if short == whole { vec![short] } else { vec![short, whole.clone()] } {
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
    pub fn client(&self, vni: u32, mac: [u8; 6], address: Ipv4Addr) -> Option<&Arc<Client>> {
        match self.legs.get(&(vni, mac)) {
            Some(router) => self.routed.get(&(*router, address)),
            None => self.near.get(&(vni, mac)),
        }
    }
    pub fn has(&self, name: u32) -> bool {
        self.near.values().chain(self.routed.values()).any(|c| c.name == name)
    }
}

#[cfg(test)]
impl Names {
    pub fn of(domain: &str, names: &[(&str, &str)]) -> Self {
        let name = |(name, ip): &(&str, &str)| Name { name: (*name).into(), addresses: vec![ip.parse().unwrap()] };
        Names::new(&Zone { network: "n".into(), domain: domain.into(), names: names.iter().map(name).collect() })
    }
}
