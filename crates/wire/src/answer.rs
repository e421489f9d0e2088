//! One answer of HTTP/1.1 as a client of Lambda's Invoke reads it: bytes in, status, the headers that count, and body out.
//!
//! A reader of our own and not hyper's, for this one shape: an answer to a request with a body, over a connection that
//! carries one exchange at a time. Nobody waits here; whoever has the connection hands in what has arrived. The other side
//! is not trusted: what it can make us keep is bounded by the constants below and by the `body_max` that is given.
//! Source: RFC 9112, sections 4 to 7 and 9.3; RFC 9110, section 15.2.

use bytes::{Buf, Bytes, BytesMut};

/// The largest head, interim answers apart. Lambda's are below 1 KiB.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers in a head. Lambda sends about ten.
const HEADERS_MAX: usize = 100;
/// Answers of status 1xx before the one that counts.
const INTERIM_MAX: u32 = 16;
/// A line that announces a chunk, with its extensions.
const LINE_BYTES_MAX: usize = 4 * 1024;
/// All trailer lines of a body. None of them is read.
const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// Reserved at once for a body that has been announced: memory follows what arrives, not what is promised.
const RESERVED_MAX: usize = 256 * 1024;

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub head: AnswerHead,
    /// `None` where it is longer than was asked for; then nothing more can be read from this connection.
    pub body: Option<Bytes>,
    /// Whether another request may follow on the connection.
    pub reusable: bool,
}

/// What counts of an answer's head. Of a header that is there twice, the first; `None` where it is absent or not text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerHead {
    pub status: u16,
    /// Whether there is an `X-Amz-Function-Error`.
    pub function_error: bool,
    /// `x-amzn-ErrorType`.
    pub error_type: Option<Box<str>>,
    pub retry_after: Option<Box<str>>,
}

/// Why bytes are no answer, or not a whole one. A clause for a report's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("the connection was closed without an answer")]
    Nothing,
    #[error("the answer broke off")]
    BrokenOff,
    #[error("the answer is no HTTP/1.1")]
    Malformed,
    #[error("the answer's head is too large")]
    HeadTooLarge,
    #[error("the answer has a transfer coding that was not asked for")]
    Coding,
}

/// Reads one answer. Once it has given one, or an error, it is of no more use.
#[derive(Debug)]
pub struct AnswerReader {
    body_max: usize,
    interim: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// So many bytes hold no end of a head.
    Head {
        searched: usize,
    },
    Sized {
        head: AnswerHead,
        reusable: bool,
        length: usize,
    },
    Chunked {
        head: AnswerHead,
        reusable: bool,
        body: BytesMut,
        next: Next,
    },
    ToTheEnd {
        head: AnswerHead,
    },
}

/// What comes next of a chunked body.
#[derive(Debug, Clone, Copy)]
enum Next {
    Size,
    Data { left: usize },
    DataEnd,
    Trailers { bytes: usize },
}

/// A head, and what it says of the body behind it.
struct Read {
    head: AnswerHead,
    length: usize,
    framing: Framing,
    reusable: bool,
}

enum Framing {
    Bytes(u64),
    Chunked,
    ToTheEnd,
}

impl AnswerReader {
    /// `body_max`: the longest body that is wanted, in bytes.
    pub fn new(body_max: usize) -> Self {
        Self { body_max, interim: 0, state: State::Head { searched: 0 } }
    }

    /// Takes what has arrived from the front of `input`. `None`: more is needed.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<Answer>, BadAnswer> {
        loop {
            match &mut self.state {
                State::Head { searched } => {
                    let Some(read) = head(input, searched)? else { return Ok(None) };
                    input.advance(read.length);
                    if read.head.status < 200 {
                        // Nobody asked to speak another protocol.
                        self.interim += 1;
                        if read.head.status == 101 || self.interim > INTERIM_MAX {
                            return Err(BadAnswer::Malformed);
                        }
                        self.state = State::Head { searched: 0 };
                        continue;
                    }
                    let Read { head, reusable, .. } = read;
                    self.state = match read.framing {
                        Framing::Bytes(length) if length > self.body_max as u64 => return Ok(Some(too_long(head))),
                        Framing::Bytes(length) => State::Sized { head, reusable, length: length as usize },
                        Framing::Chunked => State::Chunked { head, reusable, body: BytesMut::new(), next: Next::Size },
                        Framing::ToTheEnd => State::ToTheEnd { head },
                    };
                }
                State::Sized { head, reusable, length } => {
                    if input.len() < *length {
                        input.reserve((*length - input.len()).min(RESERVED_MAX));
                        return Ok(None);
                    }
                    let body = Some(input.split_to(*length).freeze());
                    let reusable = *reusable && input.is_empty();
                    return Ok(Some(Answer { head: std::mem::take(head), body, reusable }));
                }
                State::Chunked { head, reusable, body, next } => {
                    let taken = chunk(input, body, *next, self.body_max)?;
                    match taken {
                        Taken::More(at) => {
                            *next = at;
                            return Ok(None);
                        }
                        Taken::TooLong => return Ok(Some(too_long(std::mem::take(head)))),
                        Taken::Whole => {
                            let reusable = *reusable && input.is_empty();
                            let body = Some(std::mem::take(body).freeze());
                            return Ok(Some(Answer { head: std::mem::take(head), body, reusable }));
                        }
                    }
                }
                State::ToTheEnd { head } => {
                    return Ok((input.len() > self.body_max).then(|| too_long(std::mem::take(head))));
                }
            }
        }
    }

    /// The connection has ended behind `input`, of which [`AnswerReader::read`] could make no answer.
    pub fn end(self, input: &mut BytesMut) -> Result<Answer, BadAnswer> {
        match self.state {
            State::ToTheEnd { head } => Ok(Answer { head, body: Some(input.split().freeze()), reusable: false }),
            State::Head { .. } if input.is_empty() && self.interim == 0 => Err(BadAnswer::Nothing),
            _ => Err(BadAnswer::BrokenOff),
        }
    }
}

