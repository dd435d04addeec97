"""The user that PostgreSQL runs as where root starts it, and the files that it may then open.

PostgreSQL refuses to run as root. It runs as a user that no other process has, with one capability: to open files in
folders that are closed to it, because the data folder, and perhaps the checkout, lie in folders that only root may
enter. That capability would let it open every file; Landlock restricts it, and all processes that it starts, to the
data folder, its programs and the system files that every program reads. `python -m cluster.embedded.postgres_user
FILES… -- PROGRAM…` sets this up and then becomes the program. Where the kernel has no Landlock, or a trial run fails
under it, PostgreSQL runs without the restriction, and the log says so.
"""

from __future__ import annotations

import logging
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster import landlock
from cluster.errors import Temporary
from cluster.settings import ROOT

log = logging.getLogger(__name__)

NAME = "pixr-postgres"  # the user, where the machine has one of this name
UID = 65_101  # the user and group elsewhere: a number without a name
TRIAL_MAX_S = 30.0
LEAVES_WITHIN_S = 30.0

READS = (
    "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf",
    "/etc/gai.conf", "/etc/localtime", "/etc/ld.so.cache", "/proc/meminfo",
)  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
SHARED = ("/dev/shm",)  # noqa: S108  POSIX shared memory


@dataclass(frozen=True)
class User:
    """A user and group of the machine, by number."""

    uid: int
    gid: int


def of_server() -> User:
    """Return the user for the server's processes where root starts it: `pixr-postgres` (`NAME`) if it exists.

    Else it is the number 65101 (`UID`), or `nobody` if this number is in use or does not exist in this container.
    """
    try:
        return _named(NAME)
    except KeyError:
        return User(UID, UID) if _is_free(UID) else _named("nobody")


def of_programs() -> User:
    """Return the user for programs that need a user with a name (initdb); they run for seconds."""
    try:
        return _named(NAME)
    except KeyError:
        return _named("nobody")


def give_away(folder: Path, user: User) -> None:
    """Make a user the owner of a folder and all its content; do nothing if this process does not run as root."""
    if os.geteuid() != 0 or folder.stat().st_uid == user.uid:
        return
    for path in (*folder.rglob("*"), folder):  # the folder last, so that an interrupted run is repeated
        os.chown(path, user.uid, user.gid, follow_symlinks=False)


def wait_for_leaving(folder: Path) -> None:
    """Wait until a server that still runs in a data folder has ended.

    The next server may run as another user and would then not notice the first one's lock file.

    Raises:
        Temporary: the server goes on running.
    """
    deadline = time.monotonic() + LEAVES_WITHIN_S
    while (process := _running(folder)) is not None:
        if time.monotonic() > deadline:
            raise Temporary(f"PostgreSQL runs in {folder} (process {process.pid}) without a supervisor")
        time.sleep(0.1)


def command(argv: tuple[str, ...], user: User, folder: Path, reads: Iterable[Path] = ()) -> tuple[str, ...]:
    """Return the command line for a program of PostgreSQL.

    If this process runs as root, the program runs as another user and may open its own files only.

    Args:
        argv: The program's absolute path and its arguments.
        user: The user to run as.
        folder: The data folder, which the program may read and write.
        reads: Further files that it may read.

    Returns:
        `argv` itself if this process does not run as root; a command line without the restriction to files if a trial
        run with it fails.
    """
    if os.geteuid() != 0:
        return argv
    program = Path(argv[0])
    package = program.parents[2]
    readable = (*reads, program.parents[1], package.with_name(f"{package.name}.libs"))
    writable = (folder, *_linked_folders(folder))
    files = (*(f"own={path}" for path in writable), *(f"run={path}" for path in readable if path.exists()))
    restricted = (sys.executable, "-m", "cluster.embedded.postgres_user", *files, "--")
    failure = _failure((*restricted, *unprivileged((argv[0], "--version"), user)))
    if failure:
        log.warning("PostgreSQL is not held to its own files: %s", failure)
        return unprivileged(argv, user)
    return (*restricted, *unprivileged(argv, user))


