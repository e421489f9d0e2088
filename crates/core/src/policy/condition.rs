//! Conditions: an operator, a key, and the values of which one has to fit.
//!
//! Source: IAM user guide, "IAM JSON policy elements: Condition operators", "Conditions with multiple context keys or values",
//! "Single-valued vs. multivalued context keys".

// Addresses as values: `core` has no sockets.
use core::net::{IpAddr, Ipv4Addr};
use std::cmp::Ordering;

use base64::Engine;

use super::context::{Facts, Known};
use super::pattern::{ArnPattern, Pattern, Syntax, Truth};

/// One key under one operator.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    /// As it was written: `ForAllValues:StringLikeIfExists`.
    pub operator: String,
    /// As it was written: `aws:SourceIp`.
    pub key: String,
    /// In lower case.
    pub lower: String,
    /// As they were written.
    pub values: Vec<String>,
    test: Test,
    negated: bool,
    if_exists: bool,
    set: Option<Set>,
    wanted: Vec<Wanted>,
}

/// How the several values that a key has in a request are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    ForAllValues,
    ForAnyValue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equals,
    EqualsIgnoreCase,
    Like,
    Number(Order),
    Date(Order),
    Bool,
    Binary,
    Ip,
    Arn,
    Null,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn holds(self, found: Ordering) -> bool {
        match self {
            Self::Equal => found.is_eq(),
            Self::Less => found.is_lt(),
            Self::LessOrEqual => found.is_le(),
            Self::Greater => found.is_gt(),
            Self::GreaterOrEqual => found.is_ge(),
        }
    }
}

/// Name, what is compared and how, and whether the opposite is meant.
const OPERATORS: &[(&str, Test, bool)] = &[
    ("StringEquals", Test::Equals, false),
    ("StringNotEquals", Test::Equals, true),
    ("StringEqualsIgnoreCase", Test::EqualsIgnoreCase, false),
    ("StringNotEqualsIgnoreCase", Test::EqualsIgnoreCase, true),
    ("StringLike", Test::Like, false),
    ("StringNotLike", Test::Like, true),
    ("NumericEquals", Test::Number(Order::Equal), false),
    ("NumericNotEquals", Test::Number(Order::Equal), true),
    ("NumericLessThan", Test::Number(Order::Less), false),
    ("NumericLessThanEquals", Test::Number(Order::LessOrEqual), false),
    ("NumericGreaterThan", Test::Number(Order::Greater), false),
    ("NumericGreaterThanEquals", Test::Number(Order::GreaterOrEqual), false),
    ("DateEquals", Test::Date(Order::Equal), false),
    ("DateNotEquals", Test::Date(Order::Equal), true),
    ("DateLessThan", Test::Date(Order::Less), false),
    ("DateLessThanEquals", Test::Date(Order::LessOrEqual), false),
    ("DateGreaterThan", Test::Date(Order::Greater), false),
    ("DateGreaterThanEquals", Test::Date(Order::GreaterOrEqual), false),
    ("Bool", Test::Bool, false),
    ("BinaryEquals", Test::Binary, false),
    ("IpAddress", Test::Ip, false),
    ("NotIpAddress", Test::Ip, true),
    ("ArnEquals", Test::Arn, false),
    ("ArnLike", Test::Arn, false),
    ("ArnNotEquals", Test::Arn, true),
    ("ArnNotLike", Test::Arn, true),
    ("Null", Test::Null, false),
];

/// One value of a condition.
#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    Text(Pattern),
    Arn(ArnPattern),
    Number(Decimal),
    Date(Moment),
    Bool(bool),
    Bytes(Vec<u8>),
    Network(Network),
}

/// An operator, read, but for its key and values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Operator {
    test: Test,
    negated: bool,
    if_exists: bool,
    set: Option<Set>,
}

