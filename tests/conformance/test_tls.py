"""TLS: what real AWS clients see of it, which certificate is shown when, and where plain HTTP is refused."""

import hashlib
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import urllib.request

import boto3
import botocore.config
import pytest

import harness
from harness import ACCOUNT

NAMES = "IP:127.0.0.1,DNS:localhost,DNS:*.localhost,DNS:batch.example,DNS:*.batch.example"


class Authority:
    """A CA of one's own, as a company has one, and certificates of it."""

    def __init__(self, folder):
        harness.need("openssl")
        self.folder, self.ca, self.ca_key = folder, folder / "ca.pem", folder / "ca.key"
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=Own CA",
                     "-keyout", self.ca_key, "-out", self.ca)

    def openssl(self, *arguments):
        harness.run(["openssl", *arguments], dict(os.environ))

    def certify(self, name, certificate, key):
        """A certificate and its key, into these files."""
        request, extensions = self.folder / f"{name}.csr", self.folder / "extensions"
        extensions.write_text(f"subjectAltName={NAMES}\nbasicConstraints=CA:FALSE\n")
        self.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                     "-keyout", key, "-out", request)
        self.openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.ca_key, "-CAcreateserial", "-days", "2",
                     "-extfile", extensions, "-out", certificate)
        key.chmod(0o600)


class Secure:
    """A server with TLS, its CA, and its files."""

    def __init__(self, folder):
        self.authority = Authority(folder)
        self.certificate, self.key = folder / "server.pem", folder / "server.key"
        self.authority.certify("first", self.certificate, self.key)
        self.metrics = harness.free_port()
        self.server = harness.Server(folder, {
            "LONGSHORE_TLS_CERTIFICATE": str(self.certificate), "LONGSHORE_TLS_KEY": str(self.key),
            "LONGSHORE_METRICS_LISTEN": f"127.0.0.1:{self.metrics}", "LONGSHORE_NAMES": "batch.example",
        }).start()
        self.port = int(self.server.address.split(":")[1])
        # The name of the certificate leads here in a name service, which a test has none of; the CLI is sent to the address.
        self.environment = self.server.environment | {
            "AWS_ENDPOINT_URL": f"https://127.0.0.1:{self.port}", "AWS_CA_BUNDLE": str(self.authority.ca)}

    def aws(self, *arguments, **environment):
        return harness.run([harness.AWS, *arguments], self.environment | environment, check=not environment)

    def boto(self, service):
        with harness.environ(self.environment):
            return boto3.session.Session().client(service, config=botocore.config.Config(retries={"max_attempts": 1}))

    def shown(self, port=None):
        """The fingerprint of the certificate that is shown to whoever connects now."""
        context = ssl.create_default_context(cafile=self.authority.ca)
        with socket.create_connection(("127.0.0.1", port or self.port), timeout=10) as connection:
            with context.wrap_socket(connection, server_hostname="batch.example") as secure:
                assert secure.version() == "TLSv1.3" and secure.selected_alpn_protocol() is None
                return hashlib.sha256(secure.getpeercert(binary_form=True)).hexdigest()

    def told(self):
        """What the data directory says of the certificate."""
        return json.loads((self.server.data_dir / "server.json").read_text())["tls"]["certificate"]


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    made = Secure(tmp_path_factory.mktemp("secure"))
    yield made
    made.server.stop()
    assert "panicked at" not in made.server.said()


def test_the_aws_cli_works_over_https_with_an_authority_of_ones_own(secure, tmp_path):
    # The name resolves nowhere and the certificate has the address: all but S3 Control is there already.
    exports = secure.server.exports
    assert exports["AWS_ENDPOINT_URL"] == f"https://127.0.0.1:{secure.port}"
    assert exports["AWS_ENDPOINT_URL_S3_CONTROL"] == f"https://batch.example:{secure.port}"
    hint = f"add this line to /etc/hosts, or both names to your DNS: 127.0.0.1 batch.example {ACCOUNT}.batch.example"
    assert hint in secure.server.longshore("env").stderr
    assert "AWS_CA_BUNDLE" not in exports, "the authority is in no file that the server knows"
    secure.aws("s3", "mb", "s3://by-cli")
    (tmp_path / "file").write_bytes(b"over TLS")
    secure.aws("s3", "cp", tmp_path / "file", "s3://by-cli/file")
    assert secure.aws("s3", "cp", "s3://by-cli/file", "-").stdout == "over TLS"
    assert json.loads(secure.aws("lambda", "list-functions", "--output", "json").stdout)["Functions"] == []
    other = secure.authority.folder / "other"
    other.mkdir(exist_ok=True)
    refused = secure.aws("s3", "ls", AWS_CA_BUNDLE=str(Authority(other).ca))
    assert refused.returncode != 0 and "certificate verify failed" in refused.stderr


