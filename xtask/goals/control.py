"""How a job is steered, and what becomes of it when something goes wrong: P24, P25, P28 to P32."""

import re, statistics, subprocess, time, urllib.parse

import measure
from measure import Rows, Server, audit, create_job, order, status_kib, wait

from . import programs
from .frame import Measure, Scenario, Workplace, optional


def jobs(**settings):
    return "[jobs]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())


def quantile(part):
    """Over all trials of all rounds: the smallest value that `part` of them do not exceed."""
    return lambda values: sorted(values)[min(len(values) - 1, int(len(values) * part))]


def now_us():
    return time.time() * 1e6


def started_between(bins, begin_us, end_us):
    """Calls that began between two times, from the stub's milliseconds."""
    reset, counts = bins
    low, high = (begin_us - reset) / 1e3, (end_us - reset) / 1e3
    return sum(count for bin, count in counts.items() if low <= bin < high)


class Stubbed(Scenario):
    def begin(self):
        self.stub = programs.Stub()

    def end(self):
        if hasattr(self, "stub"):
            self.stub.stop()

    def server(self, work, settings):
        return Server(work, settings + programs.endpoint(self.stub.url, signed=True), self.a.binary, programs.SIGNING)


def prepared(server, function, name, rows, **more):
    """A job whose manifest is read and which waits for its confirmation."""
    job = create_job(server, function, name, rows.put(server, name), confirm=True, **more)
    wait(server, job, ("Suspended",), every=0.02)
    return job


# Each call says in the function's log when it began, whatever becomes of its answer.
STAMPS = measure.HANDLER.replace("    told, called = ", "    print('began', time.time(), flush=True)\n    time.sleep(0.02)\n    told, called = ")


# Rows of a job that has to run for as long as it is looked at: 20 s at 150,000 tasks a second.
LOADED_ROWS = 3_000_000

# What a call that was handed out before a cancel's answer may take to its handler's first line.
HANDED_OUT_S = 0.005


class Stop(Stubbed):
    """Pre-emption and cancelling under full load."""

    name = "stop"
    settings = """Calls of 2 ms, 64 in flight, `active_max = 1`; 5 pre-emptions and one cancel a round; the reports of the
        higher jobs and of the cancelled one are audited. The embedded host: calls of 20 ms, 4 environments,
        a job of another function beside the one that is cancelled."""
    lies = """A pre-emption counts from the answer to the confirmation of the higher job, which the decision follows: the scheduler's time is in it.
        A call begins when the stub has read it, so one that was sent before a cancel's answer and read after it would count:
        on busy cores that is a call of ours that did not start late. In the embedded host the handler's first line counts, 5 ms later and on:
        a call that was handed out before takes its way there."""
    measures = [
        Measure("P25", "last new call of a pre-empted job after the decision, p99", "<=", 50, 10, lambda r: r["pre-emption"]["trials"], "pre-emption", "ms", over=quantile(0.99)),
        Measure("P25", "calls seen to begin after a cancel's answer, most", "<=", 0, 0, lambda r: r["cancel"]["started_after"], "cancel", "", over=max),
        Measure("P25", "the same in the embedded host, two functions for 4 environments", "<=", 0, 0, lambda r: r["cancel, hosted"]["started_after"], "cancel, hosted", "", over=max),
    ]
    TRIALS = 5

    def round(self, number, readings):
        rows, high = Rows(self.rows(200_000, 40_000)), Rows(1_500)
        with Workplace() as work, self.server(work, jobs(active_max=1, concurrency_initial=64, concurrency_max=64)) as server:
            self.stub.reset(delay_us=2_000)
            higher = [prepared(server, f"high{n}", "h.csv", high, priority=9) for n in range(self.TRIALS)]
            low = create_job(server, "low", "m.csv", rows.put(server, "m.csv"))
            self.stub.until(lambda s: s["functions"].get("low", {}).get("calls", 0) > 3_000)

            def trials():
                late = []
                for n, job in enumerate(higher):
                    before = self.stub.calls("low")
                    order(server, job, "Ready")
                    answered = now_us()
                    wait(server, job, every=0.03)
                    audit(server, job, high, marked=True)
                    last = self.stub.function(f"high{n}")["last_us"]
                    reset, counts = self.stub.bins("low")
                    low_us = [reset + bin * 1e3 for bin in counts if reset + bin * 1e3 < last]
                    late.append(max(0.0, (max(low_us) - answered) / 1e3))
                    self.stub.until(lambda s: s["functions"]["low"]["calls"] > before + 3_000)
                return {"trials": late, "audited": True}

            optional(readings, "pre-emption", trials)

            def cancel():
                order(server, low, "Cancelled")
                answered = now_us()
                time.sleep(0.5)
                last = self.stub.function("low")["last_us"]
                reset, counts = self.stub.bins("low")
                after = sum(count for bin, count in counts.items() if reset + bin * 1e3 > answered)
                wait(server, low, ("Cancelled",))
                audit(server, low, rows, marked=True, status="Cancelled")
                return {"started_after": after, "last_ms_after": (last - answered) / 1e3, "fsyncs": server.syncs.count(), "audited": True}

            optional(readings, "cancel", cancel)
        optional(readings, "cancel, hosted", self.hosted)

    def hosted(self):
        """A cancel while calls wait in the host."""
        rows = Rows(20_000)
        settings = jobs(concurrency_initial=64, concurrency_max=64) + "[functions]\nenvironments_max = 4\n" + measure.interpreters()
        with Workplace() as work, Server(work, settings, self.a.binary) as server:
            etag = rows.put(server, "m.csv")
            # Each has as many calls under way as there are environments, so that calls wait in the host.
            for name in ("g", "f"):
                server.deploy(name, *measure.package("own", STAMPS))
                job = create_job(server, name, "m.csv", etag)
            deadline = time.monotonic() + 60
            while measure.describe(server, job)["ProgressSummary"]["NumberOfTasksSucceeded"] < 100:
                assert time.monotonic() < deadline, "the function was not called"
                time.sleep(0.02)
            order(server, job, "Cancelled")
            answered = time.time()
            wait(server, job, ("Cancelled",))
            audit(server, job, rows, status="Cancelled")
            # What waited in the host has had its time to begin, if it would.
            time.sleep(1)
            log = subprocess.check_output([self.a.binary, "logs", "f", "--data-dir", server.data], env=measure.plain(), text=True)
            told = [float(at) for at in re.findall(r"began (\d+\.\d+)", log)]
            assert len(told) >= 100, f"the log has {len(told)} calls"
            return {"started_after": sum(at > answered + HANDED_OUT_S for at in told), "calls": len(told), "fsyncs": server.syncs.count(), "audited": True}


