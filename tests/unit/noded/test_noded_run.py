# SPDX-License-Identifier: BSD-2-Clause
"""Tests of how a command runs and of what is told about its end."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_ext.noded import Limits, run

REPOSITORY = str(Path(__file__).parents[3])

#: Prints all that a process is given by who starts it.
REPORT = """
import json, os, signal, sys
descriptors = []
for number in range(1024):
    try:
        os.fstat(number)
    except OSError:
        continue
    descriptors.append(number)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "argv": open("/proc/self/cmdline").read().split("\\0")[:-1],
    "environment": dict(line.split("=", 1) for line in
                        open("/proc/self/environ").read().split("\\0")[:-1]),
    "descriptors": descriptors,
    "input": os.readlink("/proc/self/fd/0"),
    "outputs": os.path.samestat(os.fstat(1), os.fstat(2)),
    "directory": os.getcwd(),
    "umask": os.umask(0),
    "users": os.getresuid(),
    "groups": [*os.getresgid(), *os.getgroups()],
    "session": os.getsid(0) == os.getpgid(0) == os.getpid(),
    "blocked": int(status["SigBlk"], 16),
    # Python itself ignores two of them; 32 and 33 are the C library's own, which nobody can
    # set, and which are ignored below make.
    "ignored": int(status["SigIgn"], 16) & ~(1 << signal.SIGPIPE - 1)
               & ~(1 << signal.SIGXFSZ - 1) & ~(3 << 31),
}))
"""


@pytest.fixture
def execute(script: Callable[..., Path]) -> Callable[..., run.Result]:
    """Run a script and return its result."""

    def execute(body: str, **limits: Any) -> run.Result:
        path = script(body)
        return run.collect(run.start(str(path), path.name), limits=Limits(**limits))

    return execute


@pytest.fixture
def overrun(script: Callable[..., Path]) -> Callable[..., run.Result]:
    """Run a script whose time is over as soon as it has made the file $0.ready."""

    def overrun(body: str, *rest: str, grace: float = 60) -> run.Result:
        path = script(body, *rest)
        ready = Path(f"{path}.ready")
        begun = False
        over = 0.0  # since when

        def clock() -> float:
            nonlocal begun, over
            if begun and not over and ready.exists():
                over = time.monotonic()
            begun = True
            return 60 + time.monotonic() - over if over else 0

        return run.collect(run.start(str(path), path.name), limits=Limits(grace=grace), clock=clock)

    return overrun


def is_gone(pid: int) -> bool:
    """Tell whether a process ends within a minute (zombies have ended)."""
    patience = time.monotonic() + 60
    while time.monotonic() < patience:
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        if status.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


# --- what the command is given


@contextlib.contextmanager
def odd_daemon() -> Iterator[None]:
    """Give this process what a command must not inherit."""
    groups, umask = os.getgroups(), os.umask(0o077)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    inherited = os.open("/dev/null", os.O_RDWR)
    os.set_inheritable(inherited, True)
    os.setgroups([0, 4, 65534])
    os.setegid(4)
    os.environ["GANETI_ROOTDIR"] = "/secret"
    try:
        yield
    finally:
        del os.environ["GANETI_ROOTDIR"]
        os.setegid(0)
        os.setgroups(groups)
        os.close(inherited)
        signal.signal(signal.SIGHUP, hangup)
        signal.signal(signal.SIGINT, interrupt)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.umask(umask)


@pytest.mark.parametrize("around", [contextlib.nullcontext, odd_daemon])
def test_what_a_command_is_given(script: Callable[..., Path], around: Callable) -> None:
    path = script(REPORT, "report", "/usr/bin/python3 -IS")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with around():
        inside = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        process = run.start(str(path), "report")
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == inside
        result = run.collect(process)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    assert result.failure is None, result.output
    found = json.loads(result.output)
    assert found.pop("environment") == {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
    }
    assert set(found.pop("groups")) == {0}
    assert found == {
        # For a script the kernel puts interpreter and path in its place.
        "argv": ["/usr/bin/python3", "-IS", str(path)],
        "descriptors": [0, 1, 2],
        "input": "/dev/null",
        "outputs": True,
        "directory": "/",
        "umask": 0o022,
        "users": [0, 0, 0],
        "session": True,
        "blocked": 0,
        "ignored": 0,
    }


def test_the_name_is_the_only_argument(commands: Path) -> None:
    shutil.copy("/bin/cat", commands / "hello")
    shutil.copy("/bin/echo", commands / "echo")
    assert run.collect(run.start(str(commands / "echo"), "-n")).output == "\n"
    # Without argument cat copies its input, which is empty.
    assert run.collect(run.start(str(commands / "hello"), "hello")) == run.Result("", None)


def test_a_usual_daemon_need_not_fork() -> None:
    """What is asked of Popen then can be done by vfork."""
    groups = os.getgroups()
    # Those that what a shell starts in the background, or nohup, ignores.
    handlers = {
        number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
    }
    os.setgroups([0])
    try:
        assert run._unusual_needs() == {}
    finally:
        os.setgroups(groups)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_no_shell(commands: Path) -> None:
    path = commands / "hello"
    path.write_text("echo this has no first line for the kernel\n")
    path.chmod(0o755)
    with pytest.raises(OSError):
        run.start(str(path), "hello")


@pytest.mark.parametrize("interpreter", ["/nonexistent/interpreter", "/", ""])
def test_missing_interpreter(script: Callable[..., Path], interpreter: str) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError):
        run.start(str(script("", "hello", interpreter)), "hello")
    assert os.listdir("/proc/self/fd") == before


# --- its end


@pytest.mark.parametrize(
    "body, output, failure",
    [
        ("echo hello", "hello\n", None),
        ("", "", None),
        ("printf 'no newline'", "no newline", None),
        ("echo out; echo err >&2; echo out", "out\nerr\nout\n", None),
        ("echo bad; exit 1", "bad\n", "exited with exit code 1"),
        ("exit 255", "", "exited with exit code 255"),
        ("echo x; kill -9 $$", "x\n", "terminated by signal 9"),
        ("kill -SEGV $$", "", "terminated by signal 11"),
        ("exec >&- 2>&-; sleep 0.2; exit 4", "", "exited with exit code 4"),
        (r"printf '\377\376ok\000\342\202'", r"\xff\xfeok" + "\0" + r"\xe2\x82", None),
        (r"printf '\342\202\254 \303\251'", r"\xe2\x82\xac \xc3\xa9", None),
    ],
)
def test_end(execute: Callable[..., run.Result], body: str, output: str, failure: str | None) -> None:
    assert execute(body) == run.Result(output, failure)


def test_it_is_reaped_and_nothing_stays_open(script: Callable[..., Path]) -> None:
    path = str(script("exit 3"))
    before = os.listdir("/proc/self/fd")
    process = run.start(path, "hello")
    run.collect(process)
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, 0)


# --- the limit of time


def test_time_limit_terminates(overrun: Callable[..., run.Result]) -> None:
    assert overrun("echo begun; touch $0.ready; exec sleep 300") == run.Result(
        "begun\n", "terminated by signal 15, terminated after timeout of 60.00 seconds"
    )


# (Not in sh, where a signal to the whole group can get lost between fork and exec.)
LAST_WORDS = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("bye")))
print("begun")
pathlib.Path(sys.argv[0] + ".ready").touch()
time.sleep(300)
"""


