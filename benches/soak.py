#!/usr/bin/env python3
"""A fleet that is broken again and again under load, and what visitors and clients notice of it.

Usage: benches/soak.py [--minutes M] [--visitors V] [--binary PATH]

Two gateways on one Redis, a room with some thousands of visitors who live as they are told (they poll, enter when they
are called, use their pass, leave, and others come), and a shared limit under load. Meanwhile, in turn: a gateway is
killed and started again, Redis is frozen for ten seconds, Redis is killed and started again empty, a gateway is added,
and it is taken away. After each the room is held for a moment and everyone asked: whoever kept polling must have a
place, in the order of the numbers; nobody inside may have been thrown out; the room and the queue must move again; the
limit must have stayed within its bound. Ends with 1 and the list of what did not hold.

Needs target/release/tidegate, or the binary named, and redis-server. Everything runs on loopback, and is ended.
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import heapq
import json
import os
import pathlib
import random
import signal
import sys
import time
import urllib.request
from dataclasses import dataclass, field

from faults import redis_server
from run import RELEASE, Failed, Ground, free_port
from throttle import Gateway, all_cores, resident_bytes

CAPACITY = 60  # visitors called or inside
RESIDENTS = 10  # of these, who never leave
STAY_SECONDS = 8
VISIT_EVERY = 2.0  # seconds between two uses of a pass
POLL_MAX = 8.0  # seconds; a visitor asks this often whatever the gateway says
WORKERS = 48
LIMIT = 100  # a second, over the fleet, tolerance 0
OFFERED = 150  # a second at each gateway
SECOND_MOST = 2  # limits that one second may let through: two windows, as when the store has forgotten one
MEAN_MOST = 1.10  # of the limit, over the time between two censuses in which nothing was lost
REQUEST_SECONDS = 8
RECOVER_SECONDS = 20  # after a fault everything must be in order within this
RETRY_SECONDS = 1.0
CENSUS_SECONDS = 45
SPREAD_SECONDS = 1.0  # until all gateways have heard what was said to one: a turn each, and some
NUMBER_AT = 11  # where the number stands on a ticket

PROCESS = """
threads: 1
listeners: [{{ bind: 127.0.0.1:{port} }}]
admin: {{ bind: 127.0.0.1:{admin} }}
store: {{ redis: {{ urls: ["redis://127.0.0.1:{redis}"] }} }}
secrets: {{ tickets: {{ file: tickets }}, hashes: {{ file: hashes }} }}
access_log: {{ to: 'off' }}
queue: {{ joins: 1000000/s, polls: 1000000/s }}
rules: [rules.yaml]
"""

# Nothing runs out while everyone is asked, which takes a minute where the machine does much else.
RULES = """
rooms:
  hall:
    capacity: {{ visitors: {capacity}, pass: 5min }}
    abandon_after: 5min
    claim_within: 5min
    keepalive: 1h
routes:
  - name: show
    match: {{ path: /show }}
    chain: [waiting_room: {{ room: hall }}, respond: {{ status: 200, body: inside }}]
  - name: limited
    match: {{ path: /limited }}
    chain: [rate_limit: [{{ name: shared, key: route, limit: {limit}/s, tolerance: 0 }}], respond: {{ status: 204 }}]
