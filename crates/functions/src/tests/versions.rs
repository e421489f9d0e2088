//! Versions, aliases and revisions.

use super::*;
use crate::function::{Additional, Alias, Function, Resource, Standing, Version, VersionNumber, new_id};
use longshore_core::random::Random;

const CONFLICT: &str = "ResourceConflictException";
const PARAMETER: &str = "InvalidParameterValueException";
const NOT_FOUND: &str = "ResourceNotFoundException";
const UPDATING: &str = "The operation cannot be performed at this time. An update is in progress for resource: \
                        arn:aws:lambda:us-east-1:111111111111:function:f";
const PENDING: &str =
    "The operation cannot be performed at this time. The function is currently in the following state: Pending";
const CONFIGURATION: &str = "/2015-03-31/functions/f/configuration";
const CODE: &str = "/2015-03-31/functions/f/code";
const VERSIONS: &str = "/2015-03-31/functions/f/versions";
const ALIASES: &str = "/2015-03-31/functions/f/aliases";

impl Api {
    /// `f` with the versions 1 and 2, which differ in their time-out.
    async fn with_two_versions() -> Self {
        let api = Self::new();
        api.create().await;
        api.post(VERSIONS, json!({})).await.ok(201);
        api.change(json!({"Timeout": 9})).await;
        assert_eq!(api.post(VERSIONS, json!({})).await.ok(201).body["Version"], "2");
        api
    }

    /// Changes the configuration of `f` and waits for that.
    async fn change(&self, changes: Value) {
        self.put(CONFIGURATION, changes).await.ok(200);
        self.configuration().await;
    }

    async fn alias(&self, name: &str, version: &str, weights: Value) -> Answer {
        let routing = json!({"AdditionalVersionWeights": weights});
        self.post(ALIASES, json!({"Name": name, "FunctionVersion": version, "RoutingConfig": routing})).await
    }

    /// Waits until the host has been asked for so many calls.
    async fn asked(&self, calls: usize) {
        while self.host.seen.lock().unwrap().len() < calls {
            tokio::task::yield_now().await;
        }
    }

    async fn revision(&self, qualifier: &str) -> String {
        let answer = self.get(&format!("/2015-03-31/functions/f?Qualifier={qualifier}")).await.ok(200).body;
        answer["Configuration"]["RevisionId"].as_str().unwrap().to_owned()
    }
}

fn number(number: u32) -> VersionNumber {
    VersionNumber::from_stored(number)
}

fn alias(weight: Option<f64>) -> Alias {
    Alias {
        name: "prod".into(),
        version: number(1),
        additional: weight.map(|weight| Additional { version: number(2), weight }),
        description: String::new(),
        revision_id: new_id(),
    }
}

#[test]
fn each_version_of_an_alias_gets_its_share_of_many_invocations() {
    // The 99.9th percentile of chi-squared with one degree of freedom; the seed is fixed, so that this passes always or
    // never.
    const CRITICAL: f64 = 10.83;
    const DRAWS: u32 = 20_000;
    for (seed, weight) in [(1, 0.05), (2, 0.2), (3, 0.5), (4, 0.9), (5, 0.001)] {
        let (mut random, alias) = (Random::seeded(seed), alias(Some(weight)));
        let second = (0..DRAWS).filter(|_| alias.route(random.next_u64()) == number(2)).count() as f64;
        let (expected, all) = (f64::from(DRAWS) * weight, f64::from(DRAWS));
        let chi_squared = (second - expected).powi(2) / expected + (second - expected).powi(2) / (all - expected);
        assert!(chi_squared < CRITICAL, "weight {weight}: {second} of {all}, chi-squared {chi_squared}");
    }
}

#[test]
fn a_weight_of_nothing_never_counts_and_one_of_all_always() {
    let draws = [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX];
    for (weight, wanted) in [(None, 1), (Some(0.0), 1), (Some(1.0), 2)] {
        for draw in draws {
            assert_eq!(alias(weight).route(draw), number(wanted), "{weight:?} {draw}");
        }
    }
    let half = alias(Some(0.5));
    assert_eq!([half.route(0), half.route((1 << 63) - 1), half.route(1 << 63)], [number(2), number(2), number(1)]);
}

