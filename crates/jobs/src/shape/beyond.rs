//! What a job may ask for beyond AWS, said in tags that start with `longshore:` (decision 0013).
//!
//! They are read once, from the CreateJob request; PutJobTagging changes what is shown of a job and never what it does.

use longshore_core::sample::SAMPLE_ROWS_MAX;
use serde::{Deserialize, Serialize};

use super::{Checked, Source, invalid};

const PREFIX: &str = "longshore:";
const SAMPLE: &str = "longshore:sample";
const START: &str = "longshore:start";
const ROWS: &str = "longshore:rows";

/// Empty for a job that asks for nothing of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beyond {
    /// Run so many rows first, drawn at random, and wait for a confirmation before the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<u64>,
    /// Start tasks while the manifest is still being checked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub early_start: bool,
    /// Which rows of a completion report are to be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<ReportedRows>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportedRows {
    /// Those that failed: what a job runs that does not say.
    Failed,
    All,
}

impl Beyond {
    /// Whether nothing is asked for: such a job is stored as it always was.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn parse(tags: &[(String, String)], confirmation_required: bool, source: &Source) -> Checked<Self> {
        let mut this = Self::default();
        for (key, value) in tags {
            match key.as_str() {
                SAMPLE => match value.parse() {
                    Ok(rows @ 1..=SAMPLE_ROWS_MAX) if !value.starts_with('+') => this.sample = Some(rows),
                    _ => return invalid(format!("the tag {SAMPLE} must be a number of rows, 1 to {SAMPLE_ROWS_MAX}")),
                },
                START if value == "while-preparing" => this.early_start = true,
                START => return invalid(format!("the tag {START} must be while-preparing")),
                ROWS if value == "failed" => this.rows = Some(ReportedRows::Failed),
                ROWS if value == "all" => this.rows = Some(ReportedRows::All),
                ROWS => return invalid(format!("the tag {ROWS} must be failed or all")),
                // A misspelt wish that is passed over in silence would run a whole job in place of its sample.
                _ if key.to_ascii_lowercase().starts_with(PREFIX) => {
                    return invalid(format!("the tag {key} is not known here; {SAMPLE}, {START} and {ROWS} are"));
                }
                _ => {}
            }
        }
        if this.early_start && this.sample.is_some() {
            return invalid(format!("the tags {START} and {SAMPLE} exclude one another"));
        }
        if this.early_start && confirmation_required {
            return invalid(format!("the tag {START} needs ConfirmationRequired to be false"));
        }
        if this.early_start && matches!(source, Source::ManifestGenerator(_)) {
            return invalid(format!("the tag {START} does not go with a generated manifest"));
        }
        let of_report = matches!(source, Source::Manifest(manifest) if manifest.is_report());
        if this.early_start && of_report {
            return invalid(format!("the tag {START} does not go with a completion report as the manifest"));
        }
        if this.rows.is_some() && !of_report {
            return invalid(format!("the tag {ROWS} needs a completion report as the manifest"));
        }
        Ok(this)
    }
}