impl Operator {
    /// Reads an operator's name, without regard to case as AWS does. The error names those that there are.
    pub fn read(text: &str) -> Result<Self, String> {
        let cut = |text: &str, part: &str, at_end: bool| {
            let at = if at_end { text.len().checked_sub(part.len())? } else { part.len() };
            let (head, tail) = text.split_at_checked(at)?;
            let (found, rest) = if at_end { (tail, head) } else { (head, tail) };
            found.eq_ignore_ascii_case(part).then(|| rest.to_owned())
        };
        let (set, rest) = match (cut(text, "ForAllValues:", false), cut(text, "ForAnyValue:", false)) {
            (Some(rest), _) => (Some(Set::ForAllValues), rest),
            (None, Some(rest)) => (Some(Set::ForAnyValue), rest),
            (None, None) => (None, text.to_owned()),
        };
        let (if_exists, name) = match cut(&rest, "IfExists", true) {
            Some(name) => (true, name),
            None => (false, rest),
        };
        let Some((name, test, negated)) = OPERATORS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(&name)) else {
            let names = OPERATORS.iter().map(|(known, ..)| *known);
            let hint =
                super::actions::nearest(&name, names).map_or(String::new(), |near| format!("; is {near} meant?"));
            return Err(format!("there is no condition operator {text:?}{hint}"));
        };
        if *test == Test::Null && (if_exists || set.is_some()) {
            return Err(format!(
                "{name} asks whether a key is there and takes neither IfExists nor ForAllValues or ForAnyValue"
            ));
        }
        Ok(Self { test: *test, negated: *negated, if_exists, set })
    }
}

impl Condition {
    /// One key with its values, of which there is at least one. `variables`: whether the language has them. The error says
    /// what is wrong with a value.
    pub fn read(
        operator: Operator,
        written: &str,
        key: &str,
        values: Vec<String>,
        variables: bool,
    ) -> Result<Self, String> {
        let wanted = values.iter().map(|value| operator.wanted(value, variables)).collect::<Result<_, _>>()?;
        let Operator { test, negated, if_exists, set } = operator;
        Ok(Self {
            operator: written.to_owned(),
            key: key.to_owned(),
            lower: key.to_ascii_lowercase(),
            values,
            test,
            negated,
            if_exists,
            set,
            wanted,
        })
    }

    /// Whether it holds of a request.
    ///
    /// A key that the request does not have: negated operators hold, `IfExists` and `ForAllValues` too, all others do not. One
    /// that this server does not know: nobody can say.
    pub fn holds(&self, facts: &Facts<'_>) -> Truth {
        let found = match facts.known(&self.lower) {
            Known::Unknown => return Truth::Unknown,
            Known::Missing => Vec::new(),
            Known::Values(values) => values,
        };
        if self.test == Test::Null {
            let missing = found.is_empty();
            return Truth::any(self.wanted.iter().map(|wanted| (*wanted == Wanted::Bool(missing)).into()));
        }
        if found.is_empty() {
            return (self.if_exists
                || match self.set {
                    Some(set) => set == Set::ForAllValues,
                    None => self.negated,
                })
            .into();
        }
        let one = |value: &&str| {
            let fits = Truth::any(self.wanted.iter().map(|wanted| self.fits(wanted, value, facts)));
            if self.negated { !fits } else { fits }
        };
        match self.set {
            Some(Set::ForAllValues) => Truth::all(found.iter().map(one)),
            Some(Set::ForAnyValue) => Truth::any(found.iter().map(one)),
            // A key with several values asks for one of the two above. Without, a value that fits is enough, and none may where the
            // operator is negated.
            None if self.negated => Truth::all(found.iter().map(one)),
            None => Truth::any(found.iter().map(one)),
        }
    }

    /// What is not of the kind that is compared fits nothing.
    fn fits(&self, wanted: &Wanted, value: &str, facts: &Facts<'_>) -> Truth {
        match (wanted, self.test) {
            (Wanted::Text(pattern), Test::EqualsIgnoreCase) => pattern.fits_folded(value, facts),
            (Wanted::Text(pattern), _) => pattern.fits(value, facts),
            (Wanted::Arn(pattern), _) => pattern.fits(value, facts),
            (Wanted::Number(wanted), Test::Number(order)) => {
                Decimal::read(value).is_some_and(|found| order.holds(found.cmp(wanted))).into()
            }
            (Wanted::Date(wanted), Test::Date(order)) => {
                Moment::read(value).is_some_and(|found| order.holds(found.cmp(wanted))).into()
            }
            (Wanted::Bool(wanted), _) => (boolean(value) == Some(*wanted)).into(),
            (Wanted::Bytes(wanted), _) => (bytes(value).as_ref() == Some(wanted)).into(),
            (Wanted::Network(network), _) => value.parse().is_ok_and(|address| network.has(address)).into(),
            (Wanted::Number(_) | Wanted::Date(_), _) => Truth::No,
        }
    }

