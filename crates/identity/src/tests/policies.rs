//! Managed and inline policies, boundaries, simulations.

use super::*;

async fn create(ground: &Ground, name: &str, document: &str) -> String {
    let made = ground.root("CreatePolicy", &[("PolicyName", name), ("PolicyDocument", document)]).await;
    assert!(made.text("Policy.PolicyId").starts_with("ANPA"));
    made.text("Policy.Arn").to_owned()
}

#[tokio::test]
async fn a_policy_has_five_versions_of_which_one_holds_and_numbers_do_not_come_again() {
    let ground = Ground::new();
    let who = ground.user("u", None).await;
    let arn = create(&ground, "p", READ).await;
    ground.root("AttachUserPolicy", &[("UserName", "u"), ("PolicyArn", &arn)]).await;
    assert!(may_read(&ground.caller(&who).unwrap()));
    let none = allowing("s3:PutObject");
    let version = |default| [("PolicyArn", arn.as_str()), ("PolicyDocument", none.as_str()), ("SetAsDefault", default)];
    assert_eq!(ground.root("CreatePolicyVersion", &version("false")).await.text("PolicyVersion.VersionId"), "v2");
    assert!(may_read(&ground.caller(&who).unwrap()));
    ground.root("CreatePolicyVersion", &version("true")).await;
    assert!(!may_read(&ground.caller(&who).unwrap()));
    let id = |version| [("PolicyArn", arn.as_str()), ("VersionId", version)];
    ground.root("SetDefaultPolicyVersion", &id("v1")).await;
    assert!(may_read(&ground.caller(&who).unwrap()));
    ground.root("CreatePolicyVersion", &version("false")).await;
    ground.root("CreatePolicyVersion", &version("false")).await;
    let told = ground.iam(&Who::root(), "CreatePolicyVersion", &version("false")).await;
    assert!(told.code() == "LimitExceeded" && told.error("Message").contains("up to 5 versions"), "{told:?}");
    let told = ground.iam(&Who::root(), "DeletePolicyVersion", &id("v1")).await;
    assert_eq!(told.error("Message"), "Cannot delete the default version of a policy.");
    ground.root("DeletePolicyVersion", &id("v5")).await;
    let ground = ground.reopened().await;
    assert_eq!(ground.root("CreatePolicyVersion", &version("false")).await.text("PolicyVersion.VersionId"), "v6");
    let listed = ground.root("ListPolicyVersions", &[("PolicyArn", &arn)]).await;
    let shown: Vec<_> = listed.members("Versions").iter().map(|v| v.child_text("VersionId").unwrap()).collect();
    assert_eq!(shown, ["v6", "v4", "v3", "v2", "v1"]);
    let document = ground.root("GetPolicyVersion", &id("v1")).await;
    assert_eq!(document.text("PolicyVersion.Document"), crate::operations::encoded(READ));
    for bad in ["v9", "v0", "1", "v01", "v+1"] {
        let told = ground.iam(&Who::root(), "GetPolicyVersion", &id(bad)).await;
        assert_eq!(told.code(), if bad == "v9" { "NoSuchEntity" } else { "ValidationError" }, "{bad}");
    }
}

#[tokio::test]
async fn a_policy_goes_once_nobody_has_it_and_it_has_one_version() {
    let ground = Ground::new();
    let arn = create(&ground, "p", READ).await;
    let policy = [("PolicyArn", arn.as_str())];
    ground.role("r", TRUST, None).await;
    ground.root("AttachRolePolicy", &[("RoleName", "r"), ("PolicyArn", &arn)]).await;
    ground.root("PutRolePermissionsBoundary", &[("RoleName", "r"), ("PermissionsBoundary", &arn)]).await;
    let shown = ground.root("GetPolicy", &policy).await;
    let counts = (shown.text("Policy.AttachmentCount"), shown.text("Policy.PermissionsBoundaryUsageCount"));
    assert_eq!(counts, ("1", "1"));
    let entities = ground.root("ListEntitiesForPolicy", &policy).await;
    assert_eq!(entities.text("PolicyRoles.member.RoleName"), "r");
    assert!(entities.members("PolicyUsers").is_empty());
    let told = |told: Told| (told.code().to_owned(), told.error("Message").to_owned());
    let refused = ground.iam(&Who::root(), "DeletePolicy", &policy).await;
    assert_eq!(told(refused), ("DeleteConflict".into(), "Cannot delete a policy attached to entities.".into()));
    ground.root("DetachRolePolicy", &[("RoleName", "r"), ("PolicyArn", &arn)]).await;
    let refused = ground.iam(&Who::root(), "DeletePolicy", &policy).await;
    assert_eq!(refused.code(), "DeleteConflict", "it is a boundary still");
    ground.root("DeleteRolePermissionsBoundary", &[("RoleName", "r")]).await;
    ground.root("CreatePolicyVersion", &[("PolicyArn", &arn), ("PolicyDocument", READ)]).await;
    let refused = ground.iam(&Who::root(), "DeletePolicy", &policy).await;
    assert!(told(refused).1.starts_with("This policy has more than one version."));
    ground.root("DeletePolicyVersion", &[("PolicyArn", &arn), ("VersionId", "v2")]).await;
    ground.root("DeletePolicy", &policy).await;
    assert_eq!(ground.iam(&Who::root(), "GetPolicy", &policy).await.code(), "NoSuchEntity");
}

