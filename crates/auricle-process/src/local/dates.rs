//! Dates and times as people say them, resolved in the user's time zone.
//!
//! Source: pusher-and-processing 4.2: from the conversation's start (from now if it began more than seven days ago); without a
//! time of day, 23:59 local. Ambiguous forms (12/05) are left alone.

use std::ops::Range;

use auricle_core::UnixMicros;
use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, ZonedDateTime};

use crate::Request;

/// Older conversations resolve from now.
const STALE_DAYS: i64 = 7;

/// The moment from which relative dates count.
pub(super) struct Clock {
    from: ZonedDateTime,
}

const END_OF_DAY: Time = Time::constant(23, 59, 0, 0);

/// A date found in a sentence.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    /// The words that said it, prepositions included.
    pub(super) words: Range<usize>,
    /// When.
    pub(super) at: UnixMicros,
    /// Whether a time of day was said.
    pub(super) timed: bool,
}

impl Clock {
    pub(super) fn new(request: &Request<'_>) -> Self {
        let started = request.conversation.started_at;
        let stale = request.now.seconds_since(started) > (STALE_DAYS * 86_400) as f64;
        Self::at(if stale { request.now } else { started }, request.time_zone.clone())
    }

    pub(super) fn at(from: UnixMicros, zone: TimeZone) -> Self {
        let from = Timestamp::from_microsecond(from.0).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { from: from.to_zoned_datetime(zone) }
    }

    /// The first date in `words`.
    pub(super) fn find(&self, words: &[String]) -> Option<Found> {
        let said = Said::read(words, self.from.datetime())?;
        let date = said.date.unwrap_or_else(|| self.from.date());
        let (time, timed) = match said.time {
            // "This afternoon", said in the evening: some time today, if at all.
            Some(time) if said.date == Some(self.from.date()) && time < self.from.time() => {
                (END_OF_DAY, false)
            }
            Some(time) => (time, true),
            None => (END_OF_DAY, false),
        };
        let mut at = date.to_datetime(time).to_zoned_datetime(self.from.time_zone().clone()).ok()?;
        if said.date.is_none() && at < self.from {
            // "At five", said at six, is five tomorrow.
            at = at.checked_add(1.day()).ok()?;
        }
        Some(Found { words: said.words, at: UnixMicros(at.timestamp().as_microsecond()), timed })
    }

    /// Whether `at` is not more than a day before the moment from which dates count.
    pub(super) fn is_ahead(&self, at: UnixMicros) -> bool {
        at.0 >= self.from.timestamp().as_microsecond() - 86_400_000_000
    }
}

struct Said {
    words: Range<usize>,
    date: Option<Date>,
    time: Option<Time>,
}

/// A piece of a date: how many words it takes, and what it says.
enum Piece {
    Date(Date),
    Time(Time),
    Both(Date, Time),
}

impl Said {
    fn read(words: &[String], from: DateTime) -> Option<Self> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for begin in 0..words.len() {
            let Some((length, found)) = piece(&words[begin..], from) else { continue };
            let mut said = Self { words: begin..begin + length, date: None, time: None };
            said.take(found);
            // "tomorrow at five", "at five on Friday": one more piece may follow, behind a small word or not.
            for skip in 0..=1 {
                let rest = &words[said.words.end..];
                let joins = skip == 0
                    || rest.first().is_some_and(|word| matches!(*word, "at" | "on" | "in" | "by" | "around"));
                let Some(rest) = rest.get(skip..).filter(|_| joins) else { continue };
                if let Some((length, more)) = piece(rest, from)
                    && said.fits(&more)
                {
                    said.words.end += skip + length;
                    said.take(more);
                    break;
                }
            }
            said.reach_back(&words);
            return Some(said);
        }
        None
    }

    fn fits(&self, piece: &Piece) -> bool {
        match piece {
            Piece::Date(_) => self.date.is_none(),
            Piece::Time(_) => self.time.is_none(),
            Piece::Both(..) => self.date.is_none() && self.time.is_none(),
        }
    }

    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Date(date) => self.date = Some(date),
            Piece::Time(time) => self.time = Some(time),
            Piece::Both(date, time) => (self.date, self.time) = (Some(date), Some(time)),
        }
    }

    /// Prepositions before it belong to it.
    fn reach_back(&mut self, words: &[&str]) {
        while self.words.start > 0
            && matches!(
                words[self.words.start - 1],
                "by" | "before"
                    | "on"
                    | "at"
                    | "until"
                    | "for"
                    | "around"
                    | "from"
                    | "the"
                    | "this"
                    | "about"
            )
        {
            self.words.start -= 1;
        }
    }
}

