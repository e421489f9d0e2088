//! Short-lived credentials, and whose they are.

use longshore_core::policy::PrincipalKind;
use longshore_wire::Caller;

use super::*;
use crate::AssumeError;

const BATCH: &str = "batchoperations.s3.amazonaws.com";

async fn assume(ground: &Ground, who: &Who, role: &str, more: &[(&str, &str)]) -> Told {
    let mut members = vec![("RoleArn", role), ("RoleSessionName", "session")];
    members.extend_from_slice(more);
    ground.sts(who, "AssumeRole", &members).await
}

#[tokio::test]
async fn a_session_is_the_roles_survives_a_restart_and_dies_with_the_role() {
    let ground = Ground::new();
    let user = ground.user("u", Some(&allowing("sts:AssumeRole"))).await;
    let role = ground.role("r", TRUST, Some(READ)).await;
    let told = assume(&ground, &user, &role, &[]).await.good();
    assert_eq!(told.text("AssumedRoleUser.Arn"), "arn:aws:sts::111111111111:assumed-role/r/session");
    let session = Who::of(&told);
    assert!(session.0.access_key_id.starts_with("ASIA") && session.0.access_key_id.len() == 20);

    let ground = ground.reopened().await;
    let caller = ground.caller(&session).unwrap();
    assert!(may_read(&caller));
    let told = ground.sts(&session, "GetCallerIdentity", &[]).await.good();
    assert_eq!(told.text("Arn"), "arn:aws:sts::111111111111:assumed-role/r/session");
    assert!(told.text("UserId").starts_with("AROA") && told.text("UserId").ends_with(":session"));

    // Its rights are what the role's are now.
    ground.root("DeleteRolePolicy", &[("RoleName", "r"), ("PolicyName", "p")]).await;
    assert!(!may_read(&ground.caller(&session).unwrap()));
    ground.root("DeleteRole", &[("RoleName", "r")]).await;
    assert!(ground.caller(&session).is_err());
    // Another role of that name is another role.
    ground.role("r", TRUST, Some(READ)).await;
    assert!(ground.caller(&session).is_err());
}

#[tokio::test]
async fn a_session_without_its_token_with_anothers_or_out_of_its_time_is_nobodys() {
    let ground = Ground::new();
    let user = ground.user("u", Some(&allowing("sts:AssumeRole"))).await;
    let role = ground.role("r", TRUST, Some(READ)).await;
    let one = Who::of(&assume(&ground, &user, &role, &[("DurationSeconds", "900")]).await.good());
    let two = Who::of(&assume(&ground, &user, &role, &[]).await.good());
    let with_token = |token: Option<&str>| Who::new(&one.0.access_key_id, &one.0.secret_access_key, token);
    assert!(ground.caller(&one).is_ok());
    assert!(ground.caller(&with_token(None)).is_err());
    assert!(ground.caller(&with_token(two.0.session_token.as_deref())).is_err());
    assert!(
        ground
            .caller(&Who::new(&one.0.access_key_id, &two.0.secret_access_key, one.0.session_token.as_deref()))
            .is_err()
    );
    // A lasting key has no token.
    let with_token = Who::new(&user.0.access_key_id, &user.0.secret_access_key, one.0.session_token.as_deref());
    assert!(ground.caller(&with_token).is_err());

    let token = one.0.session_token.as_deref();
    let later = now() + 900;
    let told = ground.verify(&one, "s3", b"", later).unwrap_err();
    assert!(matches!(told, AuthError::TokenExpired), "{told:?}");
    let known = ground.identity.key(&one.0.access_key_id, token, later).unwrap();
    assert_eq!(known.subject.rights.session, Some(Vec::new()), "and may nothing, whoever forgets to look");
    assert!(ground.identity.key(&one.0.access_key_id, token, now()).unwrap().subject.rights.session.is_none());
}

