//! AWS's query protocol: members as form fields, answers in XML.
//!
//! A member of a list is `Tags.member.1.Key`; an empty list may be sent as `Tags=`. Source: the Smithy page of awsQuery.

use std::collections::BTreeMap;

use form::decode;
use longshore_wire::xml::Writer;

use crate::error::IdentityError;

/// Members of one list. What AWS's lists hold at most is far below, and so is what a body of 1 MiB can name.
const MEMBERS_MAX: usize = 10_000;

/// The fields of a request, each taken out as it is read: what is left in the end is of no member that is known here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(BTreeMap<String, String>);

/// How form fields are written.
mod form {
    use percent_encoding::percent_decode_str;

    /// A `+` is a space.
    pub fn decode(text: &str) -> Option<String> {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8().ok().map(|text| text.into_owned())
    }
}

impl Params {
    /// Reads `application/x-www-form-urlencoded`.
    pub fn parse(body: &[u8]) -> Result<Self, IdentityError> {
        let malformed = |what: &str| IdentityError::Unreadable(format!("The request body is malformed: {what}."));
        let text = std::str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?;
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = decode(name).zip(decode(value));
            pairs.push(decoded.ok_or_else(|| malformed("a field is not UTF-8"))?);
        }
        Self::of(pairs)
    }

    /// Of fields that are decoded already. One that comes twice could mean either.
    pub fn of(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, IdentityError> {
        let mut fields = BTreeMap::new();
        for (name, value) in pairs {
            if fields.contains_key(&name) {
                return Err(IdentityError::Unreadable(format!("The parameter {name} was given twice.")));
            }
            fields.insert(name, value);
        }
        Ok(Self(fields))
    }

    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// A list of plain values; `None` if there is none at all.
    pub fn take_list(&mut self, name: &str) -> Result<Option<Vec<String>>, IdentityError> {
        let Some(members) = self.take_members(name)? else { return Ok(None) };
        let values = members.into_iter().map(|mut member| {
            let value = member.take("");
            member.finish(name)?;
            value.ok_or_else(|| IdentityError::Unreadable(format!("A member of {name} has no value.")))
        });
        values.collect::<Result<_, _>>().map(Some)
    }

    /// A list of structures, each as its own fields; that of a plain value has the empty name.
    pub fn take_members(&mut self, name: &str) -> Result<Option<Vec<Params>>, IdentityError> {
        let start = format!("{name}.member.");
        let malformed =
            |field: &str| IdentityError::Unreadable(format!("The parameter {field} is no member of a list."));
        let names: Vec<String> = self
            .0
            .range(start.clone()..)
            .map(|(field, _)| field)
            .take_while(|f| f.starts_with(&start))
            .cloned()
            .collect();
        let mut members = BTreeMap::<usize, Params>::new();
        for field in names {
            let rest = &field[start.len()..];
            let (number, member) = rest.split_once('.').unwrap_or((rest, ""));
            let number =
                number.parse().ok().filter(|n| (1..=MEMBERS_MAX).contains(n)).ok_or_else(|| malformed(&field))?;
            let value = self.0.remove(&field).unwrap_or_default();
            if members.entry(number).or_default().0.insert(member.to_owned(), value).is_some() {
                return Err(malformed(&field));
            }
        }
        match self.0.remove(name) {
            Some(value) if !value.is_empty() => return Err(malformed(name)),
            None if members.is_empty() => return Ok(None),
            _ => {}
        }
        Ok(Some(members.into_values().collect()))
    }

    /// Refuses what is of no member that is known.
    pub fn finish(&self, operation: &str) -> Result<(), IdentityError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(IdentityError::NotImplemented(format!(
                "The parameter {name} of {operation} is not supported here."
            ))),
        }
    }
}

/// A moment as answers have it.
pub(crate) fn date(seconds: i64) -> String {
    // Our own clock does not go beyond the year 9999.
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// A list in an answer.
pub(crate) fn list<T>(xml: &mut Writer, name: &str, items: impl IntoIterator<Item = T>, each: impl Fn(&mut Writer, T)) {
    xml.open(name);
    for item in items {
        xml.open("member");
        each(xml, item);
        xml.close();
    }
    xml.close();
}

/// A list of plain values in an answer.
pub(crate) fn texts<'a>(xml: &mut Writer, name: &str, items: impl IntoIterator<Item = &'a str>) {
    xml.open(name);
    for item in items {
        xml.text("member", item);
    }
    xml.close();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_with_their_lists_in_the_order_of_their_numbers() {
        let body =
            b"Action=TagRole&Tags.member.2.Key=b&Tags.member.2.Value=2&Tags.member.1.Key=a%20+&Tags.member.1.Value=\
                     &TagKeys.member.10=x&TagKeys.member.9=y&Empty=";
        let mut params = Params::parse(body).unwrap();
        assert_eq!(params.take("Action").as_deref(), Some("TagRole"));
        let tags = params.take_members("Tags").unwrap().unwrap();
        let tags: Vec<_> = tags.into_iter().map(|mut tag| (tag.take("Key"), tag.take("Value"))).collect();
        assert_eq!(tags, [(Some("a  ".into()), Some("".into())), (Some("b".into()), Some("2".into()))]);
        assert_eq!(params.take_list("TagKeys").unwrap().unwrap(), ["y", "x"]);
        assert_eq!(params.take_list("Empty").unwrap().unwrap(), Vec::<String>::new());
        assert_eq!(params.take_list("Empty").unwrap(), None);
        params.finish("TagRole").unwrap();
    }

    #[test]
    fn what_does_not_read_or_is_not_known_is_refused() {
        for body in [&b"a=\xff"[..], b"a=%ff", b"a=1&a=2"] {
            assert!(matches!(Params::parse(body), Err(IdentityError::Unreadable(_))), "{body:?}");
        }
        for body in ["T.member.0=a", "T.member.x=a", "T.member.10001=a", "T=a", "T.member.1=a&T.member.01=b"] {
            assert!(Params::parse(body.as_bytes()).unwrap().take_list("T").is_err(), "{body}");
        }
        let error = Params::parse(b"New=1").unwrap().finish("GetRole").unwrap_err();
        assert!(error.to_string().contains("New of GetRole"), "{error}");
        assert!(Params::parse(b"T.member.1.Key=a").unwrap().take_list("T").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_form_panics_and_what_is_a_list_is_read_to_its_end(garbage in "[TM.member0-9=&%+a-f]{0,60}", values: Vec<String>) {
            if let Ok(mut params) = Params::parse(garbage.as_bytes()) {
                let _ = params.take_list("T");
                let _ = params.take_members("T.member.1");
            }
            let fields = values.iter().enumerate().map(|(at, value)| (format!("T.member.{}", at + 1), value.clone()));
            let mut params = Params::of(fields).unwrap();
            proptest::prop_assert_eq!(params.take_list("T").unwrap().unwrap_or_default(), values);
            params.finish("T").unwrap();
        }
    }

    #[test]
    fn a_date_is_in_utc_to_the_second() {
        assert_eq!(date(1_795_866_364), "2026-11-28T11:46:04Z");
    }
}
