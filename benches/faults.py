#!/usr/bin/env python3
"""What a shared limit admits while things break: four gateways, one store, 10,000 requests a second.

Usage: benches/faults.py [--seconds S] [--only NAME[,NAME]] [--list]

Needs what benches/throttle.py needs, and redis-sentinel (a name of redis-server). For each scenario it prints what
was admitted in each second as a share of the limit (by when requests came, and at the end the most of one second
that cannot have been of its neighbours), answers of 5xx, and the 99th percentile of the time to answer
before, while and after. Everything runs on loopback and is ended; only processes that this program started are
stopped, frozen or killed.
"""

import argparse
import collections
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

import throttle
from run import RELEASE, Failed, Ground, end, free_port, run
from throttle import all_cores, h2load, moment

GATEWAYS = 4
LIMIT = 1_000
OFFERED = 10_000
CONNECTIONS = 10  # for each gateway
SETTLE_SECONDS = 5  # a lease and a window, before anything counts
EDGE_SECONDS = 1  # windows that are cut by the beginning or the end of the load

PROCESS = """
threads: 1
listeners: [{{ bind: 127.0.0.1:{port} }}]
admin: {{ bind: 127.0.0.1:{admin} }}
store: {{ redis: {store} }}
access_log: {{ to: {{ file: {name}.access }}, format: json }}
rules: [rules.yaml]
"""

RULES = """
routes:
  - name: one
    match: {{ path: /one }}
    chain:
      - rate_limit: {{ name: one, key: route, limit: {limit}/s, tolerance: {tolerance} }}
      - respond: {{ status: 200, body: "{body}" }}
"""


@dataclass
class World:
    """The store, the gateways in front of it, and the load on each."""

    ground: Ground
    store: str = ""
    gateways: list = field(default_factory=list)
    loads: list = field(default_factory=list)
    logs: list = field(default_factory=list)
    offered: list = field(default_factory=list)
    events: list = field(default_factory=list)

    def add_gateway(self):
        port, admin, name = free_port(), free_port(), f"gateway-{len(self.logs)}"
        conf = self.ground.write(f"{name}.yaml", PROCESS.format(port=port, admin=admin, name=name, store=self.store))
        process = self.ground.start(name, [RELEASE / "tidegate", "run", "-c", conf], all_cores(), [port])
        self.logs.append(self.ground.folder / f"{name}.access")
        return throttle.Gateway(port, admin, process)

    def load(self, gateway, per_second, seconds):
        if per_second:
            command = [str(part) for part in h2load(gateway, per_second, seconds, CONNECTIONS, "/one")]
            self.loads.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def note(self, what):
        self.events.append((time.time(), what))


# Stores


def redis_server(ground, port, *more):
    folder = ground.folder / f"redis-{port}"
    folder.mkdir(exist_ok=True)
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder, *more]
    return ground.start(f"redis-{port}-{time.monotonic_ns()}", command, all_cores(), [port])


def standalone(ground):
    port = free_port()
    return f'{{ urls: ["redis://127.0.0.1:{port}"] }}', {"port": port, "redis": redis_server(ground, port)}


def sentinel(ground):
    primary, replica = free_port(), free_port()
    parts = {"redis": redis_server(ground, primary)}
    redis_server(ground, replica, "--replicaof", "127.0.0.1", primary)
    watchers = []
    for _ in range(3):
        port = free_port()
        conf = ground.write(
            f"sentinel-{port}.conf",
            f"port {port}\nbind 127.0.0.1\ndir {ground.folder}\nsentinel monitor shop 127.0.0.1 {primary} 2\n"
            "sentinel down-after-milliseconds shop 1000\nsentinel failover-timeout shop 5000\n",
        )
        ground.start(f"sentinel-{port}", ["redis-server", conf, "--sentinel"], all_cores(), [port])
        watchers.append(f'"redis://127.0.0.1:{port}"')
    wait_until("the replica is in step", lambda: "master_link_status:up" in cli(replica, "INFO", "replication"))
    return f"{{ topology: sentinel, master_name: shop, urls: [{', '.join(watchers)}] }}", parts


