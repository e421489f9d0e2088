//! `S3PutObjectLegalHold` and `S3PutObjectRetention`. Source: S3 Batch spec 4.7 and 4.8.

use longshore_core::time::Timestamp;
use longshore_wire::xml::{Element, Writer};

use crate::shape::members::{Members, WriteMembers, words};
use crate::shape::{Checked, invalid};

words! { OnOff { Off = "OFF", On = "ON" } }
words! { LockMode { Compliance = "COMPLIANCE", Governance = "GOVERNANCE" } }

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutObjectLegalHold {
    pub status: OnOff,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutObjectRetention {
    pub bypass_governance: Option<bool>,
    /// `None` takes the retention away.
    pub retention: Option<Retention>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    pub mode: LockMode,
    pub until: Timestamp,
}

/// Documented, in no model yet. Where they stand is not clear, so they are refused at both places.
const NEWER: [&str; 2] = ["EventHold", "EventHoldDuration"];

impl PutObjectLegalHold {
    pub(super) fn parse(element: &Element) -> Checked<Self> {
        let members = Members::strict(element, "S3PutObjectLegalHold", &["LegalHold"], &[])?;
        let hold = members.need("LegalHold", members.structure("LegalHold", &["Status"], &[])?)?;
        Ok(Self { status: hold.need("Status", hold.word("Status")?)? })
    }

    pub(super) fn write(&self, xml: &mut Writer) {
        xml.open("S3PutObjectLegalHold");
        xml.open("LegalHold");
        xml.maybe_word("Status", Some(self.status));
        xml.close();
        xml.close();
    }
}

impl PutObjectRetention {
    /// `now` decides whether the date lies in the past (rule V-11).
    pub(super) fn parse(element: &Element, now: Timestamp) -> Checked<Self> {
        let known = ["BypassGovernanceRetention", "Retention"];
        let members = Members::strict(element, "S3PutObjectRetention", &known, &NEWER)?;
        let retention = members.structure("Retention", &["RetainUntilDate", "Mode"], &NEWER)?;
        let retention = members.need("Retention", retention)?;
        let retention = match (retention.word("Mode")?, retention.date("RetainUntilDate")?) {
            (None, None) => None,
            (Some(_), Some(until)) if until <= now => {
                return invalid("S3PutObjectRetention.Retention.RetainUntilDate lies in the past");
            }
            (Some(mode), Some(until)) => Some(Retention { mode, until }),
            _ => return invalid("S3PutObjectRetention.Retention needs Mode and RetainUntilDate, or neither"),
        };
        Ok(Self { bypass_governance: members.boolean("BypassGovernanceRetention")?, retention })
    }

    pub(super) fn write(&self, xml: &mut Writer) {
        xml.open("S3PutObjectRetention");
        xml.maybe_boolean("BypassGovernanceRetention", self.bypass_governance);
        xml.open("Retention");
        xml.maybe_date("RetainUntilDate", self.retention.as_ref().map(|r| r.until));
        xml.maybe_word("Mode", self.retention.as_ref().map(|r| r.mode));
        xml.close();
        xml.close();
    }
}
