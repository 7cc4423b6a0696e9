#!/usr/bin/env python3
"""Measures the host side by side with what a user would pick instead, and writes docs/benchmarks.md.

Everything is measured through the built program, on one machine, in turns; what counts is the ratio of runs that follow
each other. `make bench` brings the tools and builds the release binaries first.
"""

import argparse
import contextlib
import datetime
import subprocess

import connectors
import serving
from common import REPOSITORY, Report, machine, tool


def version(program, *arguments):
    output = subprocess.run([tool(program), *arguments], check=True, capture_output=True, text=True)
    return (output.stdout or output.stderr).splitlines()[0].strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer, shorter and smaller runs; writes no table")
    names = [*serving.parts(True), *connectors.parts(True)]
    parser.add_argument("only", nargs="*", metavar="PART", help=f"{', '.join(names)}; all when none is named")
    arguments = parser.parse_args()
    chapters = {
        "Serving": serving.parts(arguments.quick),
        "Connections": connectors.parts(arguments.quick),
    }
    for name in arguments.only:
        if name not in names:
            parser.error(f"no part has the name {name}; there are {', '.join(names)}")
    text = [
        "# Benchmarks\n\n"
        "Written by `make bench`. Load generators, servers and peers run on the same machine, so only ratios mean anything;\n"
        "they are taken from runs in turns.\n\n"
        f"- Date: {datetime.date.today().isoformat()}\n- Machine: {machine()}\n"
        f"- Peers: {version('wasmtime', '--version')} (`serve -Scli`), {version('rclone', 'version')}, "
        f"{version('lftp', '--version').split(' | ')[1].replace('Version', 'lftp')}, {version('curl', '--version').split(' (')[0]}, "
        f"{version('ssh', '-V').split(',')[0]}\n"
    ]
    for chapter, parts in chapters.items():
        report = Report()
        for name, part in parts.items():
            if name in arguments.only or not arguments.only:
                part(report)
        text.append(
            f"\n## {chapter}\n\n| what | measured | target | reached |\n| --- | --- | --- | --- |\n"
            + "".join(f"{row}\n" for row in report.rows)
        )
    if arguments.quick or arguments.only:
        return
    target = REPOSITORY / "docs/benchmarks.md"
    target.write_text("".join(text))
    print(f"written to {target.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