#[tokio::test]
async fn a_role_is_assumed_by_whom_both_trust_and_right_allow() {
    let only_u = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:user/u"},"Action":"sts:AssumeRole"}}"#;
    let with_id = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"111111111111"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"secret-word"}}}}"#;
    let service = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}}"#;
    let ground = Ground::new();
    let u = ground.user("u", None).await;
    let may = ground.user("may", Some(&allowing("sts:AssumeRole"))).await;
    let named = ground.role("named", only_u, None).await;
    let external = ground.role("external", with_id, None).await;
    let for_lambda = ground.role("for-lambda", service, None).await;
    // Who is named itself needs no right of its own.
    assume(&ground, &u, &named, &[]).await.good();
    for (who, role, more) in [
        (&may, &named, &[][..]),
        (&u, &external, &[("ExternalId", "secret-word")]),
        (&may, &external, &[]),
        (&may, &external, &[("ExternalId", "another")]),
        (&may, &for_lambda, &[]),
        (&may, &"arn:aws:iam::111111111111:role/none".to_owned(), &[]),
        (&may, &"arn:aws:iam::222222222222:role/named".to_owned(), &[]),
    ] {
        let told = assume(&ground, who, role, more).await;
        assert_eq!((told.status, told.code()), (StatusCode::FORBIDDEN, "AccessDenied"), "{role} {more:?}: {told:?}");
    }
    assume(&ground, &may, &external, &[("ExternalId", "secret-word")]).await.good();
    let told = assume(&ground, &Who::root(), &named, &[]).await;
    assert_eq!(told.error("Message"), "Roles may not be assumed by root accounts.");
}

#[tokio::test]
async fn a_session_may_less_than_its_role_where_it_was_begun_with_policies() {
    let ground = Ground::new();
    let user = ground.user("u", Some(&allowing("sts:AssumeRole"))).await;
    let role = ground.role("r", TRUST, Some(&allowing("s3:*"))).await;
    let mut told = Vec::new();
    for more in [
        &[("Policy", READ)][..],
        &[("PolicyArns.member.1.arn", "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")],
        &[("Policy", &allowing("s3:PutObject"))],
        &[("PolicyArns.member.1.arn", "arn:aws:iam::aws:policy/service-role/AWSLambdaRole")],
    ] {
        let made = assume(&ground, &user, &role, more).await.good();
        assert!(made.text("PackedPolicySize").parse::<u32>().unwrap() > 0);
        let caller = ground.caller(&Who::of(&made)).unwrap();
        let may = |action| caller.may(&longshore_wire::Asked::new(action, "arn:aws:s3:::b/k")).is_ok();
        told.push((may("s3:GetObject"), may("s3:PutObject")));
    }
    assert_eq!(told, [(true, false), (true, false), (false, true), (false, false)]);
    for (more, code) in [
        (&[("Policy", "{}")][..], "MalformedPolicyDocument"),
        (&[("Policy", &large(2_100))], "ValidationError"),
        (&[("PolicyArns.member.1.arn", "arn:aws:iam::111111111111:policy/none")], "InvalidInput"),
    ] {
        assert_eq!(assume(&ground, &user, &role, more).await.code(), code, "{more:?}");
    }
}

#[tokio::test]
async fn a_managed_session_policy_that_is_gone_lets_nothing_through() {
    let ground = Ground::new();
    let user = ground.user("u", Some(&allowing("sts:AssumeRole"))).await;
    let role = ground.role("r", TRUST, Some(READ)).await;
    let made = ground.root("CreatePolicy", &[("PolicyName", "p"), ("PolicyDocument", READ)]).await;
    let arn = made.text("Policy.Arn").to_owned();
    let session = Who::of(&assume(&ground, &user, &role, &[("PolicyArns.member.1.arn", &arn)]).await.good());
    assert!(may_read(&ground.caller(&session).unwrap()));
    ground.root("DeletePolicy", &[("PolicyArn", &arn)]).await;
    assert!(!may_read(&ground.caller(&session).unwrap()));
}

#[tokio::test]
async fn a_session_lasts_as_long_as_its_role_lets_it_and_an_hour_where_a_session_began_it() {
    let ground = Ground::new();
    let user = ground.user("u", Some(&allowing("sts:AssumeRole"))).await;
    let role = ground.role("r", TRUST, Some(&allowing("sts:AssumeRole"))).await;
    let seconds = |seconds| [("DurationSeconds", seconds)];
    for (asked, code) in
        [("899", "ValidationError"), ("3601", "ValidationError"), ("43201", "ValidationError"), ("3600", "")]
    {
        assert_eq!(assume(&ground, &user, &role, &seconds(asked)).await.code(), code, "{asked}");
    }
    ground.root("UpdateRole", &[("RoleName", "r"), ("MaxSessionDuration", "7200")]).await;
    let first = Who::of(&assume(&ground, &user, &role, &seconds("7200")).await.good());
    let told = assume(&ground, &first, &role, &seconds("3601")).await;
    assert!(told.error("Message").contains("role chaining"), "{told:?}");
    assume(&ground, &first, &role, &seconds("3600")).await.good();
}

