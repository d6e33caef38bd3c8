#!/usr/bin/env python3
"""A limit shared through one Redis: what it admits, what it costs the gateways and the store.

Usage: benches/throttle.py [--quick] [--seconds S] [--gateways 1,2,4] [--print] [--chart]

Two designs in one run: Tidegate, which draws budget, and one script call for each request, as it is usually done
(benches/usual.rs). Needs target/release/tidegate and target/release/examples/usual (`make bench-throttle` builds
them), redis-server, redis-cli, h2load and wrk. Everything runs on loopback, on free ports, in a temporary folder
that is removed; what was started is ended. README.md beside this file says what is measured and gets the tables.
"""

import argparse
import collections
import datetime
import itertools
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from chart import OURS, THEIRS, chart, nice
from run import HERE, RELEASE, TICKS, Failed, Ground, ask, free_port, process_tree, run

README = HERE / "README.md"
CHART = HERE / "throttle.svg"
MARKS = ("<!-- throttle: begin -->", "<!-- throttle: end -->")

LIMIT = 300  # a second, of the one hot key: a hundred times that is what two cores can offer
FACTORS = (0.5, 1, 2, 10, 100)
CONNECTIONS = 60  # in all; every gateway gets its part
POOLED_WARM_SECONDS = 12  # a window, in which each key outgrows half its share, and a little
WARM_SECONDS = 5  # a lease, so that free shares are in force, and the first windows
MANY_KEYS = 10_000
MANY_LIMIT = 20  # a second, of each of many keys
MANY_OFFERED = 20_000  # a second, over all of them
HOT_KEYS = 1_000
POOLED_LIMIT = 500  # in ten seconds, of each of the hot keys that are pooled
POOLED_OFFERED = 30_000  # a second, over all of them: three fifths of what they may
PACE_SECONDS = 0.05
PARTITIONS = 16
DESIGNS = ("tidegate", "one call a request")

TIDEGATE = """
threads: 1
listeners: [{{ bind: 127.0.0.1:{port} }}]
admin: {{ bind: 127.0.0.1:{admin} }}
store: {{ redis: {{ urls: ["redis://127.0.0.1:{redis}"] }} }}
access_log: {{ to: {{ file: {name}.access }}, format: json }}
rules: [{name}.rules.yaml]
"""

RULES = """
routes:
  - name: one
    match: {{ path: /one }}
    chain:
      - rate_limit: {{ name: one, key: route, limit: {limit}/s, tolerance: {tolerance} }}
      - respond: {{ status: 200, body: "{body}" }}
  - name: many
    match: {{ path: /many }}
    chain:
      - rate_limit: {{ name: many, key: {{ query: k }}, missing: reject, limit: {many}/s, tolerance: 0 }}
      - respond: {{ status: 200, body: "{body}" }}
  - name: ample
    match: {{ path: /ample }}
    chain:
      - rate_limit: {{ name: ample, key: {{ query: k }}, missing: reject, limit: 1000000/s, tolerance: 0 }}
      - respond: {{ status: 200, body: "{body}" }}
  - name: untold
    match: {{ path: /untold }}
    chain:
      - rate_limit: {{ name: untold, key: {{ query: k }}, missing: reject, limit: 1000000/s, tolerance: 0, headers: false }}
      - respond: {{ status: 200, body: "{body}" }}
  - name: pooled
    match: {{ path: /pooled }}
    chain:
      - rate_limit: {{ name: pooled, key: {{ query: k }}, missing: reject, limit: {pooled}/10s, tolerance: 0 }}
      - respond: {{ status: 200, body: "{body}" }}
  - {{ name: free, match: {{ path: /free }}, chain: [respond: {{ status: 200, body: "{body}" }}] }}
  - name: fields
    match: {{ path: /fields }}
    chain:
      - response_headers:
          set:
            RateLimit-Policy: '"ample";q=1000000;w=1'
            RateLimit: '"ample";r=999999;t=1'
            X-Ratelimit-Limit: "1000000"
            X-Ratelimit-Remaining: "999999"
      - respond: {{ status: 200, body: "{body}" }}
"""


