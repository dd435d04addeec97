"""The nodes of the cluster: which of them can confine a decoder. Files are given to those alone.

Each node is asked once, one that joins later when tasks are placed next. A node that has not answered, or could not
say, is given nothing while another has said that it can. Knows Ray's nodes and labels, not what runs on them.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import Rejected
from pipelines import stages
from pipelines.media import UNCONFINED, Failure
from pipelines.settings import IngestSettings

ANSWER_MAX_S = 180.0  # until a first node has said that it can: each starts a process, and loads the decoders
ANSWER_LOOK_S = 0.2
LOOK_INTERVAL_S = 2.0  # between looks at who has joined, while tasks are placed
ASK_AGAIN_S = 30.0  # a node that could not say
LABEL = "ray.io/node-id"  # each node has it from Ray


@dataclass
class _Node:
    """A node that has the CPUs to decode, and what it has said."""

    cpus: float
    asked: Any = None  # the answer to come
    answered: bool = False
    refusal: Failure | None = None  # of its answer; None: it can
    ask_again_at: float = 0.0  # monotonic, where the answer says nothing of confinement

    @property
    def is_able(self) -> bool:
        return self.answered and self.refusal is None

    @property
    def is_weak(self) -> bool:
        return self.refusal is not None and self.refusal.code == UNCONFINED


@dataclass
class Survey:
    """What the nodes have said. May be used by several threads.

    Nobody is asked where the settings accept nodes that cannot confine a decoder.
    """

    ingest: IngestSettings
    _nodes: dict[str, _Node] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)
    _looked_at: float = field(default=-math.inf, repr=False)

    def begin(self) -> None:
        """Ask the nodes, and wait for none.

        Raises:
            ray.exceptions.RayError: the cluster does not say which nodes it has.
        """
        if not self.ingest.sandbox_weaker_accepted:
            self._look()

    def require(self) -> None:
        """Wait until a node can confine a decoder, or all have answered; ANSWER_MAX_S at most.

        Raises:
            Rejected: each of them has refused. One that does not answer is taken for one that can.
            ray.exceptions.RayError: the cluster does not say which nodes it has.
        """
        deadline = time.monotonic() + ANSWER_MAX_S
        while not self.ingest.sandbox_weaker_accepted:
            nodes = self._look()
            silent = sum(node.asked is not None for node in nodes.values())
            judge([node.refusal for node in nodes.values() if node.answered], silent)
            if not silent or any(node.is_able for node in nodes.values()) or time.monotonic() > deadline:
                return
            time.sleep(ANSWER_LOOK_S)

    def placing(self) -> dict[str, Any]:
        """Where a task that starts decoders may run, as arguments for Ray; called for each task."""
        if self.ingest.sandbox_weaker_accepted:
            return {}
        nodes = self._look(LOOK_INTERVAL_S)
        able = [name for name, node in nodes.items() if node.is_able]
        weak = [name for name, node in nodes.items() if node.is_weak]
        if able:
            return {"label_selector": {LABEL: f"in({', '.join(able)})"}}
        return {"label_selector": {LABEL: f"!in({', '.join(weak)})"}} if weak else {}

    def cpus(self) -> float:
        """CPUs of the nodes that files are given to."""
        nodes = self._look(LOOK_INTERVAL_S).values()
        given = [node for node in nodes if node.is_able] or [node for node in nodes if not node.is_weak]
        return sum(node.cpus for node in given)

    def _look(self, interval_s: float = 0.0) -> dict[str, _Node]:
        """The nodes that decode, with the answers that have come; new ones are asked. Not more often than `interval_s`."""
        with self._lock:
            if time.monotonic() >= self._looked_at + interval_s:
                self._find()
                for name, node in self._nodes.items():
                    self._hear(name, node)
                self._looked_at = time.monotonic()
            return dict(self._nodes)

    def _find(self) -> None:
        """Who is there."""
        import ray

        found: dict[str, _Node] = {}
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            cpus, name = node["Resources"].get("CPU", 0.0), node["NodeID"]
            if node["Alive"] and cpus >= self.ingest.decoder_cpus:
                found[name] = self._nodes.get(name) or _Node(cpus)
        self._nodes = found

    def _hear(self, name: str, node: _Node) -> None:
        """Take a node's answer, if it has come; ask it, if nobody has."""
        import ray

        if node.is_able or node.is_weak or self.ingest.sandbox_weaker_accepted:
            return
        if node.asked is None and time.monotonic() >= node.ask_again_at:
            node.asked = ask(name, self.ingest)
        elif node.asked is not None and ray.wait([node.asked], timeout=0)[0]:
            node.refusal, node.answered = heard(node.asked), True
            node.asked, node.ask_again_at = None, time.monotonic() + ASK_AGAIN_S


def ask(name: str, ingest: IngestSettings) -> Any:
    """Why a node would look at no file; the answer to come."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    question = ray.remote(num_cpus=0, max_retries=0)(stages.refusal)
    return question.options(scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False)).remote(ingest)


def heard(answer: Any) -> Failure | None:
    """An answer that has come. Where the node or its process died meanwhile it says nothing of confinement."""
    import ray

    try:
        refusal: Failure | None = ray.get(answer)
    except ray.exceptions.RayError as error:
        return Failure("unanswered", type(error).__name__)
    return refusal


def judge(refusals: Sequence[Failure | None], silent: int = 0) -> None:
    """What nodes have said, and how many have not.

    Raises:
        Rejected: each of them has refused.
    """
    refused = [refusal for refusal in refusals if refusal and refusal.code == UNCONFINED]
    if refused and len(refused) == len(refusals) and not silent:
        detail = f"none of the nodes that decode ({len(refused)}) takes videos: {refused[0].reason}"
        raise Rejected(detail, status=503, code=UNCONFINED)
