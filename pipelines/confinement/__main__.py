"""Say which layers confine a decoder on this machine: `python -m pipelines.confinement [UID]`, one line of JSON.

A process of its own, since what is tried cannot be taken back and needs a process with one thread.
"""

from __future__ import annotations

import json
import sys

from pipelines.confinement import layers


def main(arguments: list[str]) -> str:
    found = layers.find(int(arguments[0]) if arguments else 0)
    return json.dumps({"layers": found.layers, "missing": dict(found.missing)})


if __name__ == "__main__":
    print(main(sys.argv[1:]))
