# SPDX-License-Identifier: BSD-2-Clause
"""Whose turn it is: the locks, the delay after a refusal, and the places.

Every lock and place is a ``flock`` on a file in a directory that is root's alone, so that the
kernel gives it back however its holder ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator

from ganeti_ext.noded import DEFAULT_LIMITS, ROOT, Limits, Refused, Unchecked, verify

#: The lock of everybody who is no master candidate.
OTHERS = "lock-other"

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

_V4_MAPPED = bytes(10) + b"\xff\xff"

# Of fixed width: once written, a file system that is full can't refuse it.
_END_FORMAT = b"%018.3f\n"
_END = re.compile(rb"[0-9]{14}\.[0-9]{3}\n")


def boot_time() -> float:
    """Return the seconds since boot, those spent suspended included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _canonical(address: object) -> str | None:
    """Return an IP address in the one spelling of the C library.

    None stands for whatever is no address. An IPv4 address that reached an IPv6 socket is the
    IPv4 address.
    """
    if not isinstance(address, str):
        return None
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            packed = socket.inet_pton(family, address.partition("%")[0])
        except (OSError, ValueError):
            continue
        if packed.startswith(_V4_MAPPED):
            return socket.inet_ntop(socket.AF_INET, packed[12:])
        return socket.inet_ntop(family, packed)
    return None


def lock_name(peer: str | None, candidates: Iterable[str]) -> str:
    """Return the name of the lock file of the caller at the address peer.

    One for each master candidate and one for all others, so that one wrong caller can't shut
    out the administrator (design, section 4, step 1).
    """
    address = _canonical(peer)
    if address is None or address not in map(_canonical, candidates):
        return OTHERS
    return "lock-" + address


@contextlib.contextmanager
def opened(path: str, *, owner: tuple[int, int] = ROOT) -> Iterator[int]:
    """Open the directory of the locks, making it if it is missing.

    Its parent is resolved as a command's path is (``/var/run`` is a link on a real node), so
    that nobody but root can put another directory in its place.

    Gives a file descriptor. Raises Refused if the directory is not the owner's alone (mode
    0700), and OSError.
    """
    parent, name = os.path.split(path)
    path = os.path.join(verify.resolve(parent, owner=owner).path, name)
    try:
        directory = os.open(path, _OPEN_DIRECTORY)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        directory = os.open(path, _OPEN_DIRECTORY)
    try:
        found = os.fstat(directory)
        if (found.st_uid, found.st_gid) != owner or stat.S_IMODE(found.st_mode) != 0o700:
            raise Refused(f"{path!r} is not of owner {owner} and mode 0700")
        yield directory
    finally:
        os.close(directory)


def _try_lock(directory: int, name: str) -> int | None:
    """Lock a file below directory without waiting, making it if missing.

    Returns its descriptor, or None if somebody else holds it. The file is looked at again once
    it is locked: a lock on a file that was meanwhile removed or replaced would not keep anybody
    out.
    """
    lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        now = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if os.path.samestat(now, os.fstat(lock)):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _unlock(lock: int) -> None:
    # Not by closing alone: a process that is just being started may still share the open file
    # for a moment.
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


@contextlib.contextmanager
def place(directory: int, kind: str, count: int) -> Iterator[None]:
    """Hold one of count places of a kind ("waiting", "running").

    Raises Unchecked at once if all of them are taken, and OSError.
    """
    for number in range(count):
        lock = _try_lock(directory, f"{kind}-{number}")
        if lock is not None:
            break
    else:
        raise Unchecked(f"all {count} places for {kind} calls are taken")
    try:
        yield
    finally:
        _unlock(lock)


@contextlib.contextmanager
def turn(
    directory: int,
    name: str,
    *,
    limits: Limits = DEFAULT_LIMITS,
    clock: Callable[[], float] = boot_time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock called name while a command is checked and started.

    Left by an exception, that is a refusal: the lock stays taken for the delay, and the
    exception goes on only then. Left by Unchecked or normally, it is free at once (design,
    section 4, steps 1, 6 and 7).

    The end of the delay is written into the lock file before anything is checked and wiped out
    after a success: a caller that gets itself killed between two guesses gains nothing. A call
    that finds the lock taken, or a delay not yet over, waits, for at most ``limits.wait_limit``
    seconds and the delay, in one of ``limits.waiting`` places. One that has none is refused at
    once: when it has been checked before, the next call will find the delay in the file.

    Raises Unchecked if there is no place or the wait took too long, and OSError.
    """
    with contextlib.ExitStack() as stack:
        seat = _Seat(directory, limits, stack, sleep)
        give_up = clock() + limits.wait_limit
        while (lock := _try_lock(directory, name)) is None:
            if clock() >= give_up:
                raise Unchecked(f"waited {limits.wait_limit:g} s for {name!r}")
            seat.sleep(limits.poll)
        stack.callback(_unlock, lock)
        rest = _rest_of_delay(lock, limits.delay, clock())
        if rest > 0:
            seat.sleep(rest)
        end = clock() + limits.delay
        _write_end(lock, end)
        try:
            yield
        except Unchecked:
            _write_end(lock, 0)
            raise
        except BaseException:
            # Counted from before the check, so that how long that took is not to be told from outside.
            with contextlib.suppress(Unchecked):
                seat.sleep(max(end - clock(), 0.0))
            raise
        try:
            _write_end(lock, 0)
        except OSError:
            # The command runs already; the next one comes late, no more.
            logging.exception("Can't take back the delay in %r", name)


class _Seat:
    """The waiting place of one call: taken when it first sleeps, kept until the stack ends."""

    def __init__(
        self,
        directory: int,
        limits: Limits,
        stack: contextlib.ExitStack,
        sleep: Callable[[float], None],
    ) -> None:
        self._place = place(directory, "waiting", limits.waiting)
        self._stack = stack
        self._sleep = sleep
        self._taken = False

    def sleep(self, seconds: float) -> None:
        if not self._taken:
            self._stack.enter_context(self._place)
            self._taken = True
        self._sleep(seconds)


def _rest_of_delay(lock: int, delay: float, now: float) -> float:
    """Return for how many seconds the delay written in a lock file lasts.

    Never more than the delay (the clock starts again at boot), and the whole of it if what is
    written there makes no sense.
    """
    written = os.pread(lock, 64, 0)
    if not written:
        return 0.0
    if not _END.fullmatch(written):
        return delay
    return min(max(float(written) - now, 0.0), delay)


def _write_end(lock: int, end: float) -> None:
    os.ftruncate(lock, os.pwrite(lock, _END_FORMAT % end, 0))
