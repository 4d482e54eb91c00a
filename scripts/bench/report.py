#!/usr/bin/env python3
"""report.py - from the results of the bench to tables and plots

    report.py RESULTS_FOLDER ROWS [--write DOCS_FOLDER]

Reads results.tsv and machine.tsv of the folder, and the table of rows. Prints a summary; with --write it
makes DOCS/BENCHMARKS.md and DOCS/bench/*.svg (gnuplot). Nothing but Python's standard library.
"""

import collections
import os
import re
import statistics
import subprocess
import sys

PEERS = ["haproxy", "nginx"]
TITLES = {
    "direct": "direct",
    "haproxy": "HAProxy",
    "nginx": "nginx",
    "shunt": "shunt",
    "shunt-kernel": "shunt, kernel",
    "shunt-relay": "shunt, relay",
}
COLOURS = {
    "direct": "#9e9e9e",
    "haproxy": "#4e79a7",
    "nginx": "#59a14f",
    "shunt": "#e15759",
    "shunt-kernel": "#f28e2b",
    "shunt-relay": "#b07aa1",
}
# metric: (heading, unit divisor, digits, larger is better)
METRICS = {
    "mbit": ("Gbit/s", 1000, 2, True),
    "then_mbit": ("Gbit/s then", 1000, 2, True),
    "then_others_mbit": ("downloads, Gbit/s", 1000, 2, True),
    "per_s": ("1000/s", 1000, 1, True),
    "then_per_s": ("1000/s then", 1000, 1, True),
    "p50_us": ("p50 µs", 1, 0, False),
    "p99_us": ("p99 µs", 1, 0, False),
    "p999_us": ("p99.9 µs", 1, 0, False),
    "then_p50_us": ("p50 µs then", 1, 0, False),
    "then_p99_us": ("p99 µs then", 1, 0, False),
    "then_p999_us": ("p99.9 µs then", 1, 0, False),
    "peak_mb": ("peak memory MB", 1, 0, False),
    "then_peak_mb": ("memory growth MB", 1, 0, False),
    "rss_mb": ("daemon MB", 1, 1, False),
    "switches_gb": ("switches/GB", 1, 0, False),
    "kernel_pct": ("kernel %", 1, 0, True),
    "session_bytes": ("daemon, bytes/session", 1, 0, False),
    "machine_session_bytes": ("machine, bytes/session", 1, 0, False),
    "pss_mb": ("daemon MB", 1, 1, False),
    "idle_switches_s": ("switches/s", 1, 0, False),
    "calls": ("calls/session", 1, 2, False),
}
# section of the rows: title, text, further columns, what is plotted ("" = the rows' metric; None = nothing)
SECTIONS = {
    "bulk": ("Downloads and uploads: TSO, cubic", "Segments of up to 64 KB cross the wires, as on hosts with offloads.",
             ["peak_mb", "rss_mb", "switches_gb", "kernel_pct"], ""),
    "mtu": ("Downloads and uploads: packets of 1500 bytes",
            "TSO and GSO are off, GRO is on: each packet crosses the wires alone.",
            ["peak_mb", "rss_mb", "switches_gb", "kernel_pct"], ""),
    "bbr": ("Downloads and uploads: BBR", "As the first table, but every host paces with BBR.",
            ["peak_mb", "rss_mb", "switches_gb", "kernel_pct"], ""),
    "echo": ("Round trips", "One message on its way for each connection; the server sends back what came.",
             ["per_s", "p50_us", "p99_us", "p999_us", "peak_mb", "kernel_pct"], ""),
    "connect": ("Short connections", "Connect, 32 bytes there, 32 back, close; 16 at a time. The orderly close ends when both FINs have "
                "arrived. p50 and p99 are of the whole life of a connection.",
                ["p50_us", "p99_us", "peak_mb", "rss_mb"], ""),
    "load": ("What others notice", "The same echo flows alone (first window), then beside the load that the row names (\"then\").",
             ["p99_us", "then_p99_us", "then_p999_us", "then_others_mbit", "peak_mb", "then_peak_mb", "kernel_pct"], None),
    "stop": ("The daemon is stopped", "First window: running. Then the balancer's processes get SIGSTOP. 0 is no mistake: "
             "who moves bytes in userspace moves none.", ["then_p99_us", "switches_gb", "kernel_pct"], None),
    "idle": ("Idle connections", "Proportional memory (Pss) of all the balancer's processes, after less before, by session; "
             "and of the whole machine, whose kernel keeps four sockets for a session: the client's, two of the balancer, the server's.",
             ["pss_mb", "machine_session_bytes", "idle_switches_s"], None),
    "syscalls": ("System calls of a short session", "strace -c -f of the daemon during short sessions in orderly close, divided by them.",
                 [], None),
}

