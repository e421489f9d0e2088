//! S3's digests: the MD5 behind an ETag and the five additional checksums.
//!
//! Source: S3 user guide, "Checking object integrity in Amazon S3".

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use http::HeaderMap;
use md5::Digest;

use crate::error::ObjectsError;

/// One of S3's additional checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub const ALL: [Algorithm; 5] =
        [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme, Algorithm::Sha1, Algorithm::Sha256];

    /// As AWS spells it in XML and in `x-amz-checksum-algorithm`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
        }
    }

    pub fn header(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "x-amz-checksum-crc32",
            Algorithm::Crc32c => "x-amz-checksum-crc32c",
            Algorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Algorithm::Sha1 => "x-amz-checksum-sha1",
            Algorithm::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// Reads [`Algorithm::name`], in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name().eq_ignore_ascii_case(name))
    }

    /// Bytes of a digest.
    fn len(self) -> usize {
        match self {
            Algorithm::Crc32 | Algorithm::Crc32c => 4,
            Algorithm::Crc64Nvme => 8,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
        }
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Algorithm::Sha1 | Algorithm::Sha256 => None,
        }
    }

    /// Reads a digest as it stands in a header: base64 of exactly the algorithm's length.
    pub fn decode(self, value: &str) -> Result<Vec<u8>, ObjectsError> {
        STANDARD
            .decode(value.trim())
            .ok()
            .filter(|bytes| bytes.len() == self.len())
            .ok_or(ObjectsError::InvalidDigest(self.header()))
    }

    /// The whole object's digest from its parts' digests and sizes; only CRCs can be joined.
    pub fn join(self, parts: &[(Vec<u8>, u64)]) -> Option<Vec<u8>> {
        let crc = self.crc()?;
        let mut joined: Option<u64> = None;
        for (digest, size) in parts {
            let value = digest.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
            joined = Some(match joined {
                None => value,
                Some(before) => crc_fast::checksum_combine(crc, before, value, *size),
            });
        }
        let bytes = joined?.to_be_bytes();
        Some(bytes[8 - self.len()..].to_vec())
    }

    /// The digest of the parts' digests, of multipart uploads of type `COMPOSITE`.
    pub fn composite(self, parts: &[Vec<u8>]) -> Vec<u8> {
        let mut digest = Running::new(self);
        for part in parts {
            digest.update(part);
        }
        digest.finish()
    }
}

/// Whether a multipart object's checksum covers its bytes or its parts' checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    FullObject,
    Composite,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::FullObject => "FULL_OBJECT",
            Kind::Composite => "COMPOSITE",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Kind::FullObject, Kind::Composite].into_iter().find(|k| k.name() == name)
    }
}

/// A checksum as stored with an object: `value` as it stands in the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    pub algorithm: Algorithm,
    pub kind: Kind,
    pub value: String,
}

pub(crate) fn encode(digest: &[u8]) -> String {
    STANDARD.encode(digest)
}

/// What a client said about a body before or after sending it.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    pub md5: Option<Vec<u8>>,
    pub checksum: Option<(Algorithm, ExpectedValue)>,
}

#[derive(Debug, Clone)]
pub enum ExpectedValue {
    Known(Vec<u8>),
    /// The digest follows the body, in a trailer.
    Trailer,
    /// Asked for (`x-amz-sdk-checksum-algorithm`), not given.
    Unknown,
}

