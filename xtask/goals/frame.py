"""What a goal is, and how it is judged: rounds, ratios within a round, medians over rounds, must and aim."""

import dataclasses, json, math, shutil, statistics, subprocess, sys, tempfile, time, traceback


class Missing(Exception):
    """Something outside of the project that a measurement needs is not there: it is skipped, and said so."""


@dataclasses.dataclass
class Measure:
    """One gate of a goal: a number made of the readings of one round.

    `value` may be a list, of all trials of a round. `sense` is "<=" or ">=": how the number stands to `must` (the gate) and `aim`. `over` makes one number of those of all rounds.
    `of` names the reading whose fsyncs stand beside it. A gate without `must` is shown and holds nothing.
    """

    goal: str
    what: str
    sense: str
    must: float | None
    aim: float | None
    value: object
    of: str = ""
    unit: str = "×"
    over: object = statistics.median

    def holds(self, number, bound):
        return number <= bound if self.sense == "<=" else number >= bound


class Scenario:
    """Measurements that share a run. `round` makes the readings of one round, a dictionary of dictionaries by name."""

    name, settings, lies, measures = "", "", "", []

    def __init__(self, a, goals):
        """`goals` are those wanted: what only others need may be left out."""
        self.a, self.goals = a, goals

    def wants(self, *goals):
        return any(goal in self.goals for goal in goals)

    def rows(self, count, least=1_000):
        return max(least, int(count * self.a.scale))

    def begin(self):
        """Once, before the first round. Raises Missing."""

    def round(self, number):
        raise NotImplementedError

    def close(self, kept):
        """Once, after the last round, if there was one: an audit of all of them, whose failure takes every figure back."""

    def end(self):
        """Once, in the end, also after a failure."""


