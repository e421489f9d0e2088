//! The CreateJob document: read, checked, kept, echoed. Source: S3 Batch spec 1.5.
//!
//! Elements may stand in any order; list members may have any name (rule X-1); unknown elements are ignored, except
//! inside `Operation`, where dropping one silently could change what is done to objects (rule X-8).

mod beyond;
mod generator;
mod manifest;
mod operation;
mod report;

use longshore_wire::arn::Arn;
use longshore_wire::xml::{Element, Writer};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::Settings;
use crate::error::JobError;

pub use beyond::{Beyond, ReportedRows};
pub use generator::{GENERATED_FORMAT, Generator, Output};
pub use manifest::{Manifest, Source, bare_etag};
pub use operation::{LAMBDA_INVOKE, LambdaInvoke};
pub use report::Report;

/// A CreateJob request that keeps every rule that can be checked without reading anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewJob {
    /// The effective value: absent means true, unless the settings say otherwise (rule L-3, C-18).
    pub confirmation_required: bool,
    pub operation: LambdaInvoke,
    pub report: Report,
    pub client_request_token: String,
    #[serde(flatten)]
    pub source: Source,
    pub description: Option<String>,
    pub priority: u32,
    pub role_arn: String,
    pub tags: Vec<(String, String)>,
    /// What of the tags is ours.
    #[serde(default, skip_serializing_if = "Beyond::is_none")]
    pub beyond: Beyond,
}

const TAGS_MAX: usize = 50;
type Checked<T> = Result<T, JobError>;

fn invalid<T>(detail: impl Into<String>) -> Checked<T> {
    Err(JobError::Invalid(detail.into()))
}

impl NewJob {
    /// Reads and checks the body of a CreateJob request.
    pub fn parse(body: &[u8], settings: &Settings) -> Checked<Self> {
        let root = Element::parse(body).map_err(|e| JobError::Malformed(e.to_string()))?;
        if root.name != "CreateJobRequest" {
            return Err(JobError::Malformed(format!("the root element is {}", root.name)));
        }
        let mut job = Self {
            confirmation_required: optional_bool(&root, "ConfirmationRequired")?
                .unwrap_or(settings.confirmation_default),
            operation: LambdaInvoke::parse(&root, settings)?,
            report: Report::parse(&root)?,
            client_request_token: text(&root, "ClientRequestToken", 1, 64)?,
            source: Source::parse(&root)?,
            description: optional_text(&root, "Description", 1, 256)?,
            priority: priority(&text(&root, "Priority", 1, 16)?)?,
            role_arn: role_arn(text(&root, "RoleArn", 1, 2_048)?, settings)?,
            tags: root.child("Tags").map_or(Ok(Vec::new()), parse_tags)?,
            beyond: Beyond::default(),
        };
        job.beyond = Beyond::parse(&job.tags, job.confirmation_required, &job.source)?;
        Ok(job)
    }

    /// What makes two requests the same under one token: everything but the token and the order of maps (rule I-2).
    pub fn fingerprint(&self) -> String {
        let mut same = self.clone();
        same.client_request_token.clear();
        same.tags.sort();
        if let Some(arguments) = &mut same.operation.user_arguments {
            arguments.sort();
        }
        let json = serde_json::to_vec(&same).expect("strings and numbers always serialise");
        hex::encode(Sha1::digest(json))
    }
}

