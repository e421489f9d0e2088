//! The way of functions to S3, which has rules of its own: one key, that of the environment; a body may be unsigned; and the rights are
//! those of the execution role. What is wrong with a request is refused there as at the server's own port.

use std::collections::{BTreeMap, BTreeSet};

use longshore_functions::host::FunctionCredentials;
use longshore_store::Budget;

use super::defects::{self, Control, Wanted};
use super::drafts::{Draft, Keys, Sent, flipped};
use super::rows::{self, Room, Row};
use super::world::{ANYTHING, NOTHING, Which, World};
use super::{Findings, ROWS_OF_A_DEFECT, document, is_refused, of_row, statement};
use crate::access::LAMBDA_SERVICE;

/// Cells that there have to be at least.
const CELLS_MIN: usize = 1_000;

/// What is a defect at the server's own port and is served here.
const SERVED: [&str; 2] = ["an unsigned body in the clear", "chunks that are not signed, in the clear"];

/// Of defects that are about a key without a token, or about sessions of IAM: here the first have a token, which they would
/// replace, and the others are keys that there are not.
const NOT_HERE: [&str; 2] = ["an unsigned session token", "a session that has expired"];

const KEY: Wanted = Wanted::Codes(&["InvalidAccessKeyId"]);
const SIGNATURE: Wanted = Wanted::Codes(&["SignatureDoesNotMatch"]);
const TOKEN: Wanted = Wanted::Codes(&["InvalidToken"]);
const DENIED: Wanted = Wanted::Codes(&["AccessDenied"]);

/// What a role is called whose policies, or whose trust, are changed in no cell.
const NO_RIGHT: [&str; 5] = ["x-nothing", "x-denied", "x-elsewhere", "x-gone", "x-distrusted"];

/// The credentials of an environment. `number`: which one of its function.
fn credentials(role: &str, number: u8) -> FunctionCredentials {
    FunctionCredentials {
        access_key_id: format!("ASIAENVIRONMENT{number:05}"),
        secret_access_key: format!("secret-of-{role}-{number}"),
        session_token: format!("token-of-{role}-{number}"),
        function_name: "f-here".into(),
        role: format!("arn:aws:iam::{}:role/{role}", super::world::ACCOUNT),
        documents: Budget::new(1 << 23),
    }
}

fn keys(credentials: &FunctionCredentials) -> Keys {
    Keys {
        id: credentials.access_key_id.clone(),
        secret: credentials.secret_access_key.clone(),
        token: Some(credentials.session_token.clone()),
    }
}

async fn role(world: &World, name: &str, policy: &str) {
    let trust = serde_json::json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"Service": LAMBDA_SERVICE}, "Action": "sts:AssumeRole",
    }]});
    let members = [("RoleName", name), ("AssumeRolePolicyDocument", &trust.to_string())];
    world.identity("CreateRole", &members).await;
    may(world, name, policy).await;
}

async fn may(world: &World, role: &str, policy: &str) {
    let members = [("RoleName", role), ("PolicyName", "p"), ("PolicyDocument", policy)];
    world.identity("PutRolePolicy", &members).await;
}

/// What is wrong with the key: of a request of this environment, with what another environment of the same function has.
fn of_keys(world: &World, right: &Draft, own: &Keys, other: &Keys) -> Vec<(&'static str, Wanted, Sent)> {
    let user = world.keys("all");
    let with = |keys: &Keys| right.with(keys);
    let own_with = |token: Option<&str>| with(&Keys { token: token.map(str::to_owned), ..own.clone() });
    let token = own.token.as_deref().unwrap();
    vec![
        ("another environment's credentials", KEY, with(other).signed()),
        ("another environment's credentials, by a link", KEY, with(other).presigned("600")),
        (
            "another environment's secret",
            SIGNATURE,
            with(&Keys { secret: other.secret.clone(), ..own.clone() }).signed(),
        ),
        (
            "another environment's secret, by a link",
            SIGNATURE,
            with(&Keys { secret: other.secret.clone(), ..own.clone() }).presigned("600"),
        ),
        ("another environment's token", TOKEN, own_with(other.token.as_deref()).signed()),
        ("another environment's token, by a link", TOKEN, own_with(other.token.as_deref()).presigned("600")),
        ("no token", TOKEN, own_with(None).signed()),
        ("no token, by a link", TOKEN, own_with(None).presigned("600")),
        ("an empty token", TOKEN, own_with(Some("")).signed()),
        ("a token that is cut off", TOKEN, own_with(Some(&token[..token.len() - 1])).signed()),
        ("a token that goes on", TOKEN, own_with(Some(&format!("{token}0"))).signed()),
        ("a token in its name's place", TOKEN, own_with(Some(&own.id)).signed()),
        ("the key of who may do anything", KEY, with(user).signed()),
        (
            "the key of who may do anything, with the token",
            KEY,
            with(&Keys { token: own.token.clone(), ..user.clone() }).signed(),
        ),
        ("the key of the account's owner", KEY, with(world.keys("root")).signed()),
        ("a session of IAM", KEY, with(world.keys("session")).signed()),
        ("a flipped bit in a link", SIGNATURE, {
            let mut sent = with(own).presigned("600");
            sent.target = sent.target.replace(&sent.seed.signature, &flipped(&sent.seed.signature));
            sent
        }),
    ]
}

