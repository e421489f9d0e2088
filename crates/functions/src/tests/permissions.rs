//! Resource policies.

use longshore_core::permission::Meant;
use longshore_core::policy::{Principal, PrincipalKind};
use longshore_wire::caller::Subject;
use longshore_wire::sigv4::Verified;

use super::*;

const NOT_FOUND: &str = "ResourceNotFoundException";
const PARAMETER: &str = "InvalidParameterValueException";
const POLICY: &str = "/2015-03-31/functions/f/policy";
const STALE: &str = "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to \
                     retrieve the latest Revision Id";

fn permission(changes: Value) -> Value {
    let mut body = json!({"StatementId": "s3", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"});
    for (member, value) in changes.as_object().unwrap() {
        body[member] = value.clone();
    }
    body
}

impl Api {
    /// `f` with version 1 and the alias `prod` on it.
    async fn with_alias() -> Self {
        let api = Self::new();
        api.create().await;
        api.post("/2015-03-31/functions/f/versions", json!({})).await.ok(201);
        let body = json!({"Name": "prod", "FunctionVersion": "1"});
        api.post("/2015-03-31/functions/f/aliases", body).await.ok(201);
        api
    }

    async fn permit(&self, qualifier: &str, changes: Value) -> Answer {
        self.post(&format!("{POLICY}{qualifier}"), permission(changes)).await
    }

    /// The policy, parsed, and its revision.
    async fn policy(&self, qualifier: &str) -> (Value, String) {
        let answer = self.get(&format!("{POLICY}{qualifier}")).await.ok(200).body;
        let policy = serde_json::from_str(answer["Policy"].as_str().unwrap()).unwrap();
        (policy, answer["RevisionId"].as_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn a_permission_is_told_and_kept_as_aws_writes_it() {
    let api = Api::new();
    api.create().await;
    let cases = [
        (
            json!({"SourceArn": "arn:aws:s3:::b"}),
            json!({"Service": "s3.amazonaws.com"}),
            json!({"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::b"}}),
        ),
        (
            json!({"Principal": "*", "SourceAccount": "111111111111"}),
            json!("*"),
            json!({"StringEquals": {"AWS:SourceAccount": "111111111111"}}),
        ),
        (json!({"Principal": "111111111111"}), json!({"AWS": "arn:aws:iam::111111111111:root"}), Value::Null),
        (
            json!({"Principal": "arn:aws:iam::111111111111:user/u"}),
            json!({"AWS": "arn:aws:iam::111111111111:user/u"}),
            Value::Null,
        ),
        (
            json!({"Principal": "*", "Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE",
                "PrincipalOrgID": "o-1234567890", "SourceAccount": "111111111111", "SourceArn": "arn:aws:s3:::b"}),
            json!("*"),
            json!({"StringEquals": {"lambda:FunctionUrlAuthType": "NONE", "aws:PrincipalOrgID": "o-1234567890",
                "AWS:SourceAccount": "111111111111"}, "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::b"}}),
        ),
        (
            json!({"Principal": "*", "EventSourceToken": "amzn1.ask.skill.x-y"}),
            json!("*"),
            json!({"StringEquals": {"lambda:EventSourceToken": "amzn1.ask.skill.x-y"}}),
        ),
        (
            json!({"Principal": "*", "InvokedViaFunctionUrl": true}),
            json!("*"),
            json!({"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}),
        ),
    ];
    let mut statements = Vec::new();
    for (n, (mut changes, principal, condition)) in cases.into_iter().enumerate() {
        changes["StatementId"] = json!(format!("s{n}"));
        let action = changes.get("Action").cloned().unwrap_or(json!("lambda:InvokeFunction"));
        let answer = api.permit("", changes).await.ok(201).body;
        let mut wanted = json!({"Sid": format!("s{n}"), "Effect": "Allow", "Principal": principal, "Action": action,
            "Resource": ARN});
        if !condition.is_null() {
            wanted["Condition"] = condition;
        }
        let told = answer["Statement"].as_str().unwrap();
        assert!(told.starts_with(&format!(r#"{{"Sid":"s{n}","Effect":"Allow","Principal":"#)), "{told}");
        assert_eq!(serde_json::from_str::<Value>(told).unwrap(), wanted);
        statements.push(wanted);
    }
    let (policy, _) = api.policy("").await;
    assert_eq!(policy, json!({"Version": "2012-10-17", "Id": "default", "Statement": statements}));
}

#[tokio::test]
async fn function_version_and_alias_are_different_resources() {
    let api = Api::with_alias().await;
    let places = [("", ""), ("?Qualifier=1", ":1"), ("?Qualifier=prod", ":prod")];
    for (n, (qualifier, suffix)) in places.into_iter().enumerate() {
        for (later, _) in &places[n..] {
            let none = "The resource you requested does not exist.";
            api.get(&format!("{POLICY}{later}")).await.fails(404, NOT_FOUND, none);
        }
        // The same name three times: it is unique within one policy.
        api.permit(qualifier, json!({})).await.ok(201);
        let (policy, _) = api.policy(qualifier).await;
        assert_eq!(policy["Statement"][0]["Resource"], format!("{ARN}{suffix}"));
        assert_eq!(policy["Statement"].as_array().unwrap().len(), 1);
    }
    // By the name as well as by the query.
    let by_name = api.get("/2015-03-31/functions/f:prod/policy").await.ok(200).body;
    assert_eq!(by_name, api.get(&format!("{POLICY}?Qualifier=prod")).await.body);
    // A policy of the function is none of `$LATEST`, which has none.
    assert_eq!(api.get(&format!("{POLICY}?Qualifier=$LATEST")).await.status, 404);
    // What is published next has none either.
    api.put("/2015-03-31/functions/f/configuration", json!({"Timeout": 9})).await.ok(200);
    api.configuration().await;
    api.post("/2015-03-31/functions/f/versions", json!({})).await.ok(201);
    assert_eq!(api.get(&format!("{POLICY}?Qualifier=2")).await.status, 404);
    // The alias takes its policy along, wherever it points.
    api.put("/2015-03-31/functions/f/aliases/prod", json!({"FunctionVersion": "2"})).await.ok(200);
    assert_eq!(api.policy("?Qualifier=prod").await.0["Statement"][0]["Resource"], format!("{ARN}:prod"));
    api.delete("/2015-03-31/functions/f?Qualifier=1").await.ok(204);
    assert_eq!(api.get(&format!("{POLICY}?Qualifier=1")).await.status, 404);
}

#[tokio::test]
async fn statements_that_let_others_do_more_than_invoke_are_found() {
    let api = Api::with_alias().await;
    for (n, (qualifier, action, principal)) in [
        ("", "lambda:InvokeFunction", "*"),
        ("", "lambda:invokefunction", "111111111111"),
        ("", "lambda:GetFunction", "s3.amazonaws.com"),
        ("", "lambda:*", "*"),
        ("?Qualifier=prod", "lambda:GetFunction", "111111111111"),
    ]
    .into_iter()
    .enumerate()
    {
        let changes = json!({"StatementId": format!("s{n}"), "Action": action, "Principal": principal});
        api.permit(qualifier, changes).await.ok(201);
    }
    let found = api.functions.statements_beyond_invoke();
    let found: Vec<_> = found.iter().map(|found| (&*found.sid, found.resource.clone())).collect();
    assert_eq!(found, [("s3", ARN.to_owned()), ("s4", format!("{ARN}:prod"))]);
}

#[tokio::test]
async fn a_policy_has_the_revision_of_what_it_belongs_to() {
    let api = Api::with_alias().await;
    let shown = |qualifier: &'static str| {
        let api = &api;
        async move {
            let target = match qualifier {
                "?Qualifier=prod" => "/2015-03-31/functions/f/aliases/prod".to_owned(),
                qualifier => format!("/2015-03-31/functions/f/configuration{qualifier}"),
            };
            api.get(&target).await.ok(200).body["RevisionId"].as_str().unwrap().to_owned()
        }
    };
    let places = ["", "?Qualifier=1", "?Qualifier=prod"];
    for place in places {
        let mut others = Vec::new();
        for other in places.into_iter().filter(|other| *other != place) {
            others.push((other, shown(other).await));
        }
        let before = shown(place).await;
        let wrong = api.permit(place, json!({"RevisionId": "wrong"})).await;
        wrong.fails(412, "PreconditionFailedException", STALE);
        api.permit(place, json!({"RevisionId": before})).await.ok(201);
        let added = shown(place).await;
        assert_ne!(added, before);
        assert_eq!(api.policy(place).await.1, added);
        let target = format!("{POLICY}/s3{place}");
        let join = if place.is_empty() { "?" } else { "&" };
        let wrong = api.delete(&format!("{target}{join}RevisionId={before}")).await;
        wrong.fails(412, "PreconditionFailedException", STALE);
        api.delete(&format!("{target}{join}RevisionId={added}")).await.ok(204);
        assert_ne!(shown(place).await, added);
        assert_eq!(api.get(&format!("{POLICY}{place}")).await.status, 404);
        for (other, revision) in others {
            assert_eq!(shown(other).await, revision, "{place} {other}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_permitted_is_refused_in_the_words_of_aws() {
    let api = Api::with_alias().await;
    let long = "x".repeat(101);
    let matching = |value: &str, path: &str, pattern: &str| {
        format!(
            "1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: {pattern}"
        )
    };
    let source = "arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\\-])+:([a-z]{2}(-gov)?-[a-z]+-\\d{1})?:(\\d{12})?:(.*)";
    let action = "(lambda:[*]|lambda:[a-zA-Z]+|[*])";
    let cases = [
        (json!({"StatementId": "example.com"}), matching("example.com", "statementId", "([a-zA-Z0-9-_]+)")),
        (
            json!({"StatementId": long}),
            format!("1 validation error detected: Value '{long}' at 'statementId' failed to satisfy constraint: Member must have length less than or equal to 100"),
        ),
        (json!({"Action": "s3:GetObject"}), matching("s3:GetObject", "action", action)),
        (json!({"Action": "lambda:"}), matching("lambda:", "action", action)),
        (json!({"Principal": "a b"}), matching("a b", "principal", "[^\\s]+")),
        (json!({"SourceArn": "bucket"}), matching("bucket", "sourceArn", source)),
        (json!({"SourceArn": "arn:aws:s3:local::b"}), matching("arn:aws:s3:local::b", "sourceArn", source)),
        (json!({"SourceAccount": "11111111111"}), matching("11111111111", "sourceAccount", "\\d{12}")),
        (json!({"PrincipalOrgID": "p-1234567890"}), matching("p-1234567890", "principalOrgID", "o-[a-z0-9]{10,32}")),
        (json!({"EventSourceToken": "a b"}), matching("a b", "eventSourceToken", "[a-zA-Z0-9._\\-]+")),
        (
            json!({"FunctionUrlAuthType": "SOME"}),
            "1 validation error detected: Value 'SOME' at 'functionUrlAuthType' failed to satisfy constraint: Member must satisfy enum value set: [NONE, AWS_IAM]".into(),
        ),
    ];
    for (changes, message) in cases {
        api.permit("", changes).await.fails(400, "ValidationException", &message);
    }
    for source in ["arn:aws:s3:::b/*", "arn:aws-us-gov:events:us-gov-west-1:111111111111:rule/r"] {
        api.permit("", json!({"SourceArn": source})).await.ok(201);
        api.delete(&format!("{POLICY}/s3")).await.ok(204);
    }
    api.post(POLICY, json!({})).await.fails(
        400,
        "ValidationException",
        "3 validation errors detected: Value null at 'statementId' failed to satisfy constraint: Member must not be \
         null; Value null at 'action' failed to satisfy constraint: Member must not be null; Value null at 'principal' \
         failed to satisfy constraint: Member must not be null",
    );
    let principal = "The provided principal was invalid. Please check the principal and try again.";
    api.permit("", json!({"Principal": "invalid.nonaws.com"})).await.fails(400, PARAMETER, principal);
    for (action, fault) in [
        ("lambda:GetFunktion", "there is no action lambda:GetFunktion; is lambda:GetFunction meant?"),
        ("lambda:Invoke", "lambda:Invoke is an operation and no action: it asks for lambda:InvokeFunction"),
    ] {
        let message = format!("The provided action was invalid: {fault}");
        api.permit("", json!({"Action": action})).await.fails(400, PARAMETER, &message);
    }
    let url = "FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action";
    api.permit("", json!({"FunctionUrlAuthType": "NONE"})).await.fails(400, PARAMETER, url);
    let latest = "We currently do not support adding policies for $LATEST.";
    api.permit("?Qualifier=$LATEST", json!({})).await.fails(400, PARAMETER, latest);
    let target = "/2015-03-31/functions/f:$LATEST/policy?Qualifier=$LATEST";
    api.post(target, permission(json!({}))).await.fails(400, PARAMETER, latest);
    let target = "/2015-03-31/functions/f:alias-not-42/policy?Qualifier=42";
    api.post(target, permission(json!({}))).await.fails(
        400,
        PARAMETER,
        "The derived qualifier from the function name does not match the specified qualifier.",
    );
    let alias = |name: &str| format!("Cannot find alias arn: {ARN}:{name}");
    api.permit("?Qualifier=nobody", json!({})).await.fails(404, NOT_FOUND, &alias("nobody"));
    api.permit("?Qualifier=with-$-in", json!({})).await.fails(404, NOT_FOUND, &alias("with-$-in"));
    api.permit("?Qualifier=42", json!({})).await.fails(404, NOT_FOUND, &format!("Function not found: {ARN}:42"));
    let nobody = "arn:aws:lambda:us-east-1:111111111111:function:nobody";
    let target = "/2015-03-31/functions/nobody/policy";
    api.post(target, permission(json!({}))).await.fails(404, NOT_FOUND, &format!("Function not found: {nobody}"));
    api.get(target).await.fails(404, NOT_FOUND, "The resource you requested does not exist.");

    let none = "No policy is associated with the given resource.";
    api.delete(&format!("{POLICY}/s3")).await.fails(404, NOT_FOUND, none);
    api.delete(&format!("{POLICY}/s3?Qualifier=nobody")).await.fails(404, NOT_FOUND, &alias("nobody"));
    api.delete(&format!("{target}/s3")).await.fails(404, NOT_FOUND, &format!("No policy found for: {nobody}"));
    api.permit("", json!({})).await.ok(201);
    api.permit("", json!({})).await.fails(
        409,
        "ResourceConflictException",
        "The statement id (s3) provided already exists. Please provide a new statement id, or remove the existing \
         statement.",
    );
    let statement = "Statement other.one is not found in resource policy.";
    api.delete(&format!("{POLICY}/other.one")).await.fails(404, NOT_FOUND, statement);
    api.delete(&format!("{POLICY}/a%20b")).await.fails(
        400,
        "ValidationException",
        &matching("a b", "statementId", "([a-zA-Z0-9-_.]+)"),
    );
}

#[tokio::test]
async fn a_policy_that_would_be_too_long_stays_as_it_is() {
    let api = Api::new();
    api.create().await;
    let mut added = 0;
    let refused = loop {
        let sid = format!("{added:0>100}");
        let answer = api.permit("", json!({"StatementId": sid, "SourceArn": "arn:aws:s3:::b"})).await;
        if answer.status != 201 {
            break answer;
        }
        added += 1;
    };
    let (policy, _) = api.policy("").await;
    assert_eq!(policy["Statement"].as_array().unwrap().len(), added);
    let one = serde_json::to_string(&policy["Statement"][0]).unwrap().len();
    let whole = api.get(POLICY).await.body["Policy"].as_str().unwrap().len();
    let message = format!("The final policy size ({}) is bigger than the limit (20480).", whole + one + 1);
    refused.fails(400, "PolicyLengthExceededException", &message);
    assert!(whole <= 20_480 && whole + one + 1 > 20_480, "{whole} {one}");
}

/// A user without policies of its own.
fn user(name: &str, unique_id: &str) -> Caller {
    let principal = Principal {
        account: ACCOUNT.into(),
        arn: format!("arn:aws:iam::{ACCOUNT}:user/{name}"),
        user_id: unique_id.into(),
        kind: PrincipalKind::User { name: name.into() },
        tags: BTreeMap::new(),
    };
    let identity = Subject { principal: Arc::new(principal), rights: Arc::default() };
    Caller::new(Verified::in_process(ACCOUNT), identity, Default::default(), None, "")
}

impl Api {
    /// Whether the function's policy alone lets a user read the function.
    async fn reads(&self, name: &str, unique_id: &str) -> bool {
        let answer =
            self.send_as(user(name, unique_id), Method::GET, "/2015-03-31/functions/f", &[], Bytes::new()).await;
        assert!([200, 403].contains(&answer.status), "{answer:?}");
        answer.status == 200
    }
}

#[tokio::test]
async fn a_policy_of_a_function_lets_somebody_do_what_it_names_and_nothing_else() {
    let api = Api::with_alias().await;
    assert!(!api.reads("u", "AIDA").await);
    let to_u = |action: &str| json!({"Principal": format!("arn:aws:iam::{ACCOUNT}:user/u"), "Action": action, "StatementId": "u"});
    for (action, qualifier, reads) in [
        ("lambda:InvokeFunction", "", false),
        ("lambda:GetFunction", "?Qualifier=prod", false),
        ("lambda:GetFunction", "", true),
        ("lambda:*", "", true),
    ] {
        api.permit(qualifier, to_u(action)).await.ok(201);
        assert_eq!(api.reads("u", "AIDA").await, reads, "{action} {qualifier}");
        assert!(!api.reads("v", "AIDB").await, "{action} {qualifier}");
        api.delete(&format!("{POLICY}/u{qualifier}")).await.ok(204);
    }
    // An account is not its users: it lets their own policies decide.
    api.permit("", json!({"Principal": ACCOUNT, "Action": "lambda:*"})).await.ok(201);
    assert!(!api.reads("u", "AIDA").await);
}

#[tokio::test]
async fn a_policy_of_a_function_means_whoever_had_the_arn_when_it_was_written() {
    let temp = tempfile::tempdir().unwrap();
    let now = Arc::new(Mutex::new(Meant::Nobody));
    let meant = now.clone();
    let settings = Settings {
        means: Arc::new(move |arn| match arn.ends_with(":user/u") {
            true => meant.lock().unwrap().clone(),
            false => Meant::Unknown,
        }),
        ..Settings::new("us-east-1", ACCOUNT)
    };
    let api = Api::at(temp.path(), settings);
    api.create().await;
    let arn = format!("arn:aws:iam::{ACCOUNT}:user/u");
    let permission = json!({"Principal": arn, "Action": "lambda:GetFunction"});
    let principal = "The provided principal was invalid. Please check the principal and try again.";
    api.permit("", permission.clone()).await.fails(400, PARAMETER, principal);

    let (first, second) = ("AIDAEXAMPLEEXAMPLE01", "AIDAEXAMPLEEXAMPLE02");
    *now.lock().unwrap() = Meant::Entity(first.into());
    let told = api.permit("", permission).await.ok(201);
    assert!(!told.body["Statement"].as_str().unwrap().contains(first), "{told:?}");
    let shown = async || api.policy("").await.0["Statement"][0]["Principal"]["AWS"].as_str().unwrap().to_owned();
    assert_eq!(shown().await, arn);
    assert!(api.reads("u", first).await);
    // It is deleted, and somebody takes its name.
    *now.lock().unwrap() = Meant::Entity(second.into());
    assert!(!api.reads("u", second).await);
    assert_eq!(shown().await, first);
}

#[tokio::test]
async fn a_policy_of_a_layer_version_lets_everybody_read_it_if_it_says_so() {
    let api = Api::new();
    let package = json!({"Content": {"ZipFile": encoded(&package())}});
    api.post("/2018-10-31/layers/l/versions", package.clone()).await.ok(201);
    api.post("/2018-10-31/layers/l/versions", package).await.ok(201);
    let reads = async |number: u32| {
        let target = format!("/2018-10-31/layers/l/versions/{number}");
        api.send_as(user("u", "AIDA"), Method::GET, &target, &[], Bytes::new()).await.status
    };
    assert_eq!((reads(1).await, reads(2).await), (403, 403));
    for (principal, organization, status) in
        [(ACCOUNT, Value::Null, 403), ("*", json!("o-1234567890"), 403), ("*", Value::Null, 200)]
    {
        let mut body = json!({"StatementId": "s", "Action": "lambda:GetLayerVersion", "Principal": principal});
        if !organization.is_null() {
            body["OrganizationId"] = organization;
        }
        api.post("/2018-10-31/layers/l/versions/1/policy", body).await.ok(201);
        assert_eq!((reads(1).await, reads(2).await), (status, 403), "{principal}");
        api.delete("/2018-10-31/layers/l/versions/1/policy/s").await.ok(204);
    }
}