def test_last_words(overrun: Callable[..., run.Result]) -> None:
    assert overrun(LAST_WORDS, "hello", "/usr/bin/python3 -IS") == run.Result(
        "begun\nbye\n", "exited with exit code 0, terminated after timeout of 60.00 seconds"
    )


def test_who_ignores_term_is_killed_with_his_group(overrun: Callable[..., run.Result], tmp_path: Path) -> None:
    result = overrun(
        f"trap '' TERM; sleep 300 & echo $! > {tmp_path}/child; touch $0.ready\nwhile :; do wait; done",
        grace=0.3,
    )
    assert result == run.Result(
        "",
        "terminated by signal 9, force termination after timeout of 60.00 seconds and linger for another 0.30 seconds",
    )
    assert is_gone(int((tmp_path / "child").read_text()))


def test_group_is_killed_when_its_leader_obeys(overrun: Callable[..., run.Result], tmp_path: Path) -> None:
    result = overrun(
        f"""sh -c 'trap "" TERM; echo $$ > {tmp_path}/child; touch '$0'.ready\n"""
        "while :; do sleep 0.02; done' &\nwait"
    )
    assert result.failure is not None
    assert result.failure.startswith("terminated by signal 15, terminated after")
    assert is_gone(int((tmp_path / "child").read_text()))