#[test]
fn a_change_is_over_when_its_time_is_and_a_clock_that_was_put_back_holds_nothing_up() {
    let version = |standing| Version {
        number: VersionNumber::LATEST,
        revision_id: "r".into(),
        deployment_id: "d".into(),
        standing,
        code: crate::code::Code { sha256: String::new(), size: 1 },
        modified_ms: 10_000,
        configuration: crate::function::Configuration {
            runtime: "python3.12".into(),
            handler: "h".into(),
            role: ROLE.into(),
            description: String::new(),
            timeout_s: 3,
            memory_mib: 128,
            ephemeral_storage_mib: 512,
            architecture: "x86_64".into(),
            variables: None,
            layers: Vec::new(),
            logging: Default::default(),
            interpreter: String::new(),
        },
        latest_description: None,
    };
    let function = |standing| {
        let mut function = Function {
            id: "i".into(),
            name: "f".into(),
            last_published: VersionNumber::LATEST,
            reserved_concurrency: None,
            provisioned: BTreeMap::new(),
            event_invoke_configs: BTreeMap::new(),
            tags: Default::default(),
            versions: Default::default(),
            aliases: Default::default(),
            policies: Default::default(),
        };
        function.put(version(standing));
        function
    };
    for standing in [Standing::Creating, Standing::Updating] {
        for (now_ms, over) in [(10_000, false), (10_499, false), (10_500, true), (9_600, false), (1, true)] {
            let settled = function(standing).settled_by_time(now_ms, 500);
            assert_eq!(settled.is_some(), over, "{standing:?} {now_ms}");
            if let Some(settled) = settled {
                assert_eq!(settled.latest().standing, Standing::Settled);
                assert_ne!(settled.latest().revision_id, "r");
            }
        }
    }
    assert!(function(Standing::Settled).settled_by_time(i64::MAX, 500).is_none());
    assert!(function(Standing::Settled).settled().is_none());
}

#[tokio::test]
async fn a_function_that_is_being_created_cannot_be_invoked_changed_or_published_until_somebody_looks() {
    let api = Api::new();
    api.create_with(json!({})).await.ok(201);
    for _ in 0..2 {
        api.invoke("f", &[], "{}").await.fails(409, CONFLICT, PENDING);
        api.put(CONFIGURATION, json!({"Timeout": 9})).await.fails(409, CONFLICT, PENDING);
        api.put(CODE, json!({"ZipFile": encoded(&package())})).await.fails(409, CONFLICT, PENDING);
        api.post(VERSIONS, json!({})).await.fails(409, CONFLICT, PENDING);
    }
    assert_eq!(api.configuration().await["State"], "Active");
    api.invoke("f", &[], "{}").await.ok(200);
    api.put(CONFIGURATION, json!({"Timeout": 9})).await.ok(200);
    // Whoever does not look is kept out no longer than an update takes.
    let temp = tempfile::tempdir().unwrap();
    let api = Api::at_once(temp.path());
    api.create_with(json!({})).await.ok(201);
    loop {
        let answer = api.invoke("f", &[], "{}").await;
        if answer.status == 200 {
            break;
        }
        answer.fails(409, CONFLICT, PENDING);
    }
    assert_eq!(api.configuration().await["State"], "Active");
}

#[tokio::test]
async fn while_an_update_is_in_progress_another_is_refused_and_invocations_go_on() {
    let api = Api::new();
    api.create().await;
    api.put(CONFIGURATION, json!({"Timeout": 9})).await.ok(200);
    api.put(CONFIGURATION, json!({"Timeout": 10})).await.fails(409, CONFLICT, UPDATING);
    api.put(CODE, json!({"ZipFile": encoded(&package())})).await.fails(409, CONFLICT, UPDATING);
    api.put(CODE, json!({"ZipFile": encoded(&package()), "DryRun": true})).await.fails(409, CONFLICT, UPDATING);
    api.post(VERSIONS, json!({})).await.fails(409, CONFLICT, UPDATING);
    api.invoke("f", &[], "{}").await.ok(200);
    let settled = api.configuration().await;
    assert_eq!((&settled["LastUpdateStatus"], &settled["Timeout"]), (&json!("Successful"), &json!(9)));
    api.put(CODE, json!({"ZipFile": encoded(&package())})).await.ok(200);
}

#[tokio::test]
async fn a_description_is_a_change_and_publishing_may_override_it() {
    let api = Api::new();
    api.create_with(json!({"Description": "latest"})).await.ok(201);
    api.configuration().await;
    let publish = |body: Value| {
        let api = &api;
        async move {
            let answer = api.post(VERSIONS, body).await.ok(201).body;
            (answer["Version"].as_str().unwrap().to_owned(), answer["Description"].as_str().unwrap().to_owned())
        }
    };
    let version = |version: &str, description: &str| (version.to_owned(), description.to_owned());
    assert_eq!(publish(json!({"Description": "one"})).await, version("1", "one"));
    // Nothing has changed, whatever it is to be called: what is there is given, as it is.
    assert_eq!(publish(json!({"Description": "two"})).await, version("1", "one"));
    assert_eq!(publish(json!({})).await, version("1", "one"));
    api.change(json!({"Description": "later"})).await;
    assert_eq!(publish(json!({})).await, version("2", "later"));
    // A change that is taken back is none.
    api.change(json!({"Timeout": 9})).await;
    api.change(json!({"Timeout": 3})).await;
    assert_eq!(publish(json!({})).await, version("2", "later"));
    api.delete("/2015-03-31/functions/f?Qualifier=2").await.ok(204);
    assert_eq!(publish(json!({})).await, version("3", "later"));
}