"""


@dataclass
class Visitor:
    cookies: dict
    number: int
    resident: bool = False
    state: str = "waiting"
    leaves_at: float = 0.0
    ahead: int = 0


@dataclass
class Answer:
    status: int
    headers: list
    body: bytes

    def cookies(self):
        lines = (value for name, value in self.headers if name == "set-cookie")
        pairs = (line.split(";", 1)[0].partition("=") for line in lines)
        return {name: value for name, _, value in pairs}

    def json(self):
        return json.loads(self.body)


@dataclass
class World:
    ground: Ground
    options: argparse.Namespace
    redis_port: int = 0
    redis: object = None
    gateways: list = field(default_factory=list)
    visitors: set = field(default_factory=set)
    due: list = field(default_factory=list)
    paused: bool = False
    busy: int = 0
    ended: bool = False
    wrong: list = field(default_factory=list)
    counts: collections.Counter = field(default_factory=collections.Counter)
    limited: collections.Counter = field(default_factory=collections.Counter)
    most_inside: int = 0
    gaps: int = 0
    order: int = 0
    presses: list = field(default_factory=list)

    def fails(self, what):
        self.counts["faults"] += 1
        if len(self.wrong) < 50:
            self.wrong.append(what)
        tell(f"WRONG: {what}")

    def add_gateway(self, port=None, admin=None):
        port, admin = port or free_port(), admin or free_port()
        name = f"gateway-{port}-{time.monotonic_ns()}"
        conf = self.ground.write(f"{name}.yaml", PROCESS.format(port=port, admin=admin, redis=self.redis_port))
        process = self.ground.start(name, [self.options.binary, "run", "-c", conf], all_cores(), [port, admin])
        gateway = Gateway(port, admin, process)
        self.gateways.append(gateway)
        return gateway

    def schedule(self, at, visitor):
        self.order += 1
        heapq.heappush(self.due, (at, self.order, visitor))


def tell(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


# Clients


class Wire:
    """Kept connections of one worker, one to each gateway."""

    def __init__(self):
        self.streams = {}

    async def ask(self, gateway, method, path, cookies=None, accept="application/json"):
        """The answer, or None where there is none: the gateway is gone, or dies meanwhile."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self.exchange(gateway.port, method, path, cookies or {}, accept)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            self.drop(gateway.port)
            return None

    async def exchange(self, port, method, path, cookies, accept):
        if port not in self.streams:
            self.streams[port] = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = self.streams[port]
        cookie = f"cookie: {'; '.join(f'{name}={value}' for name, value in cookies.items())}\r\n" if cookies else ""
        length = "content-length: 0\r\n" if method == "POST" else ""
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: soak\r\naccept: {accept}\r\n{length}{cookie}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        lines = [line.partition(":") for line in head[1:] if line]
        headers = [(name.lower(), value.strip()) for name, _, value in lines]
        named = dict(headers)
        body = b""
        if status != 204:
            body = await reader.readexactly(int(named.get("content-length", "0")))
        if named.get("connection", "").lower() == "close":
            self.drop(port)
        return Answer(status, headers, body)

    def drop(self, port):
        if stream := self.streams.pop(port, None):
            stream[1].close()


def number_of(cookies):
    slip = next(value for name, value in cookies.items() if "ticket" in name)
    return int.from_bytes(base64.urlsafe_b64decode(slip + "=" * (-len(slip) % 4))[NUMBER_AT : NUMBER_AT + 8], "big")


async def join(world, wire, resident=False):
    """A new visitor, as soon as there is a place."""
    while not world.ended:
        answer = await wire.ask(random.choice(world.gateways), "POST", "/queue/join?room=hall")
        if answer and answer.status == 200:
            cookies = answer.cookies()
            visitor = Visitor(cookies, number_of(cookies), resident, answer.json()["state"])
            if visitor.state == "inside":
                enters(visitor)
            world.visitors.add(visitor.number)
            world.counts["joined"] += 1
            return visitor
        world.counts["joins refused" if answer else "joins unanswered"] += 1
        await asyncio.sleep(RETRY_SECONDS)
    return None


def enters(visitor):
    visitor.state = "inside"
    visitor.leaves_at = float("inf") if visitor.resident else time.monotonic() + STAY_SECONDS * (0.5 + random.random())


async def live(world, wire, visitor):
    """What a visitor does next. Gives the seconds until the thing after, or None from one who has gone."""
    gateway = random.choice(world.gateways)
    if visitor.state == "inside":
        return await visit(world, wire, gateway, visitor)
    if visitor.state == "called":
        answer = await wire.ask(gateway, "POST", "/queue/enter?room=hall", visitor.cookies)
        if answer and answer.status == 200:
            visitor.cookies |= answer.cookies()
            enters(visitor)
            world.counts["entered"] += 1
            return VISIT_EVERY
        if answer and answer.status == 409:
            # The first answer was lost with its gateway; a page takes the same pass again.
            visitor.state = "inside"
            return await visit(world, wire, gateway, visitor)
        if answer and answer.status in (404, 410):
            return lost(world, visitor, answer, "when it was called")
        return RETRY_SECONDS
    answer = await wire.ask(gateway, "GET", "/queue/status?room=hall", visitor.cookies)
    if answer is None or answer.status == 503:
        world.counts["polls unanswered" if answer is None else "polls 503"] += 1
        return RETRY_SECONDS
    if answer.status != 200:
        return lost(world, visitor, answer, "while it waited")
    told = answer.json()
    world.counts["polls"] += 1
    if told["state"] == "waiting":
        visitor.ahead = told["ahead"]
        return min(told["next_poll_ms"] / 1e3, POLL_MAX)
    visitor.state = "called"
    return 0.0