Row = collections.namedtuple("Row", "name section net how load metric targets title")


def read_rows(path):
    rows = []
    for line in open(path, encoding="utf-8"):
        fields = [f.strip() for f in line.split("|")]
        if not line.startswith("#") and len(fields) == 8:
            rows.append(Row(*fields))
    return rows


def parse_line(text):
    values = {}
    status, _, rest = text.partition(" ")
    values["status"] = status.removeprefix("status=")
    if values["status"] != "ok":
        values["reason"] = rest.removeprefix("reason=")
        return values
    for word in rest.split():
        name, _, value = word.partition("=")
        try:
            values[name] = float(value)
        except ValueError:
            values[name] = value
    gb = values.get("bytes", 0) / 1e9
    if gb and values.get("switches") is not None:
        values["switches_gb"] = values["switches"] / gb
    moved = values.get("kernel_bytes", 0) + values.get("user_bytes", 0)
    if moved:
        values["kernel_pct"] = 100 * values["kernel_bytes"] / moved
    return values


class Results:
    """results[row][contender] = {round: values}"""

    def __init__(self, folder):
        self.runs = collections.defaultdict(lambda: collections.defaultdict(dict))
        for line in open(os.path.join(folder, "results.tsv"), encoding="utf-8"):
            round_, row, contender, text = line.rstrip("\n").split("\t", 3)
            self.runs[row][contender][int(round_)] = parse_line(text)
        self.runs = {row: dict(by_contender) for row, by_contender in self.runs.items()}
        self.machine, self.notes = {}, []
        for line in open(os.path.join(folder, "machine.tsv"), encoding="utf-8"):
            name, _, value = line.rstrip("\n").partition("\t")
            if name == "note":
                self.notes.append(value)
            else:
                self.machine[name] = value

    def contenders(self, row):
        return [c for c in TITLES if c in self.runs[row]]

    def rounds(self, row, contender):
        return {n: v for n, v in self.runs[row].get(contender, {}).items() if v["status"] == "ok"}

    def values(self, row, contender, metric):
        return [v[metric] for v in self.rounds(row, contender).values() if metric in v]

    def median(self, row, contender, metric):
        values = self.values(row, contender, metric)
        return statistics.median(values) if values else None

    def best_peer(self, row, metric):
        known = [(self.median(row, p, metric), p) for p in PEERS if p in self.runs[row]]
        known = [k for k in known if k[0] is not None]
        if not known:
            return None
        return (max if METRICS[metric][3] else min)(known)[1]

    def ratio(self, row, contender, other, metric):
        """The median of the ratios of the rounds: what both did in turn."""
        mine, theirs = self.rounds(row, contender), self.rounds(row, other)
        ratios = [mine[n][metric] / theirs[n][metric] for n in mine
                  if n in theirs and metric in mine[n] and theirs[n].get(metric)]
        return statistics.median(ratios) if ratios else None

    def ratio_alone(self, row, contender, metric):
        first = metric.removeprefix("then_")
        ratios = [v[metric] / v[first] for v in self.rounds(row, contender).values() if v.get(first) and metric in v]
        return statistics.median(ratios) if ratios else None


# ---- numbers as text ----

def number(value, metric):
    if value is None:
        return "–"
    _, divisor, digits, _ = METRICS[metric]
    text = f"{value / divisor:,.{digits}f}"
    if digits == 0 and 0 < abs(value / divisor) < 10:
        text = f"{value / divisor:.1f}"
    return text


def spread(results, row, contender, metric):
    values = results.values(row, contender, metric)
    if not values:
        return "–"
    text = "**" + number(statistics.median(values), metric) + "**"
    if len(values) > 1:
        text += f" ({number(min(values), metric)} – {number(max(values), metric)})"
    return text


def times(ratio):
    return "–" if ratio is None else f"{ratio:.2f} ×"


def table(head, lines):
    out = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|"]
    out += ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join(out) + "\n"


# ---- targets ----

Verdict = collections.namedtuple("Verdict", "row text got met")


