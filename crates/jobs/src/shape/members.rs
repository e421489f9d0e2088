//! The members of a structure in a document: read by name, each at most once, and checked; and written again.

use std::ops::RangeInclusive;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use longshore_core::time::Timestamp;
use longshore_wire::xml::{Element, Writer};

use super::{Checked, invalid};
use crate::operations::iso;

/// A structure and where it stands, for error messages: `S3PutObjectCopy.NewObjectMetadata`.
pub struct Members<'a> {
    element: &'a Element,
    path: String,
}

/// An enumeration of the model: a fixed set of strings.
pub trait Word: Sized + Copy + 'static {
    const ALL: &'static [Self];
    /// As AWS spells it.
    fn word(self) -> &'static str;
}

/// Makes an enum whose variants are strings on the wire.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($variant),+ }

        impl $crate::shape::members::Word for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}
pub(super) use words;

impl<'a> Members<'a> {
    /// A structure whose unknown members are ignored.
    pub fn loose(element: &'a Element, path: &str) -> Self {
        Self { element, path: path.to_owned() }
    }

    /// A structure inside `Operation`: an unknown member is refused, for to drop one silently could change what is done
    /// to objects (rule X-8). `newer` are members that AWS documents and that are in no model yet: they are refused by
    /// name as well, with a better reason (spec 4.4, 4.8).
    pub fn strict(element: &'a Element, path: &str, known: &[&str], newer: &[&str]) -> Checked<Self> {
        if let Some(newer) = element.children.iter().find(|c| newer.contains(&c.name.as_str())) {
            return invalid(format!("{path}.{} is not supported by this server", newer.name));
        }
        if let Some(unknown) = element.children.iter().find(|c| !known.contains(&c.name.as_str())) {
            return invalid(format!("{path} has an unknown member {}", unknown.name));
        }
        if !element.text.trim().is_empty() {
            return invalid(format!("{path} must not have text of its own"));
        }
        Ok(Self { element, path: path.to_owned() })
    }

    pub fn child(&self, name: &str) -> Checked<Option<&'a Element>> {
        only_child(self.element, name).map_or_else(|| invalid(format!("{} stands twice", self.name(name))), Ok)
    }

    /// The member's structure, read as strictly as this one.
    pub fn structure(&self, name: &str, known: &[&str], newer: &[&str]) -> Checked<Option<Members<'a>>> {
        self.child(name)?.map(|child| Members::strict(child, &self.name(name), known, newer)).transpose()
    }

    /// The members of a list, whatever the name of each (rule X-1), each read by `read`.
    pub fn list<T>(&self, name: &str, read: impl Fn(&'a Element, &str) -> Checked<T>) -> Checked<Option<Vec<T>>> {
        let Some(list) = self.child(name)? else { return Ok(None) };
        let path = self.name(name);
        if !list.text.trim().is_empty() {
            return invalid(format!("{path} must be a list"));
        }
        list.children.iter().map(|member| read(member, &path)).collect::<Checked<Vec<T>>>().map(Some)
    }

    /// A map of `<entry><key/><value/></entry>` (rule X-3), in the order in which it was sent. A key may not repeat.
    pub fn map(
        &self,
        name: &str,
        entries: RangeInclusive<usize>,
        key: RangeInclusive<usize>,
        value: RangeInclusive<usize>,
    ) -> Checked<Option<Vec<(String, String)>>> {
        let Some(map) = self.child(name)? else { return Ok(None) };
        let path = self.name(name);
        // First of all: what follows looks at each of them.
        if !entries.contains(&map.children.len()) {
            return invalid(format!("{path} must have {} to {} entries", entries.start(), entries.end()));
        }
        let mut keys = std::collections::BTreeSet::new();
        let mut pairs = Vec::with_capacity(map.children.len());
        if let Some(other) = map.children.iter().find(|child| child.name != "entry") {
            return invalid(format!("{path} has an unknown member {}", other.name));
        }
        for entry in &map.children {
            let entry = Members::strict(entry, &path, &["key", "value"], &[])?;
            let pair = (
                entry.need("key", entry.text("key", key.clone())?)?,
                entry.need("value", entry.text("value", value.clone())?)?,
            );
            if !keys.insert(pair.0.clone()) {
                return invalid(format!("{path} has the key {} twice", pair.0));
            }
            pairs.push(pair);
        }
        Ok(Some(pairs))
    }

    /// Text of so many characters, none of which XML cannot carry: it is shown again, in a document that has to parse.
    pub fn text(&self, name: &str, length: RangeInclusive<usize>) -> Checked<Option<String>> {
        match self.name_text(name, length)? {
            Some(text) if !is_xml(&text) => {
                invalid(format!("{} has characters that XML cannot carry", self.name(name)))
            }
            text => Ok(text),
        }
    }

    /// Text of so many characters, whichever they are: for the names of objects, which S3 shows with control characters
    /// as references, against the letter of XML (rule X-10).
    pub fn name_text(&self, name: &str, length: RangeInclusive<usize>) -> Checked<Option<String>> {
        let Some(text) = self.leaf(name)? else { return Ok(None) };
        if !length.contains(&text.chars().count()) {
            let (min, max) = (length.start(), length.end());
            return invalid(format!("{} must have {min} to {max} characters", self.name(name)));
        }
        Ok(Some(text.to_owned()))
    }

    pub fn word<T: Word>(&self, name: &str) -> Checked<Option<T>> {
        let Some(text) = self.leaf(name)? else { return Ok(None) };
        match T::ALL.iter().find(|known| known.word() == text) {
            Some(word) => Ok(Some(*word)),
            None => {
                let all: Vec<&str> = T::ALL.iter().map(|word| word.word()).collect();
                invalid(format!("{} must be one of {}", self.name(name), all.join(", ")))
            }
        }
    }

    pub fn boolean(&self, name: &str) -> Checked<Option<bool>> {
        match self.leaf(name)? {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => invalid(format!("{} must be true or false", self.name(name))),
        }
    }

    pub fn whole(&self, name: &str, range: RangeInclusive<u64>) -> Checked<Option<u64>> {
        let Some(text) = self.leaf(name)? else { return Ok(None) };
        match whole(text).filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let (min, max) = (range.start(), range.end());
                invalid(format!("{} must be a whole number from {min} to {max}", self.name(name)))
            }
        }
    }

    pub fn date(&self, name: &str) -> Checked<Option<Timestamp>> {
        let Some(text) = self.leaf(name)? else { return Ok(None) };
        match date(text) {
            Some(date) => Ok(Some(date)),
            None => invalid(format!("{} must be a date as of ISO 8601", self.name(name))),
        }
    }

    pub fn need<T>(&self, name: &str, value: Option<T>) -> Checked<T> {
        value.map_or_else(|| invalid(format!("{} is required", self.name(name))), Ok)
    }

    fn leaf(&self, name: &str) -> Checked<Option<&'a str>> {
        match self.child(name)? {
            Some(child) if !child.is_leaf() => invalid(format!("{} must be text", self.name(name))),
            child => Ok(child.map(|child| child.text.as_str())),
        }
    }

    fn name(&self, member: &str) -> String {
        if self.path.is_empty() { member.to_owned() } else { format!("{}.{member}", self.path) }
    }
}

