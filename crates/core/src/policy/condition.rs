//! Conditions: an operator, a key, and the values of which one has to fit.
//!
//! Source: IAM user guide, "IAM JSON policy elements: Condition operators", "Conditions with multiple context keys or values",
//! "Single-valued vs. multivalued context keys".

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr};

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
    Date(Instant),
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
                Instant::read(value).is_some_and(|found| order.holds(found.cmp(wanted))).into()
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
            Test::Date(_) => Instant::read(value)
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
struct Instant {
    seconds: i64,
    /// Without zeros at the end.
    fraction: String,
}

impl Instant {
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
