"""IAM and STS as deployments use them: with boto3 and the AWS CLI, each answer held to AWS's model of it.

What a principal may do elsewhere is tested where it is asked; here the operations of IAM itself say who gets through.
"""

import datetime
import json
import re
import urllib.error
import urllib.request
import xml.etree.ElementTree

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.config
import pytest
from botocore.exceptions import ClientError

import harness
from audit import ACCOUNT
from harness import AWS, REGION, plain_environment, run

NAMESPACES = {"iam": "https://iam.amazonaws.com/doc/2010-05-08/", "sts": "https://sts.amazonaws.com/doc/2011-06-15/"}
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
BASIC = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
READ_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
# One, because it takes a while to read the models.
SESSION = boto3.session.Session()
# What AWS answers although its model has no such value.
BESIDE_THE_MODEL = {("PermissionsBoundaryAttachmentType", "Policy")}
# What tools ask for before they delete a user, and what nobody has here.
NEVER_THERE = {"GetLoginProfile", "DeleteLoginProfile", "GetAccountPasswordPolicy"}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(*actions, resource="*", **more):
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource} | more


def trust(principal):
    return document({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"})


ACCOUNT_TRUST = trust({"AWS": f"arn:aws:iam::{ACCOUNT}:root"})
LAMBDA_TRUST = trust({"Service": "lambda.amazonaws.com"})


# --- every answer, against botocore's model ---


def watch(client, seen):
    service = client.meta.service_model.service_name

    def look(operation_model, response_dict, **_):
        validate(service, operation_model, response_dict["status_code"], response_dict["headers"], response_dict["body"])
        if response_dict["status_code"] == (404 if operation_model.name in NEVER_THERE else 200):
            seen.add(operation_model.name)

    client.meta.events.register(f"before-parse.{service}", look)
    return client


def validate(service, operation, status, headers, body):
    # Who is refused at the door is told so by the server, in XML as well.
    assert headers["content-type"] in ({"text/xml"} if status < 300 else {"text/xml", "application/xml"}), headers
    root = xml.etree.ElementTree.fromstring(body)
    if status >= 300:
        assert root.tag == "ErrorResponse", body
        assert [child.tag for child in root] == ["Error", "RequestId"], body
        assert [child.tag for child in root[0]] == ["Type", "Code", "Message"] and all(child.text for child in root[0]), body
        assert root[1].text == headers["x-amzn-requestid"]
        return
    for element in root.iter():
        assert element.tag.startswith("{" + NAMESPACES[service] + "}"), element.tag
        element.tag = element.tag.split("}")[1]
    assert root.tag == f"{operation.name}Response"
    wanted = [f"{operation.name}Result"] if operation.output_shape is not None else []
    assert [child.tag for child in root] == wanted + ["ResponseMetadata"], body
    assert root[-1][0].text == headers["x-amzn-requestid"]
    if wanted:
        check(operation.output_shape, root[0], operation.name)


def check(shape, element, path):
    kind = shape.type_name
    if kind == "structure":
        tags = [child.tag for child in element]
        assert len(set(tags)) == len(tags), f"{path}: {tags}"
        assert set(tags) <= set(shape.members), f"{path}: {set(tags) - set(shape.members)} is not in the model"
        missing = set(shape.required_members) - set(tags)
        if "Arn" in tags and element.find("Arn").text.endswith(":root"):
            # Root is shown as a user without a name, whose ID is the account's number.
            return
        assert not missing, f"{path}: {missing}"
        for child in element:
            check(shape.members[child.tag], child, f"{path}.{child.tag}")
    elif kind == "list":
        for child in element:
            assert child.tag == "member", f"{path}: {child.tag}"
            check(shape.member, child, path)
    elif kind == "map":
        for child in element:
            assert [part.tag for part in child] == ["key", "value"] and child.tag == "entry", path
            check(shape.key, child[0], path)
            check(shape.value, child[1], path)
    else:
        value(shape, element.text or "", path)


def value(shape, text, path):
    if shape.type_name == "timestamp":
        assert DATE.fullmatch(text), f"{path}: {text}"
    elif shape.type_name == "boolean":
        assert text in ("true", "false"), f"{path}: {text}"
    elif shape.type_name in ("integer", "long"):
        assert re.fullmatch(r"-?\d+", text), f"{path}: {text}"
    elif (shape.name, text) not in BESIDE_THE_MODEL:
        least, most = shape.metadata.get("min", 0), shape.metadata.get("max", len(text))
        assert least <= len(text) <= most, f"{path}: {text!r}"
        allowed = shape.metadata.get("enum")
        # The simulator's word for the kind of a policy is not that of its model, on AWS either.
        assert not allowed or text in allowed or shape.name == "PolicySourceType", f"{path}: {text!r} is none of {allowed}"


@pytest.fixture(scope="module")
def seen():
    return set()


@pytest.fixture
def iam(server, seen):
    return client(server, "iam", seen)


def client(server, service, seen, access_key=None):
    """A client of the server's: root's, or with credentials as AWS's answers have them."""
    key = access_key or {"AccessKeyId": server.exports["AWS_ACCESS_KEY_ID"], "SecretAccessKey": server.exports["AWS_SECRET_ACCESS_KEY"]}
    with harness.environ(server.environment):
        made = SESSION.client(
            service, region_name=REGION, config=botocore.config.Config(retries={"max_attempts": 1}),
            aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"],
            aws_session_token=key.get("SessionToken"))
    return watch(made, seen)


def refused(call, **arguments):
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


def make_user(server, iam, seen, name, *statements):
    iam.create_user(UserName=name)
    if statements:
        iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=document(*statements))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return lambda service="iam": client(server, service, seen, key)


# --- what is tested ---


def test_a_deployment_makes_roles_and_policies_and_takes_them_away_again(server, iam, seen, name):
    role = iam.create_role(
        RoleName=name, Path="/service-role/", AssumeRolePolicyDocument=ACCOUNT_TRUST, Description="What the job does",
        MaxSessionDuration=7200, Tags=[{"Key": "stage", "Value": "QA"}])["Role"]
    assert role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/service-role/{name}"
    # botocore decodes the document, and gives what was sent.
    assert role["AssumeRolePolicyDocument"] == json.loads(ACCOUNT_TRUST)
    assert abs(role["CreateDate"] - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=1)
    iam.get_waiter("role_exists").wait(RoleName=name)
    inline = document(allow("iam:GetRole", resource=role["Arn"]))
    iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=inline)
    assert iam.get_role_policy(RoleName=name, PolicyName="inline")["PolicyDocument"] == json.loads(inline)
    policy = iam.create_policy(PolicyName=name, PolicyDocument=document(allow("s3:GetObject")), Description="d")["Policy"]
    for arn in (policy["Arn"], BASIC):
        iam.attach_role_policy(RoleName=name, PolicyArn=arn)
    attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    assert {policy["PolicyArn"] for policy in attached} == {policy["Arn"], BASIC}
    assert iam.list_role_policies(RoleName=name)["PolicyNames"] == ["inline"]
    assert iam.get_role(RoleName=name)["Role"]["Tags"] == [{"Key": "stage", "Value": "QA"}]

    results = iam.simulate_principal_policy(
        PolicySourceArn=role["Arn"], ActionNames=["s3:GetObject", "s3:PutObject"], ResourceArns=["arn:aws:s3:::b/k"])
    got, put = results["EvaluationResults"]
    assert (got["EvalDecision"], put["EvalDecision"]) == ("allowed", "implicitDeny")
    assert got["MatchedStatements"][0]["SourcePolicyId"] == name and not put["MatchedStatements"]

    as_user = make_user(server, iam, seen, name, allow("sts:AssumeRole", resource=role["Arn"]))
    assumed = as_user("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="deploy", DurationSeconds=7200)
    assert assumed["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/deploy"
    session = client(server, "iam", seen, assumed["Credentials"])
    assert session.get_role(RoleName=name)["Role"]["RoleId"] == role["RoleId"]
    code, message = refused(session.list_roles)
    assert code == "AccessDenied"
    assert message == (f"User: {assumed['AssumedRoleUser']['Arn']} is not authorized to perform: iam:ListRoles on resource: "
                       f"arn:aws:iam::{ACCOUNT}:role/ because no identity-based policy allows the iam:ListRoles action")

    # In the order in which tools do it, and each step that comes too early is refused.
    assert refused(iam.delete_role, RoleName=name)[0] == "DeleteConflict"
    assert refused(iam.delete_policy, PolicyArn=policy["Arn"])[0] == "DeleteConflict"
    for arn in (policy["Arn"], BASIC):
        iam.detach_role_policy(RoleName=name, PolicyArn=arn)
    iam.delete_role_policy(RoleName=name, PolicyName="inline")
    assert iam.list_instance_profiles_for_role(RoleName=name)["InstanceProfiles"] == []
    iam.delete_role(RoleName=name)
    iam.delete_policy(PolicyArn=policy["Arn"])
    assert refused(iam.get_role, RoleName=name) == ("NoSuchEntity", f"The role with name {name} cannot be found.")
    # With its role a session is over.
    assert refused(session.get_role, RoleName=name)[0] in {"InvalidClientTokenId", "InvalidAccessKeyId"}


def test_the_same_with_the_aws_cli(server, iam, seen, name, tmp_path):
    trust_file = tmp_path / "trust.json"
    trust_file.write_text(ACCOUNT_TRUST)
    made = server.aws_json("iam", "create-role", "--role-name", name, "--assume-role-policy-document", f"file://{trust_file}",
                           "--tags", "Key=stage,Value=QA")
    arn = made["Role"]["Arn"]
    assert made["Role"]["AssumeRolePolicyDocument"] == json.loads(ACCOUNT_TRUST)
    server.aws("iam", "put-role-policy", "--role-name", name, "--policy-name", "inline",
               "--policy-document", document(allow("iam:ListRoles")))
    server.aws("iam", "attach-role-policy", "--role-name", name, "--policy-arn", READ_ONLY)
    simulated = server.aws_json("iam", "simulate-principal-policy", "--policy-source-arn", arn, "--action-names", "s3:GetObject")
    assert simulated["EvaluationResults"][0]["EvalDecision"] == "allowed"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(allow("sts:AssumeRole", resource=arn)))
    key = iam.create_access_key(UserName=name)["AccessKey"]

    def as_key(key, *arguments):
        environment = server.environment | {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        if "SessionToken" in key:
            environment["AWS_SESSION_TOKEN"] = key["SessionToken"]
        return run([AWS, *arguments, "--output", "json"], environment, check=False)

    denied = as_key(key, "iam", "list-roles")
    assert denied.returncode != 0 and "(AccessDenied)" in denied.stderr and "iam:ListRoles" in denied.stderr
    assumed = json.loads(as_key(key, "sts", "assume-role", "--role-arn", arn, "--role-session-name", "cli").stdout)
    listed = json.loads(as_key(assumed["Credentials"], "iam", "list-roles").stdout)
    assert name in {role["RoleName"] for role in listed["Roles"]}
    early = server.aws("iam", "delete-role", "--role-name", name, check=False)
    assert "(DeleteConflict)" in early.stderr and "must detach all policies first" in early.stderr
    for step in (
        ("detach-role-policy", "--role-name", name, "--policy-arn", READ_ONLY),
        ("delete-role-policy", "--role-name", name, "--policy-name", "inline"),
        ("delete-role", "--role-name", name),
    ):
        server.aws("iam", *step)
    gone = server.aws("iam", "get-role", "--role-name", name, check=False)
    assert gone.returncode != 0 and "(NoSuchEntity)" in gone.stderr


def test_a_profile_with_a_role_is_assumed_by_the_sdk_itself(server, iam, seen, name, tmp_path):
    """What `role_arn` and `source_profile` in ~/.aws/config do: botocore calls AssumeRole by itself."""
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=ACCOUNT_TRUST)["Role"]["Arn"]
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(allow("sts:AssumeRole", resource=arn)))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    (tmp_path / "credentials").write_text(
        f"[user]\naws_access_key_id={key['AccessKeyId']}\naws_secret_access_key={key['SecretAccessKey']}\n")
    (tmp_path / "config").write_text(f"[profile job]\nrole_arn={arn}\nsource_profile=user\nrole_session_name=job\nregion={REGION}\n")
    environment = plain_environment(tmp_path) | {
        "AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_ENDPOINT_URL": server.environment["AWS_ENDPOINT_URL"]}
    said = run([AWS, "--profile", "job", "sts", "get-caller-identity", "--output", "json"], environment)
    assert json.loads(said.stdout)["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/job"


def test_users_keys_and_their_own_sessions(server, iam, seen, name):
    as_user = make_user(server, iam, seen, name, allow("iam:*"))
    user = as_user().get_user()["User"]
    assert (user["UserName"], user["Arn"]) == (name, f"arn:aws:iam::{ACCOUNT}:user/{name}")
    second = as_user().create_access_key()["AccessKey"]
    assert refused(as_user().create_access_key) == ("LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2")
    sts = client(server, "sts", seen, second)
    assert sts.get_caller_identity()["UserId"] == user["UserId"]
    session = sts.get_session_token(DurationSeconds=900)["Credentials"]
    assert session["AccessKeyId"].startswith("ASIA") and len(session["SessionToken"]) <= 4096
    assert client(server, "sts", seen, session).get_caller_identity()["Arn"] == user["Arn"]
    iam.update_access_key(UserName=name, AccessKeyId=second["AccessKeyId"], Status="Inactive")
    assert refused(sts.get_caller_identity)[0] in {"InvalidClientTokenId", "InvalidAccessKeyId"}
    keys = iam.list_access_keys(UserName=name)["AccessKeyMetadata"]
    assert sorted(key["Status"] for key in keys) == ["Active", "Inactive"] and "SecretAccessKey" not in keys[0]
    root = client(server, "sts", seen)
    assert root.get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    assert root.get_access_key_info(AccessKeyId=second["AccessKeyId"])["Account"] == ACCOUNT
    assert iam.get_user()["User"]["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"


def test_listings_come_in_pages_that_paginators_follow(iam, name):
    names = [f"{name}-{n}" for n in range(5)]
    for role in names:
        iam.create_role(RoleName=role, Path=f"/{name}/", AssumeRolePolicyDocument=LAMBDA_TRUST)
    pages = iam.get_paginator("list_roles").paginate(PathPrefix=f"/{name}/", PaginationConfig={"PageSize": 2})
    pages = [[role["RoleName"] for role in page["Roles"]] for page in pages]
    assert [len(page) for page in pages] == [2, 2, 1] and sum(pages, []) == names


def test_versions_boundaries_tags_and_what_else_there_is(server, iam, seen, name):
    arn = iam.create_policy(PolicyName=name, Path="/p/", PolicyDocument=document(allow("iam:ListUsers")))["Policy"]["Arn"]
    version = iam.create_policy_version(PolicyArn=arn, PolicyDocument=document(allow("iam:ListRoles")), SetAsDefault=True)
    assert version["PolicyVersion"]["VersionId"] == "v2" and version["PolicyVersion"]["IsDefaultVersion"]
    shown = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
    assert shown["Document"] == json.loads(document(allow("iam:ListUsers")))
    as_user = make_user(server, iam, seen, name)
    iam.attach_user_policy(UserName=name, PolicyArn=arn)
    as_user().list_roles()
    assert refused(as_user().list_users)[0] == "AccessDenied"
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v1")
    as_user().list_users()
    iam.put_user_permissions_boundary(UserName=name, PermissionsBoundary=READ_ONLY)
    code, message = refused(as_user().list_users)
    assert code == "AccessDenied" and message.endswith("because no permissions boundary allows the iam:ListUsers action")
    boundary = iam.get_user(UserName=name)["User"]["PermissionsBoundary"]
    assert boundary["PermissionsBoundaryArn"] == READ_ONLY
    iam.delete_user_permissions_boundary(UserName=name)
    as_user().list_users()
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=LAMBDA_TRUST)
    iam.put_role_permissions_boundary(RoleName=name, PermissionsBoundary=arn)
    assert iam.get_policy(PolicyArn=arn)["Policy"]["PermissionsBoundaryUsageCount"] == 1
    entities = iam.list_entities_for_policy(PolicyArn=arn)
    assert [e["UserName"] for e in entities["PolicyUsers"]] == [e["RoleName"] for e in entities["PolicyRoles"]] == [name]
    iam.delete_role_permissions_boundary(RoleName=name)
    tags = [{"Key": "a", "Value": ""}, {"Key": "b", "Value": "ü 2"}]
    for kind, whose in (("user", {"UserName": name}), ("role", {"RoleName": name}), ("policy", {"PolicyArn": arn})):
        getattr(iam, f"tag_{kind}")(Tags=tags, **whose)
        getattr(iam, f"untag_{kind}")(TagKeys=["a"], **whose)
        assert getattr(iam, f"list_{kind}_tags")(**whose)["Tags"] == tags[1:], kind
    iam.update_role(RoleName=name, Description="d", MaxSessionDuration=3600)
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=ACCOUNT_TRUST)
    assert iam.update_role_description(RoleName=name, Description="e")["Role"]["Description"] == "e"
    iam.update_user(UserName=name, NewUserName=name + "2")
    iam.list_user_policies(UserName=name + "2")
    assert iam.list_groups_for_user(UserName=name + "2")["Groups"] == []
    iam.detach_user_policy(UserName=name + "2", PolicyArn=arn)
    assert iam.list_attached_user_policies(UserName=name + "2")["AttachedPolicies"] == []
    assert [v["VersionId"] for v in iam.list_policy_versions(PolicyArn=arn)["Versions"]] == ["v2", "v1"]
    iam.delete_policy_version(PolicyArn=arn, VersionId="v2")
    assert BASIC in {p["Arn"] for p in iam.list_policies(Scope="AWS")["Policies"]}
    assert [p["Arn"] for p in iam.list_policies(Scope="Local", PathPrefix="/p/")["Policies"]] == [arn]
    assert iam.get_account_summary()["SummaryMap"]["AccessKeysPerUserQuota"] == 2
    assert iam.list_account_aliases()["AccountAliases"] == []
    iam.put_user_policy(UserName=name + "2", PolicyName="q", PolicyDocument=document(allow("s3:*")))
    assert iam.get_user_policy(UserName=name + "2", PolicyName="q")["PolicyDocument"]["Statement"][0]["Action"] == ["s3:*"]
    simulated = iam.simulate_custom_policy(
        PolicyInputList=[document(allow("s3:GetObject", Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}))],
        ActionNames=["s3:GetObject"],
        ContextEntries=[{"ContextKeyName": "aws:SourceIp", "ContextKeyValues": ["10.1.1.1"], "ContextKeyType": "ip"}])
    assert simulated["EvaluationResults"][0]["EvalDecision"] == "allowed"
    keys = iam.get_context_keys_for_custom_policy(
        PolicyInputList=[document(allow("s3:GetObject", resource="arn:aws:s3:::b/${aws:username}"))])
    assert keys["ContextKeyNames"] == ["aws:username"]
    assert iam.get_context_keys_for_principal_policy(
        PolicySourceArn=f"arn:aws:iam::{ACCOUNT}:user/{name}2")["ContextKeyNames"] == []