fn too_long(head: AnswerHead) -> Answer {
    Answer { head, body: None, reusable: false }
}

/// Reads a head from the start of `input`, if it is all there.
fn head(input: &[u8], searched: &mut usize) -> Result<Option<Read>, BadAnswer> {
    // Usually it is there with the first read. After that it is parsed once its end has come, and not with each byte.
    let from = searched.saturating_sub(3);
    if *searched > 0 && !input[from..].windows(2).any(|pair| pair == b"\n\r" || pair == b"\n\n") {
        *searched = input.len();
        return if input.len() > HEAD_BYTES_MAX { Err(BadAnswer::HeadTooLarge) } else { Ok(None) };
    }
    let mut headers = [const { std::mem::MaybeUninit::uninit() }; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut answer, input, &mut headers);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Partial) if input.len() <= HEAD_BYTES_MAX => {
            *searched = input.len();
            return Ok(None);
        }
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(BadAnswer::HeadTooLarge),
        Err(_) => return Err(BadAnswer::Malformed),
    };
    let mut read = AnswerHead { status: answer.code.unwrap_or(0), ..AnswerHead::default() };
    let (mut announced, mut chunked, mut coded) = (None, false, false);
    let mut keeps = answer.version == Some(1);
    for header in answer.headers.iter() {
        // By length first: most headers are none of these.
        match header.name.len() {
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                let length = content_length(header.value).ok_or(BadAnswer::Malformed)?;
                if announced.replace(length).is_some_and(|before| before != length) {
                    return Err(BadAnswer::Malformed);
                }
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                chunked = !coded && header.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                coded = true;
            }
            10 if header.name.eq_ignore_ascii_case("connection") => {
                for word in header.value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    if word.eq_ignore_ascii_case(b"close") {
                        keeps = false;
                    } else if word.eq_ignore_ascii_case(b"keep-alive") && answer.version == Some(0) {
                        keeps = true;
                    }
                }
            }
            20 if header.name.eq_ignore_ascii_case("x-amz-function-error") => read.function_error = true,
            16 if header.name.eq_ignore_ascii_case("x-amzn-errortype") => {
                read.error_type = read.error_type.or_else(|| text(header.value));
            }
            11 if header.name.eq_ignore_ascii_case("retry-after") => {
                read.retry_after = read.retry_after.or_else(|| text(header.value));
            }
            _ => {}
        }
    }
    let framing = match (read.status, coded) {
        (..200 | 204 | 304, _) => Framing::Bytes(0),
        // Before 1.1 nobody knew how to read one, so that whoever stands between may have read it otherwise.
        (_, true) if chunked && answer.version == Some(1) => Framing::Chunked,
        (_, true) => return Err(BadAnswer::Coding),
        (_, false) => announced.map_or(Framing::ToTheEnd, Framing::Bytes),
    };
    // An answer with two lengths may have been read otherwise on the way: nothing else goes over that connection.
    let reusable = keeps && !(coded && announced.is_some());
    Ok(Some(Read { head: read, length, framing, reusable }))
}

