//! Reserved and provisioned concurrency, as the API shows them and as the host is told. Texts: Lambda spec 5.1 `[S]`.

use super::*;

const PROVISIONED: &str = "/2019-09-30/functions/f/provisioned-concurrency";

impl Api {
    /// A function with version 1, and version 2 of other code.
    async fn with_versions() -> Self {
        let api = Self::new();
        api.create_with(json!({"Publish": true})).await.ok(201);
        let newer = zip(&[file("handler.py", b"newer")]);
        api.get("/2015-03-31/functions/f").await.ok(200);
        let code = json!({"ZipFile": encoded(&newer), "Publish": true});
        api.put("/2015-03-31/functions/f/code", code).await.ok(200);
        api.get("/2015-03-31/functions/f").await.ok(200);
        api
    }

    async fn reserve(&self, n: i64) -> Answer {
        self.put("/2017-10-31/functions/f/concurrency", json!({"ReservedConcurrentExecutions": n})).await
    }

    async fn provision(&self, qualifier: &str, n: i64) -> Answer {
        let target = format!("{PROVISIONED}?Qualifier={qualifier}");
        self.put(&target, json!({"ProvisionedConcurrentExecutions": n})).await
    }

    async fn provisioned(&self, qualifier: &str) -> Answer {
        self.get(&format!("{PROVISIONED}?Qualifier={qualifier}")).await
    }

    /// What the host was told: reserved concurrency, and environments by version.
    fn told(&self) -> (Option<u32>, Vec<(String, u32)>) {
        let terms = self.host.terms.lock().unwrap()["f"].clone();
        (terms.reserved, terms.provisioned.iter().map(|(d, n)| (d.version.clone(), *n)).collect())
    }
}

#[tokio::test]
async fn provisioned_concurrency_is_in_progress_until_its_environments_are_ready() {
    let api = Api::with_versions().await;
    let put = api.provision("1", 3).await.ok(202).body;
    let modified = put["LastModified"].as_str().unwrap();
    assert!(modified.ends_with("+0000") && modified.len() == 28, "{modified}");
    let shape = |ready: u32, status: &str| {
        json!({
            "RequestedProvisionedConcurrentExecutions": 3, "AvailableProvisionedConcurrentExecutions": ready,
            "AllocatedProvisionedConcurrentExecutions": ready, "Status": status, "LastModified": modified,
        })
    };
    assert_eq!(put, shape(0, "IN_PROGRESS"));
    assert_eq!(api.told(), (None, vec![("1".into(), 3)]));
    let is = |ready, complete, failed_by_function| {
        *api.host.provisioning.lock().unwrap() = Provisioning { wanted: 3, ready, complete, failed_by_function };
    };
    is(2, false, None);
    assert_eq!(api.provisioned("1").await.ok(200).body, shape(2, "IN_PROGRESS"));
    is(3, true, None);
    assert_eq!(api.provisioned("1").await.ok(200).body, shape(3, "READY"));
    is(2, true, None);
    assert_eq!(api.provisioned("1").await.ok(200).body, shape(2, "READY"), "one is being replaced");
    is(0, false, Some(true));
    let failed = api.provisioned("1").await.ok(200).body;
    assert_eq!((&failed["Status"], &failed["StatusReason"]), (&json!("FAILED"), &json!("FUNCTION_ERROR_INIT_FAILURE")));
    is(0, false, Some(false));
    let failed = api.provisioned("1").await.ok(200).body;
    assert!(failed["StatusReason"].as_str().unwrap().starts_with("The server could not start"), "{failed}");
    is(3, true, None);
    let listed = api.get(&format!("{PROVISIONED}?List=ALL")).await.ok(200).body;
    let mut item = shape(3, "READY");
    item["FunctionArn"] = format!("{ARN}:1").into();
    assert_eq!(listed, json!({"ProvisionedConcurrencyConfigs": [item]}));
    api.delete(&format!("{PROVISIONED}?Qualifier=1")).await.ok(204);
    assert_eq!(api.told(), (None, vec![]));
    assert_eq!(
        api.get(&format!("{PROVISIONED}?List=ALL")).await.ok(200).body,
        json!({"ProvisionedConcurrencyConfigs": []})
    );
}

