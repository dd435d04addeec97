"""The commands that run the stack: up, down, status, migrate, config check, and bench."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from cluster import (
    cli_secrets,
    health,
    keeper,
    logins,
    migrations,
    ray_cluster,
    runtime,
    services,
    supervisor,
    telemetry,
    urls,
)
from cluster.cli import Context, json_option
from cluster.door import certificate
from cluster.errors import PixrError, Rejected, Temporary
from cluster.roles import OWNER, PARTS
from cluster.settings import MORE_TIME, Settings

POLL_S = 0.2
URL_NAME = re.compile(r"(?:\w+_)?urls?")  # of settings that are addresses
NOT_THERE = ("waiting", "dead", "stopped")  # states of a service that has no process
MARKS = {"healthy": "[green]●[/]", "starting": "[yellow]◌[/]", "waiting": "[dim]○[/]", "dead": "[red]✗[/]"}


@click.command()
@json_option
@click.pass_obj
def up(context: Context, as_json: bool) -> None:
    """Start what the settings call embedded, wait until it is healthy, print the addresses."""
    settings = context.settings
    if supervisor.running(settings) and supervisor.read_status(settings)["phase"] == "up":
        _show(context, as_json, "Pixr is already up")
        return
    check_external(settings)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to be told to end is to be interrupted
    began = time.monotonic()
    process = None if supervisor.running(settings) else supervisor.start(settings)
    try:
        status = _wait(context, settings, process, quiet=as_json)
    except KeyboardInterrupt:
        context.console.print("stopping …")
        _stop(settings, process)
        raise
    if status["phase"] != "up":
        raise Temporary(f"start failed: {status.get('detail') or 'see the logs in ' + str(settings.data_dir / 'logs')}")
    _show(context, as_json, f"Pixr is up after {time.monotonic() - began:.0f} s")


@click.command()
@click.pass_obj
def down(context: Context) -> None:
    """Stop exactly what `pixr up` started; everything is kept."""
    stopped = supervisor.stop(context.settings)
    context.console.print("Pixr is down" if stopped else "Pixr was not running")


@click.command()
@json_option
@click.pass_obj
def status(context: Context, as_json: bool) -> None:
    """Ask every service how it is; exit code 1 when one is not well."""
    found = look(context.settings)
    if as_json:
        context.emit(found)
    else:
        context.console.print(_table(found["services"]))
        for line in _notes(found["services"]):
            context.console.print(line)
    if not all(row["healthy"] for row in found["services"].values()):
        raise SystemExit(1)


@click.command()
@click.pass_obj
def migrate(context: Context) -> None:
    """Bring the database's tables to the present."""
    applied = migrations.migrate(logins.url(context.settings, OWNER))
    for migration in applied:
        context.console.print(f"applied {migration.package}/{migration.name}")
    if not applied:
        context.console.print("nothing to apply")


@click.group()
def config() -> None:
    """Settings."""


@config.command("check")
@click.pass_obj
def config_check(context: Context) -> None:
    """Read the settings and reach every dependency they name by URL."""
    settings = context.settings
    check_external(settings)
    context.console.print(f"{settings.path} is valid: {len(settings.sections)} sections, data in {settings.data_dir}")


@config.command("show")
@json_option
@click.pass_obj
def config_show(context: Context, as_json: bool) -> None:
    """Every setting with its value and its default; secrets are not shown."""
    shown = {
        name: {field.name: _shown(field.name, getattr(section, field.name)) for field in dataclasses.fields(section)}
        for name, section in context.settings.sections.items()
    }
    if as_json:
        context.emit(shown)
        return
    table = Table("setting", "value", "default", box=None, pad_edge=False, header_style="dim")
    for name, values in shown.items():
        kind = type(context.settings.sections[name])
        for field in dataclasses.fields(kind):
            value, default = values[field.name], _shown(field.name, field.default)
            table.add_row(f"\\[{name}] {field.name}", str(value), "" if value == default else str(default))
    context.console.print(table)


config.add_command(cli_secrets.secrets)


def _shown(name: str, value: Any) -> Any:
    if name in ("secret", "key", "password", "token") and value:
        return "***"
    visible = urls.shown if URL_NAME.fullmatch(name) else telemetry.redact
    if isinstance(value, tuple):
        return ", ".join(visible(str(item)) for item in value)
    return visible(value) if isinstance(value, str) else value


@click.command()
@click.argument("name", required=False)
@click.option("--log/--no-log", "write", default=True, help="Append the figures to benchmarks/LOG.md.")
@click.pass_obj
def bench(context: Context, name: str | None, write: bool) -> None:
    """Run a benchmark (all of them without NAME) and append its rows to benchmarks/LOG.md."""
    from benchmarks import run

    run.run(context.settings, name, write=write, say=context.console.print)