async def visit(world, wire, gateway, visitor):
    if time.monotonic() > visitor.leaves_at:
        answer = await wire.ask(gateway, "POST", "/queue/leave?room=hall", visitor.cookies)
        if answer is None or answer.status != 204:
            return RETRY_SECONDS
        world.counts["left"] += 1
        world.visitors.discard(visitor.number)
        return None
    answer = await wire.ask(gateway, "GET", "/show", visitor.cookies, accept="text/html")
    if answer is None or answer.status == 503:
        world.counts["visits unanswered"] += 1
        return RETRY_SECONDS
    visitor.cookies |= answer.cookies()
    if answer.body != b"inside":
        world.fails(f"number {visitor.number} was inside and was thrown out: {answer.status} {answer.body[:60]!r}")
        world.visitors.discard(visitor.number)
        return None
    if visitor.leaves_at == 0.0:
        enters(visitor)
    world.counts["visits"] += 1
    return VISIT_EVERY


def lost(world, visitor, answer, when):
    world.fails(f"number {visitor.number} lost the place {when}: {answer.status}")
    world.visitors.discard(visitor.number)


async def work(world):
    wire = Wire()
    while not world.ended:
        if world.paused or not world.due or world.due[0][0] > time.monotonic():
            await asyncio.sleep(0.01)
            continue
        _, _, visitor = heapq.heappop(world.due)
        world.busy += 1
        try:
            wait = await live(world, wire, visitor) if visitor else 0.0
            if wait is None or visitor is None:
                visitor, wait = await join(world, wire), VISIT_EVERY
            if visitor:
                world.schedule(time.monotonic() + wait, visitor)
        finally:
            world.busy -= 1


async def press(world, gateway):
    """Asks for more than the limit at one gateway, at an even pace, for as long as that is there."""
    wires, begun, sent = [Wire() for _ in range(8)], time.monotonic(), 0
    idle = asyncio.Queue()
    for wire in wires:
        idle.put_nowait(wire)

    async def one(wire):
        answer = await wire.ask(gateway, "GET", "/limited")
        idle.put_nowait(wire)
        if answer and answer.status == 204:
            world.limited[int(time.time())] += 1
        elif answer and answer.status >= 500:
            world.fails(f"a limited request got {answer.status}")

    async with asyncio.TaskGroup() as tasks:
        while not world.ended and gateway in world.gateways:
            wire = await idle.get()
            tasks.create_task(one(wire))
            sent += 1
            await asyncio.sleep(max(0.0, begun + sent / OFFERED - time.monotonic()))


async def watch(world):
    """How many are called or inside, as the store itself has it."""
    while not world.ended:
        await asyncio.sleep(0.5)
        with contextlib.suppress(Failed, OSError, ValueError):
            async with asyncio.timeout(2):
                world.most_inside = max(world.most_inside, await called_or_inside(world))