#[tokio::test]
async fn errors_about_provisioned_concurrency_are_awss() {
    let api = Api::with_versions().await;
    let (missing, parameter) = ("ResourceNotFoundException", "InvalidParameterValueException");
    let (unpublished, not_qualified) = (
        "Provisioned Concurrency Configs cannot be applied to unpublished function versions.",
        "The function resource provided must be an alias or a published version.",
    );
    let (no_alias, no_version) =
        (format!("Cannot find alias arn: {ARN}:noalias"), format!("Function not found: {ARN}:10"));
    let delete = |qualifier: &str| {
        let target = format!("{PROVISIONED}?Qualifier={qualifier}");
        let api = &api;
        async move { api.delete(&target).await }
    };
    let none = "No Provisioned Concurrency Config found for this function";
    api.provisioned("1").await.fails(404, "ProvisionedConcurrencyConfigNotFoundException", none);
    api.provisioned("noalias").await.fails(404, missing, &no_alias);
    api.provisioned("10").await.fails(404, missing, &no_version);
    api.provisioned("$LATEST").await.fails(400, parameter, not_qualified);
    api.provision("noalias", 1).await.fails(404, missing, &no_alias);
    api.provision("10", 1).await.fails(404, missing, &no_version);
    api.provision("$LATEST", 1).await.fails(400, parameter, unpublished);
    delete("noalias").await.fails(404, missing, &no_alias);
    delete("10").await.fails(404, missing, &no_version);
    delete("$LATEST").await.fails(400, parameter, not_qualified);
    delete("1").await.ok(204);
    let other = |rest: &str| format!("/2019-09-30/functions/nothing/provisioned-concurrency{rest}");
    let arn = "arn:aws:lambda:us-east-1:111111111111:function:nothing";
    api.get(&other("?List=ALL")).await.fails(404, missing, &format!("Function not found: {arn}"));
    api.get(&other("?Qualifier=noalias")).await.fails(404, missing, &format!("Cannot find alias arn: {arn}:noalias"));
    let one = json!({"ProvisionedConcurrentExecutions": 1});
    api.put(&other("?Qualifier=1"), one).await.fails(404, missing, &format!("Function not found: {arn}:1"));
    api.provision("1", 0).await.fails(
        400,
        "ValidationException",
        "1 validation error detected: Value '0' at 'provisionedConcurrentExecutions' failed to satisfy constraint: \
         Member must have value greater than or equal to 1",
    );
    api.put(PROVISIONED, json!({"ProvisionedConcurrentExecutions": 1})).await.fails(
        400,
        "ValidationException",
        "1 validation error detected: Value null at 'qualifier' failed to satisfy constraint: Member must not be null",
    );
}

#[tokio::test]
async fn what_is_provisioned_is_within_what_is_reserved_and_within_the_account() {
    let api = Api::with_versions().await;
    let parameter = "InvalidParameterValueException";
    api.provision("1", 1_001).await.fails(
        400,
        parameter,
        "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [1000].",
    );
    api.provision("1", 901).await.fails(
        400,
        parameter,
        "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum \
         value of [100].",
    );
    api.provision("1", 2).await.ok(202);
    let unreserved = || async {
        api.get("/2016-08-19/account-settings").await.body["AccountLimit"]["UnreservedConcurrentExecutions"].clone()
    };
    assert_eq!(unreserved().await, 998);
    api.reserve(1).await.fails(
        400,
        parameter,
        " ReservedConcurrentExecutions  1 should not be lower than function's total provisioned concurrency [2].",
    );
    api.reserve(3).await.ok(200);
    assert_eq!(unreserved().await, 997);
    assert_eq!(api.told(), (Some(3), vec![("1".into(), 2)]));
    api.provision("2", 2).await.fails(
        400,
        parameter,
        "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function",
    );
    api.provision("2", 1).await.ok(202);
    assert_eq!(api.told().1, [("1".to_owned(), 2), ("2".to_owned(), 1)]);
    api.provision("1", 1).await.ok(202);
    assert_eq!(api.told().1, [("1".to_owned(), 1), ("2".to_owned(), 1)]);
    // Not more than the machine may keep ready, which is 950 here.
    let mut settings = Settings::new("us-east-1", ACCOUNT);
    settings.account_concurrency = 2_000;
    let temp = tempfile::tempdir().unwrap();
    let large = Api::at(temp.path(), settings);
    large.create_with(json!({"Publish": true})).await.ok(201);
    let refused = large.provision("1", 951).await.ok(400);
    assert!(refused.error().2.starts_with("This server keeps at most 950 environments"), "{refused:?}");
    large.provision("1", 950).await.ok(202);
}

#[tokio::test]
async fn provisioned_concurrency_outlives_a_restart_and_ends_with_its_version() {
    let temp = tempfile::tempdir().unwrap();
    let settings = Settings::new("us-east-1", ACCOUNT);
    {
        let api = Api::at(temp.path(), settings.clone());
        api.create_with(json!({"Publish": true})).await.ok(201);
        api.reserve(5).await.ok(200);
        api.provision("1", 4).await.ok(202);
    }
    let api = Api::at(temp.path(), settings);
    assert_eq!(api.told(), (Some(5), vec![("1".into(), 4)]), "before the first request");
    assert_eq!(api.provisioned("1").await.ok(200).body["RequestedProvisionedConcurrentExecutions"], 4);
    api.delete("/2015-03-31/functions/f?Qualifier=1").await.ok(204);
    assert_eq!(api.told(), (Some(5), vec![]));
    let none = json!({"ProvisionedConcurrencyConfigs": []});
    assert_eq!(api.get(&format!("{PROVISIONED}?List=ALL")).await.ok(200).body, none);
    api.delete("/2015-03-31/functions/f").await.ok(204);
    assert_eq!(api.told(), (None, vec![]));
}