#[tokio::test]
async fn code_that_is_published_unchanged_gets_no_new_number() {
    let temp = tempfile::tempdir().unwrap();
    let code_bytes_max = 2 * package().len() as u64;
    let api = Api::at(temp.path(), Settings { code_bytes_max, ..Settings::new("us-east-1", ACCOUNT) });
    api.create().await;
    let body = json!({"ZipFile": encoded(&package()), "Publish": true});
    for _ in 0..2 {
        // It is not counted either, or the second would not fit.
        let answer = api.put(CODE, body.clone()).await.ok(200).body;
        assert_eq!((&answer["Version"], &answer["FunctionArn"]), (&json!("1"), &json!(format!("{ARN}:1"))));
        api.configuration().await;
    }
    let newer = json!({"ZipFile": encoded(&zip(&[file("handler.py", b"new code")])), "Publish": true});
    api.put(CODE, newer).await.fails(400, "CodeStorageExceededException", "Code storage limit exceeded.");
}

#[tokio::test]
async fn a_revision_changes_with_what_it_belongs_to_and_with_nothing_else() {
    let api = Api::new();
    let created = api.create_with(json!({})).await.ok(201).body["RevisionId"].as_str().unwrap().to_owned();
    let active = api.revision("$LATEST").await;
    assert_ne!(created, active);
    let stale = json!({"RevisionId": created});
    let text = "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to \
                retrieve the latest Revision Id";
    api.post(VERSIONS, stale.clone()).await.fails(412, "PreconditionFailedException", text);
    let published = api.post(VERSIONS, json!({"RevisionId": active})).await.ok(201).body;
    let one = api.revision("1").await;
    // A version that was published at rest is at rest.
    assert_eq!(published["RevisionId"], one.as_str());
    let latest = api.revision("$LATEST").await;
    assert_ne!(latest, active);
    let made = api.post(ALIASES, json!({"Name": "prod", "FunctionVersion": "1"})).await.ok(201).body;
    assert_eq!((api.revision("$LATEST").await, api.revision("1").await), (latest.clone(), one.clone()));
    // An alias's revision is its own; what it shows as a function is the version's.
    assert_eq!(api.revision("prod").await, one);
    assert_ne!(made["RevisionId"], one.as_str());
    let target = format!("{ALIASES}/prod");
    api.put(&target, stale).await.fails(412, "PreconditionFailedException", text);
    let updated = api.put(&target, json!({"RevisionId": made["RevisionId"]})).await.ok(200).body;
    // By nothing, and yet another.
    assert_ne!(updated["RevisionId"], made["RevisionId"]);
    assert_eq!(api.get(&target).await.ok(200).body["RevisionId"], updated["RevisionId"]);
    assert_eq!((api.revision("$LATEST").await, api.revision("1").await), (latest, one));
}