def cluster(ground):
    # The servers of a cluster talk to each other on ports that are 10,000 higher.
    ports = list(itertools.islice((port for port in iter(free_port, None) if port < 55_000), 6))
    nodes = {port: redis_server(ground, port, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000") for port in ports}
    addresses = [f"127.0.0.1:{port}" for port in ports]
    run(["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"], None, 60)
    for port in ports:
        wait_until("the cluster stands", lambda: "cluster_state:ok" in cli(port, "CLUSTER", "INFO"))
    urls = ", ".join(f'"redis://{address}"' for address in addresses[:3])
    return f"{{ topology: cluster, urls: [{urls}] }}", {"redis": nodes[ports[0]]}


def cli(port, *words):
    return run(["redis-cli", "-p", port, *words])


def wait_until(what, holds, seconds=20):
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds} s in vain until {what}")
        time.sleep(0.1)


# What happens, while the load goes on


def nothing(world, parts, seconds):
    time.sleep(seconds)


def gateways_die(world, parts, seconds):
    """Every five seconds one gateway is killed and another takes its place."""
    finish, number = time.monotonic() + seconds, 0
    while finish - time.monotonic() > 6:
        time.sleep(5)
        victim = number % GATEWAYS
        world.gateways[victim].process.kill()
        world.gateways[victim] = world.add_gateway()
        world.note("killed a gateway")
        world.load(world.gateways[victim], world.offered[victim], max(1, int(finish - time.monotonic())))
        number += 1
    time.sleep(max(0, finish - time.monotonic()))


def frozen(world, parts, seconds):
    time.sleep(seconds / 3)
    world.note("froze")
    os.kill(parts["redis"].pid, signal.SIGSTOP)
    time.sleep(10)
    os.kill(parts["redis"].pid, signal.SIGCONT)
    world.note("thawed")
    time.sleep(max(1, seconds * 2 / 3 - 10))


def restarted_empty(world, parts, seconds):
    time.sleep(seconds / 3 + 0.5 - time.time() % 1)  # in the middle of a window
    world.note("killed the store")
    parts["redis"].kill()
    parts["redis"].wait(5)
    redis_server(world.ground, parts["port"])
    world.note("started it empty")
    time.sleep(seconds * 2 / 3)


def primary_dies(world, parts, seconds):
    time.sleep(seconds / 3)
    parts["redis"].kill()
    world.note("killed a primary")
    time.sleep(seconds * 2 / 3)


@dataclass(frozen=True)
class Scenario:
    title: str
    store: object = standalone
    tolerance: str = "0"
    happens: object = nothing
    shares: tuple = (0.25, 0.25, 0.25, 0.25)


SCENARIOS = {
    "calm": Scenario("nothing breaks"),
    "tolerant": Scenario("nothing breaks, tolerance 5 %", tolerance="5%"),
    "lopsided": Scenario("all load on one gateway", shares=(1, 0, 0, 0)),
    "gateways": Scenario("a gateway is killed every 5 s", happens=gateways_die),
    "frozen": Scenario("Redis frozen for 10 s", happens=frozen),
    "empty": Scenario("Redis killed and restarted empty", happens=restarted_empty),
    "sentinel": Scenario("primary killed, Sentinel fails over", store=sentinel, happens=primary_dies),
    "cluster": Scenario("one Cluster primary killed", store=cluster, happens=primary_dies),
}


def play(scenario, seconds):
    with Ground() as ground:
        store, parts = scenario.store(ground)
        world = World(ground, store, offered=[OFFERED * share for share in scenario.shares])
        ground.write("rules.yaml", RULES.format(limit=LIMIT, tolerance=scenario.tolerance, body="u" * 128))
        world.gateways = [world.add_gateway() for _ in range(GATEWAYS)]
        whole = seconds + SETTLE_SECONDS + 2
        for gateway, per_second in zip(world.gateways, world.offered):
            world.load(gateway, per_second, whole)
        time.sleep(SETTLE_SECONDS)
        begin = time.time()
        scenario.happens(world, parts, seconds)
        finish = time.time()
        for load in world.loads:
            end(load)
        time.sleep(0.5)
        return read(world, begin, finish)


def read(world, begin, finish):
    admitted, surely, slow, failed, answered = collections.Counter(), collections.Counter(), collections.defaultdict(list), 0, 0
    for log in world.logs:
        for line in log.open():
            with_all = line.endswith("}\n")
            if not with_all:
                continue  # of a gateway that was killed while it wrote
            entry = json.loads(line)
            at = moment(entry["time"])
            if not begin <= at <= finish:
                continue
            answered += 1
            failed += entry["status"] >= 500
            admitted[int(at)] += entry["status"] == 200
            # The log has when a request came; one that reaches into the next second may have been counted there.
            surely[int(at)] += entry["status"] == 200 and int(at + entry["duration"]) == int(at)
            slow[int(at)].append(entry["duration"])
    seconds = range(int(begin) + EDGE_SECONDS, int(finish))
    shares = [admitted[second] / LIMIT for second in seconds]
    return {
        "answered": answered / (finish - begin),
        "failed": failed,
        "shares": shares,
        "surely": max(surely[second] for second in seconds) / LIMIT,
        "first": seconds[0],
        "p99": [percentile(slow[second], 0.99) * 1e3 for second in seconds],
        "events": world.events,
    }


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def tell(name, scenario, told):
    events = [(at - told["first"], what) for at, what in told["events"]]
    print(f"\n{name}: {scenario.title}")
    print(f"  answered {told['answered']:,.0f}/s, answers of 5xx: {told['failed']}")
    print(f"  admitted each second, share of the limit: {' '.join(f'{share:.2f}' for share in told['shares'])}")
    print(f"  mean {statistics.mean(told['shares']):.3f}, least {min(told['shares']):.3f}, most {max(told['shares']):.3f}, surely in one second {told['surely']:.3f}")
    print(f"  p99 each second, ms: {' '.join(f'{value:.1f}' for value in told['p99'])}")
    for at, what in events:
        print(f"  at {at:.1f} s: {what}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30, help="of each scenario; default: 30")
    parser.add_argument("--only", help="names of scenarios, by comma; default: all")
    parser.add_argument("--list", action="store_true", help="the scenarios, and no more")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:10} {scenario.title}" for name, scenario in SCENARIOS.items()))
        return
    names = options.only.split(",") if options.only else list(SCENARIOS)
    if unknown := set(names) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    try:
        throttle.check_tools()
        for name in names:
            tell(name, SCENARIOS[name], play(SCENARIOS[name], options.seconds))
    except Failed as failure:
        sys.exit(f"benches/faults.py: {failure}")


if __name__ == "__main__":
    main()
