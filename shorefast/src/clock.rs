//! Wall-clock time for people: seconds since 1970 to a UTC calendar and back to text. Nothing is decided by it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A wall-clock time in milliseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct WallTime(pub u64);

impl WallTime {
    /// Now.
    pub fn now() -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// So much earlier.
    pub fn earlier(self, by: Duration) -> WallTime {
        WallTime(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long before `later` this was; zero if it was not before.
    pub fn until(self, later: WallTime) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }

    /// Year, month, day (UTC).
    pub fn date(self) -> (i32, u8, u8) {
        civil_from_days(i64::try_from(self.0 / 86_400_000).unwrap_or(0))
    }

    /// Only the time of day, `12:03:11`.
    pub fn time_of_day(self) -> String {
        let s = self.0 / 1000 % 86_400;
        format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, m, d) = self.date();
        write!(f, "{y:04}-{m:02}-{d:02}T{}.{:03}Z", self.time_of_day(), self.0 % 1000)
    }
}

/// A duration as people say it: `0.8s`, `42s`, `3m`, `5h`, `2d`.
pub fn short(d: Duration) -> String {
    match d.as_secs() {
        0..=9 => format!("{:.1}s", d.as_secs_f64()),
        s @ 10..=119 => format!("{s}s"),
        s @ 120..=7199 => format!("{}m", s / 60),
        s @ 7200..=172_799 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// Days since 1970-01-01 to a Gregorian date (the era algorithm: 400 years are 146 097 days; years begin in March).
fn civil_from_days(days: i64) -> (i32, u8, u8) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (i32::try_from(year).unwrap_or(i32::MAX), u8::try_from(month).unwrap_or(1), u8::try_from(day).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_print_as_the_calendar_has_them() {
        assert_eq!(WallTime(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(WallTime(951_782_400_000).to_string(), "2000-02-29T00:00:00.000Z");
        assert_eq!(WallTime(1_767_225_599_999).to_string(), "2025-12-31T23:59:59.999Z");
    }

    #[test]
    fn durations_print_in_the_unit_people_would_say() {
        assert_eq!(short(Duration::from_millis(840)), "0.8s");
        assert_eq!(short(Duration::from_secs(42)), "42s");
        assert_eq!(short(Duration::from_secs(200)), "3m");
        assert_eq!(short(Duration::from_secs(7200)), "2h");
    }
}