/// Directory buckets and access points, which hold neither manifests nor reports (rule V-17).
fn is_special_bucket(bucket: &str) -> bool {
    bucket.ends_with("--x-s3") || bucket.starts_with("accesspoint") || bucket.starts_with("outpost")
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

fn role_arn(role: String, settings: &Settings) -> Checked<String> {
    let parsed = Arn::parse(&role).filter(|a| a.service == "iam" && a.region.is_empty() && is_account(a.account));
    match parsed {
        Some(arn) if arn.resource.starts_with("role/") && arn.account == settings.account => Ok(role),
        Some(arn) if arn.resource.starts_with("role/") => {
            Err(JobError::AccessDenied("Cross-account pass role is not allowed"))
        }
        _ => invalid("RoleArn must be the ARN of a role"),
    }
}

/// A priority from the wire: 0 to 2,147,483,647.
pub fn priority(text: &str) -> Checked<u32> {
    match text.parse::<u32>() {
        Ok(priority) if i32::try_from(priority).is_ok() => Ok(priority),
        _ => invalid("Priority must be a whole number from 0 to 2147483647"),
    }
}

/// Reads `<Tags><member><Key/><Value/></member>…</Tags>`.
pub fn parse_tags(element: &Element) -> Checked<Vec<(String, String)>> {
    // First of all: what follows looks at each pair of them.
    if element.children.len() > TAGS_MAX {
        return Err(JobError::TooManyTags);
    }
    let mut tags: Vec<(String, String)> = Vec::new();
    for member in &element.children {
        let (key, value) = (text(member, "Key", 1, 128)?, member.child_text("Value").unwrap_or("").to_owned());
        if value.chars().count() > 256 {
            return invalid("a tag's value is longer than 256 characters");
        }
        let space = |c: char| c.is_whitespace() && !c.is_control();
        let fits = |c: char| c.is_alphanumeric() || space(c) || "_.:/=+-@".contains(c);
        if !key.chars().chain(value.chars()).all(fits) {
            return invalid(format!("the tag {key} has characters that tags may not have"));
        }
        if tags.iter().any(|(k, _)| *k == key) {
            return invalid(format!("the tag {key} stands twice"));
        }
        tags.push((key, value));
    }
    Ok(tags)
}

fn optional_text(parent: &Element, name: &str, min: usize, max: usize) -> Checked<Option<String>> {
    let Some(element) = parent.child(name) else { return Ok(None) };
    if !element.is_leaf() {
        return invalid(format!("{name} must be text"));
    }
    let length = element.text.chars().count();
    if length < min || length > max {
        return invalid(format!("{name} must have {min} to {max} characters"));
    }
    Ok(Some(element.text.clone()))
}

fn text(parent: &Element, name: &str, min: usize, max: usize) -> Checked<String> {
    match optional_text(parent, name, min, max)? {
        Some(text) => Ok(text),
        None => invalid(format!("{name} is required")),
    }
}

fn optional_bool(parent: &Element, name: &str) -> Checked<Option<bool>> {
    match parent.child_text(name) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => invalid(format!("{name} must be true or false")),
    }
}

