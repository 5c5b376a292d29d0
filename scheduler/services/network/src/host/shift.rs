//! Hosts came, went or moved: which ways out have moved with that, and who must know it.
use super::{HostInfo, find_host, gateway_host, interest::WAYS_OUT};
use crate::{
    Network,
    hosting::{
        self,
        model::{Hosting, holder, is_steered},
    },
    router::model::Router,
    tables::find,
};
use pilvi_kit::Fault;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    iter::once,
};

/// Two lists of hosts, and where they differ.
struct Shift<'h> {
    before: &'h [HostInfo],
    now: &'h [HostInfo],
    /// Names of hosts that are not the same in both.
    changed: HashSet<&'h str>,
}

impl<'h> Shift<'h> {
    fn new(before: &'h [HostInfo], now: &'h [HostInfo]) -> Self {
        let known: HashMap<&str, &HostInfo> = before.iter().map(|h| (h.name.as_str(), h)).collect();
        let same: HashSet<&str> =
            now.iter().filter(|h| known.get(h.name.as_str()) == Some(h)).map(|h| h.name.as_str()).collect();
        let changed = before.iter().chain(now).map(|h| h.name.as_str()).filter(|name| !same.contains(name)).collect();
        Shift { before, now, changed }
    }

    /// Is there a host with another underlay address, or another key?
    fn has_moved(&self) -> bool {
        let of = |hosts: &'h [HostInfo], name| find_host(hosts, name).map(|h| (&h.vtep, &h.wireguard));
        self.changed.iter().any(|name| match (of(self.before, name), of(self.now, name)) {
            (Some(was), Some(is)) => was != is,
            _ => false,
        })
    }

    fn moved(&self, hosts: &'h [HostInfo]) -> impl Iterator<Item = &'h HostInfo> {
        hosts.iter().filter(|h| self.changed.contains(h.name.as_str()))
    }

    /// Who held the router's way out, and who holds it now. Where the hash decides, the hosts that are the same are looked at
    /// once for both.
    fn holders(&self, wishes: &[Hosting], router: &Router) -> (Option<&'h HostInfo>, Option<&'h HostInfo>) {
        if !router.candidates.is_empty() || is_steered(wishes, &router.id) {
            return (holder(wishes, router, self.before), holder(wishes, router, self.now));
        }
        let able = |h: &&HostInfo| router.fits(h);
        let calm = self.now.iter().filter(|h| !self.changed.contains(h.name.as_str()));
        let calm = gateway_host(&router.id, calm.filter(able));
        let with = |hosts| gateway_host(&router.id, calm.into_iter().chain(self.moved(hosts).filter(able)));
        (with(self.before), with(self.now))
    }
}

impl Network {
    /// Hosts are no longer as they were `before`: who may hold a way out, and who must know it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn concerned_by_hosts(&self, before: &[HostInfo]) -> Result<BTreeSet<String>, Fault> {
        let now = self.hosts();
        let routers = self.store.list::<Router>(find::with_gateway()).await?;
        let wishes = hosting::ops::all(&self.store).await?;
        let shift = Shift::new(before, &now);
        let mut hosts: BTreeSet<String> = shift.changed.iter().map(|name| (*name).to_owned()).collect();
        // The only host holds all ways without a word of where: with the second one every view is another. And an address
        // stands in many.
        let all_anew = before.len() < 2 || now.len() < 2 || shift.has_moved();
        let mut keys = Vec::new();
        for router in &routers {
            let (was, is) = shift.holders(&wishes, router);
            if was != is || all_anew {
                keys.push(router.id.as_str());
                hosts.extend(was.into_iter().chain(is).map(|h| h.name.clone()));
            }
        }
        hosts.extend(self.interest.hosts(keys.into_iter()));
        if all_anew {
            hosts.extend(self.interest.hosts(once(WAYS_OUT)));
        }
        Ok(hosts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_by_the_difference_is_what_the_whole_lists_say() {
        let host = |n: usize| HostInfo { name: format!("h{n}"), up: true, ..HostInfo::default() };
        let before: Vec<HostInfo> = (1..8).map(host).collect();
        let mut now: Vec<HostInfo> = (2..10).map(host).collect();
        now[2].up = false;
        now[3].vtep = "10.0.0.9".into();
        now[4].physical = Some(Vec::new());
        let shift = Shift::new(&before, &now);
        assert_eq!(shift.changed.len(), 6, "one that went, two that came, three that changed");
        let mut moved = 0;
        for n in 0..300 {
            let mut router = Router::plain(&format!("r{n}"));
            router.wire = (n % 2 == 0).then(|| "rack1".to_owned());
            let whole = (holder(&[], &router, &before), holder(&[], &router, &now));
            assert_eq!(shift.holders(&[], &router), whole);
            moved += usize::from(whole.0 != whole.1);
        }
        assert!((50..300).contains(&moved), "{moved}");
    }
}
