"""`pixr demo`: the whole product once, on this machine, in the way that a user would use it.

Starts the stack, makes video files, submits them as a job, searches over HTTP, waits until the creators' money has
arrived on chain, audits, and prints what it sees. Each step is idempotent (content hashes, Idempotency-Keys, the
ledger), so running it again adds nothing. Leaves Pixr running. Uses the command line and the HTTP interface only.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console
from rich.table import Table

from cluster import runtime
from cluster.cli.context import Context
from cluster.door import certificate
from cluster.errors import Temporary
from cluster.settings import Settings
from pipelines.media import time_code
from pipelines.samples import samples

QUERIES_MAX = 5
MOMENTS_SHOWN = 3
PAYOUTS_TIMEOUT_S = 120.0
POLL_S = 1.0
HTTP_TIMEOUT_S = 30.0


@click.command()
@click.option("--seed", default=1, show_default=True, help="Of the generated videos.")
@click.pass_obj
def demo(context: Context, seed: int) -> None:
    """Run the whole product on this machine: ingest, search, pay. Leaves Pixr running."""
    settings, console = context.settings, context.console
    _pixr(settings, "up")
    folder = settings.data_dir / "demo" / f"seed-{seed}"
    console.rule("videos")
    queries = _make_videos(folder, seed, console)
    console.rule("ingest")
    _pixr(settings, "ingest", str(folder))
    with _client(settings) as client:
        _print_job(client, console)
        console.rule("search")
        creators = _search(client, queries, seed, console)
        console.rule("payouts")
        _print_earnings(_wait_for_payouts(client, creators), creators, console)
    console.rule("audit")
    verdict = _pixr(settings, "audit", must=False)
    console.rule("addresses")
    _pixr(settings, "status", must=False)
    console.print(f"open {runtime.serve_url(settings)}/ in a browser; `make stop` ends Pixr and keeps everything")
    if verdict:
        raise SystemExit(verdict)


def _pixr(settings: Settings, *arguments: str, must: bool = True) -> int:
    """Run a `pixr` command with its output shown; return its exit code.

    Raises:
        Temporary: it failed although it `must` succeed.
    """
    argv = (sys.executable, "-m", "cluster.cli", "--config", str(settings.path), *arguments)
    code = subprocess.run(argv, check=False).returncode
    if code and must:
        raise Temporary(f"`pixr {arguments[0]}` ended with exit code {code}, see above")
    return code


def _make_videos(folder: Path, seed: int, console: Console) -> list[str]:
    """Write the sample videos unless they exist; return what to search for: descriptions of some of their shots."""
    complete = folder / "truth.jsonl"
    videos = samples.read(folder) if complete.exists() else samples.demo(folder, seed)
    for sample in videos:
        form = f"{sample.form.codec} {sample.form.width}x{sample.form.height}" if not sample.fault else sample.fault
        console.print(f"{sample.file:<36} {sample.creator:<8} {form:<18} {sample.title}", soft_wrap=True)
    captions = [shot.caption for sample in videos for shot in sample.shots[:1]]
    return captions[:QUERIES_MAX]


def _client(settings: Settings) -> httpx.Client:
    headers = {"Authorization": f"Bearer {runtime.secret(settings, 'api_admin_key')}"}
    url, verify = runtime.serve_url(settings), certificate.trust(settings)
    return httpx.Client(base_url=url, headers=headers, timeout=HTTP_TIMEOUT_S, verify=verify)


def _get(client: httpx.Client, path: str, **parameters: Any) -> Any:
    response = client.get(path, params=parameters)
    response.raise_for_status()
    return response.json()


def _print_job(client: httpx.Client, console: Console) -> None:
    job = _get(client, "/v1/jobs", limit=1)["jobs"][0]
    videos = job["videos"]
    console.print(
        f"job {job['id']}: {job['status']}; {videos['ready']} videos searchable, {videos['quarantined']} quarantined, "
        f"{job['segments']} segments"
    )
    for failure in job["failures"]:
        console.print(f"  quarantined {Path(failure['source_uri']).name}: {failure['reason']}", soft_wrap=True)


def _search(client: httpx.Client, queries: list[str], seed: int, console: Console) -> dict[str, str]:
    """Search as an anonymous viewer; return id and name of each creator whose moments were shown."""
    videos: dict[str, str] = {}  # one by each creator
    for number, query in enumerate(queries):
        key = f"demo-{seed}-{number}"
        response = httpx.get(
            f"{client.base_url}/v1/search",
            params={"q": query, "limit": 10},
            headers={"Idempotency-Key": key},
            timeout=HTTP_TIMEOUT_S,
        )
        response.raise_for_status()
        answer = response.json()
        videos |= {moment["creator_id"]: moment["video_id"] for moment in answer["moments"]}
        console.print(_moments_table(query, answer))
    return {creator: _get(client, f"/v1/videos/{video}")["creator"] for creator, video in sorted(videos.items())}


def _moments_table(query: str, answer: dict[str, Any]) -> Table:
    table = Table("title", "from", "to", "relevance", title=f"“{query}” ({answer['took_ms']} ms)", title_justify="left")
    for moment in answer["moments"][:MOMENTS_SHOWN]:
        relevance = f"{moment['relevance_ppm'] / 10_000:.0f} %"
        table.add_row(moment["title"], time_code(moment["start_ms"]), time_code(moment["end_ms"]), relevance)
    return table


def _wait_for_payouts(client: httpx.Client, creators: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Wait until everything that was earned has been paid out; return each creator's earnings.

    Raises:
        Temporary: payouts are not settled after the time that a local network needs.
    """
    deadline = time.monotonic() + PAYOUTS_TIMEOUT_S
    while True:
        earnings = {creator: _get(client, f"/v1/creators/{creator}/earnings") for creator in creators}
        if all(_is_settled(amounts) for amounts in earnings.values()):
            return earnings
        if time.monotonic() > deadline:
            raise Temporary(f"payouts are not settled after {PAYOUTS_TIMEOUT_S:.0f} s: {earnings}")
        time.sleep(POLL_S)


def _is_settled(earnings: dict[str, Any]) -> bool:
    """Return whether everything earned has been paid and has arrived on chain."""
    accrued, paid, on_chain = (int(earnings[name]) for name in ("accrued", "paid", "on_chain"))
    return int(earnings["in_flight"]) == 0 and accrued == paid == on_chain > 0


def _print_earnings(earnings: dict[str, dict[str, Any]], names: dict[str, str], console: Console) -> None:
    table = Table("creator", "accrued", "in flight", "paid", "on chain", title="PIX", title_justify="left")
    for creator, document in earnings.items():
        amounts = (int(document[name]) for name in ("accrued", "in_flight", "paid", "on_chain"))
        table.add_row(names[creator], *(f"{amount / 1_000_000:.6f}" for amount in amounts))
    console.print(table)