#[tokio::test]
async fn awss_own_policies_are_attached_and_read_and_changed_by_nobody() {
    let ground = Ground::new();
    let who = ground.user("u", None).await;
    let arn = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess";
    ground.root("AttachUserPolicy", &[("UserName", "u"), ("PolicyArn", arn)]).await;
    assert!(may_read(&ground.caller(&who).unwrap()));
    let shown = ground.root("ListAttachedUserPolicies", &[("UserName", "u")]).await;
    assert_eq!(shown.text("AttachedPolicies.member.PolicyName"), "AmazonS3ReadOnlyAccess");
    let version = ground.root("GetPolicy", &[("PolicyArn", arn)]).await.text("Policy.DefaultVersionId").to_owned();
    ground.root("GetPolicyVersion", &[("PolicyArn", arn), ("VersionId", &version)]).await;
    for (action, members) in [
        ("DeletePolicy", &[("PolicyArn", arn)][..]),
        ("CreatePolicyVersion", &[("PolicyArn", arn), ("PolicyDocument", READ)]),
        ("SetDefaultPolicyVersion", &[("PolicyArn", arn), ("VersionId", "v1")]),
        ("TagPolicy", &[("PolicyArn", arn), ("Tags.member.1.Key", "k"), ("Tags.member.1.Value", "v")]),
    ] {
        assert_eq!(ground.iam(&Who::root(), action, members).await.code(), "AccessDenied", "{action}");
    }
    create(&ground, "AmazonS3ReadOnlyAccess", READ).await;
    for (members, count) in [
        (&[("Scope", "AWS")][..], 17),
        (&[("Scope", "Local")], 1),
        (&[], 18),
        (&[("OnlyAttached", "true")], 1),
        (&[("PathPrefix", "/service-role/")], 6),
        (&[("PolicyUsageFilter", "PermissionsBoundary")], 0),
    ] {
        let listed = ground.root("ListPolicies", members).await;
        assert_eq!(listed.members("Policies").len(), count, "{members:?}");
    }
    let told = ground
        .iam(
            &Who::root(),
            "AttachUserPolicy",
            &[("UserName", "u"), ("PolicyArn", "arn:aws:iam::aws:policy/AmazonEC2FullAccess")],
        )
        .await;
    assert!(told.code() == "NoSuchEntity" && told.error("Message").contains("list-policies --scope AWS"), "{told:?}");
}

#[tokio::test]
async fn a_listing_says_of_each_policy_on_its_page_how_many_have_it() {
    let ground = Ground::new();
    let mut arns = Vec::new();
    for name in ["a", "b", "c"] {
        arns.push(create(&ground, name, READ).await);
    }
    for user in ["u", "v"] {
        ground.user(user, None).await;
        ground.root("AttachUserPolicy", &[("UserName", user), ("PolicyArn", &arns[1])]).await;
    }
    ground.root("PutUserPermissionsBoundary", &[("UserName", "u"), ("PermissionsBoundary", &arns[2])]).await;
    let first = ground.root("ListPolicies", &[("Scope", "Local"), ("MaxItems", "2")]).await;
    let marker = first.text("Marker").to_owned();
    let second = ground.root("ListPolicies", &[("Scope", "Local"), ("Marker", &marker)]).await;
    let told: Vec<String> = [&first, &second]
        .iter()
        .flat_map(|page| page.members("Policies"))
        .map(|policy| {
            let text = |member| policy.child_text(member).unwrap();
            format!("{} {} {}", text("PolicyName"), text("AttachmentCount"), text("PermissionsBoundaryUsageCount"))
        })
        .collect();
    assert_eq!(told, ["a 0 0", "b 2 0", "c 0 1"]);
    let snapshot = ground.identity.snapshot();
    let all = snapshot.state.uses_of_all();
    for arn in &arns {
        assert_eq!(all.get(arn.as_str()).copied().unwrap_or_default(), snapshot.state.uses(arn), "{arn}");
    }
}

