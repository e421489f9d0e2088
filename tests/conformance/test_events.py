"""Events of jobs: kept with each state, shown by our own API, and delivered to files and webhooks through kills.

The receiver checks the signature of each request by itself, from the bytes that came; nothing here shares code with the
server.
"""

import collections
import hashlib
import hmac
import http.server
import json
import re
import ssl
import subprocess
import threading
import time

import pytest

import harness
from harness import ACCOUNT, REGION, wait_for
from test_auth import send, signed

SECRET = "conformance-webhook-secret"
PLAIN = ["New", "Preparing", "Ready", "Active", "Completing", "Complete"]
# AWS's rule pattern, word for word from the user guide.
PATTERN = json.loads("""
{ "source": ["aws.s3"], "detail-type": ["AWS Service Event via CloudTrail"],
  "detail": { "eventSource": ["s3.amazonaws.com"], "eventName": ["JobCreated", "JobStatusChanged"] } }
""")
SUCCEED = """
    def handler(event, context):
        task = event["tasks"][0]
        return {"invocationSchemaVersion": "1.0", "treatMissingKeysAs": "PermanentFailure",
                "invocationId": event["invocationId"],
                "results": [{"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": ""}]}
"""


def matches(pattern, document):
    """How EventBridge matches a pattern of exact values."""
    if isinstance(pattern, dict):
        return all(name in document and matches(inner, document[name]) for name, inner in pattern.items())
    return document in pattern


class Receiver:
    """A webhook. Keeps what it is sent, in order, and answers as `answer` says; a wrong signature is an error."""

    def __init__(self, port=0, secret=SECRET, answer=lambda event, times: 200, tls=None):
        self.requests, self.errors, self.times = [], [], collections.Counter()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                try:
                    status = receiver.take(self.path, dict(self.headers.items()), body, secret, answer)
                except Exception as error:  # noqa: BLE001 whatever it is, the test must show it
                    receiver.errors.append(repr(error))
                    status = 500
                try:
                    self.send_response(status)
                    self.send_header("content-length", "0")
                    self.end_headers()
                except OSError:
                    # The server was killed while it waited.
                    pass

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            # The handshake is left to each request's thread: one that comes to nothing must not hold up the others.
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
            self.server.handle_error = lambda request, address: None
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path, headers, body, secret, answer):
        headers = {name.lower(): value for name, value in headers.items()}
        if secret is None:
            assert "x-longshore-signature" not in headers
        else:
            found = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", headers["x-longshore-signature"])
            wanted = hmac.new(secret.encode(), found[1].encode() + b"." + body, hashlib.sha256).hexdigest()
            assert hmac.compare_digest(found[2], wanted), "the signature is not that of time and body"
            assert abs(time.time() - int(found[1])) < 60
        event = json.loads(body)
        self.requests.append((path, headers, event))
        key = details(event)["jobEventId"]
        self.times[key] += 1
        return answer(event, self.times[key])

    def events(self):
        return [event for _, _, event in list(self.requests)]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        assert not self.errors, self.errors[:3]


def details(event):
    return (event.get("detail") or event.get("data") or event)["serviceEventDetails"]


def statuses(events, job):
    """The states of one job in the order in which they came, a redelivery of the last one left out."""
    told, last = [], None
    for event in events:
        found = details(event)
        if found["jobId"] == job and found["jobEventId"] != last:
            told.append(found["status"])
            last = found["jobEventId"]
    return told


