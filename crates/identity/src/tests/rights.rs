//! No operation is served to somebody who may not, and each is to whoever may do just that.

use super::*;
use crate::entity::State;
use crate::operations::{IAM, STS};

const ROLE: &str = "arn:aws:iam::111111111111:role/r";
const USER: &str = "arn:aws:iam::111111111111:user/other";
const POLICY: &str = "arn:aws:iam::111111111111:policy/managed";
const KEY: &str = "AKIAAAAAAAAAAAAAAAAA";

/// Every operation, with members with which it succeeds on what [`furnish`] makes.
const CALLS: &[(&str, &[(&str, &str)])] = &[
    ("CreateUser", &[("UserName", "new")]),
    ("GetUser", &[("UserName", "other")]),
    ("ListUsers", &[]),
    ("UpdateUser", &[("UserName", "other"), ("NewUserName", "renamed")]),
    ("DeleteUser", &[("UserName", "bare")]),
    ("ListGroupsForUser", &[("UserName", "other")]),
    ("ListSSHPublicKeys", &[("UserName", "other")]),
    ("ListSigningCertificates", &[("UserName", "other")]),
    ("ListMFADevices", &[("UserName", "other")]),
    ("ListServiceSpecificCredentials", &[("UserName", "other"), ("ServiceName", "codecommit.amazonaws.com")]),
    ("GetLoginProfile", &[("UserName", "other")]),
    ("DeleteLoginProfile", &[("UserName", "other")]),
    ("TagUser", &[("UserName", "other"), ("Tags.member.1.Key", "a"), ("Tags.member.1.Value", "b")]),
    ("UntagUser", &[("UserName", "other"), ("TagKeys.member.1", "k")]),
    ("ListUserTags", &[("UserName", "other")]),
    ("CreateAccessKey", &[("UserName", "other")]),
    ("ListAccessKeys", &[("UserName", "other")]),
    ("UpdateAccessKey", &[("UserName", "other"), ("AccessKeyId", KEY), ("Status", "Inactive")]),
    ("DeleteAccessKey", &[("UserName", "other"), ("AccessKeyId", KEY)]),
    ("CreateRole", &[("RoleName", "new"), ("AssumeRolePolicyDocument", TRUST)]),
    ("GetRole", &[("RoleName", "r")]),
    ("ListRoles", &[]),
    ("UpdateRole", &[("RoleName", "r"), ("Description", "new")]),
    ("UpdateRoleDescription", &[("RoleName", "r"), ("Description", "new")]),
    ("UpdateAssumeRolePolicy", &[("RoleName", "r"), ("PolicyDocument", TRUST)]),
    ("DeleteRole", &[("RoleName", "bare")]),
    ("ListInstanceProfilesForRole", &[("RoleName", "r")]),
    ("TagRole", &[("RoleName", "r"), ("Tags.member.1.Key", "a"), ("Tags.member.1.Value", "b")]),
    ("UntagRole", &[("RoleName", "r"), ("TagKeys.member.1", "k")]),
    ("ListRoleTags", &[("RoleName", "r")]),
    ("PutUserPermissionsBoundary", &[("UserName", "bare"), ("PermissionsBoundary", POLICY)]),
    ("DeleteUserPermissionsBoundary", &[("UserName", "other")]),
    ("PutRolePermissionsBoundary", &[("RoleName", "bare"), ("PermissionsBoundary", POLICY)]),
    ("DeleteRolePermissionsBoundary", &[("RoleName", "r")]),
    ("PutUserPolicy", &[("UserName", "other"), ("PolicyName", "new"), ("PolicyDocument", READ)]),
    ("GetUserPolicy", &[("UserName", "other"), ("PolicyName", "inline")]),
    ("ListUserPolicies", &[("UserName", "other")]),
    ("DeleteUserPolicy", &[("UserName", "other"), ("PolicyName", "inline")]),
    ("PutRolePolicy", &[("RoleName", "r"), ("PolicyName", "new"), ("PolicyDocument", READ)]),
    ("GetRolePolicy", &[("RoleName", "r"), ("PolicyName", "inline")]),
    ("ListRolePolicies", &[("RoleName", "r")]),
    ("DeleteRolePolicy", &[("RoleName", "r"), ("PolicyName", "inline")]),
    ("AttachUserPolicy", &[("UserName", "bare"), ("PolicyArn", POLICY)]),
    ("DetachUserPolicy", &[("UserName", "other"), ("PolicyArn", POLICY)]),
    ("ListAttachedUserPolicies", &[("UserName", "other")]),
    ("AttachRolePolicy", &[("RoleName", "bare"), ("PolicyArn", POLICY)]),
    ("DetachRolePolicy", &[("RoleName", "r"), ("PolicyArn", POLICY)]),
    ("ListAttachedRolePolicies", &[("RoleName", "r")]),
    ("CreatePolicy", &[("PolicyName", "new"), ("PolicyDocument", READ)]),
    ("GetPolicy", &[("PolicyArn", POLICY)]),
    ("ListPolicies", &[]),
    ("DeletePolicy", &[("PolicyArn", "arn:aws:iam::111111111111:policy/unused")]),
    ("ListEntitiesForPolicy", &[("PolicyArn", POLICY)]),
    ("TagPolicy", &[("PolicyArn", POLICY), ("Tags.member.1.Key", "a"), ("Tags.member.1.Value", "b")]),
    ("UntagPolicy", &[("PolicyArn", POLICY), ("TagKeys.member.1", "k")]),
    ("ListPolicyTags", &[("PolicyArn", POLICY)]),
    ("CreatePolicyVersion", &[("PolicyArn", POLICY), ("PolicyDocument", READ)]),
    ("GetPolicyVersion", &[("PolicyArn", POLICY), ("VersionId", "v1")]),
    ("ListPolicyVersions", &[("PolicyArn", POLICY)]),
    ("SetDefaultPolicyVersion", &[("PolicyArn", POLICY), ("VersionId", "v2")]),
    ("DeletePolicyVersion", &[("PolicyArn", POLICY), ("VersionId", "v2")]),
    ("SimulatePrincipalPolicy", &[("PolicySourceArn", USER), ("ActionNames.member.1", "s3:GetObject")]),
    ("SimulateCustomPolicy", &[("PolicyInputList.member.1", READ), ("ActionNames.member.1", "s3:GetObject")]),
    ("GetContextKeysForPrincipalPolicy", &[("PolicySourceArn", ROLE)]),
    ("GetContextKeysForCustomPolicy", &[("PolicyInputList.member.1", READ)]),
    ("GetAccountSummary", &[]),
    ("ListAccountAliases", &[]),
    ("ListVirtualMFADevices", &[("AssignmentStatus", "Any")]),
    ("GetAccountPasswordPolicy", &[]),
    ("GetAccessKeyInfo", &[("AccessKeyId", KEY)]),
    ("AssumeRole", &[("RoleArn", ROLE), ("RoleSessionName", "session")]),
];
/// What is never there: whoever may ask is told so.
const NEVER_THERE: &[&str] = &["GetLoginProfile", "DeleteLoginProfile", "GetAccountPasswordPolicy"];
/// What AWS asks no policy for.
const OPEN: &[&str] = &["GetCallerIdentity", "GetSessionToken"];

