# SPDX-License-Identifier: BSD-2-Clause
"""Tests of the locks, the delay that outlives its process, and the places."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_ext.noded import Limits, Refused, Unchecked, lock

NOBODY = 65534
REPOSITORY = str(Path(__file__).parents[3])
CANDIDATES = ["192.0.2.10", "192.0.2.11", "2001:DB8:0::1", "", "no address"]

HOLD = """
import fcntl, os, sys
held = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""

REFUSED_FOR_LONG = """
import sys
sys.path[:0] = sys.argv[1:2]
from ganeti_ext.noded import Limits, Refused, lock
with lock.opened(sys.argv[2]) as directory:
    with lock.turn(directory, "lock-x", limits=Limits(delay=100)):
        print("checking", flush=True)
        if sys.argv[3] == "refused":
            raise Refused("no")
        sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    with lock.opened(str(tmp_path / "locks")) as opened:
        yield opened


@contextlib.contextmanager
def held_by_another(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have another process hold the flock on a file."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def refuse(directory: int, name: str, fake_time, **limits) -> None:
    with (
        pytest.raises(Refused, match="no such thing"),
        lock.turn(
            directory,
            name,
            limits=Limits(**limits),
            clock=fake_time.clock,
            sleep=fake_time.sleep,
        ),
    ):
        raise Refused("no such thing")


def succeed(directory: int, name: str, fake_time, **limits) -> None:
    with lock.turn(directory, name, limits=Limits(**limits), clock=fake_time.clock, sleep=fake_time.sleep):
        pass


# --- which lock


@pytest.mark.parametrize(
    "peer, name",
    [
        ("192.0.2.10", "lock-192.0.2.10"),
        ("192.0.2.11", "lock-192.0.2.11"),
        ("::ffff:192.0.2.10", "lock-192.0.2.10"),
        ("2001:db8::1", "lock-2001:db8::1"),
        ("2001:0DB8:0:0::0001", "lock-2001:db8::1"),
        ("192.0.2.12", lock.OTHERS),
        ("192.0.2.1", lock.OTHERS),
        ("2001:db8::2", lock.OTHERS),
        ("", lock.OTHERS),
        ("no address", lock.OTHERS),
        ("../x", lock.OTHERS),
        ("192.0.2.10\0", lock.OTHERS),
        (None, lock.OTHERS),
    ],
)
def test_lock_name(peer: str | None, name: str) -> None:
    assert lock.lock_name(peer, CANDIDATES) == name


def test_without_candidates_all_are_others() -> None:
    assert lock.lock_name("192.0.2.10", []) == lock.OTHERS


# --- their directory


def test_directory_is_made_for_root_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with lock.opened(str(tmp_path / "locks")) as directory:
            found = os.fstat(directory)
    finally:
        os.umask(before)
    assert found.st_mode & 0o7777 == 0o700
    assert (found.st_uid, found.st_gid) == (0, 0)
    with lock.opened(str(tmp_path / "locks")) as directory:
        assert os.path.samestat(os.fstat(directory), found)


@pytest.mark.parametrize(
    "mode, uid, gid",
    [
        (0o755, 0, 0),
        (0o711, 0, 0),
        (0o1777, 0, 0),
        (0o500, 0, 0),
        (0o700, NOBODY, 0),
        (0o700, 0, NOBODY),
    ],
)
def test_directory_refused(tmp_path: Path, mode: int, uid: int, gid: int) -> None:
    path = tmp_path / "locks"
    path.mkdir()
    os.chown(path, uid, gid)
    path.chmod(mode)
    with pytest.raises(Refused), lock.opened(str(path)):
        pass


def test_directory_below_a_link_of_root(tmp_path: Path) -> None:
    """/var/run is one."""
    (tmp_path / "run").mkdir()
    (tmp_path / "var-run").symlink_to("run")
    with lock.opened(str(tmp_path / "var-run" / "locks")):
        assert (tmp_path / "run" / "locks").is_dir()


def test_directory_that_is_a_link_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "locks").symlink_to("real")
    with pytest.raises((Refused, OSError)), lock.opened(str(tmp_path / "locks")):
        pass


@pytest.mark.parametrize("uid, mode", [(NOBODY, 0o755), (0, 0o777)])
def test_directory_below_one_of_others_refused(tmp_path: Path, uid: int, mode: int) -> None:
    (tmp_path / "run").mkdir()
    os.chown(tmp_path / "run", uid, 0)
    (tmp_path / "run").chmod(mode)
    with pytest.raises(Refused), lock.opened(str(tmp_path / "run" / "locks")):
        pass
    assert not (tmp_path / "run" / "locks").exists()


def test_directory_without_parent_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused), lock.opened(str(tmp_path / "no" / "locks")):
        pass


def test_lock_that_is_a_link_refused(tmp_path: Path, directory: int, fake_time) -> None:
    (tmp_path / "locks" / "lock-x").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        succeed(directory, "lock-x", fake_time)
    assert not (tmp_path / "elsewhere").exists()


# --- the turn and the delay


def test_success_costs_nobody_anything(directory: int, fake_time) -> None:
    for _ in range(3):
        succeed(directory, "lock-x", fake_time)
    assert fake_time.slept == []


def test_refusal_sits_out_the_delay_under_the_lock(tmp_path: Path, directory: int, fake_time) -> None:
    taken = []

    def sleep(seconds: float) -> None:
        with pytest.raises(Unchecked):  # all places given to this one
            succeed(directory, "lock-x", fake_time, waiting=1)
        taken.append(seconds)
        fake_time.sleep(seconds)

    with (
        pytest.raises(Refused),
        lock.turn(directory, "lock-x", limits=Limits(waiting=1), clock=fake_time.clock, sleep=sleep),
    ):
        raise Refused("no")
    assert taken == [10.0]
    succeed(directory, "lock-x", fake_time)
    assert fake_time.slept == [10.0]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_any_other_error_is_a_refusal_too(directory: int, fake_time, error: type) -> None:
    with (
        pytest.raises(error),
        lock.turn(directory, "lock-x", clock=fake_time.clock, sleep=fake_time.sleep),
    ):
        raise error()
    assert fake_time.slept == [10.0]


def test_unchecked_costs_nothing(directory: int, fake_time) -> None:
    with (
        pytest.raises(Unchecked),
        lock.turn(directory, "lock-x", clock=fake_time.clock, sleep=fake_time.sleep),
    ):
        raise Unchecked("no place")
    succeed(directory, "lock-x", fake_time)
    assert fake_time.slept == []


def test_one_lock_does_not_hold_another(directory: int, fake_time) -> None:
    inner: list[float] = []

    def sleep(seconds: float) -> None:
        succeed(directory, "lock-192.0.2.10", fake_time)
        inner.append(seconds)

    with (
        pytest.raises(Refused),
        lock.turn(directory, lock.OTHERS, clock=fake_time.clock, sleep=sleep),
    ):
        raise Refused("no")
    assert inner == [10.0]
    assert fake_time.slept == []


def test_waits_for_a_lock_that_another_holds(tmp_path: Path, directory: int, fake_time) -> None:
    with held_by_another(tmp_path / "locks" / "lock-x") as holder:

        def sleep(seconds: float) -> None:
            fake_time.sleep(seconds)
            if len(fake_time.slept) == 5:
                holder.kill()
                holder.wait()

        with lock.turn(directory, "lock-x", clock=fake_time.clock, sleep=sleep):
            pass
    assert fake_time.slept == [0.05] * 5


def test_the_wait_is_bounded(tmp_path: Path, directory: int, fake_time) -> None:
    with (
        held_by_another(tmp_path / "locks" / "lock-x"),
        pytest.raises(Unchecked, match="waited 60 s"),
    ):
        succeed(directory, "lock-x", fake_time)
    assert 60 <= sum(fake_time.slept) < 61


def test_the_fourth_is_refused_at_once(tmp_path: Path, directory: int, fake_time) -> None:
    locks = tmp_path / "locks"
    with (
        held_by_another(locks / "lock-x"),
        held_by_another(locks / "waiting-0"),
        held_by_another(locks / "waiting-1"),
    ):
        with (
            held_by_another(locks / "waiting-2"),
            pytest.raises(Unchecked, match="all 3 places"),
        ):
            succeed(directory, "lock-x", fake_time)
        assert fake_time.slept == []
        # The third was killed: its place is free again.
        with pytest.raises(Unchecked, match="waited"):
            succeed(directory, "lock-x", fake_time, wait_limit=1)


def test_places_do_not_concern_who_need_not_wait(tmp_path: Path, directory: int, fake_time) -> None:
    locks = tmp_path / "locks"
    with held_by_another(locks / "waiting-0"):
        succeed(directory, "lock-x", fake_time, waiting=1)
        # Refused without a place to sit: the delay holds all the same.
        refuse(directory, "lock-x", fake_time, waiting=1)
        assert fake_time.slept == []
        with pytest.raises(Unchecked):
            succeed(directory, "lock-x", fake_time, waiting=1)
    fake_time.now += 4
    succeed(directory, "lock-x", fake_time, waiting=1)
    assert fake_time.slept == [pytest.approx(6)]


@pytest.mark.parametrize("how", ["refused", "checking"])
def test_the_delay_outlives_a_kill(tmp_path: Path, how: str, fake_time) -> None:
    path = tmp_path / "locks"
    with subprocess.Popen(
        [sys.executable, "-c", REFUSED_FOR_LONG, REPOSITORY, str(path), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"checking\n"
        if how == "refused":
            patience = time.monotonic() + 60
            while not _held(path / "waiting-0"):
                assert time.monotonic() < patience
                time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    with (
        lock.opened(str(path)) as directory,
        lock.turn(directory, "lock-x", limits=Limits(delay=100), sleep=fake_time.sleep),
    ):
        pass
    assert len(fake_time.slept) == 1
    assert 20 < fake_time.slept[0] <= 100


def _held(path: Path) -> bool:
    """Tell whether some process holds the lock of a file."""
    return path.exists() and f":{path.stat().st_ino} " in Path("/proc/locks").read_text()


@pytest.mark.parametrize(
    "written, slept",
    [
        (b"", []),
        (b"00000000000000.000\n", []),
        (b"00000000000999.000\n", []),
        (b"00000000001004.000\n", [4.0]),
        (b"00000000001010.000\n", [10.0]),
        (b"00000000001011.000\n", [10.0]),  # too far: cut
        (b"99999999999999.999\n", [10.0]),
        (b"\n", [10.0]),  # whatever makes no sense: the whole delay
        (b"0\n", [10.0]),
        (b"nan\n", [10.0]),
        (b"-0000000000999.000\n", [10.0]),
        (b"inf\n", [10.0]),
        (b"\0" * 19, [10.0]),
        (b"\xff" * 4096, [10.0]),
        (b"00000000000000.000\nmore", [10.0]),
    ],
)
def test_what_is_written_in_the_lock(
    tmp_path: Path, directory: int, fake_time, written: bytes, slept: list[float]
) -> None:
    (tmp_path / "locks" / "lock-x").write_bytes(written)
    succeed(directory, "lock-x", fake_time)
    assert fake_time.slept == slept
    succeed(directory, "lock-x", fake_time)
    assert fake_time.slept == slept


def test_a_lock_file_replaced_while_waiting(tmp_path: Path, directory: int, fake_time) -> None:
    """Nobody gets in by a lock on a file that is no longer the lock."""
    path = tmp_path / "locks" / "lock-x"
    with contextlib.ExitStack() as stack:
        stack.enter_context(held_by_another(path))

        def sleep(seconds: float) -> None:
            fake_time.sleep(seconds)
            if len(fake_time.slept) == 1:
                path.unlink()
                stack.enter_context(held_by_another(path))

        with (
            pytest.raises(Unchecked, match="waited"),
            lock.turn(
                directory,
                "lock-x",
                limits=Limits(wait_limit=1),
                clock=fake_time.clock,
                sleep=sleep,
            ),
        ):
            pytest.fail("got in")


@pytest.mark.parametrize("replace", [False, True])
def test_the_file_is_looked_at_again_once_locked(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    path = tmp_path / "locks" / "lock-x"
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        path.unlink()
        if replace:
            path.touch()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert lock._try_lock(directory, "lock-x") is None
    found = lock._try_lock(directory, "lock-x")
    assert found is not None
    os.close(found)


# --- places


def test_places(directory: int) -> None:
    with lock.place(directory, "running", 2):
        with lock.place(directory, "running", 2):
            with lock.place(directory, "waiting", 2):
                pass
            with pytest.raises(Unchecked), lock.place(directory, "running", 2):
                pass
        with lock.place(directory, "running", 2):
            pass


def test_no_places_at_all(directory: int) -> None:
    with pytest.raises(Unchecked), lock.place(directory, "running", 0):
        pass


def test_a_place_comes_back_from_a_killed_process(tmp_path: Path, directory: int) -> None:
    with held_by_another(tmp_path / "locks" / "running-0") as holder:
        with pytest.raises(Unchecked), lock.place(directory, "running", 1):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock.place(directory, "running", 1):
            pass


def test_no_descriptor_stays_open(tmp_path: Path, fake_time) -> None:
    before = os.listdir("/proc/self/fd")
    with lock.opened(str(tmp_path / "locks")) as directory:
        succeed(directory, "lock-x", fake_time)
        refuse(directory, "lock-x", fake_time)
        with (
            lock.place(directory, "running", 1),
            pytest.raises(Unchecked),
            lock.place(directory, "running", 1),
        ):
            pass
    assert os.listdir("/proc/self/fd") == before


def test_the_clock_goes_on_while_suspended() -> None:
    assert lock.boot_time() == pytest.approx(float(Path("/proc/uptime").read_text().split()[0]), abs=60)
