"""Connections: files moved by a service, beside what a user would pick instead, on the same servers in the same run.

A service that reads here and writes there is measured from its call to its answer; a peer from its start to its end.
Content lies in memory where there is room for it, so that no disk is measured.
"""

import contextlib
import json
import os
import pathlib
import shutil
import ssl
import statistics
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from common import PATIENCE_S, REPOSITORY, Host, built, environment, eventually, get, tool

FILES = REPOSITORY / "tests/guests/build/files.wasm"
# Those that all of them have: the first choice of OpenSSH, and the one that costs least.
CIPHERS = ("chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com")
MIB = 1 << 20
# There and back.
ROUND_TRIP_MS = 50
# The credentials of the emulator, which opens an account in memory only.
DROPBOX_TOKEN = "emulator-access-token"


@contextlib.contextmanager
def folder(room_bytes):
    """A temporary folder, in memory where that has room for so much."""
    memory = pathlib.Path("/dev/shm")
    fits = memory.is_dir() and shutil.disk_usage(memory).free > 2 * room_bytes
    with tempfile.TemporaryDirectory(dir=memory if fits else None) as path:
        yield pathlib.Path(path)


class Server:
    """A real server, started by its script."""

    def __init__(self, name, place, *settings):
        self.name = name
        self.command = [REPOSITORY / "tests/servers" / name / "start", place, *settings]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        self.facts = {}
        for line in self.process.stdout:
            key, _, value = line.strip().partition("=")
            self.facts[key] = value
            if key == "pid":
                self.home = pathlib.Path(self.facts["home"])
                self.port = int(self.facts["port"])
                return self
        raise SystemExit(f"bench: {self.name} did not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE_S)


class Emulator:
    """The emulator of Dropbox."""

    def __init__(self, place, room):
        self.certificate = pathlib.Path(place) / "emulator-ca.pem"
        self.command = [built("dropbox-emulator"), "--ca-file", self.certificate, "--max-bytes", room]

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        self.port = int(self.process.stdout.readline().split()[1].rpartition(":")[2])
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE_S)

    def files(self):
        context = ssl.create_default_context(cafile=self.certificate)
        with urllib.request.urlopen(f"https://127.0.0.1:{self.port}/emulator/files", context=context) as response:
            return json.load(response)["files"]


@contextlib.contextmanager
def delayed(port, mode=""):
    """A port that leads to this one with the round trip's delay."""
    command = [REPOSITORY / "bench/latency_proxy.py", str(ROUND_TRIP_MS / 2), str(port), mode]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(timeout=PATIENCE_S)


def sftp_connection(name, server, port):
    key = pathlib.Path(server.facts["key"])
    return (
        f'[connections.{name}]\ntype = "sftp"\nhost = "127.0.0.1"\nport = {port}\nuser = "alice"\n'
        f'private-key = {{ file = "{key}" }}\nhost-keys = ["{server.facts["fingerprint"]}"]\nroot = "{server.home}"\n\n'
    )


def ftp_connection(name, place, port):
    password = pathlib.Path(place) / "ftp-password"
    password.touch(mode=0o600)
    password.write_text("secret")
    return (
        f'[connections.{name}]\ntype = "ftp"\nhost = "127.0.0.1"\nport = {port}\nuser = "alice"\n'
        f'password = {{ file = "{password}" }}\n\n'
    )


def dropbox_connection(name, emulator, place, port):
    token = pathlib.Path(place) / "dropbox-token"
    token.touch(mode=0o600)
    token.write_text(DROPBOX_TOKEN)
    url = f"https://127.0.0.1:{port}"
    return (
        f'[connections.{name}]\ntype = "dropbox"\naccess-token = {{ file = "{token}" }}\napi-url = "{url}"\n'
        f'content-url = "{url}"\ncertificate-authority = "{emulator.certificate}"\n\n'
    )


def local_connection(name, path):
    return f'[connections.{name}]\ntype = "local"\nfolder = "{path}"\n\n'


@contextlib.contextmanager
def relay_host(place, *connections):
    """A host with the relaying service, which may use all of them."""
    names = [connection.split("]")[0].split(".")[1] for connection in connections]
    grants = ", ".join(f'{{ connection = "{name}", access = "write" }}' for name in names)
    settings = "".join(connections) + f"[services.files]\ngrants = [{grants}]\ntimeout = \"1h\"\n"
    with Host(place / "host", settings) as host:
        host.deploy("files", FILES.read_bytes())
        eventually("the service", lambda: get(host.http, "/invoke/files")[0] not in (0, 404, 503))
        yield host


