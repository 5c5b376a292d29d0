//! The board: what this host observes, put together by many tasks and sent by one.
//!
//! Tasks write whenever something changes; the session reads the whole board at its own pace. A
//! hundred changes between two looks are one message.
use pilvi_agent_api::v1::{
    Observed, ObservedDelegation, ObservedInstance, ObservedMeter, ObservedPort, ObservedVolume,
};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What is known of this host at this moment.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    instances: BTreeMap<String, ObservedInstance>,
    volumes: BTreeMap<String, ObservedVolume>,
    ports: Vec<ObservedPort>,
    network_error: String,
    meters: Vec<ObservedMeter>,
    delegations: Vec<ObservedDelegation>,
}

impl Default for Board {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Board {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        if change(&mut self.locked()) {
            self.changed.send_modify(|version| *version += 1);
        }
    }

    /// The wanted generation that was taken up.
    pub fn set_generation(&self, generation: u64) {
        self.change(|state| std::mem::replace(&mut state.generation, generation) != generation);
    }

    /// The wanted generation that was taken up last.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.locked().generation
    }

    /// What one instance looks like now.
    pub fn set_instance(&self, seen: ObservedInstance) {
        self.change(|state| {
            let old = state.instances.insert(seen.id.clone(), seen.clone());
            old.as_ref() != Some(&seen)
        });
    }

    /// What was last seen of one instance.
    #[must_use]
    pub fn instance(&self, id: &str) -> Option<ObservedInstance> {
        self.locked().instances.get(id).cloned()
    }

    /// One instance is gone from this host.
    pub fn remove_instance(&self, id: &str) {
        self.change(|state| state.instances.remove(id).is_some());
    }

    /// What one volume looks like now.
    pub fn set_volume(&self, seen: ObservedVolume) {
        self.change(|state| {
            let old = state.volumes.insert(seen.id.clone(), seen.clone());
            old.as_ref() != Some(&seen)
        });
    }

    /// What was last seen of one volume.
    #[must_use]
    pub fn volume(&self, id: &str) -> Option<ObservedVolume> {
        self.locked().volumes.get(id).cloned()
    }

    /// Instances whose machines have the volume.
    #[must_use]
    pub fn holders(&self, volume: &str) -> Vec<String> {
        let state = self.locked();
        let holds = state.instances.values().filter(|seen| seen.devices.iter().any(|device| device == volume));
        holds.map(|seen| seen.id.clone()).collect()
    }

    /// One volume is gone from this host.
    pub fn remove_volume(&self, id: &str) {
        self.change(|state| state.volumes.remove(id).is_some());
    }

    /// The packet path as it is now.
    pub fn set_network(&self, ports: Vec<ObservedPort>, error: String) {
        self.change(|state| {
            let same = state.ports == ports && state.network_error == error;
            (state.ports, state.network_error) = (ports, error);
            !same
        });
    }

    /// What the labels have counted.
    pub fn set_meters(&self, meters: Vec<ObservedMeter>) {
        self.change(|state| std::mem::replace(&mut state.meters, meters.clone()) != meters);
    }

    /// What has become of lent prefixes.
    pub fn set_delegations(&self, known: Vec<ObservedDelegation>) {
        self.change(|state| std::mem::replace(&mut state.delegations, known.clone()) != known);
    }

    /// Everything.
    #[must_use]
    pub fn snapshot(&self) -> Observed {
        let state = self.locked();
        Observed {
            generation: state.generation,
            instances: state.instances.values().cloned().collect(),
            ports: state.ports.clone(),
            network_error: state.network_error.clone(),
            meters: state.meters.clone(),
            delegations: state.delegations.clone(),
            volumes: state.volumes.values().cloned().collect(),
        }
    }

    /// Tells of each change; several may be one.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_wake() {
        let board = Board::default();
        let mut watch = board.watch();
        let seen = ObservedInstance { id: "a".into(), ..Default::default() };
        board.set_instance(seen.clone());
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        board.set_instance(seen);
        board.set_network(Vec::new(), String::new());
        board.remove_instance("b");
        assert!(!watch.has_changed().unwrap());
        board.remove_instance("a");
        assert!(watch.has_changed().unwrap() && board.snapshot().instances.is_empty());
    }
}