impl Expected {
    /// Reads the headers of an upload. A request may carry one additional checksum, as AWS has it.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, ObjectsError> {
        let md5 = match text(headers, "content-md5")? {
            None => None,
            Some(value) => Some(
                STANDARD
                    .decode(value.trim())
                    .ok()
                    .filter(|bytes| bytes.len() == 16)
                    .ok_or(ObjectsError::InvalidDigest("Content-MD5"))?,
            ),
        };
        let mut checksum = None;
        for algorithm in Algorithm::ALL {
            if let Some(value) = text(headers, algorithm.header())? {
                if checksum.is_some() {
                    return Err(ObjectsError::InvalidRequest(
                        "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.".into(),
                    ));
                }
                checksum = Some((algorithm, ExpectedValue::Known(algorithm.decode(value)?)));
            }
        }
        if let Some(trailer) = text(headers, "x-amz-trailer")? {
            for name in trailer.split(',').map(str::trim).filter(|n| !n.is_empty()) {
                let algorithm =
                    Algorithm::ALL.into_iter().find(|a| a.header().eq_ignore_ascii_case(name)).ok_or_else(|| {
                        ObjectsError::InvalidRequest(
                            "The value specified in the x-amz-trailer header is not supported".into(),
                        )
                    })?;
                if checksum.is_some() {
                    return Err(ObjectsError::InvalidRequest(
                        "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.".into(),
                    ));
                }
                checksum = Some((algorithm, ExpectedValue::Trailer));
            }
        }
        if let Some(name) = text(headers, "x-amz-sdk-checksum-algorithm")? {
            let wanted = Algorithm::parse(name).ok_or_else(|| {
                ObjectsError::InvalidRequest(
                    "The algorithm type you specified in x-amz-checksum- header is invalid.".into(),
                )
            })?;
            match &checksum {
                None => checksum = Some((wanted, ExpectedValue::Unknown)),
                Some((given, _)) if *given == wanted => {}
                Some(_) => {
                    return Err(ObjectsError::InvalidRequest(
                        "Value for x-amz-sdk-checksum-algorithm header is invalid.".into(),
                    ));
                }
            }
        }
        Ok(Self { md5, checksum })
    }

    pub fn algorithm(&self) -> Option<Algorithm> {
        self.checksum.as_ref().map(|(algorithm, _)| *algorithm)
    }

    /// Compares what was received with what was said. `trailer` gives the body's trailers by name.
    pub fn check<'t>(
        &self,
        digests: &Digests,
        trailer: impl FnOnce(&str) -> Option<&'t str>,
    ) -> Result<(), ObjectsError> {
        if let Some(md5) = &self.md5
            && md5[..] != digests.md5[..]
        {
            return Err(ObjectsError::BadDigest("Content-MD5"));
        }
        let Some((algorithm, value)) = &self.checksum else { return Ok(()) };
        let expected = match value {
            ExpectedValue::Unknown => return Ok(()),
            ExpectedValue::Known(bytes) => bytes.clone(),
            ExpectedValue::Trailer => {
                let value = trailer(algorithm.header()).ok_or_else(|| {
                    ObjectsError::Refused(
                        "MalformedTrailerError",
                        format!("The request announced the trailer {} and did not send it.", algorithm.header()),
                    )
                })?;
                algorithm.decode(value)?
            }
        };
        if digests.of(*algorithm).is_some_and(|received| received == expected) {
            Ok(())
        } else {
            Err(ObjectsError::BadDigest(algorithm.name()))
        }
    }
}

/// A header that may stand once and must be text; ignoring a second one would verify less than was asked.
fn text<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, ObjectsError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(value), None) => Ok(Some(value)),
        _ => Err(ObjectsError::InvalidDigest(name)),
    }
}

/// The digests of a body that was received whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    pub md5: Vec<u8>,
    /// Ours, of every body: what reading it back is checked against.
    pub crc64: u64,
    pub extra: Option<(Algorithm, Vec<u8>)>,
}

impl Digests {
    /// The digest of `algorithm`, if it was computed.
    pub fn of(&self, algorithm: Algorithm) -> Option<Vec<u8>> {
        match &self.extra {
            Some((a, digest)) if *a == algorithm => Some(digest.clone()),
            _ if algorithm == Algorithm::Crc64Nvme => Some(self.crc64.to_be_bytes().to_vec()),
            _ => None,
        }
    }

    /// What is stored with the object: the checksum the client chose, else CRC64NVME, as AWS does.
    pub fn stored(&self) -> (Algorithm, String) {
        match &self.extra {
            Some((algorithm, digest)) => (*algorithm, encode(digest)),
            None => (Algorithm::Crc64Nvme, encode(&self.crc64.to_be_bytes())),
        }
    }
}

/// Digests over a body that is arriving.
pub struct Hasher {
    md5: md5::Md5,
    crc64: crc_fast::Digest,
    extra: Option<(Algorithm, Running)>,
}