def test_a_user_is_deleted_as_tools_do_it_which_ask_for_all_that_one_may_have_first(server, iam, seen, name):
    """As Terraform's `aws_iam_user` with `force_destroy` does: it goes on after `NoSuchEntity`, and after no other error."""
    as_user = make_user(server, iam, seen, name)
    # By themselves, users name nobody.
    for whose, asked in (({"UserName": name}, iam), ({}, iam), ({}, as_user())):
        if asked is not iam:
            iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=document(
                allow("iam:List*", "iam:GetLoginProfile", resource=f"arn:aws:iam::{ACCOUNT}:user/{name}")))
        assert asked.list_ssh_public_keys(**whose)["SSHPublicKeys"] == []
        assert asked.list_signing_certificates(**whose)["Certificates"] == []
        assert asked.list_mfa_devices(**whose)["MFADevices"] == []
        assert asked.list_service_specific_credentials(**whose)["ServiceSpecificCredentials"] == []
        if asked is not iam:
            assert refused(asked.get_login_profile) == ("NoSuchEntity", f"Login Profile for User {name} cannot be found.")
    assert iam.list_virtual_mfa_devices(AssignmentStatus="Any")["VirtualMFADevices"] == []
    for ask in (iam.get_login_profile, iam.delete_login_profile):
        assert refused(ask, UserName=name) == ("NoSuchEntity", f"Login Profile for User {name} cannot be found.")
    assert refused(iam.list_mfa_devices, UserName=name + "-gone") == ("NoSuchEntity", f"The user with name {name}-gone cannot be found.")
    assert refused(iam.get_account_password_policy)[0] == "NoSuchEntity"
    for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
    for policy in iam.list_user_policies(UserName=name)["PolicyNames"]:
        iam.delete_user_policy(UserName=name, PolicyName=policy)
    iam.delete_user(UserName=name)