def call(host, **parameters):
    """Calls the service, and tells how long it took in seconds."""
    query = urllib.parse.urlencode({name.replace("_", "-"): value for name, value in parameters.items()})
    begun = time.monotonic()
    status, body = get(host.http, f"/invoke/files?{query}", timeout_s=3600)
    took = time.monotonic() - begun
    if status != 200:
        raise SystemExit(f"bench: the service answered {status}: {body.decode(errors='replace')}")
    return took, json.loads(body)


class Failed(Exception):
    """A program ended with an error."""


def run(command, extra=None):
    """Runs a peer: its wall-clock time and its processor time in seconds. Raises Failed."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [str(word) for word in command], env={**environment(), **(extra or {})},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"{command} failed:\n{error}")
    return time.monotonic() - begun, usage.ru_utime + usage.ru_stime


def obscured(password):
    output = subprocess.run([tool("rclone"), "obscure", password], check=True, capture_output=True, text=True)
    return output.stdout.strip()


def rclone(server, port, protocol):
    """The environment in which rclone knows the server as the remote `there`."""
    common = {
        "RCLONE_CONFIG": "/dev/null", "RCLONE_CONFIG_THERE_TYPE": protocol, "RCLONE_CONFIG_THERE_HOST": "127.0.0.1",
        "RCLONE_CONFIG_THERE_PORT": str(port), "RCLONE_CONFIG_THERE_USER": "alice",
    }
    if protocol == "ftp":
        return {**common, "RCLONE_CONFIG_THERE_PASS": obscured("secret")}
    return {**common, "RCLONE_CONFIG_THERE_KEY_FILE": server.facts["key"]}


def rclone_both_ways(there, near, far, down):
    copied = lambda source, target: run([tool("rclone"), "copyto", "--ignore-times", source, target], there)
    return lambda: copied(near, f"there:{far}"), lambda: copied(f"there:{far}", down)


def sftp_peers(server, port, place, near, far):
    """Upload and download with each peer: from `near` to `far`, and back to `near`.down."""
    down = f"{near}.down"
    options = [
        "-i", server.facts["key"], "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        "-o", "LogLevel=ERROR",
    ]
    scripts = {}
    for way, line in (("up", f"put {near} {far}"), ("down", f"get {far} {down}")):
        scripts[way] = pathlib.Path(place) / f"{way}.batch"
        scripts[way].write_text(line + "\n")
    sftp = lambda way: ["sftp", "-q", *options, "-P", port, "-b", scripts[way], "alice@127.0.0.1"]
    ssh = " ".join(["ssh", "-a", "-x", *options])
    lftp = lambda action: [
        tool("lftp"), "-c",
        f'set sftp:connect-program "{ssh}"; set net:timeout 60; open -u alice,x sftp://127.0.0.1:{port}; {action}',
    ]
    return {
        "OpenSSH sftp": (lambda: run(sftp("up")), lambda: run(sftp("down"))),
        "lftp": (lambda: run(lftp(f"put {near} -o {far}")), lambda: run(lftp(f"get {far} -o {down}"))),
        "rclone": rclone_both_ways(rclone(server, port, "sftp"), near, far, down),
    }


def ftp_peers(server, port, place, near, far):
    down = f"{near}.down"
    url = f"ftp://alice:secret@127.0.0.1:{port}{far}"
    lftp = lambda action: [tool("lftp"), "-c", f"set ftp:ssl-allow no; open -u alice,secret ftp://127.0.0.1:{port}; {action}"]
    return {
        "curl": (lambda: run([tool("curl"), "-sS", "-T", near, url]), lambda: run([tool("curl"), "-sS", "-o", down, url])),
        "lftp": (lambda: run(lftp(f"put {near} -o {far}")), lambda: run(lftp(f"get {far} -o {down}"))),
        "rclone": rclone_both_ways(rclone(server, port, "ftp"), near, far, down),
    }


PROTOCOLS = {"SFTP": ("openssh", sftp_peers, ""), "FTP": ("proftpd", ftp_peers, "ftp")}


def bench_protocol(report, protocol, size, rounds, latency, cipher=None):
    script, peers_of, proxy_mode = PROTOCOLS[protocol]
    settings = (f"Ciphers {cipher}",) if cipher else ()
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(folder(4 * size))
        near, down = place / "near", place / "near.down"
        near.write_bytes(os.urandom(MIB) * (size // MIB))
        server = stack.enter_context(Server(script, place / "server", *settings))
        port = stack.enter_context(delayed(server.port, proxy_mode)) if latency else server.port
        # The peers see the whole server, over FTP its home.
        far = f"{server.home}/theirs" if protocol == "SFTP" else "/theirs"
        peers = peers_of(server, port, place, near, far)
        connection = sftp_connection("far", server, port) if protocol == "SFTP" else ftp_connection("far", place, port)
        host = stack.enter_context(relay_host(place, connection, local_connection("near", place)))
        ours = (
            lambda: call(host, op="relay", source_connection="near", source="/near",
                         connection="far", path="/ours", if_exists="replace"),
            lambda: call(host, op="relay", source_connection="far", source="/ours",
                         connection="near", path="/near.down", if_exists="replace"),
        )
        took = {name: ([], []) for name in ("wharf", *peers)}
        for _ in range(rounds):
            for name, both in {"wharf": ours, **peers}.items():
                try:
                    for way, seconds in zip(both, took[name]):
                        seconds.append(way()[0])
                    if down.stat().st_size != size:
                        raise SystemExit(f"bench: {name} brought {down.stat().st_size} bytes of {size}")
                except Failed as failure:
                    # A peer that cannot do it is out of the race, and the table says so.
                    print(failure, flush=True)
                for written in (down, server.home / "theirs", server.home / "ours"):
                    written.unlink(missing_ok=True)
    line = f" at {ROUND_TRIP_MS} ms" if latency else ""
    for index, way in enumerate(("up", "down")):
        rates = {
            name: size / MIB / statistics.median(both[index]) if both[index] else 0 for name, both in took.items()
        }
        mine = rates.pop("wharf")
        best = max(rates, key=rates.get)
        others = ", ".join(f"{name} {rate:.0f}" if rate else f"{name} (failed)" for name, rate in rates.items())
        report.add(
            f"{protocol} {way}{f', {cipher}' if cipher else ''}, {size // MIB} MiB through a service{line}",
            f"{mine:.0f} MiB/s against {others}; ratio to the fastest {mine / rates[best]:.2f}",
            "at least 1.0", mine >= rates[best],
        )


def bench_many_files(report, count):
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(folder(64 * MIB))
        server = stack.enter_context(Server("proftpd", place / "server"))
        emulator = stack.enter_context(Emulator(place, "2GiB"))
        for number in range(count):
            path = server.home / "many" / f"{number:04}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(os.urandom(4096))
        port = stack.enter_context(delayed(emulator.port))
        proxy = stack.enter_context(delayed(emulator.port, "connect"))
        connections = (
            ftp_connection("partner", place, server.port), dropbox_connection("team", emulator, place, port),
        )
        with relay_host(place, *connections) as host:
            mine, answer = call(
                host, op="transfer", connection="partner", path="/many", target_connection="team", target="/ours",
                verify="size", resume="no",
            )
        if answer["transferred"] != count:
            raise SystemExit(f"bench: {answer['transferred']} of {count} files were transferred")
        token = {
            "access_token": DROPBOX_TOKEN, "token_type": "bearer", "refresh_token": "R", "expiry": "2099-01-01T00:00:00Z",
        }
        there = {
            **rclone(server, server.port, "ftp"), "RCLONE_CONFIG_DBX_TYPE": "dropbox",
            "RCLONE_CONFIG_DBX_TOKEN": json.dumps(token), "HTTPS_PROXY": f"http://127.0.0.1:{proxy}",
            "SSL_CERT_FILE": str(emulator.certificate), "NO_PROXY": "", "no_proxy": "",
        }
        theirs, _ = run([tool("rclone"), "copy", "there:/many", "dbx:theirs"], there)
        arrived = sum(file["path"].startswith("/theirs/") for file in emulator.files())
        if arrived != count:
            raise SystemExit(f"bench: rclone brought {arrived} of {count} files")
    report.add(
        f"{count} files of 4 KiB from FTP to Dropbox at {ROUND_TRIP_MS} ms, both with defaults",
        f"{mine:.1f} s against {theirs:.1f} s of rclone, ratio {theirs / mine:.1f}", "above 1.0", mine < theirs,
    )


def growth_during(host, work):
    """How far the host's memory rises above what it was, in MiB, while the work is done on another thread."""
    before = host.resident_kib()
    most = before
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(work)
        while not doing.done():
            most = max(most, host.resident_kib())
            time.sleep(0.1)
        result = doing.result()
    return (most - before) / 1024, result


