//! When a day is to be summarised: a pure function of the time, the zone and what was made before.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use auricle_core::UnixMicros;

/// A date of a zone, and the moments between which it lasts: 23 to 25 hours, or what the zone's rules make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    pub date: Date,
    pub from: UnixMicros,
    /// The next day's beginning.
    pub until: UnixMicros,
}

impl Day {
    /// `None` at the ends of the calendar.
    pub fn of(date: Date, zone: &TimeZone) -> Option<Self> {
        let begin = |date: Date| {
            let begin = date.to_zoned_datetime(zone.clone()).ok()?.start_of_day().ok()?;
            Some(UnixMicros(begin.timestamp().as_microsecond()))
        };
        Some(Self { date, from: begin(date)?, until: begin(date.tomorrow().ok()?)? })
    }

    /// When it may be summarised: at `hour` of the next day, in its zone. An hour that the clocks skip is the one after it; of
    /// one that comes twice it is the first.
    fn due_at(&self, hour: i8, zone: &TimeZone) -> Option<UnixMicros> {
        let at = self.date.tomorrow().ok()?.at(hour, 0, 0, 0).to_zoned_datetime(zone.clone()).ok()?;
        Some(UnixMicros(at.timestamp().as_microsecond()))
    }
}

/// The date of a moment.
pub fn date_at(now: UnixMicros, zone: &TimeZone) -> Option<Date> {
    Some(Timestamp::from_microsecond(now.0).ok()?.to_zoned_datetime(zone.clone()).date())
}

/// Days that are over and whose hour has come, the oldest first: the last `days_max` of them at most, so that a server that was
/// off for a year, or whose clock jumped, does not make a year of summaries.
///
/// Asked at any moment, in any order: a clock that goes back asks for less, and what was made is kept by whoever keeps it.
pub fn due(now: UnixMicros, zone: &TimeZone, hour: i8, days_max: usize) -> Vec<Day> {
    let Some(today) = date_at(now, zone) else { return Vec::new() };
    let mut due = Vec::new();
    // One more than asked for: yesterday's hour may not have come.
    for back in 1..=i64::try_from(days_max).unwrap_or(i64::MAX).saturating_add(1) {
        if due.len() == days_max {
            break;
        }
        let Ok(date) = today.checked_sub(back.days()) else { break };
        let Some(day) = Day::of(date, zone) else { continue };
        if day.until <= now && day.due_at(hour, zone).is_some_and(|at| at <= now) {
            due.push(day);
        }
    }
    due.reverse();
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn at(text: &str) -> UnixMicros {
        UnixMicros(text.parse::<Timestamp>().unwrap().as_microsecond())
    }

    fn dates(now: &str, name: &str, hour: i8, days_max: usize) -> Vec<String> {
        due(at(now), &zone(name), hour, days_max).iter().map(|day| day.date.to_string()).collect()
    }

    #[test]
    fn a_day_is_due_at_its_hour_of_the_next_day_and_not_before() {
        let madrid = "Europe/Madrid";
        assert_eq!(dates("2026-11-25T03:59:59Z", madrid, 5, 1), ["2026-11-23"]);
        assert_eq!(dates("2026-11-25T04:00:00Z", madrid, 5, 1), ["2026-11-24"]);
        assert_eq!(dates("2026-11-24T22:59:59Z", madrid, 0, 1), ["2026-11-23"]);
        assert_eq!(dates("2026-11-24T23:00:00Z", madrid, 0, 1), ["2026-11-24"]);
        assert_eq!(dates("2026-11-24T23:00:00Z", "Pacific/Auckland", 0, 1), ["2026-11-24"]);
        assert_eq!(dates("2026-11-25T04:00:00Z", madrid, 5, 3), ["2026-11-22", "2026-11-23", "2026-11-24"]);
        assert!(dates("2026-11-25T04:00:00Z", madrid, 5, 0).is_empty());
    }

    #[test]
    fn days_are_as_long_as_clocks_make_them() {
        let hours = |date: &str, name: &str| {
            let day = Day::of(date.parse().unwrap(), &zone(name)).unwrap();
            (day.until.0 - day.from.0) / 3_600_000_000
        };
        assert_eq!(hours("2026-03-29", "Europe/Madrid"), 23);
        assert_eq!(hours("2026-10-25", "Europe/Madrid"), 25);
        assert_eq!(hours("2026-11-25", "Europe/Madrid"), 24);
        // Midnight itself is skipped there.
        assert_eq!(hours("2018-11-04", "America/Sao_Paulo"), 23);
    }

    #[test]
    fn an_hour_that_is_skipped_is_the_next_and_one_that_comes_twice_is_the_first() {
        // 02:00 of 29 March does not exist in Madrid: 03:00, which is 01:00 UTC.
        assert_eq!(dates("2026-03-29T00:59:59Z", "Europe/Madrid", 2, 1), ["2026-03-27"]);
        assert_eq!(dates("2026-03-29T01:00:00Z", "Europe/Madrid", 2, 1), ["2026-03-28"]);
        // 02:00 of 25 October comes twice: at 00:00 and at 01:00 UTC.
        assert_eq!(dates("2026-10-24T23:59:59Z", "Europe/Madrid", 2, 1), ["2026-10-23"]);
        assert_eq!(dates("2026-10-25T00:00:00Z", "Europe/Madrid", 2, 1), ["2026-10-24"]);
    }

    #[test]
    fn a_day_that_a_zone_skipped_lasts_no_time() {
        // Samoa went from 29 to 31 December 2011.
        let due = due(at("2012-01-01T12:00:00Z"), &zone("Pacific/Apia"), 0, 4);
        for day in &due {
            assert!(day.from <= day.until);
        }
        let days: Vec<_> = due.iter().map(|day| day.date.to_string()).collect();
        assert_eq!(days.last().map(String::as_str), Some("2012-01-01"));
        for pair in due.windows(2) {
            assert!(pair[0].until <= pair[1].from, "days do not overlap");
        }
    }

    #[test]
    fn however_clocks_jump_no_day_is_due_before_it_is_over_and_no_more_than_so_many() {
        let mut state = 0x9e37_79b9_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for name in [
            "Europe/Madrid",
            "America/Sao_Paulo",
            "Asia/Kathmandu",
            "Pacific/Apia",
            "UTC",
            "Australia/Lord_Howe",
        ] {
            for _ in 0..400 {
                let now = UnixMicros((random() % 4_000_000_000_000_000) as i64);
                let (hour, most) = ((random() % 24) as i8, (random() % 5) as usize);
                let due = due(now, &zone(name), hour, most);
                assert!(due.len() <= most);
                assert!(due.iter().all(|day| day.until <= now));
                assert!(due.windows(2).all(|pair| pair[0].date < pair[1].date));
            }
        }
    }
}
