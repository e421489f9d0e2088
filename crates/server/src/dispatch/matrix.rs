//! The matrix of all operations and all defects: whatever is wrong with a request, it is refused with the right code, changes nothing,
//! and is not told whether there is what it names; and the same request without the defect is served.
//!
//! Rows come from the tables of the rooms: an operation without a row fails the test, and so does a row without an operation.
//! Source: promise 3.6.

mod costs;
mod defects;
mod drafts;
mod functions;
mod keys;
mod rows;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use defects::{Control, Defect, Wanted};
use drafts::{Draft, Keys, Sent, draft};
use rows::{Room, Row};
use world::{Answered, Which, World};

/// Cells that there have to be at least.
const CELLS_MIN: usize = 2_000;
/// Of what is found before there is an operation, each row meets one in so many, another row the next: each defect still meets each
/// room. All of them take some three times as long, which is for the test that is ignored.
const ROWS_OF_A_DEFECT: usize = 4;

/// A right request of a row, not signed yet.
fn of_row(world: &World, row: &Row, which: Which, keys: &Keys) -> Draft {
    let mut draft = draft(&row.method, &world.fill_in(&row.target, which, row.twin), row.service, keys);
    for (name, value) in &row.headers {
        draft.header(name, &world.fill_in(value, which, row.twin));
    }
    draft.body = world.fill_in(&row.body, which, row.twin).into_bytes();
    if matches!(&*row.method, "PUT" | "POST") {
        draft.header("content-length", &draft.body.len().to_string());
    }
    draft
}

fn statement(effect: &str, actions: &[&str], resource: &str) -> serde_json::Value {
    serde_json::json!({"Effect": effect, "Action": actions, "Resource": resource})
}

fn document(statements: &[serde_json::Value]) -> String {
    serde_json::json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

/// What went wrong in a cell, for the end.
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, row: &Row, what: &str, why: String) {
        self.0.push(format!("{:?} {}: {what}: {why}", row.room, row.name));
    }
}

/// Whether the answer has this code, in the words of who answers: Lambda's end in `Exception`, and IAM has some for some of them. What is
/// no authentication at all is refused to IAM's clients in S3's words: nothing says whose clients they are.
fn is_word(row: &Row, code: &str, answered: &Answered) -> bool {
    let of_lambda = code.ends_with("Exception");
    match row.room {
        Room::Lambda => of_lambda && answered.code == code,
        Room::Identity if of_lambda => {
            let in_query = match code {
                "MissingAuthenticationTokenException" => "MissingAuthenticationToken",
                "IncompleteSignatureException" => "IncompleteSignature",
                "UnrecognizedClientException" => "InvalidClientTokenId",
                "ExpiredTokenException" => "ExpiredToken",
                "InvalidSignatureException" => "SignatureDoesNotMatch",
                _ => return false,
            };
            answered.code == in_query
        }
        _ => !of_lambda && answered.code == code,
    }
}

fn is_refused(row: &Row, answered: &Answered, wanted: Wanted) -> bool {
    if row.refused_inside
        && matches!(wanted, Wanted::Codes(codes) if codes.contains(&"AccessDenied"))
        && answered.succeeded()
    {
        return answered.body.contains("<Code>AccessDenied</Code>") && !answered.body.contains("<Deleted>");
    }
    // 501: what the request was taken for is not here.
    let refused = (400..500).contains(&answered.status) || answered.status == 501;
    refused
        && match wanted {
            Wanted::Refused => true,
            Wanted::Codes(codes) => {
                row.method == "HEAD" && answered.code.is_empty()
                    || codes.iter().any(|code| is_word(row, code, answered))
            }
        }
}

async fn check(
    world: &World,
    row: &Row,
    what: &str,
    sent: &Sent,
    wanted: Wanted,
    findings: &mut Findings,
) -> Option<Answered> {
    let before = world.version();
    let answered = world.send(sent).await?;
    if !is_refused(row, &answered, wanted) {
        findings.add(row, what, format!("{wanted:?} expected, and {answered:?} came of {sent:?}"));
    }
    if world.version() != before {
        findings.add(row, what, format!("something was written: {sent:?}"));
    }
    Some(answered)
}