class Share(Stubbed):
    """A job of a higher priority beside one that has all the slots."""

    name = "priority"
    settings = "Calls of 20 ms; `concurrency_total_max` = `concurrency_max` = `concurrency_initial` = 64, both jobs active; 20,000 and 4,000 rows."
    lies = """The share is that of the calls that began in the 300 ms from 100 ms after the higher job's first one; all take equally long, so
        it is the share of the slots. The ramp-up is off: with it (`concurrency_initial` 8) the higher job has what the ramp allows."""
    measures = [Measure("P30", "a higher job's share of the slots, 100 ms after it becomes Active", ">=", 90, 98, lambda r: r["share"]["percent"], "share", "%")]

    def round(self, number, readings):
        low, high = Rows(self.rows(20_000, 6_000)), Rows(4_000)

        def share():
            with Workplace() as work, self.server(work, jobs(concurrency_total_max=64, concurrency_initial=64, concurrency_max=64)) as server:
                self.stub.reset(delay_us=20_000)
                higher = prepared(server, "high", "h.csv", high, priority=9)
                lower = create_job(server, "low", "m.csv", low.put(server, "m.csv"))
                self.stub.until(lambda s: s["functions"].get("low", {}).get("calls", 0) > 500)
                order(server, higher, "Ready")
                wait(server, higher)
                audit(server, higher, high, marked=True)
                begin = self.stub.function("high")["first_us"] + 100_000
                counts = {name: started_between(self.stub.bins(name), begin, begin + 300_000) for name in ("low", "high")}
                order(server, lower, "Cancelled")
                return {"percent": 100 * counts["high"] / sum(counts.values()), **counts, "fsyncs": server.syncs.count(), "audited": True}

        optional(readings, "share", share)


