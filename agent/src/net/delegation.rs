//! Prefixes that this host's packet path is lent (DHCPv6): which to ask for, what has become of them, and the file that keeps them.
//!
//! ```text
//!  wanted: delegations of routers, releases --> netdev --> what is known --> file (durable) --> board
//!  start:  file --> netdev
//! ```
//! It is written down before it is said: a prefix that the scheduler knows of is one that the next agent knows of.
use super::{AGAIN, Plane};
use crate::durable::{self, Loaded};
use crate::report::Board;
use pilvi_agent_api::v1::{HostNetwork, ObservedDelegation};
use pilvi_netdev::wanted::{Ask, Delegation, LentSubnet};
use pilvi_netdev::{Delegated, Kept};
use std::path::{Path, PathBuf};

impl Plane {
    /// Says what has become of lent prefixes. Never returns.
    pub async fn delegate(&self, board: &Board) {
        loop {
            match self.network.delegations().await {
                Ok(known) => board.set_delegations(known),
                Err(error) => {
                    tracing::error!(error, "lent prefixes");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// The client's name of a router's prefix for a subnet.
fn name(router: &str, subnet: &str) -> String {
    format!("{router}/{subnet}")
}

/// What is to be asked for and given back; what cannot be read is left out and logged.
pub(super) fn wanted(from: &HostNetwork) -> Vec<Delegation> {
    let asked = from.routers.iter().flat_map(|router| {
        router.delegations.iter().filter_map(|d| {
            let mac = router.gateway6.as_ref().and_then(|g| super::convert::mac(&g.mac).ok());
            if mac.is_none() {
                tracing::error!(router = router.id, "asks for a prefix and has no way out");
            }
            let had = d.had.parse().ok().map(|prefix| (prefix, d.until));
            Some(Delegation { id: name(&router.id, &d.subnet_id), ask: Some(Ask { mac: mac?, had }) })
        })
    });
    let mut all: Vec<Delegation> = asked.collect();
    for release in &from.releases {
        let id = name(&release.router_id, &release.subnet_id);
        if !all.iter().any(|d| d.id == id) {
            all.push(Delegation { id, ask: None });
        }
    }
    all
}

pub(super) fn lent(from: &HostNetwork) -> Vec<LentSubnet> {
    let subnets = from.networks.iter().flat_map(|network| &network.subnets).filter(|s| s.lent_until > 0);
    subnets.map(|s| LentSubnet { subnet: s.id.clone(), until: s.lent_until }).collect()
}

pub(super) fn observed(told: &[Delegated]) -> Vec<ObservedDelegation> {
    let one = |d: &Delegated| {
        let (router, subnet) = d.id.split_once('/')?;
        Some(ObservedDelegation {
            router_id: router.to_owned(),
            subnet_id: subnet.to_owned(),
            prefix: d.prefix.map(|p| p.to_string()).unwrap_or_default(),
            until: d.until,
            released: d.released,
        })
    };
    told.iter().filter_map(one).collect()
}

/// Where they are kept.
#[derive(Debug)]
pub(super) struct Shelf(PathBuf);

impl Shelf {
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("delegations"))
    }

    /// What an earlier agent has written. What is damaged is forgotten: the servers know it too.
    pub fn load(&self) -> Vec<Kept> {
        let read = match durable::load(&self.0) {
            Ok(Loaded::Missing) => return Vec::new(),
            Ok(Loaded::Sound(bytes)) => serde_json::from_slice(&bytes).map_err(|e| e.to_string()),
            Ok(Loaded::Damaged(why)) => Err(why),
            Err(error) => Err(error.to_string()),
        };
        read.unwrap_or_else(|why| {
            tracing::warn!(why, file = %self.0.display(), "lent prefixes are not known any more");
            Vec::new()
        })
    }

    pub fn save(&self, kept: &[Kept]) -> Result<(), String> {
        if kept.is_empty() {
            return durable::remove(&self.0).map_err(|e| e.to_string());
        }
        let bytes = serde_json::to_vec(kept).map_err(|e| e.to_string())?;
        durable::save(&self.0, &bytes).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilvi_agent_api::v1::{self, Router, RouterGateway};
    use pilvi_netdev::wanted::Mac;

    #[test]
    fn the_wanted_set_says_what_to_ask_for_and_what_to_give_back() {
        let had = v1::Delegation { subnet_id: "s".into(), had: "2001:db8:7::/64".into(), until: 9 };
        let none = v1::Delegation { subnet_id: "t".into(), ..v1::Delegation::default() };
        let gateway6 = Some(RouterGateway { mac: "fa:16:3e:00:00:01".into(), ..RouterGateway::default() });
        let set = HostNetwork {
            routers: vec![
                Router { id: "r".into(), gateway6, delegations: vec![had.clone(), none], ..Router::default() },
                Router { id: "q".into(), delegations: vec![had], ..Router::default() },
            ],
            releases: ["u", "s"].map(|s| v1::Release { router_id: "r".into(), subnet_id: s.into() }).to_vec(),
            ..HostNetwork::default()
        };
        let mac = Mac([0xfa, 0x16, 0x3e, 0, 0, 1]);
        let ask = |id: &str, had| Delegation { id: id.into(), ask: Some(Ask { mac, had }) };
        let had = Some(("2001:db8:7::/64".parse().unwrap(), 9));
        assert_eq!(wanted(&set), [ask("r/s", had), ask("r/t", None), Delegation { id: "r/u".into(), ask: None }]);
    }

    #[test]
    fn what_is_kept_is_there_again_and_damage_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path());
        assert!(shelf.load().is_empty());
        let kept = Kept {
            id: "r/s".into(),
            mac: Mac([1; 6]),
            prefix: "2001:db8:7::/64".parse().unwrap(),
            server: vec![1, 2, 3],
            t1: 5,
            t2: 8,
            until: u64::MAX,
        };
        shelf.save(std::slice::from_ref(&kept)).unwrap();
        assert_eq!(shelf.load(), std::slice::from_ref(&kept));
        shelf.save(&[]).unwrap();
        assert!(shelf.load().is_empty() && !shelf.0.exists());
        shelf.save(&[kept]).unwrap();
        std::fs::write(&shelf.0, b"{}").unwrap();
        assert!(shelf.load().is_empty());
    }

    #[test]
    fn what_is_known_is_told_by_router_and_subnet() {
        let one = Delegated { id: "r/s".into(), prefix: "2001:db8:7::/64".parse().ok(), until: 7, released: false };
        let gone = Delegated { id: "r/t".into(), prefix: None, until: 0, released: true };
        let said = observed(&[one, gone]);
        assert_eq!((said[0].router_id.as_str(), said[0].subnet_id.as_str(), said[0].until), ("r", "s", 7));
        assert_eq!((said[0].prefix.as_str(), said[1].prefix.as_str(), said[1].released), ("2001:db8:7::/64", "", true));
    }
}