/// All that is refused of a row. Returns the cells by their defect, and which controls they need.
async fn refuse(
    world: &World,
    row: &Row,
    defects: &[&Defect],
    cells: &mut BTreeMap<String, usize>,
    findings: &mut Findings,
) -> BTreeSet<Control> {
    let user = world.keys(if row.asks.is_empty() { "all" } else { "exact" });
    let right = of_row(world, row, Which::Here, user);
    let twin = row.has_twin().then(|| of_row(world, row, Which::Twin, user));
    let mut controls = BTreeSet::from([Control::Header]);
    let before = world.state();
    for defect in defects {
        let Some(sent) = (defect.make)(world, row, right.clone()) else { continue };
        let Some(answered) = check(world, row, defect.name, &sent, defect.wanted, findings).await else { continue };
        *cells.entry(defect.name.to_owned()).or_default() += 1;
        controls.insert(defect.control);
        // Nobody hears what there is who may not ask for it.
        let Some(twin) = twin.as_ref().filter(|_| defect.is_told_apart()) else { continue };
        let Some(sent) = (defect.make)(world, row, twin.clone()) else { continue };
        let Some(of_twin) = world.send(&sent).await else { continue };
        let (here, there) = (world.as_here(&answered, row.twin), world.as_here(&of_twin, row.twin));
        if here != there {
            findings.add(row, defect.name, format!("told apart: {here:?} and {there:?}"));
        }
    }
    if world.state() != before {
        findings.add(row, "all of them together", "something is not as it was".into());
    }
    if row.asks.len() > 1 {
        for missing in &row.asks {
            let others: Vec<&str> = row.asks.iter().filter(|asked| *asked != missing).map(String::as_str).collect();
            world.policy("lacking", &document(&[statement("Allow", &others, "*")])).await;
            let what = format!("without {missing}");
            let sent = right.with(world.keys("lacking")).signed();
            let wanted = Wanted::Codes(&["AccessDenied", "AccessDeniedException"]);
            check(world, row, &what, &sent, wanted, findings).await;
            *cells.entry(what).or_default() += 1;
        }
    }
    controls
}

async fn serve(world: &World, row: &Row, controls: &BTreeSet<Control>, findings: &mut Findings) {
    let user = world.keys(if row.asks.is_empty() { "all" } else { "exact" });
    for (turn, control) in controls.iter().enumerate() {
        if row.room == Room::Lambda {
            world.look_at_functions().await;
        }
        let right = of_row(world, row, Which::Here, user);
        let answered = world.send(&defects::right(world, row, right, *control)).await.expect("it can be sent");
        // The first finds all there; a deed that is done once is done then.
        // Of these there is nothing here to be served: no function has a URL, no job lacks its report, nobody has a password.
        let nothing_there = [
            "GetFunctionUrlConfig",
            "DeliverJobReport",
            "GetLoginProfile",
            "DeleteLoginProfile",
            "GetAccountPasswordPolicy",
        ];
        let only_refused = row.ends.iter().any(|code| code == "UnknownOperationException")
            || nothing_there.contains(&row.name.as_str());
        let may_end = turn > 0 || only_refused;
        let inside = row.refused_inside && answered.body.contains("<Error>");
        let served = answered.succeeded() && !inside || (may_end && row.ends.contains(&answered.code));
        if !served {
            findings.add(row, &format!("the control {control:?}"), format!("{answered:?}"));
        }
    }
    world.at_rest().await;
}

#[test]
fn every_operation_has_a_row_and_every_row_an_operation() {
    let of_rows: BTreeSet<_> =
        rows::all().into_iter().map(|row| (row.room, rows::operation(&row.name).to_owned())).collect();
    let there_are: BTreeSet<_> = rows::inventory().into_iter().collect();
    let missing: Vec<_> = there_are.difference(&of_rows).collect();
    let too_many: Vec<_> = of_rows.difference(&there_are).collect();
    assert!(missing.is_empty(), "no row says how a right request for these looks: {missing:?}");
    assert!(too_many.is_empty(), "there is no operation for these rows: {too_many:?}");
    let names: BTreeSet<_> = rows::all().into_iter().map(|row| (row.room, row.name)).collect();
    assert_eq!(names.len(), rows::all().len(), "a row comes twice");
}

