//! Instants and calendar periods. Time is data: it arrives with a command, it is never read.

use std::fmt;

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z. Serialised as RFC 3339 with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// One day.
    pub const DAY_MS: i64 = 86_400_000;
    /// 0001-01-01T00:00:00Z.
    pub const MIN: UnixMillis = UnixMillis(-62_135_596_800_000);
    /// 9999-12-31T23:59:59.999Z, less the days that a time zone may move it.
    pub const MAX: UnixMillis = UnixMillis(253_402_300_799_999 - 2 * Self::DAY_MS);

    /// `ms` later.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> UnixMillis {
        UnixMillis(self.0.saturating_add(ms))
    }

    pub(crate) fn timestamp(self) -> Timestamp {
        let ms = self.0.clamp(Self::MIN.0, Self::MAX.0);
        Timestamp::from_millisecond(ms).expect("clamped to jiff's range")
    }

    /// Parses what upstream systems send as a date: RFC 3339, and the two forms of Wecheer's document,
    /// `YYYYMMDDTHH:MM:SSZ` and `YYYYMMDDTHHMMSSZ`. Always with a zone; sub-millisecond digits are cut.
    ///
    /// # Sources
    ///
    /// contracts/wecheer.md, contradiction 1.
    pub fn parse(text: &str) -> Option<UnixMillis> {
        if text.len() > 40 || !text.is_ascii() {
            return None;
        }
        let compact = text.len() >= 15 && text.as_bytes()[..8].iter().all(u8::is_ascii_digit);
        let parsed: Option<Timestamp> = if compact {
            let t = text.as_bytes();
            let seconds: &[usize] = match text.len() {
                16 => &[9, 11, 13],
                18 if t[11] == b':' && t[14] == b':' => &[9, 12, 15],
                _ => return None,
            };
            if t[8] != b'T' || !text.ends_with('Z') {
                return None;
            }
            let [h, m, s] = [seconds[0], seconds[1], seconds[2]].map(|at| &text[at..at + 2]);
            let rfc = format!("{}-{}-{}T{h}:{m}:{s}Z", &text[..4], &text[4..6], &text[6..8]);
            rfc.parse().ok()
        } else {
            let separated = matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' '));
            if separated { text.parse().ok() } else { None }
        };
        parsed.map(|t| UnixMillis(t.as_millisecond())).filter(|t| (Self::MIN..=Self::MAX).contains(t))
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.timestamp())
    }
}

impl Serialize for UnixMillis {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnixMillis {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        UnixMillis::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not RFC 3339")))
    }
}

/// What a cap counts over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// A calendar day.
    Day,
    /// A week from Monday.
    Week,
    /// A calendar month.
    Month,
    /// The whole campaign.
    Campaign,
}

impl Period {
    /// The number of the period that holds `at`, in UTC: days and weeks since 1970, months since
    /// the year 0, always 0 for the whole campaign. Later periods have larger numbers.
    pub fn number(self, at: UnixMillis) -> i32 {
        let days = at.0.div_euclid(UnixMillis::DAY_MS);
        let number = match self {
            Period::Day => days,
            // 1970-01-01 was a Thursday, so three days before it a week began.
            Period::Week => (days + 3).div_euclid(7),
            Period::Month => {
                let date = TimeZone::UTC.to_datetime(at.timestamp());
                i64::from(date.year()) * 12 + i64::from(date.month()) - 1
            }
            Period::Campaign => 0,
        };
        i32::try_from(number).expect("years 1 to 9999 fit")
    }

    /// The first instant of the period of that number; the earliest for the whole campaign.
    pub fn start(self, number: i32) -> UnixMillis {
        let days = match self {
            Period::Day => i64::from(number),
            Period::Week => i64::from(number) * 7 - 3,
            Period::Month => {
                let (year, month) = (number.div_euclid(12), number.rem_euclid(12) + 1);
                let date = jiff::civil::Date::new(year.clamp(1, 9999) as i16, month as i8, 1);
                let date = date.expect("a month has a first day").to_zoned(TimeZone::UTC);
                return UnixMillis(date.expect("within jiff's range").timestamp().as_millisecond());
            }
            Period::Campaign => return UnixMillis::MIN,
        };
        UnixMillis(days * UnixMillis::DAY_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, expected) in [
            ("20250425T12:34:00Z", Some("2025-04-25T12:34:00.000Z")),
            ("20250425T123400Z", Some("2025-04-25T12:34:00.000Z")),
            ("2025-04-25T12:34:00Z", Some("2025-04-25T12:34:00.000Z")),
            ("2025-04-25T12:34:00.1239Z", Some("2025-04-25T12:34:00.123Z")),
            ("2025-04-25T14:34:00+02:00", Some("2025-04-25T12:34:00.000Z")),
            ("2024-02-29T00:00:00Z", Some("2024-02-29T00:00:00.000Z")),
            ("2025-02-29T00:00:00Z", None),
            ("20250425T12:3400Z", None),
            ("20251325T12:34:00Z", None),
            ("20250425T12:34:00", None),
            ("20250425T25:34:00Z", None),
            ("2025-04-25", None),
            ("2025-04-25T12:34:00", None),
            ("yesterday", None),
            ("", None),
            ("-000001-01-01T00:00:00Z", None),
            ("2025０425T12:34:00Z", None),
        ] {
            assert_eq!(UnixMillis::parse(text).map(|t| t.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn periods() {
        let at = |text| UnixMillis::parse(text).expect("a date");
        for (period, a, b, same) in [
            (Period::Day, "2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z", false),
            (Period::Day, "2026-02-01T00:00:00Z", "2026-02-01T23:59:59Z", true),
            (Period::Week, "2026-11-16T00:00:00Z", "2026-11-22T23:59:59Z", true),
            (Period::Week, "2026-11-22T23:59:59Z", "2026-11-23T00:00:00Z", false),
            (Period::Month, "2026-02-01T00:00:00Z", "2026-02-28T23:59:59Z", true),
            (Period::Month, "2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z", false),
            (Period::Day, "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z", false),
            (Period::Campaign, "1999-01-01T00:00:00Z", "2026-01-01T00:00:00Z", true),
        ] {
            assert_eq!(period.number(at(a)) == period.number(at(b)), same, "{period:?} {a} {b}");
            let number = period.number(at(a));
            assert!((period.start(number)..).contains(&at(a)), "{period:?} {a}");
            let next = period.start(number + 1);
            assert!(period == Period::Campaign || at(a) < next && period.number(next) == number + 1, "{period:?} {a}");
        }
    }
}
