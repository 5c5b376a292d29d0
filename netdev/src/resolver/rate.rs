//! How much one port may ask: a bucket of questions each, for datagrams and connections together.
//!
//! The packet path has the same limit before the queue that all ports share (`bpf/names.h`); this one also counts the
//! questions that come by one connection.
use super::book::Shelf;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Questions of one port: a second, and at once.
const RATE: f64 = 100.0;
const BURST: f64 = 200.0;
/// Buckets that are kept before those of ports that are gone are dropped.
const BUCKETS: usize = 4096;

/// Shared by all that answers.
pub(crate) type Rates = Arc<Mutex<Buckets>>;

#[derive(Debug, Default)]
pub(crate) struct Buckets {
    /// What is left, and since when.
    left: HashMap<u32, (f64, Instant)>,
}

impl Buckets {
    /// Whether the port has not asked too much.
    pub fn may(&mut self, name: u32, shelf: &Shelf) -> bool {
        self.may_at(name, Instant::now(), shelf)
    }

    fn may_at(&mut self, name: u32, now: Instant, shelf: &Shelf) -> bool {
        if self.left.len() > BUCKETS {
            let book = shelf.read().clone();
            self.left.retain(|name, _| book.named(*name).is_some());
        }
        let (left, since) = self.left.entry(name).or_insert((BURST, now));
        *left = (*left + now.saturating_duration_since(*since).as_secs_f64() * RATE).min(BURST);
        *since = now;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_port_has_a_rate_of_its_own_and_buckets_do_not_pile_up() {
        let (mut buckets, shelf, now) = (Buckets::default(), Shelf::default(), Instant::now());
        assert_eq!((0..500).filter(|_| buckets.may_at(1, now, &shelf)).count(), 200);
        assert!(buckets.may_at(2, now, &shelf), "another port's is untouched");
        let later = now + Duration::from_millis(105);
        assert_eq!((0..500).filter(|_| buckets.may_at(1, later, &shelf)).count(), 10);
        for name in 0..20_000 {
            buckets.may_at(name, later, &shelf);
        }
        assert!(buckets.left.len() <= BUCKETS + 1, "nobody of them has a port");
    }
}