#[tokio::test]
async fn an_alias_is_made_shown_moved_listed_and_removed() {
    let api = Api::with_two_versions().await;
    let body = json!({"Name": "prod", "FunctionVersion": "1", "Description": "d"});
    let made = api.post(ALIASES, body).await.ok(201).body;
    let shape = |version: &str, description: &str, revision: &Value| {
        json!({"AliasArn": format!("{ARN}:prod"), "Name": "prod", "FunctionVersion": version,
            "Description": description, "RevisionId": revision})
    };
    assert_eq!(made, shape("1", "d", &made["RevisionId"]));
    let target = format!("{ALIASES}/prod");
    assert_eq!(api.get(&target).await.ok(200).body, made);

    let weighted = json!({"RoutingConfig": {"AdditionalVersionWeights": {"2": 0.2}}});
    let shifted = api.put(&target, weighted.clone()).await.ok(200).body;
    let mut wanted = shape("1", "d", &shifted["RevisionId"]);
    wanted["RoutingConfig"] = json!({"AdditionalVersionWeights": {"2": 0.2}});
    assert_eq!(shifted, wanted);
    // What is absent stays.
    let described = api.put(&target, json!({"Description": ""})).await.ok(200).body;
    assert_eq!(described["RoutingConfig"], json!({"AdditionalVersionWeights": {"2": 0.2}}));
    assert_eq!((&described["Description"], &described["FunctionVersion"]), (&json!(""), &json!("1")));
    // Moving on to the second version ends the shift.
    let moved = api.put(&target, json!({"FunctionVersion": "2"})).await.ok(200).body;
    assert_eq!(moved, shape("2", "", &moved["RevisionId"]));
    for cleared in [json!({"AdditionalVersionWeights": {}}), json!({})] {
        let back = json!({"FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.2}}});
        assert!(api.put(&target, back).await.ok(200).body["RoutingConfig"].is_object());
        let cleared = api.put(&target, json!({"RoutingConfig": cleared})).await.ok(200).body;
        assert_eq!(cleared["RoutingConfig"], Value::Null);
    }

    api.alias("latest", "$LATEST", json!({})).await.ok(201);
    api.alias("canary", "1", json!({"2": 0.5})).await.ok(201);
    api.alias("new", "2", json!({})).await.ok(201);
    let list = |query: &'static str| {
        let api = &api;
        async move {
            let page = api.get(&format!("{ALIASES}{query}")).await.ok(200).body;
            let names = page["Aliases"].as_array().unwrap().iter().map(|a| a["Name"].as_str().unwrap().to_owned());
            (names.collect::<Vec<_>>().join(" "), page["NextMarker"].as_str().map(str::to_owned))
        }
    };
    for (query, names) in [
        ("", "canary latest new prod"),
        ("?FunctionVersion=1", "canary prod"),
        ("?FunctionVersion=2", "canary new"),
        ("?FunctionVersion=$LATEST", "latest"),
        ("?FunctionVersion=7", ""),
    ] {
        assert_eq!(list(query).await, (names.to_owned(), None), "{query}");
    }
    let (first, marker) = list("?MaxItems=3").await;
    assert_eq!(first, "canary latest new");
    let rest = api.get(&format!("{ALIASES}?MaxItems=3&Marker={}", marker.unwrap())).await.ok(200).body;
    assert_eq!((rest["Aliases"].as_array().unwrap().len(), &rest["Aliases"][0]["Name"]), (1, &json!("prod")));
    assert_eq!(rest["NextMarker"], Value::Null);
    assert_eq!(api.get(&format!("{ALIASES}?FunctionVersion=x")).await.error().1, "ValidationException");

    for _ in 0..2 {
        api.delete(&target).await.ok(204);
        api.get(&target).await.fails(404, NOT_FOUND, &format!("Cannot find alias arn: {ARN}:prod"));
    }
}

#[tokio::test]
async fn an_alias_that_cannot_be_is_refused_in_the_words_of_aws() {
    let api = Api::with_two_versions().await;
    let one = |rest: &str| format!("1 validation error detected: {rest}");
    let value = "Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must \
                 have value greater than or equal to 0.0, Member must not be null]";
    let keys = "Map keys must satisfy constraint: [Member must have length less than or equal to 1024, Member must \
                have length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+, Member \
                must not be null]";
    let weights = |map: &str, constraint: &str| {
        one(&format!(
            "Value '{map}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: {constraint}"
        ))
    };
    let pattern = "failed to satisfy constraint: Member must satisfy regular expression pattern:";
    let constraint = "ValidationException";
    let missing = |qualifier: &str| format!("Function not found: {ARN}:{qualifier}");
    let same = "Invalid function version 1. Function version 1 is already included in routing configuration.";
    let latest = "$LATEST is not supported for an alias pointing to more than 1 version";
    let many = "Number of items in AdditionalVersionWeights cannot be greater than 1";
    let cases = [
        ("1", json!({"1": 0.8, "2": 0.2}), 400, PARAMETER, many.to_owned()),
        ("1", json!({"2": 2}), 400, constraint, weights("{2=2.0}", value)),
        ("1", json!({"2": -1}), 400, constraint, weights("{2=-1.0}", value)),
        ("1", json!({"2": null}), 400, constraint, weights("{2=null}", value)),
        ("1", json!({"$LATEST": 0.5}), 400, constraint, weights("{$LATEST=0.5}", keys)),
        ("1", json!({"1": 0.5}), 400, PARAMETER, same.to_owned()),
        ("10", json!({"2": 0.5}), 404, NOT_FOUND, missing("10")),
        ("1", json!({"10": 0.5}), 404, NOT_FOUND, missing("10")),
        ("$LATEST", json!({"1": 0.5}), 400, PARAMETER, latest.to_owned()),
        ("$LATEST.PUBLISHED", json!({}), 404, NOT_FOUND, missing("$LATEST.PUBLISHED")),
        (
            "one",
            json!({}),
            400,
            constraint,
            one(&format!("Value 'one' at 'functionVersion' {pattern} (\\$LATEST(\\.PUBLISHED)?|[0-9]+)")),
        ),
    ];
    api.alias("there", "1", json!({})).await.ok(201);
    for (version, map, status, code, message) in cases {
        api.alias("custom", version, map.clone()).await.fails(status, code, &message);
        // An update is held to the same.
        let routing = json!({"AdditionalVersionWeights": map});
        let body = json!({"FunctionVersion": version, "RoutingConfig": routing});
        api.put(&format!("{ALIASES}/there"), body).await.fails(status, code, &message);
    }
    assert_eq!(api.get(ALIASES).await.body["Aliases"].as_array().unwrap().len(), 1);
    assert_eq!(api.get(&format!("{ALIASES}/there")).await.body["FunctionVersion"], "1");
    api.alias("there", "1", json!({})).await.fails(409, CONFLICT, &format!("Alias already exists: {ARN}:there"));
    let names = [
        ("2024", format!("Value '2024' at 'name' {pattern} (?!^[0-9]+$)([a-zA-Z0-9-_]+)")),
        ("a.b", format!("Value 'a.b' at 'name' {pattern} (?!^[0-9]+$)([a-zA-Z0-9-_]+)")),
        (
            &*"a".repeat(129),
            format!(
                "Value '{}' at 'name' failed to satisfy constraint: Member must have length less than or equal to 128",
                "a".repeat(129)
            ),
        ),
    ];
    for (name, message) in names {
        api.alias(name, "1", json!({})).await.fails(400, constraint, &one(&message));
        api.get(&format!("{ALIASES}/{name}")).await.fails(400, constraint, &one(&message));
    }
    api.alias("2024-01-02", "1", json!({})).await.ok(201);
    api.post(ALIASES, json!({})).await.fails(
        400,
        constraint,
        "2 validation errors detected: Value null at 'name' failed to satisfy constraint: Member must not be null; \
         Value null at 'functionVersion' failed to satisfy constraint: Member must not be null",
    );
    let target = "/2015-03-31/functions/g/aliases";
    let body = json!({"Name": "custom", "FunctionVersion": "1"});
    let g = "Function not found: arn:aws:lambda:us-east-1:111111111111:function:g";
    api.post(target, body).await.fails(404, NOT_FOUND, &format!("{g}:1"));
    api.get(target).await.fails(404, NOT_FOUND, g);
    api.delete(&format!("{target}/a")).await.fails(404, NOT_FOUND, g);
    api.put(&format!("{ALIASES}/no"), json!({})).await.fails(404, NOT_FOUND, &format!("Alias not found: {ARN}:no"));
    api.get(&format!("{ALIASES}/no")).await.fails(404, NOT_FOUND, &format!("Cannot find alias arn: {ARN}:no"));
}

#[tokio::test]
async fn both_versions_of_an_alias_have_one_role_also_after_it_has_moved() {
    let api = Api::with_two_versions().await;
    api.change(json!({"Role": "arn:aws:iam::111111111111:role/other"})).await;
    assert_eq!(api.post(VERSIONS, json!({})).await.ok(201).body["Version"], "3");
    let refused = api.alias("prod", "1", json!({"3": 0.5})).await;
    assert_eq!((refused.status, refused.error().1), (400, PARAMETER));
    assert!(refused.error().2.contains("same execution role"), "{refused:?}");
    api.alias("prod", "1", json!({"2": 0.5})).await.ok(201);
    let target = format!("{ALIASES}/prod");
    // The routing would stay as it is, and no longer fit.
    assert_eq!(api.put(&target, json!({"FunctionVersion": "3"})).await.error().1, PARAMETER);
    let latest = "$LATEST is not supported for an alias pointing to more than 1 version";
    api.put(&target, json!({"FunctionVersion": "$LATEST"})).await.fails(400, PARAMETER, latest);
    let without = json!({"FunctionVersion": "3", "RoutingConfig": {}});
    api.put(&target, without).await.ok(200);
}

#[tokio::test]
async fn a_version_that_an_alias_may_run_stays() {
    let api = Api::with_two_versions().await;
    api.alias("live", "1", json!({})).await.ok(201);
    api.alias("canary", "1", json!({"2": 0.1})).await.ok(201);
    let version = |n: u32| format!("/2015-03-31/functions/f?Qualifier={n}");
    let text = |names: &str| format!("Unable to delete version because the following aliases reference it: [{names}]");
    api.delete(&version(1)).await.fails(409, CONFLICT, &text("canary, live"));
    api.delete(&version(2)).await.fails(409, CONFLICT, &text("canary"));
    api.delete("/2015-03-31/functions/f:live").await.fails(
        400,
        PARAMETER,
        "Deletion of aliases is not currently supported.",
    );
    api.delete(&format!("{ALIASES}/canary")).await.ok(204);
    api.delete(&version(2)).await.ok(204);
    api.delete("/2015-03-31/functions/f").await.ok(204);
    // Its aliases are gone with it.
    api.create().await;
    assert_eq!(api.get(ALIASES).await.body["Aliases"], json!([]));
    api.delete("/2015-03-31/functions/nobody?Qualifier=$LATEST").await.fails(
        400,
        PARAMETER,
        "$LATEST version cannot be deleted without deleting the function.",
    );
}

#[tokio::test]
async fn an_alias_runs_what_it_points_to_at_each_invocation() {
    let api = Api::with_two_versions().await;
    api.alias("prod", "1", json!({})).await.ok(201);
    let executed = |name: &'static str| {
        let api = &api;
        async move { api.invoke(name, &[], "{}").await.ok(200).header("x-amz-executed-version").to_owned() }
    };
    assert_eq!(executed("f:prod").await, "1");
    let target = format!("{ALIASES}/prod");
    api.put(&target, json!({"FunctionVersion": "2"})).await.ok(200);
    assert_eq!(executed("f:prod").await, "2");
    assert_eq!(executed("f:1").await, "1");
    api.put(&target, json!({"RoutingConfig": {"AdditionalVersionWeights": {"1": 1.0}}})).await.ok(200);
    assert_eq!(executed("f:prod").await, "1");
    {
        let seen = api.host.seen.lock().unwrap();
        let last = &seen.last().unwrap();
        // The function is told how it was called, and which version it is.
        assert_eq!((last.1.invoked_arn.as_str(), last.0.version.as_str()), (&*format!("{ARN}:prod"), "1"));
        // Each version has environments of its own, and `$LATEST` has too.
        assert_ne!(seen[0].0.id, seen[1].0.id);
        assert_eq!((seen[0].0.timeout_s, seen[1].0.timeout_s), (3, 9));
    }
    executed("f").await;
    let seen: Vec<String> = api.host.seen.lock().unwrap().iter().map(|(d, _)| d.id.clone()).collect();
    assert!(seen[..4].iter().all(|id| *id != seen[4]), "{seen:?}");
    // Nothing that runs has changed: no environment was let go.
    assert_eq!(api.host.retired.lock().unwrap().len(), 1);
    assert_eq!(api.invoke("f:nobody", &[], "{}").await.error().2, format!("Function not found: {ARN}:nobody"));

    let shown = api.get("/2015-03-31/functions/f?Qualifier=prod").await.ok(200).body;
    let configuration = &shown["Configuration"];
    assert_eq!(
        (&configuration["FunctionArn"], &configuration["Version"]),
        (&json!(format!("{ARN}:prod")), &json!("2"))
    );
    let same = api.get("/2015-03-31/functions/f:prod/configuration").await.ok(200).body;
    assert_eq!(&same, configuration);
}

