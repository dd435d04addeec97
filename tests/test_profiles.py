"""The settings that come along for other machines can be read, and ask for no more than those machines have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import settings as settings_module
from cluster.settings import ROOT, Settings
from ledger.settings import Economics, LedgerSettings
from pipelines.settings import IngestSettings, ModelSettings
from serve.access import origins
from serve.settings import SearchSettings

PROFILES = sorted(path.name for path in (ROOT / "configs" / "ingest").glob("*.toml"))


def read(tmp_path: Path, profile: str) -> Settings:
    file = tmp_path / "settings.toml"
    file.write_text(f'include = ["{ROOT}/configs/local.toml", "{ROOT}/configs/ingest/{profile}"]\n', encoding="utf-8")
    return settings_module.load(file, environ={})


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_lies_over_any_settings(tmp_path: Path, profile: str) -> None:
    made = read(tmp_path, profile)
    gpu = made.section(IngestSettings).embedder_gpus > 0
    assert gpu == (made.section(ModelSettings).device == "cuda") == (profile != "laptop.toml")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_who_tries_the_demo_is_as_many_people_as_they_like(address: str) -> None:
    """All of them search from one machine: money would stop after the searches of one viewer."""
    made = settings_module.load(ROOT / "configs" / "demo.toml", environ={})
    search = made.section(SearchSettings)
    network = origins.prefix(address, ipv4_bits=search.prefix_ipv4_bits, ipv6_bits=search.prefix_ipv6_bits)
    assert made.section(Economics).people_by_network[network] == 1000


def test_production_is_readable_and_embeds_on_gpus() -> None:
    made = settings_module.load(ROOT / "configs" / "production.toml", environ={})
    assert made.section(IngestSettings).embedder_gpus == 1.0
    assert made.section(IngestSettings).scratch_dir == "/scratch"


def test_on_kubernetes_embedders_fit_their_nodes_and_decoders_find_room_on_the_others_alone(tmp_path: Path) -> None:
    ingest = read(tmp_path, "gpu-nodes.toml").section(IngestSettings)
    cluster = yaml.safe_load((ROOT / "configs" / "kuberay.yaml").read_text(encoding="utf-8"))["spec"]
    groups: dict[str, dict[str, Any]] = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    cpus = {name: float(group["rayStartParams"]["num-cpus"]) for name, group in groups.items()}
    embed = groups["embed"]
    assert float(embed["rayStartParams"]["num-gpus"]) >= ingest.embedder_gpus
    assert ingest.embedder_cpus <= cpus["embed"] < ingest.embedder_cpus + ingest.decoder_cpus
    assert cpus["decode"] >= ingest.decoder_cpus
    assert embed["maxReplicas"] >= ingest.embedders_max
    assert float(cluster["headGroupSpec"]["rayStartParams"]["num-cpus"]) == 0
    assert f'"ray[data,serve]=={cluster["rayVersion"]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_on_kubernetes_the_ledgers_credentials_are_where_nothing_but_the_ledger_runs() -> None:
    cluster = yaml.safe_load((ROOT / "configs" / "kuberay.yaml").read_text(encoding="utf-8"))["spec"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]} | {"head": cluster["headGroupSpec"]}
    secrets = {name: _secrets(group) for name, group in groups.items()}
    assert secrets.pop("ledger") == {"pixr-ledger"}
    assert set().union(*secrets.values()) == {"pixr"}
    started = groups["ledger"]["rayStartParams"]
    there = settings_module.load(ROOT / "configs" / "production.toml", environ={}).section(LedgerSettings).node_resource
    assert started["num-cpus"] == "0"
    assert json.loads(json.loads(started["resources"])) == {there: 1}


def _secrets(group: dict[str, Any]) -> set[str]:
    containers = group["template"]["spec"]["containers"]
    return {source["secretRef"]["name"] for container in containers for source in container["envFrom"]}
