"""Damage to the records is noticed at the next start, with the file and the place (promise D6)."""

import pytest

import harness

BUCKET = "damage"


@pytest.fixture
def server(tmp_path):
    server = harness.Server(tmp_path).start()
    yield server
    server.stop()


@pytest.mark.parametrize("name, where", [
    # The salt in the head of SQLite's log: without it SQLite passes over the whole log, and says nothing.
    ("records.db-wal", lambda size: 17),
    # In the last transaction, which was acknowledged.
    ("records.db-wal", lambda size: size - 1_000),
    ("records.sums", lambda size: 9),
])
def test_one_flipped_bit_in_the_records_is_noticed_with_its_file_and_nothing_that_was_acknowledged_goes_in_silence(server, name, where):
    server.bucket(BUCKET)
    etag = server.put_manifest(BUCKET, [(BUCKET, "k")])
    function = server.deploy("work", "def handler(event, context): pass")
    # So that more is in the database than its first page: the log is copied at a stop.
    server.stop()
    server.start()
    job = server.create_job(BUCKET, function, etag, confirmation=True)
    server.wait(job, "Suspended")
    server.kill()
    file = server.data_dir / name
    whole = file.read_bytes()
    at = where(len(whole))
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1:])
    said = harness.run([harness.LONGSHORE, "serve", "--data-dir", server.data_dir, "--listen", "127.0.0.1:0"],
                       harness.plain_environment(server.home), check=False, timeout=20)
    assert said.returncode != 0, said
    assert "is damaged at byte" in said.stderr and str(server.data_dir / "records.") in said.stderr, said.stderr
    assert "listening" not in said.stdout + said.stderr
    file.write_bytes(whole)
    server.start()
    assert server.control.describe_job(AccountId=harness.ACCOUNT, JobId=job)["Job"]["JobId"] == job


def test_a_flipped_bit_in_a_page_of_the_database_is_noticed_and_not_shown(server):
    server.bucket(BUCKET)
    etag = server.put_manifest(BUCKET, [(BUCKET, "k")])
    function = server.deploy("work", "def handler(event, context): pass")
    server.wait(server.create_job(BUCKET, function, etag, confirmation=True, Description="a word to be found"), "Suspended")
    server.stop()
    file = server.data_dir / "records.db"
    whole = file.read_bytes()
    at = whole.rindex(b"a word to be found")
    file.write_bytes(whole[:at] + b"A" + whole[at + 1:])
    said = harness.run([harness.LONGSHORE, "serve", "--data-dir", server.data_dir, "--listen", "127.0.0.1:0"],
                       harness.plain_environment(server.home), check=False, timeout=20)
    assert said.returncode != 0 and f"{file} is damaged at byte {at // 4096 * 4096}: " in said.stderr, said
    # On purpose, by somebody who says so.
    (server.data_dir / "records.sums").unlink()
    server.start()
    [job] = server.control.list_jobs(AccountId=harness.ACCOUNT)["Jobs"]
    assert job["Description"] == "A word to be found"


def test_a_data_directory_that_lost_its_records_is_not_begun_anew_and_keeps_its_objects_and_code(server):
    server.bucket(BUCKET)
    server.s3.put_object(Bucket=BUCKET, Key="k", Body=b"kept" * 30_000)
    server.deploy("work", "def handler(event, context): pass")
    server.stop()
    files = lambda: {str(file.relative_to(server.data_dir)) for name in ("objects", "code") for file in (server.data_dir / name).rglob("*") if file.is_file()}
    before, kept = files(), {name: (server.data_dir / name).read_bytes() for name in ("records.db", "records.sums")}
    assert any(file.startswith("objects") for file in before) and any(file.startswith("code") for file in before), before
    # With the checksums first, as after an accident; then without, as the one who trusts nothing but a fresh start would have it.
    for name in ("records.db", "records.sums"):
        (server.data_dir / name).unlink()
        said = harness.run([harness.LONGSHORE, "serve", "--data-dir", server.data_dir, "--listen", "127.0.0.1:0"],
                           harness.plain_environment(server.home), check=False, timeout=20)
        assert said.returncode != 0 and "records.db is gone" in said.stderr and "from a backup" in said.stderr, said
        assert files() == before
    for name, content in kept.items():
        (server.data_dir / name).write_bytes(content)
    server.start()
    assert server.s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"kept" * 30_000
