//! How long a worker looks at an empty queue before it asks to be notified and sleeps.
//!
//! A driver that waits for what it has asked for asks again within microseconds; a notification costs it an exit, and the
//! worker being woken. So a worker looks on for a moment. Where that was in vain, it is left out the next 1, 3, 7 ... 63
//! times: an idle device costs nothing, and a slow one next to nothing.

use std::time::{Duration, Instant};

/// Long enough for a driver that goes on, short beside what waking a thread costs.
const WINDOW: Duration = Duration::from_micros(50);
const MISSES_MAX: u32 = 6;

/// A worker's patience.
#[derive(Debug, Default)]
pub struct Patience {
    until: Option<Instant>,
    misses: u32,
    skip: u32,
}

impl Patience {
    /// Whether to look once more, for the first time or again.
    pub fn lasts(&mut self) -> bool {
        match self.until {
            Some(until) => Instant::now() < until,
            None if self.skip > 0 => {
                self.skip -= 1;
                false
            }
            None => {
                self.until = Some(Instant::now() + WINDOW);
                true
            }
        }
    }

    /// There was something.
    pub fn rewarded(&mut self) {
        *self = Patience::default();
    }

    /// There was nothing until it ended, if it had begun.
    pub fn ended(&mut self) {
        if self.until.take().is_some() {
            self.misses = (self.misses + 1).min(MISSES_MAX);
            self.skip = (1 << self.misses) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(patience: &mut Patience, times: usize) -> usize {
        let look = |_: &usize| {
            let began = patience.lasts();
            while patience.lasts() && began {}
            patience.ended();
            began
        };
        (0..times).filter(look).count()
    }

    #[test]
    fn looking_in_vain_is_left_out_more_and_more() {
        let mut patience = Patience::default();
        assert!(patience.lasts());
        let begin = Instant::now();
        while patience.lasts() {}
        assert!(begin.elapsed() < Duration::from_secs(10));
        patience.ended();
        let (mut seen, mut gaps) = (0, Vec::new());
        for n in 0..1000 {
            if patience.lasts() {
                gaps.push(n - seen);
                seen = n + 1;
                patience.ended();
            }
        }
        assert_eq!(gaps[..7], [1, 3, 7, 15, 31, 63, 63]);
    }

    #[test]
    fn a_reward_makes_it_new() {
        let mut patience = Patience::default();
        assert!(looks(&mut patience, 1000) < 30);
        patience.rewarded();
        assert!(patience.lasts());
        patience.rewarded();
        assert!(patience.lasts());
    }
}