#[tokio::test]
async fn policies_are_as_large_and_as_many_as_aws_lets_them_be_and_not_one_more() {
    let ground = Ground::new();
    ground.user("u", None).await;
    ground.role("r", TRUST, None).await;
    let sized = |size: usize| {
        let text = large(size);
        let counted = longshore_core::policy::counted_characters(&text);
        text.replacen("/*", &format!("{}/*", "y".repeat(size - counted)), 1)
    };
    for (action, member, whose, max) in [
        ("PutUserPolicy", "PolicyDocument", ("UserName", "u"), 2_048),
        ("PutRolePolicy", "PolicyDocument", ("RoleName", "r"), 10_240),
    ] {
        let (fits, over) = (sized(max), sized(max + 1));
        let put = |name, text| [whose, ("PolicyName", name), (member, text)];
        let told = ground.iam(&Who::root(), action, &put("a", &over)).await;
        assert!(told.code() == "LimitExceeded", "{told:?}");
        assert_eq!(
            told.error("Message"),
            format!(
                "Maximum policy size of {max} bytes exceeded for {}",
                if max == 2_048 { "user u" } else { "role r" }
            )
        );
        ground.root(action, &put("a", &fits)).await;
        assert_eq!(
            ground.iam(&Who::root(), action, &put("b", READ)).await.code(),
            "LimitExceeded",
            "{action}: together"
        );
    }
    let (fits, over) = (sized(6_144), sized(6_145));
    let told = ground.iam(&Who::root(), "CreatePolicy", &[("PolicyName", "p"), ("PolicyDocument", &over)]).await;
    assert_eq!(told.error("Message"), "Cannot exceed quota for PolicySize: 6144");
    create(&ground, "p", &fits).await;
    let trust =
        |padding: usize| TRUST.replacen("\"Effect\"", &format!("\"Sid\":\"{}\",\"Effect\"", "s".repeat(padding)), 1);
    let room = 2_048 - longshore_core::policy::counted_characters(&trust(0));
    let set = |text| [("RoleName", "r"), ("PolicyDocument", text)];
    let (fits, over) = (trust(room), trust(room + 1));
    let told = ground.iam(&Who::root(), "UpdateAssumeRolePolicy", &set(&over)).await;
    assert_eq!(told.error("Message"), "Cannot exceed quota for ACLSizePerRole: 2048");
    ground.root("UpdateAssumeRolePolicy", &set(&fits)).await;

    for n in 0..10 {
        let arn = create(&ground, &format!("n{n}"), READ).await;
        ground.root("AttachRolePolicy", &[("RoleName", "r"), ("PolicyArn", &arn)]).await;
    }
    let arn = create(&ground, "eleventh", READ).await;
    let told = ground.iam(&Who::root(), "AttachRolePolicy", &[("RoleName", "r"), ("PolicyArn", &arn)]).await;
    assert_eq!(told.error("Message"), "Cannot exceed quota for PoliciesPerRole: 10");
    // One that is attached already is not one more.
    ground.root("AttachRolePolicy", &[("RoleName", "r"), ("PolicyArn", "arn:aws:iam::111111111111:policy/n0")]).await;
}

#[tokio::test]
async fn a_boundary_bounds_what_policies_allow() {
    let ground = Ground::new();
    let who = ground.user("u", Some(&allowing("s3:*"))).await;
    let arn = create(&ground, "boundary", &allowing("s3:PutObject")).await;
    assert!(may_read(&ground.caller(&who).unwrap()));
    ground.root("PutUserPermissionsBoundary", &[("UserName", "u"), ("PermissionsBoundary", &arn)]).await;
    assert!(!may_read(&ground.caller(&who).unwrap()));
    ground.root("DeleteUserPermissionsBoundary", &[("UserName", "u")]).await;
    assert!(may_read(&ground.caller(&who).unwrap()));
}