def test_a_confused_deputy_is_told_what_is_missing_and_let_in_once_it_is_there(server, iam, seen, name):
    """Who may give itself more rights than it has: each step is denied for its reason, and allowed with the one statement."""
    as_user = make_user(server, iam, seen, name)
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document({
        "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": "the-word"}}}))["Role"]["Arn"]

    def grant(*statements):
        iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=document(*statements))

    for call, arguments, action, statement in (
        ("put_user_policy", {"UserName": name, "PolicyName": "more", "PolicyDocument": document(allow("s3:*"))},
         "iam:PutUserPolicy", allow("iam:PutUserPolicy", resource=f"arn:aws:iam::{ACCOUNT}:user/{name}")),
        ("attach_role_policy", {"RoleName": name, "PolicyArn": READ_ONLY}, "iam:AttachRolePolicy",
         allow("iam:AttachRolePolicy", Condition={"ArnEquals": {"iam:PolicyARN": READ_ONLY}})),
        ("update_assume_role_policy", {"RoleName": name, "PolicyDocument": ACCOUNT_TRUST}, "iam:UpdateAssumeRolePolicy",
         allow("iam:UpdateAssumeRolePolicy", resource=role)),
        ("create_access_key", {"UserName": name}, "iam:CreateAccessKey", allow("iam:CreateAccessKey", resource="arn:aws:iam::*:user/${aws:username}")),
    ):
        # Without it, and with all but it.
        for statements in ((allow("s3:*"),), (allow("iam:*"), {"Effect": "Deny", "Action": action, "Resource": "*"})):
            grant(*statements)
            code, message = refused(getattr(as_user(), call), **arguments)
            assert code == "AccessDenied" and f"is not authorized to perform: {action} on resource: arn:aws:iam::" in message
        assert message.endswith("with an explicit deny in an identity-based policy")
        grant(statement)
        if call != "update_assume_role_policy":
            getattr(as_user(), call)(**arguments)

    grant(allow("sts:AssumeRole", resource=role))
    session = {"RoleArn": role, "RoleSessionName": "session"}
    assert refused(as_user("sts").assume_role, **session)[0] == "AccessDenied"
    assert refused(as_user("sts").assume_role, ExternalId="another", **session)[0] == "AccessDenied"
    as_user("sts").assume_role(ExternalId="the-word", **session)


