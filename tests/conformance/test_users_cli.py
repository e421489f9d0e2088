"""The command line of users who are not root: what they are told before a job runs, and what they need to be given."""

import json
import os
import pathlib
import shutil

import pytest

import harness
from harness import ACCOUNT, LONGSHORE, REGION
from test_permissions import Person, Work, allow


@pytest.fixture
def work(server, name):
    return Work(server, name)


@pytest.fixture
def person(server, name):
    return Person(server, f"{name}-person")


def environment(server, person):
    """A shell of somebody who was given a key, and has `longshore env` for the rest."""
    keys = {"AWS_ACCESS_KEY_ID": person.credentials["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": person.credentials["SecretAccessKey"]}
    exports = {name: value for name, value in server.exports.items() if not name.startswith("LONGSHORE_")}
    return harness.plain_environment(server.home) | exports | keys


def create(work, who, *more, role=None, status=0):
    done = harness.run(
        [LONGSHORE, "job", "create", "--function", work.name, "--manifest", f"s3://{work.bucket}/manifest.csv", "--role", role or work.name,
         "--report", f"s3://{work.bucket}/reports", "--endpoint-url", f"http://{work.server.address}", *more], who, check=False)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def test_what_the_role_of_a_job_may_not_is_said_before_it_runs_to_whoever_may_ask_that(work, person):
    root = harness.plain_environment(work.server.home) | {"LONGSHORE_DATA_DIR": str(work.server.data_dir)}

    def warned(who=root, role=None):
        return [line for line in create(work, who, "--confirm", role=role).stderr.splitlines() if line.startswith("warning: ")]

    work.role_may_all_but("s3:PutObject", "lambda:InvokeFunction")
    invoke, write = warned()
    assert f"the role {work.role} may not lambda:InvokeFunction on {work.function}: every task will fail" in invoke, invoke
    assert f"may not s3:PutObject on arn:aws:s3:::{work.bucket}/reports/job-" in write and "all tasks will run" in write, write
    # The command that it names says why.
    command = write.split('"')[1].split()
    assert command[:2] == ["longshore", "iam"], write
    explained = harness.run([LONGSHORE, *command[1:]], root, check=False)
    assert explained.returncode == 1 and "denied" in explained.stdout, explained.stderr
    [gone] = warned(role="nobody")
    assert gone == f"warning: there is no role arn:aws:iam::{ACCOUNT}:role/nobody on this server: the job will fail before its first task"

    # Who may create the job and may not ask about the role hears nothing of it.
    person.may(allow("s3:CreateJob"), allow("iam:PassRole", work.role), allow("s3:GetObject", f"arn:aws:s3:::{work.bucket}/manifest.csv"))
    assert warned(environment(work.server, person)) == []
    person.may(allow("iam:SimulatePrincipalPolicy", work.role))
    assert len(warned(environment(work.server, person))) == 1, "of the function's policy, which takes lambda:GetPolicy, nothing is told"
    work.role_may_all_but()
    assert warned() == []


def test_a_job_is_created_and_watched_with_no_more_rights_than_that_takes_and_what_is_missing_is_named(work, person):
    work.role_may_all_but()
    person.may(allow("s3:CreateJob"), allow("iam:PassRole", work.role))
    who = environment(work.server, person)
    refused = create(work, who, status=1).stderr
    assert "takes s3:GetObject on it" in refused and "--etag" in refused and "must lie in the storage" not in refused, refused
    done = create(work, who, "--etag", work.etag, "--watch", status=3)
    job = done.stdout.strip()
    assert f"job {job} cannot be watched: AccessDenied: " in done.stderr and "takes s3:DescribeJob" in done.stderr, done.stderr
    assert work.server.wait(job)["Status"] == "Complete"
    person.may(allow("s3:DescribeJob"))
    create(work, who, "--etag", work.etag, "--watch", status=0)
    short = harness.run([LONGSHORE, "job", "create", "--function", work.name, "--manifest", "s3://tl/t.csv",
                         "--endpoint-url", f"http://{work.server.address}"], who, check=False)
    assert short.returncode == 64 and "the name of a bucket has 3 to 63 characters" in short.stderr, short.stderr


def test_a_report_is_delivered_by_whoever_may_change_the_status_of_the_job(work, person):
    work.role_may_all_but("s3:PutObject")
    job, _ = work.ended()
    assert job["Status"] == "Failed"
    who = environment(work.server, person)
    deliver = [LONGSHORE, "job", "deliver", job["JobId"], "--endpoint-url", f"http://{work.server.address}"]
    person.may(allow("s3:DescribeJob"))
    refused = harness.run(deliver, who, check=False)
    assert refused.returncode == 1 and "is not authorized to perform: s3:UpdateJobStatus" in refused.stderr, refused.stderr
    person.may(allow("s3:UpdateJobStatus", f"arn:aws:s3:{REGION}:{ACCOUNT}:job/{job['JobId']}"))
    missing = harness.run(deliver, who, check=False)
    assert missing.returncode == 1 and "The job's role may not s3:PutObject because" in missing.stderr, missing.stderr
    work.role_may(allow("s3:PutObject", f"arn:aws:s3:::{work.bucket}/reports/*"))
    answer = json.loads(harness.run([*deliver, "--json"], who).stdout)
    assert answer == {"jobId": job["JobId"], "bucket": work.bucket, "key": f"reports/job-{job['JobId']}/manifest.json", "numberOfTasks": 3}
    harness.audit(work.server, job["JobId"], work.rows, status="Failed")


def test_who_was_given_a_key_needs_the_address_of_the_server_and_nothing_of_its_data_directory(server, person, tmp_path):
    person.may(allow(["s3:ListJobs", "s3:ListAllMyBuckets"]))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("[theirs]\naws_access_key_id = {AccessKeyId}\naws_secret_access_key = {SecretAccessKey}\n".format(
        **person.credentials))
    # A key of somebody else in the environment would go over the profile.
    shell = harness.plain_environment(tmp_path) | {
        "PATH": f"{LONGSHORE.parent}:{harness.AWS.parent}:{os.environ['PATH']}", "AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "other"}
    script = f"""set -eu
        eval "$(longshore env --endpoint-url http://{server.address} --profile theirs)"
        aws sts get-caller-identity --query Arn --output text
        aws s3 ls > /dev/null
        aws s3control list-jobs --account-id "$AWS_ACCOUNT_ID" --query 'length(Jobs)' --output text
        longshore job list --json --profile theirs > /dev/null
    """
    done = harness.run(["sh", "-c", script], shell)
    assert done.stdout.splitlines()[0] == person.arn and done.stderr == "", done.stderr
    printed = harness.run([LONGSHORE, "env", "--endpoint-url", f"http://{server.address}"], harness.plain_environment(tmp_path))
    assert "KEY" not in printed.stdout and "AWS_ENDPOINT_URL=" in printed.stdout and "there are no credentials" in printed.stderr


def test_the_commands_in_the_shell_of_env_ask_the_server_that_it_names(server):
    done = harness.run(["sh", "-c", f'eval "$({LONGSHORE} env --data-dir {server.data_dir})"; {LONGSHORE} job list --json'],
                       harness.plain_environment(server.home))
    assert "Jobs" in json.loads(done.stdout)


def test_whoever_takes_the_lines_of_a_user_in_roots_shell_is_not_root_any_more(server):
    root = harness.plain_environment(server.home) | {"LONGSHORE_DATA_DIR": str(server.data_dir)}
    for profile in ([], ["--profile", "nobody-yet"]):
        printed = harness.run([LONGSHORE, "env", "--endpoint-url", f"http://{server.address}", *profile], root, check=False)
        assert ("unset LONGSHORE_DATA_DIR\n" in printed.stdout) == (printed.returncode == 0) == (not profile), printed
    of_root = harness.run([LONGSHORE, "env", "--data-dir", server.data_dir], root)
    assert "unset LONGSHORE_DATA_DIR" not in of_root.stdout


def test_the_directory_of_another_user_is_told_from_one_that_is_not_there(server, tmp_path):
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("somebody else is needed")
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    binary = pathlib.Path(shutil.copy(LONGSHORE, tmp_path / "longshore"))
    for above in [tmp_path, *tmp_path.parents][:3]:
        above.chmod(above.stat().st_mode | 0o011)
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", binary]
    if harness.run([*nobody, "--version"], harness.plain_environment(tmp_path), check=False).returncode != 0:
        pytest.skip("somebody else cannot reach the folders of this test")
    for command in (["env"], ["job", "list"], ["iam", "denials"]):
        refused = harness.run([*nobody, *command, "--data-dir", folder], harness.plain_environment(tmp_path), check=False)
        assert refused.returncode != 0 and "ask for an access key (docs/iam.md)" in refused.stderr, (command, refused.stderr)