def check_target(results, row, text):
    match = re.fullmatch(r"(\w+) (>=|<=) ([\d.]+)(?: (peer|direct|alone))?", text)
    if not match:
        sys.exit(f"report.py: not a target: {text}")
    metric, op, factor, against = match[1], match[2], float(match[3]), match[4]
    heading = METRICS[metric][0]
    words = {"peer": "the best peer", "direct": "direct", "alone": "alone (or running)"}
    sign = "≥" if op == ">=" else "≤"
    if against is None:
        got = results.median(row.name, "shunt", metric)
        shown = number(got, metric)
        text = f"{heading} {sign} {factor:g}"
    else:
        if against == "peer":
            peer = results.best_peer(row.name, metric)
            got = results.ratio(row.name, "shunt", peer, metric) if peer else None
        elif against == "direct":
            got = results.ratio(row.name, "shunt", "direct", metric)
        else:
            got = results.ratio_alone(row.name, "shunt", metric)
        shown = times(got)
        text = f"{heading} {sign} {factor:g} × {words[against]}"
    met = None if got is None else (got >= factor if op == ">=" else got <= factor)
    return Verdict(row, text, shown, met)


def verdicts(results, rows):
    return [check_target(results, row, t.strip())
            for row in rows if row.targets and "shunt" in results.runs.get(row.name, {})
            for t in row.targets.split(";")]


def verdict_table(found, sections):
    names = {True: "yes", False: "**no**", None: "not measured"}
    return table(["row", "target", "shunt", "met"],
                 [[v.row.title + (f" ({sections[v.row.section][0].split(': ')[-1]})" if v.row.section in ("mtu", "bbr", "stop")
                                  else ""), v.text, v.got, names[v.met]] for v in found])


# ---- tables ----

def row_table(results, row):
    columns = SECTIONS[row.section][2]
    if row.section == "stop": # the first window of the same
        columns = [row.metric.removeprefix("then_")] + columns
    columns = [m for m in columns if m != row.metric and
               any(any(results.values(row.name, c, m)) for c in results.contenders(row.name))]
    head = ["", METRICS[row.metric][0], "× best peer", "× direct"] + [METRICS[m][0] for m in columns]
    if row.metric.startswith("then_"):
        head.insert(4, "× first window")
    lines, peer = [], results.best_peer(row.name, row.metric)
    for c in results.contenders(row.name):
        if not results.rounds(row.name, c):
            reasons = {v.get("reason", v["status"]) for v in results.runs[row.name][c].values()}
            lines.append([TITLES[c], "failed: " + "; ".join(sorted(reasons))] + ["–"] * (len(head) - 2))
            continue
        cells = [TITLES[c], spread(results, row.name, c, row.metric),
                 times(results.ratio(row.name, c, peer, row.metric)) if peer else "–",
                 times(results.ratio(row.name, c, "direct", row.metric))]
        if row.metric.startswith("then_"):
            cells.append(times(results.ratio_alone(row.name, c, row.metric)))
        cells += [number(results.median(row.name, c, m), m) for m in columns]
        lines.append(cells)
    return table(head, lines) + failures(results, row)


def failures(results, row):
    """Rounds that failed of contenders that have others."""
    out = []
    for c in results.contenders(row.name):
        bad = [(n, v) for n, v in results.runs[row.name][c].items() if v["status"] != "ok"]
        if bad and results.rounds(row.name, c):
            out += [f"{TITLES[c]}, round {n}: {v['status']}: {v['reason']}" for n, v in bad]
    return "".join(f"\n- {line}" for line in out) + ("\n" if out else "")


def syscall_table(results, row):
    contenders = [c for c in results.contenders(row.name) if results.rounds(row.name, c)]
    calls = collections.defaultdict(dict)
    for c in contenders:
        for name, value in next(iter(results.rounds(row.name, c).values())).items():
            if name.startswith("sys_") or name == "calls":
                calls[name.removeprefix("sys_")][c] = value
    order = sorted(calls, key=lambda n: (n == "calls", -max(calls[n].values())))
    order = [n for n in order if max(calls[n].values()) >= 0.05]
    lines = [["all" if n == "calls" else f"`{n}`"] + [f"{calls[n].get(c, 0):.2f}" for c in contenders] for n in order]
    return table(["call"] + [TITLES[c] for c in contenders], lines) + failures(results, row)


# ---- plots ----

PLOT = """set terminal svg size {width},380 font "sans-serif,13" background "white"
set output "{out}"
set style fill solid 1.0 noborder
set boxwidth {box}
set xrange [-0.6:{right}]
set yrange [0:*]
set bmargin 3.5
set xtics ({tics}) scale 0
set grid ytics lc rgb "#d0d0d0" lw 0.5 dt solid
set border 1 lc rgb "#606060"
set ytics scale 0
set tics nomirror out textcolor rgb "#303030"
set key outside top center horizontal textcolor rgb "#303030" samplen 1 reverse Left
set ylabel "{label}" textcolor rgb "#303030"
set title "{title}" textcolor rgb "#000000"
{data}
plot {what}
"""