def settings(sinks):
    return "".join("[[events]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in sink.items()) for sink in sinks)


@pytest.fixture
def told(tmp_path):
    """Starts a server with sinks; what stands in its log is checked at the end."""
    servers = []

    def start(sinks, environment=None):
        server = harness.Server(tmp_path, environment)
        server.data_dir.mkdir(mode=0o700, exist_ok=True)
        (server.data_dir / "longshore.toml").write_text(settings(sinks))
        servers.append(server.start())
        return server

    yield start
    for server in servers:
        server.stop()
        assert "panicked at" not in server.said()
        assert SECRET not in server.said()


def own(server, path, method="GET", service="s3", **headers):
    """A request to our own API, signed by botocore."""
    sent = signed(server, method, service, path, headers=headers)
    status, _, body = send(server, method, path, sent)
    return status, json.loads(body)


def prepare(server, name, keys=3):
    bucket = server.bucket(name)
    function = server.deploy(name, SUCCEED)
    etag = server.put_manifest(bucket, [(bucket, f"key-{n}") for n in range(keys)])
    return bucket, function, etag


def test_every_state_of_a_job_is_told_in_order_to_files_webhooks_and_our_own_api(told, name, tmp_path):
    hook, clouds = Receiver(), Receiver(secret=None)
    (tmp_path / "secret").write_text(SECRET + "\n")
    server = told([
        {"name": "log", "kind": "file", "path": "events.jsonl"},
        {"name": "trail", "kind": "file", "path": str(tmp_path / "trail.jsonl"), "format": "cloudtrail"},
        {"name": "hook", "kind": "webhook", "url": f"http://127.0.0.1:{hook.port}/jobs?a=b",
         "secret_file": str(tmp_path / "secret")},
        {"name": "clouds", "kind": "webhook", "url": f"http://localhost:{clouds.port}/", "format": "cloudevents"},
        {"name": "screen", "kind": "stdout"},
    ], {"LONGSHORE_LOG": "debug"})
    bucket, function, etag = prepare(server, name)
    job = server.create_job(bucket, function, etag)
    server.wait(job)
    bad = server.put_manifest(bucket, "b\n", key="bad.csv")
    failed = server.create_job(bucket, function, bad, key="bad.csv")
    server.wait(failed, until="Failed")

    def shown(job):
        status, answer = own(server, f"/_longshore/v1/jobs/{job}/events")
        assert status == 200, answer
        return answer["events"]

    wait_for("the delivery of everything", lambda: all(
        delivery["delivered"] for j in (job, failed) for event in shown(j) for delivery in event["deliveries"]))
    kept = shown(job)
    assert [event["status"] for event in kept] == PLAIN
    assert [d["sink"] for d in kept[0]["deliveries"]] == ["clouds", "hook", "log", "screen", "trail"]
    lines = lambda path: [json.loads(line) for line in path.read_text().splitlines()]
    log, trail = lines(server.data_dir / "events.jsonl"), lines(tmp_path / "trail.jsonl")
    screen = [json.loads(line) for line in server.said().splitlines() if line.startswith('{"version":"0"')]
    for events in (log, trail, hook.events(), clouds.events(), screen):
        assert statuses(events, job) == PLAIN
        assert statuses(events, failed) == ["New", "Preparing", "Failing", "Failed"]
        assert len({details(event)["jobEventId"] for event in events}) == len(PLAIN) + 4
    for event in log:
        assert matches(PATTERN, event)
        assert set(event) == {"version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"}
        assert {event["account"], event["detail"]["userIdentity"]["accountId"]} == {ACCOUNT}
        found = details(event)
        assert found["jobArn"] == f"arn:aws:s3:{REGION}:{ACCOUNT}:job/{found['jobId']}"
        assert re.fullmatch(r"[0-9a-f]{32}", found["jobEventId"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", event["time"])
        wanted = ["InvalidManifestContent"] if found["status"] in ("Failing", "Failed") else []
        assert (found["failureCodes"], found["statusChangeReason"]) == (wanted, [])
        assert event["detail"]["eventName"] == ("JobCreated" if found["status"] == "New" else "JobStatusChanged")
    assert [event["document"] for event in kept] == [e for e in log if details(e)["jobId"] == job]
    assert all(event["recipientAccountId"] == ACCOUNT and event["requestParameters"] is None for event in trail)
    path, headers, _ = hook.requests[0]
    assert (path, headers["content-type"]) == ("/jobs?a=b", "application/json")
    for path, headers, event in clouds.requests:
        assert headers["content-type"].startswith("application/cloudevents+json")
        assert (event["specversion"], event["id"]) == ("1.0", details(event)["jobEventId"])
        assert {"source", "type", "subject", "time", "datacontenttype"} <= set(event)
    hook.close()
    clouds.close()


def test_nothing_is_lost_and_only_equal_events_repeat_when_the_server_is_killed_and_the_receiver_is_down(
        told, name, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    port = harness.free_port()
    sinks = [
        {"name": "hook", "kind": "webhook", "url": f"http://127.0.0.1:{port}/", "secret_file": str(tmp_path / "secret")},
        {"name": "log", "kind": "file", "path": "events.jsonl"},
    ]
    server = told(sinks)
    bucket, function, etag = prepare(server, name)
    jobs = [server.create_job(bucket, function, etag) for _ in range(3)]
    for job in jobs:
        server.wait(job)
    _, shown = own(server, f"/_longshore/v1/jobs/{jobs[0]}/events?maxResults=1")
    hook = {delivery["sink"]: delivery for delivery in shown["events"][0]["deliveries"]}["hook"]
    assert not hook["delivered"] and hook["attempts"] >= 1 and "no connection" in hook["lastError"]
    server.kill()
    # Each event is taken the first time, and the answer lost: so each comes twice, and nothing tells them apart but
    # that they are equal. What is down is forgiven.
    receiver = Receiver(port, answer=lambda event, times: 503 if times == 1 else 204)
    server.start()
    wanted = len(jobs) * len(PLAIN)
    wait_for("a part of the deliveries", lambda: len(receiver.requests) > wanted // 3)
    server.kill()
    server.start()
    wait_for("all deliveries", lambda: sum(times >= 2 for times in receiver.times.values()) == wanted)
    wait_for("the note of the last", lambda: all(
        delivery["delivered"] for job in jobs
        for event in own(server, f"/_longshore/v1/jobs/{job}/events")[1]["events"] for delivery in event["deliveries"]))
    kept = {event["jobEventId"] for job in jobs
            for event in own(server, f"/_longshore/v1/jobs/{job}/events")[1]["events"]}
    by_id = {}
    for event in receiver.events():
        assert by_id.setdefault(details(event)["jobEventId"], event) == event, "a redelivery is the same event"
    assert set(by_id) == kept
    log = [json.loads(line) for line in (server.data_dir / "events.jsonl").read_text().splitlines()]
    for job in jobs:
        assert statuses(receiver.events(), job) == PLAIN
        assert statuses(log, job) == PLAIN
    receiver.close()


def test_a_receiver_that_hangs_holds_up_neither_jobs_nor_other_sinks(told, name):
    free = threading.Event()
    hangs = Receiver(secret=None, answer=lambda event, times: 200 if free.wait(60) else 500)
    fine = Receiver(secret=None)
    server = told([
        {"name": "fine", "kind": "webhook", "url": f"http://127.0.0.1:{fine.port}/"},
        {"name": "hangs", "kind": "webhook", "url": f"http://127.0.0.1:{hangs.port}/"},
    ])
    bucket, function, etag = prepare(server, name)
    job = server.create_job(bucket, function, etag)
    server.wait(job, timeout=30)
    wait_for("the other sink's events", lambda: statuses(fine.events(), job) == PLAIN, timeout=10)
    assert statuses(hangs.events(), job) == ["New"], "the second event waits for the first"
    free.set()
    wait_for("the events of what hung", lambda: statuses(hangs.events(), job) == PLAIN)
    hangs.close()
    fine.close()


def test_a_consumer_that_describes_the_job_at_once_finds_it_complete_with_its_report(told, name):
    found = []

    def look(event, times):
        if details(event)["status"] == "Complete":
            described = server.describe(details(event)["jobId"])
            found.append((described["Status"], len(harness.read_report(server, described["JobId"], described))))
        return 200

    receiver = Receiver(secret=None, answer=look)
    server = told([{"name": "hook", "kind": "webhook", "url": f"http://127.0.0.1:{receiver.port}/"}])
    bucket, function, etag = prepare(server, name, keys=5)
    server.create_job(bucket, function, etag)
    wait_for("the look", lambda: found)
    assert found == [("Complete", 5)]
    receiver.close()


def test_a_webhook_over_https_hands_events_to_nobody_but_whom_a_trusted_certificate_vouches_for(told, name, tmp_path):
    pairs = {who: harness.certificate(tmp_path, who) for who in ("own", "bundled", "foreign")}
    (tmp_path / "secret").write_text(SECRET)
    receivers = {who: Receiver(tls=pair) for who, pair in pairs.items()}
    plain = Receiver()
    hook = lambda sink, who, host="127.0.0.1", **more: {
        "name": sink, "kind": "webhook", "url": f"https://{host}:{(receivers | {'plain': plain})[who].port}/jobs?a=b",
        "secret_file": str(tmp_path / "secret")} | more
    server = told([
        hook("own", "own", ca_file=str(pairs["own"][0])),
        # Without a ca_file it is AWS_CA_BUNDLE that counts.
        hook("bundled", "bundled"),
        hook("foreign", "foreign"),
        # One that is trusted, but for another host.
        hook("named", "own", host="localhost", ca_file=str(pairs["own"][0])),
        # A ca_file takes the place of the others.
        hook("only", "bundled", ca_file=str(pairs["own"][0])),
        hook("spoken", "plain"),
    ], {"AWS_CA_BUNDLE": str(pairs["bundled"][0])})
    bucket, function, etag = prepare(server, name)
    job = server.create_job(bucket, function, etag)
    server.wait(job)

    def deliveries():
        _, answer = own(server, f"/_longshore/v1/jobs/{job}/events")
        return [{delivery["sink"]: delivery for delivery in event["deliveries"]} for event in answer["events"]]

    wait_for("the deliveries to whom is trusted", lambda: all(
        event[sink]["delivered"] for event in deliveries() for sink in ("own", "bundled")))
    wait_for("a try at each of the others", lambda: all(
        deliveries()[0][sink]["attempts"] for sink in ("foreign", "named", "only", "spoken")))
    assert statuses(receivers["own"].events(), job) == statuses(receivers["bundled"].events(), job) == PLAIN
    assert {path for path, _, _ in receivers["own"].requests} == {"/jobs?a=b"}
    assert receivers["own"].requests[0][1]["host"] == f"127.0.0.1:{receivers['own'].port}"
    first = deliveries()[0]
    for sink, wanted in {
        "foreign": "no connection: the certificate is not trusted: UnknownIssuer (the sink's ca_file names whom to trust)",
        "only": "the certificate is not trusted: UnknownIssuer",
        "named": "the certificate is not trusted: certificate not valid for name \"localhost\"",
        "spoken": "no connection: ",
    }.items():
        assert wanted in first[sink]["lastError"] and not first[sink]["delivered"], first[sink]
    assert not receivers["foreign"].requests and not plain.requests, "nothing is sent to whom is not trusted"
    for receiver in (*receivers.values(), plain):
        receiver.close()


def test_our_own_api_is_verified_and_tells_errors_as_json(server, name):
    path = "/_longshore/v1/jobs/00000000-0000-0000-0000-000000000000/events"
    status, headers, body = send(server, "GET", path)
    assert (status, json.loads(body)["code"]) == (403, "AccessDenied")
    assert json.loads(body)["requestId"] == dict(headers)["x-amz-request-id"]
    forged = signed(server, "GET", "s3", path)
    forged["Authorization"] = forged["Authorization"][:-4] + "0000"
    status, _, body = send(server, "GET", path, forged)
    assert (status, json.loads(body)["code"]) == (403, "SignatureDoesNotMatch")
    for (status, code), answer in [
        ((404, "NoSuchJob"), own(server, path)),
        ((404, "NoSuchResource"), own(server, "/_longshore/v1/nothing")),
        ((405, "MethodNotAllowed"), own(server, path, method="POST")),
        ((403, "AccessDenied"), own(server, path, **{"x-amz-account-id": "999999999999"})),
        ((400, "InvalidRequest"), own(server, path, **{"x-amz-account-id": "none"})),
    ]:
        assert (answer[0], answer[1]["code"]) == (status, code), answer
    # Only requests that are signed for S3 lead there.
    assert own(server, path, service="lambda")[1].get("code") is None


@pytest.mark.parametrize("sink, told_so", [
    ({"name": "a", "kind": "webhook", "url": "https://h/", "ca_file": "nowhere.pem"}, "nowhere.pem"),
    ({"name": "a", "kind": "webhook", "url": "https://h/", "ca_file": "longshore.toml"}, "there is no certificate in it"),
    ({"name": "a", "kind": "webhook", "url": "http://h/", "ca_file": "ca.pem"}, "nobody shows a certificate there"),
    ({"name": "a", "kind": "webhook", "url": "http://h/", "secret_file": "nowhere"}, "nowhere"),
    ({"name": "a", "kind": "topic"}, "file, stdout, webhook"),
], ids=["no ca_file", "no certificate", "ca_file over http", "no secret", "no such kind"])
def test_a_sink_that_cannot_work_is_refused_at_the_start(tmp_path, sink, told_so):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "longshore.toml").write_text(settings([sink]))
    done = subprocess.run([harness.LONGSHORE, "serve", "--data-dir", data, "--listen", "127.0.0.1:0"],
                          capture_output=True, text=True, timeout=30, env=harness.plain_environment(tmp_path))
    assert done.returncode != 0 and done.stdout == ""
    assert "error: " in done.stderr and told_so in done.stderr, done.stderr