#[tokio::test]
async fn a_change_of_latest_leaves_the_environments_of_published_versions_alone() {
    let api = Api::with_versions().await;
    let retired = api.host.retired.lock().unwrap().len();
    api.provision("1", 1).await.ok(202);
    let before = api.host.terms.lock().unwrap()["f"].provisioned[0].0.id.clone();
    api.put("/2015-03-31/functions/f/configuration", json!({"Timeout": 9})).await.ok(200);
    let retired = api.host.retired.lock().unwrap()[retired..].to_vec();
    assert_eq!(retired.len(), 1);
    assert_ne!(retired[0], before);
    assert_eq!(api.host.terms.lock().unwrap()["f"].provisioned[0].0.id, before);
}

#[tokio::test]
async fn a_function_that_is_not_there_is_told_before_a_number_out_of_range() {
    let api = Api::new();
    let missing = format!("Function not found: {ARN}:$LATEST");
    api.reserve(-1).await.fails(404, "ResourceNotFoundException", &missing);
    api.create().await;
    let refused = api.reserve(-1).await.ok(400);
    assert_eq!(refused.error().1, "ValidationException");
}

#[tokio::test]
async fn calls_that_are_about_to_come_are_announced_for_what_they_would_run() {
    let api = Api::with_versions().await;
    api.functions.prepare("f:1", 8);
    api.functions.prepare(ARN, 4);
    api.functions.prepare("nothing", 4);
    assert_eq!(*api.host.prepared.lock().unwrap(), [("1".to_owned(), 8), ("$LATEST".to_owned(), 4)]);
}

#[tokio::test]
async fn what_is_provisioned_for_an_alias_follows_it_and_ends_with_it() {
    let api = Api::with_versions().await;
    let aliases = "/2015-03-31/functions/f/aliases";
    let (conflict, parameter) = ("ResourceConflictException", "InvalidParameterValueException");
    for (name, version) in [("prod", "1"), ("next", "$LATEST")] {
        api.post(aliases, json!({"Name": name, "FunctionVersion": version})).await.ok(201);
    }
    let unpublished = "Provisioned Concurrency Configs cannot be applied to unpublished function versions.";
    api.provision("next", 1).await.fails(400, parameter, unpublished);
    // One for each version, by whichever name.
    api.provision("1", 1).await.ok(202);
    let provisioned = "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version";
    api.provision("prod", 1).await.fails(409, conflict, provisioned);
    api.delete(&format!("{PROVISIONED}?Qualifier=1")).await.ok(204);
    api.provision("prod", 5).await.ok(202);
    let pointed = "Version is pointed by a Provisioned Concurrency alias";
    api.provision("1", 1).await.fails(409, conflict, pointed);
    assert_eq!(api.told().1, [("1".to_owned(), 5)]);
    let listed = api.get(&format!("{PROVISIONED}?List=ALL")).await.ok(200).body;
    assert_eq!(listed["ProvisionedConcurrencyConfigs"][0]["FunctionArn"], format!("{ARN}:prod"));
    // Divided as its calls are, and moved when it moves.
    let update = |change: Value| {
        let api = &api;
        async move { api.put("/2015-03-31/functions/f/aliases/prod", change).await.ok(200) }
    };
    update(json!({"RoutingConfig": {"AdditionalVersionWeights": {"2": 0.3}}})).await;
    assert_eq!(api.told().1, [("1".to_owned(), 3), ("2".to_owned(), 2)]);
    update(json!({"FunctionVersion": "2", "RoutingConfig": {"AdditionalVersionWeights": {}}})).await;
    assert_eq!(api.told().1, [("2".to_owned(), 5)]);
    api.delete("/2015-03-31/functions/f/aliases/prod").await.ok(204);
    assert_eq!(api.told().1, []);
    let missing = format!("Cannot find alias arn: {ARN}:prod");
    api.provisioned("prod").await.fails(404, "ResourceNotFoundException", &missing);
}

#[tokio::test]
async fn an_alias_has_the_slots_of_its_first_version_and_what_is_provisioned_for_the_other() {
    let api = Api::with_versions().await;
    let alias = |name: &str, weights: Value| json!({"Name": name, "FunctionVersion": "1", "RoutingConfig": weights});
    let aliases = "/2015-03-31/functions/f/aliases";
    api.post(aliases, alias("one", json!({}))).await.ok(201);
    api.post(aliases, alias("both", json!({"AdditionalVersionWeights": {"2": 0.5}}))).await.ok(201);
    api.host.provisioning.lock().unwrap().wanted = 3;
    assert_eq!(["f:1", "f:one", "f:both", "f:none"].map(|name| api.functions.slots(name)), [8, 8, 11, 1]);
}
