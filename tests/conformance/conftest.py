import os
import re
import uuid

import pytest

import harness

UNITS = ("passed", "failed", "skipped")
# Where `check` wants the counts. Read before any test, for tests replace the environment.
COUNTED = os.environ.get("LONGSHORE_TEST_COUNTS")


def running(folder, *environment):
    server = harness.Server(folder, *environment).start()
    yield server
    server.stop()
    said = server.said()
    assert "panicked at" not in said, f"the server panicked:\n{said[-4000:]}"
    # At this level someone has to act; nothing that a client or a function does may make it so.
    # That there is no sandbox is said loudly, and is what a test asked for.
    errors = [line for line in said.splitlines() if " ERROR " in line and "run without a sandbox" not in line]
    assert not errors, "\n".join(errors[:5])


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server that most tests share: each one uses buckets and functions of its own."""
    yield from running(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="session")
def unconfined(tmp_path_factory):
    """As `server`, for tests whose functions wait for files, or leave some, where only the test and they look."""
    yield from running(tmp_path_factory.mktemp("unconfined"), harness.UNCONFINED)


@pytest.fixture
def name(request):
    """A name that no other test uses, fit for buckets and functions."""
    return re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-") + "-" + uuid.uuid4().hex[:6]


def pytest_terminal_summary(terminalreporter):
    """Says how many tests ran and which ones did not, in one line that `check` adds up."""
    counts = {unit: len(terminalreporter.stats.get(unit, [])) for unit in UNITS}
    counts["failed"] += len(terminalreporter.stats.get("error", []))
    for report in terminalreporter.stats.get("skipped", []):
        terminalreporter.write_line(f"SKIPPED {report.nodeid}: {report.longrepr[-1]}", yellow=True, bold=True)
    if COUNTED:
        with open(COUNTED, "a") as counted:
            print(*(counts[unit] for unit in UNITS), file=counted)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Adds the end of the shared server's log to the report of a test that failed."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and "server" in getattr(item, "funcargs", {}):
        report.sections.append(("the server's log", item.funcargs["server"].said()[-3000:]))
