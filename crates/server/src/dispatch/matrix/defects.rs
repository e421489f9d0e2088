//! The columns of the matrix: what can be wrong with a request that is right in all else.

use super::drafts::{Draft, Forged, Keys, Sent, chunked, flipped};
use super::rows::{Room, Row};
use super::world::World;

/// What the oracle may find in a refusal.
#[derive(Debug, Clone, Copy)]
pub enum Wanted {
    /// One of these codes.
    Codes(&'static [&'static str]),
    /// Some refusal: it depends on the room what the request is taken for.
    Refused,
}

/// How the right request looks, of which a defect is one step away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Control {
    /// Signed in a header, by who has exactly the right.
    Header,
    Presigned,
    /// By a role's session.
    Session,
    /// By a session that began in the same way as the expired one.
    Lasting,
    SignedChunks,
    SignedTrailer,
    /// By who has the right on a condition that holds, within a boundary that allows it, in a session that allows it.
    Conditioned,
    Bounded,
    Widened,
}

pub struct Defect {
    pub name: &'static str,
    pub control: Control,
    pub wanted: Wanted,
    /// Makes the request out of the right one, which is not signed yet; `None` where there is no such request.
    pub make: fn(&World, &Row, Draft) -> Option<Sent>,
}

impl Defect {
    /// Whether the caller is known, and only may not: what is answered depends on the operation, and is held against the twin's. Of
    /// those that are found before there is an operation, two stand for all.
    pub fn is_told_apart(&self) -> bool {
        self.is_of_rights() || matches!(self.name, "no authorization" | "another secret")
    }

    pub fn is_of_rights(&self) -> bool {
        matches!(self.wanted, Wanted::Codes(codes) if codes == DENIED_CODES)
    }
}

const DENIED_CODES: &[&str] = &["AccessDenied", "AccessDeniedException"];
const SIGNATURE: Wanted = Wanted::Codes(&["SignatureDoesNotMatch", "InvalidSignatureException"]);
const MISSING: Wanted = Wanted::Codes(&["AccessDenied", "MissingAuthenticationTokenException"]);
const FORM: Wanted = Wanted::Codes(&[
    "AuthorizationHeaderMalformed",
    "AuthorizationQueryParametersError",
    "IncompleteSignatureException",
    "InvalidArgument",
    "InvalidRequest",
]);
const KEY: Wanted = Wanted::Codes(&["InvalidAccessKeyId", "UnrecognizedClientException"]);
const TOKEN: Wanted = Wanted::Codes(&["InvalidToken", "InvalidAccessKeyId", "UnrecognizedClientException"]);
const DENIED: Wanted = Wanted::Codes(DENIED_CODES);
const UNSIGNED: Wanted = Wanted::Codes(&["AccessDenied", "InvalidSignatureException"]);
const TIME: Wanted = Wanted::Codes(&["RequestTimeTooSkewed", "InvalidSignatureException"]);
const DATE: Wanted = Wanted::Codes(&["AccessDenied", "IncompleteSignatureException"]);
const SCOPE: Wanted = Wanted::Codes(&["AuthorizationHeaderMalformed", "InvalidSignatureException"]);
const EXPIRED: Wanted = Wanted::Codes(&["AccessDenied", "InvalidSignatureException"]);
const PAYLOAD: Wanted = Wanted::Codes(&[
    "AccessDenied",
    "InvalidArgument",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "XAmzContentSHA256Mismatch",
    "SignatureDoesNotMatch",
]);

/// A change of the request that was signed.
fn after(draft: Draft, change: impl FnOnce(&mut Sent)) -> Option<Sent> {
    let mut sent = draft.signed();
    change(&mut sent);
    Some(sent)
}

/// A change of the request before it is signed.
fn before(mut draft: Draft, change: impl FnOnce(&mut Draft)) -> Option<Sent> {
    change(&mut draft);
    Some(draft.signed())
}