def test_bodies_may_be_unsigned_over_tls_as_boto3_sends_them_there(secure):
    s3 = secure.boto("s3")
    s3.create_bucket(Bucket="unsigned")
    sent = []
    s3.meta.events.register("before-send.s3.PutObject", lambda request, **_: sent.append(dict(request.headers)))
    for body in (b"", b"x" * 300_000):
        s3.put_object(Bucket="unsigned", Key="k", Body=body)
        assert s3.get_object(Bucket="unsigned", Key="k")["Body"].read() == body
    forms = {form.decode() if isinstance(form, bytes) else form for form in (headers["X-Amz-Content-SHA256"] for headers in sent)}
    assert forms and forms <= {"UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}, forms


def test_s3_control_works_over_https_at_a_name_of_its_own(secure, monkeypatch):
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **options: resolve(
        "127.0.0.1" if str(host).endswith("batch.example") else host, *more, **options))
    with harness.environ(secure.environment | {"AWS_ENDPOINT_URL": secure.server.exports["AWS_ENDPOINT_URL_S3_CONTROL"]}):
        control = boto3.session.Session().client("s3control")
    assert control.list_jobs(AccountId=ACCOUNT)["Jobs"] == []


def test_links_to_code_are_of_the_servers_own_scheme(secure):
    functions = secure.boto("lambda")
    functions.create_function(
        FunctionName="linked", Runtime="python3.11", Handler="h.h", Role=harness.ROLE,
        Code={"ZipFile": harness.zip_of({"h.py": "def h(event, context): pass"})})
    location = functions.get_function(FunctionName="linked")["Code"]["Location"]
    assert location.startswith(f"https://127.0.0.1:{secure.port}/")
    context = ssl.create_default_context(cafile=secure.authority.ca)
    assert urllib.request.urlopen(location, context=context).read().startswith(b"PK")


def test_the_commands_on_this_machine_know_the_certificate_and_no_other(secure, tmp_path):
    assert secure.server.longshore("job", "list").returncode == 0
    assert secure.told() == secure.shown()
    # With the endpoint that `longshore env` prints for an address, too; nobody told these commands of the authority.
    environment = harness.plain_environment(secure.server.home) | secure.server.exports | {
        "AWS_ENDPOINT_URL": f"https://127.0.0.1:{secure.port}", "LONGSHORE_DATA_DIR": str(secure.server.data_dir)}
    arguments = [harness.LONGSHORE, "job", "list", "--endpoint-url", f"https://127.0.0.1:{secure.port}"]
    harness.run(arguments, environment)
    stranger = harness.run(arguments, environment | {"LONGSHORE_DATA_DIR": str(tmp_path)}, check=False)
    assert stranger.returncode != 0 and "not trusted: UnknownIssuer (AWS_CA_BUNDLE names" in stranger.stderr, stranger.stderr
    facts = secure.server.data_dir / "server.json"
    kept = facts.read_text()
    try:
        facts.write_text(kept.replace(secure.told(), "00" * 32))
        other = secure.server.longshore("job", "list", check=False)
        assert other.returncode != 0 and "not trusted: it is not the one that the data directory names" in other.stderr, other.stderr
    finally:
        facts.write_text(kept)


def test_metrics_are_served_over_tls_too(secure):
    assert secure.shown(secure.metrics) == secure.shown()
    context = ssl.create_default_context(cafile=secure.authority.ca)
    text = urllib.request.urlopen(f"https://127.0.0.1:{secure.metrics}/metrics", context=context).read()
    assert b"longshore_build_info" in text