def bench_memory(report, size):
    """Streams of zeros, which need no room at their source."""
    with contextlib.ExitStack() as stack:
        # On a disk: more than the memory may hold twice.
        place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ftp = stack.enter_context(Server("proftpd", place / "ftp"))
        sftp = stack.enter_context(Server("openssh", place / "sftp"))
        emulator = stack.enter_context(Emulator(place, f"{size // MIB + 1024}MiB"))
        with open(ftp.home / "large", "wb") as file:
            file.truncate(size)
        connections = (
            ftp_connection("ftp", place, ftp.port), sftp_connection("sftp", sftp, sftp.port),
            dropbox_connection("team", emulator, place, emulator.port),
        )
        host = stack.enter_context(relay_host(place, *connections))
        for what, source, target, path in (
            ("FTP to SFTP", "ftp", "sftp", "/large"), ("SFTP to Dropbox", "sftp", "team", "/large"),
        ):
            grown, (took, entry) = growth_during(host, lambda: call(
                host, op="relay", source_connection=source, source="/large", connection=target, path=path,
            ))
            report.add(
                f"the host's growth while {size >> 30} GiB pass a service, {what}",
                f"{grown:.0f} MiB, at {size / MIB / took:.0f} MiB/s", "below 64 MiB", grown < 64,
            )


