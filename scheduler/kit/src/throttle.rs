//! Rate limits: a token bucket for each project, user and address, in a table of bounded size.
//!
//! Three limits are the operator's (all off by default): calls of a project, of a user, of an address. A fourth is on by
//! default: refused authentications (401) of one address, so that passwords and tokens cannot be tried at leisure;
//! loopback is not counted, since tools and proxies of this machine come from there. Administrators and services are
//! not held up by the first two. Whoever is over a limit is told 429 with `Retry-After`.
use crate::{auth::Caller, fault::Fault};
use moka::sync::Cache;
use parking_lot::Mutex;
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// A bucket: `burst` at once, `per_minute` from then on. `per_minute` 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub per_minute: f64,
    pub burst: f64,
}

impl Rate {
    pub const OFF: Rate = Rate { per_minute: 0.0, burst: 0.0 };
    pub const fn new(per_minute: f64, burst: f64) -> Self {
        Rate { per_minute, burst }
    }
    fn is_off(&self) -> bool {
        self.per_minute <= 0.0
    }
}

/// What an operator may set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    pub project: Rate,
    pub user: Rate,
    pub address: Rate,
    /// Refused authentications of one address.
    pub refused: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { project: Rate::OFF, user: Rate::OFF, address: Rate::OFF, refused: Rate::new(30.0, 60.0) }
    }
}

/// Buckets at most; the ones that were not used for longest go first.
const BUCKETS: u64 = 100_000;
const IDLE: Duration = Duration::from_secs(600);
/// Roles that the limits of projects and users do not hold up.
const FREE: &[&str] = &["admin", "service"];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Project(String),
    User(String),
    Address(IpAddr),
    Refused(IpAddr),
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// The table of buckets.
#[derive(Debug, Clone)]
pub struct Throttle {
    limits: Limits,
    buckets: Cache<Key, Arc<Mutex<Bucket>>>,
}

impl Default for Throttle {
    fn default() -> Self {
        Throttle::new(Limits::default())
    }
}

/// One network of IPv6 is one client: whoever has one address has 2^64.
fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        },
        v4 => v4,
    }
}

impl Throttle {
    pub fn new(limits: Limits) -> Self {
        Throttle { limits, buckets: Cache::builder().max_capacity(BUCKETS).time_to_idle(IDLE).build() }
    }

    /// Takes `cost` from a bucket; the seconds to wait when there is not enough.
    fn take(&self, key: Key, rate: Rate, cost: f64, now: Instant) -> Result<(), f64> {
        if rate.is_off() {
            return Ok(());
        }
        let burst = rate.burst.max(1.0);
        let bucket = self.buckets.get_with(key, || Arc::new(Mutex::new(Bucket { left: burst, at: now })));
        let mut bucket = bucket.lock();
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * rate.per_minute / 60.0;
        (bucket.left, bucket.at) = ((bucket.left + gained).min(burst), now);
        if bucket.left >= 1.0 {
            bucket.left -= cost;
            return Ok(());
        }
        Err((1.0 - bucket.left) * 60.0 / rate.per_minute)
    }

    /// Before anything of a request is looked at.
    pub fn arrived(&self, address: IpAddr) -> Result<(), Fault> {
        self.arrived_at(address, Instant::now())
    }

    fn arrived_at(&self, address: IpAddr, now: Instant) -> Result<(), Fault> {
        let address = client(address);
        self.take(Key::Address(address), self.limits.address, 1.0, now).map_err(|s| over("this address", s))?;
        if address.is_loopback() {
            return Ok(());
        }
        // Only looked at: refusals pay, in `refused`.
        self.take(Key::Refused(address), self.limits.refused, 0.0, now)
            .map_err(|s| over("refused authentications of this address", s))
    }

    /// An authentication was refused.
    pub fn refused(&self, address: IpAddr) {
        let address = client(address);
        if !address.is_loopback() {
            let _ = self.take(Key::Refused(address), self.limits.refused, 1.0, Instant::now());
        }
    }

    /// Once it is known who calls.
    pub fn authenticated(&self, caller: &Caller) -> Result<(), Fault> {
        if (self.limits.project.is_off() && self.limits.user.is_off()) || FREE.iter().any(|r| caller.has_role(r)) {
            return Ok(());
        }
        let now = Instant::now();
        if let Some(project) = caller.project_id() {
            self.take(Key::Project(project.to_owned()), self.limits.project, 1.0, now)
                .map_err(|s| over("this project", s))?;
        }
        self.take(Key::User(caller.user_id.clone()), self.limits.user, 1.0, now).map_err(|s| over("this user", s))
    }
}

fn over(what: &str, seconds: f64) -> Fault {
    let seconds = seconds.ceil().clamp(1.0, 3600.0);
    Fault::new(429, format!("Too many requests ({what}). Try again in {seconds} s."))
        .kind("OverLimit")
        .header("retry-after", format!("{seconds}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let limits = Limits { address: Rate::new(60.0, 3.0), ..Limits::default() };
        let (throttle, start) = (Throttle::new(limits), Instant::now());
        let a = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let at = |s: u64| start + Duration::from_secs(s);
        assert!((0..3).all(|_| throttle.arrived_at(a, at(0)).is_ok()));
        let fault = throttle.arrived_at(a, at(0)).unwrap_err();
        assert_eq!((fault.code(), fault.headers[0].0, fault.headers[0].1.as_str()), (429, "retry-after", "1"));
        assert!(throttle.arrived_at(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), at(0)).is_ok(), "another address");
        assert!(throttle.arrived_at(a, at(1)).is_ok());
        assert!(throttle.arrived_at(a, at(1)).is_err());
        assert_eq!((0..9).filter(|_| throttle.arrived_at(a, at(500)).is_ok()).count(), 3, "never more than the burst");
    }

    #[test]
    fn refusals_shut_an_address_out_and_not_this_machine() {
        let throttle = Throttle::new(Limits { refused: Rate::new(1.0, 2.0), ..Limits::default() });
        let a = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        for _ in 0..2 {
            assert!(throttle.arrived(a).is_ok());
            throttle.refused(a);
        }
        assert_eq!(throttle.arrived(a).unwrap_err().code(), 429);
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        (0..9).for_each(|_| throttle.refused(here));
        assert!(throttle.arrived(here).is_ok());
    }

    #[test]
    fn projects_share_and_administrators_go_free() {
        let throttle = Throttle::new(Limits { project: Rate::new(1.0, 2.0), ..Limits::default() });
        let member = crate::testing::caller("p", &["member"]);
        let other = Caller { user_id: "another".into(), ..member.clone() };
        assert!(throttle.authenticated(&member).is_ok() && throttle.authenticated(&other).is_ok());
        assert_eq!(throttle.authenticated(&member).unwrap_err().code(), 429);
        assert!(throttle.authenticated(&crate::testing::caller("p", &["admin"])).is_ok());
        let one = client("2001:db8::1".parse().unwrap());
        assert_eq!(one, client("2001:db8::ffff:1".parse().unwrap()));
    }
}