async def called_or_inside(world):
    """In one command: between two, somebody who is called would go in and be counted twice."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.redis_port)
    try:
        keys = "tidegate:{room:hall}:called tidegate:{room:hall}:inside"
        script = "return redis.call('ZCARD',KEYS[1])+redis.call('ZCARD',KEYS[2])"
        writer.write(f'EVAL "{script}" 2 {keys}\r\n'.encode())
        return int((await reader.readline())[1:])
    except OSError as fault:
        raise Failed(str(fault)) from fault
    finally:
        writer.close()


# Asking everyone


def set_mode(world, mode):
    """By any gateway that can reach the store."""
    body = json.dumps({"mode": mode}).encode()
    for gateway in world.gateways:
        request = urllib.request.Request(f"http://127.0.0.1:{gateway.admin}/rooms/hall", body, {"content-type": "application/json"}, method="POST")
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(request, timeout=5):
                return
    raise Failed(f"no gateway takes `mode: {mode}`")


async def census(world, what, gives_back=False):
    """Nobody is called, comes or leaves; then every ticket is asked for at every gateway, and the answers compared."""
    deadline = time.monotonic() + CENSUS_SECONDS
    world.paused = True
    while world.busy:
        await asyncio.sleep(0.01)
    while True:
        try:
            await asyncio.to_thread(set_mode, world, "hold")
            break
        except Failed as fault:
            if time.monotonic() > deadline:
                world.fails(f"{what}: {fault}")
                break
            await asyncio.sleep(0.5)
    standing = [visitor for _, _, visitor in world.due if visitor]
    waiting, fault, gaps = 0, None, 0
    while True:
        await asyncio.sleep(1)
        waiting, fault, gaps = await look(world, standing)
        if fault is None and gives_back and gaps > world.gaps:
            fault = f"{gaps - world.gaps} new places of nobody"
        if fault is None or time.monotonic() > deadline:
            break
        tell(f"not yet: {fault}")
    if fault:
        world.fails(f"{what}: {fault}")
    with contextlib.suppress(Failed):
        await asyncio.to_thread(set_mode, world, "auto")
    # What one gateway alone has heard when the store forgets it cannot be known to the others.
    await asyncio.sleep(SPREAD_SECONDS)
    world.paused, world.gaps = False, gaps
    tell(f"census after {what}: {waiting} wait in order, {len(standing) - waiting} called or inside, places of nobody: {gaps}")


async def look(world, standing):
    """How many wait, what is wrong, and how many places that nobody here holds stand between theirs."""
    waiting = gaps = 0
    for gateway in world.gateways:
        wires = [Wire() for _ in range(16)]
        places, queue, strange = [], collections.deque(standing), []

        async def ask(wire):
            while queue:
                visitor = queue.popleft()
                answer = await wire.ask(gateway, "GET", "/queue/status?room=hall", visitor.cookies)
                if answer is None or answer.status != 200:
                    strange.append(f"number {visitor.number} got {answer and answer.status}")
                elif (told := answer.json())["state"] == "waiting":
                    places.append((visitor.number, told["ahead"]))
                elif visitor.state == "waiting":
                    visitor.state = "called"

        await asyncio.gather(*(ask(wire) for wire in wires))
        for wire in wires:
            for port in list(wire.streams):
                wire.drop(port)
        if strange:
            return len(places), f"{len(strange)} of {len(standing)} have no place, as {strange[0]}", gaps
        places.sort()
        for (before, ahead), (number, behind) in zip(places, places[1:]):
            if behind <= ahead:
                return len(places), f"number {number} has {behind} ahead, and {before} before it has {ahead}", gaps
        waiting, gaps = len(places), max(gaps, places[-1][1] - len(places) + 1 if places else 0)
    return waiting, None, gaps


async def moves(world, what):
    """Somebody new gets a place, and somebody is called."""
    deadline = time.monotonic() + RECOVER_SECONDS
    joined, entered = world.counts["joined"], world.counts["entered"]
    while time.monotonic() < deadline:
        if world.counts["joined"] > joined and world.counts["entered"] > entered:
            return
        await asyncio.sleep(0.2)
    world.fails(f"{what}: stuck for {RECOVER_SECONDS} s: {world.counts['joined'] - joined} joined, {world.counts['entered'] - entered} entered")


# What happens


async def gateway_dies(world):
    gateway = world.gateways[0]
    gateway.process.kill()
    gateway.process.wait(5)
    world.gateways.remove(gateway)
    await asyncio.sleep(3)
    again = await asyncio.to_thread(world.add_gateway, gateway.port, gateway.admin)
    world.presses.append(asyncio.create_task(press(world, again)))


async def store_freezes(world):
    os.kill(world.redis.pid, signal.SIGSTOP)
    await asyncio.sleep(10)
    os.kill(world.redis.pid, signal.SIGCONT)


async def store_forgets(world):
    world.redis.kill()
    world.redis.wait(5)
    await asyncio.sleep(1)
    world.redis = await asyncio.to_thread(redis_server, world.ground, world.redis_port)


async def gateway_comes(world):
    more = await asyncio.to_thread(world.add_gateway)
    world.presses.append(asyncio.create_task(press(world, more)))


async def gateway_goes(world):
    gateway = world.gateways.pop()
    await asyncio.sleep(1)
    gateway.process.terminate()
    await asyncio.to_thread(gateway.process.wait, 60)


@dataclass(frozen=True)
class Fault:
    what: str
    happens: object
    forgot: bool = False  # the store lost its counts
    gives_back: bool = False  # what it gave to nobody must have been given back


FAULTS = (
    Fault("a gateway was killed and started again", gateway_dies),
    Fault("Redis was frozen for 10 s", store_freezes, gives_back=True),
    Fault("a gateway was added", gateway_comes),
    Fault("Redis was killed and started again empty", store_forgets, forgot=True),
    Fault("a gateway was taken away", gateway_goes),
)


def check_limit(world, what, begin, finish, forgot):
    """By the second of the answer; the first and the last are cut."""
    seconds = [world.limited[second] for second in range(int(begin) + 1, int(finish))]
    if not seconds:
        return
    worst, mean = max(seconds), sum(seconds) / len(seconds)
    tell(f"limit during '{what}': mean {mean / LIMIT:.2f}, most in a second {worst / LIMIT:.2f}, least {min(seconds) / LIMIT:.2f} of the limit")
    if worst > SECOND_MOST * LIMIT * 1.05:
        world.fails(f"{what}: {worst} in one second, of a limit of {LIMIT}")
    if mean > MEAN_MOST * LIMIT + (2 * LIMIT / len(seconds) if forgot else 0):
        world.fails(f"{what}: {mean:.0f} a second in the mean, of a limit of {LIMIT}")


async def play(world):
    world.presses = [asyncio.create_task(press(world, gateway)) for gateway in world.gateways]
    wire = Wire()
    for _ in range(RESIDENTS):
        world.schedule(time.monotonic(), await join(world, wire, resident=True))
    for _ in range(world.options.visitors):
        world.schedule(time.monotonic(), None)  # somebody who comes
    workers = [asyncio.create_task(work(world)) for _ in range(WORKERS)] + [asyncio.create_task(watch(world))]
    while world.counts["joined"] < world.options.visitors + RESIDENTS:
        await asyncio.sleep(0.2)
    tell(f"{world.counts['joined']} have joined")
    finish = time.monotonic() + world.options.minutes * 60
    await census(world, "the beginning")
    rounds = 0
    while time.monotonic() < finish:
        fault = FAULTS[rounds % len(FAULTS)]
        what = fault.what
        rounds += 1
        tell(f"now: {what}")
        begin = time.time()
        await fault.happens(world)
        await moves(world, what)
        await asyncio.sleep(5)
        check_limit(world, what, begin, time.time(), fault.forgot)
        await census(world, what, fault.gives_back)
        for gateway in world.gateways:
            if gateway.process.poll() is not None:
                world.fails(f"{what}: a gateway ended by itself with {gateway.process.returncode}")
    world.ended = True
    await asyncio.gather(*workers, *world.presses, return_exceptions=True)
    return rounds


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="default: 10, at most 1440")
    parser.add_argument("--visitors", type=int, default=3_000, help="who are there at once; default: 3000")
    parser.add_argument("--binary", type=pathlib.Path, default=RELEASE / "tidegate", help="default: target/release/tidegate")
    options = parser.parse_args()
    if not 0 < options.minutes <= 1_440 or not CAPACITY < options.visitors <= 20_000:
        parser.error(f"from 0 to 1440 minutes, and from {CAPACITY + 1} to 20000 visitors")
    options.binary = options.binary.absolute()
    if not options.binary.exists():
        parser.error(f"{options.binary} is not built: run `make release`")
    return options


def main():
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    try:
        with Ground() as ground:
            world = World(ground, options, redis_port=free_port())
            world.redis = redis_server(ground, world.redis_port)
            ground.write("tickets", "7" * 64).chmod(0o600)
            ground.write("hashes", "3" * 64).chmod(0o600)
            ground.write("rules.yaml", RULES.format(capacity=CAPACITY, limit=LIMIT))
            for _ in range(2):
                world.add_gateway()
            before = max(resident_bytes(gateway) for gateway in world.gateways)
            rounds = asyncio.run(play(world))
            after = max(resident_bytes(gateway) for gateway in world.gateways)
    except Failed as failure:
        sys.exit(f"benches/soak.py: {failure}")
    if world.most_inside > CAPACITY:
        world.fails(f"{world.most_inside} were called or inside, of {CAPACITY}")
    tell(f"{rounds} faults; {', '.join(f'{count:,} {what}' for what, count in sorted(world.counts.items()))}")
    tell(f"most called or inside at once: {world.most_inside} of {CAPACITY}; memory of a gateway: {before / 2**20:.0f} MiB at first, {after / 2**20:.0f} MiB at last")
    if world.wrong:
        sys.exit(f"{world.counts['faults']} things did not hold, the first: {world.wrong[0]}")
    tell("everything held")


if __name__ == "__main__":
    main()