/// `EvalDecision` and the statements of each result.
fn results(told: &Told) -> Vec<(String, String, String)> {
    let text = |of: &Element, path: &str| {
        path.split('.').try_fold(of, |at, name| at.child(name)).map_or("", |e| &e.text).to_owned()
    };
    let member = |result: &&Element| {
        let place = format!(
            "{}:{}-{}:{}",
            text(result, "MatchedStatements.member.StartPosition.Line"),
            text(result, "MatchedStatements.member.StartPosition.Column"),
            text(result, "MatchedStatements.member.EndPosition.Line"),
            text(result, "MatchedStatements.member.EndPosition.Column"),
        );
        (text(result, "EvalDecision"), text(result, "MatchedStatements.member.SourcePolicyId"), place)
    };
    told.members("EvaluationResults").iter().map(member).collect()
}

#[tokio::test]
async fn a_simulation_says_what_would_be_decided_and_which_statement_decides() {
    let ground = Ground::new();
    let policy = "{\"Version\":\"2012-10-17\",\"Statement\":[\n  {\"Effect\":\"Allow\",\"Action\":\"s3:*\",\"Resource\":\"*\"},\n  {\"Effect\":\"Deny\",\"Action\":\"s3:DeleteObject\",\"Resource\":\"*\",\"Condition\":{\"StringNotEquals\":{\"aws:PrincipalTag/team\":\"ops\"}}}]}";
    ground.user("u", Some(policy)).await;
    let members = [
        ("PolicySourceArn", "arn:aws:iam::111111111111:user/u"),
        ("ActionNames.member.1", "s3:GetObject"),
        ("ActionNames.member.2", "s3:DeleteObject"),
        ("ActionNames.member.3", "lambda:InvokeFunction"),
        ("ResourceArns.member.1", "arn:aws:s3:::b/k"),
    ];
    let told = ground.root("SimulatePrincipalPolicy", &members).await;
    let told = results(&told);
    let is = |at: usize, decision: &str, id: &str, place: &str| {
        assert_eq!(told[at], (decision.to_owned(), id.to_owned(), place.to_owned()));
    };
    is(0, "allowed", "user_u_p", "2:3-2:52");
    assert_eq!((told[1].0.as_str(), told[1].1.as_str()), ("explicitDeny", "user_u_p"));
    assert!(told[1].2.starts_with("3:3-3:"), "{}", told[1].2);
    is(2, "implicitDeny", "", ":-:");

    // Each page is a part of the whole.
    let page = ground.root("SimulatePrincipalPolicy", &[&members[..], &[("MaxItems", "2")]].concat()).await;
    let rest = [("MaxItems", "2"), ("Marker", page.text("Marker"))];
    let rest = ground.root("SimulatePrincipalPolicy", &[&members[..], &rest].concat()).await;
    assert_eq!([results(&page), results(&rest)].concat(), told);
}

#[tokio::test]
async fn a_simulation_takes_policies_boundary_resource_policy_and_context_from_the_request() {
    let ground = Ground::new();
    let conditional = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:GetObject","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}}"#;
    let ask = async |more: &[(&str, &str)]| {
        let members =
            [&[("ActionNames.member.1", "s3:GetObject"), ("ResourceArns.member.1", "arn:aws:s3:::b/k")], more].concat();
        ground.iam(&Who::root(), "SimulateCustomPolicy", &members).await
    };
    let told = ask(&[("PolicyInputList.member.1", conditional)]).await.good();
    assert_eq!(results(&told)[0].0, "implicitDeny");
    assert_eq!(told.text("EvaluationResults.member.MissingContextValues.member"), "aws:SourceIp");
    let context = [
        ("PolicyInputList.member.1", conditional),
        ("ContextEntries.member.1.ContextKeyName", "aws:SourceIp"),
        ("ContextEntries.member.1.ContextKeyValues.member.1", "10.1.2.3"),
        ("ContextEntries.member.1.ContextKeyType", "ip"),
    ];
    let told = ask(&context).await.good();
    assert_eq!(results(&told)[0].0, "allowed");
    assert!(told.members("EvaluationResults.member.MissingContextValues").is_empty());

    let put = allowing("s3:PutObject");
    let told =
        ask(&[("PolicyInputList.member.1", READ), ("PermissionsBoundaryPolicyInputList.member.1", &put)]).await.good();
    assert_eq!(results(&told)[0].0, "implicitDeny");
    let within = "EvaluationResults.member.PermissionsBoundaryDecisionDetail.AllowedByPermissionsBoundary";
    assert_eq!(told.text(within), "false");
    let told =
        ask(&[("PolicyInputList.member.1", READ), ("PermissionsBoundaryPolicyInputList.member.1", READ)]).await.good();
    assert_eq!((results(&told)[0].0.as_str(), told.text(within)), ("allowed", "true"));

    let resource =
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"*"}}"#;
    let told = ask(&[
        ("PolicyInputList.member.1", READ),
        ("ResourcePolicy", resource),
        ("CallerArn", "arn:aws:iam::111111111111:user/x"),
    ])
    .await
    .good();
    assert_eq!((results(&told)[0].0.as_str(), results(&told)[0].1.as_str()), ("explicitDeny", "ResourcePolicy"));

    for (more, code) in [
        (&[("PolicyInputList.member.1", "{}")][..], "MalformedPolicyDocument"),
        (&[("PolicyInputList.member.1", READ), ("ResourcePolicy", resource)], "InvalidInput"),
        (&[("PolicyInputList.member.1", READ), ("ActionNames.member.2", "GetObject")], "InvalidInput"),
        (&[("PolicyInputList.member.1", READ), ("ResourceHandlingOption", "EC2-VPC")], "NotImplemented"),
        (&[("PolicyInputList.member.1", READ), ("CallerArn", "arn:aws:iam::111111111111:role/x")], "InvalidInput"),
        (&[], "ValidationError"),
    ] {
        assert_eq!(ask(more).await.code(), code, "{more:?}");
    }
    let keys = ground.root("GetContextKeysForCustomPolicy", &[("PolicyInputList.member.1", conditional)]).await;
    assert_eq!(keys.text("ContextKeyNames.member"), "aws:SourceIp");
}

