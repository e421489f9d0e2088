//! `S3ComputeObjectChecksum`. Source: S3 Batch spec 4.10.

use longshore_wire::xml::{Element, Writer};

use super::copy::ChecksumAlgorithm;
use crate::shape::members::{Members, WriteMembers, words};
use crate::shape::{Checked, invalid};

words! { ChecksumType { FullObject = "FULL_OBJECT", Composite = "COMPOSITE" } }

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputeObjectChecksum {
    pub algorithm: Option<ChecksumAlgorithm>,
    pub kind: Option<ChecksumType>,
}

impl ComputeObjectChecksum {
    pub(super) fn parse(element: &Element) -> Checked<Self> {
        let known = ["ChecksumAlgorithm", "ChecksumType"];
        let members = Members::strict(element, "S3ComputeObjectChecksum", &known, &[])?;
        let this = Self { algorithm: members.word("ChecksumAlgorithm")?, kind: members.word("ChecksumType")? };
        if this.algorithm == Some(ChecksumAlgorithm::Crc64Nvme) && this.kind == Some(ChecksumType::Composite) {
            return invalid("S3ComputeObjectChecksum: CRC64NVME is of the full object, never COMPOSITE");
        }
        Ok(this)
    }

    pub(super) fn write(&self, xml: &mut Writer) {
        xml.open("S3ComputeObjectChecksum");
        xml.maybe_word("ChecksumAlgorithm", self.algorithm);
        xml.maybe_word("ChecksumType", self.kind);
        xml.close();
    }
}
