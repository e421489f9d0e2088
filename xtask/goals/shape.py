"""Whether it stays flat as jobs grow and linear as functions multiply: P14 to P20, P26, P27."""

import gzip, hashlib, json, resource, tempfile, time, zlib

import measure
from measure import WARMED, Rows, Server, audit, cpu_us, create_job, create_jobs, interpreters, order, package, run_job, status_kib, wait, warm_up

from .control import Stubbed, jobs, now_us, started_between
from .frame import Measure, Scenario, Workplace, optional



def gunzip_us(f):
    """What inflating a file costs by itself, with zlib and nothing done with the text."""
    usage = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    before, inflate = usage(), zlib.decompressobj(wbits=31)
    while piece := f.read(1 << 18):
        inflate.decompress(piece)
    return (usage() - before) * 1e6


WAITS = WARMED.replace("def handler(event, context):", "def handler(event, context):\n    time.sleep(0.01)")


class Grown(Stubbed):
    """A job of ten million rows beside one of ten thousand: memory, restart after a kill, resuming."""

    name = "ten million rows"
    settings = """10 M rows (a manifest of 290 MB), 64 in flight, calls without delay; half of it is run once and the server killed with SIGKILL; each round
        starts it again, pre-empts the job (`active_max = 1`), lets it go on, and kills it; beside it the same with a job of 10,000 rows, at its
        2,000th. At the end the big job is cancelled and its report audited: each row that is counted as done, once."""
    lies = """The restart counts from exec to the stub's reading of the next call, so the start of the process is in it; the data directory is in the
        page cache, as after a kill and not as after a power cut. Resuming counts from the end of the higher job's last call, to a
        millisecond. Memory
        is the highest VmHWM of any of the server's processes: manifest checked, half of the rows run, recovered, reported."""
    measures = [
        Measure("P27", "kill -9 and restart: exec to next invocation, 10 M rows", "<=", 500, 100, lambda r: r["big"]["restart_ms"], "big", "ms"),
        Measure("P27", "the same over that of a job of 10 k rows", "<=", 1.5, 1.1, lambda r: r["big"]["restart_ms"] / r["small"]["restart_ms"], "big"),
        Measure("P26", "resuming at row 5 M over row 2 k", "<=", 1.5, 1.1, lambda r: r["big"]["resume_ms"] / r["small"]["resume_ms"], "big"),
        Measure("P26", "resuming at row 5 M", "<=", None, 20, lambda r: r["big"]["resume_ms"], "big", "ms"),
        Measure("P14", "peak memory, 10 M rows over 10 k rows, 64 in flight", "<=", 1.25, 1.05, lambda r: r["big"]["peak_mb"] / r["small"]["peak_mb"], "big", over=max),
        Measure("P14", "peak memory of the server, 10 M rows, 64 in flight", "<=", 48, 24, lambda r: r["big"]["peak_mb"], "big", "MB", over=max),
        Measure("P16", "manifest of 10 M rows checked", ">=", None, None, lambda r: r["big"]["checked_rows_per_s"], "big", "rows/s"),
    ]

    # What the higher job's calls take: long beside everything else that happens when it ends.
    HELD_US = 400_000

    def begin(self):
        super().begin()
        self.places = [Workplace(), Workplace()]
        self.count = self.rows(10_000_000, 200_000)
        # The small job's calls take 100 ms, so that it lasts for all rounds.
        self.small = self.opened(self.places[0], "small", Rows(10_000), 2_000, 100_000)
        self.big = self.opened(self.places[1], "big", Rows(self.count), self.count // 2, 0)

    def opened(self, place, name, rows, until, delay_us):
        """A job that has done so many calls, of a server that was killed then; and jobs that will pre-empt it."""
        server = self.server(place.__enter__(), jobs(active_max=1, concurrency_initial=64, concurrency_max=64))
        higher = Rows(64)
        waiting = create_jobs(server, "higher", "h.csv", higher.put(server, "h.csv"), self.a.rounds)
        for job in waiting:
            server.control.update_job_priority(AccountId=measure.ACCOUNT, JobId=job, Priority=9)
            wait(server, job, ("Suspended",), every=0.02)
        etag = rows.put(server, "m.csv")
        began = time.monotonic()
        job = create_job(server, name, "m.csv", etag, confirm=True)
        wait(server, job, ("Suspended",), every=0.02)
        checked = time.monotonic() - began
        # A small job's first calls may be quick ones.
        self.stub.reset(delay_us=min(delay_us, 5_000))
        order(server, job, "Ready")
        self.stub.until(lambda s: s["functions"].get(name, {}).get("calls", 0) >= until, timeout=900, every=0.05)
        kib = status_kib(server.pid, "VmHWM")
        server.kill()
        return {"server": server, "job": job, "name": name, "rows": rows, "waiting": waiting, "delay_us": delay_us, "kib": kib,
                "checked_rows_per_s": rows.count / checked}

    def end(self):
        for which in ("big", "small"):
            if hasattr(self, which):
                getattr(self, which)["server"].stop()
        for place in getattr(self, "places", []):
            if hasattr(place, "path"):
                place.__exit__()
        super().end()

    def round(self, number, readings):
        for which in ("small", "big"):
            optional(readings, which, lambda: self.measured(getattr(self, which)))

    def measured(self, this):
        server, name, syncs = this["server"], this["name"], this["server"].syncs.count()
        self.stub.reset(delay_us=this["delay_us"])
        began = now_us()
        server.start()
        try:
            seen = self.stub.until(lambda s: s["functions"].get(name, {}).get("calls", 0) > 0)
            restart_ms = (seen["functions"][name]["first_us"] - began) / 1e3
            self.stub.until(lambda s: s["functions"][name]["calls"] > 200)
            self.stub.reset(delay_us=self.HELD_US)
            order(server, this["waiting"].pop(), "Ready")
            self.stub.until(lambda s: s["functions"].get("higher", {}).get("calls", 0) >= 64)
            # From the end of the higher job's last call to the next call of the one that waited.
            ended = self.stub.function("higher")["last_us"] + self.HELD_US
            resumed = lambda: [us for us in began_us(self.stub.bins(name)) if us > ended - 1_000]
            while not resumed():
                assert now_us() < ended + 60e6, "the job did not go on"
                time.sleep(0.02)
            this["kib"] = max(this["kib"], status_kib(server.pid, "VmHWM"))
        finally:
            server.kill()
        return {"restart_ms": restart_ms, "resume_ms": max(0.5, (min(resumed()) - ended) / 1e3), "peak_mb": this["kib"] / 1024,
                "checked_rows_per_s": this["checked_rows_per_s"], "fsyncs": server.syncs.count() - syncs, "audited": True}

    def close(self, kept):
        for this in (self.small, self.big):
            server = this["server"]
            self.stub.reset(delay_us=this["delay_us"])
            server.start()
            order(server, this["job"], "Cancelled")
            wait(server, this["job"], ("Cancelled",), every=0.1)
            this["kib"] = max(this["kib"], status_kib(server.pid, "VmHWM"))
            audit(server, this["job"], this["rows"], marked=True, status="Cancelled")
            for readings in kept:
                readings.get(this["name"], {})["peak_mb"] = this["kib"] / 1024


def began_us(bins):
    reset, counts = bins
    return [reset + bin * 1e3 for bin in counts]


class First(Stubbed):
    """The time to the first invocation."""

    name = "first invocation"
    settings = """Manifests of 10 M rows plain, 10 M rows in an inventory's gzipped CSV, and 1,000 rows, in the embedded storage; warm server and stub; each job is cancelled once it
        has called."""
    lies = """By default the whole manifest is read and checked before the first task, as on AWS; then P16 counts from the order that lets a checked
        job go (it waits for its confirmation) to the first call that the stub reads. With `longshore:start = while-preparing` it counts
        from the request that creates the job. What is behind both in rows is not run, and no report of it is complete: a job of 1,000 rows
        that is started the same way is run and audited in every round. P21's gzipped stage is the server's whole CPU from request to the end
        of the check, reading from its storage included, over zlib's on the same file; its keys are spread, so that it is a fifth of its text."""
    KINDS = ("small", "plain", "gz")
    measures = [
        *[Measure("P16", f"from the confirmation, 10 M rows{gz} over 1 k", "<=", 1.5, 1.1, (lambda k: lambda r: r[f"{k}"]["confirmed_ms"] / r["small"]["confirmed_ms"])(kind), kind) for kind, gz in (("plain", ""), ("gz", " gzipped"))],
        *[Measure("P16", f"from the request with early start, 10 M rows{gz} over 1 k", "<=", 1.5, 1.1, (lambda k: lambda r: r[f"{k}, early"]["first_ms"] / r["small, early"]["first_ms"])(kind), f"{kind}, early") for kind, gz in (("plain", ""), ("gz", " gzipped"))],
        Measure("P16", "from the confirmation, 10 M rows, beyond the floor's (0.5 ms)", "<=", 20, 5, lambda r: r["plain"]["confirmed_ms"] - 0.5, "plain", "ms"),
        Measure("P21", "manifest stage of gzipped CSV, own CPU over gunzip alone", "<=", 1.6, 1.25, lambda r: r["gz"]["checked_own_us"] / r["gz"]["gunzip_us"], "gz"),
        Measure("P16", "from the request with early start, 10 M rows, beyond the floor's", "<=", 20, 5, lambda r: r["plain, early"]["first_ms"] - 0.5, "plain, early", "ms"),
    ]

    def begin(self):
        super().begin()
        self.place = Workplace()
        self.working = self.server(self.place.__enter__(), jobs(concurrency_initial=16, concurrency_max=16))
        many, self.few = Rows(self.rows(10_000_000, 100_000)), Rows(1_000)
        self.etags = {"small": self.few.put(self.working, "small"), "plain": many.put(self.working, "plain")}
        f = self.packed = tempfile.TemporaryFile()
        with gzip.GzipFile(fileobj=f, mode="wb", compresslevel=1) as z:
            for low in range(0, many.count, 50_000):
                # Spread as real keys are, so that the file is a fifth of its text and not a twentieth.
                z.write("".join(f'"{Rows.BUCKET}","{(n + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}/object-{n:010}"\n'
                                for n in range(low, min(low + 50_000, many.count))).encode())
        size = f.tell()
        f.seek(0)
        md5 = hashlib.file_digest(f, "md5").hexdigest()
        f.seek(0)
        self.working.s3.put_object(Bucket=Rows.BUCKET, Key="data.csv.gz", Body=f)
        body = json.dumps({"sourceBucket": Rows.BUCKET, "destinationBucket": f"arn:aws:s3:::{Rows.BUCKET}", "version": "2016-11-30",
                           "creationTimestamp": "1514944800000", "fileFormat": "CSV", "fileSchema": "Bucket, Key",
                           "files": [{"key": "data.csv.gz", "size": size, "MD5checksum": md5}]})
        self.etags["gz"] = self.working.s3.put_object(Bucket=Rows.BUCKET, Key="gz", Body=body)["ETag"]

    def end(self):
        if hasattr(self, "working"):
            self.working.stop()
            self.place.__exit__()
        if hasattr(self, "packed"):
            self.packed.close()
        super().end()

    def round(self, number, readings):
        for kind in self.KINDS:
            optional(readings, kind, lambda: self.confirmed(kind))
            optional(readings, f"{kind}, early", lambda: self.early(kind))

    def finish(self, kind, job):
        """The small job runs to its end and is audited; the others are called off."""
        if kind == "small":
            wait(self.working, job, every=0.02)
            audit(self.working, job, self.few, marked=True)
        else:
            order(self.working, job, "Cancelled")
            wait(self.working, job, ("Cancelled",), every=0.02)

    def confirmed(self, kind):
        server, syncs = self.working, self.working.syncs.count()
        own, began = cpu_us(server.pid), time.monotonic()
        job = create_job(server, "f", kind, self.etags[kind], confirm=True, inventory=kind == "gz")
        wait(server, job, ("Suspended",), every=0.02)
        checked, own = time.monotonic() - began, cpu_us(server.pid) - own
        self.stub.reset()
        began = now_us()
        order(server, job, "Ready")
        seen = self.stub.until(lambda s: s["functions"].get("f", {}).get("calls", 0) > 0)
        self.finish(kind, job)
        if kind == "gz":
            self.packed.seek(0)
            floor = gunzip_us(self.packed)
        else:
            floor = None
        return {"confirmed_ms": (seen["functions"]["f"]["first_us"] - began) / 1e3, "checked_s": checked, "checked_own_us": own, "gunzip_us": floor, "fsyncs": server.syncs.count() - syncs, "audited": True}

    def early(self, kind):
        server, syncs = self.working, self.working.syncs.count()
        self.stub.reset()
        began = now_us()
        job = create_job(server, "f", kind, self.etags[kind], inventory=kind == "gz", tags=[("longshore:start", "while-preparing")])
        seen = self.stub.until(lambda s: s["functions"].get("f", {}).get("calls", 0) > 0)
        self.finish(kind, job)
        return {"first_ms": (seen["functions"]["f"]["first_us"] - began) / 1e3, "fsyncs": server.syncs.count() - syncs, "audited": True}


class Scaled(Scenario):
    """More environments."""

    name = "environments"
    settings = """P17: our Python client, a handler that sleeps 10 ms, 1, 16 and 64 environments. P18: a trivial handler with the same client at 1, 4, 16, 64
        and 256 environments. `environments_max = concurrency_initial = concurrency_max`; sandbox on; memory for all."""
    lies = """A job of slow calls before it starts all environments, which are counted, so that no start is in the window. The figures are of whole jobs, the report with them.
        One environment serves at most 99 calls of 10 ms a second, however fast the host."""
    measures = [
        Measure("P17", "calls/s of a handler that waits 10 ms, 16 environments over 1", ">=", 14.5, 15.7, lambda r: r["waits 16"]["tasks_per_s"] / r["waits 1"]["tasks_per_s"], "waits 16"),
        Measure("P17", "the same, 64 over 1", ">=", 52, 61, lambda r: r["waits 64"]["tasks_per_s"] / r["waits 1"]["tasks_per_s"], "waits 64"),
        *[Measure("P18", f"calls/s of a trivial handler, {n} environments over the best of 1 to 16", ">=", 0.85, 0.97,
                  (lambda n: lambda r: r[f"trivial {n}"]["tasks_per_s"] / max(r[f"trivial {k}"]["tasks_per_s"] for k in (1, 4, 16)))(n), f"trivial {n}") for n in (64, 256)],
    ]

    def round(self, number, readings):
        if self.wants("P17"):
            for n, count in ((1, 300), (16, 4_800), (64, 19_200)):
                optional(readings, f"waits {n}", lambda: self.ours(n, count, WAITS))
        if self.wants("P18"):
            for n in (1, 4, 16, 64, 256):
                optional(readings, f"trivial {n}", lambda: self.ours(n, 25_000, WARMED))

    def ours(self, n, count, handler):
        rows = Rows(self.rows(count, count // 3))
        settings = jobs(concurrency_initial=n, concurrency_max=n) + f"[functions]\nenvironments_max = {n}\nmemory_max_mib = 65536\n" + interpreters()
        with Workplace() as work, Server(work, settings, self.a.binary) as server:
            server.deploy("f", *package("own", handler))
            warm_up(server, "f", n)
            return run_job(server, "f", "m.csv", rows.put(server, "m.csv"), rows)


class Many(Stubbed):
    """Fifty jobs at once."""

    name = "fifty jobs"
    JOBS = 50
    # What calls take until each of the jobs has begun.
    HELD_US = 400_000
    settings = "Calls of 1 ms; `active_max = 50`, `concurrency_total_max = 64`, `concurrency_initial = concurrency_max = 64`; 50 jobs of 1,200 rows, and one of 60,000."
    lies = """All manifests are checked before, and calls take 400 ms until each job has made one; the window is from then, when those have ended, to the first
        job's last call, so that all fifty run in all of it. Fairness is the fewest calls of a job in it over the most."""
    measures = [
        Measure("P19", "calls/s of 50 jobs at once over one job's", ">=", 0.85, 0.97, lambda r: r["fifty"]["tasks_per_s"] / r["one"]["tasks_per_s"], "fifty"),
        Measure("P19", "slowest over fastest of the fifty", ">=", 0.7, 0.9, lambda r: r["fifty"]["fairness"], "fifty"),
    ]

    def round(self, number, readings):
        optional(readings, "one", lambda: self.ran(1, self.rows(60_000, 50_000)))
        optional(readings, "fifty", lambda: self.ran(self.JOBS, self.rows(60_000, 50_000) // self.JOBS))

    def ran(self, count, each):
        settings = jobs(active_max=50, preparing_max=4, concurrency_total_max=64, concurrency_initial=64, concurrency_max=64)
        with Workplace() as work, self.server(work, settings) as server:
            self.stub.reset(delay_us=self.HELD_US)
            rows = Rows(each)
            etag = rows.put(server, "m.csv")
            ids = [create_job(server, f"f{n}", "m.csv", etag, confirm=True) for n in range(count)]
            for job in ids:
                wait(server, job, ("Suspended",), every=0.02)
            wire = measure.Wire(server)
            for job in ids:
                wire.send("POST", f"/v20180820/jobs/{job}/status?requestedJobStatus=Ready")
            self.stub.until(lambda s: len(s["functions"]) == count, every=0.02)
            begin = now_us() + self.HELD_US + 100_000
            self.stub.reset(delay_us=1_000)
            for job in reversed(ids):
                wait(server, job, every=0.1)
            for job in ids:
                audit(server, job, rows, marked=True)
            end = min(self.stub.function(f"f{n}")["last_us"] for n in range(count))
            shares = [started_between(self.stub.bins(f"f{n}"), begin, end) for n in range(count)]
            assert end > begin + 200_000, f"a job was over {(end - begin) / 1e3:.0f} ms after all had begun: too few rows"
            return {"tasks": count * each, "tasks_per_s": sum(shares) / (end - begin) * 1e6, "fairness": min(shares) / max(shares),
                    "together_ms": (end - begin) / 1e3, "fsyncs": server.syncs.count(), "audited": True}


class Kept(Stubbed):
    """What a finished job and a call under way cost in memory. An idle job's cost is measured with ListJobs."""

    name = "memory of what is kept"
    settings = "1,000 jobs of one row that have ended; 1,000 calls of 2 s in flight (`concurrency_max = 1000`) beside 1."
    lies = "The growth of VmRSS, divided; the allocator keeps what it was given, so the first of a kind are run before."
    measures = [
        Measure("P15", "memory of a finished job", "<=", 8, 2, lambda r: r["finished"]["kib"], "finished", "KiB"),
        Measure("P15", "memory of a call under way", "<=", 16, 4, lambda r: r["in flight"]["kib"], "in flight", "KiB"),
    ]

    def round(self, number, readings):
        optional(readings, "finished", self.finished)
        optional(readings, "in flight", self.in_flight)

    def finished(self):
        count, rows = self.rows(1_000, 300), Rows(1)
        with Workplace() as work, self.server(work, jobs(active_max=16, preparing_max=4)) as server:
            self.stub.reset()
            etag = rows.put(server, "m.csv")
            wire = measure.Wire(server)

            def all_of(n):
                ids = create_jobs(server, "f", "m.csv", etag, n, report=True)
                for job in ids:
                    wait(server, job, ("Suspended",), every=0.02)
                    wire.send("POST", f"/v20180820/jobs/{job}/status?requestedJobStatus=Ready")
                for job in ids:
                    wait(server, job, every=0.02)
                return ids

            first = all_of(200)
            before = status_kib(server.pid, "VmRSS")
            # Other tokens than the first ones': the server is asked for jobs of its own.
            ids = [create_job(server, "f", "m.csv", etag, confirm=False) for _ in range(count)]
            for job in ids:
                wait(server, job, every=0.02)
            kib = (status_kib(server.pid, "VmRSS") - before) / count
            audit(server, first[-1], rows, marked=True)
            audit(server, ids[-1], rows, marked=True)
            return {"kib": kib, "fsyncs": server.syncs.count(), "audited": True}

    def in_flight(self):
        with Workplace() as work, self.server(work, jobs(concurrency_total_max=1_000, concurrency_initial=1_000, concurrency_max=1_000)) as server:
            one, many = Rows(1), Rows(1_000)
            etags = [one.put(server, "one.csv"), many.put(server, "many.csv")]
            self.stub.reset(delay_us=2_000_000)
            held = []
            for key, etag, rows in zip(("one.csv", "many.csv"), etags, (one, many)):
                before = self.stub.calls("f")
                job = create_job(server, "f", key, etag)
                self.stub.until(lambda s: s["functions"].get("f", {}).get("calls", 0) >= before + rows.count)
                held.append(status_kib(server.pid, "VmRSS"))
                wait(server, job)
                audit(server, job, rows, marked=True)
            return {"kib": (held[1] - held[0]) / 999, "fsyncs": server.syncs.count(), "audited": True}