fn signed_names(sent: &mut Sent, change: impl FnOnce(&str) -> String) {
    sent.authorization(|value| {
        let (head, rest) = value.split_once("SignedHeaders=").unwrap();
        let (names, tail) = rest.split_once(", ").unwrap();
        format!("{head}SignedHeaders={}, {tail}", change(names))
    });
}

fn signature(sent: &mut Sent, change: impl FnOnce(&str) -> String) {
    sent.authorization(|value| {
        let (head, signature) = value.split_once("Signature=").unwrap();
        format!("{head}Signature={}", change(signature))
    });
}

/// Another path in front of the same query.
fn path(sent: &mut Sent, change: impl FnOnce(&str) -> String) {
    let (path, query) = match sent.target.split_once('?') {
        Some((path, query)) => (path.to_owned(), format!("?{query}")),
        None => (sent.target.clone(), String::new()),
    };
    sent.target = change(&path) + &query;
}

fn query(sent: &mut Sent, pair: &str) {
    sent.target.push(if sent.target.contains('?') { '&' } else { '?' });
    sent.target.push_str(pair);
}

fn takes_a_body(row: &Row) -> bool {
    row.room == Room::S3 && !row.body.is_empty()
}

/// By a caller without rights, with a header that somebody might believe.
fn believed(world: &World, draft: Draft, name: &str, value: &str) -> Option<Sent> {
    after(draft.with(world.keys("nobody")), |sent| sent.set(name, value))
}

fn as_user(world: &World, row: &Row, draft: Draft, user: &str) -> Option<Sent> {
    (!row.asks.is_empty()).then(|| draft.with(world.keys(user)).signed())
}

macro_rules! defects {
    ($($name:literal, $control:ident, $wanted:expr, $make:expr;)*) => {
        vec![$(Defect { name: $name, control: Control::$control, wanted: $wanted, make: $make }),*]
    };
}