#[tokio::test]
async fn a_role_is_simulated_in_a_session_that_begins_now_unless_it_is_said_when() {
    let ground = Ground::new();
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"},{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:TokenIssueTime":"2020-01-01T00:00:00Z"}}}]}"#;
    let arn = ground.role("r", TRUST, Some(policy)).await;
    let members = [("PolicySourceArn", arn.as_str()), ("ActionNames.member.1", "s3:GetObject")];
    let told = ground.root("SimulatePrincipalPolicy", &members).await;
    assert_eq!(results(&told)[0].0, "allowed");
    let earlier = [
        ("ContextEntries.member.1.ContextKeyName", "aws:TokenIssueTime"),
        ("ContextEntries.member.1.ContextKeyValues.member.1", "2019-01-01T00:00:00Z"),
    ];
    let told = ground.root("SimulatePrincipalPolicy", &[&members[..], &earlier].concat()).await;
    assert_eq!(results(&told)[0].0, "explicitDeny");
}

#[tokio::test]
async fn a_page_of_a_simulation_is_as_long_as_its_policies_let_it_be() {
    let ground = Ground::new();
    let resources: Vec<String> = (0..200).map(|n| format!("arn:aws:s3:::b/{n}")).collect();
    let names: Vec<String> = (1..=200).map(|n| format!("ResourceArns.member.{n}")).collect();
    // White space does not count for AWS, and has to be read all the same.
    let policy = READ.replacen('{', &format!("{{{}", " ".repeat(100_000)), 1);
    let mut members = vec![("ActionNames.member.1", "s3:GetObject"), ("MaxItems", "1000")];
    members.extend(names.iter().zip(&resources).map(|(name, resource)| (name.as_str(), resource.as_str())));
    let small = [&members[..], &[("PolicyInputList.member.1", READ)]].concat();
    assert_eq!(results(&ground.root("SimulateCustomPolicy", &small).await).len(), 200);
    let large = [&members[..], &[("PolicyInputList.member.1", policy.as_str())]].concat();
    let (mut seen, mut marker, mut pages) = (0, String::new(), 0);
    loop {
        let more = if pages == 0 { large.clone() } else { [&large[..], &[("Marker", marker.as_str())]].concat() };
        let page = ground.root("SimulateCustomPolicy", &more).await;
        (seen, pages) = (seen + results(&page).len(), pages + 1);
        marker = page.text("Marker").to_owned();
        if marker.is_empty() {
            break;
        }
    }
    assert_eq!((seen, pages), (200, 3));
}

