//! How far an image's imports are, as its record keeps it; pure.
//!
//! One import at a time holds an image. The lock is the id of its task; a lock whose task has not been heard of for
//! long is stale, and the next import takes it.
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// The task that holds the image.
    pub task: Option<String>,
    /// Has there been an import? Then the lists are shown, empty or not.
    pub begun: bool,
    /// Ids of stores that the bytes are still to go to.
    pub importing: BTreeSet<String>,
    /// Ids of stores where they did not arrive.
    pub failed: BTreeSet<String>,
}

/// What is known of the task that holds an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    pub pending: bool,
    /// Microseconds since it was last heard of.
    pub silent_us: i64,
}

/// Is a lock stale? One without a task is; a task that has not begun may wait twice as long.
pub fn is_stale(holder: Option<Holder>, after_us: i64) -> bool {
    holder.is_none_or(|holder| holder.silent_us >= if holder.pending { after_us.saturating_mul(2) } else { after_us })
}

impl Import {
    /// A task takes the image, to bring its bytes to these stores; what the task before it left is forgotten.
    pub fn begin(&mut self, task: &str, stores: &[String]) {
        self.task = Some(task.to_owned());
        self.begun = true;
        self.importing = stores.iter().cloned().collect();
        self.failed = self.failed.iter().filter(|store| !stores.contains(store)).cloned().collect();
    }

    pub fn holds(&self, task: &str) -> bool {
        self.task.as_deref() == Some(task)
    }

    /// The bytes are in a store.
    pub fn arrived(&mut self, store: &str) {
        self.importing.remove(store);
    }

    /// The bytes did not get into a store.
    pub fn failed(&mut self, store: &str) {
        self.importing.remove(store);
        self.failed.insert(store.to_owned());
    }

    /// The import is over. Stores that it did not get to are failures, unless it did what it was asked.
    pub fn end(&mut self, succeeded: bool) {
        self.task = None;
        let left = std::mem::take(&mut self.importing);
        if !succeeded {
            self.failed.extend(left);
        }
    }

    /// A list as clients see it.
    pub fn listed(stores: &BTreeSet<String>) -> String {
        stores.iter().map(String::as_str).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_follow_the_import() {
        let stores = ["a".to_owned(), "b".to_owned()];
        let mut import = Import::default();
        import.begin("t", &stores);
        assert!(import.holds("t") && !import.holds("u"));
        assert_eq!(Import::listed(&import.importing), "a,b");
        import.arrived("a");
        import.failed("b");
        import.end(true);
        assert_eq!((Import::listed(&import.importing), Import::listed(&import.failed)), (String::new(), "b".into()));
        import.begin("u", &stores);
        assert!(import.failed.is_empty());
        import.end(false);
        assert_eq!(Import::listed(&import.failed), "a,b");
        assert!(import.task.is_none() && import.begun);
    }

    #[test]
    fn locks_go_stale() {
        let holder = |pending, silent_us| Some(Holder { pending, silent_us });
        assert!(is_stale(None, 100));
        assert!(!is_stale(holder(false, 99), 100) && is_stale(holder(false, 100), 100));
        assert!(!is_stale(holder(true, 199), 100) && is_stale(holder(true, 200), 100));
    }
}
