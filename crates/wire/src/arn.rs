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

/// The resource of an S3 ARN. Bucket and object ARNs name no region and no account; those that do are access points
/// and the like, whose names must not be taken for a bucket's.
fn s3_resource(arn: &str) -> Option<&str> {
    let arn = Arn::parse(arn)?;
    let plain = arn.service == "s3" && arn.region.is_empty() && arn.account.is_empty();
    (plain && is_partition(arn.partition)).then_some(arn.resource)
}

/// `aws`, `aws-cn`, `aws-us-gov` and so on.
fn is_partition(text: &str) -> bool {
    text.strip_prefix("aws").is_some_and(|rest| {
        rest.is_empty() || (rest.starts_with('-') && rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
    })
}

/// The bucket of `arn:aws:s3:::bucket` (no key allowed).
pub fn bucket_of(arn: &str) -> Option<&str> {
    s3_resource(arn).filter(|resource| !resource.is_empty() && !resource.contains('/'))
}

/// Bucket and key of `arn:aws:s3:::bucket/key`. The key is raw: nothing in it is percent-decoded.
pub fn object_of(arn: &str) -> Option<(&str, &str)> {
    let (bucket, key) = s3_resource(arn)?.split_once('/')?;
    (!bucket.is_empty() && !key.is_empty()).then_some((bucket, key))
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

/// What an operation takes for a name: the API model has two shapes for it. Source: Lambda spec 2.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameShape {
    /// `FunctionName`: what makes or changes a function, its versions, its aliases, its concurrency.
    Function,
    /// `NamespacedFunctionName`, a little wider: whatever reads, invokes or deletes. It takes names with a dot, which no
    /// function has.
    Namespaced,
}

impl NameShape {
    /// Characters of a name with everything around it.
    pub const fn chars_max(self) -> usize {
        match self {
            Self::Function => 140,
            Self::Namespaced => 256,
        }
    }

    /// The pattern as errors show it.
    pub const fn pattern(self) -> &'static str {
        match self {
            Self::Function => {
                r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
            }
            Self::Namespaced => {
                r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
            }
        }
    }
}

