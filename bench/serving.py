"""Serving: the host side by side with `wasmtime serve`, and what only the host does.

Both serve the same component on this machine, in turns, and are loaded by wrk on the same machine; what counts is the
ratio of two runs that follow each other.
"""

import re
import statistics
import subprocess
import tempfile
import time

from common import PATIENCE_S, REPOSITORY, Host, environment, eventually, get, tool

HELLO = REPOSITORY / "guest-examples/build/hello-wasi-http.wasm"
PYTHON = REPOSITORY / "guest-examples/build/hello-python.wasm"
VERSION = REPOSITORY / "tests/guests/build/version.wasm"
MARKER = b"VERSION-00000000"


class Peer:
    """`wasmtime serve` on a free port."""

    def __init__(self, component, *options):
        self.component, self.options = component, options

    def __enter__(self):
        self.process = subprocess.Popen(
            [tool("wasmtime"), "serve", "-Scli", "--addr=127.0.0.1:0", *self.options, str(self.component)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for line in self.process.stderr:
            found = re.search(r"http://([\d.:]+)/?", line)
            if found:
                self.address = found.group(1)
                return self
        raise SystemExit("bench: wasmtime serve did not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE_S)

    @property
    def url(self):
        return f"http://{self.address}/"


def wrk(url, connections, seconds):
    """Requests per second, and latencies in microseconds."""
    command = [tool("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment()).stdout
    if re.search(r"Non-2xx|Socket errors", output):
        raise SystemExit(f"bench: some requests failed:\n{output}")
    units = {"us": 1, "ms": 1000, "s": 1_000_000}
    def latency(percentile):
        value, unit = re.search(rf"{percentile}%\s+([\d.]+)(us|ms|s)", output).groups()
        return float(value) * units[unit]
    return {
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1)),
        "median": latency(50),
        "p99": latency(99),
    }


def in_turns(ours, theirs, connections, rounds, seconds):
    """Loads both in turns; the medians of each."""
    results = ([], [])
    for url in (ours, theirs):
        wrk(url, connections, 1)
    for _ in range(rounds):
        for url, into in zip((ours, theirs), results):
            into.append(wrk(url, connections, seconds))
    return [{key: statistics.median(run[key] for run in runs) for key in runs[0]} for runs in results]


def report_rates(report, what, host, peer, rounds, seconds, least):
    """Loads both with 32 connections, and reports the ratio of their requests per second."""
    ours, theirs = in_turns(host.url("hello"), peer.url, 32, rounds, seconds)
    ratio = ours["rate"] / theirs["rate"]
    report.add(
        f"{what}, 32 connections",
        f"{ours['rate']:,.0f} against {theirs['rate']:,.0f} requests/s, ratio {ratio:.2f}",
        f"at least {least:.1f}", ratio >= least,
    )


def deploy_hello(host):
    host.deploy("hello", HELLO.read_bytes())
    eventually("hello", lambda: get(host.http, "/invoke/hello")[0] == 200)


def bench_fresh(report, rounds, seconds):
    with tempfile.TemporaryDirectory() as folder, Host(folder) as host:
        deploy_hello(host)
        with Peer(HELLO) as peer:
            report_rates(report, "fresh instance each", host, peer, rounds, seconds, least=2)
            ours, theirs = in_turns(host.url("hello"), peer.url, 1, rounds, seconds)
            report.add(
                "fresh instance each, 1 connection",
                f"median {ours['median']:.0f} against {theirs['median']:.0f} us, "
                f"ratio {ours['median'] / theirs['median']:.2f}",
                "below 1.0", ours["median"] < theirs["median"],
            )


def bench_reuse(report, rounds, seconds):
    settings = '[services.hello]\nreuse = 1000\n'
    with tempfile.TemporaryDirectory() as folder, Host(folder, settings) as host:
        deploy_hello(host)
        with Peer(HELLO, "--max-instance-reuse-count=1000") as peer:
            report_rates(report, "an instance reused 1,000 times", host, peer, rounds, seconds, least=1)


def variant(number):
    """The version component with another marker in it."""
    original = VERSION.read_bytes()
    assert MARKER in original, "the version guest has lost its marker"
    return original.replace(MARKER, b"VERSION-%08d" % number)


def bench_deploy(report, rounds):
    took = []
    with tempfile.TemporaryDirectory() as folder, Host(folder) as host:
        for number in range(1, rounds + 1):
            marker = b"VERSION-%08d" % number
            closed = host.deploy("version", variant(number))
            eventually("the new version", lambda: marker in get(host.http, "/invoke/version")[1])
            took.append((time.monotonic() - closed) * 1000)
    median = statistics.median(took)
    size = VERSION.stat().st_size // 1000
    report.add(
        f"from closing a changed component of {size} KB to its first answer",
        f"median {median:.0f} ms, slowest {max(took):.0f} ms of {rounds}", "at most 250 ms", median <= 250,
    )


def bench_interpreted(report, seconds):
    with tempfile.TemporaryDirectory() as folder, Host(folder) as host:
        deploy_hello(host)
        # A moderate load: one connection, so that the machine is not busy already.
        usual = statistics.median(wrk(host.url("hello"), 1, seconds)["p99"] for _ in range(3))
        begun = host.deploy("python", PYTHON.read_bytes())
        during = []
        while get(host.http, "/invoke/python")[0] != 200:
            during.append(wrk(host.url("hello"), 1, 2)["p99"])
        compiled_s = time.monotonic() - begun
        # The last one may have run into the time after.
        during = during[:-1] or during
        worst = statistics.median(during)
        report.add(
            "p99 of a running service while a Python component is compiled",
            f"{worst:.0f} us against {usual:.0f} us usually, ratio {worst / usual:.2f}; "
            f"the compiler took {compiled_s:.1f} s beside that load",
            "at most 2.0", worst <= 2 * usual,
        )
        took = []
        for _ in range(5):
            (host.services / "python.wasm").unlink()
            eventually("the undeployment", lambda: get(host.http, "/invoke/python")[0] == 404)
            closed = host.deploy("python", PYTHON.read_bytes())
            eventually("python again", lambda: get(host.http, "/invoke/python")[0] == 200)
            took.append((time.monotonic() - closed) * 1000)
        median = statistics.median(took)
        report.add(
            "a Python component seen before, from closing it to its first answer",
            f"median {median:.0f} ms", "at most 300 ms", median <= 300,
        )


def bench_many(report, count):
    with tempfile.TemporaryDirectory() as folder:
        host = Host(folder)
        for number in range(count):
            host.deploy(f"service-{number}", variant(number))
        host.start()
        try:
            host.wait_ready()
        finally:
            host.stop()
        took = []
        for _ in range(5):
            begun = time.monotonic()
            host.start()
            try:
                host.wait_ready()
                took.append(time.monotonic() - begun)
                full = host.resident_kib()
            finally:
                host.stop()
        for number in range(1, count):
            (host.services / f"service-{number}.wasm").unlink()
        host.start()
        try:
            host.wait_ready()
            one = host.resident_kib()
        finally:
            host.stop()
    median = statistics.median(took)
    report.add(
        f"restart with {count} deployed and cached services, until ready",
        f"median {median * 1000:.0f} ms", "at most 1,000 ms", median <= 1,
    )
    each = (full - one) / (count - 1)
    report.add(
        f"memory of each further idle service of {VERSION.stat().st_size // 1000} KB",
        f"{each:.0f} KiB (proportional set size, {count} services against 1)", "at most 256 KiB", each <= 256,
    )


def parts(quick):
    """What can be measured, by name."""
    rounds, seconds = (1, 2) if quick else (5, 5)
    return {
        "fresh": lambda report: bench_fresh(report, rounds, seconds),
        "reuse": lambda report: bench_reuse(report, rounds, seconds),
        "deploy": lambda report: bench_deploy(report, 10 if quick else 30),
        "interpreted": lambda report: bench_interpreted(report, seconds),
        "many": lambda report: bench_many(report, 200),
    }
