"""The nodes of the Ray cluster: which of them can confine a decoder, since only those are given files.

Each node is asked once, or again if it could not tell; a node that joins later is asked when the next task is placed.
While no node has confirmed that it can confine a decoder, files go to all nodes that have not refused; after that only
to those that have confirmed. Knows Ray's nodes and labels, not what runs on them.
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

ANSWER_MAX_S = 180.0  # until the first node confirms: each must start a process and load the decoders
ANSWER_LOOK_S = 0.2
LOOK_INTERVAL_S = 2.0  # between looks for new nodes, while tasks are placed
ASK_AGAIN_S = 30.0  # a node that could not tell
LABEL = "ray.io/node-id"  # set by Ray on each node


@dataclass
class _Node:
    """A node with enough CPUs to decode, and its answer."""

    cpus: float
    asked: Any = None  # Ray's reference to the answer, until it has come
    answered: bool = False
    refusal: Failure | None = None  # its answer; None: it can confine a decoder
    ask_again_at: float = 0.0  # monotonic time, after an answer that does not concern confinement

    @property
    def is_able(self) -> bool:
        """Whether the node has confirmed that it can confine a decoder."""
        return self.answered and self.refusal is None

    @property
    def is_weak(self) -> bool:
        """Whether the node has answered that it cannot confine a decoder."""
        return self.refusal is not None and self.refusal.code == UNCONFINED


@dataclass
class Survey:
    """The answers of the nodes. May be used by several threads.

    If the settings accept nodes that cannot confine a decoder, none is asked.
    """

    ingest: IngestSettings
    _nodes: dict[str, _Node] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)
    _looked_at: float = field(default=-math.inf, repr=False)

    def begin(self) -> None:
        """Ask the nodes without waiting for answers.

        Raises:
            ray.exceptions.RayError: Ray does not say which nodes it has.
        """
        if not self.ingest.sandbox_weaker_accepted:
            self._look()

    def require(self) -> None:
        """Wait until a node has confirmed or all have answered, but at most ANSWER_MAX_S.

        If no node has confirmed by then, nodes that have not answered are given files (see `placing`).

        Raises:
            Rejected: every node has refused.
            ray.exceptions.RayError: Ray does not say which nodes it has.
        """
        deadline = time.monotonic() + ANSWER_MAX_S
        while not self.ingest.sandbox_weaker_accepted:
            nodes = self._look()
            silent = sum(node.asked is not None for node in nodes.values())
            require_any([node.refusal for node in nodes.values() if node.answered], silent)
            if not silent or any(node.is_able for node in nodes.values()) or time.monotonic() > deadline:
                return
            time.sleep(ANSWER_LOOK_S)

    def placing(self) -> dict[str, Any]:
        """Return Ray's arguments that place a task on the nodes that are given files. To be called for each task."""
        if self.ingest.sandbox_weaker_accepted:
            return {}
        nodes = self._look(LOOK_INTERVAL_S)
        able = [name for name, node in nodes.items() if node.is_able]
        weak = [name for name, node in nodes.items() if node.is_weak]
        if able:
            return {"label_selector": {LABEL: f"in({', '.join(able)})"}}
        return {"label_selector": {LABEL: f"!in({', '.join(weak)})"}} if weak else {}

    def cpus(self) -> float:
        """Return the number of CPUs of the nodes that are given files."""
        nodes = self._look(LOOK_INTERVAL_S).values()
        usable = [node for node in nodes if node.is_able] or [node for node in nodes if not node.is_weak]
        return sum(node.cpus for node in usable)

    def _look(self, interval_s: float = 0.0) -> dict[str, _Node]:
        """Return the nodes with enough CPUs to decode, and their answers so far.

        New nodes and answers are looked for at most every `interval_s` seconds.
        """
        with self._lock:
            if time.monotonic() >= self._looked_at + interval_s:
                self._find()
                for name, node in self._nodes.items():
                    self._hear(name, node)
                self._looked_at = time.monotonic()
            return dict(self._nodes)

    def _find(self) -> None:
        """List the live nodes with enough CPUs."""
        import ray

        nodes: dict[str, _Node] = {}
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            cpus, name = node["Resources"].get("CPU", 0.0), node["NodeID"]
            if node["Alive"] and cpus >= self.ingest.decoder_cpus:
                nodes[name] = self._nodes.get(name) or _Node(cpus)
        self._nodes = nodes

    def _hear(self, name: str, node: _Node) -> None:
        """Take a node's answer if it has come, or ask the node."""
        import ray

        if node.is_able or node.is_weak or self.ingest.sandbox_weaker_accepted:
            return
        if node.asked is None and time.monotonic() >= node.ask_again_at:
            node.asked = ask(name, self.ingest)
        elif node.asked is not None and ray.wait([node.asked], timeout=0)[0]:
            node.refusal, node.answered = answer_of(node.asked), True
            node.asked, node.ask_again_at = None, time.monotonic() + ASK_AGAIN_S


def ask(name: str, ingest: IngestSettings) -> Any:
    """Ask a node whether it can confine a decoder; return Ray's reference to the answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    question = ray.remote(num_cpus=0, max_retries=0)(stages.refusal)
    return question.options(scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False)).remote(ingest)


def answer_of(answer: Any) -> Failure | None:
    """Return a node's answer: None if it can confine a decoder, else why not.

    If the node or its process died, return a failure with the code "unanswered".
    """
    import ray

    try:
        refusal: Failure | None = ray.get(answer)
    except ray.exceptions.RayError as error:
        return Failure("unanswered", type(error).__name__)
    return refusal


def require_any(refusals: Sequence[Failure | None], silent: int = 0) -> None:
    """Refuse the job if every node has refused; `silent` is the number of nodes that have not answered yet.

    Raises:
        Rejected: every node has refused.
    """
    refused = [refusal for refusal in refusals if refusal and refusal.code == UNCONFINED]
    if refused and len(refused) == len(refusals) and not silent:
        detail = f"none of the nodes that decode ({len(refused)}) takes videos: {refused[0].reason}"
        raise Rejected(detail, status=503, code=UNCONFINED)