/// The right request in each form that is served: those of the server's own port, and those in which the body is not signed.
fn right(world: &World, row: &Row, draft: &Draft) -> Vec<(String, Sent)> {
    let mut forms = vec![Control::Header, Control::Presigned];
    if !row.body.is_empty() {
        forms.extend([Control::SignedChunks, Control::SignedTrailer]);
    }
    let forms = forms.into_iter().map(|form| (format!("{form:?}"), defects::right(world, row, draft.clone(), form)));
    let all = defects::all();
    let served = all.iter().filter(|defect| SERVED.contains(&defect.name));
    let served = served.filter_map(|defect| Some((defect.name.to_owned(), (defect.make)(world, row, draft.clone())?)));
    forms.chain(served).collect()
}

#[tokio::test]
async fn a_function_reaches_s3_with_its_environments_credentials_its_roles_rights_and_nothing_else() {
    let world = World::new().await;
    for (name, policy) in [
        ("x-exact", NOTHING),
        ("x-nothing", NOTHING),
        ("x-denied", NOTHING),
        ("x-elsewhere", NOTHING),
        ("x-gone", ANYTHING),
        ("x-distrusted", ANYTHING),
    ] {
        role(&world, name, policy).await;
    }
    world.identity("DeleteRolePolicy", &[("RoleName", "x-gone"), ("PolicyName", "p")]).await;
    world.identity("DeleteRole", &[("RoleName", "x-gone")]).await;
    let trust = serde_json::json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"Service": "batchoperations.s3.amazonaws.com"}, "Action": "sts:AssumeRole",
    }]});
    let members = [("RoleName", "x-distrusted"), ("PolicyDocument", &trust.to_string())];
    world.identity("UpdateAssumeRolePolicy", &members).await;

    let (environment, other) = (credentials("x-exact", 1), keys(&credentials("x-exact", 2)));
    let own = keys(&environment);
    let without_rights = NO_RIGHT.map(|role| (role, credentials(role, 3)));
    let of_authentication = defects::all().into_iter().filter(|defect| !defect.is_of_rights());
    let of_authentication: Vec<_> =
        of_authentication.filter(|defect| !SERVED.contains(&defect.name) && !NOT_HERE.contains(&defect.name)).collect();
    let (mut cells, mut served, mut findings) = (BTreeMap::new(), BTreeSet::new(), Findings(Vec::new()));
    for (number, row) in rows::all().iter().filter(|row| row.room == Room::S3).enumerate() {
        let asks: Vec<&str> = row.asks.iter().map(String::as_str).collect();
        let (all, outright) = (statement("Allow", &["*"], "*"), statement("Deny", &asks[..1], "*"));
        may(&world, "x-exact", &document(&[statement("Allow", &asks, "*")])).await;
        may(&world, "x-denied", &document(&[all, outright])).await;
        may(&world, "x-elsewhere", &document(&[statement("Allow", &asks, "arn:aws:s3:::elsewhere*")])).await;

        let here = of_row(&world, row, Which::Here, &own);
        let turn = of_authentication.iter().enumerate();
        let turn = turn.filter(|(place, _)| (place + number).is_multiple_of(ROWS_OF_A_DEFECT));
        let made = turn
            .filter_map(|(_, defect)| Some((defect.name, defect.wanted, (defect.make)(&world, row, here.clone())?)));
        let tried: Vec<_> = made.chain(of_keys(&world, &here, &own, &other)).collect();
        let before = world.version();
        for (what, wanted, sent) in &tried {
            let Some(answered) = world.send_as_function(&environment, sent).await else { continue };
            if !is_refused(row, &answered, *wanted) {
                findings.add(row, what, format!("{wanted:?} expected, and {answered:?} came of {sent:?}"));
            }
            *cells.entry((*what).to_owned()).or_insert(0) += 1;
        }
        for (role, credentials) in &without_rights {
            let answer = async |which| {
                let sent = of_row(&world, row, which, &keys(credentials)).signed();
                world.send_as_function(credentials, &sent).await.unwrap()
            };
            let answered = answer(Which::Here).await;
            if !is_refused(row, &answered, DENIED) {
                findings.add(row, role, format!("{answered:?}"));
            }
            if row.has_twin() {
                let twin = answer(Which::Twin).await;
                let (here, there) = (world.as_here(&answered, row.twin), world.as_here(&twin, row.twin));
                if here != there {
                    findings.add(row, role, format!("told apart: {here:?} and {there:?}"));
                }
            }
            *cells.entry((*role).to_owned()).or_insert(0) += 1;
        }
        if world.version() != before {
            findings.add(row, "all of them together", "something was written".into());
        }

        for (turn, (form, sent)) in right(&world, row, &here).into_iter().enumerate() {
            let answered = world.send_as_function(&environment, &sent).await.unwrap();
            let done = turn > 0 && row.ends.contains(&answered.code);
            if !done && (!answered.succeeded() || row.refused_inside && answered.body.contains("<Error>")) {
                findings.add(row, &format!("the control {form}"), format!("{answered:?}"));
            }
            served.insert(form);
        }
    }
    assert!(findings.0.is_empty(), "{} findings:\n{}", findings.0.len(), findings.0.join("\n"));
    let total: usize = cells.values().sum();
    assert!(total >= CELLS_MIN, "{total} cells");
    assert_eq!(served.len(), 4 + SERVED.len(), "{served:?}");
    let unused: Vec<_> =
        of_authentication.iter().map(|defect| defect.name).filter(|name| !cells.contains_key(*name)).collect();
    // Nothing of S3 is by account.
    let of_control = |name: &&str| name.starts_with("another account") || *name == "chunks where none are taken";
    assert!(unused.iter().all(of_control), "no request has these defects: {unused:?}");
}