class Throttle(Stubbed):
    """A target that lets in so many calls a second."""

    name = "throttle"
    settings = "The stub lets in 2,000 calls of 5 ms a second, and 100 at once; 14,000 rows; `concurrency_initial = concurrency_max = 64`, which is 6 times too many."
    lies = """The whole job counts, with the time in which the limit has to be found: from its first call to its last. A burst that the stub
        forgives (50 ms of calls) is at most 0.7 % of them."""
    RATE = 2_000
    measures = [
        Measure("P31", "goodput over the rate that is let in", ">=", 0.90, 0.97, lambda r: r["throttled"]["goodput"], "throttled"),
        Measure("P31", "rejected calls of all", "<=", 10, 3, lambda r: r["throttled"]["rejected_percent"], "throttled", "%"),
    ]

    def round(self, number, readings):
        rows = Rows(self.rows(14_000, 10_000))

        def throttled():
            with Workplace() as work, self.server(work, jobs(concurrency_initial=64, concurrency_max=64)) as server:
                self.stub.reset(delay_us=5_000, rate=self.RATE, track=True)
                job = create_job(server, "f", "m.csv", rows.put(server, "m.csv"))
                wait(server, job)
                audit(server, job, rows, marked=True)
                seen, stats = self.stub.function("f"), self.stub.stats()
                assert stats["unique"] == rows.count, stats["unique"]
                seconds = (seen["last_us"] - seen["first_us"]) / 1e6
                return {"goodput": seen["calls"] / seconds / self.RATE, "rejected_percent": 100 * seen["rejected"] / (seen["calls"] + seen["rejected"]),
                        "seconds": seconds, "repeats": stats["repeats"], "fsyncs": server.syncs.count(), "audited": True}

        optional(readings, "throttled", throttled)


class Limit(Stubbed):
    """A job's limit on calls at once."""

    name = "limit"
    N = 16
    settings = "`concurrency_max` = `concurrency_initial` = 16, calls of 200 ms, 400 rows."
    lies = """Seen at the stub, where a slot is empty from the end of a call until the next has been read: some 0.1 ms of 200, so exactly 16 for
        all of the time cannot be seen. The window ends when no row waits any more."""
    measures = [
        Measure("P32", "calls at once, most, over the limit", "<=", 1, 1, lambda r: r["limited"]["peak"] / Limit.N, "limited", over=max),
        Measure("P32", "time at exactly the limit", ">=", None, 99, lambda r: r["limited"]["percent"], "limited", "%"),
    ]

    def round(self, number, readings):
        rows = Rows(400)

        def limited():
            with Workplace() as work, self.server(work, jobs(concurrency_initial=self.N, concurrency_max=self.N)) as server:
                self.stub.reset(delay_us=200_000)
                job = create_job(server, "f", "m.csv", rows.put(server, "m.csv"))
                seen = self.stub.until(lambda s: s["functions"].get("f", {}).get("calls", 0) > rows.count - self.N)["functions"]["f"]
                wait(server, job)
                audit(server, job, rows, marked=True)
                at = seen["time_at_us"]
                return {"peak": self.stub.function("f")["peak"], "percent": 100 * (at[self.N] if len(at) > self.N else 0) / sum(at),
                        "fsyncs": server.syncs.count(), "audited": True}

        optional(readings, "limited", limited)


class Stall(Stubbed):
    """A disk that does not answer for half a second."""

    name = "disk stall"
    settings = "64 in flight, calls without delay, 3 M rows, of which those that are left are called off at the end; every fsync and fdatasync of the server is held for 500 ms, 1.5 s after the first call."
    lies = """The syncs are held in the server by a preloaded library, so that its own threads wait as for a slow disk; the disk itself stays free,
        and page-cache writes go on. Throughput is of the calls that began in the 500 ms, over the mean of the 500 ms before and
        of 500 ms half a second later."""
    measures = [
        Measure("P24", "calls during a 500 ms stall over those before and after", ">=", 0.9, 0.98, lambda r: r["stalled"]["ratio"], "stalled"),
        Measure("P24", "memory that the stall costs", "<=", 16, 4, lambda r: r["stalled"]["more_mb"], "stalled", "MB"),
    ]

    def round(self, number, readings):
        rows = Rows(LOADED_ROWS)

        def stalled():
            with Workplace() as work, self.server(work, jobs(concurrency_initial=64, concurrency_max=64)) as server:
                job = prepared(server, "f", "m.csv", rows)
                self.stub.reset()
                order(server, job, "Ready")
                self.stub.until(lambda s: s["functions"].get("f", {}).get("calls", 0) > 0)
                time.sleep(1.5)
                measure.forget_peak(server.pid)
                before_kib, began = status_kib(server.pid, "VmRSS"), now_us()
                server.syncs.stall(0.5)
                time.sleep(0.5)
                peak_kib = status_kib(server.pid, "VmHWM")
                time.sleep(1.2)
                order(server, job, "Cancelled")
                wait(server, job, ("Cancelled",), every=0.05)
                audit(server, job, rows, marked=True, status="Cancelled")
                bins = self.stub.bins("f")
                last = self.stub.function("f")["last_us"]
                assert last > began + 1_500_000, f"the job was over {(last - began) / 1e3:.0f} ms after the stall began: too few rows"
                half = lambda at: started_between(bins, began + at * 1e6, began + (at + 0.5) * 1e6)
                during, around = half(0), (half(-0.5) + half(1.0)) / 2
                return {"ratio": during / around, "before": half(-0.5), "during": during, "after": half(1.0),
                        "more_mb": (peak_kib - before_kib) / 1024, "fsyncs": server.syncs.count(), "audited": True}

        optional(readings, "stalled", stalled)


