//! Zones whose server does not do what it is asked: nobody asks again before a while has passed, and the log has one
//! line for each try and not for each name.
use parking_lot::Mutex;
use pilvi_dns_update::Trouble;
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct Outages {
    zones: Mutex<HashMap<String, Outage>>,
}

#[derive(Debug)]
struct Outage {
    until: Instant,
    wait: Duration,
}

impl Outages {
    /// How long a zone is left alone yet. Whoever asks when the time is over is the one who tries.
    pub fn rest(&self, zone: &str) -> Option<Duration> {
        self.rest_at(zone, Instant::now())
    }

    fn rest_at(&self, zone: &str, now: Instant) -> Option<Duration> {
        let mut zones = self.zones.lock();
        let outage = zones.get_mut(zone)?;
        if let Some(rest) = outage.until.checked_duration_since(now).filter(|rest| !rest.is_zero()) {
            return Some(rest);
        }
        outage.until = now + outage.wait;
        None
    }

    pub fn begin(&self, zone: &str, trouble: &Trouble) -> Duration {
        let mut zones = self.zones.lock();
        let wait = zones.get(zone).map_or(FIRST, |outage| (outage.wait * 2).min(LONGEST));
        zones.insert(zone.to_owned(), Outage { until: Instant::now() + wait, wait });
        tracing::warn!(zone, error = %trouble, again_in_ms = wait.as_millis(), "names are not published");
        wait
    }

    pub fn end(&self, zone: &str) {
        if self.zones.lock().remove(zone).is_some() {
            tracing::info!(zone, "names are published again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tries_and_the_others_wait_longer_each_time() {
        let (outages, trouble, begun) = (Outages::default(), Trouble::Key("x".into()), Instant::now());
        assert_eq!(outages.rest("a"), None);
        assert_eq!(outages.begin("a", &trouble), FIRST);
        assert!(outages.rest_at("a", begun).is_some_and(|rest| rest >= FIRST));
        assert_eq!(outages.rest("b"), None);
        let later = Instant::now() + FIRST;
        assert_eq!(outages.rest_at("a", later), None, "one tries");
        assert_eq!(outages.rest_at("a", later), Some(FIRST), "and no other meanwhile");
        for _ in 0..8 {
            outages.begin("a", &trouble);
        }
        assert!(outages.rest_at("a", begun).is_some_and(|rest| rest >= LONGEST));
        outages.end("a");
        assert_eq!(outages.rest("a"), None);
    }
}