pub fn all() -> Vec<Defect> {
    use Wanted::Refused;
    defects! {
        // No authentication, or one that is none.
        "no authorization", Header, MISSING, |_, _, draft| after(draft, |sent| sent.without("authorization"));
        "an empty authorization", Header, FORM, |_, _, draft| after(draft, |sent| sent.set("authorization", ""));
        "a garbled authorization", Header, FORM, |_, _, draft| after(draft, |sent| sent.set("authorization", "AWS4-HMAC-SHA256 garbage"));
        "an authorization without its signature", Header, FORM, |_, _, draft| after(draft, |sent| sent.authorization(|value| value.split_once(", Signature").unwrap().0.into()));
        "two authorizations", Header, FORM, |_, _, draft| after(draft, |sent| {
            let same = sent.header("authorization").unwrap().clone();
            sent.headers.push(("authorization".into(), same));
        });
        "two signatures in one authorization", Header, FORM, |_, _, draft| after(draft, |sent| sent.authorization(|value| format!("{value}, Signature={}", "0".repeat(64))));
        "Bearer", Header, FORM, |_, _, draft| after(draft, |sent| sent.set("authorization", "Bearer e30.e30.e30"));
        "Basic", Header, FORM, |_, _, draft| after(draft, |sent| sent.set("authorization", "Basic cm9vdDpyb290"));
        "none", Header, FORM, |_, _, draft| after(draft, |sent| sent.set("authorization", "none"));
        "signature version 2", Header, FORM, |_, _, draft| {
            let id = draft.keys.id.clone();
            after(draft, |sent| sent.set("authorization", &format!("AWS {id}:frJIUN8DYpKDtOLCwo//yllqDzg=")))
        };
        "signature version 4A", Header, FORM, |_, _, draft| after(draft, |sent| sent.authorization(|value| value.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")));
        "signature version 2 in the query", Header, FORM, |_, _, draft| {
            let id = draft.keys.id.clone();
            after(draft, |sent| {
                sent.without("authorization");
                query(sent, &format!("AWSAccessKeyId={id}&Expires=4000000000&Signature=AAAA"));
            })
        };
        "the algorithm in small letters", Header, FORM, |_, _, draft| after(draft, |sent| sent.authorization(|value| value.replace("AWS4-HMAC", "aws4-hmac")));

        // Another key.
        "a key that there is not", Header, KEY, |_, _, draft| before(draft, |draft| draft.keys.id = "AKIAIOSFODNN7EXAMPLE".into());
        "another secret", Header, SIGNATURE, |_, _, draft| before(draft, |draft| draft.keys.secret.push('x'));
        "no secret", Header, SIGNATURE, |_, _, draft| before(draft, |draft| draft.keys.secret.clear());
        "another user's secret", Header, SIGNATURE, |world, _, draft| before(draft, |draft| draft.keys.secret = world.keys("nobody").secret.clone());
        "an inactive key", Header, KEY, |world, _, draft| Some(draft.with(world.keys("inactive")).signed());
        "a deleted user's key", Header, KEY, |world, _, draft| Some(draft.with(world.keys("deleted")).signed());
        "the key's name in small letters", Header, KEY, |_, _, draft| before(draft, |draft| draft.keys.id = draft.keys.id.to_lowercase());
        "a flipped bit", Header, SIGNATURE, |_, _, draft| after(draft, |sent| signature(sent, flipped));
        "a signature in capital letters", Header, SIGNATURE, |_, _, draft| after(draft, |sent| signature(sent, |signature| signature.to_uppercase() + if signature.bytes().any(|b| b.is_ascii_lowercase()) { "" } else { "A" }));
        "a signature that is cut off", Header, SIGNATURE, |_, _, draft| after(draft, |sent| signature(sent, |signature| signature[..63].into()));
        "a signature that goes on", Header, SIGNATURE, |_, _, draft| after(draft, |sent| signature(sent, |signature| format!("{signature}0")));

        // A right signature of something else.
        "another method's signature", Header, SIGNATURE, |_, _, draft| {
            let method = if draft.method == "PATCH" { "POST" } else { "PATCH" };
            let sent_with = draft.method.clone();
            before(draft, |draft| draft.method = method.into()).map(|sent| Sent { method: sent_with, ..sent })
        };
        "another path's signature", Header, SIGNATURE, |_, _, draft| {
            let target = draft.target.clone();
            before(draft, |draft| draft.target = "/another".into()).map(|sent| Sent { target, ..sent })
        };
        "a letter of the path encoded", Header, SIGNATURE, |_, row, draft| (row.target.len() > 2 && row.room != Room::Control && row.room != Room::Own).then_some(())
            .and_then(|()| after(draft, |sent| path(sent, |path| {
                let (head, last) = path.split_at(path.len() - 1);
                format!("{head}%{:02X}", last.as_bytes()[0])
            })));
        "an unsigned parameter", Header, SIGNATURE, |_, _, draft| after(draft, |sent| query(sent, "x-id=Anything"));
        "another value of a parameter", Header, SIGNATURE, |_, _, mut draft| {
            draft.target.push_str(if draft.target.contains('?') { "&zz=1" } else { "?zz=1" });
            after(draft, |sent| sent.target = sent.target.replace("zz=1", "zz=2"))
        };
        "another host's signature", Header, SIGNATURE, |_, _, draft| {
            let host = draft.headers.iter().find(|(name, _)| name == "host").unwrap().1.clone();
            before(draft, |draft| draft.header("host", "localhost:7300")).map(|mut sent| {
                sent.set("host", &host);
                sent
            })
        };
        "another date's signature", Header, SIGNATURE, |_, _, draft| {
            let at = draft.at;
            after(draft, |sent| sent.set("x-amz-date", &super::drafts::basic(at - 1)))
        };
        "another region", Header, SCOPE, |_, _, draft| before(draft, |draft| draft.region = "eu-west-9".into());
        "another service", Header, Refused, |_, _, draft| before(draft, |draft| draft.service = "ec2".into());
        "a service of another of our rooms", Header, Refused, |_, row, draft| before(draft, |draft| {
            draft.service = match row.room {
                Room::S3 => "iam",
                Room::Lambda | Room::Control | Room::Own => "sts",
                Room::Identity => "s3",
            }.into();
        });
        "another body", Header, PAYLOAD, |_, row, draft| {
            // A body that the operation does not take is not read.
            let read = row.room != Room::S3 || takes_a_body(row);
            read.then(|| after(draft, |sent| {
                match sent.body.last_mut() {
                    Some(last) => *last ^= 1,
                    None => sent.body.push(b'x'),
                }
            })).flatten()
        };
        "another hash of the body", Header, PAYLOAD, |_, row, mut draft| {
            let read = row.room != Room::S3 || takes_a_body(row);
            draft.payload = Some("0".repeat(64));
            read.then(|| draft.signed())
        };
        "another account's header", Header, Wanted::Codes(&["SignatureDoesNotMatch"]), |_, row, draft| (row.room == Room::Control).then(|| after(draft, |sent| sent.set("x-amz-account-id", "111111111111"))).flatten();
        "another account", Header, DENIED, |_, row, draft| (row.room == Room::Control).then(|| before(draft, |draft| draft.header("x-amz-account-id", "111111111111"))).flatten();
        "another account's host", Header, Refused, |_, row, draft| (row.room == Room::Control).then(|| before(draft, |draft| draft.header("host", "111111111111.127.0.0.1:7300"))).flatten();

        // What is not signed.
        "an unsigned host", Header, UNSIGNED, |_, _, draft| before(draft, |draft| draft.unsigned.push("host".into()));
        "an unsigned date", Header, UNSIGNED, |_, _, draft| before(draft, |draft| draft.unsigned.push("x-amz-date".into()));
        "an unsigned header of Amazon's", Header, UNSIGNED, |_, _, draft| after(draft, |sent| sent.set("x-amz-meta-added", "v"));
        "an unsigned session token", Header, UNSIGNED, |world, _, draft| after(draft, |sent| sent.set("x-amz-security-token", world.keys("session").token.as_deref().unwrap()));
        "a signed header of Amazon's that comes once more", Header, Refused, |_, _, mut draft| {
            draft.header("x-amz-meta-twice", "a");
            after(draft, |sent| sent.headers.push(("x-amz-meta-twice".into(), "b".into())))
        };
        "a signed header that is not there", Header, Wanted::Codes(&["AccessDenied", "InvalidSignatureException", "SignatureDoesNotMatch"]), |_, _, draft| after(draft, |sent| signed_names(sent, |names| format!("{names};zz-absent")));
        "a signed header named twice", Header, FORM, |_, _, draft| after(draft, |sent| signed_names(sent, |names| names.replace("host", "host;host")));
        "a signed header in capital letters", Header, FORM, |_, _, draft| after(draft, |sent| signed_names(sent, |names| names.replace("host", "Host")));
        "signed headers in another order", Header, FORM, |_, _, draft| after(draft, |sent| signed_names(sent, |names| names.split(';').rev().collect::<Vec<_>>().join(";")));
        "no signed headers", Header, Refused, |_, _, draft| after(draft, |sent| signed_names(sent, |_| String::new()));

        // Time.
        "sixteen minutes ago", Header, TIME, |_, _, draft| before(draft, |draft| draft.at -= 16 * 60);
        "in sixteen minutes", Header, TIME, |_, _, draft| before(draft, |draft| draft.at += 16 * 60);
        "a year ago", Header, TIME, |_, _, draft| before(draft, |draft| draft.at -= 365 * 86_400);
        "no date", Header, Wanted::Codes(&["AccessDenied", "IncompleteSignatureException", "InvalidSignatureException"]), |_, _, draft| after(draft, |sent| sent.without("x-amz-date"));
        "a date that is none", Header, DATE, |_, _, draft| after(draft, |sent| sent.set("x-amz-date", "2026-13-41T99:99:99Z"));
        "another date in the scope", Header, SCOPE, |_, _, draft| before(draft, |draft| draft.scope_date = Some("20200101".into()));
        "another end of the scope", Header, FORM, |_, _, draft| after(draft, |sent| sent.authorization(|value| value.replace("aws4_request", "aws5_request")));

        // The body's form.
        "an unsigned body in the clear", Header, PAYLOAD, |_, _, draft| before(draft, |draft| draft.payload = Some("UNSIGNED-PAYLOAD".into()));
        "a hash that is none", Header, PAYLOAD, |_, _, draft| before(draft, |draft| draft.payload = Some("anything".into()));
        "chunks that are not signed, in the clear", Header, PAYLOAD, |_, row, draft| takes_a_body(row).then(|| before(draft, |draft| {
            let body = draft.body.clone();
            draft.header("x-amz-decoded-content-length", &body.len().to_string());
            draft.headers.retain(|(name, _)| name != "content-length");
            draft.payload = Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER".into());
            draft.body = format!("{:x}\r\n", body.len()).into_bytes();
            draft.body.extend_from_slice(&body);
            draft.body.extend_from_slice(b"\r\n0\r\n\r\n");
        })).flatten();
        "chunks of signature version 4A", Header, PAYLOAD, |_, _, draft| before(draft, |draft| draft.payload = Some("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD".into()));
        "chunks of signature version 4A with a trailer", Header, PAYLOAD, |_, _, draft| before(draft, |draft| draft.payload = Some("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER".into()));
        "chunks where none are taken", Header, PAYLOAD, |_, row, draft| (row.room != Room::S3).then(|| before(draft, |draft| draft.payload = Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD".into()))).flatten();
        "a forged seed of chunks", SignedChunks, PAYLOAD, |_, row, draft| takes_a_body(row).then(|| chunked(draft, false, Forged::Seed));
        "forged data of a chunk", SignedChunks, PAYLOAD, |_, row, draft| takes_a_body(row).then(|| chunked(draft, false, Forged::Data));
        "a forged signature of a chunk", SignedChunks, PAYLOAD, |_, row, draft| takes_a_body(row).then(|| chunked(draft, false, Forged::Chunk));
        "a forged signature of the last chunk", SignedChunks, PAYLOAD, |_, row, draft| takes_a_body(row).then(|| chunked(draft, false, Forged::LastChunk));
        "a forged seed before a trailer", SignedTrailer, PAYLOAD, |_, row, draft| takes_a_body(row).then(|| chunked(draft, true, Forged::Seed));
        "forged data before a trailer", SignedTrailer, PAYLOAD, |_, row, draft| takes_a_body(row).then(|| chunked(draft, true, Forged::Data));
        "a forged signature of a trailer", SignedTrailer, PAYLOAD, |_, row, draft| takes_a_body(row).then(|| chunked(draft, true, Forged::Trailer));

        // Presigned.
        "two authentications", Header, FORM, |_, _, draft| {
            let query_only = draft.clone().presigned("600");
            let target = query_only.target;
            after(draft, |sent| sent.target = target)
        };
        "a link that has expired", Presigned, EXPIRED, |_, _, mut draft| {
            draft.at -= 120;
            Some(draft.presigned("60"))
        };
        "a link for eight days", Presigned, FORM, |_, _, draft| Some(draft.presigned("691200"));
        "a link for less than no time", Presigned, FORM, |_, _, draft| Some(draft.presigned("-1"));
        "a link for no time", Presigned, FORM, |_, _, draft| Some(draft.presigned("0"));
        "a link for a time that is none", Presigned, FORM, |_, _, draft| Some(draft.presigned("soon"));
        "a link from the future", Presigned, EXPIRED, |_, _, mut draft| {
            draft.at += 16 * 60;
            Some(draft.presigned("600"))
        };
        "a link made longer", Presigned, SIGNATURE, |_, _, draft| {
            let mut sent = draft.presigned("600");
            sent.target = sent.target.replace("X-Amz-Expires=600", "X-Amz-Expires=6000");
            Some(sent)
        };
        "a link with another secret", Presigned, SIGNATURE, |_, _, mut draft| {
            draft.keys.secret.push('x');
            Some(draft.presigned("600"))
        };
        "a link for another method", Presigned, SIGNATURE, |_, _, mut draft| {
            let method = std::mem::replace(&mut draft.method, "PATCH".into());
            Some(Sent { method, ..draft.presigned("600") })
        };
        "a link with an unsigned parameter", Presigned, SIGNATURE, |_, _, draft| {
            let mut sent = draft.presigned("600");
            query(&mut sent, "versionId=null");
            Some(sent)
        };
        "a link with two signatures", Presigned, FORM, |_, _, draft| {
            let mut sent = draft.presigned("600");
            query(&mut sent, &format!("X-Amz-Signature={}", "0".repeat(64)));
            Some(sent)
        };
        "a link that does not sign the host", Presigned, UNSIGNED, |_, _, mut draft| {
            draft.header("zz-other", "v");
            draft.unsigned.push("host".into());
            Some(draft.presigned("600"))
        };
        "a link with an unsigned header of Amazon's", Presigned, UNSIGNED, |_, _, draft| {
            let mut sent = draft.presigned("600");
            sent.set("x-amz-meta-added", "v");
            Some(sent)
        };

        // Sessions.
        "a session without its token", Session, TOKEN, |world, _, draft| Some(draft.with(&Keys { token: None, ..world.keys("session").clone() }).signed());
        "a session with another's token", Session, TOKEN, |world, _, draft| Some(draft.with(&Keys { token: world.keys("session-2").token.clone(), ..world.keys("session").clone() }).signed());
        "a session with a token that is none", Session, TOKEN, |world, _, draft| Some(draft.with(&Keys { token: Some("anything".into()), ..world.keys("session").clone() }).signed());
        "a session with a token that is cut off", Session, TOKEN, |world, _, draft| {
            let keys = world.keys("session").clone();
            let token = keys.token.as_ref().map(|token| token[..token.len() - 4].to_owned());
            Some(draft.with(&Keys { token, ..keys }).signed())
        };
        "a lasting key with a token", Session, TOKEN, |world, _, draft| Some(draft.clone().with(&Keys { token: world.keys("session").token.clone(), ..draft.keys.clone() }).signed());
        "a session that has expired", Lasting, Wanted::Codes(&["ExpiredToken", "ExpiredTokenException"]), |world, _, draft| Some(draft.with(world.keys("expired")).signed());
        "a session of a role that is gone", Session, TOKEN, |world, _, draft| Some(draft.with(world.keys("vanished")).signed());

        // Paths that were not signed so.
        "an empty segment", Header, SIGNATURE, |_, _, draft| after(draft, |sent| path(sent, |path| format!("/{path}")));
        "a dot segment", Header, SIGNATURE, |_, _, draft| after(draft, |sent| path(sent, |path| {
            let (head, last) = path.rsplit_once('/').unwrap();
            format!("{head}/./{last}")
        }));
        "an encoded dot segment", Header, SIGNATURE, |_, _, draft| after(draft, |sent| path(sent, |path| format!("/%2e%2e{path}")));
        "two dots behind", Header, SIGNATURE, |_, _, draft| after(draft, |sent| path(sent, |path| format!("{path}/x/..")));
        "a semicolon", Header, SIGNATURE, |_, _, draft| after(draft, |sent| path(sent, |path| format!("{path};x=y")));
        "a backslash", Header, SIGNATURE, |_, _, draft| after(draft, |sent| path(sent, |path| format!("{path}%5C..%5C")));
        "a null", Header, SIGNATURE, |_, _, draft| after(draft, |sent| path(sent, |path| format!("{path}%00")));

        // Methods.
        "HEAD for its method", Header, Refused, |_, row, draft| (row.method != "HEAD").then(|| after(draft, |sent| sent.method = "HEAD".into())).flatten();
        "GET for its method", Header, SIGNATURE, |_, row, draft| (row.method != "GET").then(|| after(draft, |sent| sent.method = "GET".into())).flatten();
        "OPTIONS for its method", Header, SIGNATURE, |_, _, draft| after(draft, |sent| sent.method = "OPTIONS".into());
        "signed OPTIONS", Header, Refused, |_, _, draft| before(draft, |draft| draft.method = "OPTIONS".into());
        "signed TRACE", Header, Refused, |_, _, draft| before(draft, |draft| draft.method = "TRACE".into());
        "an unsigned CORS preflight", Header, Refused, |_, _, draft| after(draft, |sent| {
            let method = std::mem::replace(&mut sent.method, "OPTIONS".into());
            sent.without("authorization");
            sent.set("origin", "https://example.com");
            sent.set("access-control-request-method", &method);
        });

        // What a header says of the request.
        "X-HTTP-Method-Override", Header, DENIED, |world, row, draft| (!row.asks.is_empty()).then(|| believed(world, draft, "x-http-method-override", "GET")).flatten();
        "X-Original-URL", Header, DENIED, |world, row, draft| (!row.asks.is_empty()).then(|| believed(world, draft, "x-original-url", "/_longshore/health")).flatten();
        "X-Rewrite-URL", Header, DENIED, |world, row, draft| (!row.asks.is_empty()).then(|| believed(world, draft, "x-rewrite-url", "/_longshore/health")).flatten();
        "X-Forwarded-Host", Header, DENIED, |world, row, draft| (!row.asks.is_empty()).then(|| believed(world, draft, "x-forwarded-host", "localhost")).flatten();
        "X-Forwarded-For an address that is allowed", Conditioned, DENIED, |world, row, draft| {
            as_user(world, row, draft, "conditioned").map(|mut sent| {
                sent.set("x-forwarded-for", "192.0.2.1");
                sent.set("forwarded", "for=192.0.2.1;proto=https");
                sent.set("x-real-ip", "192.0.2.1");
                sent
            })
        };

        // Rights. Those that differ by row are in the policies of their users.
        "no policy", Header, DENIED, |world, row, draft| as_user(world, row, draft, "nobody");
        "the action denied outright", Header, DENIED, |world, row, draft| as_user(world, row, draft, "denied");
        "the action allowed elsewhere", Header, DENIED, |world, row, draft| as_user(world, row, draft, "elsewhere");
        "a condition that does not hold", Conditioned, DENIED, |world, row, draft| as_user(world, row, draft, "conditioned");
        "a boundary without it", Bounded, DENIED, |world, row, draft| as_user(world, row, draft, "bounded");
        "a session policy without it", Widened, DENIED, |world, row, draft| as_user(world, row, draft, "narrowed");
        "no policy, by a link", Presigned, DENIED, |world, row, draft| (!row.asks.is_empty()).then(|| draft.with(world.keys("nobody")).presigned("600"));
    }
}

/// The right request in this form.
pub fn right(world: &World, row: &Row, draft: Draft, control: Control) -> Sent {
    let as_user = |name: &str| draft.with(world.keys(name)).signed();
    let _ = row;
    match control {
        Control::Header => draft.signed(),
        Control::Presigned => draft.presigned("600"),
        Control::Session => as_user("session"),
        Control::Lasting => as_user("lasting"),
        Control::SignedChunks => chunked(draft, false, Forged::Nowhere),
        Control::SignedTrailer => chunked(draft, true, Forged::Nowhere),
        Control::Conditioned => as_user("conditioned-well"),
        Control::Bounded => as_user("bounded-well"),
        Control::Widened => as_user("widened"),
    }
}