def check_external(settings: Settings) -> None:
    """Reach what the settings name by URL, and look at the door's certificate.

    Raises:
        Rejected: something does not answer, or cannot be used; the line says which setting names it.
    """
    if settings.serve.certificate:
        certificate.read(settings.serve.certificate)
    for name, (setting, check) in _external_checks(settings).items():
        try:
            check()
        except Temporary as error:
            hint = f"check {setting} in {settings.path} or its PIXR_ variable"
            raise Rejected(str(error), code="unreachable", hint=hint) from error
        except Exception as error:  # noqa: BLE001  a malformed URL fails in its client's own way
            hint = f"check {setting} in {settings.path} or its PIXR_ variable"
            said = f"{setting} of {name} cannot be used ({type(error).__name__})"  # what the client says may hold a password
            raise Rejected(said, hint=hint) from None


def _external_checks(settings: Settings) -> dict[str, tuple[str, Callable[[], None]]]:
    embedded = {service.name for service in services.all_services(settings)}
    checks: dict[str, tuple[str, Callable[[], None]]] = {}
    if "postgres" not in embedded:
        given = [url for role in (OWNER, *PARTS) if (url := runtime.role_url(settings, role))]
        named = "[postgres] url" if len(given) == 1 else "the URLs of [postgres]"
        checks["postgres"] = (named, lambda: _each(health.postgres, given))
    if "redis" not in embedded:
        checks["redis"] = ("[redis] url", lambda: health.redis(settings.redis.url))
    if "s3" not in embedded:
        s3 = runtime.S3Endpoint(settings.s3.url, settings.s3.key, settings.s3.secret, settings.s3.region)
        checks["s3"] = ("[s3] url", lambda: health.s3(s3))
    if "solana" not in embedded:
        checks["solana"] = ("[solana] urls", lambda: _each(health.solana, settings.solana.urls))
    if "ray" not in embedded:
        token = ray_cluster.token(settings)
        checks["ray"] = ("[ray] dashboard_url", lambda: health.ray(settings.ray.dashboard_url, token))
    return checks


def _each(check: Callable[[str], None], given: Sequence[str]) -> None:
    for url in given:
        check(url)


def look(settings: Settings) -> dict[str, Any]:
    """Ask every dependency now, side by side: `{"services": {name: {url, healthy, reason, degraded, …}}}`.

    `degraded` names what a service lacks that answers all the same, `notes` are lines of a service about itself.
    """
    known, is_running = supervisor.read_status(settings), supervisor.running(settings)
    rows: dict[str, Any] = known["services"] if is_running else {}  # type: ignore[assignment]
    embedded = [each for each in services.all_services(settings) if each.name != "schema"]
    away = {each.name: why for each in embedded if (why := _not_there(rows.get(each.name)))}
    ours = [each for each in embedded if each.name not in away]
    checks = {each.name: _check_of(each) for each in ours}
    lacking = {each.name: each.degraded for each in ours if isinstance(each, services.Degradable)}
    talking = {each.name: each.notes for each in ours if isinstance(each, services.Talkative)}
    if "postgres" not in away:
        talking["postgres"] = lambda: logins.notes(settings)
    checks |= {name: check for name, (_, check) in _external_checks(settings).items()}
    if not is_running:
        runtime.endpoints(settings)  # refuses when nothing was ever started
    with ThreadPoolExecutor(max_workers=max(1, len(checks) + len(lacking) + len(talking))) as threads:
        looked = {name: threads.submit(_lacking, question) for name, question in lacking.items()}
        said = {name: threads.submit(_said, question) for name, question in talking.items()}
        answers = dict(zip(checks, threads.map(_reason, checks.values()), strict=True))
    reasons = {each.name: away.get(each.name) or answers[each.name] for each in embedded} | answers
    degraded = {name: each.result() for name, each in looked.items()}
    notes = {name: each.result() for name, each in said.items()}
    addresses = _addresses(settings)
    return {
        "phase": known["phase"],
        "data_dir": str(settings.data_dir),
        "services": {
            name: {
                "url": addresses.get(name, ""),
                "healthy": not reason,
                "reason": reason,
                "degraded": [] if reason else list(degraded.get(name, ())),
                "notes": dict(notes.get(name, {})),
                "pid": rows.get(name, {}).get("pid"),
                "restarts": rows.get(name, {}).get("restarts", 0),
            }
            for name, reason in reasons.items()
        },
    }


def _not_there(row: Mapping[str, Any] | None) -> str:
    """Why a service of this data folder is not asked, by what its supervisor wrote: another Pixr may answer at its port."""
    if row is None:
        return "not running"
    return str(row["reason"] or row["state"]) if row["state"] in NOT_THERE else ""


def _check_of(service: services.Service) -> Callable[[], None]:
    """What tells whether a service that has been started is well."""
    return service.check_alive if isinstance(service, services.Degradable) else service.check


def _reason(check: Callable[[], None]) -> str:
    try:
        check()
    except PixrError as error:
        return str(error)
    return ""