/// Digits alone, of one value or of the same one several times.
fn content_length(value: &[u8]) -> Option<u64> {
    let mut values = value.split(|b| *b == b',').map(|one| {
        let digits = one.trim_ascii();
        let fine = (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
        fine.then(|| digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
    });
    let first = values.next()??;
    values.all(|next| next == Some(first)).then_some(first)
}

/// A value that is printable ASCII.
fn text(value: &[u8]) -> Option<Box<str>> {
    let plain = value.iter().all(|b| matches!(b, b' '..=b'~' | b'\t'));
    std::str::from_utf8(value).ok().filter(|_| plain).map(Box::from)
}

enum Taken {
    /// It goes on here, once there is more.
    More(Next),
    Whole,
    TooLong,
}

/// Takes what there is of a chunked body.
fn chunk(input: &mut BytesMut, body: &mut BytesMut, mut next: Next, body_max: usize) -> Result<Taken, BadAnswer> {
    loop {
        next = match next {
            Next::Size => match line(input, LINE_BYTES_MAX)? {
                None => return Ok(Taken::More(next)),
                Some(line) => match chunk_size(&line)? {
                    0 => Next::Trailers { bytes: 0 },
                    size if size > (body_max - body.len()) as u64 => return Ok(Taken::TooLong),
                    size => Next::Data { left: size as usize },
                },
            },
            Next::Data { left: 0 } => Next::DataEnd,
            Next::Data { left } => {
                let now = left.min(input.len());
                if now == 0 {
                    return Ok(Taken::More(next));
                }
                body.extend_from_slice(&input[..now]);
                input.advance(now);
                Next::Data { left: left - now }
            }
            Next::DataEnd => match line(input, 0)? {
                None => return Ok(Taken::More(next)),
                Some(_) => Next::Size,
            },
            Next::Trailers { bytes } => match line(input, TRAILER_BYTES_MAX - bytes)? {
                None => return Ok(Taken::More(next)),
                Some(line) if line.is_empty() => return Ok(Taken::Whole),
                Some(line) => Next::Trailers { bytes: bytes + line.len() },
            },
        }
    }
}

/// The next line without its end, if it is all there; an error once it is longer than `max` bytes, which may be 0.
fn line(input: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, BadAnswer> {
    let Some(end) = input.iter().take(max + 2).position(|b| *b == b'\n') else {
        return if input.len() < max + 2 { Ok(None) } else { Err(BadAnswer::Malformed) };
    };
    if end == 0 || input[end - 1] != b'\r' {
        return Err(BadAnswer::Malformed);
    }
    let line = input.split_to(end - 1);
    input.advance(2);
    Ok(Some(line))
}

/// Hexadecimal digits, then perhaps extensions, which mean nothing to us.
fn chunk_size(line: &[u8]) -> Result<u64, BadAnswer> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii_end();
    if !(1..=15).contains(&digits.len()) {
        return Err(BadAnswer::Malformed);
    }
    digits.iter().try_fold(0, |size, digit| {
        let value = char::from(*digit).to_digit(16).ok_or(BadAnswer::Malformed)?;
        Ok(size << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY_MAX: usize = 32;

    /// What is made of `bytes` that arrive in pieces of `size`, the connection then ending; and what is left of them.
    fn read(bytes: &[u8], size: usize) -> (Result<Answer, BadAnswer>, usize) {
        let mut reader = AnswerReader::new(BODY_MAX);
        let (mut input, mut left) = (BytesMut::new(), bytes);
        while !left.is_empty() {
            let (piece, rest) = left.split_at(size.min(left.len()));
            input.extend_from_slice(piece);
            left = rest;
            match reader.read(&mut input) {
                Ok(None) => {}
                Ok(Some(answer)) => return (Ok(answer), input.len() + left.len()),
                Err(error) => return (Err(error), input.len() + left.len()),
            }
        }
        (reader.end(&mut input), input.len())
    }

    fn whole(status: u16, body: &str, reusable: bool) -> Result<Answer, BadAnswer> {
        let head = AnswerHead { status, ..AnswerHead::default() };
        Ok(Answer { head, body: Some(Bytes::copy_from_slice(body.as_bytes())), reusable })
    }

    #[test]
    fn an_answer_ends_where_its_head_says_however_it_arrives() {
        let long = || Ok(too_long(AnswerHead { status: 200, ..AnswerHead::default() }));
        let cases = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", whole(200, "{}", true)),
            ("HTTP/1.1 200\r\ncontent-length:0\r\n\r\n", whole(200, "", true)),
            ("HTTP/1.1 200 OK\ncontent-length: 2\n\n{}", whole(200, "{}", true)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\n{}", whole(200, "{}", true)),
            ("HTTP/1.1 307 See\r\nlocation: http://x/\r\ncontent-length: 0\r\n\r\n", whole(307, "", true)),
            ("HTTP/1.1 204 No\r\ncontent-length: 7\r\n\r\n", whole(204, "", true)),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", whole(200, "{}", true)),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\n{}", whole(200, "{}", false)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", whole(200, "{}", false)),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\n{}", whole(200, "{}", true)),
            ("HTTP/1.1 200 OK\r\n\r\nto the end", whole(200, "to the end", false)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\n{\r\n001 ;x=\"y\"\r\n}\r\n0\r\nt: 1\r\n\r\n",
                whole(200, "{}", true),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n0\r\n\r\n",
                whole(200, "", false),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n", long()),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n20\r\n", long()),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n", long()),
            ("HTTP/1.1 200 OK\r\n\r\n123456789-123456789-123456789-123", long()),
        ];
        for (text, wanted) in cases {
            for size in [1, 2, 3, 7, text.len()] {
                assert_eq!(read(text.as_bytes(), size).0, wanted, "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_told_apart_and_never_taken_for_one() {
        let cases = [
            ("", BadAnswer::Nothing),
            ("HTTP/1.1 200 OK\r\nContent-", BadAnswer::BrokenOff),
            ("HTTP/1.1 100 Continue\r\n\r\n", BadAnswer::BrokenOff),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", BadAnswer::BrokenOff),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", BadAnswer::BrokenOff),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", BadAnswer::BrokenOff),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}}\r\n0\r\n\r\n", BadAnswer::Malformed),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n", BadAnswer::Malformed),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", BadAnswer::Malformed),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000001\r\n", BadAnswer::Malformed),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n;\r\n", BadAnswer::Malformed),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", BadAnswer::Malformed),
            ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}", BadAnswer::Malformed),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2,\r\n\r\n{}", BadAnswer::Malformed),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}", BadAnswer::Malformed),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BadAnswer::Coding),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                BadAnswer::Coding,
            ),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BadAnswer::Coding),
            ("HTTP/1.1 101 Switching\r\nupgrade: h2c\r\n\r\n", BadAnswer::Malformed),
            ("SSH-2.0-OpenSSH_9.2\r\n", BadAnswer::Malformed),
            ("HTTP/2 200\r\n\r\n", BadAnswer::Malformed),
        ];
        for (text, wanted) in cases {
            for size in [1, 5, text.len().max(1)] {
                assert_eq!(read(text.as_bytes(), size).0, Err(wanted), "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn what_the_other_side_can_make_us_keep_is_bounded() {
        let endless = |line: &str, times: usize| format!("HTTP/1.1 200 OK\r\n{}", line.repeat(times));
        let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(INTERIM_MAX as usize + 1);
        let chunked = |behind: String| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{behind}");
        let cases = [
            (endless(&format!("x: {}\r\n", "y".repeat(1_000)), 70), BadAnswer::HeadTooLarge),
            (format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX)), BadAnswer::HeadTooLarge),
            (endless("x: y\r\n", HEADERS_MAX + 1) + "\r\n", BadAnswer::HeadTooLarge),
            (interim, BadAnswer::Malformed),
            (chunked(format!("1;{}\r\n", "x".repeat(LINE_BYTES_MAX))), BadAnswer::Malformed),
            (chunked(format!("0\r\n{}", "x: y\r\n".repeat(TRAILER_BYTES_MAX))), BadAnswer::Malformed),
        ];
        for (text, wanted) in cases {
            for size in [700, text.len()] {
                assert_eq!(read(text.as_bytes(), size).0, Err(wanted), "{:.60} by {size}", text);
            }
        }
    }

    #[test]
    fn the_headers_that_count_are_read_and_what_follows_an_answer_ends_the_connection() {
        let text = "HTTP/1.1 429 Slow\r\nX-AMZN-ErrorType: E:http://x/\r\nRetry-After: 7\r\nretry-after: 8\r\n\
                    x-amz-function-error: Unhandled\r\nContent-Length: 0\r\n\r\nmore";
        let (answer, left) = read(text.as_bytes(), text.len());
        let head = AnswerHead {
            status: 429,
            function_error: true,
            error_type: Some("E:http://x/".into()),
            retry_after: Some("7".into()),
        };
        assert_eq!((answer, left), (Ok(Answer { head, body: Some(Bytes::new()), reusable: false }), 4));
        let odd = b"HTTP/1.1 400 No\r\nx-amzn-errortype: \xff\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read(odd, odd.len()).0.unwrap().head.error_type, None);
    }

    proptest! {
        #[test]
        fn any_bytes_amount_to_the_same_in_any_pieces(
            start in prop_oneof![
                Just("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
                Just("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
                Just("HTTP/1.1 200 OK\r\n"),
                Just(""),
            ],
            rest in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'2')], 0..60),
            size in 1_usize..20,
        ) {
            let bytes = [start.as_bytes(), &rest].concat();
            let (at_once, _) = read(&bytes, bytes.len().max(1));
            let (in_pieces, _) = read(&bytes, size);
            match (at_once, in_pieces) {
                // What stands behind an answer is seen only if it came with it.
                (Ok(a), Ok(b)) => prop_assert_eq!((a.head, a.body), (b.head, b.body)),
                // A head that cannot be read and does not end either is told when the connection ends, if not before.
                (a, b) => prop_assert!(a.is_err() && b.is_err(), "{a:?} and {b:?}"),
            }
        }
    }
}