class Crash(Stubbed):
    """kill -9 in the middle of a job, and what is done twice."""

    name = "repeats after a kill"
    settings = "16 in flight, calls without delay, 100,000 rows, killed at 40,000 calls; W is `unrecorded_max` as `--print-config` says it."
    lies = "The stub counts keys, so a repeat is a second call for a row whatever the reason; nothing else repeats here, for every call succeeds."
    measures = [
        Measure("P28", "rows lost, or twice in the report", "<=", 0, 0, lambda r: r["killed"]["lost"], "killed", "", over=max),
        Measure("P28", "rows called again over in flight + W", "<=", 1, None, lambda r: r["killed"]["repeats"] / (16 + r["killed"]["W"]), "killed", over=max),
        Measure("P28", "rows called again over in flight + 20 ms of tasks", "<=", None, 1, lambda r: r["killed"]["repeats"] / (16 + 0.02 * r["killed"]["tasks_per_s"]), "killed"),
    ]

    def round(self, number, readings):
        rows = Rows(self.rows(100_000, 60_000))

        def killed():
            told = subprocess.check_output([self.a.binary, "serve", "--print-config"], text=True)
            bound = int(re.search(r"^unrecorded_max = (\d+)", told, re.M).group(1))
            with Workplace() as work, self.server(work, jobs(concurrency_initial=16, concurrency_max=16)) as server:
                etag = rows.put(server, "m.csv")
                self.stub.reset(track=True)
                job = create_job(server, "f", "m.csv", etag)
                seen = self.stub.until(lambda s: s["functions"].get("f", {}).get("calls", 0) > rows.count * 0.4)["functions"]["f"]
                server.kill()
                rate = seen["calls"] / (seen["last_us"] - seen["first_us"]) * 1e6
                server.start()
                wait(server, job)
                audit(server, job, rows, marked=True)
                stats = self.stub.stats()
                return {"repeats": stats["repeats"], "lost": rows.count - stats["unique"], "W": bound, "tasks_per_s": rate,
                        "fsyncs": server.syncs.count(), "audited": True}

        optional(readings, "killed", killed)