class Workplace:
    """A folder that goes away with the `with` block."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="longshore-goals-")
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


def optional(readings, name, measure):
    """Takes a reading. One that fails costs itself, and not the round."""
    try:
        readings[name] = measure()
    except Missing:
        raise
    except Exception as error:
        readings[name] = {"error": f"{type(error).__name__}: {error}"[:400]}
        print(f"  {name}: NOT COUNTED: {readings[name]['error']}", file=sys.stderr, flush=True)
        traceback.print_exc(limit=-3)


def run(scenario, rounds):
    """All rounds of a scenario. Returns what is written as JSON."""
    print(f"== {scenario.name}: {' '.join(sorted(scenario.goals, key=order))}", file=sys.stderr, flush=True)
    began, kept, skipped, failures = time.monotonic(), [], None, []
    try:
        scenario.begin()
        for number in range(rounds):
            readings = {}
            try:
                scenario.round(number, readings)
            except Missing:
                raise
            except Exception as error:
                readings["round"] = {"error": f"{type(error).__name__}: {error}"[:2_000]}
                traceback.print_exc()
            kept.append(readings)
            failures += [f"round {number}, {name}: {reading['error']}" for name, reading in readings.items() if "error" in reading]
            for name, reading in readings.items():
                print(json.dumps({"round": number, "what": name, **tidy(reading)}), file=sys.stderr, flush=True)
        if kept:
            scenario.close(kept)
    except Missing as missing:
        skipped = str(missing)
        print(f"SKIPPED: {scenario.name}: {skipped}", file=sys.stderr, flush=True)
    except Exception as error:
        kept = []
        failures.append(f"{type(error).__name__}: {error}"[:2_000])
        traceback.print_exc()
    finally:
        scenario.end()
    print(f"== {scenario.name} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return {"scenario": scenario.name, "settings": scenario.settings, "notes": scenario.lies, "skipped": skipped, "failures": failures, "rounds": kept,
            "seconds": round(time.monotonic() - began, 1),
            "measures": [judged(measure, kept) for measure in scenario.measures if measure.goal in scenario.goals]}


def tidy(reading):
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in reading.items()
            if not isinstance(value, (list, dict)) or len(value) < 40}


def judged(measure, rounds):
    """The verdict on one gate. `numbers` are those of the rounds that count."""
    numbers, fsyncs, counted = [], [], 0
    for readings in rounds:
        try:
            made = measure.value(readings)
            made = [n for n in (made if isinstance(made, list) else [made]) if n is not None and math.isfinite(n)]
            numbers += made
            counted += bool(made)
            fsyncs.append(readings.get(measure.of, {}).get("fsyncs"))
        except (KeyError, ZeroDivisionError, TypeError, ValueError):
            pass
    got = measure.over(numbers) if numbers else None
    verdict = lambda bound: None if got is None or bound is None else measure.holds(got, bound)
    fsyncs = [count for count in fsyncs if count is not None]
    return {"goal": measure.goal, "what": measure.what, "sense": measure.sense, "unit": measure.unit, "must": measure.must,
            "aim": measure.aim, "measured": got, "rounds": counted, "least": min(numbers, default=None),
            "most": max(numbers, default=None), "holds": verdict(measure.must), "reaches_aim": verdict(measure.aim),
            "fsyncs": statistics.median(fsyncs) if fsyncs else None}


def order(goal):
    """P2 comes before P11, and what is no number last."""
    digits = "".join(c for c in goal if c.isdigit())
    return (0, int(digits), goal) if goal.startswith("P") and digits else (1, 0, goal)


def number(value, unit=""):
    if value is None:
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
    return f"{text} {unit}".strip() if unit else text


SIGNS = {"<=": "≤", ">=": "≥"}


def how_far(m):
    """How badly a gate is missed, as a factor: 1 holds exactly."""
    if m["measured"] is None or m["must"] is None:
        return 0.0
    if m["must"] == 0:
        return math.inf if m["measured"] > 0 else 0.0
    ratio = m["measured"] / m["must"]
    return ratio if m["sense"] == "<=" else (1 / ratio if ratio else math.inf)


def table(told, machine):
    """The Markdown: the goals, then what stands behind each figure."""
    lines = [machine, "", "| goal | what | must | aim | measured (least to most) | rounds | holds | aim | fsyncs |",
             "|---|---|---|---|---|---|---|---|---|"]
    measures = sorted((m for s in told for m in s["measures"]), key=lambda m: order(m["goal"]))
    said = {True: "yes", False: "**no**", None: "–"}
    for m in measures:
        sign, unit = SIGNS[m["sense"]], m["unit"]
        bound = lambda value: f"{sign} {number(value, unit)}" if value is not None else ""
        spread = f"{number(m['measured'], unit)} ({number(m['least'])} to {number(m['most'])})" if m["rounds"] > 1 else \
            number(m["measured"], unit)
        lines.append(f"| {m['goal']} | {m['what']} | {bound(m['must'])} | {bound(m['aim'])} | {spread} | {m['rounds']} "
                     f"| {said[m['holds']]} | {said[m['reaches_aim']]} | {number(m['fsyncs'])} |")
    lines += ["", "How each was taken, and what would make it a lie:", ""]
    for s in told:
        goals = ", ".join(sorted({m["goal"] for m in s["measures"]}, key=order))
        skipped = f" **Skipped: {s['skipped']}**" if s["skipped"] else ""
        failed = f" **{len(s['failures'])} readings do not count, {s['failures'][0]!r} the first**" if s["failures"] else ""
        lines.append(f"- **{s['scenario']}** ({goals}). {' '.join(s['settings'].split())} {' '.join(s['notes'].split())}{skipped}{failed}")
    return "\n".join(lines) + "\n"


def misses(told):
    """The gates that do not hold, the worst first."""
    measures = [m for s in told for m in s["measures"] if m["holds"] is False]
    return sorted(measures, key=how_far, reverse=True)


def output(command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", **more)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout[-800:]}{done.stderr[-800:]}")
    return done.stdout
