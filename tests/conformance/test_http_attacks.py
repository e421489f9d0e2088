"""What a stranger can do with a socket: nothing but be told so, while everybody else is served.

Each case of the tables is sent as it stands, on a connection of its own, by somebody who knows no secret. All the while a client
with a secret asks on another connection, and is answered; the server's memory does not follow what strangers send.
"""

import contextlib
import re
import resource
import select
import socket
import ssl
import struct
import threading
import time

import pytest

import conftest
import harness
from harness import send, signed

HEALTH = b"GET /_longshore/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
# What no stranger may make it exceed, in all. Promise S7.
GROWTH_BYTES_MAX = 64 * 1024 * 1024
# How long whoever has a secret waits for an answer, at most.
NEIGHBOUR_SECONDS_MAX = 2
KEEP_OPEN = "kept open"
CLOSED = "closed"


class Neighbour(threading.Thread):
    """A client with a secret, on a connection of its own. Remembers its longest wait."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.ending, self.longest, self.asked, self.failed = server, threading.Event(), 0, 0, None

    def run(self):
        headers, signed_at = None, 0
        while not self.ending.wait(0.02):
            began = time.monotonic()
            if headers is None or began - signed_at > 60:
                headers, signed_at = signed(self.server, "GET", "s3", "/"), began
            try:
                status, _, body = send(self.server, "GET", "/", headers)
                if status != 200:
                    self.failed = body
            except OSError as error:
                self.failed = error
            self.longest, self.asked = max(self.longest, time.monotonic() - began), self.asked + 1

    def judged(self):
        longest, self.longest = self.longest, 0
        assert self.failed is None, self.failed
        assert longest < NEIGHBOUR_SECONDS_MAX, f"whoever has a secret waited {longest:.1f} s"


def resident(server, what="VmRSS"):
    """Bytes: now, or with VmHWM at most so far."""
    status = harness.content_of(harness.pathlib.Path(f"/proc/{server.process.pid}/status"))
    return int(re.search(rf"^{what}:\s+(\d+) kB", status, re.M)[1]) * 1024


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A server of its own, the neighbour on it, and at the end a look at its memory. It says "panicked" nowhere (`running`)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    with contextlib.contextmanager(conftest.running)(tmp_path_factory.mktemp("attacked")) as server:
        server.s3.create_bucket(Bucket="attacked")
        server.s3.put_object(Bucket="attacked", Key="large", Body=bytes(16 * 1024 * 1024))
        neighbour = Neighbour(server)
        neighbour.start()
        harness.wait_for("the neighbour's first answers", lambda: neighbour.asked > 20)
        server.neighbour, server.before = neighbour, resident(server)
        try:
            yield server
            neighbour.ending.set()
            neighbour.join()
            neighbour.judged()
            assert neighbour.asked > 100
            grown = resident(server, "VmHWM") - server.before
            assert grown < GROWTH_BYTES_MAX, f"strangers made the server grow by {grown >> 20} MiB"
        finally:
            neighbour.ending.set()
            server.stop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(server, **options):
    host, port = server.address.split(":")
    return socket.create_connection((host, int(port)), timeout=8, **options)


def answers(received):
    """Status codes of the answers in these bytes, and what is left over. Told apart by their lengths, as a client does."""
    statuses = []
    while found := re.match(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n(.*?)\r\n\r\n", received + b"", re.S):
        statuses.append(int(found[1]))
        length = re.search(rb"^content-length: *(\d+)\r?$", found[2] + b"\r", re.I | re.M)
        body = 0 if statuses[-1] < 200 or not length else int(length[1])
        received = received[found.end() + body:]
    return statuses, received


def exchange(server, sent, quiet=0.12):
    """Sends bytes, and reads until the server hangs up, or has said something and then nothing for a while. Returns the status
    codes of its answers, and whether it hung up."""
    with connect(server) as connection:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(sent)
        received = b""
        while True:
            ready, _, _ = select.select([connection], [], [], quiet if received else 8)
            if not ready:
                statuses, rest = answers(received)
                assert received, "no answer, and not hung up"
                assert rest == b"", rest
                return statuses, KEEP_OPEN
            try:
                piece = connection.recv(65536)
            except ConnectionResetError:
                piece = b""
            if not piece:
                statuses, rest = answers(received)
                assert rest == b"", rest
                return statuses, CLOSED
            received += piece


def post(*headers, body=b"", line=b"POST /b/k HTTP/1.1"):
    return b"\r\n".join([line, b"Host: localhost", *headers, b"", b""]) + body


def get(*headers, target=b"/_longshore/health", version=b"HTTP/1.1", host=b"Host: localhost"):
    return b"\r\n".join([b"GET " + target + b" " + version, *([host] if host else []), *headers, b"", b""])


CHUNKED = b"Transfer-Encoding: chunked"
# A stranger's request is refused as such, with 403, where it is one; everything that follows it on the connection is another.
CASES = {
    # --- where one request ends and the next begins: what two readers could see in two ways is read by nobody ---
    "length-and-chunks": (post(b"Content-Length: 6", CHUNKED, body=b"0\r\n\r\nX" + HEALTH), [400], CLOSED),
    "chunks-and-length": (post(CHUNKED, b"Content-Length: 6", body=b"0\r\n\r\nX" + HEALTH), [400], CLOSED),
    "chunks-and-length-of-less": (post(b"Content-Length: 4", CHUNKED, body=b"%x\r\n" % len(HEALTH) + HEALTH + b"\r\n0\r\n\r\n"), [400], CLOSED),
    "length-and-chunks-behind-another": (HEALTH + post(b"Content-Length: 6", CHUNKED, body=b"0\r\n\r\nX" + HEALTH), [200, 403], CLOSED),
    "chunked-and-identity": (post(CHUNKED, b"Transfer-Encoding: identity", body=b"0\r\n\r\n" + HEALTH), [400], CLOSED),
    "chunked-then-identity": (post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + HEALTH), [400], CLOSED),
    "an-unknown-coding": (post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + HEALTH), [400], CLOSED),
    "a-quoted-coding": (post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n" + HEALTH), [400], CLOSED),
    "an-empty-coding": (post(b"Transfer-Encoding:", body=b"0\r\n\r\n" + HEALTH), [400], CLOSED),
    "a-space-before-the-colon": (post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + HEALTH), [400], CLOSED),
    "a-tab-before-the-colon": (post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n" + HEALTH), [400], CLOSED),
    "a-vertical-tab-in-the-coding": (post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + HEALTH), [400], CLOSED),
    "a-folded-coding": (post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n" + HEALTH), [400], CLOSED),
    "a-folded-header": (get(b"X-A: one", b" two"), [400], CLOSED),
    "a-first-header-that-is-folded": (b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n" + HEALTH, [400], CLOSED),
    "chunks-in-http-1.0": (post(CHUNKED, line=b"POST /b/k HTTP/1.0", body=b"0\r\n\r\n" + HEALTH), [400], CLOSED),
    "two-lengths": (post(b"Content-Length: 0", b"Content-Length: 3", body=b"abc" + HEALTH), [400], CLOSED),
    "two-lengths-in-one": (post(b"Content-Length: 3, 3", body=b"abc" + HEALTH), [400], CLOSED),
    "a-length-with-a-plus": (post(b"Content-Length: +3", body=b"abc" + HEALTH), [400], CLOSED),
    "a-length-with-a-minus": (post(b"Content-Length: -3", body=b"abc" + HEALTH), [400], CLOSED),
    "a-length-with-a-space": (post(b"Content-Length: 3 3", body=b"abc" + HEALTH), [400], CLOSED),
    "a-length-in-hexadecimal": (post(b"Content-Length: 0x3", body=b"abc" + HEALTH), [400], CLOSED),
    "a-length-with-a-fraction": (post(b"Content-Length: 3.0", body=b"abc" + HEALTH), [400], CLOSED),
    "an-empty-length": (post(b"Content-Length:", body=HEALTH), [400], CLOSED),
    "a-length-past-64-bits": (post(b"Content-Length: 18446744073709551617", body=b"abc" + HEALTH), [400], CLOSED),
    "a-length-of-no-ascii-digits": (post("Content-Length: ٣".encode(), body=b"abc" + HEALTH), [400], CLOSED),
    "a-chunk-size-past-64-bits": (post(CHUNKED, body=b"10000000000000000\r\nabc\r\n0\r\n\r\n" + HEALTH), [403], CLOSED),
    "a-chunk-size-with-a-sign": (post(CHUNKED, body=b"+3\r\nabc\r\n0\r\n\r\n" + HEALTH), [403], CLOSED),
    "a-chunk-size-with-0x": (post(CHUNKED, body=b"0x3\r\nabc\r\n0\r\n\r\n" + HEALTH), [403], CLOSED),
    "a-chunk-size-that-is-missing": (post(CHUNKED, body=b"\r\nabc\r\n0\r\n\r\n" + HEALTH), [403], CLOSED),
    "a-chunk-longer-than-it-says": (post(CHUNKED, body=b"3\r\nabcdef\r\n0\r\n\r\n" + HEALTH), [403], CLOSED),
    "a-chunk-that-ends-in-a-bare-lf": (post(CHUNKED, body=b"3\nabc\r\n0\r\n\r\n" + HEALTH), [403], CLOSED),
    "a-chunk-extension-with-a-bare-lf": (post(CHUNKED, body=b"3;a\nb\r\nabc\r\n0\r\n\r\n" + HEALTH), [403], CLOSED),
    "a-chunk-extension-of-a-megabyte": (post(CHUNKED, body=b"3;" + b"x" * 1_000_000 + b"\r\nabc\r\n0\r\n\r\n"), [403], CLOSED),
    "trailers-of-a-megabyte": (post(CHUNKED, body=b"0\r\n" + b"x-t: y\r\n" * 125_000 + b"\r\n"), [403], CLOSED),
    "a-length-for-a-get": (get(b"Content-Length: %d" % len(HEALTH)) + HEALTH, [200], KEEP_OPEN),
    # --- what stands in a head ---
    "a-bare-lf-after-a-header": (b"GET /_longshore/health HTTP/1.1\nHost: localhost\n\n", [200], KEEP_OPEN),
    "a-bare-cr-in-a-value": (get(b"X-A: one\rX-B: two"), [400], CLOSED),
    "a-nul-in-a-value": (get(b"X-A: one\0two"), [400], CLOSED),
    "a-nul-in-a-name": (get(b"X-\0A: one"), [400], CLOSED),
    "a-nul-in-the-target": (get(target=b"/_longshore/health\0"), [400], CLOSED),
    "a-control-character-in-a-value": (get(b"X-A: \x1b[2J"), [400], CLOSED),
    "a-header-without-a-name": (get(b": one"), [400], CLOSED),
    "a-header-without-a-colon": (get(b"one"), [400], CLOSED),
    "a-name-that-is-no-token": (get(b"X(A): one"), [400], CLOSED),
    "a-name-beyond-ascii": (get("X-Ä: one".encode()), [400], CLOSED),
    "a-target-with-a-space": (get(target=b"/_longshore/ health"), [400], CLOSED),
    "a-target-beyond-ascii": (get(target="/ä".encode()), [400, 403], None),
    "no-target": (b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n", [400], CLOSED),
    "no-version": (b"GET /_longshore/health\r\n\r\n", [400], CLOSED),
    "version-0.9": (get(version=b"HTTP/0.9"), [400], CLOSED),
    "version-1.2": (get(version=b"HTTP/1.2"), [400], CLOSED),
    "version-3.0": (get(version=b"HTTP/3.0"), [400], CLOSED),
    "a-version-with-a-sign": (get(version=b"HTTP/+1.1"), [400], CLOSED),
    "version-1.0": (get(version=b"HTTP/1.0"), [200], CLOSED),
    "the-preface-of-http-2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", [], CLOSED),
    "a-method-that-is-no-token": (b"G(T / HTTP/1.1\r\nHost: localhost\r\n\r\n", [400], CLOSED),
    "an-unknown-method": (b"BREW /b/k HTTP/1.1\r\nHost: localhost\r\n\r\n", [403], KEEP_OPEN),
    "no-host": (get(host=None), [400], KEEP_OPEN),
    "two-hosts": (get(b"Host: 127.0.0.1"), [400], KEEP_OPEN),
    "a-host-of-somebody-else": (get(host=b"Host: evil.example"), [400, 403, 421], KEEP_OPEN),
    "a-host-with-a-user": (get(host=b"Host: localhost@evil.example"), [400, 403, 421], KEEP_OPEN),
    "a-host-that-is-empty": (get(host=b"Host:"), [400, 403, 421], KEEP_OPEN),
    "a-header-of-64-kib": (get(b"X-A: " + b"x" * 65_536), [431], CLOSED),
    "a-header-of-a-megabyte": (get(b"X-A: " + b"x" * 1_048_576), [431], CLOSED),
    "a-name-of-a-megabyte": (get(b"x" * 1_048_576 + b": y"), [431], CLOSED),
    "a-head-that-is-just-small-enough": (get(b"X-A: " + b"x" * 60_000), [200], KEEP_OPEN),
    "a-thousand-headers": (get(*(b"X-%d: y" % n for n in range(1_000))), [431], CLOSED),
    "a-hundred-headers": (get(*(b"X-%d: y" % n for n in range(99))), [200], KEEP_OPEN),
    "a-hundred-and-one-headers": (get(*(b"X-%d: y" % n for n in range(100))), [431], CLOSED),
    "a-target-of-64-kib": (get(target=b"/" + b"x" * 65_536), [414, 431], CLOSED),
    "a-target-of-40-kib": (get(target=b"/" + b"x" * 40_000), [403], KEEP_OPEN),
    "a-method-of-a-megabyte": (b"X" * 1_048_576 + HEALTH, [431], CLOSED),
    "empty-lines-without-end": (b"\r\n" * 500_000, [400, 431], CLOSED),
    # --- forms of a target, and what asks for another protocol ---
    "absolute-form-of-somebody-else": (get(target=b"http://evil.example/"), [400, 403, 421], KEEP_OPEN),
    "absolute-form-of-ours": (get(target=b"http://localhost/_longshore/health"), [200], KEEP_OPEN),
    "absolute-form-of-another-scheme": (get(target=b"gopher://localhost/_longshore/health"), [400, 403, 421], KEEP_OPEN),
    "authority-form": (get(target=b"localhost:80"), [400, 403, 421], None),
    "asterisk-form": (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", [400, 403], KEEP_OPEN),
    "connect": (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n", [403], None),
    "an-upgrade-to-h2c": (get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"), [200], None),
    "an-upgrade-to-a-websocket": (get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x"), [200], None),
    "trace": (b"TRACE / HTTP/1.1\r\nHost: localhost\r\nX-Secret: mirror\r\n\r\n", [403, 405], KEEP_OPEN),
    # --- what says that it is somebody else, or something else ---
    "a-method-in-a-header": (get(b"X-HTTP-Method-Override: DELETE", target=b"/attacked/large"), [403], KEEP_OPEN),
    "a-path-in-a-header": (get(b"X-Original-URL: /_longshore/health", b"X-Rewrite-URL: /_longshore/health", target=b"/"), [403], KEEP_OPEN),
    "an-address-in-a-header": (get(b"X-Forwarded-For: 127.0.0.1", b"Forwarded: for=127.0.0.1", target=b"/"), [403], KEEP_OPEN),
    # --- several at once ---
    "three-requests-in-one": (HEALTH * 3, [200, 200, 200], KEEP_OPEN),
    "a-refused-request-and-a-good-one": (get(target=b"/") + HEALTH, [403, 200], KEEP_OPEN),
    "a-good-request-and-garbage": (HEALTH + b"\x16\x03\x01\x02\x00 garbage\r\n\r\n", [200, 400], CLOSED),
    "a-good-request-that-is-the-last": (get(b"Connection: close") + HEALTH, [200], CLOSED),
    # --- what is no HTTP at all ---
    "tls-to-the-plain-port": (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(range(150)), [400], CLOSED),
    "noise": (bytes((7 * n * n + 3) % 256 for n in range(4_096)), [400], CLOSED),
    "ssh": (b"SSH-2.0-OpenSSH_9.6\r\n", [400], CLOSED),
}


@pytest.mark.parametrize("sent, statuses, then", CASES.values(), ids=CASES.keys())
def test_whatever_a_stranger_sends_is_answered_as_it_should_be(attacked, sent, statuses, then):
    got, left = exchange(attacked, sent)
    several = isinstance(statuses, list) and len(set(statuses)) > 1 and len(got) == 1
    assert (got[0] in statuses) if several else (got == statuses), (got, statuses)
    assert then in (None, left), (got, left)
    attacked.neighbour.judged()


@pytest.mark.parametrize("method, target", [("OPTIONS", "/attacked/large"), ("GET", "/_longshore/health"), ("GET", "/attacked/large")])
def test_no_origin_is_told_that_it_may_read_an_answer(attacked, method, target):
    _, headers, _ = send(attacked, method, target, {
        "Origin": "https://evil.example", "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"})
    assert not [name for name in headers if name.lower().startswith("access-control-")], headers


# --- what takes time, or takes many ---


def trickle(server, count, ended, ending):
    """Sends heads of a byte every half second on `count` connections; remembers how long each one was borne."""
    head, began = get(b"X-A: " + b"x" * 100), time.monotonic()
    open_ = [connect(server) for _ in range(count)]
    for at in range(len(head)):
        if not open_ or ending.wait(0.5):
            break
        for connection in list(open_):
            try:
                connection.sendall(head[at:at + 1])
                gone = select.select([connection], [], [], 0)[0] and not connection.recv(1024)
            except OSError:
                gone = True
            if gone:
                ended.append(time.monotonic() - began)
                open_.remove(connection)
                connection.close()
    for connection in open_:
        connection.close()


@pytest.fixture(scope="module")
def trickling(attacked):
    ended, ending = [], threading.Event()
    thread = threading.Thread(target=trickle, args=(attacked, 60, ended, ending), daemon=True)
    thread.start()
    yield thread, ended
    ending.set()
    thread.join()


@contextlib.contextmanager
def many(server, count, sent=b""):
    """So many connections, each of which sends this at once."""
    connections = []
    try:
        for _ in range(count):
            connections.append(connect(server))
            with contextlib.suppress(OSError):
                connections[-1].sendall(sent)
        yield connections
    finally:
        for connection in connections:
            connection.close()


def is_readable(connection):
    """`select` cannot look at as many as these."""
    look = select.poll()
    look.register(connection, select.POLLIN)
    return bool(look.poll(0))


def for_a_while(server, seconds=1.0):
    """Lets the neighbour ask while something lasts, and judges."""
    asked = server.neighbour.asked
    harness.wait_for("the neighbour's answers", lambda: server.neighbour.asked > asked + 10)
    time.sleep(seconds)
    server.neighbour.judged()


def whole(server, method, path, body=b"", **headers):
    """A signed request, as bytes without its body."""
    made = signed(server, method, "s3", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"{method} {path} HTTP/1.1", f"Host: {server.address}", *(f"{name}: {value}" for name, value in made.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_who_asks_whether_to_continue_is_refused_before_the_body_comes(attacked, trickling):
    began = time.monotonic()
    assert exchange(attacked, post(b"Expect: 100-continue", b"Content-Length: 1000000")) == ([403], CLOSED)
    assert time.monotonic() - began < 2
    assert exchange(attacked, post(b"Expect: something-else", b"Content-Length: 0"))[0] in ([403], [417])


def test_who_never_follows_up_on_a_continue_stops_nobody(attacked, trickling):
    sent = whole(attacked, "PUT", "/attacked/never", b"x" * 1000, Expect="100-continue")
    with many(attacked, 50) as connections:
        for connection in connections:
            connection.sendall(sent)
        assert connections[0].recv(1024).startswith(b"HTTP/1.1 100 ")
        for_a_while(attacked)
    assert "never" not in {entry["Key"] for entry in attacked.s3.list_objects_v2(Bucket="attacked")["Contents"]}


def test_who_closes_one_half_is_answered_or_hung_up_on_at_once(attacked, trickling):
    for sent in (HEALTH, HEALTH[:20], b"", post(b"Content-Length: 10", body=b"abc")):
        with connect(attacked) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            began, received = time.monotonic(), b""
            with contextlib.suppress(ConnectionResetError):
                while piece := connection.recv(65536):
                    received += piece
            assert time.monotonic() - began < 2, sent
            assert answers(received)[0] in ([], [200] if sent == HEALTH else [400], [403] if b"POST" in sent else []), received


def test_who_resets_in_the_middle_of_a_body_leaves_nothing(attacked, trickling):
    body = b"x" * 200_000
    sent = whole(attacked, "PUT", "/attacked/reset", body)
    for _ in range(150):
        with connect(attacked) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(sent + body[:100_000])
    for_a_while(attacked, 0.5)
    assert "reset" not in {entry["Key"] for entry in attacked.s3.list_objects_v2(Bucket="attacked")["Contents"]}


def test_who_connects_and_leaves_thousands_of_times_stops_nobody(attacked, trickling):
    for _ in range(1_500):
        connect(attacked).close()
    attacked.neighbour.judged()


def test_who_begins_bodies_and_does_not_go_on_stops_nobody(attacked, trickling):
    sent = whole(attacked, "PUT", "/attacked/slow", b"x" * 1_000_000)
    with many(attacked, 200) as connections:
        for connection in connections:
            connection.sendall(sent + b"x" * 1_000)
        for_a_while(attacked)


def test_who_reads_nothing_of_what_was_asked_for_stops_nobody_and_is_not_held_in_memory(attacked, trickling):
    sent = whole(attacked, "GET", "/attacked/large")
    before = resident(attacked)
    with many(attacked, 60) as connections:
        for connection in connections:
            connection.sendall(sent)
        for_a_while(attacked)
        assert resident(attacked) - before < GROWTH_BYTES_MAX


def test_who_asks_thousands_of_times_and_reads_nothing_stops_nobody(attacked, trickling):
    with many(attacked, 20) as connections:
        for connection in connections:
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError, OSError):
                connection.send(get(target=b"/") * 4_000)
        for_a_while(attacked)


def test_who_sends_a_large_body_that_nobody_may_is_read_only_so_far(attacked, trickling):
    statuses, _ = exchange(attacked, post(b"Content-Length: 67108864", body=bytes(24 * 1024 * 1024)))
    assert statuses in ([403], []), statuses
    statuses, _ = exchange(attacked, post(CHUNKED, body=b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n"))
    assert statuses == [403]
    attacked.neighbour.judged()


def test_who_speaks_tls_to_the_plain_port_is_hung_up_on(attacked, trickling):
    with connect(attacked) as connection, pytest.raises((ssl.SSLError, ConnectionResetError)):
        ssl._create_unverified_context().wrap_socket(connection)
    attacked.neighbour.judged()


def test_a_head_that_trickles_is_borne_for_ten_seconds(attacked, trickling):
    thread, ended = trickling
    thread.join(20)
    assert not thread.is_alive()
    assert len(ended) == 60 and 9 < min(ended) and max(ended) < 12, ended
    attacked.neighbour.judged()


def test_who_takes_every_connection_for_bodies_that_nobody_wants_makes_room_for_who_may(attacked):
    """A refused client that is still sending is read on for some seconds, but not where others need its place."""
    sent = post(b"Content-Length: 1000000", body=b"x")
    with many(attacked, 1_400, sent):
        for_a_while(attacked)


def test_who_takes_every_connection_and_says_nothing_makes_room_for_who_does(attacked):
    """More than `connections_max` allows: those that have been silent longest go."""
    with many(attacked, 1_400) as connections:
        for_a_while(attacked)
        gone = sum(1 for connection in connections if is_readable(connection))
        assert 1_400 - gone <= 1_024, "the bound holds"