    /// The keys that it asks for, as they were written.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let variables = self.wanted.iter().flat_map(|wanted| {
            let keys: Vec<&str> = match wanted {
                Wanted::Text(pattern) => pattern.keys().collect(),
                Wanted::Arn(pattern) => pattern.keys().collect(),
                _ => Vec::new(),
            };
            keys
        });
        std::iter::once(self.key.as_str()).chain(variables)
    }
}

impl Operator {
    fn wanted(self, value: &str, variables: bool) -> Result<Wanted, String> {
        let takes = |what: &str| format!("{value:?} is no {what}");
        let variable = variables && value.contains("${");
        if variable && !matches!(self.test, Test::Equals | Test::EqualsIgnoreCase | Test::Like | Test::Arn) {
            return Err("variables can only be compared by the operators for strings and ARNs".to_owned());
        }
        match self.test {
            Test::Equals | Test::EqualsIgnoreCase => {
                Pattern::read(value, Syntax { wildcards: false, variables }).map(Wanted::Text)
            }
            Test::Like => Pattern::read(value, Syntax { wildcards: true, variables }).map(Wanted::Text),
            Test::Arn => ArnPattern::read(value, Syntax { wildcards: true, variables }).map(Wanted::Arn),
            Test::Number(_) => Decimal::read(value).map(Wanted::Number).ok_or_else(|| takes("number")),
            Test::Date(_) => Moment::read(value)
                .map(Wanted::Date)
                .ok_or_else(|| takes("date: write it like 2026-01-31T00:00:00Z, or in seconds since 1970")),
            Test::Bool | Test::Null => boolean(value).map(Wanted::Bool).ok_or_else(|| takes("\"true\" or \"false\"")),
            Test::Binary => bytes(value).map(Wanted::Bytes).ok_or_else(|| takes("text in base64")),
            Test::Ip => Network::read(value)
                .map(Wanted::Network)
                .ok_or_else(|| takes("IP address or range: write it like 203.0.113.0/24 or 2001:db8::/32")),
        }
    }
}

fn boolean(text: &str) -> Option<bool> {
    [("true", true), ("false", false)]
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
        .map(|(_, value)| value)
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// A number as people write it, compared to the last digit: in binary floating point, two job priorities or sizes may be one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    /// Without leading zeros.
    whole: String,
    /// Without zeros at the end.
    fraction: String,
}

