//! Users, roles and keys: what they look like, and what goes wrong.

use super::*;

#[tokio::test]
async fn a_role_is_shown_as_it_was_made_and_changed() {
    let ground = Ground::new();
    let made = ground
        .root(
            "CreateRole",
            &[
                ("RoleName", "Role+=,.@-_1"),
                ("Path", "/a/b/"),
                ("AssumeRolePolicyDocument", TRUST),
                ("Description", "d"),
                ("MaxSessionDuration", "7200"),
                ("PermissionsBoundary", "arn:aws:iam::aws:policy/AmazonS3FullAccess"),
                ("Tags.member.1.Key", "k"),
                ("Tags.member.1.Value", "v"),
            ],
        )
        .await;
    assert!(made.text("Role.RoleId").starts_with("AROA"));
    assert_eq!(made.text("Role.Arn"), "arn:aws:iam::111111111111:role/a/b/Role+=,.@-_1");
    assert_eq!(made.text("Role.MaxSessionDuration"), "7200");
    let document = made.text("Role.AssumeRolePolicyDocument");
    assert!(document.starts_with("%7B%22Version%22%3A%222012-10-17%22"), "{document}");
    let shown = ground.root("GetRole", &[("RoleName", "Role+=,.@-_1")]).await;
    assert_eq!(shown.find("Role"), made.find("Role"));
    assert_eq!(
        shown.text("Role.PermissionsBoundary.PermissionsBoundaryArn"),
        "arn:aws:iam::aws:policy/AmazonS3FullAccess"
    );
    assert_eq!(shown.text("Role.Tags.member.Key"), "k");
    let listed = ground.root("ListRoles", &[("PathPrefix", "/a/")]).await;
    assert_eq!(listed.members("Roles").len(), 1);
    assert!(listed.find("Roles.member.Tags").is_none());
    assert!(ground.root("ListRoles", &[("PathPrefix", "/b/")]).await.members("Roles").is_empty());
    let changed = ground.root("UpdateRoleDescription", &[("RoleName", "Role+=,.@-_1"), ("Description", "new")]).await;
    assert_eq!(changed.text("Role.Description"), "new");
}

