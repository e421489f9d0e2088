//! What requests may cost before it is known whose they are: whoever has a key's ID, and no secret, is in nobody's way.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::drafts::{Draft, Sent, draft, flipped};
use super::rows;
use super::world::{Answered, World};
use crate::listener::RequestBody;

/// Of the largest package.
const LENGTH: &str = "70000000";

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
        let free = world.bodies().proven.free();
        let answered = trickling(&world, sent, vec![b' '; 1 << 20]).await;
        assert_eq!((answered.status, &*answered.code), (403, code));
        assert_eq!(world.bodies().proven.free(), free);
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_nobody_can_vouch_for_leave_room_for_those_of_who_has_a_secret() {
    let world = World::new().await;
    let mut tricklers = FuturesUnordered::new();
    for number in 0..7 {
        let draft = create_function(&world);
        let sent = forged(if number < 4 { draft.signed_without_hash() } else { draft.signed() });
        tricklers.push(trickling(&world, sent, vec![b' '; 60 << 20]));
    }
    let mut refused = 0;
    while world.bodies().unproven.free() > 16 << 20 || refused < 3 {
        tokio::select! {
            biased;
            answered = tricklers.next() => {
                // Those that name a hash.
                assert_eq!(answered.unwrap().code, "InvalidSignatureException");
                refused += 1;
            }
            () = tokio::task::yield_now() => {}
        }
    }
    let valid = async {
        let answered = world.send(&create_function(&world).signed()).await.unwrap();
        assert_eq!(answered.status, 201, "{answered:?}");
        let mut other = draft("POST", "/2015-03-31/functions/f-here/versions", "lambda", world.keys("all"));
        other.body = b"{}".to_vec();
        let answered = world.send(&other.signed_without_hash()).await.unwrap();
        assert_eq!(answered.status, 201, "{answered:?}");
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