/// Fills the cells of the matrix, those of authentication in one row of `rows_of_a_defect`.
async fn fill(rows_of_a_defect: usize) {
    let world = World::new().await;
    let (rows, defects) = (rows::all(), defects::all());
    let (mut cells, mut controls, mut findings) = (BTreeMap::new(), 0, Findings(Vec::new()));
    for (number, row) in rows.iter().enumerate() {
        if !row.asks.is_empty() {
            let asks: Vec<&str> = row.asks.iter().map(String::as_str).collect();
            let (all, outright) = (statement("Allow", &["*"], "*"), statement("Deny", &asks[..1], "*"));
            world.policy("exact", &document(&[statement("Allow", &asks, "*")])).await;
            world.policy("denied", &document(&[all, outright])).await;
            world.policy("elsewhere", &document(&[statement("Allow", &asks, "arn:aws:s3:::elsewhere*")])).await;
        }
        let turn = |place: usize| (place + number).is_multiple_of(rows_of_a_defect);
        let chosen = defects.iter().enumerate().filter(|(place, defect)| defect.is_told_apart() || turn(*place));
        let chosen: Vec<&Defect> = chosen.map(|(_, defect)| defect).collect();
        let needed = refuse(&world, row, &chosen, &mut cells, &mut findings).await;
        serve(&world, row, &needed, &mut findings).await;
        controls += needed.len();
    }
    let of_room = |room: Room| rows.iter().filter(|row| row.room == room).count();
    let total: usize = cells.values().sum();
    println!(
        "{} ways to ask for operations (S3 {}, S3 Control {}, Lambda {}, IAM and STS {}, our own {}) by {} defects: {total} cells, {controls} controls",
        rows.len(),
        of_room(Room::S3),
        of_room(Room::Control),
        of_room(Room::Lambda),
        of_room(Room::Identity),
        of_room(Room::Own),
        cells.len(),
    );
    assert!(findings.0.is_empty(), "{} findings:\n{}", findings.0.len(), findings.0.join("\n"));
    assert!(total >= CELLS_MIN, "{total} cells");
    let unused: Vec<_> = defects.iter().map(|defect| defect.name).filter(|name| !cells.contains_key(*name)).collect();
    assert!(unused.is_empty(), "no request has these defects: {unused:?}");
}

#[tokio::test]
async fn no_defect_of_a_request_is_let_in_changes_anything_or_tells_what_there_is() {
    fill(ROWS_OF_A_DEFECT).await;
}

/// `cargo test -p longshore --bin longshore every_defect -- --ignored --nocapture`
#[tokio::test]
#[ignore = "all of the cells: some three times as long as those that CI has time for"]
async fn every_defect_of_every_request_is_refused() {
    fill(1).await;
}

