#!/usr/bin/env python3
"""What waiting visitors cost: joins, polls and memory at the gateways and in Redis, and an opening for 300,000.

Usage: benches/room.py [--quick] [--million] [--gateways 1,3] [--rounds N] [--only waiting,opening,idle] [--print]

Two designs in one run: Tidegate, which answers polls from its own copy of the order, and one ZRANK for each poll, as
it is usually done (benches/rank.rs). Needs target/release/tidegate and target/release/examples/{rank,crowd} (`make
bench-room` builds them) and redis-server. Everything runs on loopback, on free ports, in a temporary folder that is
removed; what was started is ended. README.md beside this file says what is measured and gets the tables.
"""

import argparse
import contextlib
import datetime
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

from chart import OURS, THEIRS, chart, nice
from run import HERE, RELEASE, Failed, Ground, certificate, free_port
from throttle import Gateway, redis_cli, resident_bytes, store_memory

README = HERE / "README.md"
CHART = HERE / "room.svg"
PARTS = ("waiting", "opening", "idle")
DESIGNS = ("tidegate", "ZRANK a poll")

WAITERS = (1_000, 10_000, 100_000, 300_000)
MILLION = 1_000_000
JOINERS = 1_000  # connections that join at once: a join waits for a turn of its room
WARM_JOINS = 20_000
POLLERS = 64  # connections that poll at once
ROUNDS = 5
OPENING = 300_000
RATE = 1_000  # called a second in the opening
STAY_MS = 4_000
IDLE = 5_000
PATIENCE = 300  # seconds that a command to the crowd may take

TIDEGATE = """
threads: 1
listeners:
  - bind: 127.0.0.1:{port}
  - bind: 127.0.0.1:{tls}
    tls: {{ certificates: [{{ cert: cert.pem, key: key.pem }}] }}
admin: {{ bind: 127.0.0.1:{admin} }}
store: {{ redis: {{ urls: ["redis://127.0.0.1:{redis}"] }} }}
secrets: {{ tickets: {{ file: tickets }}, hashes: {{ file: hashes }} }}
timeouts: {{ idle: 1h }}
access_log: {{ to: {{ file: {name}.access }}, format: json }}
queue: {{ joins: 1000000/s, polls: 1000000/s }}
rules: [rules.yaml]
"""

RULES = """
rooms:
  foyer: {{ capacity: {{ visitors: 1 }}, keepalive: 1h }}
  hall:
    capacity: {{ {capacity}, pass: 10min }}
    abandon_after: {abandon}
    max_waiting: 2000000
    keepalive: 1h
    {more}
routes:
  - name: limited
    match: {{ path: /limited }}
    chain: [rate_limit: [{{ name: scarce, key: client_ip, limit: 1/h, tolerance: 0 }}], respond: {{ status: 200 }}]
"""


@dataclass
class Fleet:
    design: str
    gateways: list
    redis: int
    store: object
    crowd: object = None

    def cpu_seconds(self):
        return sum(gateway.cpu_seconds() for gateway in self.gateways)


@dataclass
class Stage:
    """What was measured while so many waited."""

    waiting: int
    joins: dict = field(default_factory=dict)
    polls: list = field(default_factory=list)
    same: list = field(default_factory=list)
    limited: list = field(default_factory=list)
    gateway_bytes: float = 0  # more than before the stage, for each new visitor
    store_bytes: int = 0


@dataclass(frozen=True)
class Sample:
    per_second: float
    cpu_us: float  # of all gateways, for each request
    store_us: float  # of the server, for each request
    calls: float  # of the store, for each request
    p50_ms: float
    p99_ms: float
    refused: int


# What stands on the ground


def start_redis(ground):
    port = free_port()
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", ground.folder]
    return port, ground.start(f"redis-{port}", command, ground.load_cores, [port])


def start_tidegate(ground, redis):
    port, tls, admin, name = free_port(), free_port(), free_port(), f"gateway-{free_port()}"
    ground.write(f"{name}.yaml", TIDEGATE.format(port=port, tls=tls, admin=admin, redis=redis, name=name))
    command = [RELEASE / "tidegate", "run", "-c", ground.folder / f"{name}.yaml"]
    process = ground.start(name, command, ground.proxy_cores, [port, tls, admin])
    gateway = Gateway(port, admin, process, ground.folder / f"{name}.access")
    gateway.tls = tls
    return gateway


def start_rank(ground, redis):
    port = free_port()
    command = [RELEASE / "examples" / "rank", f"127.0.0.1:{port}", f"redis://127.0.0.1:{redis}"]
    return Gateway(port, 0, ground.start(f"rank-{port}", command, ground.proxy_cores, [port]))


