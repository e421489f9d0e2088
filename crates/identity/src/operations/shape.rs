//! Users, roles and policies as answers show them.

use std::collections::BTreeMap;

use longshore_wire::xml::Writer;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::Settings;
use crate::entity::{Entity, Managed};
use crate::query::{date, list};

/// What RFC 3986 keeps as it is; all else in a document is encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A document as answers have it.
pub(crate) fn encoded(document: &str) -> String {
    utf8_percent_encode(document, RESERVED).to_string()
}

/// What a listing leaves out: tags, boundaries, descriptions of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fullness {
    Whole,
    Listed,
}

/// The elements of a `User` or a `Role`.
pub(crate) fn entity(xml: &mut Writer, settings: &Settings, entity: &Entity, fullness: Fullness) {
    let (name, id) = match entity.role {
        Some(_) => ("RoleName", "RoleId"),
        None => ("UserName", "UserId"),
    };
    xml.text("Path", &entity.path);
    xml.text(name, &entity.name);
    xml.text(id, &entity.id);
    xml.text("Arn", &entity.arn(settings));
    xml.text("CreateDate", &date(entity.created));
    if let Some(role) = &entity.role {
        xml.text("AssumeRolePolicyDocument", &encoded(role.trust.document.text()));
        if let Some(description) = &role.description {
            xml.text("Description", description);
        }
        xml.text("MaxSessionDuration", &role.session_seconds_max.to_string());
    }
    if fullness == Fullness::Listed {
        return;
    }
    if let Some(boundary) = &entity.boundary {
        xml.open("PermissionsBoundary");
        xml.text("PermissionsBoundaryType", "Policy");
        xml.text("PermissionsBoundaryArn", boundary);
        xml.close();
    }
    if !entity.tags.is_empty() {
        tags(xml, &entity.tags);
    }
}

pub(crate) fn tags<'a>(xml: &mut Writer, tags: impl IntoIterator<Item = (&'a String, &'a String)>) {
    list(xml, "Tags", tags, |xml, (key, value)| {
        xml.text("Key", key);
        xml.text("Value", value);
    });
}

/// The elements of a `Policy`. `uses`: how many attach it, how many are bounded by it.
pub(crate) fn policy(xml: &mut Writer, policy: &Managed, uses: (usize, usize), fullness: Fullness) {
    xml.text("PolicyName", &policy.name);
    xml.text("PolicyId", &policy.id);
    xml.text("Arn", &policy.arn);
    xml.text("Path", &policy.path);
    xml.text("DefaultVersionId", &format!("v{}", policy.default_version));
    xml.text("AttachmentCount", &uses.0.to_string());
    xml.text("PermissionsBoundaryUsageCount", &uses.1.to_string());
    xml.text("IsAttachable", "true");
    if let Some(description) = policy.description.as_ref().filter(|_| fullness == Fullness::Whole) {
        xml.text("Description", description);
    }
    xml.text("CreateDate", &date(policy.created));
    xml.text("UpdateDate", &date(policy.updated));
    if fullness == Fullness::Whole && !policy.tags.is_empty() {
        tags(xml, &policy.tags);
    }
}

/// The elements of a `PolicyVersion`.
pub(crate) fn version(xml: &mut Writer, policy: &Managed, number: u32, with_document: bool) {
    let Some(version) = policy.versions.get(&number) else { return };
    if with_document {
        xml.text("Document", &encoded(version.policy.document.text()));
    }
    xml.text("VersionId", &format!("v{number}"));
    xml.text("IsDefaultVersion", if number == policy.default_version { "true" } else { "false" });
    xml.text("CreateDate", &date(version.created));
}

/// The tags of one page.
pub(crate) fn page_of_tags(tags: &BTreeMap<String, String>) -> Vec<(String, String)> {
    tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_encoded_as_rfc_3986_says() {
        assert_eq!(encoded(r#"{"a": ["*~-_.b+c"]}"#), "%7B%22a%22%3A%20%5B%22%2A~-_.b%2Bc%22%5D%7D");
    }
}
