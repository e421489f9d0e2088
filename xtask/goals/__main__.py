"""Measures the goals of docs/performance.md on this machine: each in one interleaved run, medians of the ratios within a round,
beside its must and its aim. A figure counts only if the audit passed on that very run.

    cargo xtask goals [P1 P5 ...] [--rounds 5] [--binary PATH] [--bench DIR] [--json FILE] [--table FILE] [--docs]

--bench names a folder with the sources of the floors and of the peers' scripts; they are compiled into target/bench, the peers'
packages go into virtual environments there. What needs it is skipped without it, and so said. Everything runs on the loopback
interface and in folders of its own; nothing else should run beside it.
"""

import argparse, json, os, platform, re, signal, sys, time

import measure

from . import cold, control, frame, invocation, pieces, shape

# By importance: a run that is cut has the foremost.
SCENARIOS = [
    invocation.Remote, invocation.Hosted, pieces.Engine, control.Stop, control.Stall, control.Crash, shape.Grown, shape.Scaled,
    control.Throttle, control.Share, control.Limit, shape.First, control.Asked, shape.Many, cold.Starts, cold.Ready, cold.Dying,
    shape.Kept, invocation.Emulator,
]


def machine():
    with open("/proc/cpuinfo") as f:
        found = re.search(r"model name\s*:\s*(.*)", f.read())
    with open("/proc/meminfo") as f:
        memory = int(re.search(r"MemTotal:\s+(\d+)", f.read()).group(1)) / 1024 / 1024
    return (f"{time.strftime('%Y-%m-%d')}: {os.cpu_count()} CPUs ({found.group(1) if found else platform.machine()}), {memory:.0f} GiB, "
            f"Linux {platform.release()}, load average {os.getloadavg()[0]:.1f} at the start.")


def document(text):
    """Puts the table between its two lines in docs/performance.md."""
    path = os.path.join(measure.ROOT, "docs/performance.md")
    page = measure.content(path).decode()
    begin, end = re.search(r"<!-- goals: .* -->\n", page).end(), page.index("<!-- goals end -->")
    with open(path, "w") as f:
        f.write(page[:begin] + text + page[end:])


def main():
    known = sorted({m.goal for s in SCENARIOS for m in s.measures}, key=frame.order)
    ap = argparse.ArgumentParser(prog="cargo xtask goals", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("goals", nargs="*", metavar="GOAL", help=f"of {' '.join(known)}; all of them, if none is named")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--scale", type=float, default=1.0, help="a part of the rows, for a look that is no figure")
    ap.add_argument("--binary", default=measure.BINARY, help="another build, to compare with")
    ap.add_argument("--bench", default="", metavar="DIR")
    ap.add_argument("--engine", default="", help="another build of the example manifest_scale")
    ap.add_argument("--json", default="", help="write all readings there")
    ap.add_argument("--table", default="", help="write the table there, besides printing it")
    ap.add_argument("--docs", action="store_true", help="write the table into docs/performance.md, too")
    ap.add_argument("--perf", default="", metavar="DIR", help="write a profile of the server in each job there; its figures are none")
    ap.add_argument("--minutes", type=float, default=0, help="begin nothing new after so many minutes")
    a = ap.parse_args()
    if a.docs and (a.perf or a.scale != 1 or a.goals):
        ap.error("--docs is for a whole run: without goals, --scale and --perf")
    unknown = [goal for goal in a.goals if goal not in known]
    if unknown:
        ap.error(f"{' '.join(unknown)}: not among {' '.join(known)}")
    if a.perf:
        os.makedirs(a.perf, exist_ok=True)
        measure.PROFILES = os.path.abspath(a.perf)
    a.bench, a.binary = a.bench and os.path.abspath(a.bench), os.path.abspath(a.binary)
    # Servers and stubs that were started are ended however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    wanted, about, told, began = set(a.goals or known), machine(), [], time.monotonic()
    print(about, file=sys.stderr)
    for scenario in SCENARIOS:
        goals = {m.goal for m in scenario.measures} & wanted
        if not goals:
            continue
        if a.minutes and time.monotonic() - began > a.minutes * 60:
            print(f"SKIPPED: {scenario.name}: {a.minutes:g} minutes are over", file=sys.stderr)
            continue
        told.append(frame.run(scenario(a, goals), a.rounds))
        if a.json:
            with open(a.json, "w") as f:
                json.dump({"machine": about, "rounds": a.rounds, "scale": a.scale, "scenarios": told}, f, indent=1)
    text = frame.table(told, about)
    print(text)
    if a.table:
        with open(a.table, "w") as f:
            f.write(text)
    if a.docs:
        document(text)
    missed = frame.misses(told)
    if missed:
        print("missed, the worst first: " + "; ".join(f"{m['goal']} {m['what']}: {frame.number(m['measured'], m['unit'])}" for m in missed))
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    # A gate that is missed is a figure; a reading that does not count is none.
    return 1 if any(s["failures"] for s in told) else 0


if __name__ == "__main__":
    sys.exit(main())