/// What is decided where a key is not given, and which keys are said to be missing.
async fn unsaid(ground: &Ground, effect: &str, condition: &str, more: &[(&str, &str)]) -> (String, Vec<String>) {
    let allow = allowing("s3:CreateJob");
    let other = format!(
        r#"{{"Version":"2012-10-17","Statement":{{"Effect":"{effect}","Action":"s3:*","Resource":"*","Condition":{condition}}}}}"#
    );
    let mut members = vec![("ActionNames.member.1", "s3:CreateJob"), ("PolicyInputList.member.1", other.as_str())];
    if effect == "Deny" {
        members.push(("PolicyInputList.member.2", allow.as_str()));
    }
    members.extend_from_slice(more);
    let told = ground.root("SimulateCustomPolicy", &members).await;
    let missing = told.members("EvaluationResults.member.MissingContextValues");
    let decision = told.text("EvaluationResults.member.EvalDecision").to_owned();
    (decision, missing.iter().map(|key| key.text.clone()).collect())
}

#[tokio::test]
async fn what_a_simulated_request_does_not_say_it_does_not_have_unless_the_server_knows_it() {
    let ground = Ground::new();
    for (effect, condition, decision, missing) in [
        // What the server knows itself.
        ("Deny", r#"{"DateLessThan":{"aws:CurrentTime":"2020-01-01T00:00:00Z"}}"#, "allowed", None),
        ("Deny", r#"{"NumericGreaterThan":{"aws:EpochTime":"1"}}"#, "explicitDeny", None),
        ("Allow", r#"{"StringEquals":{"aws:RequestedRegion":"us-east-1"}}"#, "allowed", None),
        ("Allow", r#"{"StringEquals":{"aws:PrincipalAccount":"111111111111"}}"#, "allowed", None),
        // What requests here may have.
        ("Deny", r#"{"StringEquals":{"aws:RequestTag/env":"prod"}}"#, "allowed", Some("aws:RequestTag/env")),
        ("Deny", r#"{"NumericGreaterThan":{"s3:RequestJobPriority":"100"}}"#, "allowed", Some("s3:RequestJobPriority")),
        ("Deny", r#"{"NotIpAddress":{"aws:SourceIp":"127.0.0.0/8"}}"#, "explicitDeny", Some("aws:SourceIp")),
        ("Deny", r#"{"Bool":{"aws:SecureTransport":"false"}}"#, "allowed", Some("aws:SecureTransport")),
        ("Allow", r#"{"IpAddressIfExists":{"aws:SourceIp":"127.0.0.0/8"}}"#, "allowed", Some("aws:SourceIp")),
        ("Allow", r#"{"StringEquals":{"aws:username":"simulation"}}"#, "implicitDeny", Some("aws:username")),
        // What no request here ever has is as at the server.
        ("Deny", r#"{"StringEquals":{"aws:UserAgent":"curl"}}"#, "explicitDeny", Some("aws:UserAgent")),
        ("Deny", r#"{"NumericGreaterThan":{"s3:RequestJobPrio":"100"}}"#, "explicitDeny", Some("s3:RequestJobPrio")),
        (
            "Allow",
            r#"{"NumericLessThanIfExists":{"s3:RequestJobPrio":"100"}}"#,
            "implicitDeny",
            Some("s3:RequestJobPrio"),
        ),
    ] {
        let told = unsaid(&ground, effect, condition, &[]).await;
        let missing: Vec<String> = missing.into_iter().map(str::to_owned).collect();
        assert_eq!(told, (decision.to_owned(), missing), "{effect} {condition}");
    }
    let said = [
        ("ContextEntries.member.1.ContextKeyName", "aws:username"),
        ("ContextEntries.member.1.ContextKeyValues.member.1", "simulation"),
        ("ContextEntries.member.1.ContextKeyType", "string"),
    ];
    let told = unsaid(&ground, "Allow", r#"{"StringEquals":{"aws:username":"simulation"}}"#, &said).await;
    assert_eq!(told, ("allowed".to_owned(), Vec::new()));
}

#[tokio::test]
async fn an_action_that_there_is_not_is_not_simulated() {
    let ground = Ground::new();
    for (action, message) in [
        ("s3:CreateJobs", Some("there is no action s3:CreateJobs; is s3:CreateJob meant?")),
        ("s3:createjob", None),
        ("ec2:RunInstances", None),
    ] {
        let members = [("ActionNames.member.1", action), ("PolicyInputList.member.1", READ)];
        let told = ground.iam(&Who::root(), "SimulateCustomPolicy", &members).await;
        let wanted = if message.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        assert_eq!(told.status, wanted, "{action}");
        if let Some(message) = message {
            assert_eq!((told.code(), told.error("Message")), ("InvalidInput", message));
        }
    }
}