impl Decimal {
    fn read(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !number(whole) || !number(fraction) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0').to_owned(), fraction.trim_end_matches('0').to_owned());
        let zero = whole.is_empty() && fraction.is_empty();
        Some(Self { negative: negative && !zero, whole, fraction })
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        // Digits without zeros that say nothing: the longer whole is the greater, equal ones compare as texts.
        let size = |of: &Self, than: &Self| {
            of.whole
                .len()
                .cmp(&than.whole.len())
                .then_with(|| of.whole.cmp(&than.whole))
                .then_with(|| of.fraction.cmp(&than.fraction))
        };
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => size(self, other),
            (true, true) => size(other, self),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A moment: whole seconds since 1970, and the fraction behind them, as a decimal's digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    seconds: i64,
    /// Without zeros at the end.
    fraction: String,
}

impl Moment {
    /// Reads seconds since 1970, or one of the forms of ISO 8601 that W3C's note has, from a year to fractions of a second. What says
    /// no time is midnight, what says no zone is UTC; four digits are a year.
    ///
    /// Source: IAM user guide, "Date condition operators"; https://www.w3.org/TR/NOTE-datetime.
    fn read(text: &str) -> Option<Self> {
        if text.len() != 4 && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Some(Self { seconds: text.parse().ok()?, fraction: String::new() });
        }
        let (date, time) = match text.split_once('T') {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        let mut parts = date.split('-');
        let year = digits(parts.next()?, 4)?;
        let month = parts.next().map_or(Some(1), |part| digits(part, 2)).filter(|month| (1..=12).contains(month))?;
        let day = parts.next().map_or(Some(1), |part| digits(part, 2))?;
        let whole_date = date.len() == 10;
        if parts.next().is_some() || !(1..=days_of(year, month)).contains(&day) || (time.is_some() && !whole_date) {
            return None;
        }
        let mut seconds = days_before(year, month, day) * 86_400;
        let mut fraction = String::new();
        if let Some(time) = time {
            let (clock, offset) = zone(time)?;
            let mut parts = clock.splitn(3, ':');
            let hour = digits(parts.next()?, 2).filter(|hour| *hour < 24)?;
            let minute = digits(parts.next()?, 2).filter(|minute| *minute < 60)?;
            let second = match parts.next() {
                None => 0,
                Some(second) => {
                    let (second, rest) = second.split_once('.').unwrap_or((second, "0"));
                    if rest.is_empty() || !rest.bytes().all(|b| b.is_ascii_digit()) {
                        return None;
                    }
                    rest.trim_end_matches('0').clone_into(&mut fraction);
                    digits(second, 2).filter(|second| *second < 60)?
                }
            };
            seconds += hour * 3_600 + minute * 60 + second - offset;
        }
        Some(Self { seconds, fraction })
    }
}

/// Exactly so many digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// A time of day without its zone, and the zone in seconds east of UTC.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix('Z') {
        return Some((clock, 0));
    }
    let Some(at) = time.rfind(['+', '-']) else { return Some((time, 0)) };
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let offset = digits(hours, 2).filter(|h| *h < 24)? * 3_600 + digits(minutes, 2).filter(|m| *m < 60)? * 60;
    Some((&time[..at], if time[at..].starts_with('-') { -offset } else { offset }))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let years = |year: i64| year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let months: i64 = (1..month).map(|month| days_of(year, month)).sum();
    years(year - 1) - years(1969) + months + day - 1
}

/// A range of addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    /// Bits.
    prefix: u32,
}

