"""What all benchmarks share: finding programs, running the host, and the table of results.

Knows nothing of what is measured.
"""

import http.client
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(
    os.environ.get("WHARF_CACHE")
    or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "wharf"
)

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


def built(name):
    """A release binary of this repository."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    return str(target / "release" / name)


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
            f'[host]\nlog = "warn"\negress-allow = ["127.0.0.0/8"]\n\n[http]\nlisten = "127.0.0.1:0"\n\n'
            f'[admin]\nlisten = "127.0.0.1:0"\n\n{settings}'
        )
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        self.log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(
            [built("wharf"), "run", "--config", str(self.folder / "wharf.toml")],
            stdout=subprocess.PIPE, stderr=self.log, text=True,
        )
        line = self.process.stdout.readline()
        found = re.match(r"listening http=(\S+) admin=(\S+)", line)
        if not found:
            raise SystemExit(f"bench: the host did not start:\n{(self.folder / 'log').read_text()}")
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


def get(address, path, timeout_s=PATIENCE_S):
    """One request. Status 0 when the host cannot be reached."""
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class Report:
    """Lines for the terminal and the table."""

    def __init__(self):
        self.rows = []

    def add(self, what, measured, target, reached):
        verdict = "yes" if reached else "**no**"
        self.rows.append(f"| {what} | {measured} | {target} | {verdict} |")
        print(f"{what}: {measured} (target: {target}; reached: {'yes' if reached else 'NO'})", flush=True)


def machine():
    model = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)
    name = model.group(1) if model else platform.machine()
    return f"{os.cpu_count()} cores of {name}, {int(memory) // 2**20} GiB, Linux {platform.release()}"
