"""The commands that run the stack: up, down, status, migrate and config.

They start and stop the supervisor, read the status file that it writes, and ask each service for its health. They do
not know how a service is run.
"""

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

from cluster import ray_cluster, runtime, services, urls
from cluster.cli import secrets as cli_secrets
from cluster.cli.context import Context, json_option
from cluster.database import logins, migrations
from cluster.door import certificate
from cluster.embedded import keeper, supervisor
from cluster.embedded.factories import all_services
from cluster.errors import PixrError, Rejected, Temporary
from cluster.observability import health, telemetry
from cluster.roles import OWNER, PARTS
from cluster.settings import Settings

POLL_S = 0.2
URL_NAME = re.compile(r"(?:\w+_)?urls?")  # of settings that are addresses
NOT_THERE = ("waiting", "dead", "stopped")  # states of a service that has no process
MARKS = {"healthy": "[green]●[/]", "starting": "[yellow]◌[/]", "waiting": "[dim]○[/]", "dead": "[red]✗[/]"}


@click.command()
@json_option
@click.pass_obj
def up(context: Context, as_json: bool) -> None:
    """Start what the settings call embedded, wait until all is healthy, and print the addresses."""
    settings = context.settings
    if supervisor.running(settings) and supervisor.read_status(settings)["phase"] == "up":
        _show(context, as_json, "Pixr is already up")
        return
    check_external(settings)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM raises KeyboardInterrupt, as Ctrl-C does
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
    """Stop exactly what `pixr up` started; all data is kept."""
    stopped = supervisor.stop(context.settings)
    context.console.print("Pixr is down" if stopped else "Pixr was not running")


@click.command()
@json_option
@click.pass_obj
def status(context: Context, as_json: bool) -> None:
    """Ask every service for its health; exit code 1 when one is not healthy."""
    document = ask_services(context.settings)
    if as_json:
        context.emit(document)
    else:
        context.console.print(_table(document["services"]))
        for line in _notes(document["services"]):
            context.console.print(line)
    if not all(row["healthy"] for row in document["services"].values()):
        raise SystemExit(1)


@click.command()
@click.pass_obj
def migrate(context: Context) -> None:
    """Apply the migrations that the database does not have yet."""
    applied = migrations.migrate(logins.url(context.settings, OWNER))
    for migration in applied:
        context.console.print(f"applied {migration.package}/{migration.name}")
    if not applied:
        context.console.print("nothing to apply")


@click.group()
def config() -> None:
    """Show and check the settings."""


@config.command("check")
@click.pass_obj
def config_check(context: Context) -> None:
    """Read the settings and connect to every dependency that they name by URL."""
    settings = context.settings
    check_external(settings)
    context.console.print(f"{settings.path} is valid: {len(settings.sections)} sections, data in {settings.data_dir}")


@config.command("show")
@json_option
@click.pass_obj
def config_show(context: Context, as_json: bool) -> None:
    """Show every setting with its value and its default; secrets are masked."""
    sections = {
        name: {field.name: _masked(field.name, getattr(section, field.name)) for field in dataclasses.fields(section)}
        for name, section in context.settings.sections.items()
    }
    if as_json:
        context.emit(sections)
        return
    table = Table("setting", "value", "default", box=None, pad_edge=False, header_style="dim")
    for name, values in sections.items():
        kind = type(context.settings.sections[name])
        for field in dataclasses.fields(kind):
            value, default = values[field.name], _masked(field.name, field.default)
            table.add_row(f"\\[{name}] {field.name}", str(value), "" if value == default else str(default))
    context.console.print(table)


config.add_command(cli_secrets.secrets)


def _masked(name: str, value: Any) -> Any:
    """Return a setting's value as it may be printed: secrets masked, passwords in URLs removed."""
    if name in ("secret", "key", "password", "token") and value:
        return "***"
    visible = urls.shown if URL_NAME.fullmatch(name) else telemetry.redact
    if isinstance(value, tuple):
        return ", ".join(visible(str(item)) for item in value)
    return visible(value) if isinstance(value, str) else value


def check_external(settings: Settings) -> None:
    """Connect to every dependency that the settings name by URL, and check the door's certificate.

    Raises:
        Rejected: a dependency does not answer or cannot be used; the message names the setting.
    """
    if settings.serve.certificate:
        certificate.read(settings.serve.certificate)
    for name, (setting, check) in _external_checks(settings).items():
        try:
            check()
        except Temporary as error:
            hint = f"check {setting} in {settings.path} or its PIXR_ variable"
            raise Rejected(str(error), code="unreachable", hint=hint) from error
        except Exception as error:  # noqa: BLE001  each client raises its own exceptions for a malformed URL
            hint = f"check {setting} in {settings.path} or its PIXR_ variable"
            # Without the client's own message, which may contain a password.
            raise Rejected(f"{setting} of {name} cannot be used ({type(error).__name__})", hint=hint) from None