def test_what_is_no_policy_is_refused_with_the_place(iam, name):
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=LAMBDA_TRUST)
    for text, place in (
        ('{"Version":', "line 1"),
        (document(allow("s3:GetObjects")), "Statement[1].Action"),
        (document(allow("s3:GetObject", Condition={"StringEqual": {"aws:username": "x"}})), "Statement[1].Condition"),
        (document({"Effect": "Allow", "Action": "s3:*"}), "Statement[1]"),
    ):
        code, message = refused(iam.put_role_policy, RoleName=name, PolicyName="p", PolicyDocument=text)
        assert code == "MalformedPolicyDocument" and place in message, message
    code, message = refused(iam.create_group, GroupName="g")
    assert code == "NotImplemented" and "no groups" in message


def test_keys_and_sessions_outlive_a_server_that_is_killed(tmp_path, seen):
    server = harness.Server(tmp_path).start()
    try:
        iam = client(server, "iam", seen)
        arn = iam.create_role(RoleName="r", AssumeRolePolicyDocument=ACCOUNT_TRUST)["Role"]["Arn"]
        iam.create_user(UserName="u")
        iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=document(allow("sts:AssumeRole")))
        key = iam.create_access_key(UserName="u")["AccessKey"]
        session = client(server, "sts", seen, key).assume_role(RoleArn=arn, RoleSessionName="session")["Credentials"]
        server.kill()
        server.start()
        assert client(server, "sts", seen, key).get_caller_identity()["Arn"].endswith(":user/u")
        assert client(server, "sts", seen, session).get_caller_identity()["Arn"].endswith("assumed-role/r/session")
    finally:
        server.stop()
    # What was shown once lies nowhere in the clear.
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (key["SecretAccessKey"], session["SecretAccessKey"], session["SessionToken"]):
                assert secret.encode() not in content, path