impl Network {
    /// Reads an address or a range in CIDR notation; bits behind the prefix say nothing.
    fn read(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(prefix) if !prefix.is_empty() && prefix.len() <= 3 && prefix.bytes().all(|b| b.is_ascii_digit()) => {
                prefix.parse().ok().filter(|prefix| *prefix <= bits)?
            }
            Some(_) => return None,
        };
        Some(Self { address, prefix })
    }

    /// An address of the other family is not in it, but for one of IPv4 that a socket of IPv6 shows as `::ffff:203.0.113.9`.
    fn has(self, address: IpAddr) -> bool {
        let kept = |bits: u32| 128 - (bits - self.prefix);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => top(v4(own), v4(other), kept(32)),
            (IpAddr::V6(own), IpAddr::V6(other)) => top(own.to_bits(), other.to_bits(), kept(128)),
            // A range of mapped addresses, as it was written.
            (IpAddr::V6(own), IpAddr::V4(other)) => top(own.to_bits(), other.to_ipv6_mapped().to_bits(), kept(128)),
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

fn v4(address: Ipv4Addr) -> u128 {
    u128::from(address.to_bits())
}

/// Whether two numbers agree in their top bits, of 128.
fn top(one: u128, other: u128, bits: u32) -> bool {
    (one ^ other).checked_shr(128 - bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Context, Principal, PrincipalKind};
    use super::*;

    fn read(operator: &str, key: &str, values: &[&str]) -> Result<Condition, String> {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Condition::read(Operator::read(operator)?, operator, key, values, true)
    }

    fn holds(operator: &str, key: &str, wanted: &[&str], context: &Context) -> Truth {
        let principal = Principal {
            account: "111111111111".into(),
            arn: "arn:aws:iam::111111111111:user/u".into(),
            user_id: "AIDAEXAMPLEEXAMPLE01".into(),
            kind: PrincipalKind::User { name: "u".into() },
            tags: BTreeMap::new(),
        };
        let facts = Facts { principal: &principal, action: "s3:GetObject", resource_account: "111111111111", context };
        read(operator, key, wanted).unwrap_or_else(|told| panic!("{operator}: {told}")).holds(&facts)
    }

    /// One value in the request, one in the policy: `=` holds for it, `!` does not.
    #[test]
    fn every_operator_compares_as_its_page_says() {
        let cases: &[(&str, &str, &[&str], &[&str])] = &[
            ("StringEquals", "Red*", &["Red*"], &["red*", "Red", "Redx", ""]),
            ("StringNotEquals", "Red", &["red", ""], &["Red"]),
            ("StringEqualsIgnoreCase", "RÉd", &["réD"], &["red"]),
            ("StringNotEqualsIgnoreCase", "Red", &["blue"], &["rED"]),
            ("StringLike", "R?d*", &["Red", "Rad and more"], &["red", "Rd"]),
            ("StringNotLike", "R?d*", &["red"], &["Red"]),
            ("StringLike", "${aws:username}/*", &["u/k"], &["v/k", "${aws:username}/k"]),
            ("NumericEquals", "10", &["10", "10.0", "+10", "010"], &["10.1", "-10", "ten", ""]),
            ("NumericNotEquals", "10", &["11", "ten"], &["10.00"]),
            ("NumericLessThan", "10", &["9.99", "-11", "0"], &["10", "11", "9e0", "abc"]),
            ("NumericLessThanEquals", "-1.5", &["-1.5", "-1.50", "-2"], &["-1.4", "0"]),
            (
                "NumericGreaterThan",
                "9007199254740992",
                &["9007199254740993"],
                &["9007199254740992", "9007199254740991.9"],
            ),
            ("NumericGreaterThanEquals", "0", &["0", "-0", "0.1"], &["-0.1"]),
            (
                "DateEquals",
                "2026-01-01T00:00:00Z",
                &[
                    "2026",
                    "2026-01",
                    "2026-01-01",
                    "1767225600",
                    "2026-01-01T01:30+01:30",
                    "2025-12-31T19:00:00.000-05:00",
                ],
                &["2026-01-02", "later"],
            ),
            ("DateNotEquals", "2026-01-01", &["2026-01-02", "x"], &["2026-01-01T00:00Z"]),
            (
                "DateLessThan",
                "2024-02-29T12:00:00.5Z",
                &["2024-02-29T12:00:00.49Z", "1970", "0"],
                &["2024-02-29T12:00:00.5Z", "2024-03-01"],
            ),
            (
                "DateLessThanEquals",
                "2000-03-01",
                &["2000-02-29T23:59:59.999Z", "951868800"],
                &["2000-03-01T00:00:00.001Z"],
            ),
            ("DateGreaterThan", "1969-12-31T23:59:59Z", &["0", "1970"], &["1969-12-31", "1900-01-01"]),
            ("DateGreaterThanEquals", "2026-06-30", &["2026-06-30T00:00:00Z", "2100-01-01"], &["2026-06-29T23:59:59Z"]),
            ("Bool", "true", &["true", "TRUE"], &["false", "1", ""]),
            ("Bool", "False", &["false"], &["true", "no"]),
            ("BinaryEquals", "QmluYXJ5", &["QmluYXJ5"], &["QmluYXJ6", "Binary", "qmluyxj5"]),
            (
                "IpAddress",
                "203.0.113.0/24",
                &["203.0.113.0", "203.0.113.255", "::ffff:203.0.113.9"],
                &["203.0.112.255", "::1", "203.0.113", "host"],
            ),
            ("IpAddress", "203.0.113.77/24", &["203.0.113.1"], &["203.0.114.1"]),
            ("IpAddress", "203.0.113.9", &["203.0.113.9"], &["203.0.113.8"]),
            ("IpAddress", "0.0.0.0/0", &["1.2.3.4"], &["2001:db8::1"]),
            ("IpAddress", "2001:db8::/33", &["2001:db8:7fff::1"], &["2001:db8:8000::1", "1.2.3.4"]),
            ("IpAddress", "::ffff:203.0.113.0/120", &["203.0.113.9", "::ffff:203.0.113.1"], &["203.0.114.1"]),
            ("IpAddress", "::/0", &["2001:db8::1"], &[]),
            ("NotIpAddress", "203.0.113.0/24", &["198.51.100.1", "::1"], &["203.0.113.9"]),
            (
                "ArnEquals",
                "arn:aws:s3:*:111111111111:job/?",
                &["arn:aws:s3:us-east-1:111111111111:job/1"],
                &["arn:aws:s3:us-east-1:222222222222:job/1", "arn:aws:s3:a:b:111111111111:job/1", "job"],
            ),
            (
                "ArnLike",
                "arn:aws:s3:::b*",
                &["arn:aws:s3:::b", "arn:aws:s3:::b/k:1"],
                &["arn:aws:s3:::a", "arn:aws:s3:::B"],
            ),
            ("ArnLike", "*", &["arn:aws:s3:::b", "job"], &[]),
            ("ArnNotEquals", "arn:aws:s3:::b", &["arn:aws:s3:::c"], &["arn:aws:s3:::b"]),
            ("ArnNotLike", "arn:aws:s3:::*", &["arn:aws:sqs:::q"], &["arn:aws:s3:::b"]),
            ("stringequalsIFEXISTS", "a", &["a"], &["b"]),
        ];
        for (operator, wanted, fitting, others) in cases {
            for (value, expected) in
                fitting.iter().map(|v| (v, Truth::Yes)).chain(others.iter().map(|v| (v, Truth::No)))
            {
                let context = Context::new().with("aws:RequestTag/a", *value);
                assert_eq!(
                    holds(operator, "aws:requesttag/A", &[wanted], &context),
                    expected,
                    "{operator} {wanted:?} {value:?}"
                );
            }
        }
    }

    /// Source: IAM user guide, "Condition operators", the important note at the top, "...IfExists" and "Null"; "Multivalued context keys".
    #[test]
    fn a_key_that_the_request_does_not_have_and_one_with_several_values_hold_as_aws_says() {
        let none = Context::new().with_tags("aws:RequestTag/", []);
        let tags = |values: &[&str]| Context::new().with_all("aws:TagKeys", values.iter().copied());
        let cases = [
            ("StringEquals", &["a"][..], none.clone(), true, false),
            ("StringNotEquals", &["a"], none.clone(), true, true),
            ("NotIpAddress", &["10.0.0.0/8"], none.clone(), true, true),
            ("ArnNotLike", &["arn:aws:s3:::*"], none.clone(), true, true),
            ("DateLessThan", &["2026"], none.clone(), true, false),
            ("Bool", &["false"], none.clone(), true, false),
            ("StringEqualsIfExists", &["a"], none.clone(), true, true),
            ("BoolIfExists", &["true"], none.clone(), true, true),
            ("Null", &["true"], none.clone(), true, true),
            ("Null", &["false"], none.clone(), true, false),
            ("Null", &["false"], tags(&["a"]), true, true),
            ("Null", &["true"], tags(&["a"]), true, false),
            ("Null", &["true"], tags(&[]), true, true),
            ("ForAllValues:StringEquals", &["a"], none.clone(), true, true),
            ("ForAllValues:StringNotEquals", &["a"], none.clone(), true, true),
            ("ForAnyValue:StringEquals", &["a"], none.clone(), true, false),
            ("ForAnyValue:StringNotEquals", &["a"], none.clone(), true, false),
            ("ForAnyValue:StringEqualsIfExists", &["a"], none.clone(), true, true),
            ("ForAllValues:StringEquals", &["a", "b"], tags(&["a", "b"]), true, true),
            ("ForAllValues:StringEquals", &["a", "b"], tags(&["a", "c"]), true, false),
            ("ForAllValues:StringEquals", &["a"], tags(&[]), true, true),
            ("ForAnyValue:StringEquals", &["a", "b"], tags(&["c", "b"]), true, true),
            ("ForAnyValue:StringEquals", &["a", "b"], tags(&["c", "d"]), true, false),
            ("ForAllValues:StringNotLike", &["a*", "b"], tags(&["c", "d"]), true, true),
            ("ForAllValues:StringNotLike", &["a*", "b"], tags(&["c", "ab"]), true, false),
            ("ForAnyValue:StringNotEquals", &["a", "b"], tags(&["a", "c"]), true, true),
            ("ForAnyValue:StringNotEquals", &["a", "b"], tags(&["a", "b"]), true, false),
            ("StringEquals", &["a", "b"], tags(&["x", "b"]), true, true),
            ("StringEquals", &["a", "b"], tags(&["x", "y"]), true, false),
            ("StringNotEquals", &["a", "b"], tags(&["x", "b"]), true, false),
            ("StringNotEquals", &["a", "b"], tags(&["x", "y"]), true, true),
            ("StringEquals", &["${aws:PrincipalTag/none}"], tags(&[""]), true, false),
            ("StringNotEquals", &["${aws:PrincipalTag/none}"], tags(&["a"]), true, true),
            // Of what this server knows nothing, nobody can say anything, whatever the operator.
            ("StringEquals", &["a"], none.clone(), false, false),
            ("StringNotEquals", &["a"], none.clone(), false, false),
            ("StringLikeIfExists", &["*"], none.clone(), false, false),
            ("ForAllValues:StringEquals", &["a"], none.clone(), false, false),
            ("Null", &["true"], none, false, false),
        ];
        for (operator, wanted, context, known, expected) in cases {
            let (key, expected) = match known {
                true => ("aws:TagKeys", Truth::from(expected)),
                false => ("aws:Nonsense", Truth::Unknown),
            };
            assert_eq!(holds(operator, key, wanted, &context), expected, "{operator} {wanted:?} {context:?}");
        }
    }

    #[test]
    fn operators_and_values_that_are_none_are_told() {
        let cases = [
            ("StringEqual", "x", "is StringEquals meant?"),
            ("StrinkLike", "x", "is StringLike meant?"),
            ("Frobnicate", "x", "there is no condition operator"),
            ("ForSomeValues:StringEquals", "x", "there is no condition operator"),
            ("NullIfExists", "true", "takes neither"),
            ("ForAllValues:Null", "true", "takes neither"),
            ("IfExists", "x", "there is no condition operator"),
            ("NumericEquals", "ten", "no number"),
            ("NumericEquals", "1e3", "no number"),
            ("NumericEquals", "${aws:EpochTime}", "variables"),
            ("DateLessThan", "2026-02-29", "no date"),
            ("DateLessThan", "2026-13-01", "no date"),
            ("DateLessThan", "2026-01-01T24:00Z", "no date"),
            ("DateLessThan", "2026-01T00:00Z", "no date"),
            ("DateLessThan", "99999999999999999999", "no date"),
            ("DateLessThan", "", "no date"),
            ("Bool", "yes", "\"true\" or \"false\""),
            ("Null", "", "\"true\" or \"false\""),
            ("BinaryEquals", "not base64", "base64"),
            ("IpAddress", "203.0.113.0/33", "IP address"),
            ("IpAddress", "203.0.113/24", "IP address"),
            ("IpAddress", "2001:db8::/129", "IP address"),
            ("IpAddress", "203.0.113.0/+8", "IP address"),
            ("StringEquals", "${aws:username", "no }"),
        ];
        for (operator, value, wanted) in cases {
            let told = read(operator, "aws:x", &[value]).map(|_| ()).unwrap_err();
            assert!(told.contains(wanted), "{operator} {value:?}: {told}");
        }
    }

    #[test]
    fn days_are_counted_as_the_calendar_has_them() {
        let cases = [
            (1970, 1, 1, 0),
            (1969, 12, 31, -1),
            (2000, 3, 1, 11_017),
            (2024, 2, 29, 19_782),
            (1900, 3, 1, -25_508),
            (1, 1, 1, -719_162),
        ];
        for (year, month, day, wanted) in cases {
            assert_eq!(days_before(year, month, day), wanted, "{year}-{month}-{day}");
        }
    }
}
