"""The nodes of the cluster: whether any of them that decodes can confine a decoder. Asked when one has said that it cannot."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.errors import Rejected
from pipelines import stages
from pipelines.media import UNCONFINED, Failure
from pipelines.settings import IngestSettings

ANSWER_MAX_S = 180.0  # of all nodes together: each starts a process, and loads the decoders


def require_confinement(ingest: IngestSettings) -> None:
    """Ask every node that has the CPUs to decode.

    Raises:
        Rejected: all of them have said why they cannot. One that does not answer is taken for one that can.
        ray.exceptions.RayError: a node died meanwhile.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(stages.refusal)
    nodes = [
        node["NodeID"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and node["Resources"].get("CPU", 0.0) >= ingest.decoder_cpus
    ]
    asked = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(ingest)
        for node in nodes
    ]
    answered, late = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_MAX_S) if asked else ([], [])
    judge(ray.get(answered), silent=len(late))


def judge(refusals: Sequence[Failure | None], silent: int = 0) -> None:
    """What nodes have said, and how many have not.

    Raises:
        Rejected: each of them has refused.
    """
    refused = [refusal for refusal in refusals if refusal and refusal.code == UNCONFINED]
    if refused and len(refused) == len(refusals) and not silent:
        detail = f"none of the nodes that decode ({len(refused)}) takes videos: {refused[0].reason}"
        raise Rejected(detail, status=503, code=UNCONFINED)