def test_the_unkillable_does_not_hold_the_answer(script: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    process = run.start(str(script("exec sleep 300")), "hello")
    with monkeypatch.context() as patch:
        patch.setattr(run, "_has_ended", lambda _: False)
        patch.setattr(process, "poll", lambda: None)
        times = itertools.count(0, 30)
        result = run.collect(process, clock=lambda: next(times))
    assert result.failure is not None
    assert result.failure.startswith("unable to determine termination reason, force termination after timeout of")
    assert process.wait(timeout=60) < 0


def test_an_error_of_ours_leaves_nothing_running(script: Callable[..., Path]) -> None:
    process = run.start(str(script("exec sleep 300")), "hello")

    def clock() -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run.collect(process, clock=clock)
    assert is_gone(process.pid)


# --- those that it leaves behind


@pytest.mark.parametrize("how", ["", "setsid "])
@pytest.mark.parametrize("what", ["sleep 300", "while :; do echo y; done"])
def test_a_background_child_does_not_hold_the_answer(
    execute: Callable[..., run.Result], tmp_path: Path, how: str, what: str
) -> None:
    result = execute(f"echo begun; {how}sh -c '{what}' &\necho $! > {tmp_path}/child", time_limit=300)
    child = int((tmp_path / "child").read_text())
    try:
        assert result.failure is None
        assert result.output.startswith("begun\n")
        if what.startswith("sleep"):  # it is left alone
            os.kill(child, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


# --- the limit of output


@pytest.mark.parametrize("size, cut", [(99, False), (100, False), (101, True), (1_000_000, True)])
def test_output_limit(execute: Callable[..., run.Result], size: int, cut: bool) -> None:
    result = execute(f"head -c {size} /dev/zero | tr '\\0' x", output_limit=100)
    expected = "x" * min(size, 100)
    if cut:
        expected += f"\n[output cut: the first 100 of {size} bytes]\n"
    assert result == run.Result(expected, None)


def test_a_cut_character(execute: Callable[..., run.Result]) -> None:
    result = execute(r"printf 'x\342\202\254'", output_limit=2)
    assert result.output.startswith("x\\xe2\n[output cut")


def test_no_output_wanted(execute: Callable[..., run.Result]) -> None:
    assert execute("echo x", output_limit=0).output == "\n[output cut: the first 0 of 2 bytes]\n"


def test_endless_output_ends_at_the_time_limit(overrun: Callable[..., run.Result]) -> None:
    result = overrun("echo yes; touch $0.ready; while :; do echo yes; done")
    assert result.output.startswith("yes\n")
    assert result.failure == ("terminated by signal 15, terminated after timeout of 60.00 seconds")


MEASURE = """
import resource, sys
sys.path[:0] = sys.argv[1:2]
from ganeti_ext.noded import run
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = run.collect(run.start(sys.argv[2], "hello"))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert result.failure is None and len(result.output) < 300_000, result
assert "of 50000000 bytes" in result.output
print(after - before)
"""


def test_50_mb_do_not_fill_our_memory(script: Callable[..., Path]) -> None:
    path = script("head -c 50000000 /dev/zero")
    grown = int(subprocess.check_output([sys.executable, "-c", MEASURE, REPOSITORY, str(path)]))
    assert grown < 4096  # KiB