/// Writes `<Tags>` with its members.
pub fn write_tags(xml: &mut Writer, tags: &[(String, String)]) {
    xml.open("Tags");
    for (key, value) in tags {
        xml.open("member");
        xml.text("Key", key);
        xml.text("Value", value);
        xml.close();
    }
    xml.close();
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The sample of the spec's section 1.4, as boto3 sends it.
    pub const SAMPLE: &str = r#"<CreateJobRequest xmlns="http://awss3control.amazonaws.com/doc/2018-08-20/">
 <ConfirmationRequired>false</ConfirmationRequired>
 <Operation><LambdaInvoke>
   <FunctionArn>arn:aws:lambda:us-west-2:123456789012:function:f:PROD</FunctionArn>
   <InvocationSchemaVersion>2.0</InvocationSchemaVersion>
   <UserArguments><entry><key>k1</key><value>v1</value></entry><entry><key>k2</key><value /></entry></UserArguments>
 </LambdaInvoke></Operation>
 <Report><Bucket>arn:aws:s3:::r</Bucket><Format>Report_CSV_20180820</Format><Enabled>true</Enabled>
   <Prefix>p</Prefix><ReportScope>AllTasks</ReportScope></Report>
 <ClientRequestToken>tok-1</ClientRequestToken>
 <Manifest><Spec><Format>S3BatchOperations_CSV_20180820</Format>
   <Fields><member>Bucket</member><member>Key</member><member>VersionId</member></Fields></Spec>
   <Location><ObjectArn>arn:aws:s3:::m/a b.csv</ObjectArn><ETag>"60e460c9d1046e73f7dde5043ac3ae85"</ETag></Location></Manifest>
 <Description>d</Description><Priority>42</Priority>
 <RoleArn>arn:aws:iam::123456789012:role/r</RoleArn>
 <Tags><member><Key>a</Key><Value /></member></Tags>
</CreateJobRequest>"#;

    pub fn parse(body: &str) -> Checked<NewJob> {
        NewJob::parse(body.as_bytes(), &Settings::new("123456789012", "us-west-2"))
    }

    #[test]
    fn the_sample_request_is_read_whole() {
        let job = parse(SAMPLE).unwrap();
        assert!(!job.confirmation_required);
        assert_eq!(job.priority, 42);
        let Source::Manifest(manifest) = &job.source else { panic!("it names a manifest") };
        assert_eq!(manifest.etag_bare(), "60e460c9d1046e73f7dde5043ac3ae85");
        assert_eq!(job.operation.user_arguments.unwrap(), [("k1".into(), "v1".into()), ("k2".into(), String::new())]);
        assert_eq!(job.tags, [("a".to_owned(), String::new())]);
    }

    #[test]
    fn each_broken_rule_is_refused_in_words() {
        for (from, to, wanted) in [
            ("<Priority>42</Priority>", "", "Priority is required"),
            ("<Priority>42</Priority>", "<Priority>-1</Priority>", "Priority must be a whole number"),
            ("<Priority>42</Priority>", "<Priority>2147483648</Priority>", "Priority must be a whole number"),
            ("<Enabled>true</Enabled>", "<Enabled>yes</Enabled>", "Enabled must be true or false"),
            ("<ReportScope>AllTasks</ReportScope>", "", "an enabled report needs"),
            ("<Bucket>arn:aws:s3:::r</Bucket>", "<Bucket>r</Bucket>", "Report.Bucket must be the ARN"),
            ("<member>Key</member>", "", "Required fields are missing in the schema: Key"),
            ("<member>VersionId</member>", "<member>Key</member>", "names a column twice"),
            ("<member>VersionId</member>", "<member>Size</member>", "may name Ignore"),
            ("<InvocationSchemaVersion>2.0</InvocationSchemaVersion>", "", "UserArguments needs"),
            ("2.0</InvocationSchemaVersion>", "3.0</InvocationSchemaVersion>", "must be 1.0 or 2.0"),
            ("<key>k2</key>", "<key>k1</key>", "the key k1 twice"),
            ("us-west-2", "us-east-1", "not in the job's region"),
            ("function:f:PROD", "function:f.x", "does not match its pattern"),
            ("</LambdaInvoke>", "<Extra/></LambdaInvoke>", "unknown member Extra"),
            ("</LambdaInvoke>", "</LambdaInvoke><S3DeleteObjectTagging/>", "exactly one member"),
            ("<ClientRequestToken>tok-1</ClientRequestToken>", "", "ClientRequestToken is required"),
            ("arn:aws:iam::123456789012:role/r", "arn:aws:iam::123456789012:user/r", "RoleArn must be"),
            ("<Key>a</Key>", "<Key>a!</Key>", "may not have"),
            ("<Key>a</Key><Value />", "<Key>longshore:samples</Key><Value>5</Value>", "longshore:samples is not known"),
            ("<Key>a</Key>", "<Key>Longshore:Sample</Key>", "Longshore:Sample is not known"),
            ("<Key>a</Key><Value />", "<Key>longshore:sample</Key><Value>0</Value>", "1 to 1000000"),
            ("<Key>a</Key><Value />", "<Key>longshore:sample</Key><Value>1000001</Value>", "1 to 1000000"),
            ("<Key>a</Key><Value />", "<Key>longshore:sample</Key><Value>+5</Value>", "1 to 1000000"),
            ("<Key>a</Key>", "<Key>longshore:start</Key>", "must be while-preparing"),
            ("<Key>a</Key>", "<Key>longshore:rows</Key>", "must be failed or all"),
            ("<Key>a</Key><Value />", "<Key>longshore:rows</Key><Value>all</Value>", "needs a completion report"),
            ("S3BatchOperations_CSV_20180820", "Report_CSV_20180820", "takes no Fields"),
        ] {
            let body = SAMPLE.replacen(from, to, 1);
            assert_ne!(body, SAMPLE, "{from}");
            let error = parse(&body).unwrap_err();
            let told = error.told();
            assert_eq!(told.code, "InvalidRequest", "{from}: {error}");
            assert!(told.message.contains(wanted), "{from}: {}", told.message);
        }
    }

    const EARLY: &str = "<member><Key>longshore:start</Key><Value>while-preparing</Value></member>";

    #[test]
    fn what_a_job_asks_for_beyond_aws_is_read_from_its_tags() {
        assert!(parse(SAMPLE).unwrap().beyond.is_none());
        let early = parse(&SAMPLE.replace("<Tags>", &format!("<Tags>{EARLY}"))).unwrap();
        assert!(early.beyond.early_start && early.tags.len() == 2);
        let sample = SAMPLE.replace("<Key>a</Key><Value />", "<Key>longshore:sample</Key><Value>5</Value>");
        let sample = parse(&sample).unwrap();
        assert_eq!(sample.beyond, Beyond { sample: Some(5), ..Beyond::default() });
        let stored = serde_json::to_string(&sample).unwrap();
        assert_eq!(serde_json::from_str::<NewJob>(&stored).unwrap(), sample);
        // A job from before there were such tags reads, and its token still fits.
        assert!(!serde_json::to_string(&parse(SAMPLE).unwrap()).unwrap().contains("beyond"));
    }

    #[test]
    fn an_early_start_goes_with_neither_a_sample_nor_a_confirmation() {
        let early = SAMPLE.replace("<Tags>", &format!("<Tags>{EARLY}"));
        let confirmed = early.replace("<ConfirmationRequired>false</ConfirmationRequired>", "");
        assert!(parse(&confirmed).unwrap_err().told().message.contains("needs ConfirmationRequired to be false"));
        let sampled = early.replace("<Key>a</Key><Value />", "<Key>longshore:sample</Key><Value>5</Value>");
        assert!(parse(&sampled).unwrap_err().told().message.contains("exclude one another"));
    }

    #[test]
    fn a_completion_report_is_a_manifest_without_fields() {
        let fields = &SAMPLE[SAMPLE.find("<Fields>").unwrap()..SAMPLE.find("</Spec>").unwrap()];
        let report = SAMPLE.replace(fields, "").replace("S3BatchOperations_CSV_20180820", "Report_CSV_20180820");
        let Source::Manifest(manifest) = parse(&report).unwrap().source else { panic!("it names a manifest") };
        assert!(manifest.is_report() && manifest.fields.is_empty());
        let all = report.replace("<Key>a</Key><Value />", "<Key>longshore:rows</Key><Value>all</Value>");
        assert_eq!(parse(&all).unwrap().beyond.rows, Some(ReportedRows::All));
        let early = report.replace("<Tags>", &format!("<Tags>{EARLY}"));
        assert!(parse(&early).unwrap_err().told().message.contains("does not go with a completion report"));
    }

    #[test]
    fn what_is_not_offered_yet_is_refused_by_name() {
        let operation = SAMPLE.find("<LambdaInvoke>").unwrap()..SAMPLE.find("</Operation>").unwrap();
        let mut other = SAMPLE.to_owned();
        other.replace_range(operation, "<S3DeleteObjectTagging />");
        let told = parse(&other).unwrap_err().told();
        assert_eq!((told.status.as_u16(), &*told.code), (501, "NotImplemented"));
        assert!(told.message.contains("S3DeleteObjectTagging"));
    }

    #[test]
    fn long_lists_are_refused_by_their_length() {
        let many = |n: usize, one: &str| one.repeat(n);
        let tags = many(51, "<member><Key>a</Key><Value/></member>");
        let tags = SAMPLE.replace("<member><Key>a</Key><Value /></member>", &tags);
        assert_eq!(parse(&tags).unwrap_err().told().code, "TooManyTagsException");
        let fields = SAMPLE.replace("<Fields>", &format!("<Fields>{}", many(1_000, "<member>Ignore</member>")));
        assert!(parse(&fields).unwrap_err().told().message.contains("at most 1000 columns"));
        let arguments = many(11, "<entry><key>k</key><value/></entry>");
        let arguments = SAMPLE.replace("<UserArguments>", &format!("<UserArguments>{arguments}"));
        assert!(parse(&arguments).unwrap_err().told().message.contains("1 to 10 entries"));
        assert!(parse(&SAMPLE.replace("<Key>a</Key>", "<Key>a&#10;b</Key>")).is_err(), "no line breaks in tags");
    }

    #[test]
    fn a_role_of_another_account_is_denied() {
        let body = SAMPLE.replace("iam::123456789012", "iam::999999999999");
        assert_eq!(parse(&body).unwrap_err().told().code, "AccessDenied");
    }

    #[test]
    fn an_absent_confirmation_flag_means_that_a_confirmation_is_required() {
        let body = SAMPLE.replace("<ConfirmationRequired>false</ConfirmationRequired>", "");
        assert!(parse(&body).unwrap().confirmation_required);
    }

    #[test]
    fn the_fingerprint_leaves_out_the_token_and_the_order_of_maps() {
        let first = parse(SAMPLE).unwrap().fingerprint();
        let swapped = SAMPLE
            .replace(
                "<entry><key>k1</key><value>v1</value></entry><entry><key>k2</key><value /></entry>",
                "<entry><key>k2</key><value/></entry><entry><key>k1</key><value>v1</value></entry>",
            )
            .replace("tok-1", "tok-2");
        assert_eq!(parse(&swapped).unwrap().fingerprint(), first);
        assert_ne!(parse(&SAMPLE.replace("<Priority>42", "<Priority>43")).unwrap().fingerprint(), first);
    }

    #[test]
    fn a_document_that_is_not_one_is_malformed() {
        for body in ["", "<a/>", "<CreateJobRequest>", "{}", "<!DOCTYPE x><CreateJobRequest/>"] {
            assert_eq!(parse(body).unwrap_err().told().code, "MalformedXML", "{body}");
        }
    }
}
