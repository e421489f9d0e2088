#!/usr/bin/env python3
"""Checks what the server is built from: licences, sources, versions of risky crates, build scripts, and how many crates there are.

Reads `cargo metadata` and nothing else. Prints a line for each finding and ends with status 1 if there is any.
"""

import json
import re
import subprocess
import sys

# A licence expression passes if one of its alternatives consists of these alone.
LICENCES = {
    "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "ISC",
    "Unicode-3.0", "Unlicense", "Zlib", "0BSD", "CC0-1.0",
}
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"
# Versions below these have known faults on input from outside.
FLOORS = {"quick-xml": (0, 41, 0), "zip": (2, 3, 0), "h2": (0, 4, 16)}
# A second TLS or crypto stack in C; rustls with ring is the one we have.
BANNED = {"openssl-sys", "aws-lc-sys", "native-tls"}
# For cryptography, TLS and HTTP. Two versions of one would be two readers of the same bytes, of which one is not mended.
ONE_VERSION = {
    "aead", "aes", "aes-gcm", "chacha20", "chacha20poly1305", "cipher", "crypto-common", "ctr", "digest", "getrandom", "ghash",
    "h2", "hmac", "http", "http-body", "http-body-util", "httparse", "httpdate", "hyper", "hyper-rustls", "hyper-util",
    "md-5", "poly1305", "polyval", "quick-xml", "rand", "rand_core", "ring", "rustls", "rustls-pki-types", "rustls-webpki", "sha1",
    "sha2", "subtle", "tokio-rustls", "universal-hash", "webpki-roots", "zeroize",
}
# Those of them that there are more of, how many, and why.
MORE_VERSIONS = {
    "crypto-common": (2, "of the two generations of digest"),
    "digest": (2, "crc-fast, which the AWS SDK and s3s want, implements the traits of 0.10; it computes CRCs, and no hash that has to be safe"),
    "getrandom": (3, "ring is at 0.2, tempfile, uuid and zip are at 0.4, ours are at 0.3; each asks the kernel"),
}
# Those that run a program of theirs while it is built. One more is a finding, so that somebody looks at it.
BUILD_SCRIPTS = {
    "aws-types", "constant_time_eq", "crc32c", "crc32fast", "generic-array", "getrandom", "httparse",
    "icu_normalizer_data", "icu_properties_data", "libc", "libsqlite3-sys", "num-traits", "portable-atomic",
    "proc-macro2", "quote", "ring", "rustix", "rustls", "rustversion", "serde", "serde_core", "serde_json", "snap",
    "thiserror", "zmij",
}
# The client for other S3 stores (the AWS SDK, TLS) is some forty of them, and its own leaf crate.
SERVER, CRATES_MAX = "longshore", 270


def acceptable(expression):
    """Whether a licence expression has a way through that our list allows. Understands AND, OR, WITH and brackets."""
    words = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either():
        value = both()
        while words and words[0] == "OR":
            words.pop(0)
            value = both() or value
        return value

    def both():
        value = one()
        while words and words[0] == "AND":
            words.pop(0)
            value = one() and value
        return value

    def one():
        word = words.pop(0)
        if word == "(":
            value = either()
            words.pop(0)
            return value
        if words and words[0] == "WITH":
            words.pop(0)
            word += " WITH " + words.pop(0)
        return word in LICENCES

    return either()


def version(text):
    return tuple(int(part) for part in text.split("-")[0].split("+")[0].split("."))


def main():
    metadata = json.loads(subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"],
        stdout=subprocess.PIPE, check=True).stdout)
    members = set(metadata["workspace_members"])
    findings = []
    for package in metadata["packages"]:
        name = f"{package['name']} {package['version']}"
        if package["id"] in members:
            if package["license"] != "Apache-2.0":
                findings.append(f"{name}: our crates are Apache-2.0, not {package['license']}")
            continue
        if package["source"] != REGISTRY:
            findings.append(f"{name}: comes from {package['source']}, not from the registry")
        if not package["license"]:
            findings.append(f"{name}: names no licence expression")
        elif not acceptable(package["license"]):
            findings.append(f"{name}: its licence {package['license']} is not on the list")
        if package["name"] in FLOORS and version(package["version"]) < FLOORS[package["name"]]:
            findings.append(f"{name}: has to be {'.'.join(map(str, FLOORS[package['name']]))} or newer")
        if package["name"] in BANNED:
            findings.append(f"{name}: is not to be used")

    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    server = next(package["id"] for package in metadata["packages"] if package["name"] == SERVER and package["id"] in members)
    tree, ahead = set(), [server]
    while ahead:
        node = ahead.pop()
        if node not in tree:
            tree.add(node)
            ahead += [dep["pkg"] for dep in nodes[node]["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])]
    if len(tree) > CRATES_MAX:
        findings.append(f"the server is built from {len(tree)} crates, more than {CRATES_MAX}")
    built = [package for package in metadata["packages"] if package["id"] in tree and package["id"] not in members]
    for name in sorted(ONE_VERSION):
        there = sorted(package["version"] for package in built if package["name"] == name)
        may, why = MORE_VERSIONS.get(name, (1, "there may be one"))
        if len(there) > may or name in MORE_VERSIONS and len(there) < may:
            findings.append(f"{name}: is there in {len(there)} versions ({', '.join(there)}), not {may}: {why}")
    scripts = {package["name"] for package in built if any("custom-build" in target["kind"] for target in package["targets"])}
    for name in sorted(scripts ^ BUILD_SCRIPTS):
        findings.append(f"{name}: {'has a build script, and is not on the list' if name in scripts else 'is on the list, and has no build script'}")
    for finding in findings:
        print(finding)
    print(f"dependencies: {len(tree)} crates in the server ({len(scripts)} with a build script), "
          f"{len(metadata['packages'])} in all, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
