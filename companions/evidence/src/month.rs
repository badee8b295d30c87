//! A month, in a zone.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(NaiveDate);

impl Month {
    /// The one before the month that a time is in, in this zone.
    #[must_use]
    pub fn before(time: DateTime<Utc>, zone: Tz) -> Self {
        let first = time.with_timezone(&zone).date_naive().with_day(1).unwrap_or_default();
        Self(first - Months::new(1))
    }

    /// The month before this one.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0 - Months::new(1))
    }

    /// When it begins and when the next one does, in this zone.
    #[must_use]
    pub fn bounds(self, zone: Tz) -> (DateTime<Utc>, DateTime<Utc>) {
        (begin(self.0, zone), begin(self.0 + Months::new(1), zone))
    }

    /// Its year, as `2026`.
    #[must_use]
    pub fn year(self) -> String {
        self.0.format("%Y").to_string()
    }

    /// Its number, as `07`.
    #[must_use]
    pub fn number(self) -> String {
        self.0.format("%m").to_string()
    }

    /// Its name in English.
    #[must_use]
    pub fn name(self) -> String {
        self.0.format("%B").to_string()
    }

    /// As files and folders are called: `2026_07`.
    #[must_use]
    pub fn label(self) -> String {
        self.0.format("%Y_%m").to_string()
    }
}

/// The first moment of a day. Where clocks are put forward at midnight, the day begins later.
fn begin(day: NaiveDate, zone: Tz) -> DateTime<Utc> {
    let mut time = day.and_time(NaiveTime::MIN);
    loop {
        match zone.from_local_datetime(&time).earliest() {
            Some(begin) => return begin.to_utc(),
            None if time.date() > day + Days::new(1) => return Utc.from_utc_datetime(&time),
            None => time += TimeDelta::minutes(15),
        }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}", self.0.format("%Y-%m"))
    }
}

impl FromStr for Month {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let first = NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").ok();
        let is_plain = |text: &str| text.len() == 7 && text.as_bytes()[4] == b'-';
        first.filter(|_| is_plain(text)).map(Self).ok_or_else(|| format!("{text} is no month; write it as 2026-07"))
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ends_where_the_next_begins_in_its_zone() {
        let bounds = |month: &str, zone: &str| {
            let (from, to) = month.parse::<Month>().unwrap().bounds(zone.parse().unwrap());
            format!("{} {}", from.format("%FT%T"), to.format("%FT%T"))
        };
        assert_eq!(bounds("2026-12", "UTC"), "2026-12-01T00:00:00 2027-01-01T00:00:00");
        assert_eq!(bounds("2024-02", "UTC"), "2024-02-01T00:00:00 2024-03-01T00:00:00");
        // Summer time begins in March and ends in October; at 23:30 UTC of the last day it is the next month in Madrid.
        assert_eq!(bounds("2026-10", "Europe/Madrid"), "2026-09-30T22:00:00 2026-10-31T23:00:00");
        assert_eq!(bounds("2026-03", "Europe/Madrid"), "2026-02-28T23:00:00 2026-03-31T22:00:00");
        // Where clocks were put forward at midnight of the first day.
        assert_eq!(bounds("2011-04", "Asia/Amman"), "2011-03-31T22:00:00 2011-04-30T21:00:00");
    }

    #[test]
    fn the_month_before_is_that_of_the_zone() {
        let before = |time: &str, zone: &str| {
            let time = DateTime::parse_from_rfc3339(time).unwrap().to_utc();
            Month::before(time, zone.parse().unwrap()).to_string()
        };
        assert_eq!(before("2027-01-01T04:00:00Z", "UTC"), "2026-12");
        assert_eq!(before("2026-12-31T23:30:00Z", "Europe/Madrid"), "2026-12");
        assert_eq!(before("2026-12-31T23:30:00Z", "UTC"), "2026-11");
        assert_eq!("2026-07".parse::<Month>().unwrap().label(), "2026_07");
        assert_eq!("2026-07".parse::<Month>().unwrap().name(), "July");
        for wrong in ["2026-13", "2026-7", "26-07", "2026-07-01", "", "2026/07"] {
            assert!(wrong.parse::<Month>().is_err(), "{wrong}");
        }
    }
}
