//! The CMOS clock, for reading: a guest learns the time of day (UTC) before it has a network.
//!
//! BCD (Linux looks at no flag that says otherwise), 24 hours, never in update. Alarms and writes do not exist.

use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// Port that selects a register.
pub const INDEX: u16 = 0x70;
/// Port that reads it.
pub const DATA: u16 = 0x71;

/// The selected register.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Clock {
    index: u8,
}

impl Clock {
    /// Selects a register; bit 7 would mask NMI and is ignored.
    pub fn select(&mut self, index: u8) {
        self.index = index & 0x7f;
    }

    /// Reads the selected register at this moment.
    pub fn read(&self) -> u8 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        register(self.index, now)
    }
}

/// Year, month and day for days since 1970-01-01 (proleptic Gregorian).
fn civil(days: u64) -> (u64, u8, u8) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month as u8, day as u8)
}

fn register(index: u8, seconds: u64) -> u8 {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let value = match index {
        0x00 => second % 60,
        0x02 => second / 60 % 60,
        0x04 => second / 3600,
        0x06 => (days + 4) % 7 + 1,
        0x07 => u64::from(day),
        0x08 => u64::from(month),
        0x09 => year % 100,
        0x32 => year / 100,
        0x0a => return 0x26, // 32 kHz divider, no update in progress
        0x0b => return 0x02, // 24 hours
        0x0d => return 0x80, // battery good
        _ => 0,
    };
    (value / 10 * 16 + value % 10) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_come_out_right() {
        let at = |seconds| [9, 8, 7, 4, 2, 0, 6].map(|index| register(index, seconds));
        assert_eq!(at(0), [0x70, 1, 1, 0, 0, 0, 5]);
        assert_eq!(at(951_782_399), [0, 2, 0x28, 0x23, 0x59, 0x59, 2]);
        assert_eq!(at(951_782_400), [0, 2, 0x29, 0, 0, 0, 3]);
        assert_eq!(at(1_798_761_599), [0x26, 0x12, 0x31, 0x23, 0x59, 0x59, 5]);
        assert_eq!(register(0x32, 1_798_761_599), 0x20);
    }

    #[test]
    fn it_is_never_in_update() {
        let mut clock = Clock::default();
        clock.select(0x8a);
        assert_eq!(clock.read() & 0x80, 0);
    }
}