def start_fleet(ground, design, count, capacity="visitors: 1", abandon="1h", more=""):
    redis, store = start_redis(ground)
    ground.write("tickets", "7" * 64).chmod(0o600)
    ground.write("hashes", "3" * 64).chmod(0o600)
    ground.write("rules.yaml", RULES.format(capacity=capacity, abandon=abandon, more=more))
    start = start_tidegate if design == "tidegate" else start_rank
    fleet = Fleet(design, [start(ground, redis) for _ in range(count)], redis, store)
    fleet.crowd = Crowd(ground, fleet)
    return fleet


def stop(fleet):
    fleet.crowd.end()
    for process in [gateway.process for gateway in fleet.gateways] + [fleet.store]:
        process.kill()
        process.wait(10)


class Crowd:
    """The program that plays the visitors: a command, an answer."""

    def __init__(self, ground, fleet, room="hall"):
        command = [RELEASE / "examples" / "crowd", "/queue", room] + [f"127.0.0.1:{gateway.port}" for gateway in fleet.gateways]
        pin = lambda: os.sched_setaffinity(0, ground.load_cores)
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, preexec_fn=pin
        )
        ground.started.append(self.process)

    def do(self, *words, patience=PATIENCE):
        limit = threading.Timer(patience, self.process.kill)
        limit.start()
        try:
            self.process.stdin.write(" ".join(str(word) for word in words) + "\n")
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        finally:
            limit.cancel()
        if not line:
            raise Failed(f"the crowd ended, or was too slow, at {words}")
        told = json.loads(line)
        if told["faults"]:
            raise Failed(f"{words}: {told['faults']}")
        return told

    def end(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait(10)


# Reading


def store_state(port):
    """Calls from outside, microseconds of scripts, and seconds of CPU, so far."""
    text = redis_cli(port, "INFO", "all")
    calls = sum(int(count) for count in re.findall(r"cmdstat_(?:evalsha|eval):calls=(\d+)", text))
    plain = sum(int(count) for count in re.findall(r"cmdstat_(?:zrank|incr):calls=(\d+)", text))
    micros = sum(int(count) for count in re.findall(r"cmdstat_(?:evalsha|eval):calls=\d+,usec=(\d+)", text))
    cpu = sum(float(value) for value in re.findall(r"used_cpu_(?:sys|user):([\d.]+)", text))
    return calls or plain, micros, cpu


def measured(fleet, words, status):
    """Does it, and says what it cost."""
    for gateway in fleet.gateways:
        if gateway.log:
            os.truncate(gateway.log, 0)  # or a run would fill the disk
    calls, _, store_cpu = store_state(fleet.redis)
    cpu = fleet.cpu_seconds()
    told = fleet.crowd.do(*words)
    cpu = fleet.cpu_seconds() - cpu
    calls_after, _, store_cpu_after = store_state(fleet.redis)
    statuses = dict(told["statuses"])
    requests = statuses.pop(str(status), 0)
    refused = sum(statuses.pop(code, 0) for code in ("500", "503")) if words[0] == "join" else 0  # and came again
    if statuses or not requests:
        raise Failed(f"{words} got {told['statuses']}, not {status}")
    return Sample(
        requests / told["seconds"],
        cpu / requests * 1e6,
        (store_cpu_after - store_cpu) / requests * 1e6,
        (calls_after - calls) / requests,
        told["p50_ms"],
        told["p99_ms"],
        refused,
    )


def memory(fleet):
    return sum(resident_bytes(gateway) for gateway in fleet.gateways) / len(fleet.gateways), store_memory(fleet.redis)


# Measuring


def waiting_table(ground, options):
    stages = {}
    for count in options.gateways:
        for design in DESIGNS:
            fleet = start_fleet(ground, design, count)
            warm(ground, fleet)
            for waiters in options.waiters:
                stages[design, count, waiters] = stage(fleet, waiters, options)
                print(f"{design}, {count} gateways: {stages[design, count, waiters]}", flush=True)
            stop(fleet)
    return stages


def warm(ground, fleet):
    """The first few fill what is inside. And others have joined another room, and every connection has been used: what
    gateways keep of a rush must not be taken for what they keep of the visitors."""
    if fleet.design == "tidegate":
        others = Crowd(ground, fleet, "foyer")
        others.do("join", WARM_JOINS, JOINERS)
        others.do("poll", 1, JOINERS)
        others.end()
    for connections in (1, JOINERS):
        fleet.crowd.do("join", 2 if connections == 1 else JOINERS // 2, connections)
    fleet.crowd.do("poll", 1, JOINERS)
    if fleet.design == "tidegate":
        fleet.crowd.do("get", "/limited", 1, POLLERS)
    fleet.here = JOINERS // 2 + 2
    fleet.empty = memory(fleet)[1]


def stage(fleet, waiters, options):
    found = Stage(waiters)
    calls, micros, _ = store_state(fleet.redis)
    new, resident = waiters - fleet.here, memory(fleet)[0]
    found.joins = measured(fleet, ["join", new, JOINERS], 200)
    calls_after, micros_after, _ = store_state(fleet.redis)
    found.script_us = (micros_after - micros) / new
    fleet.here = waiters
    time.sleep(0.5)  # the last turn has been told to all
    gateway, store = memory(fleet)
    found.gateway_bytes, found.store_bytes = (gateway - resident) / new, store - fleet.empty
    for _ in range(options.rounds):
        if fleet.design == "tidegate":
            found.limited.append(measured(fleet, ["get", "/limited", options.seconds, POLLERS], 429))
        found.polls.append(measured(fleet, ["poll", options.seconds, POLLERS], 200))
    return found


# An opening


@dataclass
class Opening:
    joins: Sample
    told: dict
    cpu_us: float
    store_cpu: float
    called: int
    worst_second: int
    most_inside: int
    left: int
    unclaimed: int
    backwards: int
    seconds: float


class Log:
    """What the store itself wrote down: every change of the room, with the moment of its clock."""

    HEAD = struct.Struct(">Q6s6sQIIII")

    def __init__(self, port):
        self.changes, self.ended, self.fault = {}, threading.Event(), None
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.socket.makefile("rb")
        self.thread = threading.Thread(target=self.follow, daemon=True)

    def follow(self):
        try:
            while not self.ended.wait(0.5):
                self.read()
            self.read()
        except (OSError, ValueError) as fault:
            self.fault = fault

    def read(self):
        key = b"tidegate:{room:hall}:log"
        self.socket.sendall(b"*4\r\n$6\r\nLRANGE\r\n$%d\r\n%s\r\n$1\r\n0\r\n$2\r\n-1\r\n" % (len(key), key))
        for _ in range(int(self.file.readline()[1:])):
            size = int(self.file.readline()[1:])
            head = self.HEAD.unpack(self.file.read(size + 2)[: self.HEAD.size])
            self.changes[head[:3]] = head

    def close(self):
        self.ended.set()
        self.thread.join(20)
        self.socket.close()
        if self.fault or self.thread.is_alive():
            raise Failed(f"the room's log could not be followed: {self.fault}")
        return sorted(self.changes.values())


def opens(seconds):
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return f"open: {at:%Y-%m-%dT%H:%M:%SZ}"


def opening(ground, options):
    """All join a room that is not open; then they learn when it will be, it opens, and they live as they are told."""
    capacity = f"visitors: {options.visitors}, admit: {RATE}/s"
    fleet = start_fleet(ground, "tidegate", 3, capacity, "5min", opens(3_600))
    joins = measured(fleet, ["join", options.opening, JOINERS], 200)
    log = Log(fleet.redis)
    log.read()
    log.thread.start()
    _, _, store_cpu = store_state(fleet.redis)
    cpu = fleet.cpu_seconds()
    ground.write("rules.yaml", RULES.format(capacity=capacity, abandon="5min", more=opens(options.notice)))
    watched = options.notice + options.open_seconds
    told = fleet.crowd.do("open", watched, 4 * POLLERS, STAY_MS, patience=watched + PATIENCE)
    cpu = fleet.cpu_seconds() - cpu
    store_cpu = store_state(fleet.redis)[2] - store_cpu
    changes = log.close()
    stop(fleet)
    return judged(joins, told, cpu, store_cpu, changes)


def judged(joins, told, cpu, store_cpu, changes):
    inside = most = backwards = frontier = 0
    calls = []
    for at, _, reached, called, left, unclaimed, _, ended in changes:
        inside += called - left - unclaimed - ended
        most = max(most, inside)
        reached = int.from_bytes(reached, "big")
        backwards += reached < frontier
        frontier = reached
        if called:
            calls.append((at, called))
    worst = total = first = 0
    for at, called in calls:
        total += called
        while calls[first][0] <= at - 1_000_000:
            total -= calls[first][1]
            first += 1
        worst = max(worst, total)
    return Opening(
        joins,
        told,
        cpu / told["answered"] * 1e6,
        store_cpu / told["seconds"],
        sum(called for _, called in calls),
        worst,
        most,
        sum(change[4] for change in changes),
        sum(change[5] for change in changes),
        backwards,
        told["seconds"],
    )


def tell_opening(one, options):
    told, rows = one.told, []
    strange = {status: count for status, count in told["statuses"].items() if status not in ("200", "204")}
    rows += [
        ("joined, through HTTP", f"{options.opening:,} at {one.joins.per_second:,.0f}/s, {one.joins.refused:,} of them after a 503"),
        ("called", f"{one.called:,} in the {options.open_seconds} s after the opening"),
        ("most called in any second of the store's clock", f"{one.worst_second:,} of {RATE:,}"),
        ("most called or inside at once", f"{one.most_inside:,} of {options.visitors:,}"),
        ("entered, and left again", f"{told['entered']:,}, {told['left']:,}"),
        ("told to wait as of a moment at which a later number had been called", f"{told['inversions']}"),
        ("positions that grew", f"{told['grown']}"),
        ("positions of a gateway that knew less than the one before", f"{told['stale']}"),
        ("frontier went back", f"{one.backwards}"),
        ("places lost: given up, or called in vain", f"{one.left}, {one.unclaimed}"),
        ("answers that were not 200 or 204", f"{sum(strange.values())} {strange or ''}"),
        ("requests", f"{told['answered']:,} in {one.seconds:.0f} s, {told['overdue']:,} of them later than they were due"),
        ("answered within, p50 and p99", f"{told['p50_ms']:.1f} ms, {told['p99_ms']:.1f} ms"),
        ("CPU of the gateways for each request", f"{one.cpu_us:.1f} us"),
        ("CPU of Redis", f"{one.store_cpu:.1%} of a core"),
    ]
    head = f"{datetime.date.today()}. Three gateways, one Redis, `visitors: {options.visitors}`, `admit: {RATE}/s`; a visit takes {STAY_MS / 1000:g} s on average."
    return "\n".join([head, "", "| | |", "|---|---|"] + [f"| {what} | {found} |" for what, found in rows])


# Idle connections


def idle(ground, tls):
    """KiB of a gateway for each connection of a visitor who has asked and now waits."""
    fleet = start_fleet(ground, "tidegate", 1)
    gateway = fleet.gateways[0]
    fleet.crowd.do("join", 100, 10)
    context = ssl._create_unverified_context()
    held = []

    def come():
        stream = socket.create_connection(("127.0.0.1", gateway.tls if tls else gateway.port), timeout=10)
        stream = context.wrap_socket(stream) if tls else stream
        stream.sendall(b"GET /queue/status?room=hall HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = stream.recv(4096)
        if not answer.startswith(b"HTTP/1.1 404"):
            raise Failed(f"a poll without a ticket got {answer[:200]!r}")
        return stream, b"connection: close" in answer.lower()

    for _ in range(200):
        come()[0].close()
    before = resident_bytes(gateway)
    closed = 0
    for _ in range(IDLE):
        stream, over = come()
        held.append(stream)
        closed += over
    with_all = resident_bytes(gateway)
    for stream in held:
        stream.close()
    time.sleep(2)
    after = resident_bytes(gateway)
    stop(fleet)
    return (with_all - before) / IDLE / 1024, (after - before) / IDLE / 1024, closed


def tell_idle(found):
    lines = [
        f"{datetime.date.today()}. {IDLE:,} connections, opened one after another, a poll each, then idle.",
        "",
        "| | KiB for each | left after all have closed | 300,000 such, extrapolated | closed by the gateway |",
        "|---|---|---|---|---|",
    ]
    for kind, (each, left, closed) in found.items():
        lines.append(f"| {kind} | {each:.1f} | {left:.1f} | {each * 300_000 / 2**20:.1f} GiB | {closed:,} |")
    return "\n".join(lines)


# Telling


COLOURS = {"tidegate": OURS, "ZRANK a poll": THEIRS}


def draw_chart(stages, options):
    """Over the visitors who wait: what a poll costs the gateway, and what it costs the store."""
    count = options.gateways[0]
    poll = lambda name: lambda one: statistics.median(getattr(sample, name) for sample in one.polls)
    panels = []
    for title, value in (("gateway CPU for each poll, us", poll("cpu_us")), ("Redis CPU for each poll, us", poll("store_us"))):
        panels.append(dict(
            title=title,
            labels=[f"{waiting:,}" for waiting in options.waiters],
            below="visitors who wait",
            lines=[(colour, [value(stages[design, count, waiting]) for waiting in options.waiters]) for design, colour in reversed(COLOURS.items())],
            ticks=nice(max(value(one) for one in stages.values())),
        ))
    return chart(panels, COLOURS, f"{count} gateway{'s' if count > 1 else ''}, one Redis, one room")


def tell_waiting(stages, options):
    lines = [
        f"{datetime.date.today()}. One room, one Redis, nobody called; {JOINERS:,} connections join, {POLLERS} poll, every poll with the ticket of "
        f"another visitor; medians of {options.rounds} rounds of {options.seconds} s, polls and 429 in turn. CPU of the gateways and of Redis, from "
        "`/proc` and `INFO`: what else runs on the machine hardly changes it.",
        "",
        "| design | gateways | waiting | joins/s | again after a 5xx | CPU us per join | store us per join | polls/s | CPU us per poll | x 429 | store calls per poll "
        "| store us per poll | store bytes per waiter | gateway bytes per new waiter |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (design, count, waiting), one in stages.items():
        poll = lambda name: statistics.median(getattr(sample, name) for sample in one.polls)
        low, high = min(sample.cpu_us for sample in one.polls), max(sample.cpu_us for sample in one.polls)
        limited = statistics.median(sample.cpu_us for sample in one.limited) if one.limited else None
        ratio = f"{poll('cpu_us') / limited:.2f}" if limited else ""
        lines.append(
            f"| {design} | {count} | {waiting:,} | {one.joins.per_second:,.0f} | {one.joins.refused:,} | {one.joins.cpu_us:.1f} | {one.joins.store_us:.1f} "
            f"| {poll('per_second'):,.0f} | **{poll('cpu_us'):.1f}** [{low:.1f} to {high:.1f}] | {ratio} | {poll('calls'):.4f} "
            f"| {poll('store_us'):.1f} | {one.store_bytes / waiting:.0f} | {one.gateway_bytes:.1f} |"
        )
    return "\n".join(lines)


def write_readme(name, text):
    begin, finish = f"<!-- room {name}: begin -->", f"<!-- room {name}: end -->"
    before, mark, rest = README.read_text().partition(begin)
    if not mark:
        raise Failed(f"benches/README.md has no place for the table: {begin}")
    README.write_text(f"{before}{begin}\n\n{text}\n\n{finish}{rest.partition(finish)[2]}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 10,000 waiters, two rounds of a second, printed only")
    parser.add_argument("--million", action="store_true", help="a million waiters too")
    parser.add_argument("--gateways", help="how many, by comma; default: 1,3")
    parser.add_argument("--open-seconds", type=int, help="how long the opening is watched; default: until all may be called")
    parser.add_argument("--opening", type=int, help=f"visitors who wait for the opening; default: {OPENING}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of polls; default: {ROUNDS}")
    parser.add_argument("--visitors", type=int, default=20_000, help="capacity of the room that opens; default: 20000")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, by comma; default: {','.join(PARTS)}")
    parser.add_argument("--print", action="store_true", help="print the tables and write nothing")
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    options.rounds, options.seconds = (2, 1) if options.quick else (options.rounds, 2)
    options.waiters = WAITERS[:2] if options.quick else WAITERS + (MILLION,) * options.million
    options.opening = options.opening or (10_000 if options.quick else OPENING)
    options.notice, long_enough = (15, 15) if options.quick else (75, options.opening // RATE + 10)
    options.open_seconds = options.open_seconds or long_enough
    options.gateways = [int(count) for count in (options.gateways or "1,3").split(",")]
    return options


def check_tools():
    for path in (RELEASE / "tidegate", RELEASE / "examples" / "rank", RELEASE / "examples" / "crowd"):
        if not path.exists():
            raise Failed(f"target/release/{path.relative_to(RELEASE)} is not built: run `make bench-room`")
    if missing := [tool for tool in ("redis-server", "redis-cli", "openssl") if not shutil.which(tool)]:
        raise Failed(f"{', '.join(missing)} not installed: run deploy/install-test-tools.sh")


def main():
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    texts = {}
    try:
        check_tools()
        with Ground() as ground:
            certificate(ground)
            if "waiting" in options.only:
                stages = waiting_table(ground, options)
                texts["waiting"] = tell_waiting(stages, options)
                if not (options.quick or options.print):
                    CHART.write_text(draw_chart(stages, options))
            if "opening" in options.only:
                texts["opening"] = tell_opening(opening(ground, options), options)
            if "idle" in options.only:
                texts["idle"] = tell_idle({kind: idle(ground, kind == "TLS") for kind in ("plain", "TLS")})
    except Failed as failure:
        sys.exit(f"benches/room.py: {failure}")
    for name, text in texts.items():
        print(text)
        if not (options.quick or options.print):
            write_readme(name, text)


if __name__ == "__main__":
    main()
