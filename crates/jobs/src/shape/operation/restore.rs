//! `S3InitiateRestoreObject`. Source: S3 Batch spec 4.5.

use longshore_wire::xml::{Element, Writer};

use crate::shape::Checked;
use crate::shape::members::{Members, WriteMembers, words};

words! { GlacierJobTier { Bulk = "BULK", Standard = "STANDARD" } }

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitiateRestoreObject {
    /// At least 1 for Glacier's classes, absent for Intelligent-Tiering. The model would take 0, which is never of use
    /// (rule V-9).
    pub expiration_in_days: Option<u64>,
    pub tier: Option<GlacierJobTier>,
}

/// The model's bound of an integer.
const INTEGER_MAX: u64 = i32::MAX as u64;

impl InitiateRestoreObject {
    pub(super) fn parse(element: &Element) -> Checked<Self> {
        let known = ["ExpirationInDays", "GlacierJobTier"];
        let members = Members::strict(element, "S3InitiateRestoreObject", &known, &[])?;
        Ok(Self {
            expiration_in_days: members.whole("ExpirationInDays", 1..=INTEGER_MAX)?,
            tier: members.word("GlacierJobTier")?,
        })
    }

    pub(super) fn write(&self, xml: &mut Writer) {
        xml.open("S3InitiateRestoreObject");
        xml.maybe_whole("ExpirationInDays", self.expiration_in_days);
        xml.maybe_word("GlacierJobTier", self.tier);
        xml.close();
    }
}