const ASKER: &str = "AKIABBBBBBBBBBBBBBBB";
const ASKER_SECRET: &str = "asker-asker-asker-asker-asker-asker-aske";

fn entity(kind: EntityKind, id: &str, name: &str) -> Entity {
    let trust = || Entity::trust_policy(name, TRUST).unwrap();
    let role = (kind == EntityKind::Role).then(|| RolePart {
        trust: trust(),
        named: BTreeMap::new(),
        description: None,
        session_seconds_max: crate::SESSION_SECONDS,
    });
    Entity {
        kind,
        id: id.into(),
        name: name.into(),
        path: "/".into(),
        created: 0,
        inline: BTreeMap::new(),
        attached: Default::default(),
        boundary: None,
        tags: BTreeMap::new(),
        role,
    }
}

/// Users, roles and policies of all kinds and nothing else, in one write; `asker` may do what `policy` says.
async fn furnish(ground: &Ground, policy: Option<String>) -> Who {
    let made = ground.identity.change(move |state, _| {
        *state = State::default();
        for (kind, full, bare) in [(EntityKind::User, "other", "AIDA1"), (EntityKind::Role, "r", "AROA1")] {
            let mut made = entity(kind, &format!("{bare}FULL"), full);
            made.inline.insert("inline".into(), Entity::inline_policy(kind, full, "inline", READ)?);
            made.attached.insert(POLICY.into());
            made.boundary = Some(POLICY.into());
            made.tags.insert("k".into(), "v".into());
            state.put_entity(made);
            state.put_entity(entity(kind, bare, "bare"));
        }
        for (name, versions) in [("managed", 2), ("unused", 1)] {
            let arn = settings().arn("policy", "/", name);
            let versions = (1..=versions).map(|n| Ok((n, Managed::version(&arn, READ, 0)?)));
            state.put_policy(Managed {
                id: format!("ANPA{name}"),
                name: name.into(),
                path: "/".into(),
                description: None,
                created: 0,
                updated: 0,
                default_version: 1,
                last_version: 2,
                versions: versions.collect::<Result<_, IdentityError>>()?,
                tags: BTreeMap::from([("k".into(), "v".into())]),
                arn,
            });
        }
        let mut asker = entity(EntityKind::User, "AIDA2", "asker");
        if let Some(policy) = policy {
            asker.inline.insert("p".into(), Entity::inline_policy(EntityKind::User, "asker", "p", &policy)?);
        }
        state.put_entity(asker);
        let key = |id: &str, user: &str, secret: &str| AccessKey {
            id: id.into(),
            user_id: user.into(),
            secret: Secret::new(secret),
            active: true,
            created: 0,
        };
        state.put_key(key(KEY, "AIDA1FULL", "other"));
        state.put_key(key(ASKER, "AIDA2", ASKER_SECRET));
        Ok(())
    });
    made.await.unwrap();
    Who::new(ASKER, ASKER_SECRET, None)
}

