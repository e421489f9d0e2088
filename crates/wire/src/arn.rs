//! Amazon Resource Names, and the forms in which a function may be named.

use crate::error::ApiError;

/// `arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE`, split at its first five colons and not checked further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arn<'a> {
    pub partition: &'a str,
    pub service: &'a str,
    pub region: &'a str,
    pub account: &'a str,
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        (parts.next()? == "arn").then_some(())?;
        Some(Self {
            partition: parts.next()?,
            service: parts.next()?,
            region: parts.next()?,
            account: parts.next()?,
            resource: parts.next()?,
        })
    }
}

/// The bucket of `arn:aws:s3:::bucket` (no key allowed).
pub fn bucket_of(arn: &str) -> Option<&str> {
    let arn = Arn::parse(arn)?;
    (arn.service == "s3" && !arn.resource.is_empty() && !arn.resource.contains('/')).then_some(arn.resource)
}

/// Bucket and key of `arn:aws:s3:::bucket/key`. The key is raw: nothing in it is percent-decoded.
pub fn object_of(arn: &str) -> Option<(&str, &str)> {
    let arn = Arn::parse(arn)?;
    let (bucket, key) = arn.resource.split_once('/')?;
    (arn.service == "s3" && !bucket.is_empty() && !key.is_empty()).then_some((bucket, key))
}

/// A function as a caller may name it: bare name, partial ARN or full ARN, with or without a qualifier.
/// Source: Lambda spec 2.5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionName {
    pub region: Option<String>,
    pub account: Option<String>,
    pub name: String,
    /// Version number, alias or `$LATEST`, as given.
    pub qualifier: Option<String>,
}

impl FunctionName {
    /// Parses any of the documented forms; `None` if none fits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts: Vec<&str> = text.split(':').collect();
        let mut region = None;
        let mut account = None;
        if parts.first() == Some(&"arn") {
            // arn:aws:lambda:REGION:ACCOUNT:function:NAME[:QUALIFIER]
            if parts.len() < 7 || !parts[1].starts_with("aws") || parts[2] != "lambda" {
                return None;
            }
            parts.drain(..3);
        }
        if parts.len() > 1 && is_region(parts[0]) {
            region = Some(parts.remove(0).to_owned());
        }
        if parts.len() > 1 && parts[0].len() == 12 && parts[0].bytes().all(|b| b.is_ascii_digit()) {
            account = Some(parts.remove(0).to_owned());
        }
        if parts.len() > 1 && parts[0] == "function" {
            parts.remove(0);
        }
        let (name, qualifier) = match parts[..] {
            [name] => (name, None),
            [name, qualifier] => (name, Some(qualifier.to_owned())),
            _ => return None,
        };
        let name_ok = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let qualifier_ok = qualifier.as_deref().is_none_or(|q| {
            q == "$LATEST"
                || (!q.is_empty() && q.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')))
        });
        (name_ok && qualifier_ok).then(|| Self { region, account, name: name.to_owned(), qualifier })
    }

    /// The full ARN in `region` and `account`, with the qualifier if there is one.
    pub fn arn(&self, region: &str, account: &str) -> String {
        let base = format!("arn:aws:lambda:{region}:{account}:function:{}", self.name);
        match &self.qualifier {
            Some(q) => format!("{base}:{q}"),
            None => base,
        }
    }
}

fn is_region(text: &str) -> bool {
    let mut parts = text.rsplitn(2, '-');
    let digit = parts.next().is_some_and(|d| d.len() == 1 && d.bytes().all(|b| b.is_ascii_digit()));
    digit && parts.next().is_some_and(|rest| rest.len() > 3 && rest.contains('-'))
}

/// The error for a missing function, in AWS's words.
pub fn function_not_found(arn: &str) -> ApiError {
    ApiError::new(http::StatusCode::NOT_FOUND, "ResourceNotFoundException", format!("Function not found: {arn}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(region: Option<&str>, account: Option<&str>, name: &str, qualifier: Option<&str>) -> Option<FunctionName> {
        let own = |s: &str| s.to_owned();
        Some(FunctionName {
            region: region.map(own),
            account: account.map(own),
            name: own(name),
            qualifier: qualifier.map(own),
        })
    }

    #[test]
    fn a_function_is_known_by_each_documented_form() {
        let (r, a) = (Some("us-west-2"), Some("123456789012"));
        let cases = [
            ("my-function", name(None, None, "my-function", None)),
            ("my-function:prod", name(None, None, "my-function", Some("prod"))),
            ("f:$LATEST", name(None, None, "f", Some("$LATEST"))),
            ("123456789012:function:f:7", name(None, a, "f", Some("7"))),
            ("function:f", name(None, None, "f", None)),
            ("function", name(None, None, "function", None)),
            ("arn:aws:lambda:us-west-2:123456789012:function:f", name(r, a, "f", None)),
            ("arn:aws:lambda:us-west-2:123456789012:function:f:PROD", name(r, a, "f", Some("PROD"))),
            ("arn:aws:s3:::f", None),
            ("a.b", None),
            ("", None),
            ("f:", None),
            ("a:b:c:d", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(FunctionName::parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn an_object_arn_splits_at_the_first_slash_only() {
        assert_eq!(object_of("arn:aws:s3:::m/a b/c.csv"), Some(("m", "a b/c.csv")));
        assert_eq!(object_of("arn:aws:s3:::m"), None);
        assert_eq!(bucket_of("arn:aws:s3:::r"), Some("r"));
        assert_eq!(bucket_of("arn:aws:s3:::r/k"), None);
    }
}