def who_presigned(server, more=""):
    """How other services have a client prove who it is: a presigned GET of GetCallerIdentity."""
    request = botocore.awsrequest.AWSRequest(
        "GET", f"http://{server.address}/?Action=GetCallerIdentity&Version=2011-06-15{more}", data="")
    botocore.auth.SigV4QueryAuth(harness.credentials(server), "sts", REGION, expires=60).add_auth(request)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request.url, timeout=10) as answer:
        return answer.read().decode()


def test_a_presigned_question_who_somebody_is(server):
    assert f"<Arn>arn:aws:iam::{ACCOUNT}:root</Arn>" in who_presigned(server)


def test_a_presigned_question_who_somebody_is_needs_no_iam(tmp_path):
    server = harness.Server(tmp_path, {"LONGSHORE_IAM": "off"}).start()
    try:
        assert f"<Arn>arn:aws:iam::{ACCOUNT}:root</Arn>" in who_presigned(server)
        # Nothing is ignored here either.
        with pytest.raises(urllib.error.HTTPError) as refusal:
            who_presigned(server, "&Unknown=1")
        with refusal.value as told:
            assert told.status == 501 and "<Code>NotImplemented</Code>" in told.read().decode()
    finally:
        server.stop()


def test_what_is_made_with_keys_goes_once_they_have_gone(server, iam, seen, name):
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(allow("s3:*")))
    key = iam.create_access_key(UserName=name)["AccessKey"]["AccessKeyId"]
    message = "Cannot delete entity, must delete policies first."
    assert refused(iam.delete_user, UserName=name) == ("DeleteConflict", message)
    iam.delete_user_policy(UserName=name, PolicyName="p")
    message = "Cannot delete entity, must delete access keys first."
    assert refused(iam.delete_user, UserName=name) == ("DeleteConflict", message)
    iam.delete_access_key(UserName=name, AccessKeyId=key)
    iam.delete_user(UserName=name)
    assert refused(iam.get_user, UserName=name) == ("NoSuchEntity", f"The user with name {name} cannot be found.")


def test_every_operation_was_answered_and_held_to_the_model(request, seen):
    """Comes last: all that is served was seen above, each answer as AWS's model has it."""
    here = {item.name for item in request.session.items if item.module is request.module}
    if here != {test for test in dir(request.module) if test.startswith("test_")}:
        pytest.skip("only where all tests of this file run")
    text = (harness.ROOT / "crates/identity/src/operations.rs").read_text()
    served = set(re.findall(r'"(\w+)" => \w+::\w+,', text))
    assert len(served) > 60 and served - seen == set()
