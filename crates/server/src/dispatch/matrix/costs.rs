//! What requests may cost before it is known whose they are: whoever has a key's ID, and no secret, is in nobody's way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use longshore_core::policy::{Decision, Principal};
use longshore_wire::Asked;
use longshore_wire::caller::{About, Refused, Witness};

use super::drafts::{Draft, Sent, draft, flipped};
use super::rows;
use super::world::{Answered, World};
use crate::listener::RequestBody;

/// Whom it was told that they were not let in: key, address, service, why.
#[derive(Default)]
struct NotLetIn(Mutex<Vec<String>>);

impl Witness for NotLetIn {
    fn decided(&self, _: &Principal, _: &Asked, _: &Decision, _: &About<'_>) {}

    fn refused(&self, refused: &Refused<'_>) {
        let ip = refused.source_ip.unwrap();
        let (id, service) = (refused.access_key_id.unwrap_or("-"), refused.service.unwrap_or("-"));
        self.0.lock().unwrap().push(format!("{id} {ip} {service}: {}", refused.why));
    }
}

/// Of the largest package.
const LENGTH: &str = "70000000";

/// One that stands in the place of a key's ID. Of those with a slash nothing reads at all.
const SECRET: &str = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00";

/// A CreateFunction with a body of 70 MB, of which `first` comes, and nothing more.
async fn trickling(world: &World, mut sent: Sent, first: Vec<u8>) -> Answered {
    sent.body = Vec::new();
    sent.set("content-length", LENGTH);
    let pieces = futures::stream::iter([Ok(Frame::data(first.into()))]).chain(futures::stream::pending());
    let body = RequestBody::in_pieces(StreamBody::new(pieces).boxed_unsync());
    world.send_with(&sent, body).await.unwrap()
}

fn create_function(world: &World) -> Draft {
    let row = rows::all().into_iter().find(|row| row.name == "CreateFunction").unwrap();
    let mut draft = draft(&row.method, &row.target, row.service, world.keys("all"));
    draft.body = world.fill_in(&row.body, super::Which::Here, row.twin).into_bytes();
    draft
}

/// A small request of a client that names no hash is served.
async fn publishes(world: &World) {
    let mut draft = draft("POST", "/2015-03-31/functions/f-here/versions", "lambda", world.keys("all"));
    draft.body = b"{}".to_vec();
    let answered = world.send(&draft.signed_without_hash()).await.unwrap();
    assert_eq!(answered.status, 201, "{answered:?}");
}

/// With a signature that is not the secret's.
fn forged(mut sent: Sent) -> Sent {
    let right = sent.seed.signature.clone();
    sent.authorization(|value| value.replace(&right, &flipped(&right)));
    sent
}

#[tokio::test(start_paused = true)]
async fn a_body_is_not_read_whose_signature_can_be_refused_before() {
    let world = World::new().await;
    let mut unsigned = create_function(&world);
    unsigned.payload = Some("UNSIGNED-PAYLOAD".into());
    for (sent, code) in [
        (forged(create_function(&world).signed()), "InvalidSignatureException"),
        (forged(unsigned.clone().signed()), "InvalidSignatureException"),
        (unsigned.signed(), "InvalidSignatureException"),
    ] {
        let packages = world.bodies().room(u64::MAX, true).clone();
        let free = packages.free();
        let answered = trickling(&world, sent, vec![b' '; 1 << 20]).await;
        assert_eq!((answered.status, &*answered.code), (403, code));
        assert_eq!(packages.free(), free);
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_nobody_can_vouch_for_leave_room_for_those_of_who_has_a_secret() {
    // Of which packages have 28 MiB, and those that nobody can vouch for 21.
    let world = World::new().await.with_room(64 << 20);
    let unproven = world.bodies().room(u64::MAX, false).clone();
    let mut tricklers = FuturesUnordered::new();
    for number in 0..7 {
        let draft = create_function(&world);
        let sent = forged(if number < 4 { draft.signed_without_hash() } else { draft.signed() });
        tricklers.push(trickling(&world, sent, vec![b' '; 21 << 18]));
    }
    let mut refused = 0;
    while unproven.free() > 0 || refused < 3 {
        tokio::select! {
            biased;
            answered = tricklers.next() => {
                // Those that name a hash.
                assert_eq!(answered.unwrap().code, "InvalidSignatureException");
                refused += 1;
            }
            // What is left of a refused body is waited for, for some seconds.
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    // From here on nobody's time passes while the disk is waited for.
    tokio::time::resume();
    let valid = async {
        let answered = world.send(&create_function(&world).signed()).await.unwrap();
        assert_eq!(answered.status, 201, "{answered:?}");
        publishes(&world).await;
    };
    tokio::select! {
        answered = tricklers.next() => panic!("{answered:?}"),
        () = valid => {}
    }
}

#[tokio::test(start_paused = true)]
async fn who_fills_the_room_for_packages_keeps_nobody_from_taking_the_key_away() {
    let world = World::new().await.with_room(64 << 20);
    let packages = world.bodies().room(u64::MAX, true).clone();
    let mut tricklers = FuturesUnordered::new();
    for _ in 0..4 {
        // With a right signature, of a key that may do nothing.
        let mut draft = create_function(&world);
        draft.keys = world.keys("nobody").clone();
        tricklers.push(trickling(&world, draft.signed(), vec![b' '; 7 << 20]));
    }
    while packages.free() > 0 {
        tokio::select! {
            biased;
            answered = tricklers.next() => panic!("{answered:?}"),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    tokio::time::resume();
    let valid = async {
        let mut of_iam = draft("POST", "/", "iam", world.keys("all"));
        of_iam.body = b"Action=ListUsers&Version=2010-05-08".to_vec();
        let answered = world.send(&of_iam.signed_without_hash()).await.unwrap();
        assert_eq!(answered.status, 200, "{answered:?}");
        publishes(&world).await;
    };
    tokio::select! {
        answered = tricklers.next() => panic!("{answered:?}"),
        () = valid => {}
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_or_breaks_off_is_told_in_the_words_of_its_api() {
    let world = World::new().await;
    for (target, service, codes) in [
        ("/", "iam", ["RequestEntityTooLarge", "MalformedInput"]),
        ("/v20180820/jobs", "s3", ["MaxMessageLengthExceeded", "IncompleteBody"]),
        ("/2015-03-31/functions", "lambda", ["RequestEntityTooLargeException", "InvalidRequestContentException"]),
    ] {
        let right = draft("POST", target, service, world.keys("all")).signed();
        let mut large = right.clone();
        large.set("content-length", "80000000");
        let answered = world.send(&large).await.unwrap();
        assert_eq!(answered.code, codes[0], "{answered:?}");
        let pieces = futures::stream::iter([Err("gone".into())]);
        let broken = RequestBody::in_pieces(StreamBody::new(pieces).boxed_unsync());
        let answered = world.send_with(&right, broken).await.unwrap();
        assert_eq!((answered.status, &*answered.code), (400, codes[1]), "{answered:?}");
        assert_eq!(answered.body.contains("ErrorResponse"), service != "lambda", "{answered:?}");
    }
}

#[tokio::test]
async fn who_is_not_let_in_is_written_down_with_the_true_reason() {
    let seen = Arc::new(NotLetIn::default());
    let world = World::new().await.guarded(seen.clone());
    let of = |name: &str| draft("GET", "/b-here/k-here", "s3", world.keys(name));
    let mut garbled = of("session");
    garbled.keys.token = Some(format!("{}x", garbled.keys.token.unwrap()));
    let mut tokenless = of("session");
    tokenless.keys.token = None;
    let mut with_token = of("all");
    with_token.keys.token = Some("t".into());
    let mut secret = of("all");
    secret.keys.id = SECRET.into();
    let mut unknown = of("all");
    unknown.keys.id = "AKIAIOSFODNN7EXAMPLE".into();
    let mut skewed = of("all");
    skewed.at -= 3_600;
    let mut of_iam = draft("POST", "/", "iam", world.keys("inactive"));
    of_iam.body = b"Action=ListUsers".to_vec();
    let mut anonymous = of("all").signed();
    anonymous.without("authorization");
    let mut wanted = Vec::new();
    for (id, service, sent, why) in [
        ("inactive", "s3", of("inactive").signed(), "the key is inactive"),
        ("inactive", "iam", of_iam.signed(), "the key is inactive"),
        ("deleted", "s3", of("deleted").signed(), "there is no such key"),
        ("AKIAIOSFODNN7EXAMPLE", "s3", unknown.signed(), "there is no such key"),
        ("session", "s3", garbled.signed(), "the session token does not fit the key"),
        ("session", "s3", tokenless.signed(), "the key is of a session, and there is no session token"),
        ("vanished", "s3", of("vanished").signed(), "the session has ended, or whose it was is gone"),
        ("expired", "s3", of("expired").signed(), "the session has expired"),
        ("all", "s3", with_token.signed(), "the session token is missing, superfluous or another's"),
        ("all", "s3", forged(of("all").signed()), "the signature does not match"),
        ("all", "s3", skewed.signed(), "the request's time is too far from ours"),
        ("-", "s3", secret.signed(), "there is no such key"),
        ("all", "s3", anonymous, ""),
        ("all", "s3", of("all").signed(), ""),
    ] {
        world.send(&sent).await.unwrap();
        if !why.is_empty() {
            let id = if id.len() > 10 || id == "-" { id } else { &world.keys(id).id };
            wanted.push(format!("{id} 198.51.100.7 {service}: {why}"));
        }
    }
    let seen = seen.0.lock().unwrap();
    assert!(!seen.iter().any(|line| line.contains(SECRET)));
    assert_eq!(*seen, wanted);
}

#[tokio::test(start_paused = true)]
async fn who_fails_all_the_time_is_told_late_and_hung_up_on_and_who_has_the_secret_is_served_at_once() {
    let world = World::new().await.guarded(Arc::new(NotLetIn::default()));
    let right = draft("GET", "/b-here/k-here", "s3", world.keys("all")).signed();
    let of_lambda = draft("GET", "/2015-03-31/functions", "lambda", world.keys("all"));
    // Of a service that there is not here, too: that would be told to who has the secret.
    let of_nothing = draft("GET", "/", "logs", world.keys("all"));
    let of_nothing = [forged(of_nothing.clone().signed()), forged(of_nothing.signed_without_hash())];
    let [named, unnamed] = of_nothing;
    // Such a service has no words of its own: S3's are told, as for a service's name without a key.
    let wrong =
        [(forged(right.clone()), 403), (forged(of_lambda.signed_without_hash()), 403), (named, 400), (unnamed, 400)];
    let timed = async |sent: &Sent| {
        let began = tokio::time::Instant::now();
        let answered = world.send(sent).await.unwrap();
        (answered.status, began.elapsed() >= Duration::from_secs(2), answered.closed)
    };
    for number in 0..20 {
        let (wrong, status) = &wrong[number % 4];
        assert_eq!(timed(wrong).await, (*status, false, false), "{number}");
    }
    for (wrong, status) in &wrong {
        // Ten come back while one is told late.
        let mut told = (*status, false, false);
        for _ in 0..11 {
            if !told.1 {
                told = timed(wrong).await;
            }
        }
        assert_eq!(told, (*status, true, true));
        // Its own time says nothing: that passes while the disk is waited for.
        let (status, _, closed) = timed(&right).await;
        assert_eq!((status, closed), (200, false));
    }
}
