//! The documents that tell of a job's states: CloudTrail's record, EventBridge's envelope, and a CloudEvent.
//!
//! Source: S3 Batch spec 10.2 and 10.3, which hold AWS's samples; the order of members is that of the samples. The
//! CloudEvent is our choice (decision 0009): what EventBridge calls `detail` is its data.

use serde::Serialize;

/// The detail-type of every event that CloudTrail hands to EventBridge.
pub const DETAIL_TYPE: &str = "AWS Service Event via CloudTrail";
const S3: &str = "s3.amazonaws.com";

/// One entry of a job into a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEvent {
    /// 32 lower-case hex digits, unique for each entry; the same however often it is delivered.
    pub job_event_id: String,
    /// CloudTrail's ID of the record and EventBridge's of the envelope: UUIDs.
    pub event_id: String,
    pub envelope_id: String,
    pub account: String,
    pub region: String,
    pub job_id: String,
    /// As AWS spells it. `New` makes it a `JobCreated`.
    pub status: String,
    /// Milliseconds since 1970; the documents have whole seconds.
    pub time_ms: i64,
    /// Of the job's failure, for `Failing` and `Failed` alone (rule EVT-2).
    pub failure_codes: Vec<String>,
    /// The reason of the call that caused the change, if it gave one (rule EVT-3).
    pub status_change_reason: Vec<String>,
}

/// In which document a sink wants its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// EventBridge's envelope around CloudTrail's record.
    #[default]
    EventBridge,
    /// CloudTrail's record as it lies in a trail.
    CloudTrail,
    /// A CloudEvent 1.0 in structured JSON.
    CloudEvents,
}

impl Format {
    pub const ALL: [(&'static str, Format); 3] = [
        ("eventbridge", Format::EventBridge),
        ("cloudtrail", Format::CloudTrail),
        ("cloudevents", Format::CloudEvents),
    ];

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, format)| format)
    }

    /// The media type of a document in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::EventBridge | Self::CloudTrail => "application/json",
            Self::CloudEvents => "application/cloudevents+json; charset=utf-8",
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UserIdentity<'e> {
    account_id: &'e str,
    invoked_by: &'static str,
}

/// CloudTrail's record; within the envelope without the three members that its sample lacks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'e> {
    event_version: &'static str,
    user_identity: UserIdentity<'e>,
    event_time: String,
    event_source: &'static str,
    event_name: &'static str,
    aws_region: &'e str,
    #[serde(rename = "sourceIPAddress")]
    source_ip_address: &'static str,
    user_agent: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_parameters: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_elements: Option<()>,
    #[serde(rename = "eventID")]
    event_id: &'e str,
    read_only: bool,
    event_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient_account_id: Option<&'e str>,
    service_event_details: Details<'e>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'e> {
    job_id: &'e str,
    job_arn: String,
    status: &'e str,
    job_event_id: &'e str,
    failure_codes: &'e [String],
    status_change_reason: &'e [String],
}

/// EventBridge's envelope. Serialises to the document of S3 Batch spec 10.3.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Envelope<'e> {
    version: &'static str,
    id: &'e str,
    detail_type: &'static str,
    source: &'static str,
    account: &'e str,
    time: String,
    region: &'e str,
    resources: [&'static str; 0],
    detail: Record<'e>,
}

#[derive(Debug, Serialize)]
struct CloudEvent<'e> {
    specversion: &'static str,
    id: &'e str,
    source: String,
    r#type: String,
    subject: &'e str,
    time: String,
    datacontenttype: &'static str,
    data: Record<'e>,
}