#[tokio::test]
async fn the_engine_resolves_an_alias_at_each_call_and_a_version_that_is_gone_is_a_404() {
    let api = Api::with_two_versions().await;
    api.alias("prod", "1", json!({"2": 0.5})).await.ok(201);
    let call = |name: String| {
        let functions = api.functions.clone();
        async move { functions.invoke(&name, Bytes::from_static(b"{}"), Patience::Forever, None).await }
    };
    let mut counts = [0_u32; 3];
    for _ in 0..64 {
        let Invoked::Answered { executed_version, .. } = call(format!("{ARN}:prod")).await else { panic!("it ran") };
        counts[executed_version.parse::<usize>().unwrap()] += 1;
    }
    // Both versions side by side; that one is never drawn in 64 times happens once in 10^19.
    assert!(counts[1] > 0 && counts[2] > 0, "{counts:?}");
    assert_eq!(api.functions.slots(&format!("{ARN}:prod")), 8);
    let refused = |invoked: Invoked| match invoked {
        Invoked::Refused(error) => (error.status.as_u16(), error.message),
        Invoked::Answered { .. } => panic!("{invoked:?}"),
    };
    api.delete(&format!("{ALIASES}/prod")).await.ok(204);
    let missing = |qualifier: &str| (404, format!("Function not found: {ARN}:{qualifier}"));
    assert_eq!(refused(call(format!("{ARN}:prod")).await), missing("prod"));
    api.delete("/2015-03-31/functions/f?Qualifier=2").await.ok(204);
    assert_eq!(refused(call(format!("{ARN}:2")).await), missing("2"));
}