@dataclass
class Gateway:
    port: int
    admin: int
    process: object
    log: object = None

    def cpu_seconds(self):
        return sum(times for _, times in process_tree(self.process.pid)) / TICKS


@dataclass
class Fleet:
    ground: Ground
    design: str
    gateways: list
    redis: int

    def cpu_seconds(self):
        return sum(gateway.cpu_seconds() for gateway in self.gateways)


@dataclass(frozen=True)
class Sample:
    offered: float  # requests a second that were asked for
    answered: float  # and that were answered
    cpu_us: float  # of all gateways, for each request
    calls: float  # of the store, a second
    store_cpu: float  # share of one core
    admitted: float  # a second, as a share of the limit
    worst: float  # most in one window, as a share of the limit


# What stands on the ground


def start_redis(ground):
    port = free_port()
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    ground.start(f"redis-{port}", command + ["--dir", ground.folder], all_cores(), [port])
    return port


def all_cores():
    return os.sched_getaffinity(0)


def start_tidegate(ground, redis, tolerance):
    port, admin, name = free_port(), free_port(), f"gateway-{free_port()}"
    ground.write(f"{name}.yaml", TIDEGATE.format(port=port, admin=admin, redis=redis, name=name))
    rules = RULES.format(limit=LIMIT, many=MANY_LIMIT, pooled=POOLED_LIMIT, tolerance=tolerance, body="u" * 128)
    ground.write(f"{name}.rules.yaml", rules)
    command = [RELEASE / "tidegate", "run", "-c", ground.folder / f"{name}.yaml"]
    process = ground.start(name, command, all_cores(), [port, admin])
    return Gateway(port, admin, process, ground.folder / f"{name}.access")


def start_usual(ground, redis, limit):
    port = free_port()
    command = [RELEASE / "examples" / "usual", f"127.0.0.1:{port}", f"redis://127.0.0.1:{redis}", limit]
    return Gateway(port, 0, ground.start(f"usual-{port}", command, all_cores(), [port]))


def start_fleet(ground, design, count, limit=LIMIT, tolerance=0):
    redis = start_redis(ground)
    if design == "tidegate":
        gateways = [start_tidegate(ground, redis, tolerance) for _ in range(count)]
    else:
        gateways = [start_usual(ground, redis, limit) for _ in range(count)]
    return Fleet(ground, design, gateways, redis)


def stop(fleet):
    for gateway in fleet.gateways:
        # The usual design's Pingora takes its time to stop, and has nothing to finish.
        gateway.process.terminate() if fleet.design == "tidegate" else gateway.process.kill()
    for gateway in fleet.gateways:
        gateway.process.wait(10)


# Load


def h2load(gateway, per_second, seconds, connections, path):
    """Command of a load that asks for one address `per_second` times a second, over HTTP/1.1."""
    each = per_second / connections
    command = ["h2load", "--h1", "-t", 1, "-c", connections, "--rps", f"{each:.3f}", "-D", seconds]
    return command + [f"http://127.0.0.1:{gateway.port}{path}"]


# All connections take their next address from one list, and pause before each so long that they ask as often as they
# are to, were they answered at once. h2load's connections each go through the list, in step: bursts for every key.
MANY_ADDRESSES = """
local list = {{}}
for line in io.lines("{targets}") do list[#list + 1] = line end
local at, pause = {begin}, {pause}
math.randomseed(at)
request = function()
  at = at % #list + 1
  return wrk.format(nil, list[at])
end
delay = function() return math.floor(2 * pause * math.random() + math.random()) end
local loads = {{}}
setup = function(load) table.insert(loads, load) end
init = function() failed = 0 end
response = function(status) if status >= 500 then failed = failed + 1 end end
done = function() for _, load in ipairs(loads) do print("failed: " .. load:get("failed")) end end
"""


