//! From [`Wanted`] to rows: who writes which table.
//!
//! ```text
//!   port      ports live sources      switch   addresses stations
//!   overlay   vteps                   router   routes, by choice: choices
//!   filter    chunks members          nat      externals fixed, addresses and stations by legs
//!   local     locals, its addresses    meter    meters meter_rules
//!   forward   forwards                scope    scopes
//!   helper    helpers                 mirror   mirrors sinks collectors collected
//!   firewall  firewalls firewall_rules
//!   quality   limits buckets          v6       sources6 addresses6 routes6 chunks6 members6
//!   gateway6  addresses6 routes6 stations
//!   wire     wires tags            many     floods
//!   view     more addresses, addresses6 and stations      resolver more addresses and stations
//! ```
//! Pure: the same input and the same devices give the same rows. What cannot be expressed becomes a
//! [`Problem`] and the rest goes on; a port with a problem is closed rather than open.
use crate::choice::Offers;
use crate::realm::Realms;
use crate::scope;
use crate::table::{Settings, Table, Tables, put};
use crate::wanted::{Network, Wanted};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::rc::Rc;

/// Something wanted that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The port that suffers; `None`: no single one.
    pub port: Option<String>,
    pub message: String,
    /// The port cannot work, rather than lack something.
    pub closes: bool,
}

/// What the modules read and write while they draw.
pub(crate) struct Picture<'a> {
    pub wanted: &'a Wanted,
    /// Interface index of each local port that has its device.
    pub devices: &'a BTreeMap<String, u32>,
    /// This host's own tunnel end.
    pub vtep: Option<Ipv4Addr>,
    pub networks: HashMap<&'a str, &'a Network>,
    pub tables: Tables,
    /// What routers know, before the nearest is chosen.
    pub offers: Offers,
    pub problems: Vec<Problem>,
    pub realms: Realms,
    pub scopes: Rc<scope::Index<'a>>,
    /// Ports that must stay closed whatever is wanted.
    pub closed: BTreeSet<&'a str>,
}

impl<'a> Picture<'a> {
    pub fn problem(&mut self, port: Option<&str>, message: impl Into<String>) {
        self.problems.push(Problem { port: port.map(str::to_owned), message: message.into(), closes: false });
    }

    /// The port cannot work: it is closed if its row is not yet drawn.
    pub fn close(&mut self, port: &'a str, message: impl Into<String>) {
        self.problems.push(Problem { port: Some(port.to_owned()), message: message.into(), closes: true });
        self.closed.insert(port);
    }
}

/// Draws all tables. `settings.epoch`, `ext_vni` and `ask` are not looked at: the plan chooses the first,
/// the wanted state the others.
#[must_use]
pub fn draw(
    wanted: &Wanted,
    devices: &BTreeMap<String, u32>,
    vtep: Option<Ipv4Addr>,
    settings: &Settings,
) -> (Tables, Vec<Problem>) {
    let networks = wanted.networks.iter().map(|n| (n.id.as_str(), n)).collect();
    let tables = Table::ALL.into_iter().map(|t| (t, BTreeMap::new())).collect();
    let realms = Realms::of_wanted(wanted);
    let (problems, closed) = (Vec::new(), BTreeSet::new());
    let scopes = Rc::new(scope::index(wanted));
    let offers = Offers::default();
    let mut picture = Picture { wanted, devices, vtep, networks, tables, offers, problems, realms, scopes, closed };
    crate::overlay::draw(&mut picture);
    crate::filter::draw(&mut picture);
    crate::port::draw(&mut picture);
    crate::delegation::draw(&mut picture, settings.edge_if);
    // Before the switch: where no router has the address of a DHCP server, the resolver stands behind it.
    crate::resolver::draw(&mut picture, settings.resolver_if);
    crate::switch::draw(&mut picture);
    crate::scope::draw(&mut picture);
    crate::router::draw(&mut picture);
    crate::v6::draw(&mut picture);
    crate::gateway6::draw(&mut picture);
    crate::choice::draw(&mut picture);
    // After all that is really there: what is only seen comes last.
    crate::view::draw(&mut picture);
    crate::nat::draw(&mut picture);
    crate::forward::draw(&mut picture);
    crate::helper::draw(&mut picture);
    crate::meter::draw(&mut picture);
    crate::quality::draw(&mut picture);
    crate::mirror::draw(&mut picture, settings);
    crate::firewall::draw(&mut picture);
    crate::wire::draw(&mut picture);
    crate::many::draw(&mut picture);
    let mut settings = *settings;
    settings.epoch = 0;
    settings.ext_vni = crate::wire::untagged(wanted).map_or(0, |n| n.vni);
    // Any of our addresses will do; the first stays the same from pass to pass.
    settings.ask = crate::wire::ours(&picture.tables, settings.ext_vni);
    settings.by_leg = !wanted.by_leg.is_empty();
    settings.leaks = wanted.routers.iter().any(crate::router::leaks);
    settings.firewalls = wanted.firewalls.iter().any(|f| !f.legs.is_empty());
    let key = crate::table::Bytes::new().u32(0);
    put(&mut picture.tables, Table::Settings, key, settings.bytes());
    (picture.tables, picture.problems)
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