#[tokio::test]
async fn tags_of_a_session_stand_above_the_roles_and_go_on_where_they_are_transitive() {
    let ground = Ground::new();
    let both = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"],"Resource":"*"}}"#;
    let user = ground.user("u", Some(both)).await;
    let role = ground.role("r", TRUST, Some(both)).await;
    ground.root("TagRole", &[("RoleName", "r"), ("Tags.member.1.Key", "Team"), ("Tags.member.1.Value", "role")]).await;
    let more = [
        ("Tags.member.1.Key", "team"),
        ("Tags.member.1.Value", "session"),
        ("Tags.member.2.Key", "local"),
        ("Tags.member.2.Value", "x"),
        ("TransitiveTagKeys.member.1", "team"),
        ("SourceIdentity", "alice"),
    ];
    let made = assume(&ground, &user, &role, &more).await.good();
    assert_eq!(made.text("SourceIdentity"), "alice");
    let first = Who::of(&made);
    let caller = ground.caller(&first).unwrap();
    let tags = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(caller.principal().tags, tags(&[("local", "x"), ("team", "session")]));
    assert_eq!(caller.context().get("aws:SourceIdentity").unwrap(), ["alice"]);

    let second = Who::of(&assume(&ground, &first, &role, &[]).await.good());
    let caller = ground.caller(&second).unwrap();
    assert_eq!(caller.principal().tags, tags(&[("team", "session")]));
    assert_eq!(caller.context().get("aws:SourceIdentity").unwrap(), ["alice"]);
    let other = [("Tags.member.1.Key", "TEAM"), ("Tags.member.1.Value", "mine")];
    assert_eq!(assume(&ground, &first, &role, &other).await.code(), "InvalidInput");
    assert_eq!(assume(&ground, &first, &role, &[("SourceIdentity", "bob")]).await.code(), "AccessDenied");

    // What a session hands on cannot be shed by naming another token than the one that was verified.
    let shed = [("X-Amz-Security-Token", "anything"), ("SourceIdentity", "bob")];
    let told = assume(&ground, &first, &role, &shed).await;
    assert_eq!(told.code(), "NotImplemented", "{told:?}");

    let plain = ground.user("plain", Some(&allowing("sts:AssumeRole"))).await;
    for more in [&other[..], &[("SourceIdentity", "bob")]] {
        assert_eq!(assume(&ground, &plain, &role, more).await.code(), "AccessDenied", "{more:?}");
    }
}

#[tokio::test]
async fn a_users_own_session_may_what_the_user_may_but_in_iam() {
    let ground = Ground::new();
    let all = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#;
    let user = ground.user("u", Some(all)).await;
    let role = ground.role("r", TRUST, None).await;
    for who in [&user, &Who::root()] {
        let session = Who::of(&ground.sts(who, "GetSessionToken", &[("DurationSeconds", "900")]).await.good());
        let caller = ground.caller(&session).unwrap();
        assert!(may_read(&caller));
        assert_eq!(caller.principal(), ground.caller(who).unwrap().principal());
        ground.sts(&session, "GetCallerIdentity", &[]).await.good();
        assert_eq!(ground.iam(&session, "ListUsers", &[]).await.code(), "InvalidClientTokenId");
        let told = ground.sts(&session, "GetSessionToken", &[]).await;
        assert_eq!(told.error("Message"), "Cannot call GetSessionToken with session credentials");
        let later = now() + 900;
        assert!(ground.verify(&session, "s3", b"", later).is_err());
    }
    let session = Who::of(&ground.sts(&user, "GetSessionToken", &[]).await.good());
    let of_role = Who::of(&assume(&ground, &session, &role, &[]).await.good());
    assert_eq!(ground.sts(&of_role, "GetSessionToken", &[]).await.code(), "AccessDenied");
    let told = ground
        .sts(&user, "GetSessionToken", &[("SerialNumber", "arn:aws:iam::1:mfa/u"), ("TokenCode", "123456")])
        .await;
    assert_eq!((told.status, told.code()), (StatusCode::NOT_IMPLEMENTED, "NotImplemented"));
    // With the user, its sessions go.
    ground.root("DeleteAccessKey", &[("UserName", "u"), ("AccessKeyId", &user.0.access_key_id)]).await;
    ground.root("DeleteUserPolicy", &[("UserName", "u"), ("PolicyName", "p")]).await;
    assert!(ground.caller(&session).is_ok());
    ground.root("DeleteUser", &[("UserName", "u")]).await;
    assert!(ground.caller(&session).is_err());
}