fn piece(words: &[&str], from: DateTime) -> Option<(usize, Piece)> {
    day(words, from)
        .or_else(|| in_a_while(words, from))
        .or_else(|| calendar(words, from))
        .or_else(|| clock_time(words))
}

fn part_of_day(word: &str) -> Option<Time> {
    Some(match word {
        "morning" => Time::constant(9, 0, 0, 0),
        "afternoon" => Time::constant(15, 0, 0, 0),
        "evening" => Time::constant(19, 0, 0, 0),
        "night" => Time::constant(21, 0, 0, 0),
        "noon" | "lunchtime" => Time::constant(12, 0, 0, 0),
        _ => return None,
    })
}

fn weekday(word: &str) -> Option<Weekday> {
    Some(match word {
        "monday" => Weekday::Monday,
        "tuesday" => Weekday::Tuesday,
        "wednesday" => Weekday::Wednesday,
        "thursday" => Weekday::Thursday,
        "friday" => Weekday::Friday,
        "saturday" => Weekday::Saturday,
        "sunday" => Weekday::Sunday,
        _ => return None,
    })
}

fn plus(date: Date, span: Span) -> Option<Date> {
    date.checked_add(span).ok()
}

/// today, tonight, tomorrow morning, this afternoon, Friday, next Tuesday evening, end of the week, next month.
fn day(words: &[&str], from: DateTime) -> Option<(usize, Piece)> {
    let today = from.date();
    let at = |index: usize| words.get(index).copied().unwrap_or_default();
    let with_part = |length: usize, date: Date| match part_of_day(at(length)) {
        Some(time) => (length + 1, Piece::Both(date, time)),
        None => (length, Piece::Date(date)),
    };
    match at(0) {
        "today" => return Some(with_part(1, today)),
        "tonight" => return Some((1, Piece::Both(today, Time::constant(20, 0, 0, 0)))),
        "tomorrow" => return Some(with_part(1, plus(today, 1.day())?)),
        "this" => {
            if let Some(time) = part_of_day(at(1)).filter(|_| at(1) != "noon") {
                return Some((2, Piece::Both(today, time)));
            }
            if at(1) == "weekend" {
                return Some((2, Piece::Date(coming(today, Weekday::Saturday, true)?)));
            }
        }
        "next" if at(1) == "week" => return Some((2, Piece::Date(plus(today, 1.week())?))),
        "next" if at(1) == "month" => return Some((2, Piece::Date(plus(today, 1.month())?))),
        "end" if at(1) == "of" => {
            let index = 2 + usize::from(matches!(at(2), "the" | "this"));
            match at(index) {
                "week" => return Some((index + 1, Piece::Date(coming(today, Weekday::Friday, true)?))),
                "month" => return Some((index + 1, Piece::Date(today.last_of_month()))),
                "day" => return Some((index + 1, Piece::Date(today))),
                _ => {}
            }
        }
        _ => {}
    }
    let (index, next) = match at(0) {
        "next" => (1, true),
        "this" | "coming" => (1, false),
        _ => (0, false),
    };
    let day = weekday(at(index).strip_suffix("'s").unwrap_or(at(index)))?;
    let mut date = coming(today, day, false)?;
    if next && date.duration_since(today).as_hours() < 7 * 24 && same_week(today, date) {
        date = plus(date, 1.week())?;
    }
    Some(with_part(index + 1, date))
}

