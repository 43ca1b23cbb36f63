# SPDX-License-Identifier: BSD-2-Clause
"""Running a command: as root's, bounded in time and in output, reaped."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ganeti_ext.noded import DEFAULT_LIMITS, Limits

#: All that a command finds in its environment. Nothing of /usr/local: on Debian its directories
#: may be written by the group staff.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}

_CHUNK = 64 * 1024  # bytes; what a pipe holds

# Seconds between two looks at a command that says nothing: first and last.
_TICKS = (0.0005, 0.05)

#: Held while a command is started and noted: by whoever else takes children of this process (`threaded.Reaper`), too.
starting = threading.Lock()

#: The process ids of all commands that somebody is to collect.
commands: set[int] = set()


class Result(NamedTuple):
    """What a command that ran has left.

    ``failure`` says in Ganeti's words (``utils.RunResult.fail_reason``) how it ended, unless
    that was with exit code 0 and in time.
    """

    output: str
    failure: str | None


def start(path: str, name: str, *, environment: Mapping[str, str] = ENVIRONMENT) -> subprocess.Popen[bytes]:
    """Start the file at path with name as its only argument.

    With input from /dev/null and one pipe for all its output, so that the order is kept; with
    no shell and nothing of the daemon's: not its environment, descriptors, groups, umask,
    session, or signals (design, section 4, step 7).

    Returns the process once it executes the file. Raises OSError if it can't be executed; then
    nothing has run.
    """
    # A mask is the thread's own and must be empty when it is inherited.
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        with starting:
            process = subprocess.Popen(
                [name],
                executable=path,
                env=dict(environment),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                umask=0o022,
                start_new_session=True,
                **_unusual_needs(),
            )
            commands.add(process.pid)
        return process
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _unusual_needs() -> dict[str, Any]:
    """Return the arguments of Popen that a daemon started as usual can spare.

    With any of them Popen has to fork, not vfork, the daemon's locked memory.
    """
    needs: dict[str, Any] = {}
    if os.getresgid() != (0, 0, 0) or os.getgroups() not in ([], [0]):
        needs.update(group=0, extra_groups=[0])
    # Handled signals become default by themselves and the two that Python ignores are restored
    # by Popen, unlike what we were started ignoring.
    ignored = [
        number
        for number in signal.valid_signals()
        if signal.getsignal(number) == signal.SIG_IGN and number not in (signal.SIGPIPE, signal.SIGXFSZ)
    ]
    if ignored:
        needs["preexec_fn"] = functools.partial(_restore, ignored)
    return needs


def _restore(numbers: Iterable[int]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)


def collect(
    process: subprocess.Popen[bytes],
    *,
    limits: Limits = DEFAULT_LIMITS,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Wait for a process of ``start`` and return what it leaves.

    At ``limits.time_limit`` seconds its process group gets TERM and, when the process has ended
    or ``limits.grace`` seconds later, KILL. What has left the group is out of reach.

    The answer comes with the end of the process itself. Children that it leaves behind are left
    alone, since starting a daemon is what a command may be for; they find nobody at the other
    end of the pipe.

    A process that even KILL can't end (in a disk's or a server's grip) doesn't hold the answer
    either: it is reaped by Python or init when it ends.
    """
    output = _Output(limits.output_limit)
    late = ""
    try:
        if not _follow(process, output, clock() + limits.time_limit, clock):
            late = f", terminated after timeout of {limits.time_limit:.2f} seconds"
            _signal_group(process, signal.SIGTERM)
            if not _follow(process, output, clock() + limits.grace, clock):
                late = (
                    ", force termination after timeout of"
                    f" {limits.time_limit:.2f} seconds and linger for"
                    f" another {limits.grace:.2f} seconds"
                )
            _signal_group(process, signal.SIGKILL)
            _follow(process, output, clock() + limits.grace, clock)
    except BaseException:
        _signal_group(process, signal.SIGKILL)
        raise
    finally:
        process.poll()
        commands.discard(process.pid)
        if process.stdout is not None:
            process.stdout.close()
    if process.returncode == 0 and not late:
        return Result(output.text(), None)
    return Result(output.text(), _ending(process.returncode) + late)


def _ending(returncode: int | None) -> str:
    if returncode is None:
        return "unable to determine termination reason"
    if returncode < 0:
        return f"terminated by signal {-returncode}"
    return f"exited with exit code {returncode}"


class _Output:
    """The first bytes of an output, and the number of all of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._seen = 0

    def add(self, chunk: bytes) -> None:
        self._kept += chunk[: self._limit - len(self._kept)]
        self._seen += len(chunk)

    def text(self) -> str:
        # As ASCII, the one text that goes through luxid unharmed: it writes other characters of a job's
        # result so that no client can read it any more, gnt-node neither.
        text = self._kept.decode("ascii", "backslashreplace")
        if self._seen > len(self._kept):
            text += f"\n[output cut: the first {len(self._kept)} of {self._seen} bytes]\n"
        return text


def _follow(
    process: subprocess.Popen[bytes],
    output: _Output,
    deadline: float,
    clock: Callable[[], float],
) -> bool:
    """Read what the process writes until it ends or the deadline comes.

    Returns whether it has ended. It is not reaped, so that its number goes on being that of its
    group and of no other.
    """
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    tick = _TICKS[0]
    with _end_of(process) as end:
        if end is not None:
            poller.register(end, select.POLLIN)
        while not _has_ended(process):
            rest = deadline - clock()
            if rest <= 0:
                return False
            ready = [descriptor for descriptor, _ in poller.poll(min(rest, tick) * 1000)]
            if pipe in ready:
                tick = _TICKS[0]
                chunk = os.read(pipe, _CHUNK)
                output.add(chunk)
                if not chunk:
                    poller.unregister(pipe)
            else:
                tick = min(tick * 2, _TICKS[1])
    # What it left in the pipe, and not what somebody else goes on writing.
    with contextlib.suppress(BlockingIOError):
        for _ in range(16):
            output.add(os.read(pipe, _CHUNK))
    return True


@contextlib.contextmanager
def _end_of(process: subprocess.Popen[bytes]) -> Iterator[int | None]:
    """Give a descriptor that can be read once the process has ended, None where there is none (Linux 5.2)."""
    try:
        end = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        yield None
        return
    try:
        yield end
    finally:
        os.close(end)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    # Gone if its last member was reaped, which collect() leaves to the end.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
