"""Requests as nobody writes them, signed by botocore: each is let in by the server, and a twin that differs in one thing is not.

What the signature covers is put together by botocore on one side and by `longshore_wire::sigv4` on the other, from the same bytes:
names and values of headers with white space, repeated ones, paths and queries with anything percent-encoded in them, bodies.
"""

import collections
import http.client
import random
import re
import string
import urllib.parse

import botocore.auth
import botocore.awsrequest

from harness import REGION, credentials

# What both services call a request whose signature does not hold, or that cannot be one.
REFUSALS = {"SignatureDoesNotMatch", "InvalidSignatureException", "AccessDenied", "AuthorizationHeaderMalformed",
            "AuthorizationQueryParametersError", "XAmzContentSHA256Mismatch", "IncompleteSignatureException"}
LETTERS = string.ascii_letters + string.digits
AWKWARD = " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" + "äß€𝄞 \u200b"


class Differential:
    """One connection to a server, and the dice that make up what is sent on it."""

    def __init__(self, server, seed):
        self.server, self.dice = server, random.Random(seed)
        self.counted = collections.Counter()
        self.connection = http.client.HTTPConnection(server.address, timeout=20)

    def text(self, longest, letters=LETTERS + AWKWARD):
        return "".join(self.dice.choice(letters) for _ in range(self.dice.randrange(longest + 1)))

    def encoded(self, text, safe=""):
        """Percent-encoded as it has to be; in a path, now and then as it need not be."""
        return urllib.parse.quote(text, safe=safe + "-._~")

    def path(self, service):
        if service == "lambda":
            # Its signature covers a normal form of the path, so that others than normal ones are refused.
            parts = [self.encoded(self.text(12)) or "f" for _ in range(self.dice.randrange(1, 4))]
            return "/2015-03-31/functions/" + "/".join(part for part in parts if part not in (".", ".."))
        raw = "/".join(self.text(10) for _ in range(self.dice.randrange(1, 5)))
        return "/nobodys-bucket/" + self.encoded(raw, safe="/")

    def query(self):
        """Names may come twice, values may be empty or missing."""
        pairs = []
        for _ in range(self.dice.choice([0, 0, 1, 2, 5])):
            name = self.encoded("q" + self.text(6))
            pairs.append(f"{name}={self.encoded(self.text(10))}")
        if pairs and self.dice.random() < 0.3:
            pairs.append(self.dice.choice(pairs))
        self.dice.shuffle(pairs)
        return "&".join(pairs)

    def headers(self):
        made = []
        for number in range(self.dice.choice([0, 1, 3])):
            words = [self.text(8, LETTERS + "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~") for _ in range(self.dice.randrange(1, 4))]
            value = self.dice.choice([" ", "  ", "\t ", "   "]).join(words)
            # Of names that mean nothing to S3: metadata that comes twice is refused for another reason.
            name = self.dice.choice(["x-amz-own-", "X-Amz-Own-", "X-AMZ-OWN-"]) + f"n{number}"
            made.append((name, self.dice.choice(["", " "]) + value + self.dice.choice(["", "  "])))
            if self.dice.random() < 0.2:
                made.append((name, self.text(5, LETTERS)))
        return made

    def request(self):
        """Method, target, headers and body, signed."""
        service = self.dice.choice(["s3", "s3", "lambda"])
        presigned = service == "s3" and self.dice.random() < 0.3
        method = self.dice.choice(["GET", "HEAD", "DELETE"] if presigned else ["GET", "GET", "HEAD", "DELETE", "PUT", "POST"])
        body = self.text(200).encode() if method in ("PUT", "POST") else b""
        path, query = self.path(service), self.query()
        url = f"http://{self.server.address}{path}" + (f"?{query}" if query else "")
        request = botocore.awsrequest.AWSRequest(method, url, data=body)
        for name, value in ([] if presigned else self.headers()):
            request.headers.add_header(name, value)
        keys = credentials(self.server)
        if presigned:
            botocore.auth.S3SigV4QueryAuth(keys, service, REGION, expires=self.dice.choice([60, 3_600, 604_800])).add_auth(request)
        elif service == "s3":
            botocore.auth.S3SigV4Auth(keys, service, REGION).add_auth(request)
        else:
            botocore.auth.SigV4Auth(keys, service, REGION).add_auth(request)
        parts = urllib.parse.urlsplit(request.url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        return method, target, list(request.headers.items()), body, presigned

    def altered(self, method, target, headers, body, presigned):
        """The same, but for one thing that the signature covers. What it is, and the request."""
        def of_header(name, change):
            return [(n, change(v) if n.lower() == name else v) for n, v in headers]

        def flipped(text):
            return text[:-1] + ("0" if text[-1] != "0" else "1")

        ways = {
            "method": lambda: ({"GET": "DELETE", "HEAD": "GET", "DELETE": "GET", "PUT": "POST", "POST": "PUT"}[method], target, headers, body),
            "path": lambda: (method, target.replace("/", "/x", 1) if "?" not in target else target.replace("?", "x?", 1), headers, body),
            "query": lambda: (method, target + ("&" if "?" in target else "?") + "further=1", headers, body),
        }
        if presigned:
            signature = re.search(r"X-Amz-Signature=[0-9a-f]{64}", target)[0]
            ways["signature"] = lambda: (method, target.replace(signature, flipped(signature)), headers, body)
            ways["expires"] = lambda: (method, re.sub(r"X-Amz-Expires=(\d+)", r"X-Amz-Expires=1\1", target), headers, body)
        else:
            ways["signature"] = lambda: (method, target, of_header("authorization", flipped), body)
            ways["unsigned header"] = lambda: (method, target, [*headers, ("x-amz-own-further", "1")], body)
            own = [name.lower() for name, _ in headers if name.lower().startswith("x-amz-own-")]
            if own:
                ways["header"] = lambda: (method, target, of_header(own[0], lambda value: value + "x"), body)
            if body:
                ways["body"] = lambda: (method, target, headers, body[:-1] + bytes([body[-1] ^ 1]))
        what = self.dice.choice(sorted(ways))
        return what, ways[what]()

    def send(self, method, target, headers, body):
        """Returns whether the server let it in, and the answer."""
        self.connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        self.connection.putheader("Host", self.server.address)
        for name, value in headers:
            self.connection.putheader(name, value)
        if body or method in ("PUT", "POST"):
            self.connection.putheader("Content-Length", str(len(body)))
        self.connection.endheaders(body)
        answer = self.connection.getresponse()
        content = answer.read().decode("utf-8", "replace")
        if answer.getheader("connection") == "close":
            self.connection.close()
        kind = answer.getheader("x-amzn-errortype")
        code = kind.split(":")[0] if kind else next(iter(re.findall("<Code>(.*?)</Code>", content)), "")
        refused = code in REFUSALS or (method == "HEAD" and answer.status in (400, 403))
        return not refused, f"{answer.status} {content}"

    def compare(self, count):
        """Sends so many requests and their twins. The first that goes wrong is an AssertionError that has it whole."""
        for _ in range(count):
            made = self.request()
            *request, presigned = made
            let_in, answer = self.send(*request)
            assert let_in, f"botocore signed it, and it was refused: {request}\n{answer}"
            what, twin = self.altered(*made)
            let_in, answer = self.send(*twin)
            assert not let_in, f"another {what} than was signed, and it was let in: {twin}\n{answer}"
            self.counted["signed"] += 1
            self.counted[f"altered {what}"] += 1
            self.counted["presigned" if presigned else "by header"] += 1
        return self.counted
