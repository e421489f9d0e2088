"""The model check itself: one that a wrong answer passes would prove nothing. Each defect planted here is found."""

import boto3
import botocore.awsrequest
import botocore.config
import botocore.session
import pytest

import model

SERVICE = botocore.session.get_session().get_service_model("s3control")
HEADERS = {
    "x-amz-request-id": "4442587FB7D0A2F9", "x-amz-id-2": "kXv=", "Date": "now", "Server": "longshore",
    "Content-Type": "application/xml",
}
ROOT = '<?xml version="1.0" encoding="UTF-8"?>\n<{0} xmlns="http://awss3control.amazonaws.com/doc/2018-08-20/">{1}</{0}>'
JOB = (
    "<JobId>93735294-df46-44d5-8638-6356f335324e</JobId><ConfirmationRequired>false</ConfirmationRequired>"
    "<JobArn>arn:aws:s3:us-west-2:123456789012:job/93735294-df46-44d5-8638-6356f335324e</JobArn>"
    "<Status>Complete</Status>"
    "<Manifest><Spec><Format>S3BatchOperations_CSV_20180820</Format><Fields><member>Bucket</member><member>Key</member>"
    "</Fields></Spec><Location><ObjectArn>arn:aws:s3:::b/7a6a9be4.csv</ObjectArn><ETag>69f5</ETag></Location></Manifest>"
    "<Operation><LambdaInvoke><FunctionArn>f</FunctionArn><InvocationSchemaVersion>2.0</InvocationSchemaVersion>"
    "<UserArguments><entry><key>k</key><value></value></entry></UserArguments></LambdaInvoke></Operation>"
    "<Priority>42</Priority>"
    "<ProgressSummary><TotalNumberOfTasks>8</TotalNumberOfTasks><NumberOfTasksSucceeded>8</NumberOfTasksSucceeded>"
    "<NumberOfTasksFailed>0</NumberOfTasksFailed>"
    "<Timers><ElapsedTimeInActiveSeconds>3</ElapsedTimeInActiveSeconds></Timers></ProgressSummary>"
    "<FailureReasons/>"
    "<Report><Bucket>arn:aws:s3:::b</Bucket><Format>Report_CSV_20180820</Format><Enabled>true</Enabled>"
    "<Prefix>p</Prefix><ReportScope>AllTasks</ReportScope></Report>"
    "<CreationTime>2019-10-03T21:48:48.048Z</CreationTime><TerminationDate>2019-10-03T21:49:53.944Z</TerminationDate>"
    "<RoleArn>arn:aws:iam::123456789012:role/S3BatchJobRole</RoleArn>"
)
ERROR = (
    "<Error><Code>NoSuchJob</Code><Message>The specified job does not exist</Message></Error>"
    "<RequestId>4442587FB7D0A2F9</RequestId><HostId>kXv=</HostId>"
)


def described(job=JOB):
    return ROOT.format("DescribeJobResult", f"<Job>{job}</Job>")


def look(body, operation="DescribeJob", status=200, **headers):
    model.validate(SERVICE.operation_model(operation), status, HEADERS | headers, body.encode())


def test_right_answers_pass():
    look(described())
    look(described(JOB.replace("<Status>Complete", "<Status>Active").replace("<TerminationDate>2019-10-03T21:49:53.944Z</TerminationDate>", "")))
    look(ROOT.format("ErrorResponse", ERROR), status=404)
    look(ROOT.format("ListJobsResult", "<Jobs/>"), "ListJobs")
    look(ROOT.format("GetJobTaggingResult", "<Tags><member><Key>ä b</Key><Value></Value></member></Tags>"), "GetJobTagging")
    look("", "PutJobTagging")


