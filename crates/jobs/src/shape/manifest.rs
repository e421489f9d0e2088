//! `Manifest` and `ManifestGenerator`: where the rows of a job come from.

use longshore_core::manifest::{Column, RowFormat};
use longshore_wire::arn;
use longshore_wire::xml::{Element, Writer};
use serde::{Deserialize, Serialize};

use super::{Checked, invalid, is_special_bucket, optional_text, text};
use crate::error::JobError;

const CSV_FORMAT: &str = "S3BatchOperations_CSV_20180820";
/// A completion report as a manifest, beyond AWS (decision 0013).
const REPORT_FORMAT: &str = "Report_CSV_20180820";
const INVENTORY_FORMAT: &str = "S3InventoryReport_CSV_20161130";
/// Columns of a manifest, our choice: an inventory has some twenty, and a page of ListJobs reads a thousand jobs.
const FIELDS_MAX: usize = 1_000;

/// Where a job's rows come from: exactly one of the two (rule V-1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Manifest(Manifest),
}

impl Source {
    pub(super) fn parse(root: &Element) -> Checked<Self> {
        match (root.child("Manifest"), root.child("ManifestGenerator")) {
            (Some(manifest), None) => Ok(Source::Manifest(Manifest::parse(manifest)?)),
            (None, Some(_)) => Err(JobError::NotImplemented("ManifestGenerator".into())),
            (Some(_), Some(_)) => invalid("Manifest and ManifestGenerator exclude one another"),
            (None, None) => invalid("one of Manifest and ManifestGenerator is required"),
        }
    }

    pub fn write(&self, xml: &mut Writer) {
        match self {
            Source::Manifest(manifest) => manifest.write(xml),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: String,
    pub fields: Vec<String>,
    pub object_arn: String,
    pub etag: String,
    pub object_version_id: Option<String>,
}

impl Manifest {
    fn parse(manifest: &Element) -> Checked<Self> {
        let Some(spec) = manifest.child("Spec") else { return invalid("Manifest.Spec is required") };
        let Some(location) = manifest.child("Location") else { return invalid("Manifest.Location is required") };
        let this = Self {
            format: text(spec, "Format", 1, 64)?,
            fields: spec
                .child("Fields")
                .map_or(Vec::new(), |fields| fields.children.iter().map(|f| f.text.clone()).collect()),
            object_arn: text(location, "ObjectArn", 1, 2_000)?,
            etag: text(location, "ETag", 1, 1_024)?,
            object_version_id: optional_text(location, "ObjectVersionId", 1, 2_000)?,
        };
        let Some((bucket, _)) = arn::object_of(&this.object_arn) else {
            return invalid("Manifest.Location.ObjectArn must be the ARN of an object");
        };
        if is_special_bucket(bucket) {
            return invalid("the manifest must lie in a general purpose bucket");
        }
        if this.is_report() {
            return match this.fields.is_empty() {
                true => Ok(this),
                false => invalid(format!("a manifest of format {REPORT_FORMAT} takes no Fields")),
            };
        }
        match this.format.as_str() {
            CSV_FORMAT => {}
            INVENTORY_FORMAT => {
                return Err(JobError::NotImplemented(format!("The manifest format {INVENTORY_FORMAT}")));
            }
            _ => return invalid(format!("Manifest.Spec.Format must be {CSV_FORMAT} or {INVENTORY_FORMAT}")),
        }
        if this.fields.len() > FIELDS_MAX {
            return invalid(format!("Manifest.Spec.Fields may name at most {FIELDS_MAX} columns"));
        }
        let columns: Option<Vec<Column>> = this.fields.iter().map(|f| Column::parse(f)).collect();
        let Some(columns) = columns else {
            return invalid("Manifest.Spec.Fields may name Ignore, Bucket, Key and VersionId");
        };
        let missing: Vec<&str> = [("Bucket", Column::Bucket), ("Key", Column::Key)]
            .into_iter()
            .filter(|(_, column)| !columns.contains(column))
            .map(|(name, _)| name)
            .collect();
        if !missing.is_empty() {
            return invalid(format!("Required fields are missing in the schema: {}", missing.join(", ")));
        }
        if RowFormat::new(columns).is_none() {
            return invalid("Manifest.Spec.Fields names a column twice");
        }
        Ok(this)
    }

    /// The ETag without one pair of surrounding quotes, as it is compared (rule M-6).
    pub fn etag_bare(&self) -> &str {
        bare_etag(&self.etag)
    }
}

impl Manifest {
    /// Whether the object is the `manifest.json` of a completion report.
    pub fn is_report(&self) -> bool {
        self.format == REPORT_FORMAT
    }

    /// The columns of a CSV manifest.
    pub fn row_format(&self) -> Option<RowFormat> {
        RowFormat::new(self.fields.iter().filter_map(|f| Column::parse(f)).collect())
    }
}

/// Takes one pair of surrounding double quotes off.
pub fn bare_etag(etag: &str) -> &str {
    etag.strip_prefix('"').and_then(|e| e.strip_suffix('"')).unwrap_or(etag)
}

impl Manifest {
    pub fn write(&self, xml: &mut Writer) {
        xml.open("Manifest");
        xml.open("Spec");
        xml.text("Format", &self.format);
        if !self.fields.is_empty() {
            xml.open("Fields");
            for field in &self.fields {
                xml.text("member", field);
            }
            xml.close();
        }
        xml.close();
        xml.open("Location");
        xml.text("ObjectArn", &self.object_arn);
        if let Some(version) = &self.object_version_id {
            xml.text("ObjectVersionId", version);
        }
        xml.text("ETag", &self.etag);
        xml.close();
        xml.close();
    }
}