def many_addresses(ground, gateway, per_second, seconds, connections, targets):
    """Command of a load that goes through a list of addresses, about `per_second` times a second."""
    pause, begin = 1_000 * connections / per_second, random.randrange(60_000)
    script = ground.write(f"addresses-{gateway.port}.lua", MANY_ADDRESSES.format(targets=targets, begin=begin, pause=pause))
    return ["wrk", "-t", 1, "-c", connections, "-d", f"{seconds}s", "-s", script, f"http://127.0.0.1:{gateway.port}/"]


def answers(text):
    """How many of which status, of what h2load or wrk says; None if it says nothing."""
    if found := re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text):
        return {"2xx": int(found[1]), "4xx": int(found[3]), "5xx": int(found[4])}
    found, failed = re.search(r"(\d+) requests in", text), re.search(r"failed: (\d+)", text)
    if found and failed:
        others = int(other[1]) if (other := re.search(r"Non-2xx or 3xx responses: (\d+)", text)) else 0
        return {"2xx": int(found[1]) - others, "4xx": others - int(failed[1]), "5xx": int(failed[1])}
    return None


def offer(fleet, per_second, seconds, target):
    """Runs the load over all gateways at once and gives the answers by status. The target is a path or a list of them."""
    share = max(1, CONNECTIONS // len(fleet.gateways))
    share = max(1, min(share, int(per_second / len(fleet.gateways))))
    running = []
    for gateway in fleet.gateways:
        load = (gateway, per_second / len(fleet.gateways), seconds, share, target)
        command = h2load(*load) if isinstance(target, str) else many_addresses(fleet.ground, *load)
        command = [str(part) for part in command]
        running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    totals = collections.Counter()
    for process in running:
        try:
            text, _ = process.communicate(timeout=seconds + 20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Failed("the load did not end") from None
        told = answers(text)
        if process.returncode or not told:
            raise Failed(f"the load failed:\n{text[-2000:]}")
        totals.update(told)
    if totals["5xx"]:
        raise Failed(f"{totals['5xx']} answers of 5xx")
    return totals


# Reading


def redis_cli(port, *words):
    return run(["redis-cli", "-p", port, *words])


def store_state(port):
    """Calls of scripts, and seconds of CPU, so far."""
    text = redis_cli(port, "INFO", "all")
    calls = sum(int(count) for count in re.findall(r"cmdstat_(?:evalsha|eval|fcall):calls=(\d+)", text))
    cpu = sum(float(value) for value in re.findall(r"used_cpu_(?:sys|user):([\d.]+)", text))
    return calls, cpu


def store_memory(port):
    return int(re.search(r"used_memory:(\d+)", redis_cli(port, "INFO", "memory"))[1])


def admitted_by_second(fleet, begin, end, path):
    """Admitted requests of each whole second of [begin, end), over all gateways."""
    counts = collections.Counter()
    for gateway in fleet.gateways:
        if fleet.design == "tidegate":
            for line in gateway.log.open():
                entry = json.loads(line)
                if entry["status"] == 200 and entry["path"].startswith(path):
                    counts[int(moment(entry["time"]))] += 1
        else:
            _, _, report = ask(gateway.port, "/admitted")
            for line in report.decode().splitlines():
                second, admitted = line.split()
                counts[int(second)] += int(admitted)
    return [counts[second] for second in range(int(begin) + 1, int(end))]


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def gauge(gateway, name, label):
    _, _, body = ask(gateway.admin, "/metrics")
    found = re.search(rf'^tidegate_{name}{{limit="{label}"}} (\d+)', body.decode(), re.M)
    return int(found[1]) if found else 0


# Measuring


def hot_key(fleet, factor, seconds):
    offered = LIMIT * factor
    calls, store_cpu = store_state(fleet.redis)
    cpu, begin = fleet.cpu_seconds(), time.time()
    totals = offer(fleet, offered, seconds, "/one")
    took = time.time() - begin
    cpu = fleet.cpu_seconds() - cpu
    calls_after, store_cpu_after = store_state(fleet.redis)
    time.sleep(0.3)  # the access log is written by a thread of its own
    windows = admitted_by_second(fleet, begin + 0.2, begin + seconds, "/one")
    answered = sum(totals.values())
    return Sample(
        offered,
        answered / seconds,
        cpu / answered * 1e6,
        (calls_after - calls) / took,
        (store_cpu_after - store_cpu) / took,
        statistics.mean(windows) / min(LIMIT, offered),
        max(windows) / LIMIT,
    )


def hot_key_table(ground, options):
    samples = {}
    for count in options.gateways:
        for design in DESIGNS:
            fleet = start_fleet(ground, design, count)
            offer(fleet, LIMIT / 2, WARM_SECONDS, "/one")
            for factor in FACTORS:
                sample = hot_key(fleet, factor, options.seconds)
                samples[design, count, factor] = sample
                print(f"{design}, {count} gateways, {factor} x: {sample}", flush=True)
            stop(fleet)
    return samples


def zipf_targets(ground, keys, path, exponent=1.0):
    """A file of addresses in which key k comes with weight 1/k."""
    chance = random.Random(7)
    weights = list(itertools.accumulate(1 / (rank**exponent) for rank in range(1, keys + 1)))
    drawn = chance.choices(range(keys), cum_weights=weights, k=60_000)
    return ground.write(f"zipf-{keys}.txt", "".join(f"{path}?k={key}\n" for key in drawn))


def many_keys(ground, design, count, seconds):
    """10,000 keys, some of which ask far more than others: what of it reaches the store?"""
    fleet = start_fleet(ground, design, count, limit=MANY_LIMIT)
    targets = zipf_targets(ground, MANY_KEYS, "/many")
    offer(fleet, MANY_OFFERED, WARM_SECONDS, targets)
    calls, store_cpu = store_state(fleet.redis)
    cpu, begin = fleet.cpu_seconds(), time.time()
    totals = offer(fleet, MANY_OFFERED, seconds, targets)
    took, cpu = time.time() - begin, fleet.cpu_seconds() - cpu
    calls_after, store_cpu_after = store_state(fleet.redis)
    answered = sum(totals.values())
    pooled = max(gauge(gateway, "throttle_hot_keys", "many") for gateway in fleet.gateways) if design == "tidegate" else MANY_KEYS
    stop(fleet)
    return {
        "answered": answered / seconds,
        "cpu_us": cpu / answered * 1e6,
        "calls": (calls_after - calls) / took,
        "per_request": (calls_after - calls) / answered,
        "store_cpu": (store_cpu_after - store_cpu) / took,
        "keys": pooled / MANY_KEYS,
        "admitted": totals["2xx"] / answered,
    }


COLD = """
local number, offset = 0, {offset}
request = function()
  number = number + 1
  return wrk.format(nil, "/many?k=" .. (offset + number))
end
"""


def cold_keys(ground, design, seconds):
    """Every request of a client never seen before, as fast as they come; a million or as many as fit."""
    fleet = start_fleet(ground, design, 1, limit=MANY_LIMIT)
    gateway = fleet.gateways[0]
    time.sleep(WARM_SECONDS)
    script = ground.write("cold.lua", COLD.format(offset=10_000_000))
    memory, resident = store_memory(fleet.redis), resident_bytes(gateway)
    calls, _ = store_state(fleet.redis)
    cpu = fleet.cpu_seconds()
    text = run(["wrk", "-t", 1, "-c", 32, "-d", f"{seconds}s", "-s", script, f"http://127.0.0.1:{gateway.port}/many"], None, seconds + 20)
    cpu = fleet.cpu_seconds() - cpu
    requests = int(re.search(r"(\d+) requests in", text)[1])
    refused = int(found[1]) if (found := re.search(r"Non-2xx or 3xx responses: (\d+)", text)) else 0
    calls_after, _ = store_state(fleet.redis)
    told = {
        "requests": requests,
        "refused": refused,
        "cpu_us": cpu / requests * 1e6,
        "per_request": (calls_after - calls) / requests,
        "store_bytes": (store_memory(fleet.redis) - memory) / requests,
        "resident_mib": (resident_bytes(gateway) - resident) / 2**20,
    }
    stop(fleet)
    return told


def resident_bytes(gateway):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{gateway.process.pid}/status").read())[1]) * 1024


def store_load(ground, seconds):
    """1,000 keys within their free share at rising load: the store must not hear of it."""
    fleet = start_fleet(ground, "tidegate", 1)
    targets = ground.write("hot.txt", "".join(f"/ample?k={key}\n" for key in range(HOT_KEYS)))
    offer(fleet, 5_000, WARM_SECONDS, targets)
    rows = []
    for offered in (1_000, 5_000, 10_000, 20_000, 30_000, 40_000):
        calls, store_cpu = store_state(fleet.redis)
        cpu, begin = fleet.cpu_seconds(), time.time()
        totals = offer(fleet, offered, seconds, targets)
        took, cpu = time.time() - begin, fleet.cpu_seconds() - cpu
        calls_after, store_cpu_after = store_state(fleet.redis)
        answered = sum(totals.values())
        rows.append((offered, answered / seconds, (calls_after - calls) / took, (store_cpu_after - store_cpu) / took, cpu / answered * 1e6))
        print(rows[-1], flush=True)
    stop(fleet)
    return rows


def pooled_keys(ground, count, seconds):
    """1,000 keys that outgrew their free share, so that all of their use is drawn, at rising load."""
    fleet = start_fleet(ground, "tidegate", count)
    chance = random.Random(7)
    drawn = chance.choices(range(HOT_KEYS), k=60_000)
    targets = ground.write("pooled.txt", "".join(f"/pooled?k={key}\n" for key in drawn))
    offer(fleet, POOLED_OFFERED, POOLED_WARM_SECONDS, targets)
    rows = []
    for offered in (POOLED_OFFERED, 40_000, 10_000, 1_000):
        calls, store_cpu = store_state(fleet.redis)
        cpu, begin = fleet.cpu_seconds(), time.time()
        totals = offer(fleet, offered, seconds, targets)
        took, cpu = time.time() - begin, fleet.cpu_seconds() - cpu
        calls_after, store_cpu_after = store_state(fleet.redis)
        answered = sum(totals.values())
        known = max(gauge(gateway, "throttle_hot_keys", "pooled") for gateway in fleet.gateways)
        bound = count * PARTITIONS / PACE_SECONDS
        rows.append((
            count, offered, answered / seconds, known, (calls_after - calls) / took, bound, (store_cpu_after - store_cpu) / took,
            totals["2xx"] / answered, cpu / answered * 1e6,
        ))
        print(rows[-1], flush=True)
    stop(fleet)
    return rows


def price_of_a_limit(ground, rounds, seconds):
    """The same route without a limit, with the fields of one but no limit, with a shared one that allows, and with one
    that clients are not told of: in turn, each turn from another of them."""
    fleet = start_fleet(ground, "tidegate", 1)
    gateway = fleet.gateways[0]
    spent = {path: [] for path in ("/free?k=1", "/fields?k=1", "/ample?k=1", "/untold?k=1")}
    for path in spent:
        wrk(gateway, path, 2)
    for round in range(rounds):
        paths = list(spent)
        for path in paths[round % len(paths):] + paths[:round % len(paths)]:
            cpu = gateway.cpu_seconds()
            requests = wrk(gateway, path, seconds)
            spent[path].append((gateway.cpu_seconds() - cpu) / requests * 1e6)
    stop(fleet)
    return {path: (statistics.median(samples), min(samples), max(samples)) for path, samples in spent.items()}


def wrk(gateway, path, seconds):
    text = run(["wrk", "-t", 1, "-c", 64, "-d", f"{seconds}s", f"http://127.0.0.1:{gateway.port}{path}"], None, seconds + 20)
    if "Non-2xx" in text or "Socket errors" in text:
        raise Failed(f"{path} was not always answered with 200:\n{text}")
    return int(re.search(r"(\d+) requests in", text)[1])


# Telling


def percent(share):
    return f"{share:.1%}"


def tell(samples, many, cold, rising, pooled, price, options):
    lines = [
        f"{datetime.date.today()}. One key, {LIMIT}/s, tolerance 0, sliding window, one Redis; {options.seconds} s for each row, gateways, "
        "store and load on the same cores. Admitted: mean per store second, as a share of what the limit allows of the load; "
        "worst: most in one second.",
        "",
        "| design | gateways | offered | answered/s | CPU us per request | store calls/s | store CPU | admitted | worst |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (design, count, factor), one in samples.items():
        lines.append(
            f"| {design} | {count} | {factor:g} x | {one.answered:,.0f} | {one.cpu_us:.1f} | {one.calls:,.0f} | {percent(one.store_cpu)} "
            f"| {one.admitted:.3f} | {one.worst:.3f} |"
        )
    lines += [
        "",
        f"{MANY_KEYS:,} keys, {MANY_OFFERED:,} requests/s in all, key k asking 1/k as often as the first; {MANY_LIMIT}/s for each.",
        "",
        "| design | gateways | answered/s | CPU us per request | store calls/s | calls per request | store CPU | keys the store knows | admitted |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (design, count), one in many.items():
        lines.append(
            f"| {design} | {count} | {one['answered']:,.0f} | {one['cpu_us']:.1f} | {one['calls']:,.0f} | {one['per_request']:.4f} "
            f"| {percent(one['store_cpu'])} | {percent(one['keys'])} | {percent(one['admitted'])} |"
        )
    lines += [
        "",
        f"Every request of another key, {MANY_LIMIT}/s for each.",
        "",
        "| design | requests | refused | CPU us per request | store calls per request | store bytes per key | gateway memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for design, one in cold.items():
        lines.append(
            f"| {design} | {one['requests']:,} | {one['refused']} | {one['cpu_us']:.1f} | {one['per_request']:.5f} | {one['store_bytes']:.0f} "
            f"| +{one['resident_mib']:.0f} MiB |"
        )
    lines += [
        "",
        f"{HOT_KEYS:,} keys that stay within their free share, one gateway, rising load: the store is not asked.",
        "",
        "| offered/s | answered/s | store calls/s | store CPU | CPU us per request |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {a:,} | {b:,.0f} | {c:,.0f} | {percent(d)} | {e:.1f} |" for a, b, c, d, e in rising]
    lines += [
        "",
        f"{HOT_KEYS:,} keys that are pooled, {POOLED_LIMIT}/10s for each, all of whose use is drawn. Bound: gateways x partitions / pace.",
        "",
        "| gateways | offered/s | answered/s | keys pooled | store calls/s | bound | store CPU | admitted | CPU us per request |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {n} | {a:,} | {b:,.0f} | {k:,} | {c:,.0f} | {m:,.0f} | {percent(d)} | {percent(s)} | {e:.1f} |" for n, a, b, k, c, m, d, s, e in pooled
    ]
    spent = {path: f"{middle:.2f} us [{low:.2f} to {high:.2f}]" for path, (middle, low, high) in price.items()}
    more = {path: middle - price["/free?k=1"][0] for path, (middle, _, _) in price.items()}
    lines += [
        "",
        f"What a shared limit that allows costs a request: {spent['/ample?k=1']} with it, {spent['/free?k=1']} without: "
        f"**{more['/ample?k=1']:+.2f} us**. The same four fields of the answer without a limit, set to constants: {spent['/fields?k=1']}, "
        f"{more['/fields?k=1']:+.2f} us. A limit that clients are not told of (`headers: false`): {spent['/untold?k=1']}, "
        f"**{more['/untold?k=1']:+.2f} us**.",
    ]
    return "\n".join(lines)


COLOURS = {"tidegate": OURS, "one call a request": THEIRS}


def draw_chart(samples, count):
    """Over the offered load: what is admitted, and what the store is asked."""
    samples = {(design, factor): one for (design, n, factor), one in samples.items() if n == count}
    lines = lambda value: [(colour, [value(samples[design, factor]) for factor in FACTORS]) for design, colour in reversed(COLOURS.items())]
    most_admitted = max(one.worst for one in samples.values())
    over_load = {"labels": [f"{factor:g} x" for factor in FACTORS], "below": "offered, of the limit"}
    panels = [
        dict(
            title="most admitted in a second, of the limit",
            lines=lines(lambda one: one.worst),
            ticks=[0, 0.25, 0.5, 0.75, 1, 1.25] if most_admitted <= 1.25 else nice(most_admitted),
            limit=1,
            **over_load,
        ),
        dict(
            title="calls of the store a second",
            lines=lines(lambda one: one.calls),
            ticks=nice(max(one.calls for one in samples.values())),
            **over_load,
        ),
    ]
    return chart(panels, COLOURS, f"{count} gateways, one Redis, one key, {LIMIT}/s")


def samples_in_readme():
    """What the table says that README.md has now."""
    number = lambda text: float(text.strip(" %x").replace(",", ""))
    samples = {}
    for line in README.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 9 and cells[0] in DESIGNS and cells[2].endswith(" x"):
            factor = number(cells[2])
            numbers = [number(cell) for cell in cells[3:]]
            samples[cells[0], int(cells[1]), factor] = Sample(LIMIT * factor, *numbers[:3], numbers[3] / 100, *numbers[4:])
    return samples


def write_readme(text):
    begin, finish = MARKS
    before, mark, rest = README.read_text().partition(begin)
    if not mark:
        raise Failed(f"benches/README.md has no place for the table: {begin}")
    README.write_text(f"{before}{begin}\n\n{text}\n\n{finish}{rest.partition(finish)[2]}")
    print(f"written to {README.relative_to(HERE.parent)}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short runs of 1 and 4 gateways, printed only")
    parser.add_argument("--seconds", type=int, help="of each row, whole; default: 8")
    parser.add_argument("--gateways", help="how many, by comma; default: 1,2,4")
    parser.add_argument("--print", action="store_true", help="print the tables and write nothing")
    parser.add_argument("--chart", action="store_true", help="draw the chart of README.md's table anew and run nothing")
    options = parser.parse_args()
    options.seconds = options.seconds or (4 if options.quick else 8)
    options.gateways = [int(count) for count in (options.gateways or ("1,4" if options.quick else "1,2,4")).split(",")]
    return options


def check_tools():
    for path in (RELEASE / "tidegate", RELEASE / "examples" / "usual"):
        if not path.exists():
            raise Failed(f"target/release/{path.relative_to(RELEASE)} is not built: run `make bench-throttle`")
    if missing := [tool for tool in ("redis-server", "redis-cli", "h2load", "wrk") if not shutil.which(tool)]:
        raise Failed(f"{', '.join(missing)} not installed: run deploy/install-test-tools.sh")


def main():
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    if options.chart:
        samples = samples_in_readme()
        CHART.write_text(draw_chart(samples, max(count for _, count, _ in samples)))
        return
    most = options.gateways[-1]
    try:
        check_tools()
        with Ground() as ground:
            samples = hot_key_table(ground, options)
            many = {(design, most): many_keys(ground, design, most, options.seconds) for design in DESIGNS}
            cold = {design: cold_keys(ground, design, options.seconds * 3) for design in DESIGNS}
            rising = store_load(ground, options.seconds)
            pooled = [row for count in sorted({1, most}) for row in pooled_keys(ground, count, options.seconds)]
            price = price_of_a_limit(ground, 3 if options.quick else 16, 1)
            text = tell(samples, many, cold, rising, pooled, price, options)
    except Failed as failure:
        sys.exit(f"benches/throttle.py: {failure}")
    print(text)
    if not (options.quick or options.print):
        CHART.write_text(draw_chart(samples, most))
        write_readme(text)


if __name__ == "__main__":
    main()
