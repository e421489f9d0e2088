//! `S3PutObjectAcl`, and the grants that it shares with `S3PutObjectCopy`. Source: S3 Batch spec 4.3.

use longshore_wire::xml::{Element, Writer};

use crate::shape::members::{Members, WriteMembers, words};
use crate::shape::{Checked, invalid};

words! {
    CannedAcl {
        Private = "private",
        PublicRead = "public-read",
        PublicReadWrite = "public-read-write",
        AwsExecRead = "aws-exec-read",
        AuthenticatedRead = "authenticated-read",
        BucketOwnerRead = "bucket-owner-read",
        BucketOwnerFullControl = "bucket-owner-full-control",
    }
}
words! { GranteeType { Id = "id", EmailAddress = "emailAddress", Uri = "uri" } }
words! {
    Permission {
        FullControl = "FULL_CONTROL",
        Read = "READ",
        Write = "WRITE",
        ReadAcp = "READ_ACP",
        WriteAcp = "WRITE_ACP",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub grantee: Option<Grantee>,
    pub permission: Option<Permission>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grantee {
    pub kind: Option<GranteeType>,
    pub identifier: Option<String>,
    pub display_name: Option<String>,
}

/// `S3PutObjectAcl`: exactly one of the two (rule V-12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutObjectAcl {
    Canned(CannedAcl),
    List { owner_id: Option<String>, owner_name: Option<String>, grants: Option<Vec<Grant>> },
}

impl Grant {
    pub(super) fn list(members: &Members<'_>, name: &str) -> Checked<Option<Vec<Self>>> {
        members.list(name, Self::parse)
    }

    fn parse(element: &Element, path: &str) -> Checked<Self> {
        let members = Members::strict(element, path, &["Grantee", "Permission"], &[])?;
        let grantee = members.structure("Grantee", &["TypeIdentifier", "Identifier", "DisplayName"], &[])?;
        let grantee = match grantee {
            None => None,
            Some(grantee) => Some(Grantee {
                kind: grantee.word("TypeIdentifier")?,
                identifier: grantee.text("Identifier", 1..=1_024)?,
                display_name: grantee.text("DisplayName", 1..=1_024)?,
            }),
        };
        Ok(Self { grantee, permission: members.word("Permission")? })
    }

    pub(super) fn write_list(xml: &mut Writer, name: &str, grants: Option<&[Self]>) {
        let Some(grants) = grants else { return };
        xml.open(name);
        for grant in grants {
            xml.open("member");
            if let Some(grantee) = &grant.grantee {
                xml.open("Grantee");
                xml.maybe_word("TypeIdentifier", grantee.kind);
                xml.maybe_text("Identifier", grantee.identifier.as_deref());
                xml.maybe_text("DisplayName", grantee.display_name.as_deref());
                xml.close();
            }
            xml.maybe_word("Permission", grant.permission);
            xml.close();
        }
        xml.close();
    }
}

impl PutObjectAcl {
    pub(super) fn parse(element: &Element) -> Checked<Self> {
        let members = Members::strict(element, "S3PutObjectAcl", &["AccessControlPolicy"], &[])?;
        let known = ["AccessControlList", "CannedAccessControlList"];
        let policy = members.structure("AccessControlPolicy", &known, &[])?;
        let policy = members.need("AccessControlPolicy", policy)?;
        let canned = policy.word("CannedAccessControlList")?;
        let list = policy.structure("AccessControlList", &["Owner", "Grants"], &[])?;
        match (canned, list) {
            (Some(canned), None) => Ok(Self::Canned(canned)),
            (None, Some(list)) => {
                let owner = list.need("Owner", list.structure("Owner", &["ID", "DisplayName"], &[])?)?;
                Ok(Self::List {
                    owner_id: owner.text("ID", 1..=1_024)?,
                    owner_name: owner.text("DisplayName", 1..=1_024)?,
                    grants: Grant::list(&list, "Grants")?,
                })
            }
            _ => invalid("S3PutObjectAcl needs either AccessControlList or CannedAccessControlList"),
        }
    }

    pub(super) fn write(&self, xml: &mut Writer) {
        xml.open("S3PutObjectAcl");
        xml.open("AccessControlPolicy");
        match self {
            Self::Canned(canned) => xml.maybe_word("CannedAccessControlList", Some(*canned)),
            Self::List { owner_id, owner_name, grants } => {
                xml.open("AccessControlList");
                xml.open("Owner");
                xml.maybe_text("ID", owner_id.as_deref());
                xml.maybe_text("DisplayName", owner_name.as_deref());
                xml.close();
                Grant::write_list(xml, "Grants", grants.as_deref());
                xml.close();
            }
        }
        xml.close();
        xml.close();
    }
}
