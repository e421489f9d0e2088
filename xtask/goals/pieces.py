"""The engine without a wire: a job inside one process with a function that does nothing, beside floors taken in the same process
image. P14, P20 to P23, and the engine over a bare append + fdatasync (E1)."""

import os, re, subprocess

import measure
from measure import ROOT, Syncs

from .frame import Measure, Missing, Scenario, Workplace, optional, output

PATH = os.path.join(ROOT, "target/release/examples/manifest_scale")


# As the server tells its own allocator (crates/sandbox/src/sys.rs, bound_the_allocator).
ALLOCATOR = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": f"{384 << 10}", "MALLOC_TRIM_THRESHOLD_": f"{768 << 10}"}


class Engine(Scenario):
    name = "engine alone"
    settings = """`manifest_scale`: the engine in a process of its own, its store a real folder, manifest made row by row in memory, a function inside the
        process that answers at once; first settings (the ramp-up from 8 is in it); report on. 10 M rows, 10 k rows for the memory, and 1 M
        rows with syncs and with syncs that do nothing, for P23 and E1."""
    lies = """Floors are of the same rows in the same image: splitting, decoding and checking by hand on one thread (P21), MD5 of the report's bytes (P22), the frames
        of the job's log appended and synced once more (E1), and that with the work without which there is nothing to append, done by the
        same functions of `core` on one thread.
        The process bounds its allocator as the server does for itself. What the making of the manifest costs is measured apart and taken off.
        P23's "without" skips fsync and fdatasync and still writes; the difference of CPU is small beside the noise of a run. The
        report's files are read back and every row is looked for once."""
    measures = [
        Measure("P20", "CPU a task in the 9th million over the 1st", "<=", 1.10, 1.02, lambda r: r["10 M"]["million_9_over_1"], "10 M"),
        Measure("P21", "manifest stage, CPU a row over the hand floor", "<=", 2.5, 1.4, lambda r: (r["10 M"]["prepare_cpu_ns_row"] - r["10 M"]["source_ns_row"]) / r["10 M"]["hand_ns_row"], "10 M"),
        Measure("P21", "the same in ns, against the 53 ns that the goal was set by", "<=", 132, 74, lambda r: r["10 M"]["prepare_cpu_ns_row"] - r["10 M"]["source_ns_row"], "10 M", "ns"),
        Measure("P22", "completion report, CPU a row over MD5 alone", "<=", 2, 1.25, lambda r: r["10 M"]["report_cpu_ns_row"] / r["10 M"]["md5_ns_row"], "10 M"),
        Measure("P23", "tasks/s with syncs over without", ">=", 0.95, 0.99, lambda r: r["without"]["run_s"] / r["with"]["run_s"], "with"),
        Measure("P23", "CPU a task for them", "<=", 0.5, 0.2, lambda r: r["with"]["run_cpu_us_task"] - r["without"]["run_cpu_us_task"], "with", "µs"),
        Measure("P14", "the engine alone: peak memory, 10 M rows over 10 k rows", "<=", 1.25, 1.05, lambda r: r["10 M"]["peak_kib"] / r["10 k"]["peak_kib"], "10 M"),
        Measure("E1", "results/s over a bare append + fdatasync of the same bytes", ">=", 0.5, 0.8, lambda r: r["with"]["bare_s"] / r["with"]["run_s"], "with"),
        Measure("E1", "the same with what each task needs before it: row, event, answer, entry, on one thread", ">=", 0.5, 0.8, lambda r: r["with"]["needed_s"] / r["with"]["run_s"], "with"),
        Measure("E1", "tasks/s, no-op function", ">=", None, None, lambda r: r["10 M"]["rows"] / r["10 M"]["run_s"], "10 M", "/s"),
    ]

    def begin(self):
        self.program = self.a.engine or PATH
        if not self.a.engine:
            subprocess.check_call(["cargo", "build", "--release", "--package", "longshore-jobs", "--example", "manifest_scale"], cwd=ROOT)
        if not os.path.exists(self.program):
            raise Missing(self.program)

    def round(self, number, readings):
        if self.wants("P20", "P21", "P22", "E1", "P14"):
            optional(readings, "10 M", lambda: self.one(self.rows(10_000_000, 100_000), "--floors"))
        if self.wants("P14"):
            optional(readings, "10 k", lambda: self.one(10_000))
        if self.wants("P23", "E1"):
            # In turn, so that neither always comes after the other.
            for name in ("with", "without") if number % 2 == 0 else ("without", "with"):
                optional(readings, name, lambda: self.one(self.rows(1_000_000, 100_000), "--bare", name == "without"))

    def one(self, rows, beside=None, skip=False):
        """Runs a job, and `beside` it the floors, or a bare append with as many syncs. With `skip` syncs do nothing."""
        with Workplace() as work:
            syncs, folder = Syncs(work), os.path.join(work, "engine")
            if skip:
                if not syncs.page:
                    raise Missing("a C compiler, to skip syncs")
                syncs.skip(True)
            environment = measure.plain() | {"TMPDIR": work} | ALLOCATOR
            os.mkdir(folder)
            got = {"rows": rows}
            got |= self.figures(["--one", str(rows), folder], environment | syncs.environment)
            got["fsyncs"] = syncs.count()
            if beside and not skip:
                got |= {name: value for name, value in self.figures([beside, folder], environment).items() if name != "fsyncs"}
            reported(os.path.join(folder, "kept"), rows)
            return got | {"audited": True}

    def figures(self, arguments, environment):
        told = output([self.program, *arguments], env=environment)
        return {name: float(value) for name, value in re.findall(r"^(\w+) ([\d.]+)$", told, re.M)}


def reported(folder, rows):
    """Every row of the manifest stands once in the report's files, and succeeded."""
    seen, good = bytearray(rows), 0
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as f:
            rest = b""
            while piece := f.read(1 << 22):
                piece = rest + piece
                cut = piece.rfind(b"\n") + 1
                piece, rest = piece[:cut], piece[cut:]
                good += piece.count(b",succeeded,")
                for n in re.findall(rb"/part-(\d{10})", piece):
                    seen[int(n)] += 1
            if rest:
                raise measure.NotCounted(f"{name} does not end with a line")
    if good != rows or seen.count(1) != rows:
        raise measure.NotCounted(f"the report has {good} rows that succeeded, {seen.count(1)} of {rows} once")