/// The child of that name, if any; `None` where there are two: which of them was meant?
fn only_child<'a>(parent: &'a Element, name: &str) -> Option<Option<&'a Element>> {
    let mut named = parent.children.iter().filter(|c| c.name == name);
    let first = named.next();
    named.next().is_none().then_some(first)
}

/// Whether all characters may stand in a document of XML 1.0. One that may not in a job's description would keep every
/// client from reading any page of ListJobs that it is on.
pub fn is_xml(text: &str) -> bool {
    text.chars().all(is_xml_char)
}

pub fn is_xml_char(c: char) -> bool {
    !(c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{7f}') || matches!(c, '\u{fffe}' | '\u{ffff}'))
}

/// Digits alone: no sign, which Rust's own parser would let pass.
pub fn whole(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A date in any form of ISO 8601, with or without a fraction and with any offset; one that has none is in UTC
/// (rule X-5). Cut to milliseconds.
pub fn date(text: &str) -> Option<Timestamp> {
    // Names of time zones in brackets are no part of ISO 8601.
    if text.contains('[') {
        return None;
    }
    let without_offset = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|z| z.timestamp());
    let date = text.parse::<jiff::Timestamp>().ok().or_else(without_offset)?;
    Some(Timestamp(date.as_millisecond()))
}

/// Writes members that may be absent.
pub trait WriteMembers {
    fn maybe_text(&mut self, name: &str, text: Option<&str>);
    fn maybe_word<T: Word>(&mut self, name: &str, word: Option<T>) {
        self.maybe_text(name, word.map(Word::word));
    }
    fn maybe_boolean(&mut self, name: &str, value: Option<bool>) {
        self.maybe_text(name, value.map(|value| if value { "true" } else { "false" }));
    }
    fn maybe_whole(&mut self, name: &str, number: Option<u64>) {
        self.maybe_text(name, number.map(|number| number.to_string()).as_deref());
    }
    fn maybe_date(&mut self, name: &str, date: Option<Timestamp>) {
        self.maybe_text(name, date.map(iso).as_deref());
    }
    fn maybe_map(&mut self, name: &str, map: Option<&[(String, String)]>);
}

impl WriteMembers for Writer {
    fn maybe_text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn maybe_map(&mut self, name: &str, map: Option<&[(String, String)]>) {
        let Some(map) = map else { return };
        self.open(name);
        for (key, value) in map {
            self.open("entry");
            self.text("key", key);
            self.text("value", value);
            self.close();
        }
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_in_every_form_of_iso_8601() {
        let wanted = Some(Timestamp(1_704_153_600_000));
        for text in [
            "2024-01-02T00:00:00Z",
            "2024-01-02T00:00:00.000Z",
            "2024-01-02T00:00:00.000000Z",
            "2024-01-02T00:00:00+00:00",
            "2024-01-02T00:00:00-00:00",
            "2024-01-02T02:00:00+02:00",
            "2024-01-02T02:00:00.0009+0200",
            "2024-01-02T00:00:00",
            "2024-01-02",
            "20240102T000000Z",
        ] {
            assert_eq!(date(text), wanted, "{text}");
        }
        assert_eq!(date("2024-01-02T00:00:00.048Z"), Some(Timestamp(1_704_153_600_048)));
        for text in [
            "",
            "tomorrow",
            "2024-13-02T00:00:00Z",
            "1704153600",
            "2024-01-02T00:00:00[Europe/Berlin]",
            "2024-01-02T00:00:00+99:00",
        ] {
            assert_eq!(date(text), None, "{text}");
        }
    }

    #[test]
    fn a_whole_number_has_digits_alone() {
        assert_eq!((whole("0"), whole("007"), whole("18446744073709551615")), (Some(0), Some(7), Some(u64::MAX)));
        for text in ["", "+5", "-1", "1.0", "0x1", " 1", "18446744073709551616"] {
            assert_eq!(whole(text), None, "{text:?}");
        }
    }
}
