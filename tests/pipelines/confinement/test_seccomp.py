"""The filter of system calls, run here instruction by instruction, for machines that this one is not, too."""

from __future__ import annotations

import errno

import pytest

from pipelines.confinement import seccomp, syscalls
from pipelines.confinement.syscalls import ABSENT, CLONE_NAMESPACES, CLONE_THREAD, FOR_PROGRAMS, MACHINES, NUMBERS

PID = 4711
ALLOW, REFUSE, UNKNOWN = seccomp.ALLOW, seccomp.ERRNO | errno.EPERM, seccomp.ERRNO | errno.ENOSYS
CHILD = 17  # SIGCHLD, as fork(2) gives it to clone


def verdict(machine: str, number: int, *arguments: int, programs: bool = False, arch: int | None = None) -> int:
    """What the kernel would do: a filter goes forward only, so it ends."""
    words = {seccomp.NUMBER_AT: number, seccomp.ARCH_AT: arch or seccomp.AUDIT_ARCH[machine]}
    words |= {seccomp.ARGUMENTS_AT + 8 * at: value & 0xFFFF_FFFF for at, value in enumerate([*arguments, *[0] * 6][:6])}
    filter_, at, loaded = seccomp.assemble(machine, PID, programs=programs), 0, 0
    while True:
        code, if_true, if_false, operand = filter_[at]
        if code == seccomp.RETURN:
            return operand
        if code == seccomp.LOAD:
            loaded, at = words[operand], at + 1
        else:
            matches = loaded == operand if code == seccomp.JUMP_EQUAL else bool(loaded & operand)
            at += 1 + (if_true if matches else if_false)


def number(machine: str, name: str) -> int:
    return NUMBERS[name][MACHINES.index(machine)]


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_not_named_is_refused(machine: str) -> None:
    named = {number(machine, name) for name in NUMBERS if name not in FOR_PROGRAMS} - {ABSENT}
    allowed = {each for each in range(1200) if verdict(machine, each) not in (REFUSE, UNKNOWN)}
    assert allowed <= named
    watched = set(syscalls.conditions(PID, programs=False)) | {"clone3", *FOR_PROGRAMS}
    assert {number(machine, name) for name in NUMBERS if name not in watched} - {ABSENT} <= allowed
    assert verdict(machine, 0x4000_0000 + number(machine, "read")) == REFUSE  # the numbers of x32


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_of_another_machine_end_the_process(machine: str) -> None:
    i386 = 0x4000_0003
    assert verdict(machine, number(machine, "read"), arch=i386) == seccomp.KILL_PROCESS


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_are_looked_at(machine: str) -> None:
    def of(name: str, *arguments: int, programs: bool = False) -> int:
        return verdict(machine, number(machine, name), *arguments, programs=programs)

    assert of("clone", 0x3D0F00 | CLONE_THREAD) == ALLOW
    assert of("clone", CHILD) == REFUSE
    assert of("clone", CHILD, programs=True) == ALLOW
    for bit in range(32):
        if CLONE_NAMESPACES >> bit & 1:
            assert of("clone", CHILD | 1 << bit, programs=True) == REFUSE
    assert of("clone3") == of("clone3", programs=True) == UNKNOWN
    assert of("tgkill", PID, 1, 6) == ALLOW
    assert of("tgkill", PID - 1, 1, 6) == REFUSE
    assert of("prlimit64", 0) == ALLOW
    assert of("prlimit64", PID) == REFUSE
    assert of("mmap", 0, 4096, 3) == ALLOW
    assert of("mmap", 0, 4096, 5) == of("mprotect", 0, 4096, 7) == REFUSE
    assert of("mmap", 0, 4096, 5, programs=True) == ALLOW  # a program maps its libraries
    assert of("ioctl", 0, 0x5401) == ALLOW
    assert of("ioctl", 0, 0x5412) == REFUSE  # TIOCSTI: words put into a terminal's mouth
    assert {of("fcntl", 0, command) for command in syscalls.FCNTL_COMMANDS} == {ALLOW}
    assert of("fcntl", 0, 8) == REFUSE  # F_SETOWN: signals
    assert of("prctl", 15) == ALLOW
    assert of("prctl", 22) == of("prctl", 4) == REFUSE


@pytest.mark.parametrize("machine", MACHINES)
def test_programs_are_for_profiles_that_name_some(machine: str) -> None:
    for name in FOR_PROGRAMS:
        if number(machine, name) != ABSENT:
            assert verdict(machine, number(machine, name)) == REFUSE, name
            assert verdict(machine, number(machine, name), programs=True) == ALLOW, name


def test_jumps_stay_within_what_an_instruction_can_say() -> None:
    for machine in MACHINES:
        for programs in (False, True):
            filter_ = seccomp.assemble(machine, PID, programs=programs)
            assert len(filter_) < 4096
            assert all(0 <= if_true < 256 and 0 <= if_false < 256 for _, if_true, if_false, _ in filter_)