def tic(title):
    """In two lines: the row, and how many connections."""
    what, _, rest = title.partition(", ")
    return f"{what}\\n{rest}"


def plot(results, rows, metric, title, path):
    """Groups of bars, a group for each row and a bar for each contender, with min and max."""
    rows = [r for r in rows if any(results.rounds(r.name, c) for c in results.contenders(r.name))]
    contenders = [c for c in TITLES if any(results.values(r.name, c, metric) for r in rows)]
    if not rows or not contenders:
        return False
    heading, divisor, _, _ = METRICS[metric]
    step = 0.82 / len(contenders)
    blocks, bars, whiskers = [], [], []
    for i, c in enumerate(contenders):
        lines = []
        for group, r in enumerate(rows):
            values = [v / divisor for v in results.values(r.name, c, metric)]
            if values:
                x = group + (i - (len(contenders) - 1) / 2) * step
                lines.append(f"{x:.4f} {statistics.median(values):.4f} {min(values):.4f} {max(values):.4f}")
        blocks.append(f"$data{i} << END\n" + "\n".join(lines) + "\nEND")
        bars.append(f'$data{i} using 1:2 with boxes lc rgb "{COLOURS[c]}" title "{TITLES[c]}"')
        whiskers.append(f'$data{i} using 1:3:(0):($4-$3) with vectors nohead lc rgb "#303030" lw 1 notitle')
    script = PLOT.format(out=path, label=heading, title=title, data="\n".join(blocks), what=", ".join(bars + whiskers),
                         box=f"{step * 0.92:.4f}", right=f"{len(rows) - 0.4:.1f}", width=max(640, 200 + 120 * len(rows)),
                         tics=", ".join(f'"{tic(r.title)}" {i}' for i, r in enumerate(rows)))
    subprocess.run(["gnuplot"], input=script, text=True, check=True)
    return True


def plots(results, rows, folder):
    os.makedirs(folder, exist_ok=True)
    made = collections.defaultdict(list)

    def add(section, name, some, metric, title):
        if plot(results, some, metric, title, os.path.join(folder, name + ".svg")):
            made[section].append((name, title))

    for section, (title, _, _, plotted) in SECTIONS.items():
        if plotted is None:
            continue
        here = [r for r in rows if r.section == section and r.name in results.runs]
        for metric in dict.fromkeys(r.metric for r in here):
            some = [r for r in here if r.metric == metric]
            name = section if metric in ("mbit", "per_s") else f"{section}-{metric.removesuffix('_us')}"
            add(section, name, some, metric, title)
        if section == "bulk":
            add(section, "memory", here, "peak_mb", "Peak memory of the machine in these rows")
        if section == "echo":
            add(section, "echo-p99", [r for r in here if r.metric == "p50_us"], "p99_us", "Round trips, p99")
    return made


# ---- the document ----

RULES = """## Rules

- Every figure here comes from one run, in which the contenders took turns: A B C A B C ... A figure is the
  median of the rounds, with the least and the greatest in parentheses. "×" columns are medians of the
  rounds' own ratios. Absolute figures of another run, or of another machine, cannot be compared with these.
- Bytes are counted by whoever receives them, within the window, after a warm-up. A balancer that buffers
  looks fast to the sender only.
- Before the rounds, each contender moves streams in both directions, and echoes, in which the receiver
  checks every byte ({verified}).
- Three hosts (network namespaces), client – balancer – server, with veth wires. *direct* goes the same way
  through the same balancer, which forwards packets then. One thread plays all clients, one all servers; the
  balancers have two threads or workers.
- *Peak memory* is the machine's available memory before the first connection, less its minimum during the
  run (looked at every 50 ms): socket buffers, kernel queues, pipes, and the client's and server's own, which
  *direct* shows alone. *daemon MB*: the greatest sum of its processes' resident memory.
- *kernel %*: the share of the bytes that the kernel moved, from shunt's own counters. *shunt, kernel* has
  `option splice-request` and `option splice-response`; *shunt, relay* has `no option splice-auto`, and moves
  everything in userspace.
- *switches/GB*: voluntary and other context switches of all the balancer's threads, by GB received.
"""

REPRODUCE = """## Reproduce

    sudo make bench                # all of it: 5 rounds of 3 s, an hour and a half; writes this file
    sudo make bench-quick          # the main rows, two minutes, printed only
    sudo {command}    # this very run
    sudo scripts/bench.sh --rows 'echo' --rounds 9 --contenders haproxy,shunt --no-write
    scripts/bench.sh --help

It installs HAProxy, nginx and its own tools from Debian, builds, and needs nothing else. The rows and their
commands are in [scripts/bench/rows](../scripts/bench/rows), the configurations of the contenders in
[scripts/bench/contenders.sh](../scripts/bench/contenders.sh), the load generator in
[tests/bench](../tests/bench/load.h) (`build/load -h`; `make check-bench` shows that it notices wrong bytes).
The results of each run are lines of `build/bench/results.tsv`.
"""


