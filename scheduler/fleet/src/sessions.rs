//! The sessions that this scheduler has, found by node and by the host's name.
use crate::session::Session;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_node: HashMap<String, Arc<Session>>,
    /// Node by the name of its host.
    nodes: HashMap<String, String>,
}

impl Known {
    fn remove(&mut self, node: &str) -> Option<Arc<Session>> {
        let session = self.by_node.remove(node)?;
        if self.nodes.get(&session.host).is_some_and(|of| of == node) {
            self.nodes.remove(&session.host);
        }
        Some(session)
    }
}

impl Sessions {
    pub fn insert(&self, node: &str, session: &Arc<Session>) {
        let mut known = self.0.lock();
        known.remove(node);
        known.nodes.insert(session.host.clone(), node.to_owned());
        known.by_node.insert(node.to_owned(), session.clone());
    }

    pub fn remove(&self, node: &str) -> Option<Arc<Session>> {
        self.0.lock().remove(node)
    }

    /// Unless the node has a newer one.
    pub fn remove_this(&self, node: &str, session: &Arc<Session>) {
        let mut known = self.0.lock();
        if known.by_node.get(node).is_some_and(|s| Arc::ptr_eq(s, session)) {
            known.remove(node);
        }
    }

    pub fn get(&self, node: &str) -> Option<Arc<Session>> {
        self.0.lock().by_node.get(node).cloned()
    }

    /// With its node.
    pub fn of_host(&self, host: &str) -> Option<(String, Arc<Session>)> {
        let known = self.0.lock();
        let node = known.nodes.get(host)?;
        Some((node.clone(), known.by_node.get(node)?.clone()))
    }

    pub fn all(&self) -> Vec<Arc<Session>> {
        self.0.lock().by_node.values().cloned().collect()
    }

    /// Names of the hosts.
    pub fn hosts(&self) -> Vec<String> {
        self.0.lock().nodes.keys().cloned().collect()
    }

    pub fn take(&self) -> Vec<Arc<Session>> {
        std::mem::take(&mut *self.0.lock()).by_node.into_values().collect()
    }

    pub fn len(&self) -> usize {
        self.0.lock().by_node.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // as in any test
    use super::*;

    #[test]
    fn a_newer_session_takes_the_place_and_an_older_end_does_not_take_it_away() {
        let session = |host: &str| Arc::new(Session::new(host.into(), tokio::sync::mpsc::channel(1).0));
        let (sessions, old, new, other) = (Sessions::default(), session("h1"), session("h1"), session("h2"));
        sessions.insert("n1", &old);
        sessions.insert("n1", &new);
        sessions.insert("n2", &other);
        sessions.remove_this("n1", &old);
        let (node, found) = sessions.of_host("h1").unwrap();
        assert!(node == "n1" && Arc::ptr_eq(&found, &new));
        // The host has joined anew, as another node.
        sessions.insert("n3", &old);
        assert!(Arc::ptr_eq(&sessions.remove("n1").unwrap(), &new));
        assert_eq!(sessions.of_host("h1").unwrap().0, "n3");
        sessions.remove_this("n3", &old);
        assert!(sessions.of_host("h1").is_none() && sessions.get("n3").is_none());
        assert_eq!((sessions.len(), sessions.hosts()), (1, vec!["h2".to_owned()]));
        assert_eq!((sessions.take().len(), sessions.all().len()), (1, 0));
    }
}