def bench_transfer(report, size):
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(folder(4 * size))
        ftp = stack.enter_context(Server("proftpd", place / "ftp"))
        sftp = stack.enter_context(Server("openssh", place / "sftp", f"Ciphers {CIPHERS[1]}"))
        (ftp.home / "large").write_bytes(os.urandom(MIB) * (size // MIB))
        configuration = place / "wharf.toml"
        configuration.write_text(
            '[host]\negress-allow = ["127.0.0.0/8"]\n\n' + ftp_connection("ftp", place, ftp.port)
            + sftp_connection("sftp", sftp, sftp.port)
        )
        there = {
            **rclone(ftp, ftp.port, "ftp"),
            **{key.replace("THERE", "SF"): value for key, value in rclone(sftp, sftp.port, "sftp").items()},
        }
        costs = ([], [])
        for _ in range(3):
            copied = [built("wharf"), "cp", "--config", configuration, "--if-exists", "replace", "ftp:/large", "sftp:/ours"]
            costs[0].append(run(copied))
            (sftp.home / "ours").unlink()
            copied = [tool("rclone"), "copyto", "--ignore-times", "there:/large", f"SF:{sftp.home}/theirs"]
            costs[1].append(run(copied, there))
            (sftp.home / "theirs").unlink()
    (wall, cost), (their_wall, their_cost) = (
        [statistics.median(values) for values in zip(*measured)] for measured in costs
    )
    report.add(
        f"processor time of a transfer on the host's side, {size // MIB} MiB from FTP to SFTP",
        f"{cost:.1f} s (in {wall:.1f} s) against {their_cost:.1f} s (in {their_wall:.1f} s) of rclone, "
        f"ratio {cost / their_cost:.2f}",
        "at most 1.2", cost <= 1.2 * their_cost,
    )


def parts(quick):
    """What can be measured, by name."""
    large, small = (128 * MIB, 32 * MIB) if quick else (1024 * MIB, 128 * MIB)
    rounds = 1 if quick else 3
    return {
        "sftp": lambda report: [
            bench_protocol(report, "SFTP", large, rounds, latency=False, cipher=cipher) for cipher in CIPHERS
        ],
        "sftp-latency": lambda report: bench_protocol(report, "SFTP", small, 1, latency=True, cipher=CIPHERS[1]),
        # The fastest take as long as the server does, which differs from round to round by more than they do.
        "ftp": lambda report: bench_protocol(report, "FTP", large, 1 if quick else 9, latency=False),
        # Both: what a login and the questions around a file cost shows with the small one.
        "ftp-latency": lambda report: [
            bench_protocol(report, "FTP", size, 1 if quick else 5, latency=True) for size in (large, small)
        ],
        "many-files": lambda report: bench_many_files(report, 200 if quick else 1000),
        "memory": lambda report: bench_memory(report, (1 if quick else 10) << 30),
        "transfer": lambda report: bench_transfer(report, large),
    }
