//! An operator's wish about one host and one network or router. Pure.
//!
//! ```text
//!  DHCP of a network:  every host answers its own guests, unless it has been sent away from that network
//!  way out of a router: the first that lives of its candidates, if it keeps spare ways ([`crate::spare`]); else the live
//!                       host that rendezvous hashing names, among those that have been asked to hold it if there are
//!                       any, and never one that has been sent away
//! ```
//! Where no wish stands, nothing is stored: most clouds have none.
use crate::{
    host::{HostInfo, gateway_host},
    router::model::Router,
    spare::model::standing,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    Dhcp,
    Route,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hosting {
    pub id: String,
    pub task: Task,
    /// A network or a router.
    pub object_id: String,
    pub host: String,
    /// Asked to, or sent away?
    pub here: bool,
}

impl Hosting {
    pub fn key(task: Task, object_id: &str, host: &str) -> String {
        let word = if task == Task::Dhcp { "dhcp" } else { "route" };
        format!("{word}/{object_id}/{host}")
    }
    pub fn new(task: Task, object_id: &str, host: &str, here: bool) -> Self {
        let id = Self::key(task, object_id, host);
        Hosting { id, task, object_id: object_id.to_owned(), host: host.to_owned(), here }
    }
    /// The router that a wish with this id is about.
    pub fn router_of(id: &str) -> Option<&str> {
        id.strip_prefix("route/")?.split('/').next()
    }
}

fn wish<'w>(wishes: &'w [Hosting], task: Task, object_id: &str, host: &str) -> Option<&'w Hosting> {
    wishes.iter().find(|w| w.task == task && w.object_id == object_id && w.host == host)
}

/// Has anybody said which hosts may hold a router's way out?
pub fn is_steered(wishes: &[Hosting], router_id: &str) -> bool {
    wishes.iter().any(|w| w.task == Task::Route && w.object_id == router_id)
}

/// Does this host answer DHCP of the network's guests?
pub fn answers_dhcp(wishes: &[Hosting], network_id: &str, host: &str) -> bool {
    wish(wishes, Task::Dhcp, network_id, host).is_none_or(|w| w.here)
}

/// The host that holds a router's way out: a candidate, or as hashing and wishes have it. `hosts` are in the order of their
/// names.
pub fn holder<'h>(wishes: &[Hosting], router: &Router, hosts: &'h [HostInfo]) -> Option<&'h HostInfo> {
    standing(router, hosts).or_else(|| hashed(wishes, router, hosts))
}

/// Among those that it fits. Whoever asks a certain host is believed to know.
fn hashed<'h>(wishes: &[Hosting], router: &Router, hosts: &'h [HostInfo]) -> Option<&'h HostInfo> {
    let said = |h: &HostInfo| wish(wishes, Task::Route, &router.id, &h.name).map(|w| w.here);
    if !is_steered(wishes, &router.id) {
        return gateway_host(&router.id, hosts.iter().filter(|h| router.fits(h)));
    }
    let asked = gateway_host(&router.id, hosts.iter().filter(|h| said(h) == Some(true)));
    asked.or_else(|| gateway_host(&router.id, hosts.iter().filter(|h| said(h) != Some(false) && router.fits(h))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_come_before_the_hash() {
        let host = |n: usize, up| HostInfo { name: format!("h{n}"), up, ..HostInfo::default() };
        let (r, s) = (Router::plain("r"), Router::plain("s"));
        let mut hosts = vec![host(1, true), host(2, true), host(3, true)];
        let first = hashed(&[], &r, &hosts).unwrap().name.clone();
        let other = hosts.iter().find(|h| h.name != first).unwrap().name.clone();
        let asked = [Hosting::new(Task::Route, "r", &other, true)];
        assert_eq!(hashed(&asked, &r, &hosts).unwrap().name, other);
        assert_eq!(hashed(&asked, &s, &hosts).map(|h| &h.name), hashed(&[], &s, &hosts).map(|h| &h.name));
        // One that is asked and down is stood in for.
        for h in hosts.iter_mut().filter(|h| h.name == other) {
            h.up = false;
        }
        assert_eq!(hashed(&asked, &r, &hosts).unwrap().name, first);
        let away = [Hosting::new(Task::Route, "r", "h1", false)];
        assert_eq!(Hosting::router_of(&away[0].id), Some("r"));
        assert_ne!(hashed(&away, &r, &hosts).unwrap().name, "h1");
        let nobody: Vec<Hosting> = hosts.iter().map(|h| Hosting::new(Task::Route, "r", &h.name, false)).collect();
        assert!(hashed(&nobody, &r, &hosts).is_none());
        assert!(answers_dhcp(&nobody, "r", "h1"), "another task");
        assert!(!answers_dhcp(&[Hosting::new(Task::Dhcp, "n", "h1", false)], "n", "h1"));
    }

    #[test]
    fn only_who_is_connected_holds_a_way() {
        let host = |n: usize, wires: &[&str]| HostInfo {
            name: format!("h{n}"),
            up: true,
            physical: Some(wires.iter().map(|w| (*w).to_owned()).collect()),
            ..HostInfo::default()
        };
        let hosts = [host(1, &["rack1"]), host(2, &["rack2"]), host(3, &[])];
        for n in 0..50 {
            let at = |wire: &str| {
                let router = Router { wire: Some(wire.into()), ..Router::plain(&format!("r{n}")) };
                hashed(&[], &router, &hosts).map(|h| h.name.as_str())
            };
            assert_eq!((at("rack1"), at("rack2"), at("rack3")), (Some("h1"), Some("h2"), None));
        }
    }

    #[test]
    fn a_way_out_is_in_the_zones_that_were_wished_for() {
        let host = |n: usize, zone: &str| HostInfo {
            name: format!("h{n}"),
            up: true,
            zone: zone.into(),
            ..HostInfo::default()
        };
        let hosts = [host(1, "west"), host(2, "east"), host(3, "")];
        for n in 0..50 {
            let at = |hints: &[&str]| {
                let hints = hints.iter().map(|hint| (*hint).to_owned()).collect();
                let router = Router { availability_zone_hints: hints, ..Router::plain(&format!("r{n}")) };
                hashed(&[], &router, &hosts).map(|h| h.name.as_str())
            };
            assert_eq!((at(&["west"]), at(&["nova"]), at(&["north"])), (Some("h1"), Some("h3"), None));
            assert!(at(&["west", "east"]) != Some("h3") && at(&[]).is_some());
        }
    }
}