impl Hasher {
    pub fn new(extra: Option<Algorithm>) -> Self {
        Self {
            md5: md5::Md5::new(),
            crc64: crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme),
            // CRC64NVME is computed anyway.
            extra: extra.filter(|a| *a != Algorithm::Crc64Nvme).map(|a| (a, Running::new(a))),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.crc64.update(bytes);
        if let Some((_, extra)) = &mut self.extra {
            extra.update(bytes);
        }
    }

    pub fn finish(self) -> Digests {
        Digests {
            md5: self.md5.finalize().to_vec(),
            crc64: self.crc64.finalize(),
            extra: self.extra.map(|(algorithm, running)| (algorithm, running.finish())),
        }
    }
}

enum Running {
    Crc(crc_fast::Digest, usize),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
}

impl Running {
    fn new(algorithm: Algorithm) -> Self {
        match (algorithm, algorithm.crc()) {
            (_, Some(crc)) => Running::Crc(crc_fast::Digest::new(crc), algorithm.len()),
            (Algorithm::Sha1, None) => Running::Sha1(sha1::Sha1::new()),
            (_, None) => Running::Sha256(sha2::Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Running::Crc(digest, _) => digest.update(bytes),
            Running::Sha1(digest) => digest.update(bytes),
            Running::Sha256(digest) => digest.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Running::Crc(digest, len) => digest.finalize().to_be_bytes()[8 - len..].to_vec(),
            Running::Sha1(digest) => digest.finalize().to_vec(),
            Running::Sha256(digest) => digest.finalize().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(body: &[u8], extra: Option<Algorithm>) -> Digests {
        let mut hasher = Hasher::new(extra);
        hasher.update(body);
        hasher.finish()
    }

    #[test]
    fn every_checksum_of_a_known_text_is_the_published_one() {
        // The check values of the CRC catalogue ("123456789"), and FIPS 180's SHA of "abc".
        let of = |a, body: &[u8]| hex::encode(digests(body, Some(a)).of(a).unwrap());
        assert_eq!(of(Algorithm::Crc32, b"123456789"), "cbf43926");
        assert_eq!(of(Algorithm::Crc32c, b"123456789"), "e3069283");
        assert_eq!(of(Algorithm::Crc64Nvme, b"123456789"), "ae8b14860a799888");
        assert_eq!(of(Algorithm::Sha1, b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(&of(Algorithm::Sha256, b"abc")[..16], "ba7816bf8f01cfea");
    }

    #[test]
    fn the_crc_of_a_whole_is_joined_from_its_parts() {
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let part = |b: &[u8]| (digests(b, Some(algorithm)).of(algorithm).unwrap(), b.len() as u64);
            let joined = algorithm.join(&[part(b"12345"), part(b""), part(b"6789")]);
            assert_eq!(joined, digests(b"123456789", Some(algorithm)).of(algorithm));
        }
        assert_eq!(Algorithm::Sha1.join(&[(vec![0; 20], 1)]), None);
    }

    #[test]
    fn two_checksum_headers_are_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-checksum-crc32", "AAAAAA==".parse().unwrap());
        assert!(Expected::from_headers(&headers).is_ok());
        headers.insert("x-amz-checksum-sha1", encode(&[0; 20]).parse().unwrap());
        assert!(Expected::from_headers(&headers).is_err());
    }

    #[test]
    fn a_trailer_that_was_announced_must_come_and_match() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-trailer", "x-amz-checksum-crc32".parse().unwrap());
        let expected = Expected::from_headers(&headers).unwrap();
        let received = digests(b"123456789", expected.algorithm());
        assert!(expected.check(&received, |_| None).is_err());
        let right = encode(&hex::decode("cbf43926").unwrap());
        assert!(expected.check(&received, |name| (name == "x-amz-checksum-crc32").then_some(&*right)).is_ok());
        let wrong = encode(&[0; 4]);
        assert!(matches!(expected.check(&received, |_| Some(&*wrong)), Err(ObjectsError::BadDigest("CRC32"))));
    }
}