@pytest.mark.parametrize("before, after, wanted", [
    ("<Priority>42</Priority>", "", "lacks Priority"),
    ("<FailureReasons/>", "", "lacks FailureReasons"),
    ("<Priority>", "<Priorities>1</Priorities><Priority>", "Priorities is not in the model"),
    ("<Prefix>p</Prefix>", "<Prefix>p</Prefix><Prefix>p</Prefix>", "Prefix stands twice"),
    ("<Enabled>true</Enabled>", "", "lacks Enabled"),
    ("<ETag>69f5</ETag>", "", "lacks ETag"),
    ("<ETag>69f5</ETag>", "<ETag/>", "0 is below 1"),
    ("<Priority>42<", "<Priority>-1<", "-1 is below 0"),
    ("<Priority>42<", "<Priority>2147483648<", "2147483648 is too large"),
    ("<Priority>42<", "<Priority>high<", "no whole number"),
    ("<Status>Complete<", "<Status>Done<", "not one of"),
    ("<Status>Complete<", "<Status>Active<", "TerminationDate of a job that is Active"),
    ("<Status>Complete<", "<Status>Failed<", "a Failed job has FailureReasons"),
    ("<Enabled>true<", "<Enabled>yes<", "not true or false"),
    ("48.048Z", "48Z", "no date with milliseconds"),
    ("48.048Z", "48.048+00:00", "no date with milliseconds"),
    ("role/", "user/", "does not match"),
    ("<member>Bucket</member>", "<Field>Bucket</Field>", "is called Field"),
    ("<member>Bucket</member>", "<member>Size</member>", "not one of"),
    ("<entry><key>k</key>", "<entry><key></key>", "0 is below 1"),
    ("<entry>", "<item/><entry>", "is called item"),
    ("<FunctionArn>f<", "<FunctionArn>f.x<", "does not match"),
    ("</LambdaInvoke>", "</LambdaInvoke><S3DeleteObjectTagging/>", "one operation"),
    ("<Timers>", "text<Timers>", "has no text of its own"),
    ("Failed>0<", "Failed>1<", "more tasks are done than there are"),
    ("<FailureReasons/>", "<FailureReasons><member><FailureCode>c</FailureCode><FailureReason>r</FailureReason></member></FailureReasons>", "has FailureReasons"),
    ("DescribeJobResult", "DescribeJobResponse", "is not DescribeJobResult"),
    ("doc/2018-08-20/", "doc/2018-08-21/", "the namespace is"),
    ('<?xml version="1.0" encoding="UTF-8"?>', "", "the prolog"),
    ("</DescribeJobResult>", "", "does not parse"),
])
def test_a_wrong_answer_is_found(before, after, wanted):
    wrong = described().replace(before, after)
    assert wrong != described()
    with pytest.raises(model.Wrong, match=wanted):
        look(wrong)


@pytest.mark.parametrize("body, headers, wanted", [
    (ERROR, {"x-amz-request-id": "other"}, "not that of x-amz-request-id"),
    (ERROR, {"x-amz-id-2": "other"}, "not that of x-amz-id-2"),
    (ERROR, {"Server": ""}, "server is missing"),
    (ERROR, {"Content-Type": "text/xml"}, "content-type"),
    (ERROR.replace("<HostId>kXv=</HostId>", ""), {}, "lacks HostId"),
    (ERROR.replace("<Code>NoSuchJob</Code>", ""), {}, "lacks Code"),
    (ERROR.replace("NoSuchJob", "no such job"), {}, "no such job"),
])
def test_a_wrong_error_is_found(body, headers, wanted):
    with pytest.raises(model.Wrong, match=wanted):
        look(ROOT.format("ErrorResponse", body), status=404, **headers)


def test_an_error_that_is_not_wrapped_is_found():
    with pytest.raises(model.Wrong, match="Error is not ErrorResponse"):
        look(ROOT.format("Error", "<Code>NoSuchJob</Code><Message>m</Message>"), status=404)
    with pytest.raises(model.Wrong, match="is not empty|must be empty"):
        look(ROOT.format("PutJobTaggingResult", ""), "PutJobTagging")


class Raw:
    """The body of an answer that no server sent."""

    def __init__(self, body):
        self.body = body

    def stream(self, *_, **__):
        return iter([self.body])


def test_a_client_that_is_watched_raises_where_botocore_would_see_nothing():
    def client(body):
        made = boto3.session.Session().client(
            "s3control", region_name="us-east-1", endpoint_url="http://example.invalid",
            aws_access_key_id="a", aws_secret_access_key="b", config=botocore.config.Config(retries={"max_attempts": 1}))
        answer = botocore.awsrequest.AWSResponse("http://example.invalid", 200, HEADERS, Raw(body.encode()))
        made.meta.events.register("before-send.s3-control.DescribeJob", lambda **_: answer)
        return made

    asked = {"AccountId": "123456789012", "JobId": "93735294-df46-44d5-8638-6356f335324e"}
    wrong = described(JOB.replace("<Priority>", "<Priorities>1</Priorities><Priority>"))
    assert client(wrong).describe_job(**asked)["Job"]["Priority"] == 42, "botocore looks away"
    with pytest.raises(model.Wrong, match="Priorities"):
        model.watch(client(wrong)).describe_job(**asked)
    seen = []
    assert model.watch(client(described()), seen).describe_job(**asked)["Job"]["Status"] == "Complete"
    assert seen == ["DescribeJob"]


def test_the_clients_of_all_tests_are_watched(server):
    seen = []
    client = server.boto("s3control", user_agent_extra="watched")
    validate = model.validate
    try:
        model.validate = lambda operation, *rest: (seen.append(operation.name), validate(operation, *rest))
        client.list_jobs(AccountId="000000000000")
    finally:
        model.validate = validate
    assert seen == ["ListJobs"]
