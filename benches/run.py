#!/usr/bin/env python3
"""CPU time for each request, and latency, of Tidegate, bare Pingora and nginx: in one run, taken in turn.

Usage: benches/run.py [--quick] [--rounds N] [--seconds S] [--proxies bare,nginx,tidegate] [--store redis|memory]

Needs target/release/tidegate and target/release/examples/bare (`make bench` builds them), nginx, wrk, openssl and,
for the redis store, redis-server. Everything runs on loopback, on free ports, in a temporary folder that is removed;
what was started is ended. README.md beside this file says what is measured and gets the table.
"""

import argparse
import contextlib
import datetime
import http.client
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).resolve().parent
RELEASE = HERE.parent / "target" / "release"
README = HERE / "README.md"
MARKS = ("<!-- table: begin -->", "<!-- table: end -->")

CONNECTIONS = 64
BODY_BYTES = 128
READY_SECONDS = 15
END_SECONDS = 5
QUIET_SHARE = 0.7  # of its core that bare Pingora uses at least on the plain row when nothing else runs
SLACK_SECONDS = 10  # beyond its own duration, before a run of the load is given up
TICKS = os.sysconf("SC_CLK_TCK")
PROXIES = ("nginx", "bare", "tidegate")

# The bodies that nginx and bare Pingora give back when Tidegate is not there to show its own.
STAND_INS = {"limited": b"x" * 200, "page": b"x" * 12_000, "status": b"x" * 150}


@dataclass(frozen=True)
class Row:
    """One thing that is measured: what to ask, of each proxy, and what they must answer."""

    title: str
    paths: dict  # proxy -> path
    tls: bool = False
    status: int = 200
    ticket: bool = False  # Tidegate is shown a ticket: someone who waits already


def same(path):
    return {proxy: path for proxy in PROXIES}


def tidegates(path, peers):
    return {**same(peers), "tidegate": path}


ROWS = [
    Row("plain", same("/pass/")),
    Row("TLS", same("/pass/"), tls=True),
    Row("steps and a limit", same("/steps/")),
    Row("429", same("/limited"), status=429),
    Row("waiting page", tidegates("/guarded", "/page"), ticket=True),
    Row("status poll", tidegates("/queue/status", "/status"), ticket=True),
]


@dataclass
class Proxy:
    name: str
    plain: int
    tls: int
    process: subprocess.Popen
    headers: dict = field(default_factory=dict)

    def cpu_seconds(self):
        """User and system time of the process and of all below it, so far."""
        return sum(times for _, times in process_tree(self.process.pid)) / TICKS


@dataclass(frozen=True)
class Sample:
    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    busy: float  # share of one core that the proxy used


class Failed(Exception):
    """The run cannot go on; the text says why and what to do."""


# Processes


def process_tree(root):
    """Pid and ticks of CPU of `root` and its descendants, those that have ended already included."""
    parents, ticks = {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                rest = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(rest[1])
                ticks[int(entry.name)] = sum(int(n) for n in rest[11:15])
    if root not in ticks:
        raise Failed(f"process {root} has ended; its log was the last thing shown")
    family = {root}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return [(pid, ticks[pid]) for pid in family]


class Ground:
    """A temporary folder, free ports, and the processes of this run; leaving it ends and removes them all."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-"))
        self.folder.chmod(0o755)  # nginx, started by root, has workers that are not
        self.started = []
        cores = sorted(os.sched_getaffinity(0))
        self.proxy_cores = {cores[-1]}
        self.load_cores = set(cores[:-1]) or {cores[0]}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.started):
            end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def start(self, name, command, cores, ports):
        """Starts a process on `cores` and waits until it takes connections on `ports`."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
        self.started.append(process)
        for port in ports:
            self.wait_for(name, process, port, log)
        return process

    def wait_for(self, name, process, port, log):
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.02)
        raise Failed(f"{name} does not listen on {port}:\n{log.read_text(errors='replace')[-3000:]}")


def end(process):
    """Ends one process that this run started: asks, waits, insists."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_SECONDS)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# What stands on the ground

NGINX = """
daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.error crit;
events {{ worker_connections 4096; }}
http {{
  access_log {log}; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  {rest}
}}
"""

NGINX_UPSTREAM = """
  server {{ listen 127.0.0.1:{port} backlog=4096; default_type text/plain; location / {{ return 200 "{body}"; }} }}