#[tokio::test]
async fn what_is_wrong_is_told_in_awss_words() {
    let ground = Ground::new();
    ground.user("u", Some(READ)).await;
    ground.role("r", TRUST, Some(READ)).await;
    let long = "a".repeat(65);
    let role = |name| ("RoleName", name);
    for (action, members, code, message) in [
        ("GetRole", &[role("none")][..], "NoSuchEntity", "The role with name none cannot be found."),
        ("GetRole", &[role("R")], "NoSuchEntity", "The role with name R cannot be found."),
        ("GetUser", &[("UserName", "none")], "NoSuchEntity", "The user with name none cannot be found."),
        (
            "CreateRole",
            &[role("R"), ("AssumeRolePolicyDocument", TRUST)],
            "EntityAlreadyExists",
            "Role with name R already exists.",
        ),
        ("CreateUser", &[("UserName", "u")], "EntityAlreadyExists", "User with name u already exists."),
        (
            "GetRolePolicy",
            &[role("r"), ("PolicyName", "q")],
            "NoSuchEntity",
            "The role policy with name q cannot be found.",
        ),
        (
            "DeleteUserPolicy",
            &[("UserName", "u"), ("PolicyName", "q")],
            "NoSuchEntity",
            "The user policy with name q cannot be found.",
        ),
        ("DeleteRole", &[role("r")], "DeleteConflict", "Cannot delete entity, must delete policies first."),
        ("DeleteUser", &[("UserName", "u")], "DeleteConflict", "Cannot delete entity, must delete policies first."),
        (
            "DeleteRolePermissionsBoundary",
            &[role("r")],
            "NoSuchEntity",
            "Role r does not have a permissions boundary attached to it.",
        ),
        (
            "GetPolicy",
            &[("PolicyArn", "arn:aws:iam::111111111111:policy/none")],
            "NoSuchEntity",
            "Policy arn:aws:iam::111111111111:policy/none was not found.",
        ),
        (
            "AttachRolePolicy",
            &[role("r"), ("PolicyArn", "arn:aws:iam::111111111111:policy/none")],
            "NoSuchEntity",
            "Policy arn:aws:iam::111111111111:policy/none does not exist or is not attachable.",
        ),
        (
            "DetachRolePolicy",
            &[role("r"), ("PolicyArn", "arn:aws:iam::111111111111:policy/none")],
            "NoSuchEntity",
            "Policy arn:aws:iam::111111111111:policy/none was not found.",
        ),
        (
            "GetRole",
            &[],
            "ValidationError",
            "1 validation error detected: Value at 'roleName' failed to satisfy constraint: Member must not be null",
        ),
        ("GetRole", &[role(&long)], "ValidationError", "Member must have length less than or equal to 64"),
        (
            "GetRole",
            &[role("a b")],
            "ValidationError",
            "The specified value for roleName is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-",
        ),
        (
            "GetRole",
            &[role("r"), ("New", "x")],
            "NotImplemented",
            "The parameter New of GetRole is not supported here.",
        ),
        ("ListRoles", &[("Marker", "!")], "ValidationError", "Invalid Marker."),
        ("ListRoles", &[("MaxItems", "0")], "ValidationError", "Member must have value greater than or equal to 1"),
        ("CreateRole", &[role("n"), ("AssumeRolePolicyDocument", "{")], "MalformedPolicyDocument", "line 1"),
        ("CreateRole", &[role("n"), ("AssumeRolePolicyDocument", READ)], "MalformedPolicyDocument", "Statement[1]"),
        (
            "PutRolePolicy",
            &[role("r"), ("PolicyName", "n"), ("PolicyDocument", TRUST)],
            "MalformedPolicyDocument",
            "Statement[1]",
        ),
        (
            "PutRolePolicy",
            &[role("r"), ("PolicyName", "n"), ("PolicyDocument", &allowing("s3:GetObjekt"))],
            "MalformedPolicyDocument",
            "s3:GetObject",
        ),
        ("CreateGroup", &[("GroupName", "g")], "NotImplemented", "CreateGroup is not served here: there are no groups"),
        ("CreateInstanceProfile", &[], "NotImplemented", "instance profiles"),
        ("Nonsense", &[], "InvalidAction", "Could not find operation Nonsense for version 2010-05-08"),
        ("AssumeRole", &[], "InvalidAction", "Could not find operation AssumeRole for version 2010-05-08"),
        (
            "TagRole",
            &[role("r"), ("Tags.member.1.Key", "aws:x"), ("Tags.member.1.Value", "")],
            "InvalidInput",
            "reserved",
        ),
        (
            "TagRole",
            &[
                role("r"),
                ("Tags.member.1.Key", "a"),
                ("Tags.member.1.Value", ""),
                ("Tags.member.2.Key", "A"),
                ("Tags.member.2.Value", ""),
            ],
            "InvalidInput",
            "Duplicate tag keys found.",
        ),
    ] {
        let told = ground.iam(&Who::root(), action, members).await;
        assert_eq!(told.code(), code, "{action} {members:?}: {told:?}");
        assert!(told.error("Message").contains(message), "{action}: {}", told.error("Message"));
        assert_eq!(told.xml.child_text("RequestId"), Some("id"));
    }
    for (action, why) in [("AssumeRoleWithWebIdentity", "web identities"), ("AssumeRoleWithSAML", "SAML")] {
        let told = ground.sts(&Who::root(), action, &[]).await;
        assert_eq!((told.status, told.code()), (StatusCode::NOT_IMPLEMENTED, "NotImplemented"));
        assert!(told.error("Message").contains(why));
    }
}

#[tokio::test]
async fn an_entity_goes_once_its_policies_and_keys_have_gone() {
    let ground = Ground::new();
    let key = ground.user("u", Some(READ)).await;
    let arn = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess";
    ground.root("AttachUserPolicy", &[("UserName", "u"), ("PolicyArn", arn)]).await;
    let id = key.0.access_key_id.as_str();
    for (message, action, member) in [
        ("must detach all policies first", "DetachUserPolicy", ("PolicyArn", arn)),
        ("must delete policies first", "DeleteUserPolicy", ("PolicyName", "p")),
        ("must delete access keys first", "DeleteAccessKey", ("AccessKeyId", id)),
    ] {
        let told = ground.iam(&Who::root(), "DeleteUser", &[("UserName", "u")]).await;
        assert!(told.code() == "DeleteConflict" && told.error("Message").contains(message), "{told:?}");
        ground.root(action, &[("UserName", "u"), member]).await;
    }
    ground.root("DeleteUser", &[("UserName", "u")]).await;
    assert!(ground.root("ListUsers", &[]).await.members("Users").is_empty());
}