impl FunctionName {
    /// Parses any of the documented forms of `FunctionName`; `None` if none fits. Lengths are left to the operation.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_as(text, NameShape::Function)
    }

    /// As [`FunctionName::parse`], for the shape that an operation takes.
    pub fn parse_as(text: &str, shape: NameShape) -> Option<Self> {
        let mut parts: Vec<&str> = text.splitn(9, ':').collect();
        let (mut region, mut account) = (None, None);
        if let ["arn", partition, "lambda", r, a, "function", _, ..] = parts[..] {
            if !is_partition(partition) || !is_region(r) || !is_account(a) {
                return None;
            }
            (region, account) = (Some(r.to_owned()), Some(a.to_owned()));
            parts.drain(..6);
        } else {
            // A region alone is not one: `us-east-1:prod` is alias `prod` of a function of that name.
            if parts.len() > 2 && is_region(parts[0]) && is_account(parts[1]) {
                region = Some(parts.remove(0).to_owned());
            }
            if parts.len() > 1 && is_account(parts[0]) {
                account = Some(parts.remove(0).to_owned());
            }
            if parts.len() > 1 && parts[0] == "function" {
                parts.remove(0);
            }
        }
        let (name, qualifier) = match parts[..] {
            [name] => (name, None),
            [name, qualifier] => (name, Some(qualifier.to_owned())),
            _ => return None,
        };
        let namespaced = shape == NameShape::Namespaced;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let name_ok = !name.is_empty() && name.bytes().all(|b| plain(b) || (namespaced && b == b'.'));
        let qualifier_ok = qualifier.as_deref().is_none_or(|q| {
            q == "$LATEST" || (namespaced && q == "$LATEST.PUBLISHED") || (!q.is_empty() && q.bytes().all(plain))
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

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// `us-east-1`, `us-gov-west-1`, `eusc-de-east-1`, by AWS's pattern.
fn is_region(text: &str) -> bool {
    let mut parts = text.strip_prefix("eusc-").unwrap_or(text).split('-');
    let lower = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    let country = parts.next().is_some_and(|p| p.len() == 2 && lower(p));
    let mut next = parts.next();
    if next.is_some_and(|p| matches!(p, "gov" | "iso") || (p.len() == 4 && p.starts_with("iso") && lower(p))) {
        next = parts.next();
    }
    let number = parts.next().is_some_and(|p| p.len() == 1 && p.as_bytes()[0].is_ascii_digit());
    country && next.is_some_and(lower) && number && parts.next().is_none()
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
            ("123456789012:f", name(None, a, "f", None)),
            ("us-west-2:123456789012:function:f", name(r, a, "f", None)),
            ("arn:aws-cn:lambda:us-west-2:123456789012:function:f", name(r, a, "f", None)),
            // Names and aliases that look like something else.
            ("line-count-1:prod", name(None, None, "line-count-1", Some("prod"))),
            ("us-west-2:prod", name(None, None, "us-west-2", Some("prod"))),
            ("123456789012", name(None, None, "123456789012", None)),
            ("function:function", name(None, None, "function", None)),
            ("arn:aws:lambda:us-west-2:123456789012:layer:f", None),
            ("arn:aws:lambda:us-west-2:123456789012:event-source-mapping:f", None),
            ("arn:aws:lambda:us-west-2:123456789012:function", None),
            ("arn:aws:lambda:us-west-2:123456789012:f", None),
            ("arn:aws:lambda:us-west-2:12345:function:f", None),
            ("arn:aws:lambda::123456789012:function:f", None),
            ("arn:aws:lambda:us-west-2:123456789012:function:f:1:2", None),
            ("arn:awsx:lambda:us-west-2:123456789012:function:f", None),
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
    fn what_reads_or_invokes_takes_a_name_with_a_dot_and_what_changes_does_not() {
        for (text, wanted) in [
            ("a.b", name(None, None, "a.b", None)),
            ("a.b:c", name(None, None, "a.b", Some("c"))),
            ("a:$LATEST.PUBLISHED", name(None, None, "a", Some("$LATEST.PUBLISHED"))),
            ("a:b.c", None),
            ("a:$LATEST.", None),
            ("a b", None),
        ] {
            assert_eq!(FunctionName::parse_as(text, NameShape::Namespaced), wanted, "{text}");
            assert_eq!(FunctionName::parse_as(text, NameShape::Function), None, "{text}");
        }
        let both = |text| [NameShape::Function, NameShape::Namespaced].map(|shape| FunctionName::parse_as(text, shape));
        assert_eq!(both("f:$LATEST"), [name(None, None, "f", Some("$LATEST")), name(None, None, "f", Some("$LATEST"))]);
    }

    #[test]
    fn an_object_arn_splits_at_the_first_slash_only() {
        assert_eq!(object_of("arn:aws:s3:::m/a b/c.csv"), Some(("m", "a b/c.csv")));
        assert_eq!(object_of("arn:aws:s3:::m"), None);
        assert_eq!(bucket_of("arn:aws:s3:::r"), Some("r"));
        assert_eq!(bucket_of("arn:aws:s3:::r/k"), None);
        assert_eq!(object_of("arn:aws:s3:::m/a:b"), Some(("m", "a:b")));
        for other in ["arn:aws:s3:us-east-1:123456789012:accesspoint/p/object/k", "arn:aws:lambda:::b/k", "b/k", ""] {
            assert_eq!((object_of(other), bucket_of(other)), (None, None), "{other}");
        }
        assert_eq!(bucket_of("arn:aws:s3:us-east-1:123456789012:b"), None);
    }

    #[test]
    fn a_region_is_what_aws_calls_one() {
        for good in
            ["us-east-1", "us-gov-west-1", "us-iso-east-1", "us-isob-east-1", "eusc-de-east-1", "ap-southeast-5"]
        {
            assert!(is_region(good), "{good}");
        }
        for bad in
            ["", "us-east", "us-east-12", "us-east-1-2", "line-count-1", "us--1", "US-east-1", "us-gov-1-", "local"]
        {
            assert!(!is_region(bad), "{bad}");
        }
    }
}