fn same_week(a: Date, b: Date) -> bool {
    let monday = |date: Date| plus(date, -i64::from(date.weekday().to_monday_zero_offset()).days());
    monday(a) == monday(b)
}

/// The next such weekday; today counts only if `today_counts`.
fn coming(today: Date, day: Weekday, today_counts: bool) -> Option<Date> {
    let ahead = i64::from(day.since(today.weekday())).rem_euclid(7);
    let ahead = if ahead == 0 && !today_counts { 7 } else { ahead };
    plus(today, ahead.days())
}

/// in two weeks, in an hour, within three days.
fn in_a_while(words: &[&str], from: DateTime) -> Option<(usize, Piece)> {
    if !matches!(words.first(), Some(&("in" | "within"))) {
        return None;
    }
    let (taken, count) = number(&words[1..])?;
    let unit = words.get(1 + taken)?;
    let length = taken + 2;
    let moved = |span: Span| from.checked_add(span).ok();
    Some(match *unit {
        "minute" | "minutes" => both(length, moved(count.minutes())?),
        "hour" | "hours" => both(length, moved(count.hours())?),
        "day" | "days" => (length, Piece::Date(moved(count.days())?.date())),
        "week" | "weeks" => (length, Piece::Date(moved(count.weeks())?.date())),
        "month" | "months" => (length, Piece::Date(moved(count.months())?.date())),
        _ => return None,
    })
}

