//! The forms of a signed payload, and the decoders that check a body against what its request signed.
//!
//! Nothing waits and nothing is held back: decoded bytes come out of [`Decoder::push`] as they arrive, before the
//! signature over them is complete. Whoever stores them must not show them to anybody until [`Decoder::finish`] said
//! `Ok`. Source: S3 user guide, "Signature Calculations for the Authorization Header: Transferring Payload in
//! Multiple Chunks", and the same "with Trailing Headers".

use bytes::Bytes;
use http::StatusCode;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::ApiError;
use crate::sigv4::{ChunkKey, parse_hex32};

/// A chunk's first line is at most 16 hexadecimal digits and a signature: 97 bytes.
const CHUNK_LINE_MAX: usize = 128;
/// A trailer line is a checksum or a signature; the longest, SHA-512 in base64, is below 128 bytes.
const TRAILER_LINE_MAX: usize = 1024;
/// S3 takes one checksum a request; the spare costs nothing and bounds the list.
const TRAILERS_MAX: usize = 8;

/// What a request signed in place of its body: the value of `x-amz-content-sha256`, or its absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadForm {
    /// The SHA-256 of the body.
    Hash([u8; 32]),
    /// No header: the SHA-256 of the body is part of the signature, which cannot be verified without the whole body.
    /// How the AWS clients sign for Lambda.
    Implied,
    /// `UNSIGNED-PAYLOAD`: the body may be anything.
    Unsigned,
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`: chunks, each signed.
    SignedChunks,
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER`: the same, then signed trailers.
    SignedChunksTrailer,
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`: chunks and trailers without signatures.
    UnsignedTrailer,
}

impl PayloadForm {
    /// Reads a value of `x-amz-content-sha256`; `None` for whatever is not listed above (`…-ECDSA-…`, `…-EVENTS`).
    pub fn parse(value: &str) -> Option<Self> {
        Some(match value {
            "UNSIGNED-PAYLOAD" => Self::Unsigned,
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Self::SignedChunks,
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => Self::SignedChunksTrailer,
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Self::UnsignedTrailer,
            hash => Self::Hash(parse_hex32(hash)?),
        })
    }

    /// The value to send and sign; `None` for [`PayloadForm::Implied`].
    pub fn header_value(&self) -> Option<String> {
        Some(match self {
            Self::Hash(hash) => hex::encode(hash),
            Self::Implied => return None,
            Self::Unsigned => "UNSIGNED-PAYLOAD".to_owned(),
            Self::SignedChunks => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD".to_owned(),
            Self::SignedChunksTrailer => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER".to_owned(),
            Self::UnsignedTrailer => "STREAMING-UNSIGNED-PAYLOAD-TRAILER".to_owned(),
        })
    }

    /// Is the body in chunks of the aws-chunked coding?
    pub fn is_chunked(&self) -> bool {
        matches!(self, Self::SignedChunks | Self::SignedChunksTrailer | Self::UnsignedTrailer)
    }

    fn has_trailers(&self) -> bool {
        matches!(self, Self::SignedChunksTrailer | Self::UnsignedTrailer)
    }

    /// Does nothing that was signed speak for the body's bytes?
    pub fn is_unsigned(&self) -> bool {
        matches!(self, Self::Unsigned | Self::UnsignedTrailer)
    }
}

/// Why a body was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("the body's SHA-256 is not the one in x-amz-content-sha256")]
    Hash,
    #[error("the signature of a chunk does not match")]
    ChunkSignature,
    #[error("the signature of the trailers does not match")]
    TrailerSignature,
    #[error("a chunk's first line or its end is malformed")]
    Chunk,
    #[error("the trailers are malformed, not those of x-amz-trailer, or too many")]
    Trailer,
    #[error("x-amz-decoded-content-length is missing or is not a length")]
    LengthMissing,
    #[error("the chunks hold more bytes than x-amz-decoded-content-length says, or go on after the last")]
    TooLong,
    #[error("the body ended before its last chunk, or before x-amz-decoded-content-length")]
    TooShort,
    #[error("the request's signature cannot cover a body of this form")]
    NotVerified,
}

impl PayloadError {
    /// What the caller is told, in S3's words: only S3 takes chunks.
    pub fn told(&self) -> ApiError {
        let bad = |code: &'static str, message: &str| ApiError::new(StatusCode::BAD_REQUEST, code, message);
        match self {
            Self::Hash => bad(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ),
            Self::ChunkSignature | Self::TrailerSignature | Self::NotVerified => ApiError::new(
                StatusCode::FORBIDDEN,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. \
                 Check your key and signing method.",
            ),
            Self::Chunk => {
                bad("InvalidRequest", "The body is not in the aws-chunked coding that the request declares.")
            }
            Self::Trailer => bad(
                "MalformedTrailerError",
                "The request contained trailing data that was not well-formed or did not conform to our published schema.",
            ),
            Self::LengthMissing => ApiError::new(
                StatusCode::LENGTH_REQUIRED,
                "MissingContentLength",
                "You must provide the x-amz-decoded-content-length HTTP header.",
            ),
            Self::TooLong | Self::TooShort => bad(
                "IncompleteBody",
                "The body does not have the number of bytes that the x-amz-decoded-content-length header says.",
            ),
        }
    }
}

/// The trailers of a body: lower-case name and trimmed value, in the order sent. To be checked by who stores the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trailers(Vec<(String, String)>);

impl Trailers {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }
}

/// Decodes and checks one body, piece by piece.
#[derive(Debug)]
pub struct Decoder(Mode);

#[derive(Debug)]
enum Mode {
    Plain,
    Hash {
        sofar: Sha256,
        wanted: [u8; 32],
    },
    Chunked(Box<Chunked>),
    /// An error is final: what comes after it is not looked at.
    Failed(PayloadError),
}

impl Decoder {
    /// A decoder for `form`.
    ///
    /// For chunked forms, `decoded_length` is the value of `x-amz-decoded-content-length` in bytes and `announced` the
    /// lower-case names in `x-amz-trailer`; `key` comes from the verified request and is needed for signed chunks.
    /// [`crate::sigv4::Verified::decoder`] fills these in. [`PayloadForm::Implied`] is refused: its body was needed
    /// to verify the request at all, and a verified request says [`PayloadForm::Hash`] instead.
    pub fn new(
        form: PayloadForm,
        decoded_length: Option<u64>,
        announced: Vec<String>,
        key: Option<ChunkKey>,
    ) -> Result<Self, PayloadError> {
        Ok(Self(match form {
            PayloadForm::Implied => return Err(PayloadError::NotVerified),
            PayloadForm::Unsigned => Mode::Plain,
            PayloadForm::Hash(wanted) => Mode::Hash { sofar: Sha256::new(), wanted },
            PayloadForm::SignedChunks | PayloadForm::SignedChunksTrailer | PayloadForm::UnsignedTrailer => {
                let signed = form != PayloadForm::UnsignedTrailer;
                if signed && key.is_none() {
                    return Err(PayloadError::NotVerified);
                }
                if announced.len() > TRAILERS_MAX {
                    return Err(PayloadError::Trailer);
                }
                let key = key.filter(|_| signed);
                Mode::Chunked(Box::new(Chunked {
                    previous: key.as_ref().map_or([0; 32], ChunkKey::seed),
                    key,
                    has_trailers: form.has_trailers(),
                    announced,
                    left: decoded_length.ok_or(PayloadError::LengthMissing)?,
                    state: State::ChunkLine,
                    line: Vec::new(),
                    hash: Sha256::new(),
                    signature: [0; 32],
                    trailers: Trailers::default(),
                    trailer_signature: None,
                }))
            }
        }))
    }

    /// Takes the next bytes of the body as they came off the wire; gives back the decoded bytes among them, as slices
    /// of `input`. After an error every further call fails with the same one.
    pub fn push(&mut self, mut input: Bytes) -> Result<Vec<Bytes>, PayloadError> {
        if input.is_empty() {
            return match &self.0 {
                Mode::Failed(e) => Err(*e),
                _ => Ok(Vec::new()),
            };
        }
        match &mut self.0 {
            Mode::Plain => Ok(vec![input]),
            Mode::Hash { sofar, .. } => {
                sofar.update(&input);
                Ok(vec![input])
            }
            Mode::Failed(e) => Err(*e),
            Mode::Chunked(chunked) => {
                let mut out = Vec::new();
                while !input.is_empty() {
                    if let Err(e) = chunked.step(&mut input, &mut out) {
                        self.0 = Mode::Failed(e);
                        return Err(e);
                    }
                }
                Ok(out)
            }
        }
    }

    /// To be called when the body has ended; only `Ok` says that the body is the signed one and is whole.
    pub fn finish(self) -> Result<Trailers, PayloadError> {
        match self.0 {
            Mode::Plain => Ok(Trailers::default()),
            Mode::Hash { sofar, wanted } => {
                let same = bool::from(sofar.finalize().ct_eq(&wanted));
                if same { Ok(Trailers::default()) } else { Err(PayloadError::Hash) }
            }
            Mode::Failed(e) => Err(e),
            Mode::Chunked(chunked) if chunked.state == State::Done => Ok(chunked.trailers),
            Mode::Chunked(_) => Err(PayloadError::TooShort),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the line `SIZE;chunk-signature=…`.
    ChunkLine,
    /// Inside the data of a chunk, which has so many bytes left, at least one.
    Data(u64),
    /// In the line end after a chunk's data.
    DataEnd,
    /// In the lines after the last chunk.
    Trailer,
    Done,
}

#[derive(Debug)]
struct Chunked {
    key: Option<ChunkKey>,
    /// The signature that the next one is chained to.
    previous: [u8; 32],
    has_trailers: bool,
    announced: Vec<String>,
    /// Bytes that the chunks to come may still hold.
    left: u64,
    state: State,
    /// The unfinished line, bounded by `CHUNK_LINE_MAX` or `TRAILER_LINE_MAX`.
    line: Vec<u8>,
    hash: Sha256,
    /// What the current chunk's line claims.
    signature: [u8; 32],
    trailers: Trailers,
    trailer_signature: Option<[u8; 32]>,
}

impl Chunked {
    /// Consumes at least one byte of `input`, which is not empty.
    fn step(&mut self, input: &mut Bytes, out: &mut Vec<Bytes>) -> Result<(), PayloadError> {
        match self.state {
            State::ChunkLine => {
                if let Some(line) = self.take_line(input, CHUNK_LINE_MAX, PayloadError::Chunk)? {
                    self.open_chunk(&line)?;
                }
            }
            State::Data(size) => {
                let take = usize::try_from(size).unwrap_or(usize::MAX).min(input.len());
                let data = input.split_to(take);
                if self.key.is_some() {
                    self.hash.update(&data);
                }
                out.push(data);
                let rest = size - take as u64;
                self.state = if rest > 0 { State::Data(rest) } else { State::DataEnd };
            }
            State::DataEnd => {
                // With room for CR LF alone, a line that ends is empty.
                if self.take_line(input, 2, PayloadError::Chunk)?.is_some() {
                    self.check_chunk()?;
                    self.state = State::ChunkLine;
                }
            }
            State::Trailer => {
                if let Some(line) = self.take_line(input, TRAILER_LINE_MAX, PayloadError::Trailer)? {
                    if line.is_empty() {
                        self.check_trailers()?;
                        self.state = State::Done;
                    } else {
                        self.take_trailer(&line)?;
                    }
                }
            }
            State::Done => return Err(PayloadError::TooLong),
        }
        Ok(())
    }

    /// Moves bytes of `input` to the unfinished line until CR LF; `max` counts these two.
    fn take_line(
        &mut self,
        input: &mut Bytes,
        max: usize,
        error: PayloadError,
    ) -> Result<Option<Vec<u8>>, PayloadError> {
        let room = max - self.line.len();
        let end = input.iter().take(room).enumerate().position(|(i, &b)| {
            let before = if i > 0 { input.get(i - 1) } else { self.line.last() };
            b == b'\n' && before == Some(&b'\r')
        });
        let take = end.map_or(input.len().min(room), |e| e + 1);
        self.line.extend_from_slice(&input.split_to(take));
        match end {
            Some(_) => {
                let mut line = std::mem::take(&mut self.line);
                line.truncate(line.len() - 2);
                Ok(Some(line))
            }
            None if self.line.len() >= max => Err(error),
            None => Ok(None),
        }
    }

    fn open_chunk(&mut self, line: &[u8]) -> Result<(), PayloadError> {
        let line = std::str::from_utf8(line).map_err(|_| PayloadError::Chunk)?;
        let size = match (&self.key, line.split_once(";chunk-signature=")) {
            (Some(_), Some((size, signature))) => {
                self.signature = parse_hex32(signature).ok_or(PayloadError::ChunkSignature)?;
                size
            }
            (Some(_), None) => return Err(PayloadError::Chunk),
            // A signature that nobody would check is refused like any other unknown extension.
            (None, _) => line,
        };
        // 16 digits always fit a u64; signs and white space, which `from_str_radix` might take, are not digits.
        if size.is_empty() || size.len() > 16 || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(PayloadError::Chunk);
        }
        let size = u64::from_str_radix(size, 16).map_err(|_| PayloadError::Chunk)?;
        self.left = self.left.checked_sub(size).ok_or(PayloadError::TooLong)?;
        if size > 0 {
            self.state = State::Data(size);
            return Ok(());
        }
        if self.left > 0 {
            return Err(PayloadError::TooShort);
        }
        self.check_chunk()?;
        self.state = State::Trailer;
        Ok(())
    }

    fn check_chunk(&mut self) -> Result<(), PayloadError> {
        let Some(key) = &self.key else { return Ok(()) };
        let hash: [u8; 32] = self.hash.finalize_reset().into();
        let computed = key.chunk_signature(&self.previous, &hash);
        if !bool::from(computed.ct_eq(&self.signature)) {
            return Err(PayloadError::ChunkSignature);
        }
        self.previous = computed;
        Ok(())
    }

    fn take_trailer(&mut self, line: &[u8]) -> Result<(), PayloadError> {
        // The signature is the last line: nothing may follow what it covers.
        if !self.has_trailers || self.trailer_signature.is_some() {
            return Err(PayloadError::Trailer);
        }
        // AWS's own example ends a trailer with LF CR LF.
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = std::str::from_utf8(line).map_err(|_| PayloadError::Trailer)?;
        let (name, value) = line.split_once(':').ok_or(PayloadError::Trailer)?;
        let (name, value) = (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']));
        if value.bytes().any(|b| b.is_ascii_control()) {
            return Err(PayloadError::Trailer);
        }
        if self.key.is_some() && name == "x-amz-trailer-signature" {
            self.trailer_signature = Some(parse_hex32(value).ok_or(PayloadError::TrailerSignature)?);
            return Ok(());
        }
        // `announced` has at most TRAILERS_MAX names and none comes twice, so this list is bounded too.
        if !self.announced.contains(&name) || self.trailers.get(&name).is_some() {
            return Err(PayloadError::Trailer);
        }
        self.trailers.0.push((name, value.to_owned()));
        Ok(())
    }

    fn check_trailers(&mut self) -> Result<(), PayloadError> {
        if !self.has_trailers {
            return Ok(());
        }
        if self.announced.iter().any(|name| self.trailers.get(name).is_none()) {
            return Err(PayloadError::Trailer);
        }
        let Some(key) = &self.key else { return Ok(()) };
        let claimed = self.trailer_signature.ok_or(PayloadError::TrailerSignature)?;
        let mut sorted: Vec<_> = self.trailers.iter().collect();
        sorted.sort_unstable();
        let mut hash = Sha256::new();
        for (name, value) in sorted {
            hash.update(name);
            hash.update(":");
            hash.update(value);
            hash.update("\n");
        }
        let computed = key.trailer_signature(&self.previous, &hash.finalize().into());
        if bool::from(computed.ct_eq(&claimed)) { Ok(()) } else { Err(PayloadError::TrailerSignature) }
    }
}

#[cfg(test)]
mod tests;