class Asked(Stubbed):
    """DescribeJob and ListJobs."""

    name = "describe and list"
    settings = """Under load: 64 in flight, calls without delay, 3 M rows, of which those that are left are called off behind the last request; a second
        without requests, then one with 100 DescribeJob a second, five times in turn. ListJobs: 10,000 jobs that wait for their confirmation; pages as long as the server makes them, all of the
        jobs and those that are Failed, of which there are none."""
    lies = """One connection, requests signed and written out before, so that the client costs little (some 40 µs each); latency from the first byte sent to the last one
        received, with the client's own waiting for a core in it. Throughput is what began at the stub."""
    # A second without requests and one with them.
    PAIRS = 5
    measures = [
        Measure("P29", "DescribeJob under full load, p99", "<=", 20, 5, lambda r: r["describe"]["latencies"], "describe", "ms", over=quantile(0.99)),
        Measure("P29", "what 100 DescribeJob/s cost in throughput", "<=", 3, 1, lambda r: 100 * (1 - r["describe"]["ratio"]), "describe", "%"),
        Measure("P29", "ListJobs over 10,000 jobs, p99", "<=", 100, 20, lambda r: r["list"]["latencies"], "list", "ms", over=quantile(0.99)),
        Measure("P15", "memory of an idle job", "<=", 64, 16, lambda r: r["list"]["kib_a_job"], "list", "KiB"),
    ]

    def begin(self):
        super().begin()
        self.place = Workplace()
        self.many = None
        path = self.place.__enter__()
        if self.wants("P29", "P15"):
            self.count = self.rows(10_000, 500)
            self.many = self.server(path, jobs(retained_max=0, preparing_max=8))
            etag = Rows(1).put(self.many, "one.csv")
            create_job(self.many, "f", "one.csv", etag, confirm=True, token="before all")
            time.sleep(0.3)
            before = status_kib(self.many.pid, "VmRSS")
            measure.create_jobs(self.many, "f", "one.csv", etag, self.count)
            deadline = time.monotonic() + 600
            while b"<JobId>" in asked(self.many, ["/v20180820/jobs?jobStatuses=New&jobStatuses=Preparing"])[0][1]:
                assert time.monotonic() < deadline, "the jobs are not prepared"
                time.sleep(0.2)
            self.kib_a_job = (status_kib(self.many.pid, "VmRSS") - before) / self.count

    def end(self):
        if getattr(self, "many", None):
            self.many.kill()
        if hasattr(self, "place"):
            self.place.__exit__()
        super().end()

    def round(self, number, readings):
        if self.wants("P29"):
            optional(readings, "describe", self.described)
            optional(readings, "list", self.listed)
        elif self.wants("P15"):
            readings["list"] = {"kib_a_job": self.kib_a_job, "audited": True}

    def described(self):
        rows = Rows(LOADED_ROWS)
        with Workplace() as work, self.server(work, jobs(concurrency_initial=64, concurrency_max=64)) as server:
            job = prepared(server, "f", "m.csv", rows)
            self.stub.reset()
            order(server, job, "Ready")
            self.stub.until(lambda s: s["functions"].get("f", {}).get("calls", 0) > 2_000)
            time.sleep(0.3)
            latencies, spans = [], []
            for _ in range(self.PAIRS):
                began = now_us()
                time.sleep(1)
                between = now_us()
                latencies += [ms for ms, _ in asked(server, [f"/v20180820/jobs/{job}"] * 100, a_second=100)]
                spans.append((began, between, now_us()))
            # What is left is called off: the job has rows for much longer than this, whatever the machine.
            order(server, job, "Cancelled")
            wait(server, job, ("Cancelled",), every=0.05)
            audit(server, job, rows, marked=True, status="Cancelled")
            assert self.stub.function("f")["last_us"] > spans[-1][2], "the job was over before the last request: too few rows"
            bins = self.stub.bins("f")
            rate = lambda begin, end: started_between(bins, begin, end) / (end - begin)
            ratios = [rate(b, c) / rate(a, b) for a, b, c in spans]
            return {"latencies": latencies, "p99_ms": quantile(0.99)(latencies), "ratio": statistics.median(ratios),
                    "fsyncs": server.syncs.count(), "audited": True}

    def listed(self):
        latencies, seen = [], 0
        for status in ("", "jobStatuses=Failed"):
            token = ""
            while True:
                query = "&".join(part for part in (status, token) if part)
                (ms, body), = asked(self.many, ["/v20180820/jobs" + (f"?{query}" if query else "")])
                latencies.append(ms)
                seen += body.count(b"<JobId>")
                found = re.search(rb"<NextToken>([^<]+)</NextToken>", body)
                if not found:
                    break
                token = "nextToken=" + urllib.parse.quote(found.group(1).decode(), safe="")
        assert seen >= self.count, f"{seen} jobs were listed"
        return {"latencies": latencies, "p99_ms": quantile(0.99)(latencies), "pages": len(latencies), "jobs": seen,
                "kib_a_job": self.kib_a_job, "audited": True}


def asked(server, targets, a_second=0):
    """GETs each target on one connection, signed beforehand. Returns (milliseconds, body) of each."""
    wire, began = measure.Wire(server), time.monotonic()
    written = {target: wire.written(target) for target in set(targets)}
    answers = []
    for n, target in enumerate(targets):
        if a_second:
            time.sleep(max(0, began + n / a_second - time.monotonic()))
        answers.append(wire.send_written(written[target]))
    return answers