def verified(results):
    rows = {n: cs for n, cs in results.runs.items() if n.startswith("verify-")}
    bad = [f"{n} {c}: {v['reason']}" for n, cs in rows.items() for c, vs in cs.items() for v in vs.values() if v["status"] != "ok"]
    total = sum(v.get("bytes", 0) for cs in rows.values() for vs in cs.values() for v in vs.values())
    return f"{total / 1e9:.1f} GB in this run; " + ("**" + "; ".join(bad) + "**" if bad else "none was wrong")


def document(results, rows, made):
    m = results.machine
    out = ["# Benchmarks", "",
           "Written by `make bench` (scripts/bench/report.py), not by hand. See [Rules](#rules) for what the words mean.", ""]
    out += [table(["", "measured with"], [["date", m["date"]], ["shunt", m["shunt"]], ["peers", f"{m['haproxy']}, {m['nginx']}"],
                  ["machine", f"{m['cpu']}, {m['memory']}"], ["system", f"{m['system']}, {m['kernel']}"],
                  ["rounds", f"{m['rounds']} of {m['seconds']} s (some rows fewer, see their column in scripts/bench/rows)"]])]
    out += [f"- {note}" for note in results.notes] + [""] * bool(results.notes)
    out += ["## Targets", "", verdict_table(verdicts(results, rows), SECTIONS)]
    for section, (title, text, _, _) in SECTIONS.items():
        here = [r for r in rows if r.section == section and r.name in results.runs]
        if not here:
            continue
        out += [f"## {title}", "", text, ""]
        out += [f"![{t}](bench/{name}.svg)\n" for name, t in made.get(section, [])]
        for row in here:
            out += [f"### {row.title}", "", f"`load {row.load}`", "",
                    syscall_table(results, row) if section == "syscalls" else row_table(results, row)]
    out += [RULES.format(verified=verified(results)), REPRODUCE.format(**m)]
    return "\n".join(out)


def summary(results, rows):
    """For the terminal: a line for each row, a column for each contender."""
    here = [r for r in rows if r.name in results.runs]
    contenders = [c for c in TITLES if any(c in results.runs[r.name] for r in here)]
    print(f"\n{'medians':38}" + "".join(f"{TITLES[c]:>15}" for c in contenders) + "   shunt : best peer")
    for r in here:
        for metric in [r.metric] + [m for m in ("p99_us", "peak_mb") if r.section in ("echo", "bulk") and m != r.metric]:
            if (metric == "p99_us") != (r.section == "echo") and metric != r.metric:
                continue
            name = f"{r.name} {METRICS[metric][0]}"
            cells = []
            for c in contenders:
                ok = results.rounds(r.name, c)
                cells.append(number(results.median(r.name, c, metric), metric) if ok else
                             "failed" if c in results.runs[r.name] else "")
            peer = results.best_peer(r.name, metric)
            ratio = times(results.ratio(r.name, "shunt", peer, metric)) if peer and metric != "peak_mb" else ""
            print(f"{name:38}" + "".join(f"{c:>15}" for c in cells) + f"   {ratio}")
    found = verdicts(results, rows)
    met = sum(1 for v in found if v.met)
    print(f"\ntargets: {met} of {len(found)} met" + ("; not: " if met < len(found) else ""))
    for v in found:
        if not v.met:
            print(f"   {v.row.name}: {v.text}: {v.got}")
    bad = [(n, c, k, v) for n, cs in results.runs.items() for c, vs in cs.items() for k, v in vs.items() if v["status"] != "ok"]
    for name, contender, round_, v in bad:
        print(f"{v['status'].upper()}: {name}, {contender}, round {round_}: {v['reason']}")


def main():
    arguments = sys.argv[1:]
    if len(arguments) not in (2, 4):
        sys.exit(__doc__)
    results, rows = Results(arguments[0]), read_rows(arguments[1])
    summary(results, rows)
    if len(arguments) == 4:
        docs = arguments[3]
        made = plots(results, rows, os.path.join(docs, "bench"))
        with open(os.path.join(docs, "BENCHMARKS.md"), "w", encoding="utf-8") as out:
            out.write(document(results, rows, made))
        print(f"\nwritten: {docs}/BENCHMARKS.md, {docs}/bench/*.svg")


if __name__ == "__main__":
    main()