/// What there is without a signature, and nothing beside it.
#[tokio::test]
async fn open_are_the_health_check_and_links_to_code_that_were_given_out() {
    let world = World::new().await;
    let anonymous = async |method: &str, target: &str| {
        let mut sent = draft(method, target, "s3", world.keys("nobody")).signed();
        sent.headers.retain(|(name, _)| name == "host");
        world.send(&sent).await.unwrap()
    };
    assert_eq!(anonymous("GET", "/_longshore/health").await.status, 200);
    for (method, target) in [
        ("HEAD", "/_longshore/health"),
        ("POST", "/_longshore/health"),
        ("GET", "/_longshore/health/"),
        ("GET", "/_longshore/health/../v1/metrics"),
        ("GET", "//_longshore/health"),
        ("GET", "/_longshore/%68ealth"),
        ("GET", "/_longshore/"),
        ("GET", "/_longshore/v1/"),
        ("GET", "/2018-06-01/runtime/invocation/next"),
    ] {
        let answered = anonymous(method, target).await;
        assert!((400..500).contains(&answered.status), "{method} {target}: {answered:?}");
    }

    let shown = draft("GET", "/2015-03-31/functions/f-here", "lambda", world.keys("all")).signed();
    let shown = world.send(&shown).await.unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown.body).unwrap();
    let link = shown["Code"]["Location"].as_str().unwrap().split_once(world::HOST).unwrap().1.to_owned();
    assert_eq!(anonymous("GET", &link).await.status, 200, "{link}");
    let (path, query) = link.split_once('?').unwrap();
    let (expires, token) = query.strip_prefix("expires=").unwrap().split_once("&token=").unwrap();
    let sha256 = path.rsplit('/').next().unwrap();
    let later = expires.parse::<i64>().unwrap() + 1;
    for (method, target) in [
        ("GET", path.to_owned()),
        ("GET", format!("{path}?expires={expires}")),
        ("GET", format!("{path}?expires={expires}&token={}", drafts::flipped(token))),
        ("GET", format!("{path}?expires={expires}&token={}", &token[..62])),
        ("GET", format!("{path}?expires={expires}&token=")),
        ("GET", format!("{path}?expires={later}&token={token}")),
        ("GET", format!("{}?{query}", path.replace(sha256, &drafts::flipped(sha256)))),
        ("GET", format!("{path}/../../../records.db?{query}")),
        ("GET", format!("/_longshore/code/..%2F..%2Frecords.db?{query}")),
        ("PUT", link.clone()),
        ("DELETE", link.clone()),
        ("HEAD", link.clone()),
    ] {
        let answered = anonymous(method, &target).await;
        assert!((400..500).contains(&answered.status), "{method} {target}: {answered:?}");
    }
}

#[tokio::test]
async fn a_signature_holds_for_any_order_of_parameters() {
    let world = World::new().await;
    let right = draft("GET", "/b-here?list-type=2&prefix=k", "s3", world.keys("all"));
    let mut sent = right.signed();
    sent.target = "/b-here?prefix=k&list-type=2".into();
    assert_eq!(world.send(&sent).await.unwrap().status, 200);
    sent.target = "/b-here?prefix=l&list-type=2".into();
    assert_eq!(world.send(&sent).await.unwrap().code, "SignatureDoesNotMatch");
}

/// Of the bucket that is read, not of that which is written; and what is deleted is not there.
#[tokio::test]
async fn that_a_key_is_absent_is_told_to_those_alone_who_may_list_its_bucket() {
    let world = World::new().await;
    let deleted = draft("DELETE", "/vb-here/deleted", "s3", world.keys("all"));
    let mut versioned = draft("PUT", "/vb-here?versioning=", "s3", world.keys("all"));
    versioned.body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>".to_vec();
    for right in [versioned, deleted] {
        assert!(world.send(&right.signed()).await.unwrap().succeeded());
    }
    let may = statement("Allow", &["s3:GetObject", "s3:PutObject"], "*");
    for (listed, told) in [(["b-here", "vb-here"], "NoSuchKey"), (["db-here", "nb-held"], "AccessDenied")] {
        let list = listed.map(|bucket| statement("Allow", &["s3:ListBucket"], &format!("arn:aws:s3:::{bucket}")));
        world.policy("exact", &document(&[may.clone(), list[0].clone(), list[1].clone()])).await;
        let mut copied = draft("PUT", "/db-here/copy", "s3", world.keys("exact"));
        copied.header("x-amz-copy-source", "/b-here/absent");
        copied.header("content-length", "0");
        for right in [
            copied,
            draft("GET", "/b-here/absent", "s3", world.keys("exact")),
            draft("GET", "/vb-here/deleted", "s3", world.keys("exact")),
        ] {
            let answered = world.send(&right.clone().signed()).await.unwrap();
            assert_eq!(answered.code, told, "{} {} with {listed:?}", right.method, right.target);
        }
    }
}
