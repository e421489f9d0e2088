//! The CreateJob document: read, checked, kept, echoed. Source: S3 Batch spec 1.5.
//!
//! Elements may stand in any order; list members may have any name (rule X-1); unknown elements are ignored, except
//! inside `Operation`, where dropping one silently could change what is done to objects (rule X-8).

mod beyond;
mod generator;
mod manifest;
mod members;
pub mod operation;
mod report;

use longshore_wire::arn::Arn;
use longshore_wire::xml::{Element, Writer};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::Settings;
use crate::error::JobError;

pub use beyond::{Beyond, ReportedRows};
pub use generator::{GENERATED_FORMAT, Generator, ManifestEncryption, Output};
pub use manifest::{Manifest, Source, bare_etag};
use members::Members;
pub use members::{is_xml, is_xml_char, whole};
pub use operation::{LAMBDA_INVOKE, LambdaInvoke, Operation};
pub use report::Report;

/// A CreateJob request that keeps every rule that can be checked without reading anything else.
///
/// It is kept as JSON, and its fingerprint is of that JSON: what is added later has to be left out of it while absent, so
/// that tokens outlive an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewJob {
    /// The effective value: absent means what the settings say, true by default (rule L-3, C-18).
    pub confirmation_required: bool,
    /// Whether the request said so itself; for the fingerprint. Jobs kept before this was noted do not have it.
    #[serde(default = "yes")]
    pub confirmation_given: bool,
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

pub const TAGS_MAX: usize = 50;
pub type Checked<T> = Result<T, JobError>;

fn invalid<T>(detail: impl Into<String>) -> Checked<T> {
    Err(JobError::Invalid(detail.into()))
}

fn yes() -> bool {
    true
}

impl NewJob {
    /// Reads and checks the body of a CreateJob request.
    pub fn parse(body: &[u8], settings: &Settings) -> Checked<Self> {
        let root = Element::parse(body).map_err(|e| JobError::Malformed(e.to_string()))?;
        if root.name != "CreateJobRequest" {
            return Err(JobError::Malformed(format!("the root element is {}", root.name)));
        }
        let members = Members::loose(&root, "");
        let operation = Operation::parse(members.need("Operation", members.child("Operation")?)?, settings)?;
        let confirmation = members.boolean("ConfirmationRequired")?;
        let report = Report::parse(members.need("Report", members.child("Report")?)?)?;
        if matches!(operation, Operation::ComputeObjectChecksum(_)) && !report.enabled {
            // The checksums stand nowhere else (rule V-13).
            return invalid("S3ComputeObjectChecksum needs an enabled report");
        }
        let client_request_token = members.need("ClientRequestToken", members.text("ClientRequestToken", 1..=64)?)?;
        for name in ["Manifest", "ManifestGenerator"] {
            members.child(name)?;
        }
        let source = Source::parse(&root)?;
        let description = members.text("Description", 1..=256)?;
        let priority = members.need("Priority", members.whole("Priority", 0..=PRIORITY_MAX)?)? as u32;
        let role_arn = role_arn(members.need("RoleArn", members.text("RoleArn", 1..=2_048)?)?, settings)?;
        let tags = tags(&members)?;
        if tags.len() > TAGS_MAX {
            return invalid(format!("a job can have at most {TAGS_MAX} tags"));
        }
        let beyond = Beyond::parse(&tags, confirmation.unwrap_or(settings.confirmation_default), &source)?;
        // Last: a request that is wrong as well is told that.
        let operation = match operation {
            Operation::LambdaInvoke(invoke) => invoke,
            other => return Err(JobError::NotImplemented(format!("The operation {}", other.name()))),
        };
        Ok(Self {
            confirmation_required: confirmation.unwrap_or(settings.confirmation_default),
            confirmation_given: confirmation.is_some(),
            operation,
            report,
            client_request_token,
            source,
            description,
            priority,
            role_arn,
            tags,
            beyond,
        })
    }

    /// What makes two requests the same under one token: everything but the token and the order of maps; that a member
    /// is absent differs from its having the default (rule I-2).
    pub fn fingerprint(&self) -> String {
        let mut same = self.clone();
        // What an absent one amounted to depended on the settings of that time.
        same.confirmation_required |= !self.confirmation_given;
        same.client_request_token.clear();
        same.tags.sort();
        if let Some(arguments) = &mut same.operation.user_arguments {
            arguments.sort();
        }
        let json = serde_json::to_vec(&same).expect("strings and numbers always serialise");
        hex::encode(Sha1::digest(json))
    }
}