def _external_checks(settings: Settings) -> dict[str, tuple[str, Callable[[], None]]]:
    """Map each dependency that is not embedded to the name of its setting and to a check that raises if it is away."""
    embedded = {service.name for service in all_services(settings)}
    checks: dict[str, tuple[str, Callable[[], None]]] = {}
    if "postgres" not in embedded:
        given = [url for role in (OWNER, *PARTS) if (url := runtime.role_url(settings, role))]
        setting = "[postgres] url" if len(given) == 1 else "the URLs of [postgres]"
        checks["postgres"] = (setting, lambda: _each(health.postgres, given))
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


def ask_services(settings: Settings) -> dict[str, Any]:
    """Ask every dependency for its health, in parallel: `{"services": {name: {url, healthy, reason, degraded, …}}}`.

    `degraded` names the dependencies that a service lacks while it goes on answering; `notes` are further lines about it.

    Raises:
        Rejected: Pixr was never started with this data folder.
    """
    known, is_running = supervisor.read_status(settings), supervisor.running(settings)
    rows: dict[str, Any] = known["services"] if is_running else {}  # type: ignore[assignment]
    embedded = [service for service in all_services(settings) if service.name != "schema"]
    absent = {service.name: reason for service in embedded if (reason := _why_absent(rows.get(service.name)))}
    present = [service for service in embedded if service.name not in absent]
    checks = {service.name: _check_of(service) for service in present}
    degradable = {service.name: service.degraded for service in present if isinstance(service, services.Degradable)}
    talkative = {service.name: service.notes for service in present if isinstance(service, services.Talkative)}
    if "postgres" not in absent:
        talkative["postgres"] = lambda: logins.notes(settings)
    checks |= {name: check for name, (_, check) in _external_checks(settings).items()}
    if not is_running:
        runtime.endpoints(settings)  # refuses when Pixr was never started with this data folder
    with ThreadPoolExecutor(max_workers=max(1, len(checks) + len(degradable) + len(talkative))) as threads:
        degraded = {name: threads.submit(_degraded, question) for name, question in degradable.items()}
        notes = {name: threads.submit(_notes_of, question) for name, question in talkative.items()}
        answers = dict(zip(checks, threads.map(_reason, checks.values()), strict=True))
    reasons = {service.name: absent.get(service.name) or answers[service.name] for service in embedded} | answers
    addresses = _addresses(settings)
    return {
        "phase": known["phase"],
        "data_dir": str(settings.data_dir),
        "services": {
            name: {
                "url": addresses.get(name, ""),
                "healthy": not reason,
                "reason": reason,
                "degraded": list(degraded[name].result()) if name in degraded and not reason else [],
                "notes": dict(notes[name].result()) if name in notes else {},
                "pid": rows.get(name, {}).get("pid"),
                "restarts": rows.get(name, {}).get("restarts", 0),
            }
            for name, reason in reasons.items()
        },
    }


def _why_absent(row: Mapping[str, Any] | None) -> str:
    """Return why an embedded service is not running, from its row of the supervisor's status; empty if it runs.

    A service that does not run must not be asked: another deployment's may answer at its port.
    """
    if row is None:
        return "not running"
    return str(row["reason"] or row["state"]) if row["state"] in NOT_THERE else ""


def _check_of(service: services.Service) -> Callable[[], None]:
    """Return the check that decides whether a service that was started is healthy."""
    return service.check_alive if isinstance(service, services.Degradable) else service.check


def _reason(check: Callable[[], None]) -> str:
    """Return why a check fails; empty when it passes."""
    try:
        check()
    except PixrError as error:
        return str(error)
    return ""