fn service_of(action: &str) -> &'static str {
    if STS.iter().any(|operation| operation.name == action) { "sts" } else { "iam" }
}

#[test]
fn every_operation_has_its_call_here_and_its_action() {
    let there: Vec<&str> = IAM.iter().chain(STS).map(|operation| operation.name).collect();
    let mut here: Vec<&str> = CALLS.iter().map(|(name, _)| *name).chain(OPEN.iter().copied()).collect();
    let mut sorted = there.clone();
    sorted.sort_unstable();
    here.sort_unstable();
    assert_eq!(here, sorted);
    for operation in IAM.iter().chain(STS) {
        assert_eq!(operation.action, format!("{}:{}", service_of(operation.name), operation.name));
    }
}

#[tokio::test]
async fn no_operation_is_served_without_a_right_and_each_is_once_its_one_action_is_allowed() {
    let ground = Ground::new();
    for (action, members) in CALLS {
        let service = service_of(action);
        let others = CALLS.iter().map(|(other, _)| *other).filter(|other| other != action);
        let others: Vec<String> = others.map(|other| format!("\"{}:{other}\"", service_of(other))).collect();
        let all_but_this = format!(
            r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":[{}],"Resource":"*"}}}}"#,
            others.join(",")
        );
        for policy in [None, Some(all_but_this)] {
            let asker = furnish(&ground, policy).await;
            let generation = ground.identity.generation();
            let told = ground.ask(&asker, service, action, members).await;
            assert_eq!((told.status, told.code()), (StatusCode::FORBIDDEN, "AccessDenied"), "{action}: {told:?}");
            let message = told.error("Message");
            let start = format!(
                "User: arn:aws:iam::111111111111:user/asker is not authorized to perform: {service}:{action} on resource: "
            );
            assert!(message.starts_with(&start), "{message}");
            assert_eq!(ground.identity.generation(), generation, "{action} changed something");
        }
        let asker = furnish(&ground, Some(allowing(&format!("{service}:{action}")))).await;
        let told = ground.ask(&asker, service, action, members).await;
        if NEVER_THERE.contains(action) {
            assert_eq!((told.status, told.code()), (StatusCode::NOT_FOUND, "NoSuchEntity"), "{action}: {told:?}");
            continue;
        }
        assert_eq!(told.status, StatusCode::OK, "{action}: {told:?}");
        assert!(told.xml.name == format!("{action}Response"));
    }
}

#[tokio::test]
async fn who_asks_is_told_to_everybody_and_a_session_is_begun_for_every_user() {
    let ground = Ground::new();
    let deny = r#"{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}"#;
    let asker = furnish(&ground, Some(deny.into())).await;
    let told = ground.sts(&asker, "GetCallerIdentity", &[]).await.good();
    assert_eq!(told.text("Arn"), "arn:aws:iam::111111111111:user/asker");
    assert_eq!((told.text("UserId"), told.text("Account")), ("AIDA2", ACCOUNT));
    ground.sts(&asker, "GetSessionToken", &[]).await.good();
    let told = ground.sts(&Who::root(), "GetCallerIdentity", &[]).await.good();
    assert_eq!((told.text("Arn"), told.text("UserId")), ("arn:aws:iam::111111111111:root", ACCOUNT));
}

