"""Print which layers confine a decoder on this machine, as a line of JSON: `python -m pipelines.confinement [UID]`.

It is a process of its own, because trying a layer cannot be undone and needs a process with one thread.
"""

from __future__ import annotations

import json
import sys

from pipelines.confinement import layers


def main(arguments: list[str]) -> str:
    """Return the layers as JSON."""
    available = layers.find(int(arguments[0]) if arguments else 0)
    return json.dumps({"layers": available.layers, "missing": dict(available.missing)})


if __name__ == "__main__":
    print(main(sys.argv[1:]))