fn both(length: usize, at: DateTime) -> (usize, Piece) {
    (length, Piece::Both(at.date(), at.time()))
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// March fifth, March 5, the 5th of March.
fn calendar(words: &[&str], from: DateTime) -> Option<(usize, Piece)> {
    let month_of = |word: &str| MONTHS.iter().position(|month| *month == word).map(|index| index as i8 + 1);
    let (length, month, day) = if let Some(month) = words.first().and_then(|word| month_of(word)) {
        let the = usize::from(words.get(1) == Some(&"the"));
        let (taken, day) = ordinal(words.get(1 + the..)?)?;
        (1 + the + taken, month, day)
    } else {
        let (taken, day) = ordinal(words)?;
        let month = words
            .get(taken)
            .filter(|word| **word == "of")
            .and(words.get(taken + 1))
            .and_then(|word| month_of(word))?;
        (taken + 2, month, day)
    };
    let today = from.date();
    let this_year = Date::new(today.year(), month, i8::try_from(day).ok()?).ok()?;
    let date =
        if this_year < today { Date::new(today.year() + 1, month, this_year.day()).ok()? } else { this_year };
    Some((length, Piece::Date(date)))
}

/// at five, at 3 pm, 3:30, ten o'clock, noon, half past six.
fn clock_time(words: &[&str]) -> Option<(usize, Piece)> {
    let at = |index: usize| words.get(index).copied().unwrap_or_default();
    match at(0) {
        "noon" | "midday" => return Some((1, Piece::Time(Time::constant(12, 0, 0, 0)))),
        "midnight" => return Some((1, Piece::Time(Time::constant(23, 59, 0, 0)))),
        _ => {}
    }
    let after_at = usize::from(matches!(at(0), "at" | "around"));
    let half = at(after_at) == "half" && at(after_at + 1) == "past";
    let index = after_at + if half { 2 } else { 0 };
    let (taken, hour, mut minute) = hour(&words[index.min(words.len())..])?;
    if half {
        minute = 30;
    }
    let mut end = index + taken;
    let behind = at(end);
    let mut hour = hour;
    let stated = match behind {
        "o'clock" => {
            end += 1;
            true
        }
        "am" | "a.m" => {
            end += 1;
            hour %= 12;
            return time(end, hour, minute);
        }
        "pm" | "p.m" => {
            end += 1;
            hour = hour % 12 + 12;
            return time(end, hour, minute);
        }
        // "at two points", "five minutes": a number of things is no time of day.
        _ => (after_at == 1 || half || taken == 2) && !is_thing(behind),
    };
    if !stated {
        return None;
    }
    if let ("in", "the", part) = (at(end), at(end + 1), at(end + 2)) {
        match part {
            "morning" => return time(end + 3, hour % 12, minute),
            "afternoon" | "evening" => return time(end + 3, hour % 12 + 12, minute),
            _ => {}
        }
    }
    // Without more, people mean the waking hours: one to seven is after noon.
    if (1..=7).contains(&hour) {
        hour += 12;
    }
    time(end, hour, minute)
}

fn is_thing(word: &str) -> bool {
    !word.is_empty()
        && !matches!(
            word,
            "on" | "in"
                | "and"
                | "tomorrow"
                | "today"
                | "tonight"
                | "then"
                | "so"
                | "but"
                | "sharp"
                | "at"
                | "for"
                | "with"
                | "for-sure"
                | "please"
                | "ish"
                | "okay"
                | "if"
                | "to"
                | "by"
                | "before"
                | "because"
        )
        && weekday(word).is_none()
}

fn time(end: usize, hour: i64, minute: i64) -> Option<(usize, Piece)> {
    let time = Time::new(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0).ok()?;
    Some((end, Piece::Time(time)))
}

/// An hour with minutes if they are said: `3`, `3:30` (two words after splitting), `five thirty`.
fn hour(words: &[&str]) -> Option<(usize, i64, i64)> {
    let first = words.first()?;
    if let Some((hour, minute)) = first.split_once(':') {
        let (hour, minute) = (hour.parse().ok()?, minute.parse().ok()?);
        return ((0..24).contains(&hour) && (0..60).contains(&minute)).then_some((1, hour, minute));
    }
    let hour = digit_or_word(first)?;
    if !(0..24).contains(&hour) {
        return None;
    }
    let minute = words
        .get(1)
        .and_then(|word| digit_or_word(word))
        .filter(|m| matches!(m, 10 | 15 | 20 | 30 | 40 | 45 | 50));
    Some(match minute {
        Some(minute) => (2, hour, minute),
        None => (1, hour, 0),
    })
}

fn number(words: &[&str]) -> Option<(usize, i64)> {
    match *words.first()? {
        "a" if words.get(1) == Some(&"couple") => Some((2 + usize::from(words.get(2) == Some(&"of")), 2)),
        "a" | "an" => Some((1, 1)),
        "half" => None,
        word => digit_or_word(word).filter(|count| (1..=366).contains(count)).map(|count| (1, count)),
    }
}

const NUMBERS: [&str; 21] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

fn digit_or_word(word: &str) -> Option<i64> {
    if let Ok(number) = word.parse::<i64>() {
        return (0..10_000).contains(&number).then_some(number);
    }
    let tens = match word {
        "thirty" => Some(30),
        "forty" => Some(40),
        "fifty" => Some(50),
        _ => None,
    };
    tens.or_else(|| NUMBERS.iter().position(|name| *name == word).map(|index| index as i64))
}

const ORDINALS: [&str; 20] = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
    "twentieth",
];

