//! `Report`: whether, where and of what a completion report is written.

use longshore_wire::arn;
use longshore_wire::xml::{Element, Writer};
use serde::{Deserialize, Serialize};

use super::members::{Members, WriteMembers};
use super::{Checked, invalid, is_account, is_special_bucket};

const REPORT_FORMAT: &str = "Report_CSV_20180820";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub enabled: bool,
    /// A bucket's ARN.
    pub bucket: Option<String>,
    pub format: Option<String>,
    pub prefix: Option<String>,
    pub scope: Option<String>,
    pub expected_bucket_owner: Option<String>,
}

impl Report {
    pub(super) fn parse(report: &Element) -> Checked<Self> {
        let members = Members::loose(report, "Report");
        let enabled = members.need("Enabled", members.boolean("Enabled")?)?;
        let this = Self {
            enabled,
            bucket: members.text("Bucket", 1..=128)?,
            format: members.text("Format", 1..=64)?,
            prefix: members.text("Prefix", 1..=512)?,
            scope: members.text("ReportScope", 1..=64)?,
            expected_bucket_owner: members.text("ExpectedBucketOwner", 1..=64)?,
        };
        if this.bucket.as_deref().is_some_and(|b| arn::bucket_of(b).is_none()) {
            return invalid("Report.Bucket must be the ARN of a bucket");
        }
        if this.bucket.as_deref().and_then(arn::bucket_of).is_some_and(is_special_bucket) {
            return invalid("Report.Bucket must be a general purpose bucket");
        }
        if this.format.as_deref().is_some_and(|f| f != REPORT_FORMAT) {
            return invalid(format!("Report.Format must be {REPORT_FORMAT}"));
        }
        if this.scope.as_deref().is_some_and(|s| s != "AllTasks" && s != "FailedTasksOnly") {
            return invalid("Report.ReportScope must be AllTasks or FailedTasksOnly");
        }
        if this.expected_bucket_owner.as_deref().is_some_and(|o| !is_account(o)) {
            return invalid("Report.ExpectedBucketOwner must be 12 digits");
        }
        if enabled && (this.bucket.is_none() || this.format.is_none() || this.scope.is_none()) {
            return invalid("an enabled report needs Bucket, Format and ReportScope");
        }
        Ok(this)
    }
}

impl Report {
    pub fn write(&self, xml: &mut Writer) {
        xml.open("Report");
        xml.maybe_text("Bucket", self.bucket.as_deref());
        xml.maybe_text("Format", self.format.as_deref());
        xml.maybe_boolean("Enabled", Some(self.enabled));
        xml.maybe_text("Prefix", self.prefix.as_deref());
        xml.maybe_text("ReportScope", self.scope.as_deref());
        xml.maybe_text("ExpectedBucketOwner", self.expected_bucket_owner.as_deref());
        xml.close();
    }
}