def _lacking(question: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """What a service lacks; nothing where it does not say, which its check does."""
    try:
        return question()
    except PixrError:
        return ()


def _said(question: Callable[[], Mapping[str, str]]) -> Mapping[str, str]:
    """What a service says of itself, or why it says nothing."""
    try:
        return question()
    except PixrError as error:
        return {"notes": str(error)}


def _notes(rows: dict[str, Any]) -> list[str]:
    """A line for each note, in colour where it warns."""
    lines = [(about, text) for row in rows.values() for about, text in row["notes"].items()]
    return [f"[{'dim' if text.startswith('strong') else 'yellow'}]{about}: {escape(text)}[/]" for about, text in lines]


def _addresses(settings: Settings) -> dict[str, str]:
    ends, known = runtime.endpoints(settings), (runtime.role_url(settings, role) for role in (OWNER, *PARTS))
    return {
        "serve": ends.serve_url,
        "door": ends.serve_url,
        "postgres": urls.shown(next(filter(None, known), "")),
        "redis": urls.shown(ends.redis_url),
        "s3": urls.shown(ends.s3.url),
        "solana": urls.shown(ends.solana_urls[0]),
        "ray": urls.shown(ends.ray_dashboard_url),
    }


def _wait(
    context: Context, settings: Settings, process: subprocess.Popen[bytes] | None, *, quiet: bool
) -> dict[str, Any]:
    deadline = time.monotonic() + settings.supervisor.start_timeout_s
    with Live(console=context.console, transient=True, refresh_per_second=8, auto_refresh=not quiet) as live:
        while True:
            status: dict[str, Any] = supervisor.read_status(settings)
            if not quiet:
                live.update(_progress(status))
            ended = process.poll() is not None if process else not supervisor.running(settings)
            if status["phase"] in ("up", "failed") or ended:
                return status
            if time.monotonic() > deadline:
                late = [name for name, row in status["services"].items() if not row["healthy"]]
                within = f"not up within {settings.supervisor.start_timeout_s:.0f} s"
                said = f"{within}, waiting for {', '.join(late)}; {MORE_TIME}"
                try:
                    _stop(settings, process)
                except Temporary as error:
                    raise Temporary(f"{said}; {error}") from error
                raise Temporary(said)
            time.sleep(POLL_S)


def _stop(settings: Settings, process: subprocess.Popen[bytes] | None) -> None:
    """Undo a start, also one whose supervisor has not taken its lock yet.

    Raises:
        Temporary: it is still there.
    """
    if process is not None and process.poll() is None:
        os.kill(process.pid, signal.SIGTERM)
        timeout_s = settings.supervisor.stop_timeout_s * 3
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            said = f"the supervisor (pid {process.pid}) has not stopped within {timeout_s:.0f} s"
            raise Temporary(said) from error
    supervisor.stop(settings)


def _progress(status: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, row in status["services"].items():
        table.add_row(MARKS.get(row["state"], "[yellow]●[/]"), name, row["state"], f"[dim]{row['reason'][:90]}[/]")
    return table


def _show(context: Context, as_json: bool, headline: str) -> None:
    found = look(context.settings)
    if as_json:
        context.emit(found)
        return
    context.console.print(headline)
    context.console.print(_table(found["services"]))
    for line in _notes(found["services"]):
        context.console.print(line)
    for line in _moved_ports(context.settings):
        context.console.print(f"[yellow]{line}[/]")
    key_file = runtime.secret_path(context.settings, "api_admin_key")
    context.console.print(f"page: {found['services'].get('serve', {}).get('url', 'none')}/")
    context.console.print(f"admin key: {key_file}\nlogs: {context.settings.data_dir / 'logs'}", soft_wrap=True)


def _moved_ports(settings: Settings) -> list[str]:
    """A line for each service that listens elsewhere than usual because somebody was there first."""
    preferred = runtime.preferred_ports(settings)
    ours = {service.name for service in services.all_services(settings)}
    moved = {name: runtime.known_port(settings, name) for name in preferred if runtime.OWNERS.get(name, name) in ours}
    return [
        f"port {preferred[name]} is taken by {keeper.owner_of(preferred[name])}; {name} listens on {number}"
        for name, number in moved.items()
        if number != preferred[name] and not runtime.port_is_free(preferred[name])
    ]


def _table(rows: dict[str, Any]) -> Table:
    table = Table("service", "address", "state", "pid", "restarts", box=None, pad_edge=False, header_style="dim")
    for name, row in rows.items():
        table.add_row(name, row["url"], _state(row), str(row["pid"] or ""), str(row["restarts"]))
    return table


def _state(row: dict[str, Any]) -> str:
    if not row["healthy"]:
        return f"[red]{row['reason'] or 'not running'}[/]"
    return f"[yellow]degraded: {', '.join(row['degraded'])}[/]" if row["degraded"] else "[green]healthy[/]"