#[tokio::test]
async fn a_call_that_waits_while_its_version_changes_runs_the_new_one_or_is_told_that_there_is_none() {
    let api = Api::with_two_versions().await;
    api.alias("prod", "1", json!({})).await.ok(201);
    // Asks for a call that has to wait.
    let waiting = |name: &'static str| {
        api.next(Outcome::Gone { call: Box::new(host_call()) });
        let functions = api.functions.clone();
        tokio::spawn(
            async move { functions.invoke(name, Bytes::from_static(br#"{"a":1}"#), Patience::Forever, None).await },
        )
    };
    let answered = |version: &str| Invoked::Answered {
        payload: Bytes::from_static(br#"{"a":1}"#),
        function_error: false,
        executed_version: version.into(),
    };
    let call = waiting("f");
    api.asked(1).await;
    api.put(CONFIGURATION, json!({"Timeout": 7})).await.ok(200);
    api.host.retiring.notify_one();
    assert_eq!(call.await.unwrap(), answered("$LATEST"));
    let call = waiting("f:prod");
    api.asked(3).await;
    api.put(&format!("{ALIASES}/prod"), json!({"FunctionVersion": "2"})).await.ok(200);
    api.delete("/2015-03-31/functions/f?Qualifier=1").await.ok(204);
    api.host.retiring.notify_one();
    assert_eq!(call.await.unwrap(), answered("2"));
    {
        let seen = api.host.seen.lock().unwrap();
        // The same call each time, of another deployment.
        let timeouts: Vec<u32> = seen.iter().map(|(deployment, _)| deployment.timeout_s).collect();
        assert_eq!(timeouts, [9, 7, 3, 9]);
        assert!(seen.chunks(2).all(|pair| pair[0].1 == pair[1].1), "{seen:?}");
    }
    for (name, calls) in [("f:2", 5), ("f", 6), ("f", 7)] {
        let call = waiting(name);
        api.asked(calls).await;
        match calls {
            5 => {
                api.delete(&format!("{ALIASES}/prod")).await.ok(204);
                api.delete("/2015-03-31/functions/f?Qualifier=2").await.ok(204);
            }
            6 => {
                api.delete("/2015-03-31/functions/f").await.ok(204);
                // Another one of its name gets none of its calls.
                api.create().await.ok(201);
                api.get("/2015-03-31/functions/f").await.ok(200);
            }
            _ => {
                api.delete("/2015-03-31/functions/f").await.ok(204);
            }
        }
        api.host.retiring.notify_one();
        let Invoked::Refused(error) = call.await.unwrap() else { panic!("it is not there any more") };
        let qualifier = name.strip_prefix("f:").unwrap_or("$LATEST");
        let message = format!("Function not found: {ARN}:{qualifier}");
        assert_eq!((error.status, error.message), (StatusCode::NOT_FOUND, message));
    }
}

fn host_call() -> Call {
    Call {
        request_id: String::new(),
        invoked_arn: String::new(),
        payload: Bytes::new(),
        client_context: None,
        trace_id: None,
        want_log_tail: false,
        patience: Patience::Forever,
        start: None,
    }
}

#[tokio::test]
async fn aliases_and_policies_outlive_the_server() {
    let temp = tempfile::tempdir().unwrap();
    let settings = || Settings::new("us-east-1", ACCOUNT);
    let api = Api::at(temp.path(), settings());
    api.create().await;
    api.post(VERSIONS, json!({})).await.ok(201);
    api.change(json!({"Description": "later"})).await;
    api.post(VERSIONS, json!({"Description": "other"})).await.ok(201);
    let prod = api.alias("prod", "1", json!({"2": 0.25})).await.ok(201).body;
    api.alias("gone", "1", json!({})).await.ok(201);
    let permission = json!({"StatementId": "s3", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"});
    let policy = "/2015-03-31/functions/f/policy";
    for qualifier in ["", "?Qualifier=1", "?Qualifier=prod", "?Qualifier=gone"] {
        api.post(&format!("{policy}{qualifier}"), permission.clone()).await.ok(201);
    }
    api.delete(&format!("{ALIASES}/gone")).await.ok(204);
    let before = [api.get(policy).await.body, api.get(&format!("{policy}?Qualifier=prod")).await.body];
    drop(api);

    let api = Api::at(temp.path(), settings());
    let after = api.get(&format!("{ALIASES}/prod")).await.ok(200).body;
    assert_eq!(after["RoutingConfig"], prod["RoutingConfig"]);
    assert_eq!([api.get(policy).await.body, api.get(&format!("{policy}?Qualifier=prod")).await.body], before);
    assert_eq!(api.get(ALIASES).await.body["Aliases"].as_array().unwrap().len(), 1);
    api.get(&format!("{policy}?Qualifier=1")).await.ok(200);
    // A new alias of an old name has nothing of its predecessor.
    api.alias("gone", "1", json!({})).await.ok(201);
    assert_eq!(api.get(&format!("{policy}?Qualifier=gone")).await.status, 404);
    // It is still known what was published, under whatever description.
    assert_eq!(api.post(VERSIONS, json!({})).await.ok(201).body["Version"], "2");
}

#[tokio::test]
async fn functions_from_before_there_were_aliases_are_read_and_published_as_they_were() {
    let temp = tempfile::tempdir().unwrap();
    {
        let before = longshore_store::Schema { migrations: &SCHEMA.migrations[..1], ..SCHEMA };
        let records = Records::open(&temp.path().join("records.db"), &[before], Fatal::new()).unwrap();
        let row = |number: u32, description: &str| {
            let configuration = json!({"runtime": "python3.12", "handler": "h", "role": ROLE, "timeout_s": 3,
                "memory_mib": 128, "ephemeral_storage_mib": 512, "architecture": "x86_64", "variables": null,
                "description": description});
            format!(
                "INSERT INTO function_version (function_id, number, revision_id, deployment_id, standing, code_sha256,
                     code_size, modified_ms, configuration)
                 VALUES ('i', {number}, 'r{number}', 'd{number}', 'Settled', 'c0ffee', 1, 0, '{configuration}');"
            )
        };
        let sql = format!(
            "INSERT INTO function (id, name, last_published, tags) VALUES ('i', 'f', 1, '{{}}'); {} {}",
            row(0, "latest"),
            row(1, "one")
        );
        let written =
            records.write::<_, crate::error::FunctionError>(move |connection| Ok(connection.execute_batch(&sql)?));
        written.await.unwrap();
    }
    let api = Api::at(temp.path(), Settings::new("us-east-1", ACCOUNT));
    // What description `$LATEST` had when 1 was published is not known, so that it counts for nothing.
    let again = api.post(VERSIONS, json!({})).await.ok(201).body;
    assert_eq!((&again["Version"], &again["RevisionId"]), (&json!("1"), &json!("r1")));
    api.alias("prod", "1", json!({})).await.ok(201);
    api.change(json!({"Timeout": 9})).await;
    assert_eq!(api.post(VERSIONS, json!({})).await.ok(201).body["Version"], "2");
}

#[tokio::test]
async fn a_name_is_shorter_where_no_qualifier_is_expected() {
    let api = Api::new();
    let long = |chars: usize| format!("{}{}", ARN, "x".repeat(chars - ARN.len()));
    let message = |name: &str, most: usize| {
        format!(
            "1 validation error detected: Value '{name}' at 'functionName' failed to satisfy constraint: Member must \
             have length less than or equal to {most}"
        )
    };
    for (path, most) in
        [("aliases", 140), ("aliases/a", 140), ("versions", 256), ("policy", 256), ("configuration", 256)]
    {
        let target = |name: &str| format!("/2015-03-31/functions/{name}/{path}");
        assert_eq!(api.get(&target(&long(most))).await.status, 404, "{path}");
        let longer = long(most + 1);
        api.get(&target(&longer)).await.fails(400, "ValidationException", &message(&longer, most));
    }
    let longer = long(257);
    let target = format!("/2015-03-31/functions/{longer}/aliases");
    api.get(&target).await.fails(400, "ValidationException", &message(&longer, 140));
}

#[test]
fn a_qualifier_names_the_function_a_version_or_an_alias() {
    for (qualifier, wanted) in [
        (None, Resource::Function),
        (Some("$LATEST"), Resource::Version(VersionNumber::LATEST)),
        (Some("12"), Resource::Version(number(12))),
        (Some("prod"), Resource::Alias("prod".into())),
        (Some("2024-01-02"), Resource::Alias("2024-01-02".into())),
        (Some("$latest"), Resource::Alias("$latest".into())),
    ] {
        let resource = Resource::of(qualifier);
        assert_eq!(resource, wanted);
        assert_eq!(resource.qualifier().as_deref(), qualifier);
    }
}