"""

NGINX_PROXY = """
  open_file_cache max=16 inactive=600s; open_file_cache_valid 600s;
  limit_req_zone $binary_remote_addr zone=clients:1m rate=1000000r/s;
  upstream origin {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{plain} backlog=4096; listen 127.0.0.1:{tls} ssl backlog=4096;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    proxy_http_version 1.1; proxy_set_header Connection "";
    location /pass/ {{ proxy_pass http://origin; }}
    location /steps/ {{
      deny 203.0.113.0/24; limit_req zone=clients burst=100000 nodelay;
      proxy_set_header Connection ""; proxy_set_header X-Edge bench; add_header X-Served-By bench;
      proxy_pass http://origin;
    }}
    location = /limited {{ return 429 "{limited}"; }}
    location = /page {{ default_type text/html; alias {folder}/answers/page; }}
    location = /status {{ default_type application/json; alias {folder}/answers/status; }}
  }}
"""

TIDEGATE = """
threads: 1
listeners:
  - bind: 127.0.0.1:{plain}
  - bind: 127.0.0.1:{tls}
    tls: {{ certificates: [{{ cert: cert.pem, key: key.pem }}] }}
admin: {{ bind: 127.0.0.1:{admin} }}
store: {store}
access_log: {{ to: {{ file: access.log }}, format: json }}
queue: {{ joins: 1000000/s, polls: 1000000/s }}
rules: [rules.yaml]
"""

TIDEGATE_RULES = """
upstreams:
  origin: { servers: ["127.0.0.1:UPSTREAM"] }
rooms:
  full: { capacity: { visitors: 1, pass: 1h }, abandon_after: 1h, keepalive: 1h }
routes:
  - { name: pass, match: { path: /pass/** }, chain: [], upstream: origin }
  - name: steps
    match: { path: /steps/** }
    chain:
      - ip_filter: { deny: [203.0.113.0/24] }
      - rate_limit: [{ name: ample, key: client_ip, limit: 1000000/s, tolerance: 5% }]
      - request_headers: { set: { x-edge: bench } }
      - response_headers: { set: { x-served-by: bench } }
    upstream: origin
  - name: limited
    match: { path: /limited }
    chain:
      - rate_limit: [{ name: scarce, key: client_ip, limit: 1/h, tolerance: 0 }]
    upstream: origin
  - { name: guarded, match: { path: /guarded }, chain: [waiting_room: { room: full }], upstream: origin }
"""


def certificate(ground):
    run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        + ["-keyout", ground.folder / "key.pem", "-out", ground.folder / "cert.pem"]
    )


def start_nginx(ground, name, cores, ports, log, rest):
    conf = ground.write(f"{name}.conf", NGINX.format(folder=ground.folder, name=name, log=log, rest=rest))
    return ground.start(name, ["nginx", "-p", ground.folder, "-c", conf, "-e", ground.folder / f"{name}.error"], cores, ports)


def start_upstream(ground):
    port = free_port()
    rest = NGINX_UPSTREAM.format(port=port, body="u" * BODY_BYTES)
    start_nginx(ground, "upstream", ground.load_cores, [port], "off", rest)
    return port


def start_proxy_nginx(ground, upstream, answers):
    plain, tls = free_port(), free_port()
    limited = "x" * len(answers["limited"])
    rest = NGINX_PROXY.format(plain=plain, tls=tls, upstream=upstream, folder=ground.folder, limited=limited)
    log = f"{ground.folder}/nginx.access combined buffer=64k"
    return Proxy("nginx", plain, tls, start_nginx(ground, "nginx", ground.proxy_cores, [plain, tls], log, rest))


def start_bare(ground, upstream, _answers):
    plain, tls = free_port(), free_port()
    command = [RELEASE / "examples" / "bare", f"127.0.0.1:{upstream}", f"127.0.0.1:{plain}", f"127.0.0.1:{tls}"]
    command += [ground.folder / "cert.pem", ground.folder / "key.pem", ground.folder / "answers"]
    return Proxy("bare", plain, tls, ground.start("bare", command, ground.proxy_cores, [plain, tls]))


def start_tidegate(ground, upstream, store):
    plain, tls, admin = free_port(), free_port(), free_port()
    if store == "redis":
        port = free_port()
        command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", ground.folder]
        ground.start("redis", command, ground.load_cores, [port])
        store = f"{{ redis: {{ urls: ['redis://127.0.0.1:{port}'] }} }}"
    conf = ground.write("tidegate.yaml", TIDEGATE.format(plain=plain, tls=tls, admin=admin, store=store))
    ground.write("rules.yaml", TIDEGATE_RULES.replace("UPSTREAM", str(upstream)))
    command = [RELEASE / "tidegate", "run", "-c", conf]
    return Proxy("tidegate", plain, tls, ground.start("tidegate", command, ground.proxy_cores, [plain, tls]))


def ask(port, path, headers=None):
    """Status, headers and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def fill_the_room(tidegate):
    """The first visitor takes the one place inside; the second gets a ticket, which the load will show."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        status, headers, body = ask(tidegate.plain, "/guarded", {"Accept": "text/html"})
        if status == 200 and headers.get_content_type() == "text/html":
            cookies = [cookie.partition(";")[0] for cookie in headers.get_all("Set-Cookie", [])]
            tidegate.headers = {"Accept": "text/html", "Cookie": "; ".join(cookies)}
            return body
        time.sleep(0.1)
    raise Failed(f"the room does not fill: a visitor without a pass got {status} {headers.get_content_type()}")


def answers_of(tidegate):
    """What Tidegate answers by itself, so that the others can answer with as many bytes."""
    page = fill_the_room(tidegate)
    ask(tidegate.plain, "/limited")
    status, _, limited = ask(tidegate.plain, "/limited")
    if status != 429:
        raise Failed(f"the second request in an hour got {status}, not 429")
    status, _, standing = ask(tidegate.plain, "/queue/status", tidegate.headers)
    if status != 200:
        raise Failed(f"a status poll with a ticket got {status}: {standing[:200]!r}")
    return {"limited": limited, "page": page, "status": standing}


def start_all(ground, options):
    certificate(ground)
    upstream = start_upstream(ground)
    proxies, answers = {}, STAND_INS
    if "tidegate" in options.proxies:
        proxies["tidegate"] = start_tidegate(ground, upstream, options.store)
        answers = answers_of(proxies["tidegate"])
    for name, body in answers.items():
        ground.write(f"answers/{name}", body)
    for name, start in (("nginx", start_proxy_nginx), ("bare", start_bare)):
        if name in options.proxies:
            proxies[name] = start(ground, upstream, answers)
    return [proxies[name] for name in PROXIES if name in proxies]


# Measuring


def measure(ground, proxy, row, seconds):
    scheme, port = ("https", proxy.tls) if row.tls else ("http", proxy.plain)
    command = ["wrk", "-t", 1, "-c", CONNECTIONS, "-d", f"{seconds}s", "--latency", "--timeout", "5s"]
    for name, value in (proxy.headers if row.ticket else {}).items():
        command += ["-H", f"{name}: {value}"]
    before = proxy.cpu_seconds()
    text = run(command + [f"{scheme}://127.0.0.1:{port}{row.paths[proxy.name]}"], ground.load_cores, seconds + SLACK_SECONDS)
    cpu = proxy.cpu_seconds() - before
    requests, elapsed = read_totals(text, f"{proxy.name}, {row.title}", row.status)
    latency = {share: milliseconds(value, unit) for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)\b", text)}
    return Sample(cpu / requests * 1e6, requests / elapsed, latency["50"], latency["99"], cpu / elapsed)


def read_totals(text, where, status):
    """Requests and seconds from what wrk says; an answer that was not asked for makes the figure worthless."""
    totals = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", text)
    if not totals or int(totals[1]) == 0:
        raise Failed(f"{where}: no request was answered:\n{text}")
    requests = int(totals[1])
    refused = int(found[1]) if (found := re.search(r"Non-2xx or 3xx responses: (\d+)", text)) else 0
    wrong = refused if status == 200 else requests - refused
    if wrong or "Socket errors" in text:
        raise Failed(f"{where}: {wrong} of {requests} answers were not {status}:\n{text}")
    return requests, milliseconds(totals[2], totals[3]) / 1e3


def milliseconds(value, unit):
    return float(value) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[unit]


def run(command, cores=None, seconds=30):
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, preexec_fn=pin)
    except FileNotFoundError:
        raise Failed(f"{command[0]} is not installed: run deploy/install-test-tools.sh") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[0]} did not end within {seconds} s") from None
    if done.returncode:
        raise Failed(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def measure_all(ground, proxies, options):
    """All samples, by row and proxy. Every round takes every row of every proxy, so that what drifts, drifts for all."""
    samples = {(row.title, proxy.name): [] for row in ROWS for proxy in proxies}
    for proxy in proxies:
        measure(ground, proxy, ROWS[0], 1)  # connections to the upstream, caches, clocks
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", flush=True)
        for row in ROWS:
            turn = number % len(proxies)
            for proxy in proxies[turn:] + proxies[:turn]:
                samples[row.title, proxy.name].append(measure(ground, proxy, row, options.seconds))
    return samples


# Telling


def table(samples, proxies):
    lines = ["| | | CPU us per request | x bare | requests/s | p50 ms | p99 ms | busy |", "|---|---|---|---|---|---|---|---|"]
    for row in ROWS:
        base = median(samples.get((row.title, "bare"), []), "cpu_us")
        for proxy in proxies:
            taken = samples[row.title, proxy.name]
            cpu = median(taken, "cpu_us")
            low, high = min(one.cpu_us for one in taken), max(one.cpu_us for one in taken)
            ratio = f"{cpu / base:.2f}" if base else ""
            title = row.title if proxy is proxies[0] else ""
            lines.append(
                f"| {title} | {proxy.name} | **{cpu:.1f}** [{low:.1f} to {high:.1f}] | {ratio} | {median(taken, 'per_second'):,.0f} "
                f"| {median(taken, 'p50_ms'):.2f} | {median(taken, 'p99_ms'):.2f} | {median(taken, 'busy'):.0%} |"
            )
    return "\n".join(lines)


def warning(samples):
    """Said with the table when something else took the machine's time: it belongs to the figures."""
    busy = median(samples.get(("plain", "bare"), []), "busy")
    if busy is None or busy >= QUIET_SHARE:
        return ""
    return (
        f"\n\n**The machine was not quiet**, or the load too weak: bare Pingora used {busy:.0%} of its core on the plain "
        f"row, below {QUIET_SHARE:.0%}. Do not compare these figures with others."
    )


def median(samples, name):
    return statistics.median(getattr(one, name) for one in samples) if samples else None


def facts(options):
    """What the figures depend on, and nothing that names the machine."""
    model = re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text())
    versions = [
        ("nginx", first_match(["nginx", "-v"], r"nginx/([\d.]+)")),
        ("wrk", first_match(["wrk", "-v"], r"wrk \S*?(\d[\d.]+)", any_exit=True)),
        ("rustc", first_match(["rustc", "--version"], r"rustc ([\d.]+)")),
        ("Pingora", re.search(r'name = "pingora"\nversion = "([\d.]+)"', (HERE.parent / "Cargo.lock").read_text())[1]),
    ]
    kernel = re.match(r"[\d.]+", platform.release())[0]
    return (
        f"{datetime.date.today()}: {len(os.sched_getaffinity(0))} cores ({model[1].strip() if model else platform.machine()}), "
        f"Linux {kernel}, " + ", ".join(f"{name} {version}" for name, version in versions) + f". Medians of {options.rounds} rounds "
        f"of {options.seconds} s [smallest to largest], {CONNECTIONS} connections, {BODY_BYTES}-byte upstream body, "
        f"Tidegate's store: {options.store}."
    )


def first_match(command, pattern, any_exit=False):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
    found = re.search(pattern, done.stdout + done.stderr) if any_exit or not done.returncode else None
    return found[1] if found else "of unknown version"


def write_readme(text):
    begin, finish = MARKS
    before, _, rest = README.read_text().partition(begin)
    _, _, after = rest.partition(finish)
    README.write_text(f"{before}{begin}\n\n{text}\n\n{finish}{after}")
    print(f"written to {README.relative_to(HERE.parent)}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds, and the table is only printed")
    parser.add_argument("--rounds", type=int, help="default: 6")
    parser.add_argument("--seconds", type=int, help="of each measurement, whole; default: 2")
    parser.add_argument("--proxies", default=",".join(PROXIES), help="which to measure, by comma; default: all")
    parser.add_argument("--store", choices=("redis", "memory"), default="memory", help="Tidegate's store; default: memory")
    parser.add_argument("--print", action="store_true", help="print the table and leave README.md alone")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 6)
    options.seconds = options.seconds or (1 if options.quick else 2)
    options.proxies = options.proxies.split(",")
    if unknown := set(options.proxies) - set(PROXIES):
        parser.error(f"no such proxy: {', '.join(sorted(unknown))}; there are {', '.join(PROXIES)}")
    return options


def check_tools(options):
    built = {"tidegate": RELEASE / "tidegate", "bare": RELEASE / "examples" / "bare"}
    for name, path in built.items():
        if name in options.proxies and not path.exists():
            raise Failed(f"target/release/{path.relative_to(RELEASE)} is not built: run `make bench`, or leave {name} out with --proxies")
    tools = ["nginx", "wrk", "openssl"] + (["redis-server"] if options.store == "redis" and "tidegate" in options.proxies else [])
    if missing := [tool for tool in tools if not shutil.which(tool)]:
        raise Failed(f"{', '.join(missing)} not installed: run deploy/install-test-tools.sh")


def main():
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    try:
        check_tools(options)
        with Ground() as ground:
            proxies = start_all(ground, options)
            samples = measure_all(ground, proxies, options)
            text = f"{facts(options)}{warning(samples)}\n\n{table(samples, proxies)}"
    except Failed as failure:
        sys.exit(f"benches/run.py: {failure}")
    print(text)
    if not (options.quick or options.print):
        write_readme(text)


if __name__ == "__main__":
    main()