#[tokio::test]
async fn a_service_assumes_a_role_that_trusts_it_for_whom_the_role_says() {
    let trust = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"batchoperations.s3.amazonaws.com"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"aws:SourceAccount":"111111111111"},"ArnLike":{"aws:SourceArn":"arn:aws:s3:us-east-1:111111111111:job/*"}}}}"#;
    let ground = Ground::new();
    let role = ground.role("batch", trust, Some(READ)).await;
    let service = |name: &str, context: &Context| Caller::service(name, ACCOUNT, context.clone(), None, "");
    let context =
        |account: &str, arn: &str| Context::new().with("aws:SourceAccount", account).with("aws:SourceArn", arn);
    let ours = context(ACCOUNT, "arn:aws:s3:us-east-1:111111111111:job/1");
    let session = ground.identity.assume_for_service(&service(BATCH, &ours), &role, "s3-batch-operations_1").unwrap();
    assert_eq!(session.principal.arn, "arn:aws:sts::111111111111:assumed-role/batch/s3-batch-operations_1");
    let PrincipalKind::AssumedRole { role_arn, session_name } = &session.principal.kind else { panic!("{session:?}") };
    assert_eq!((role_arn.as_str(), session_name.as_str()), (role.as_str(), "s3-batch-operations_1"));
    assert_eq!(session.rights.identity.len(), 1);

    for (name, context) in [
        ("lambda.amazonaws.com", ours.clone()),
        (BATCH, context("222222222222", "arn:aws:s3:us-east-1:111111111111:job/1")),
        (BATCH, context(ACCOUNT, "arn:aws:s3:us-east-1:222222222222:job/1")),
        (BATCH, Context::new()),
    ] {
        let refused = ground.identity.assume_for_service(&service(name, &context), &role, "s").unwrap_err();
        assert!(matches!(refused, AssumeError::NotTrusted { .. }), "{name} {context:?}: {refused:?}");
        assert!(ground.identity.session(&service(name, &context), &role, "s", 900, now()).is_err());
    }
    for none in ["arn:aws:iam::111111111111:role/none", "arn:aws:iam::111111111111:role/path/batch", "batch"] {
        let refused = ground.identity.assume_for_service(&service(BATCH, &ours), none, "s").unwrap_err();
        assert!(matches!(refused, AssumeError::NoSuchRole(_)), "{none}");
    }

    // Why not, with the statement that is nearest.
    let told = |name: &str, context: &Context| {
        let refused = ground.identity.assume_for_service(&service(name, context), &role, "s").unwrap_err();
        // What the policy says is not in what is told.
        assert_eq!(refused.to_string(), format!("{role} does not trust {name}"));
        refused.why().unwrap().to_owned()
    };
    assert_eq!(
        told(BATCH, &context(ACCOUNT, "arn:aws:s3:us-east-1:222222222222:job/1")),
        "its statement 1 asks that aws:SourceArn is like arn:aws:s3:us-east-1:111111111111:job/*, and it is \
         arn:aws:s3:us-east-1:222222222222:job/1"
    );
    assert_eq!(told("lambda.amazonaws.com", &ours), "its statement 1 is for batchoperations.s3.amazonaws.com");

    let made = ground.identity.session(&service(BATCH, &ours), &role, "f", 900, now()).unwrap();
    let who = Who::new(&made.access_key_id, made.secret_access_key.expose(), Some(made.session_token.expose()));
    let caller = ground.caller(&who).unwrap();
    assert!(may_read(&caller));
    assert_eq!(caller.principal().arn, "arn:aws:sts::111111111111:assumed-role/batch/f");
    assert!(!caller.context().get("aws:TokenIssueTime").unwrap()[0].is_empty());
}

#[tokio::test]
async fn a_key_that_is_inactive_or_deleted_is_nobodys() {
    let ground = Ground::new();
    let user = ground.user("u", Some(READ)).await;
    let key = user.0.access_key_id.as_str();
    let set = |status| [("UserName", "u"), ("AccessKeyId", key), ("Status", status)];
    assert!(may_read(&ground.caller(&user).unwrap()));
    ground.root("UpdateAccessKey", &set("Inactive")).await;
    assert!(ground.caller(&user).is_err());
    ground.root("UpdateAccessKey", &set("Active")).await;
    assert!(ground.caller(&user).is_ok());
    ground.root("DeleteAccessKey", &set("Active")[..2]).await;
    assert!(ground.caller(&user).is_err());
}