def test_nothing_is_served_without_tls_there_nor_with_a_tls_of_old(secure):
    def said(sent):
        with socket.create_connection(("127.0.0.1", secure.port), timeout=10) as connection:
            connection.sendall(sent)
            received = b""
            try:
                while piece := connection.recv(4096):
                    received += piece
            except ConnectionResetError:
                pass
            return received

    plain = said(b"GET /_longshore/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"HTTP" not in plain, plain

    def hello(version):
        body = struct.pack("!H", version) + bytes(32) + b"\0" + struct.pack("!HHH", 4, 0xC009, 0xC013) + b"\1\0"
        handshake = b"\1" + struct.pack("!I", len(body))[1:] + body
        return b"\x16\3\1" + struct.pack("!H", len(handshake)) + handshake

    for old in (0x0300, 0x0301, 0x0302):
        answer = said(hello(old))
        assert answer[:1] == b"\x15" and answer[5] == 2, f"a fatal alert, not {answer!r}"


def test_a_new_certificate_is_shown_on_sighup_and_a_bad_one_leaves_the_old_in_place(secure):
    first = secure.shown()
    good_key = secure.key.read_bytes()
    # The two files are not replaced at one moment: between them they do not belong together.
    other_certificate, other_key = secure.certificate.with_name("new.pem"), secure.certificate.with_name("new.key")
    secure.authority.certify("second", other_certificate, other_key)
    secure.certificate.write_bytes(other_certificate.read_bytes())
    secure.server.process.send_signal(signal.SIGHUP)
    harness.wait_for("a word about the bad pair", lambda: "a new certificate cannot be used" in secure.server.said())
    assert "do not belong together" in secure.server.said()
    assert secure.shown() == first == secure.told()
    secure.key.write_bytes(other_key.read_bytes())
    secure.server.process.send_signal(signal.SIGHUP)
    harness.wait_for("the new certificate", lambda: secure.shown() != first)
    harness.wait_for("the new certificate in the data directory", lambda: secure.told() == secure.shown())
    assert "a new certificate is shown from now on" in secure.server.said()
    assert secure.server.longshore("job", "list").returncode == 0
    for secret in (good_key, other_key.read_bytes()):
        assert secret.splitlines()[1].decode() not in secure.server.said()


def serve(folder, *flags):
    """Starts a server that may be refused; returns its status, or None if it listens, and what it said."""
    process = subprocess.Popen(
        [str(harness.LONGSHORE), "serve", "--data-dir", str(folder / "data"), *map(str, flags)],
        env=harness.plain_environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    if line.startswith("listening on "):
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        return None, line
    return process.wait(30), process.communicate()[1]


def test_an_address_for_others_needs_tls_or_a_word(secure, tmp_path):
    tls = ("--tls-certificate", secure.certificate, "--tls-key", secure.key)
    status, said = serve(tmp_path, "--listen", "0.0.0.0:0")
    assert status == 64 and "--tls-certificate" in said and "--allow-plain-http" in said, said
    status, said = serve(tmp_path, "--listen", "0.0.0.0:0", *tls)
    assert status is None and said.startswith("listening on https://0.0.0.0:"), said
    status, said = serve(tmp_path, "--listen", "0.0.0.0:0", "--allow-plain-http")
    assert status is None and said.startswith("listening on http://0.0.0.0:"), said


def test_a_certificate_that_cannot_be_used_keeps_the_server_from_starting(secure, tmp_path):
    loose, foreign, empty = (tmp_path / name for name in ("loose.key", "foreign.key", "empty.pem"))
    loose.write_bytes(secure.key.read_bytes())
    loose.chmod(0o644)
    foreign.write_bytes(secure.authority.ca_key.read_bytes())
    foreign.chmod(0o600)
    empty.write_bytes(b"")
    empty.chmod(0o600)
    listen = ("--listen", "127.0.0.1:0")
    for certificate, key, why in [
        (secure.certificate, loose, f"chmod o-rwx {loose}"),
        (secure.certificate, foreign, "do not belong together"),
        (empty, secure.key, "there is no certificate in it"),
        (secure.certificate, empty, "there is no private key in it"),
        (tmp_path / "missing.pem", secure.key, "missing.pem"),
        (tmp_path, secure.key, "no file of certificates"),
    ]:
        status, said = serve(tmp_path, *listen, "--tls-certificate", certificate, "--tls-key", key)
        assert status == 64 and why in said and "BEGIN" not in said, said
    status, said = serve(tmp_path, *listen, "--tls-certificate", secure.certificate)
    assert status == 64 and "--tls-key" in said, said


def test_with_a_certificate_that_vouches_for_itself_the_lines_of_env_are_enough(tmp_path):
    harness.need("openssl")
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    harness.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=own",
                 "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate], dict(os.environ))
    key.chmod(0o600)
    server = harness.Server(tmp_path, {"LONGSHORE_TLS_CERTIFICATE": str(certificate), "LONGSHORE_TLS_KEY": str(key)}).start()
    try:
        assert server.exports["AWS_CA_BUNDLE"] == str(certificate)
        server.aws("s3", "mb", "s3://bucket")
        # openssl makes such a certificate that of an authority; the AWS CLI takes it, and we say what is in the way.
        refused = harness.run([harness.LONGSHORE, "job", "list", "--endpoint-url", server.exports["AWS_ENDPOINT_URL"]],
                              {name: value for name, value in server.environment.items() if name != "LONGSHORE_DATA_DIR"}, check=False)
        assert refused.returncode == 1 and "-addext basicConstraints=critical,CA:FALSE" in refused.stderr, refused.stderr
    finally:
        server.stop()