#[tokio::test]
async fn a_user_has_two_keys_at_most_and_sees_its_own() {
    let ground = Ground::new();
    let who = ground.user("u", Some(r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["iam:GetUser","iam:*AccessKey*"],"Resource":"arn:aws:iam::111111111111:user/${aws:username}"}}"#)).await;
    let other = ground.user("other", None).await;
    assert_eq!(ground.iam(&who, "GetUser", &[]).await.good().text("User.UserName"), "u");
    let second = ground.iam(&who, "CreateAccessKey", &[]).await.good();
    let told = ground.iam(&who, "CreateAccessKey", &[]).await;
    assert_eq!(told.error("Message"), "Cannot exceed quota for AccessKeysPerUser: 2");
    assert_eq!(ground.iam(&who, "ListAccessKeys", &[]).await.good().members("AccessKeyMetadata").len(), 2);
    assert_eq!(ground.iam(&who, "CreateAccessKey", &[("UserName", "other")]).await.code(), "AccessDenied");
    let theirs = other.0.access_key_id.as_str();
    assert_eq!(ground.iam(&who, "DeleteAccessKey", &[("AccessKeyId", theirs)]).await.code(), "NoSuchEntity");
    assert!(ground.caller(&other).is_ok());
    let own = second.text("AccessKey.AccessKeyId");
    ground.iam(&who, "DeleteAccessKey", &[("AccessKeyId", own)]).await.good();
    // Root's key is no user's.
    assert_eq!(ground.iam(&Who::root(), "CreateAccessKey", &[]).await.code(), "InvalidInput");
    let told = ground.iam(&Who::root(), "GetUser", &[]).await.good();
    assert_eq!(told.text("User.Arn"), "arn:aws:iam::111111111111:root");
}

#[tokio::test]
async fn a_user_that_is_renamed_stays_the_same_user_and_its_name_is_free() {
    let ground = Ground::new();
    let who = ground.user("u", Some(READ)).await;
    let id = ground.root("GetUser", &[("UserName", "u")]).await.text("User.UserId").to_owned();
    ground.root("UpdateUser", &[("UserName", "u"), ("NewUserName", "U2"), ("NewPath", "/p/")]).await;
    let ground = ground.reopened().await;
    let shown = ground.root("GetUser", &[("UserName", "U2")]).await;
    assert_eq!((shown.text("User.UserId"), shown.text("User.Path")), (id.as_str(), "/p/"));
    assert_eq!(ground.iam(&Who::root(), "GetUser", &[("UserName", "u")]).await.code(), "NoSuchEntity");
    let caller = ground.caller(&who).unwrap();
    assert!(may_read(&caller));
    assert_eq!(caller.principal().arn, "arn:aws:iam::111111111111:user/p/U2");
    assert_eq!(caller.rights().identity[0].name.as_ref(), "inline policy p of user U2");
    ground.user("u", None).await;
    let told = ground.iam(&Who::root(), "UpdateUser", &[("UserName", "u"), ("NewUserName", "u2")]).await;
    assert_eq!(told.code(), "EntityAlreadyExists");
    ground.root("UpdateUser", &[("UserName", "u"), ("NewUserName", "U")]).await;
}

#[tokio::test]
async fn a_listing_comes_in_pages_that_leave_nothing_out_and_show_nothing_twice() {
    let ground = Ground::new();
    let names = ["b", "A", "c", "a-1", "B2"];
    for name in names {
        ground.root("CreateUser", &[("UserName", name)]).await;
    }
    let (mut seen, mut marker) = (Vec::new(), None::<String>);
    loop {
        let mut members = vec![("MaxItems", "2")];
        members.extend(marker.as_deref().map(|marker| ("Marker", marker)));
        let page = ground.root("ListUsers", &members).await;
        let items = page.members("Users");
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|user| user.child_text("UserName").unwrap().to_owned()));
        marker = page.find("Marker").map(|marker| marker.text.clone());
        assert_eq!(page.text("IsTruncated"), if marker.is_some() { "true" } else { "false" });
        if marker.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["A", "a-1", "b", "B2", "c"]);
}