#[tokio::test]
async fn sessions_that_were_issued_before_a_moment_are_ended_by_a_deny_on_their_time() {
    let ground = Ground::new();
    let user = ground.user("u", Some(&allowing("sts:AssumeRole"))).await;
    let role = ground.role("r", TRUST, Some(READ)).await;
    let session = Who::of(&assume(&ground, &user, &role, &[]).await.good());
    let before = |moment: i64| {
        let moment = crate::query::date(moment);
        format!(
            r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Deny","Action":"*","Resource":"*","Condition":{{"DateLessThan":{{"aws:TokenIssueTime":"{moment}"}}}}}}}}"#
        )
    };
    for (moment, ended) in [(now() - 3_600, false), (now() + 3_600, true)] {
        let members = [("RoleName", "r"), ("PolicyName", "end"), ("PolicyDocument", &before(moment))];
        ground.root("PutRolePolicy", &members).await;
        assert_eq!(may_read(&ground.caller(&session).unwrap()), !ended, "{moment}");
    }
}

#[tokio::test]
async fn a_trust_policy_means_who_had_the_arn_when_it_was_written_and_nobody_who_has_it_later() {
    let trust = |arn: &str, more: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"AWS":["{arn}"{more}]}},"Action":"sts:AssumeRole"}}]}}"#
        )
    };
    let (u, a) = ("arn:aws:iam::111111111111:user/u", "arn:aws:iam::111111111111:role/a");
    let ground = Ground::new();
    let may = allowing("sts:AssumeRole");
    for arn in [u, a, "arn:aws:iam::111111111111:user/p/none"] {
        let members = [("RoleName", "early"), ("AssumeRolePolicyDocument", &trust(arn, ""))];
        let told = ground.iam(&Who::root(), "CreateRole", &members).await;
        let message = format!("Statement[1].Principal.AWS: Invalid principal in policy: \"AWS\":\"{arn}\"");
        assert_eq!((told.code(), told.error("Message")), ("MalformedPolicyDocument", message.as_str()));
    }
    let user = ground.user("u", Some(&may)).await;
    ground.role("a", TRUST, Some(&may)).await;
    let to_user = ground.role("to-user", &trust(u, ""), None).await;
    let to_role = ground.role("to-role", &trust(a, ""), None).await;
    let to_both = ground.role("to-both", &trust(u, ",\"111111111111\""), None).await;
    let session = Who::of(&assume(&ground, &user, a, &[]).await.good());
    assume(&ground, &user, &to_user, &[]).await.good();
    assume(&ground, &session, &to_role, &[]).await.good();

    let ground = ground.reopened().await;
    ground.root("DeleteAccessKey", &[("UserName", "u"), ("AccessKeyId", &user.0.access_key_id)]).await;
    ground.root("DeleteUserPolicy", &[("UserName", "u"), ("PolicyName", "p")]).await;
    ground.root("DeleteUser", &[("UserName", "u")]).await;
    ground.root("DeleteRolePolicy", &[("RoleName", "a"), ("PolicyName", "p")]).await;
    ground.root("DeleteRole", &[("RoleName", "a")]).await;
    let user = ground.user("u", Some(&may)).await;
    ground.role("a", TRUST, Some(&may)).await;
    let session = Who::of(&assume(&ground, &user, a, &[]).await.good());
    for (who, role) in [(&user, &to_user), (&session, &to_role)] {
        let told = assume(&ground, who, role, &[]).await;
        assert_eq!(told.code(), "AccessDenied", "{told:?}");
    }
    // As one of the account it is meant still.
    assume(&ground, &user, &to_both, &[]).await.good();
    // Written again, the policy means who has the ARN now; and it was shown all the time as it was given.
    let shown = ground.root("GetRole", &[("RoleName", "to-user")]).await;
    assert_eq!(shown.text("Role.AssumeRolePolicyDocument"), crate::operations::encoded(&trust(u, "")));
    ground.root("UpdateAssumeRolePolicy", &[("RoleName", "to-user"), ("PolicyDocument", &trust(u, ""))]).await;
    assume(&ground, &user, &to_user, &[]).await.good();
}