impl JobEvent {
    /// `JobCreated` for the first state, `JobStatusChanged` for each later one.
    pub fn name(&self) -> &'static str {
        if self.status == "New" { "JobCreated" } else { "JobStatusChanged" }
    }

    pub fn job_arn(&self) -> String {
        format!("arn:aws:s3:{}:{}:job/{}", self.region, self.account, self.job_id)
    }

    /// One document of this event, without a line break in it.
    pub fn document(&self, format: Format) -> Vec<u8> {
        match format {
            Format::EventBridge => json(&self.envelope()),
            Format::CloudTrail => json(&self.record(true)),
            Format::CloudEvents => json(&CloudEvent {
                specversion: "1.0",
                id: &self.job_event_id,
                source: self.job_arn(),
                r#type: format!("com.amazonaws.s3.{}", self.name()),
                subject: &self.job_id,
                time: self.time(),
                datacontenttype: "application/json",
                data: self.record(false),
            }),
        }
    }

    pub fn envelope(&self) -> Envelope<'_> {
        Envelope {
            version: "0",
            id: &self.envelope_id,
            detail_type: DETAIL_TYPE,
            source: "aws.s3",
            account: &self.account,
            time: self.time(),
            region: &self.region,
            resources: [],
            detail: self.record(false),
        }
    }

    fn record(&self, alone: bool) -> Record<'_> {
        // `Some(())` is written as null, which is what a trail has there.
        let null = alone.then_some(());
        Record {
            event_version: "1.05",
            user_identity: UserIdentity { account_id: &self.account, invoked_by: S3 },
            event_time: self.time(),
            event_source: S3,
            event_name: self.name(),
            aws_region: &self.region,
            source_ip_address: S3,
            user_agent: S3,
            request_parameters: null,
            response_elements: null,
            event_id: &self.event_id,
            read_only: false,
            event_type: "AwsServiceEvent",
            recipient_account_id: alone.then_some(&*self.account),
            service_event_details: Details {
                job_id: &self.job_id,
                job_arn: self.job_arn(),
                status: &self.status,
                job_event_id: &self.job_event_id,
                failure_codes: &self.failure_codes,
                status_change_reason: &self.status_change_reason,
            },
        }
    }

    /// Second precision, as in AWS's samples.
    fn time(&self) -> String {
        let time = jiff::Timestamp::from_millisecond(self.time_ms).unwrap_or_default();
        // Cut off, never rounded up: an event must not seem to come from the future.
        let whole = jiff::Timestamp::from_second(time.as_millisecond().div_euclid(1_000)).unwrap_or_default();
        format!("{whole:.0}")
    }
}

fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("strings, lists and a truth value always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn event() -> JobEvent {
        JobEvent {
            job_event_id: "b268784cf0a66749f1a05bce259804f5".into(),
            event_id: "f907577b-bf3d-4c53-b9ed-8a83a118a554".into(),
            envelope_id: "51dc8145-541c-5518-2349-56d7dffdf2d8".into(),
            account: "181572960644".into(),
            region: "us-west-2".into(),
            job_id: "d6e58ec4-897a-4b6d-975f-10d7f0fb63ce".into(),
            status: "Complete".into(),
            time_ms: 1_580_927_130_999,
            failure_codes: vec![],
            status_change_reason: vec![],
        }
    }

    /// AWS's sample of a record, word for word, but for its anonymised accounts: ours are one (rule EVT-8).
    const RECORD: &str = r#"{ "eventVersion": "1.05",
  "userIdentity": { "accountId": "181572960644", "invokedBy": "s3.amazonaws.com" },
  "eventTime": "2020-02-05T18:25:30Z",
  "eventSource": "s3.amazonaws.com", "eventName": "JobStatusChanged",
  "awsRegion": "us-west-2", "sourceIPAddress": "s3.amazonaws.com", "userAgent": "s3.amazonaws.com",
  "requestParameters": null, "responseElements": null,
  "eventID": "f907577b-bf3d-4c53-b9ed-8a83a118a554", "readOnly": false,
  "eventType": "AwsServiceEvent", "recipientAccountId": "181572960644",
  "serviceEventDetails": {
    "jobId": "d6e58ec4-897a-4b6d-975f-10d7f0fb63ce",
    "jobArn": "arn:aws:s3:us-west-2:181572960644:job/d6e58ec4-897a-4b6d-975f-10d7f0fb63ce",
    "status": "Complete", "jobEventId": "b268784cf0a66749f1a05bce259804f5",
    "failureCodes": [], "statusChangeReason": [] } }"#;

    /// AWS's sample of an envelope, likewise.
    const ENVELOPE: &str = r#"{ "version": "0", "id": "51dc8145-541c-5518-2349-56d7dffdf2d8",
  "detail-type": "AWS Service Event via CloudTrail", "source": "aws.s3",
  "account": "181572960644", "time": "2020-02-27T15:25:49Z", "region": "us-east-1", "resources": [],
  "detail": { "eventVersion": "1.05", "userIdentity": { "accountId": "181572960644", "invokedBy": "s3.amazonaws.com" },
    "eventTime": "2020-02-27T15:25:49Z", "eventSource": "s3.amazonaws.com", "eventName": "JobCreated",
    "awsRegion": "us-east-1", "sourceIPAddress": "s3.amazonaws.com", "userAgent": "s3.amazonaws.com",
    "eventID": "7c38220f-f80b-4239-8b78-2ed867b7d3fa", "readOnly": false, "eventType": "AwsServiceEvent",
    "serviceEventDetails": { "jobId": "e849b567-5232-44be-9a0c-40988f14e80c",
      "jobArn": "arn:aws:s3:us-east-1:181572960644:job/e849b567-5232-44be-9a0c-40988f14e80c",
      "status": "New", "jobEventId": "f177ff24f1f097b69768e327038f30ac",
      "failureCodes": [], "statusChangeReason": [] } } }"#;

    /// Without the blanks between tokens, of which the samples' values have none that matter.
    fn squeezed(text: &str) -> String {
        text.replace("AWS Service Event via CloudTrail", "AWS_Service").split_whitespace().collect()
    }

    fn read(document: &[u8]) -> Value {
        serde_json::from_slice(document).unwrap()
    }

    #[test]
    fn the_record_and_the_envelope_are_awss_samples_byte_for_byte() {
        let record = String::from_utf8(event().document(Format::CloudTrail)).unwrap();
        assert_eq!(squeezed(&record), squeezed(RECORD));
        let created = JobEvent {
            job_event_id: "f177ff24f1f097b69768e327038f30ac".into(),
            event_id: "7c38220f-f80b-4239-8b78-2ed867b7d3fa".into(),
            region: "us-east-1".into(),
            job_id: "e849b567-5232-44be-9a0c-40988f14e80c".into(),
            status: "New".into(),
            time_ms: 1_582_817_149_000,
            ..event()
        };
        let envelope = String::from_utf8(created.document(Format::EventBridge)).unwrap();
        assert_eq!(squeezed(&envelope), squeezed(ENVELOPE));
    }

    /// How EventBridge matches: each member of the pattern is there, and its value is one of those listed.
    fn matches(pattern: &Value, document: &Value) -> bool {
        match pattern {
            Value::Object(members) => members.iter().all(|(name, inner)| matches(inner, &document[name])),
            Value::Array(values) => values.contains(document),
            _ => false,
        }
    }

    #[test]
    fn awss_rule_pattern_matches_every_state() {
        let pattern = json!({ "source": ["aws.s3"], "detail-type": ["AWS Service Event via CloudTrail"],
            "detail": { "eventSource": ["s3.amazonaws.com"], "eventName": ["JobCreated", "JobStatusChanged"] } });
        for status in ["New", "Preparing", "Complete", "Failed"] {
            let event = JobEvent { status: status.into(), ..event() };
            assert!(matches(&pattern, &read(&event.document(Format::EventBridge))), "{status}");
        }
        assert!(!matches(&pattern, &json!({"source": "aws.s3"})));
    }

    #[test]
    fn a_cloud_event_has_the_required_attributes_and_the_detail_as_its_data() {
        let event = JobEvent {
            status: "Failed".into(),
            failure_codes: vec!["InvalidManifestContent".into()],
            status_change_reason: vec!["a \"quoted\"\nline \u{1F600}".into()],
            ..event()
        };
        let document = event.document(Format::CloudEvents);
        assert!(!document.contains(&b'\n'), "a file has one event a line");
        let cloud = read(&document);
        assert_eq!((&cloud["specversion"], &cloud["id"]), (&json!("1.0"), &json!(event.job_event_id)));
        assert_eq!(cloud["source"], event.job_arn());
        assert_eq!(cloud["type"], "com.amazonaws.s3.JobStatusChanged");
        assert_eq!((&cloud["subject"], &cloud["time"]), (&json!(event.job_id), &json!("2020-02-05T18:25:30Z")));
        assert_eq!(cloud["data"], read(&event.document(Format::EventBridge))["detail"]);
        let details = &cloud["data"]["serviceEventDetails"];
        assert_eq!(details["failureCodes"], json!(["InvalidManifestContent"]));
        assert_eq!(details["statusChangeReason"], json!(event.status_change_reason));
    }

    #[test]
    fn a_date_before_1970_or_beyond_every_calendar_is_written_all_the_same() {
        let at = |time_ms| JobEvent { time_ms, ..event() }.time();
        assert_eq!((at(-1).as_str(), at(999).as_str()), ("1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z"));
        assert_eq!(at(i64::MAX), "1970-01-01T00:00:00Z");
    }
}
