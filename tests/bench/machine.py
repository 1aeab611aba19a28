"""The machine, and the versions of all measured software."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

from contenders import Contender
from track import Track
from workers import interpreter

_VERSIONS = """\
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def machine(track: Track) -> dict[str, str]:
    """Return the description of the machine, by name."""
    server = track.client.info("server")
    name = server.get("server_name", "redis")
    return {
        "Python": platform.python_version(),
        "system": platform.platform(),
        "CPU": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load before": f"{os.getloadavg()[0]:.2f}",
        name.capitalize(): server.get(f"{name}_version", server["redis_version"]),
        "endpoint": track.quick.name,
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def versions(contender: Contender) -> dict[str, str]:
    """Return the versions of the installed distributions of a library."""
    program = interpreter(contender)
    if not program.exists():
        return {}
    told = subprocess.run(
        [program, "-c", _VERSIONS, *contender.distributions],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(told.stdout)
    return found