def unprivileged(argv: tuple[str, ...], user: User) -> tuple[str, ...]:
    """Return the command line with which root runs a program as a user with one capability: to pass closed folders.

    The flag `no_setuid_fixup` makes access(2) regard this capability: initdb looks for its programs by access(2).
    """
    if os.geteuid() != 0:
        return argv
    capabilities = tuple(f"--{name}=-all,+dac_override" for name in ("inh-caps", "ambient-caps", "bounding-set"))
    identity = (f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--pdeathsig=INT", "--no-new-privs")
    return ("setpriv", *identity, *capabilities, "--securebits=+no_setuid_fixup", *argv)


def _named(name: str) -> User:
    """Return the machine's user of a name; raise `KeyError` where there is none."""
    entry = pwd.getpwnam(name)
    return User(entry.pw_uid, entry.pw_gid)


def _is_free(uid: int) -> bool:
    """Return whether a user number has no name and can own files; in a container only some numbers can."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        ranges = (
            map(int, line.split()) for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
        )
        return any(first <= uid < first + length for first, _, length in ranges)
    return False


def _running(folder: Path) -> psutil.Process | None:
    """Return the server that a data folder's lock file names; None if it is not running."""
    try:
        with (folder / "postmaster.pid").open(encoding="utf-8") as lock:
            process = psutil.Process(int(lock.readline()))
        return process if process.is_running() and Path(process.cwd()) == folder.resolve() else None
    except (OSError, ValueError, psutil.Error):  # it has ended; the pid may be another program's now
        return None


def _linked_folders(folder: Path) -> list[Path]:
    """Return the folders that a data folder's links lead to: tablespaces, and the write-ahead log where it was moved."""
    links = (*folder.glob("pg_wal"), *folder.glob("pg_tblspc/*"))
    return [link.resolve() for link in links if link.is_symlink() and link.exists()]


def _failure(argv: tuple[str, ...]) -> str:
    """Return why a command fails; empty when it succeeds."""
    try:
        process = subprocess.run(argv, capture_output=True, text=True, timeout=TRIAL_MAX_S, cwd=ROOT, check=False)
    except subprocess.TimeoutExpired:
        return f"the trial did not end within {TRIAL_MAX_S:.0f} s"
    if not process.returncode:
        return ""
    lines = process.stderr.strip().splitlines()
    return lines[-1] if lines else f"the trial ended with code {process.returncode}"


def _restrict(files: Iterable[str]) -> None:
    """Restrict this process to system files and `files`: `own=PATH` may be changed, `run=PATH` read and executed."""
    pairs = [argument.partition("=") for argument in files]
    rules = [_rule(path, landlock.OWN if kind == "own" else landlock.FOLDER) for kind, _, path in pairs]
    of_system = ((READS, landlock.READ), (DEVICES, landlock.WRITE), (SYSTEM, landlock.FOLDER), (SHARED, landlock.OWN))
    rules += [_rule(path, rights) for paths, rights in of_system for path in paths if Path(path).exists()]
    landlock.give_up_privileges()
    landlock.restrict(rules, network=True)


def _rule(path: str, rights: int) -> landlock.Rule:
    if not Path(path).is_dir():
        rights &= landlock.WRITE | landlock.EXECUTE  # the kernel refuses rights of folders for a file
    return landlock.Rule(os.open(path, os.O_PATH | os.O_CLOEXEC), rights)


def main(arguments: list[str]) -> None:
    """Restrict this process to the files before `--` and become the program after it."""
    middle = arguments.index("--")
    _restrict(arguments[:middle])
    os.execvp(arguments[middle + 1], arguments[middle + 1 :])  # noqa: S606  a command line made by `command`


if __name__ == "__main__":
    main(sys.argv[1:])