def _degraded(question: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """Return the dependencies that a service lacks; empty if it cannot tell, because its check then gives the reason."""
    try:
        return question()
    except PixrError:
        return ()


def _notes_of(question: Callable[[], Mapping[str, str]]) -> Mapping[str, str]:
    """Return a service's notes or, if it has none to give, one note with the reason."""
    try:
        return question()
    except PixrError as error:
        return {"notes": str(error)}


def _notes(rows: dict[str, Any]) -> list[str]:
    """Return a line for each note, coloured yellow unless it begins with "strong"."""
    notes = [(title, text) for row in rows.values() for title, text in row["notes"].items()]
    return [f"[{'dim' if text.startswith('strong') else 'yellow'}]{title}: {escape(text)}[/]" for title, text in notes]


def _addresses(settings: Settings) -> dict[str, str]:
    """Return the address of each service, without passwords."""
    endpoints = runtime.endpoints(settings)
    postgres_urls = (runtime.role_url(settings, role) for role in (OWNER, *PARTS))
    return {
        "serve": endpoints.serve_url,
        "door": endpoints.serve_url,
        "postgres": urls.shown(next(filter(None, postgres_urls), "")),
        "redis": urls.shown(endpoints.redis_url),
        "s3": urls.shown(endpoints.s3.url),
        "solana": urls.shown(endpoints.solana_urls[0]),
        "ray": urls.shown(endpoints.ray_dashboard_url),
    }


def _wait(
    context: Context, settings: Settings, process: subprocess.Popen[bytes] | None, *, quiet: bool
) -> dict[str, Any]:
    """Wait until the stack is up or has failed, show its progress unless `quiet`, and return the last status.

    Raises:
        Temporary: it was not up in time; it has been stopped again.
    """
    deadline = time.monotonic() + settings.supervisor.start_timeout_s
    with Live(console=context.console, transient=True, refresh_per_second=8, auto_refresh=not quiet) as live:
        while True:
            status: dict[str, Any] = supervisor.read_status(settings)
            if not quiet:
                live.update(_progress(status))
            has_ended = process.poll() is not None if process else not supervisor.running(settings)
            if status["phase"] in ("up", "failed") or has_ended:
                return status
            if time.monotonic() > deadline:
                late = [name for name, row in status["services"].items() if not row["healthy"]]
                said = f"not up within {settings.supervisor.start_timeout_s:.0f} s, waiting for {', '.join(late)}"
                try:
                    _stop(settings, process)
                except Temporary as error:
                    raise Temporary(f"{said}; {error}") from error
                raise Temporary(said)
            time.sleep(POLL_S)


def _stop(settings: Settings, process: subprocess.Popen[bytes] | None) -> None:
    """Stop a supervisor, also one that was just started and does not hold its lock yet.

    Raises:
        Temporary: it still runs after the time that its services have to stop.
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
    """Make the table that is shown while services start."""
    table = Table.grid(padding=(0, 2))
    for name, row in status["services"].items():
        table.add_row(MARKS.get(row["state"], "[yellow]●[/]"), name, row["state"], f"[dim]{row['reason'][:90]}[/]")
    return table


def _show(context: Context, as_json: bool, headline: str) -> None:
    """Print the state of the stack, the page's address, and where the admin key and the logs are."""
    document = ask_services(context.settings)
    if as_json:
        context.emit(document)
        return
    context.console.print(headline)
    context.console.print(_table(document["services"]))
    for line in _notes(document["services"]):
        context.console.print(line)
    for line in _moved_ports(context.settings):
        context.console.print(f"[yellow]{line}[/]")
    key_file = runtime.secret_path(context.settings, "api_admin_key")
    context.console.print(f"page: {document['services'].get('serve', {}).get('url', 'none')}/")
    context.console.print(f"admin key: {key_file}\nlogs: {context.settings.data_dir / 'logs'}", soft_wrap=True)


def _moved_ports(settings: Settings) -> list[str]:
    """Return a line for each service whose usual port is used by another program, so that it has another port."""
    preferred = runtime.preferred_ports(settings)
    embedded = {service.name for service in all_services(settings)}
    ports = {
        name: runtime.known_port(settings, name) for name in preferred if runtime.OWNERS.get(name, name) in embedded
    }
    return [
        f"port {preferred[name]} is taken by {keeper.owner_of(preferred[name])}; {name} listens on {number}"
        for name, number in ports.items()
        if number != preferred[name] and not runtime.port_is_free(preferred[name])
    ]


def _table(rows: dict[str, Any]) -> Table:
    """Make the table of `pixr status`."""
    table = Table("service", "address", "state", "pid", "restarts", box=None, pad_edge=False, header_style="dim")
    for name, row in rows.items():
        table.add_row(name, row["url"], _state(row), str(row["pid"] or ""), str(row["restarts"]))
    return table


def _state(row: dict[str, Any]) -> str:
    if not row["healthy"]:
        return f"[red]{row['reason'] or 'not running'}[/]"
    return f"[yellow]degraded: {', '.join(row['degraded'])}[/]" if row["degraded"] else "[green]healthy[/]"
