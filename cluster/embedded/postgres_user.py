"""Whom PostgreSQL runs as where root starts it, and the files that it may open then.

PostgreSQL refuses root. It runs as a user of its own, whom no other process of the machine is, and who has one right: to
pass closed folders, since its data folder lies in one that only root may enter, and so may the checkout. By that right it
could open every file; Landlock holds it, and all that it starts, to the data folder, its programs and what a program reads
of the system. `python -m cluster.embedded.postgres_user FILES… -- PROGRAM…` does so and becomes the program. Where the
kernel has no Landlock, or the trial of a program fails under it, PostgreSQL runs without, and the log says so.
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

NAME = "pixr-postgres"  # who it is where the machine has this user
UID = 65_101  # and group: who it is elsewhere; a number that belongs to no name
TRIAL_MAX_S = 30.0
LEAVES_WITHIN_S = 30.0

READS = (
    "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf",
    "/etc/gai.conf", "/etc/localtime", "/etc/ld.so.cache", "/proc/meminfo",
)  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
SHARED = ("/dev/shm",)  # noqa: S108  where the kernel keeps shared memory


@dataclass(frozen=True)
class User:
    """A user and group of the machine, by number."""

    uid: int
    gid: int


def of_server() -> User:
    """The user of the server's processes where root starts it: its own where the machine has such a number, else `nobody`."""
    try:
        return _named(NAME)
    except KeyError:
        return User(UID, UID) if _is_free(UID) else _named("nobody")


def of_programs() -> User:
    """The user of programs that ask for the name of theirs (initdb); they run for seconds."""
    try:
        return _named(NAME)
    except KeyError:
        return _named("nobody")


def give_away(folder: Path, user: User) -> None:
    """As root, have a user own a folder with all that is in it, also one that ran as another user before."""
    if os.geteuid() != 0 or folder.stat().st_uid == user.uid:
        return
    for path in (*folder.rglob("*"), folder):  # the folder last: what is interrupted begins again
        os.chown(path, user.uid, user.gid, follow_symlinks=False)


def wait_for_leaving(folder: Path) -> None:
    """Wait for a server that runs in a data folder and is about to end: as another user, the next would not notice it.

    Raises:
        Temporary: it runs on.
    """
    deadline = time.monotonic() + LEAVES_WITHIN_S
    while (process := _running(folder)) is not None:
        if time.monotonic() > deadline:
            raise Temporary(f"PostgreSQL runs in {folder} (process {process.pid}) without a supervisor")
        time.sleep(0.1)


def command(argv: tuple[str, ...], user: User, folder: Path, reads: Iterable[Path] = ()) -> tuple[str, ...]:
    """How root runs a program of PostgreSQL: as a user, held to a data folder and further files that it may read.

    Anybody else runs it as it is.
    """
    if os.geteuid() != 0:
        return argv
    program = Path(argv[0])
    package = program.parents[2]
    readable = (*reads, program.parents[1], package.with_name(f"{package.name}.libs"))
    own = (folder, *_elsewhere(folder))
    files = (*(f"own={each}" for each in own), *(f"run={each}" for each in readable if each.exists()))
    held = (sys.executable, "-m", "cluster.embedded.postgres_user", *files, "--")
    trial = _fails((*held, *unprivileged((argv[0], "--version"), user)))
    if trial:
        log.warning("PostgreSQL is not held to its own files: %s", trial)
        return unprivileged(argv, user)
    return (*held, *unprivileged(argv, user))


def unprivileged(argv: tuple[str, ...], user: User) -> tuple[str, ...]:
    """How root runs a program as a user without rights, but the one to pass closed folders.

    `no_setuid_fixup` has access(2), by which initdb looks for its programs, count that in.
    """
    if os.geteuid() != 0:
        return argv
    right = ("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "--bounding-set=-all,+dac_override")
    who = (f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--pdeathsig=INT", "--no-new-privs")
    return ("setpriv", *who, *right, "--securebits=+no_setuid_fixup", *argv)


def _named(name: str) -> User:
    found = pwd.getpwnam(name)
    return User(found.pw_uid, found.pw_gid)


def _is_free(uid: int) -> bool:
    """Whether a number belongs to no name, and files can be given to it: a container may have few users."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        ranges = (
            map(int, line.split()) for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
        )
        return any(first <= uid < first + length for first, _, length in ranges)
    return False


def _running(folder: Path) -> psutil.Process | None:
    """The server that a data folder's lock file names, if there is one."""
    try:
        with (folder / "postmaster.pid").open(encoding="utf-8") as lock:
            process = psutil.Process(int(lock.readline()))
        return process if process.is_running() and Path(process.cwd()) == folder.resolve() else None
    except (OSError, ValueError, psutil.Error):  # it has left, or is another program that has its number by now
        return None


def _elsewhere(folder: Path) -> list[Path]:
    """Where a data folder's links lead to: its tablespaces, and the log of changes where that was moved."""
    links = (*folder.glob("pg_wal"), *folder.glob("pg_tblspc/*"))
    return [each.resolve() for each in links if each.is_symlink() and each.exists()]


def _fails(argv: tuple[str, ...]) -> str:
    """Why a command fails; nothing where it does not."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TRIAL_MAX_S, cwd=ROOT, check=False)
    except subprocess.TimeoutExpired:
        return f"the trial did not end within {TRIAL_MAX_S:.0f} s"
    said = done.stderr.strip().splitlines()
    return (said[-1] if said else f"the trial ended with code {done.returncode}") if done.returncode else ""


def _hold(files: Iterable[str]) -> None:
    """Hold this process to files: `own=` what it may change, `run=` what it may read and start, and the system's."""
    given = [each.partition("=") for each in files]
    rules = [_rule(path, landlock.OWN if kind == "own" else landlock.FOLDER) for kind, _, path in given]
    of_system = ((READS, landlock.READ), (DEVICES, landlock.WRITE), (SYSTEM, landlock.FOLDER), (SHARED, landlock.OWN))
    rules += [_rule(path, rights) for paths, rights in of_system for path in paths if Path(path).exists()]
    landlock.give_up_privileges()
    landlock.restrict(rules, network=True)


def _rule(path: str, rights: int) -> landlock.Rule:
    if not Path(path).is_dir():
        rights &= landlock.WRITE | landlock.EXECUTE  # the kernel refuses a file the rights of folders
    return landlock.Rule(os.open(path, os.O_PATH | os.O_CLOEXEC), rights)


def main(arguments: list[str]) -> None:
    """Become a program that is held to files."""
    middle = arguments.index("--")
    _hold(arguments[:middle])
    os.execvp(arguments[middle + 1], arguments[middle + 1 :])  # noqa: S606  the command line of `command`, in one process


if __name__ == "__main__":
    main(sys.argv[1:])
