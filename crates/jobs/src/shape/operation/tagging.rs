//! `S3PutObjectTagging`. Source: S3 Batch spec 4.1.

use longshore_wire::xml::{Element, Writer};

use crate::shape::members::Members;
use crate::shape::{Checked, tag, write_tag};

/// Replaces all tags of an object; an empty set clears them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutObjectTagging {
    pub tag_set: Option<Vec<(String, String)>>,
}

/// A set of object tags. How many an object may have is S3's business, task by task.
pub(super) fn tag_set(members: &Members<'_>, name: &str) -> Checked<Option<Vec<(String, String)>>> {
    members.list(name, |element, path| tag(&Members::strict(element, path, &["Key", "Value"], &[])?))
}

pub(super) fn write_tag_set(xml: &mut Writer, name: &str, tags: Option<&[(String, String)]>) {
    let Some(tags) = tags else { return };
    xml.open(name);
    tags.iter().for_each(|tag| write_tag(xml, tag));
    xml.close();
}

impl PutObjectTagging {
    pub(super) fn parse(element: &Element) -> Checked<Self> {
        let members = Members::strict(element, "S3PutObjectTagging", &["TagSet"], &[])?;
        Ok(Self { tag_set: tag_set(&members, "TagSet")? })
    }

    pub(super) fn write(&self, xml: &mut Writer) {
        xml.open("S3PutObjectTagging");
        write_tag_set(xml, "TagSet", self.tag_set.as_deref());
        xml.close();
    }
}
