//! The three spellings of a time in a signed request. All times are whole seconds since the Unix epoch, UTC.

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;

fn civil_of(seconds: i64) -> civil::DateTime {
    let timestamp = Timestamp::from_second(seconds.max(0)).unwrap_or(Timestamp::MAX);
    TimeZone::UTC.to_datetime(timestamp)
}

/// `20130524T000000Z`, as in `x-amz-date`. A time before 1970 or after 9999 is written as the nearest between.
pub fn format_basic(seconds: i64) -> String {
    let t = civil_of(seconds);
    let (h, m, s) = (t.hour(), t.minute(), t.second());
    format!("{:04}{:02}{:02}T{h:02}{m:02}{s:02}Z", t.year(), t.month(), t.day())
}

/// `2013-05-24T00:00:00Z`, as in S3's error documents.
pub fn format_extended(seconds: i64) -> String {
    let t = civil_of(seconds);
    let (h, m, s) = (t.hour(), t.minute(), t.second());
    format!("{:04}-{:02}-{:02}T{h:02}:{m:02}:{s:02}Z", t.year(), t.month(), t.day())
}

/// Reads `20130524T000000Z` and nothing else.
pub fn parse_basic(text: &str) -> Option<i64> {
    let bytes: &[u8; 16] = text.as_bytes().try_into().ok()?;
    if bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        bytes[range].iter().try_fold(0_i16, |n, b| b.is_ascii_digit().then(|| n * 10 + i16::from(b - b'0')))
    };
    let small = |range| number(range).and_then(|n| i8::try_from(n).ok());
    let year = number(0..4)?;
    let (month, day, hour, minute, second) =
        (small(4..6)?, small(6..8)?, small(9..11)?, small(11..13)?, small(13..15)?);
    let time = civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    Some(TimeZone::UTC.to_timestamp(time).ok()?.as_second())
}

/// Reads the value of a `Date` header: `Fri, 24 May 2013 00:00:00 GMT`, or the basic form, which some clients put there.
pub fn parse_header(text: &str) -> Option<i64> {
    parse_basic(text).or_else(|| Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_as_it_was_written() {
        for seconds in [0, 1_369_353_600, 1_440_938_160, 1_709_164_800, 253_000_000_000] {
            assert_eq!(parse_basic(&format_basic(seconds)), Some(seconds));
        }
        assert_eq!(format_basic(1_369_353_600), "20130524T000000Z");
        assert_eq!(format_extended(1_440_938_160), "2015-08-30T12:36:00Z");
        assert_eq!(parse_header("Fri, 24 May 2013 00:00:00 GMT"), Some(1_369_353_600));
        assert_eq!(parse_header("20130524T000000Z"), Some(1_369_353_600));
    }

    #[test]
    fn what_is_not_a_time_is_not_read_as_one() {
        for bad in [
            "",
            "20130524",
            "20130524T000000",
            "20130524t000000Z",
            "20130524T000000z",
            "20130524T240000Z",
            "20130230T000000Z",
            "20131324T000000Z",
            "+0130524T000000Z",
            "2013-05-24T00:00:00Z",
            "20130524T00000\u{661}",
            "yesterday",
        ] {
            assert_eq!(parse_basic(bad), None, "{bad}");
            assert_eq!(parse_header(bad), None, "{bad}");
        }
    }
}