/// Names that hold neither manifests nor reports: of directory buckets, and the aliases of access points of Outposts and
/// of several regions (rule V-17). No bucket's name may end so. Their ARNs name a region or an account, and are never
/// taken for a bucket's.
fn is_special_bucket(bucket: &str) -> bool {
    ["--x-s3", "--op-s3", ".mrap"].iter().any(|end| bucket.ends_with(end))
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

/// The largest that a job may have.
const PRIORITY_MAX: u64 = i32::MAX as u64;

/// A priority from a query: 0 to 2,147,483,647.
pub fn priority(text: &str) -> Checked<u32> {
    match whole(text).filter(|priority| *priority <= PRIORITY_MAX) {
        Some(priority) => Ok(priority as u32),
        None => invalid(format!("priority must be a whole number from 0 to {PRIORITY_MAX}")),
    }
}

/// The body of PutJobTagging.
pub fn parse_tagging(body: &[u8]) -> Checked<Vec<(String, String)>> {
    let root = Element::parse(body).map_err(|e| JobError::Malformed(e.to_string()))?;
    if root.name != "PutJobTaggingRequest" {
        return Err(JobError::Malformed(format!("the root element is {}", root.name)));
    }
    let tags = tags(&Members::loose(&root, ""))?;
    if tags.len() > TAGS_MAX { Err(JobError::TooManyTags) } else { Ok(tags) }
}

/// The tags of a job, in the order in which they were sent, as many as there are. No key stands twice.
fn tags(parent: &Members<'_>) -> Checked<Vec<(String, String)>> {
    let tags = parent.list("Tags", |element, path| tag(&Members::loose(element, path)))?.unwrap_or_default();
    let mut keys = std::collections::BTreeSet::new();
    match tags.iter().find(|(key, _)| !keys.insert(key)) {
        // With more than enough of them that is what is told.
        Some((key, _)) if tags.len() <= TAGS_MAX => invalid(format!("the tag {key} stands twice")),
        _ => Ok(tags),
    }
}

/// Reads `<Key/><Value/>`, of a job or of an object.
fn tag(members: &Members<'_>) -> Checked<(String, String)> {
    let key = members.need("Key", members.text("Key", 1..=128)?)?;
    let value = members.need("Value", members.text("Value", 0..=256)?)?;
    if !key.chars().chain(value.chars()).all(may_stand_in_tag) {
        return invalid(format!("the tag {key} has characters that tags may not have"));
    }
    Ok((key, value))
}

/// The model's pattern: letters, separators and numbers as Unicode has them, and `_.:/=+-@`. Marks and symbols that Rust
/// counts as alphabetic are none.
fn may_stand_in_tag(c: char) -> bool {
    use GeneralCategoryGroup::{Letter, Number, Separator};
    "_.:/=+-@".contains(c) || matches!(c.general_category_group(), Letter | Number | Separator)
}

fn write_tag(xml: &mut Writer, (key, value): &(String, String)) {
    xml.open("member");
    xml.text("Key", key);
    xml.text("Value", value);
    xml.close();
}

/// Text about where objects lie, which may have any character (rule X-10).
fn optional_text(parent: &Element, name: &str, min: usize, max: usize) -> Checked<Option<String>> {
    Members::loose(parent, "").name_text(name, min..=max)
}

/// As [`optional_text`], and required.
fn text(parent: &Element, name: &str, min: usize, max: usize) -> Checked<String> {
    let members = Members::loose(parent, "");
    members.need(name, members.name_text(name, min..=max)?)
}

/// Writes `<Tags>` with its members.
pub fn write_tags(xml: &mut Writer, tags: &[(String, String)]) {
    xml.open("Tags");
    tags.iter().for_each(|tag| write_tag(xml, tag));
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
            ("<Bucket>arn:aws:s3:::r</Bucket>", "", "an enabled report needs"),
            ("<Format>Report_CSV_20180820</Format>", "", "an enabled report needs"),
            ("Report_CSV_20180820", "Report_CSV_2018", "Report.Format must be"),
            ("AllTasks", "NoTasks", "Report.ReportScope must be"),
            ("</Report>", "<ExpectedBucketOwner>me</ExpectedBucketOwner></Report>", "must be 12 digits"),
            ("<Enabled>true</Enabled>", "", "Report.Enabled is required"),
            ("</ClientRequestToken>", "<x/></ClientRequestToken>", "ClientRequestToken must be text"),
            ("<Priority>42<", "<Priority>+42<", "Priority must be a whole number"),
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
        assert!(parse(&tags).unwrap_err().told().message.contains("at most 50 tags"));
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

    #[test]
    fn an_absent_member_and_its_default_are_two_requests() {
        let explicit = parse(&SAMPLE.replace("Required>false<", "Required>true<")).unwrap();
        let absent = SAMPLE.replace("<ConfirmationRequired>false</ConfirmationRequired>", "");
        let settings =
            |confirmation_default| Settings { confirmation_default, ..Settings::new("123456789012", "us-west-2") };
        let [strict, lenient] =
            [true, false].map(|default| NewJob::parse(absent.as_bytes(), &settings(default)).unwrap());
        assert_ne!(strict.fingerprint(), explicit.fingerprint());
        assert_eq!((strict.confirmation_required, lenient.confirmation_required), (true, false));
        assert_eq!(strict.fingerprint(), lenient.fingerprint(), "the request is the same, whatever was made of it");
        let version = SAMPLE.replace("<UserArguments><entry><key>k1</key><value>v1</value></entry><entry><key>k2</key><value /></entry></UserArguments>", "");
        let default = version.replace("2.0</Invoc", "1.0</Invoc");
        let without = version.replace("<InvocationSchemaVersion>2.0</InvocationSchemaVersion>", "");
        assert_ne!(parse(&default).unwrap().fingerprint(), parse(&without).unwrap().fingerprint());
    }

    #[test]
    fn elements_may_stand_in_any_order_and_unknown_ones_outside_of_the_operation_are_ignored() {
        let mut root = Element::parse(SAMPLE.as_bytes()).unwrap();
        root.children.reverse();
        let unknown = Element::parse(b"<New><Deep/></New>").unwrap();
        for element in &mut root.children {
            if ["Report", "Manifest"].contains(&element.name.as_str()) {
                element.children.reverse();
                element.children.push(unknown.clone());
            }
        }
        root.children.push(unknown);
        let mut xml = Writer::document("CreateJobRequest", None);
        root.children.iter().for_each(|child| xml.element(child));
        assert_eq!(parse(&xml.finish()).unwrap(), parse(SAMPLE).unwrap());
    }

    #[test]
    fn what_stands_twice_and_should_once_is_refused() {
        let root = Element::parse(SAMPLE.as_bytes()).unwrap();
        for child in &root.children {
            let mut twice = Writer::document("CreateJobRequest", None);
            root.children.iter().chain([child]).for_each(|child| twice.element(child));
            let error = parse(&twice.finish()).unwrap_err().to_string();
            assert!(error.contains(&format!("{} stands twice", child.name)), "{error}");
        }
    }

    #[test]
    fn tags_have_the_letters_numbers_and_separators_of_unicode() {
        for fine in
            ["a", "K\u{fc}nstler", "\u{65e5}\u{672c}", "a b", "\u{a0}", "\u{2028}", "\u{bd}", "\u{2167}", "_.:/=+-@"]
        {
            assert!(fine.chars().all(may_stand_in_tag), "{fine}");
        }
        // Marks and circled letters are alphabetic to Rust; the pattern's letters they are not.
        for wrong in
            ["!", "\n", "\t", "\u{85}", "\u{93e}", "\u{24d0}", "\u{301}", "\u{1f600}", "\u{200b}", "*", ",", "\\"]
        {
            assert!(!wrong.chars().any(may_stand_in_tag), "{wrong:?}");
        }
    }

    #[test]
    fn the_length_of_every_text_is_bounded_in_characters() {
        let umlauts = |n: usize| "\u{fc}".repeat(n);
        for (from, max) in
            [("<Description>d<", 256), ("<ClientRequestToken>tok-1<", 64), ("<Prefix>p<", 512), ("<Key>a<", 128)]
        {
            let open = &from[..=from.find('>').unwrap()];
            let with = |n| parse(&SAMPLE.replacen(from, &format!("{open}{}<", umlauts(n)), 1));
            assert!(with(max).is_ok() && with(1).is_ok(), "{from}");
            assert!(with(max + 1).is_err() && with(0).is_err(), "{from}");
        }
        let value = |n| parse(&SAMPLE.replacen("<Value />", &format!("<Value>{}</Value>", umlauts(n)), 1));
        assert!(value(256).is_ok() && value(257).is_err());
        assert!(parse(&SAMPLE.replacen("<Value />", "", 1)).is_err(), "the model requires a value");
    }

    #[test]
    fn text_that_no_document_could_show_again_is_refused() {
        for wrong in ["&#1;", "&#x1F;", "\u{ffff}", "&#xFFFE;"] {
            for from in ["<Description>", "<ClientRequestToken>", "<Prefix>", "<key>", "<value>"] {
                let error = parse(&SAMPLE.replacen(from, &format!("{from}{wrong}"), 1)).unwrap_err().to_string();
                assert!(error.contains("XML cannot carry"), "{from}{wrong}: {error}");
            }
        }
        for fine in ["&#9;", "&#10;", "&#13;", "\u{7f}", "\u{85}", "\u{1f600}"] {
            assert!(parse(&SAMPLE.replacen("<Description>", &format!("<Description>{fine}"), 1)).is_ok(), "{fine}");
        }
        let key = parse(&SAMPLE.replacen("a b.csv", "a&#1;b.csv", 1)).unwrap();
        let Source::Manifest(manifest) = key.source else { panic!("a manifest was sent") };
        assert_eq!(manifest.object_arn, "arn:aws:s3:::m/a\u{1}b.csv", "keys may have them");
    }

    #[test]
    fn reports_and_manifests_lie_in_general_purpose_buckets() {
        for bucket in ["b--usw2-az1--x-s3", "alias--op-s3", "mfzwi23gnjvgw.mrap"] {
            for from in ["arn:aws:s3:::r<", "arn:aws:s3:::m/"] {
                let to = from.replace(":::r", &format!(":::{bucket}")).replace(":::m", &format!(":::{bucket}"));
                let error = parse(&SAMPLE.replacen(from, &to, 1)).unwrap_err().to_string();
                assert!(error.contains("general purpose bucket"), "{error}");
            }
        }
        for arn in [
            "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-1/bucket/b",
            "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap",
            "arn:aws:s3:us-west-2:123456789012:accesspoint/ap",
            "arn:aws:s3express:us-west-2:123456789012:bucket/b--usw2-az1--x-s3",
        ] {
            assert!(parse(&SAMPLE.replacen("arn:aws:s3:::r<", &format!("{arn}<"), 1)).is_err(), "{arn}");
        }
        assert!(parse(&SAMPLE.replacen("arn:aws:s3:::r<", "arn:aws:s3:::outposts-data<", 1)).is_ok());
    }

    #[test]
    fn a_checksum_job_needs_its_report() {
        let operation = SAMPLE.find("<LambdaInvoke>").unwrap()..SAMPLE.find("</Operation>").unwrap();
        let mut body = SAMPLE.to_owned();
        body.replace_range(operation, "<S3ComputeObjectChecksum/>");
        assert_eq!(parse(&body).unwrap_err().told().code, "NotImplemented");
        let body = body.replace("<Enabled>true", "<Enabled>false");
        let told = parse(&body).unwrap_err().told();
        assert_eq!((&*told.code, told.message.contains("needs an enabled report")), ("InvalidRequest", true));
    }

    mod whatever_is_sent {
        use proptest::prelude::*;

        use super::*;

        /// The sample with some of its pieces replaced, left out, repeated, or swapped with others.
        fn mutated() -> impl Strategy<Value = Vec<u8>> {
            let pieces: Vec<String> = SAMPLE.split_inclusive(['<', '>', '/']).map(str::to_owned).collect();
            let count = pieces.len();
            let wild = prop_oneof![
                any::<Vec<u8>>(),
                "[ -~]{0,12}".prop_map(String::into_bytes),
                (0..count).prop_map({
                    let pieces = pieces.clone();
                    move |at| pieces[at].clone().into_bytes()
                }),
            ];
            prop::collection::vec((0..count, 0..3_usize, wild), 1..6).prop_map(move |changes| {
                let mut body: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.clone().into_bytes()).collect();
                for (at, kind, bytes) in changes {
                    let at = at.min(body.len() - 1);
                    match kind {
                        0 => body[at] = bytes,
                        1 => body.insert(at, bytes),
                        _ => body.swap(at, count / 2),
                    }
                }
                body.concat()
            })
        }

        proptest! {
            /// No panic and no answer but a clear one; what is accepted is stored and read again as the same.
            #[test]
            fn is_answered(body in mutated()) {
                let settings = Settings::new("123456789012", "us-west-2");
                match NewJob::parse(&body, &settings) {
                    Err(error) => {
                        let status = error.told().status.as_u16();
                        prop_assert!([400, 403, 501].contains(&status), "{error}");
                    }
                    Ok(job) => {
                        let stored = serde_json::to_string(&job).unwrap();
                        let read: NewJob = serde_json::from_str(&stored).unwrap();
                        prop_assert_eq!(&read, &job);
                        let mut xml = Writer::document("CreateJobRequest", None);
                        xml.open("Operation");
                        job.operation.write(&mut xml);
                        xml.close();
                        job.report.write(&mut xml);
                        job.source.write(&mut xml);
                        let echoed = Element::parse(xml.finish().as_bytes()).unwrap();
                        let operation = Operation::parse(echoed.child("Operation").unwrap(), &settings).unwrap();
                        prop_assert_eq!(operation, Operation::LambdaInvoke(job.operation));
                        prop_assert_eq!(Report::parse(echoed.child("Report").unwrap()).unwrap(), job.report);
                        prop_assert_eq!(Source::parse(&echoed).unwrap(), job.source);
                    }
                }
            }
        }
    }
}