/// A day of the month: `5th`, `fifth`, `twenty first`, `5`.
fn ordinal(words: &[&str]) -> Option<(usize, i64)> {
    let place = |word: &str| ORDINALS.iter().position(|name| *name == word).map(|index| index as i64 + 1);
    let first = *words.first()?;
    if first == "twenty" || first == "thirty" {
        let tens = if first == "twenty" { 20 } else { 30 };
        return words
            .get(1)
            .and_then(|word| place(word))
            .filter(|unit| *unit < 10)
            .map(|unit| (2, tens + unit));
    }
    if first == "thirtieth" {
        return Some((1, 30));
    }
    let digits = first.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number = digits.parse().ok().or_else(|| place(first))?;
    (1..=31).contains(&number).then_some((1, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a sentence said on Thursday 2026-01-15 at 18:00 in Madrid resolves to, and the words that said it.
    fn found(sentence: &str) -> Option<(String, String)> {
        let zone = TimeZone::get("Europe/Madrid").unwrap();
        let from: ZonedDateTime = "2026-01-15T18:00[Europe/Madrid]".parse().unwrap();
        let clock = Clock::at(UnixMicros(from.timestamp().as_microsecond()), zone.clone());
        let words = super::super::text::words(sentence);
        let found = clock.find(&words)?;
        let at = Timestamp::from_microsecond(found.at.0).unwrap().to_zoned_datetime(zone);
        Some((at.strftime("%a %Y-%m-%d %H:%M").to_string(), words[found.words].join(" ")))
    }

    #[test]
    fn dates_as_people_say_them() {
        for (said, at, words) in [
            ("Send it tomorrow", "Fri 2026-01-16 23:59", "tomorrow"),
            ("Send it by Friday", "Fri 2026-01-16 23:59", "by friday"),
            ("See you next Tuesday", "Tue 2026-01-20 23:59", "next tuesday"),
            ("next Friday then", "Fri 2026-01-23 23:59", "next friday"),
            ("dinner on Thursday at seven", "Thu 2026-01-22 19:00", "on thursday at seven"),
            ("let's meet at 3 pm on Monday", "Mon 2026-01-19 15:00", "at 3 pm on monday"),
            ("tomorrow morning would do", "Fri 2026-01-16 09:00", "tomorrow morning"),
            ("in two weeks", "Thu 2026-01-29 23:59", "in two weeks"),
            ("in an hour", "Thu 2026-01-15 19:00", "in an hour"),
            ("by the end of the week", "Fri 2026-01-16 23:59", "by the end of the week"),
            ("before the end of the month", "Sat 2026-01-31 23:59", "before the end of the month"),
            ("on March fifth", "Thu 2026-03-05 23:59", "on march fifth"),
            ("the 2nd of January", "Sat 2027-01-02 23:59", "the 2nd of january"),
            ("call me at half past six", "Thu 2026-01-15 18:30", "at half past six"),
            ("at five", "Fri 2026-01-16 17:00", "at five"),
            ("Monday at ten o'clock", "Mon 2026-01-19 10:00", "monday at ten o'clock"),
            ("tonight", "Thu 2026-01-15 20:00", "tonight"),
            ("this afternoon", "Thu 2026-01-15 23:59", "this afternoon"),
            ("at noon tomorrow", "Fri 2026-01-16 12:00", "at noon tomorrow"),
        ] {
            assert_eq!(found(said), Some((at.into(), words.into())), "{said}");
        }
    }

    #[test]
    fn what_is_no_date_is_left_alone() {
        for said in [
            "we looked at two houses",
            "the second one",
            "I may go",
            "five people came",
            "on 12/05 maybe",
            "one moment",
        ] {
            assert_eq!(found(said), None, "{said}");
        }
    }

    #[test]
    fn a_day_on_which_clocks_change_is_resolved() {
        let zone = TimeZone::get("Europe/Madrid").unwrap();
        let from: ZonedDateTime = "2026-03-28T12:00[Europe/Madrid]".parse().unwrap();
        let clock = Clock::at(UnixMicros(from.timestamp().as_microsecond()), zone.clone());
        let found = clock.find(&super::super::text::words("tomorrow at 9 am")).unwrap();
        let at = Timestamp::from_microsecond(found.at.0).unwrap().to_zoned_datetime(zone);
        assert_eq!(at.to_string(), "2026-03-29T09:00:00+02:00[Europe/Madrid]");
    }
}
