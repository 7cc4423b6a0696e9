#!/usr/bin/env python3
"""Measures the host side by side with `wasmtime serve`, and writes docs/benchmarks.md.

Both serve the same component on this machine, in turns, and are loaded by wrk on the same machine; what counts is the
ratio of two runs that follow each other. `make bench` brings the tools and builds the release binary first.
Knows nothing of the host's inside: everything is measured through the program.
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
import statistics
import subprocess
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(
    os.environ.get("WHARF_CACHE")
    or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "wharf"
)
HELLO = REPOSITORY / "guest-examples/build/hello-wasi-http.wasm"
PYTHON = REPOSITORY / "guest-examples/build/hello-python.wasm"
VERSION = REPOSITORY / "tests/guests/build/version.wasm"
MARKER = b"VERSION-00000000"

# A wait that is not over by then has failed.
PATIENCE_S = 180


def tool(name):
    """A program of the cache folder, or of this machine."""
    for place in (CACHE / "tools/bin", CACHE / "debian/usr/bin"):
        if (place / name).exists():
            return str(place / name)
    found = shutil.which(name)
    if not found:
        raise SystemExit(f"bench: {name} is missing: run `scripts/setup bench`")
    return found


def environment():
    """For programs of the cache folder: Debian's libraries that were unpacked beside them."""
    libraries = f"{CACHE}/debian/usr/lib/{platform.machine()}-linux-gnu:{CACHE}/debian/usr/lib"
    return {**os.environ, "LD_LIBRARY_PATH": libraries}


def eventually(what, condition, pause_s=0.0005):
    """Waits until a condition gives something, and returns that."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(pause_s)
    raise SystemExit(f"bench: {what} did not come within {PATIENCE_S} s")


class Host:
    """The host, with a folder of its own."""

    def __init__(self, folder, settings=""):
        self.folder = pathlib.Path(folder)
        self.services = self.folder / "services"
        self.services.mkdir(parents=True, exist_ok=True)
        (self.folder / "wharf.toml").write_text(
            f'[host]\nlog = "warn"\n\n[http]\nlisten = "127.0.0.1:0"\n\n'
            f'[admin]\nlisten = "127.0.0.1:0"\n\n{settings}'
        )
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
        binary = target / "release/wharf"
        self.log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(
            [str(binary), "run", "--config", str(self.folder / "wharf.toml")],
            stdout=subprocess.PIPE, stderr=self.log, text=True,
        )
        line = self.process.stdout.readline()
        found = re.match(r"listening http=(\S+) admin=(\S+)", line)
        if not found:
            raise SystemExit(f"bench: the host did not start; see {self.folder}/log")
        self.http, self.admin = found.groups()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=PATIENCE_S)
        self.log.close()

    def wait_ready(self):
        eventually("readiness", lambda: get(self.admin, "/readyz")[0] == 200, 0.002)

    def url(self, service):
        return f"http://{self.http}/invoke/{service}"

    def deploy(self, name, content):
        """Writes a component as a person's cp would, in place. Returns when it was closed."""
        with open(self.services / f"{name}.wasm", "wb") as file:
            file.write(content)
        return time.monotonic()

    def resident_kib(self):
        """Memory that is the host's own: anonymous pages, and pages of files that it alone holds."""
        rollup = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss:\s+(\d+)", rollup, re.M).group(1))


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


def get(address, path):
    """One request. Status 0 when the host cannot be reached."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


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


class Report:
    """Lines for the terminal and the table."""

    def __init__(self):
        self.rows = []

    def add(self, what, measured, target, reached):
        verdict = "yes" if reached else "**no**"
        self.rows.append(f"| {what} | {measured} | {target} | {verdict} |")
        print(f"{what}: {measured} (target: {target}; reached: {'yes' if reached else 'NO'})", flush=True)


def bench_fresh(report, rounds, seconds):
    with tempfile.TemporaryDirectory() as folder, Host(folder) as host:
        host.deploy("hello", HELLO.read_bytes())
        eventually("hello", lambda: get(host.http, "/invoke/hello")[0] == 200)
        with Peer(HELLO) as peer:
            ours, theirs = in_turns(host.url("hello"), peer.url, 32, rounds, seconds)
            ratio = ours["rate"] / theirs["rate"]
            report.add(
                "fresh instance each, 32 connections",
                f"{ours['rate']:,.0f} against {theirs['rate']:,.0f} requests/s, ratio {ratio:.2f}",
                "at least 2.0", ratio >= 2,
            )
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
        host.deploy("hello", HELLO.read_bytes())
        eventually("hello", lambda: get(host.http, "/invoke/hello")[0] == 200)
        with Peer(HELLO, "--max-instance-reuse-count=1000") as peer:
            ours, theirs = in_turns(host.url("hello"), peer.url, 32, rounds, seconds)
            ratio = ours["rate"] / theirs["rate"]
            report.add(
                "an instance reused 1,000 times, 32 connections",
                f"{ours['rate']:,.0f} against {theirs['rate']:,.0f} requests/s, ratio {ratio:.2f}",
                "at least 1.0", ratio >= 1,
            )


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
        host.deploy("hello", HELLO.read_bytes())
        eventually("hello", lambda: get(host.http, "/invoke/hello")[0] == 200)
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


def machine():
    model = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)
    name = model.group(1) if model else platform.machine()
    return f"{os.cpu_count()} cores of {name}, {int(memory) // 2**20} GiB, Linux {platform.release()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs; writes no table")
    parser.add_argument("only", nargs="*", help="fresh, reuse, deploy, interpreted, many; all when none is named")
    arguments = parser.parse_args()
    rounds, seconds = (1, 2) if arguments.quick else (5, 5)
    parts = {
        "fresh": lambda report: bench_fresh(report, rounds, seconds),
        "reuse": lambda report: bench_reuse(report, rounds, seconds),
        "deploy": lambda report: bench_deploy(report, 10 if arguments.quick else 30),
        "interpreted": lambda report: bench_interpreted(report, seconds),
        "many": lambda report: bench_many(report, 200),
    }
    report = Report()
    for name in arguments.only or parts:
        parts[name](report)
    if arguments.quick or arguments.only:
        return
    version = subprocess.run([tool("wasmtime"), "--version"], check=True, capture_output=True, text=True).stdout.strip()
    text = (
        "# Benchmarks\n\n"
        "Written by `make bench`. The load generator runs on the same machine, so only ratios mean anything; they are\n"
        "taken from runs in turns, each the median of several.\n\n"
        f"- Date: {datetime.date.today().isoformat()}\n- Machine: {machine()}\n- Peer: `{version}`, `serve -Scli`\n\n"
        "| what | measured | target | reached |\n| --- | --- | --- | --- |\n" + "\n".join(report.rows) + "\n"
    )
    target = REPOSITORY / "docs/benchmarks.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)
    print(f"written to {target.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
