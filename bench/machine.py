"""Describe the machine that the numbers were measured on."""

import os
import platform
import sqlite3
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Final

from bench import disk, servers
from bench.measuring import Bench, quantiles

PACKAGES: Final = ("aiohttp", "aiosqlite", "fastapi", "uvicorn", "flask", "gunicorn", "websockets")
NODE_VERSIONS: Final = """
const { version } = require('better-sqlite3/package.json');
const db = new (require('better-sqlite3'))(':memory:');
const sqlite = db.prepare('select sqlite_version() v').get().v;
const ws = require('ws/package.json').version;
console.log(`Node.js ${process.version}, better-sqlite3 ${version} (SQLite ${sqlite}), ws ${ws}`);
"""


def describe(bench: Bench) -> dict[str, str]:
    """Return the machine's facts, each under the name it is shown with."""
    synced = quantiles(disk.sync_ms(bench.directory, rate=0, seconds=2.0))
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return {
        "Processor": f"{os.cpu_count()} cores, {_processor()}",
        "Cores": f"servers {bench.server_cores}, load generator {bench.generator.cores}",
        "Kernel": f"{platform.system()} {platform.release()}",
        "Disk": f"write + fdatasync of 4 KiB: p50 {synced['p50']:.2f} ms,"
        f" p99 {synced['p99']:.2f} ms",
        "Python": f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}; {versions}",
        "Node.js": _node(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _node() -> str:
    try:
        done = subprocess.run(
            ["node", "-e", NODE_VERSIONS],
            cwd=servers.PEERS,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "not there, or without its packages: `make bench` installs them"
    return done.stdout.strip().removeprefix("Node.js ")
