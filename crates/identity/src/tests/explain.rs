//! May somebody do something and why: our own API beside IAM's.

use longshore_core::policy::{Document, Kind, Policy};
use longshore_wire::Asked;
use serde_json::{Value, json};

use super::*;

const FUNCTION: &str = "arn:aws:lambda:us-east-1:111111111111:function:f";

/// The one function that there is, which lets `u` invoke it.
fn asks_invoke(function: &str) -> Option<Asked> {
    let text = r#"{"Version":"2012-10-17","Statement":{"Sid":"U","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:user/u"},"Action":"lambda:*","Resource":"*"}}"#;
    let document = Document::parse(text, Kind::Resource).unwrap();
    let policy = Policy { name: "resource policy of f".into(), document };
    (function == FUNCTION).then(|| Asked::new("lambda:InvokeFunction", FUNCTION).with_policy(Some(policy)))
}

impl Ground {
    async fn own(&self, who: &Who, method: Method, path: &str, members: &[(&str, &str)]) -> (StatusCode, Value) {
        let fields: Vec<String> =
            members.iter().map(|(name, value)| format!("{name}={}", crate::operations::encoded(value))).collect();
        let body = fields.join("&");
        let (verified, identity, context) = self.verify(who, "s3", body.as_bytes(), now()).unwrap();
        let request = Request {
            method,
            path: path.into(),
            query: Query::default(),
            headers: HeaderMap::new(),
            body: Bytes::from(body),
            caller: Caller::new(verified, identity, context, None, "id"),
            request_id: RequestId("id".into()),
        };
        let answer = self.identity.serve_own(request, &asks_invoke).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    async fn explain(&self, who: &Who, principal: &str, action: &str, resource: &str) -> (StatusCode, Value) {
        let members =
            [("PolicySourceArn", principal), ("ActionNames.member.1", action), ("ResourceArns.member.1", resource)];
        self.own(who, Method::POST, "/_longshore/v1/iam/explain", &members).await
    }

    /// The one answer to a question of root's.
    async fn explained(&self, principal: &str, action: &str, resource: &str) -> Value {
        let (status, mut answer) = self.explain(&Who::root(), principal, action, resource).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["results"][0].take()
    }
}

fn sentences(result: &Value) -> String {
    let sentences: Vec<_> = result["sentences"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    sentences.join(" ")
}

#[tokio::test]
async fn an_answer_has_the_decision_the_statement_and_what_is_in_the_way() {
    let ground = Ground::new();
    let near = r#"{"Version":"2012-10-17","Statement":[
        {"Sid":"Read","Effect":"Allow","Action":"s3:GetObject","Resource":"*"},
        {"Effect":"Deny","Action":"s3:GetObject","Resource":"arn:aws:s3:::secret/*"},
        {"Sid":"Office","Effect":"Allow","Action":"s3:PutObject","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"203.0.113.0/24"}}}]}"#;
    ground.user("u", Some(near)).await;
    let user = "arn:aws:iam::111111111111:user/u";
    let allowed = ground.explained(user, "s3:GetObject", "arn:aws:s3:::b/k").await;
    let place =
        json!({"layer": "identity-based policy", "policy": "inline policy p of user u", "statement": 1, "sid": "Read"});
    assert_eq!((&allowed["allowed"], &allowed["decision"]), (&json!(true), &json!("allowed")));
    assert_eq!(allowed["because"], place);
    let denied = ground.explained(user, "s3:GetObject", "arn:aws:s3:::secret/k").await;
    assert_eq!((&denied["allowed"], &denied["decision"]), (&json!(false), &json!("explicitDeny")));
    assert_eq!((&denied["because"]["statement"], denied["because"].get("sid")), (&json!(2), None));
    let nearly = ground.explained(user, "s3:PutObject", "arn:aws:s3:::b/k").await;
    assert_eq!(nearly["decision"], "implicitDeny");
    assert_eq!(nearly["because"], json!({"layer": "identity-based policy"}));
    assert_eq!(nearly["missingContextKeys"], json!(["aws:SourceIp"]));
    assert!(sentences(&nearly).contains("(Office)"), "{nearly}");

    ground.root("CreatePolicy", &[("PolicyName", "b"), ("PolicyDocument", &allowing("s3:PutObject"))]).await;
    let boundary = [("UserName", "u"), ("PermissionsBoundary", "arn:aws:iam::111111111111:policy/b")];
    ground.root("PutUserPermissionsBoundary", &boundary).await;
    let bounded = ground.explained(user, "s3:GetObject", "arn:aws:s3:::b/k").await;
    assert_eq!(bounded["because"], json!({"layer": "permissions boundary"}));
}

#[tokio::test]
async fn whoever_is_meant_may_be_named_in_every_form_that_people_see() {
    let ground = Ground::new();
    ground.user("u", Some(READ)).await;
    let made = [("RoleName", "r"), ("Path", "/service/"), ("AssumeRolePolicyDocument", TRUST)];
    ground.root("CreateRole", &made).await;
    let session = |name: &str| format!("arn:aws:sts::111111111111:assumed-role/r/{name}");
    for (given, principal) in [
        ("user/u", "arn:aws:iam::111111111111:user/u".to_owned()),
        ("role/r", session("simulation")),
        ("role/service/r", session("simulation")),
        ("arn:aws:iam::111111111111:role/service/r", session("simulation")),
        (&session("night"), session("night")),
    ] {
        let (status, answer) = ground.explain(&Who::root(), given, "s3:GetObject", "*").await;
        assert_eq!((status, answer["principal"].as_str()), (StatusCode::OK, Some(&*principal)), "{given}: {answer}");
    }
    for (given, code) in [
        ("role/u", "NoSuchEntity"),
        ("role/elsewhere/r", "NoSuchEntity"),
        ("arn:aws:sts::111111111111:assumed-role/none/night", "NoSuchEntity"),
        ("arn:aws:sts::111111111111:assumed-role/r", "InvalidInput"),
        ("arn:aws:iam::111111111111:root", "InvalidInput"),
        ("group/some-group-or-other", "InvalidInput"),
    ] {
        let (status, answer) = ground.explain(&Who::root(), given, "s3:GetObject", "*").await;
        assert!(status.is_client_error() && answer["code"] == code, "{given}: {answer}");
    }
}

#[tokio::test]
async fn the_policy_of_a_function_and_the_trust_of_a_role_count_as_when_it_is_done() {
    let ground = Ground::new();
    ground.user("u", Some(&allowing("sts:AssumeRole"))).await;
    ground.user("v", None).await;
    let invoke = ground.explained("user/u", "lambda:InvokeFunction", FUNCTION).await;
    assert_eq!((&invoke["allowed"], &invoke["because"]["layer"]), (&json!(true), &json!("resource-based policy")));
    assert_eq!(ground.explained("user/v", "lambda:InvokeFunction", FUNCTION).await["allowed"], false);
    // It counts for all that it names.
    assert_eq!(ground.explained("user/u", "lambda:GetFunction", FUNCTION).await["allowed"], true);
    assert_eq!(ground.explained("user/v", "lambda:GetFunction", FUNCTION).await["allowed"], false);
    assert_eq!(ground.explained("user/u", "s3:GetObject", FUNCTION).await["allowed"], false);

    let trusting = r#"{"Version":"2012-10-17","Statement":{"Sid":"V","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:user/v"},"Action":"sts:AssumeRole"}}"#;
    let of_v = ground.role("of-v", trusting, None).await;
    let of_all = ground.role("of-all", TRUST, None).await;
    let untrusted = ground.explained("user/u", "sts:AssumeRole", &of_v).await;
    assert_eq!(untrusted["because"], json!({"layer": "role trust policy"}));
    assert!(sentences(&untrusted).contains("(V)"), "{untrusted}");
    assert_eq!(ground.explained("user/u", "sts:AssumeRole", &of_all).await["allowed"], true);
    // Of a user that is made anew under its name the trust does not hold.
    assert_eq!(ground.explained("user/v", "sts:AssumeRole", &of_v).await["allowed"], true);
    for key in ground.root("ListAccessKeys", &[("UserName", "v")]).await.members("AccessKeyMetadata") {
        let id = key.child_text("AccessKeyId").unwrap();
        ground.root("DeleteAccessKey", &[("UserName", "v"), ("AccessKeyId", id)]).await;
    }
    ground.root("DeleteUser", &[("UserName", "v")]).await;
    ground.user("v", None).await;
    assert_eq!(ground.explained("user/v", "sts:AssumeRole", &of_v).await["allowed"], false);
    for (resource, code) in [("*", "InvalidInput"), ("arn:aws:iam::111111111111:role/none", "NoSuchEntity")] {
        let (_, answer) = ground.explain(&Who::root(), "user/u", "sts:AssumeRole", resource).await;
        assert_eq!(answer["code"], code, "{answer}");
    }
}

#[tokio::test]
async fn what_is_told_of_a_policy_is_told_to_those_who_may_read_it() {
    let ground = Ground::new();
    let role = ground.role("r", TRUST, None).await;
    ground.user("u", None).await;
    let simulate = "iam:SimulatePrincipalPolicy";
    for (number, (allowed, action, resource, served)) in [
        (&["iam:GetUser"][..], "s3:GetObject", "*", false),
        (&[simulate], "s3:GetObject", "*", true),
        (&[simulate], "lambda:InvokeFunction", FUNCTION, false),
        (&[simulate, "lambda:GetPolicy"], "lambda:InvokeFunction", FUNCTION, true),
        (&[simulate], "lambda:GetFunction", FUNCTION, false),
        (&[simulate], "lambda:GetFunction", "*", true),
        (&[simulate], "sts:AssumeRole", &role, false),
        (&[simulate], "sts:AssumeRole", "arn:aws:iam::111111111111:role/none", false),
        (&[simulate, "iam:GetRole"], "sts:AssumeRole", &role, true),
    ]
    .into_iter()
    .enumerate()
    {
        let policy =
            json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": allowed, "Resource": "*"}});
        let who = ground.user(&format!("asks-{number}"), Some(&policy.to_string())).await;
        let (status, answer) = ground.explain(&who, "user/u", action, resource).await;
        let wanted = if served { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(status, wanted, "{allowed:?} {action} {resource}: {answer}");
        assert!(served || answer["code"] == "AccessDenied", "{answer}");
    }
}

#[tokio::test]
async fn a_session_of_a_user_is_not_served_as_by_iam_itself() {
    let ground = Ground::new();
    let who = ground.user("u", Some(&allowing("*"))).await;
    assert_eq!(ground.explain(&who, "user/u", "s3:GetObject", "*").await.0, StatusCode::OK);
    let session = Who::of(&ground.sts(&who, "GetSessionToken", &[]).await.good());
    let (status, answer) = ground.explain(&session, "user/u", "s3:GetObject", "*").await;
    assert_eq!((status, answer["code"].as_str()), (StatusCode::FORBIDDEN, Some("InvalidClientTokenId")), "{answer}");
}

#[tokio::test]
async fn a_request_has_one_page_and_a_bound_and_nothing_else_is_at_its_path() {
    let ground = Ground::new();
    ground.user("u", None).await;
    let names: Vec<String> = (1..=101).map(|n| format!("ResourceArns.member.{n}")).collect();
    let mut members = vec![("PolicySourceArn", "user/u"), ("ActionNames.member.1", "s3:GetObject")];
    members.extend(names[..100].iter().map(|name| (name.as_str(), "*")));
    let path = "/_longshore/v1/iam/explain";
    let (status, answer) = ground.own(&Who::root(), Method::POST, path, &members).await;
    assert_eq!((status, answer["results"].as_array().map(Vec::len)), (StatusCode::OK, Some(100)));
    members.push((&names[100], "*"));
    assert_eq!(ground.own(&Who::root(), Method::POST, path, &members).await.1["code"], "LimitExceeded");
    // Ten questions to a million characters are more than one request may cost, and eight are not.
    let long = large(100_000);
    let inputs: Vec<String> = (1..=10).map(|n| format!("PolicyInputList.member.{n}")).collect();
    for (questions, status) in [(10, StatusCode::CONFLICT), (8, StatusCode::OK)] {
        let mut of_long = members[..2 + questions].to_vec();
        of_long.extend(inputs.iter().map(|name| (name.as_str(), long.as_str())));
        assert_eq!(ground.own(&Who::root(), Method::POST, path, &of_long).await.0, status, "{questions}");
    }
    for (method, path, more, code) in [
        (Method::GET, path, None, "MethodNotAllowed"),
        (Method::POST, "/_longshore/v1/iam/other", None, "NoSuchResource"),
        (Method::POST, path, Some(("MaxItems", "1")), "NotImplemented"),
        (Method::POST, path, Some(("Unknown", "1")), "NotImplemented"),
    ] {
        let members: Vec<_> = members[..3].iter().copied().chain(more).collect();
        assert_eq!(ground.own(&Who::root(), method, path, &members).await.1["code"], code, "{path} {more:?}");
    }
}

#[tokio::test]
async fn a_service_is_asked_about_what_it_says_of_itself_when_it_assumes_a_role() {
    let ground = Ground::new();
    let trust = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"batchoperations.s3.amazonaws.com"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"aws:SourceAccount":"111111111111"},"ArnLike":{"aws:SourceArn":"arn:aws:s3:us-east-1:111111111111:job/*"}}}}"#;
    let role = ground.role("batch", trust, None).await;
    let members = |service, action, source| {
        [
            ("PolicySourceArn", service),
            ("ActionNames.member.1", action),
            ("ResourceArns.member.1", role.as_str()),
            ("ContextEntries.member.1.ContextKeyName", "aws:SourceArn"),
            ("ContextEntries.member.1.ContextKeyType", "string"),
            ("ContextEntries.member.1.ContextKeyValues.member.1", source),
        ]
    };
    let ask = async |service, action, source| {
        ground.own(&Who::root(), Method::POST, "/_longshore/v1/iam/explain", &members(service, action, source)).await
    };
    let job = "arn:aws:s3:us-east-1:111111111111:job/1";
    let (batch, lambda) = ("batchoperations.s3.amazonaws.com", "lambda.amazonaws.com");
    for (service, source, allowed) in
        [(batch, job, true), (batch, "arn:aws:s3:us-east-1:111111111111:jobs/1", false), (lambda, job, false)]
    {
        let (status, answer) = ask(service, "sts:AssumeRole", source).await;
        assert_eq!((status, &answer["results"][0]["allowed"]), (StatusCode::OK, &json!(allowed)), "{service} {source}");
        assert_eq!(answer["principal"], service);
    }
    let (status, answer) = ask(batch, "s3:GetObject", job).await;
    assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("InvalidInput")), "{answer}");
    // Whoever asks needs the right to look at the role's trust policy.
    let user = ground.user("u", Some(&allowing("iam:SimulatePrincipalPolicy"))).await;
    let path = "/_longshore/v1/iam/explain";
    let (status, _) = ground.own(&user, Method::POST, path, &members(batch, "sts:AssumeRole", job)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}