#[tokio::test]
async fn conditions_on_tags_policies_and_boundaries_are_asked_with_what_the_request_and_the_entity_have() {
    let with = |action: &str, condition: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":{action},"Resource":"*","Condition":{condition}}}}}"#
        )
    };
    let new = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess";
    for (allowed, action, good, bad) in [
        (
            with(
                r#""iam:AttachRolePolicy""#,
                r#"{"ArnEquals":{"iam:PolicyARN":"arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"}}"#,
            ),
            "AttachRolePolicy",
            &[("RoleName", "r"), ("PolicyArn", new)][..],
            &[("RoleName", "r"), ("PolicyArn", "arn:aws:iam::aws:policy/AdministratorAccess")][..],
        ),
        (
            with(
                r#""iam:PutRolePolicy""#,
                r#"{"StringEquals":{"iam:PermissionsBoundary":"arn:aws:iam::111111111111:policy/managed"}}"#,
            ),
            "PutRolePolicy",
            &[("RoleName", "r"), ("PolicyName", "n"), ("PolicyDocument", READ)],
            &[("RoleName", "bare"), ("PolicyName", "n"), ("PolicyDocument", READ)],
        ),
        (
            with(r#""iam:GetRole""#, r#"{"StringEquals":{"aws:ResourceTag/k":"v"}}"#),
            "GetRole",
            &[("RoleName", "r")],
            &[("RoleName", "bare")],
        ),
        (
            with(
                r#"["iam:CreateRole","iam:TagRole"]"#,
                r#"{"StringEquals":{"aws:RequestTag/team":"a"},"ForAllValues:StringEquals":{"aws:TagKeys":"team"}}"#,
            ),
            "CreateRole",
            &[
                ("RoleName", "n"),
                ("AssumeRolePolicyDocument", TRUST),
                ("Tags.member.1.Key", "team"),
                ("Tags.member.1.Value", "a"),
            ],
            &[("RoleName", "n2"), ("AssumeRolePolicyDocument", TRUST)],
        ),
        (
            with(
                r#""iam:CreateUser""#,
                r#"{"StringEquals":{"iam:PermissionsBoundary":"arn:aws:iam::111111111111:policy/managed"}}"#,
            ),
            "CreateUser",
            &[("UserName", "n"), ("PermissionsBoundary", POLICY)],
            &[("UserName", "n2")],
        ),
        (
            with(r#""iam:UntagUser""#, r#"{"ForAllValues:StringEquals":{"aws:TagKeys":["k"]}}"#),
            "UntagUser",
            &[("UserName", "other"), ("TagKeys.member.1", "k")],
            &[("UserName", "other"), ("TagKeys.member.1", "k"), ("TagKeys.member.2", "l")],
        ),
    ] {
        let ground = Ground::new();
        let asker = furnish(&ground, Some(allowed)).await;
        let told = ground.iam(&asker, action, bad).await;
        assert_eq!(told.code(), "AccessDenied", "{action} {bad:?}: {told:?}");
        ground.iam(&asker, action, good).await.good();
    }
}

#[tokio::test]
async fn tags_at_the_making_need_the_right_to_tag() {
    let ground = Ground::new();
    let asker = furnish(&ground, Some(allowing("iam:CreateRole"))).await;
    let members = [
        ("RoleName", "n"),
        ("AssumeRolePolicyDocument", TRUST),
        ("Tags.member.1.Key", "a"),
        ("Tags.member.1.Value", "b"),
    ];
    let told = ground.iam(&asker, "CreateRole", &members).await;
    assert_eq!(told.code(), "AccessDenied");
    assert!(told.error("Message").contains("iam:TagRole"), "{told:?}");
    ground.iam(&asker, "CreateRole", &members[..2]).await.good();
}

#[tokio::test]
async fn nobody_moves_a_user_to_a_name_or_path_that_is_out_of_reach() {
    let ground = Ground::new();
    let policy = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:UpdateUser","Resource":["arn:aws:iam::111111111111:user/other","arn:aws:iam::111111111111:user/mine/*"]}}"#;
    let asker = furnish(&ground, Some(policy.into())).await;
    let told = ground.iam(&asker, "UpdateUser", &[("UserName", "other"), ("NewPath", "/admins/")]).await;
    assert_eq!(told.code(), "AccessDenied", "{told:?}");
    ground
        .iam(&asker, "UpdateUser", &[("UserName", "other"), ("NewPath", "/mine/"), ("NewUserName", "o")])
        .await
        .good();
    assert_eq!(
        ground.root("GetUser", &[("UserName", "o")]).await.text("User.Arn"),
        "arn:aws:iam::111111111111:user/mine/o"
    );
}
