//! `Manifest` and `ManifestGenerator`: where the rows of a job come from.

use longshore_core::manifest::{Column, RowFormat};
use longshore_wire::arn;
use longshore_wire::xml::{Element, Writer};
use serde::{Deserialize, Serialize};

use super::generator::Generator;
use super::{Checked, invalid, is_special_bucket, optional_text, text};

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
    ManifestGenerator(Box<Generator>),
}

impl Source {
    pub(super) fn parse(root: &Element) -> Checked<Self> {
        match (root.child("Manifest"), root.child("ManifestGenerator")) {
            (Some(manifest), None) => Ok(Source::Manifest(Manifest::parse(manifest)?)),
            (None, Some(generator)) => Ok(Source::ManifestGenerator(Box::new(Generator::parse(generator)?))),
            (Some(_), Some(_)) => invalid("Manifest and ManifestGenerator exclude one another"),
            (None, None) => invalid("one of Manifest and ManifestGenerator is required"),
        }
    }

    pub fn write(&self, xml: &mut Writer) {
        match self {
            Source::Manifest(manifest) => manifest.write(xml),
            Source::ManifestGenerator(generator) => generator.write(xml),
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
        if ![CSV_FORMAT, INVENTORY_FORMAT].contains(&this.format.as_str()) {
            return invalid(format!("Manifest.Spec.Format must be {CSV_FORMAT} or {INVENTORY_FORMAT}"));
        }
        if this.fields.len() > FIELDS_MAX {
            return invalid(format!("Manifest.Spec.Fields may name at most {FIELDS_MAX} columns"));
        }
        let columns: Option<Vec<Column>> = this.fields.iter().map(|f| Column::parse(f)).collect();
        let Some(columns) = columns else {
            return invalid("Manifest.Spec.Fields may name Ignore, Bucket, Key and VersionId");
        };
        if this.is_inventory() {
            // An inventory names its columns itself; fields are echoed and mean nothing (rule V-5).
            return Ok(this);
        }
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

    /// Whether any store could give such an ETag: visible ASCII without quotes, whatever it stands for. A job with
    /// another one fails when it is prepared (spec 2.7).
    pub fn etag_fits(&self) -> bool {
        let bare = self.etag_bare();
        !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
    }

    /// Whether the object is the `manifest.json` of an S3 Inventory.
    pub fn is_inventory(&self) -> bool {
        self.format == INVENTORY_FORMAT
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::{SAMPLE, parse};

    #[test]
    fn an_inventory_needs_no_fields_and_ignores_those_it_is_given() {
        let inventory = SAMPLE.replace(CSV_FORMAT, INVENTORY_FORMAT);
        let fields = &SAMPLE[SAMPLE.find("<Fields>").unwrap()..SAMPLE.find("</Spec>").unwrap()];
        for (body, kept) in [
            (inventory.clone(), 3),
            (inventory.replace(fields, ""), 0),
            (inventory.replace("<member>Bucket</member>", ""), 2),
        ] {
            let Source::Manifest(manifest) = parse(&body).unwrap().source else { panic!("it names a manifest") };
            assert!(manifest.is_inventory());
            assert_eq!(manifest.fields.len(), kept);
        }
    }

    #[test]
    fn a_source_that_was_stored_before_there_were_others_is_read() {
        let stored = r#"{"manifest":{"format":"S3BatchOperations_CSV_20180820","fields":["Bucket","Key"],
            "object_arn":"arn:aws:s3:::b/k","etag":"e","object_version_id":null}}"#;
        let Source::Manifest(manifest) = serde_json::from_str(stored).unwrap() else { panic!("it is a manifest") };
        assert_eq!(manifest.object_arn, "arn:aws:s3:::b/k");
    }
}
