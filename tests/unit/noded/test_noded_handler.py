# SPDX-License-Identifier: BSD-2-Clause
"""Tests of the sequence of the steps, the answers and the log."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ganeti import backend, errors, http, pathutils, ssconf
from ganeti.server import noded

from ganeti_ext.noded import Limits, handler, lock, run

REPOSITORY = str(Path(__file__).parents[3])
GENERIC = "Executing command '%s' failed"


class Node:
    """The restricted commands of one node, as its daemon runs them."""

    def __init__(self, tmp_path: Path, commands: Path, fake_time) -> None:
        self.locks = tmp_path / "locks"
        self.commands = commands
        self.settings = tmp_path / "restricted-commands.conf"
        self.time = fake_time
        self.limits = Limits()

    def run(self, name: object, peer: str | None = "192.0.2.10", **arguments) -> str:
        keywords = {
            "directory": str(self.commands),
            "lock_directory": str(self.locks),
            "settings_file": str(self.settings),
            "candidates": lambda: ["192.0.2.10", "192.0.2.11"],
            "limits": self.limits,
            "clock": self.time.clock,
            "sleep": self.time.sleep,
            "enabled": True,
            **arguments,
        }
        return handler.run_restricted_command(name, peer=peer, **keywords)

    def refuse(self, name: object, peer: str | None = "192.0.2.10", **arguments) -> str:
        """Return the message of a call that must fail."""
        with pytest.raises(backend.RPCFail) as caught:
            self.run(name, peer, **arguments)
        assert caught.value.args == (str(caught.value),)
        return str(caught.value)


@pytest.fixture
def node(tmp_path: Path, commands: Path, fake_time, caplog: pytest.LogCaptureFixture) -> Node:
    caplog.set_level(logging.INFO)
    return Node(tmp_path, commands, fake_time)


# --- what ran


def test_output(node: Node, script: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    path = script("echo hello world; echo $0")
    assert node.run("hello") == f"hello world\n{path}\n"
    assert node.time.slept == []
    assert f"'hello' from 192.0.2.10: runs '{path}'" in caplog.text
    assert "from 192.0.2.10: exited with exit code 0" in caplog.text


def test_failed_command_is_told_in_ganetis_words(node: Node, script: Callable[..., Path]) -> None:
    script("echo bad; exit 7")
    assert node.refuse("hello") == ("Restricted command 'hello' failed: exited with exit code 7; output: bad\n")
    assert node.time.slept == []
    script("kill -9 $$")
    assert node.refuse("hello") == ("Restricted command 'hello' failed: terminated by signal 9; output: ")
    assert node.time.slept == []


def test_as_stock_answers(node: Node, script: Callable[..., Path], tmp_path: Path) -> None:
    """Ganeti's own function gives the same answers."""

    def stock(name: str) -> str:
        return backend.RunRestrictedCmd(
            name,
            _lock_file=str(tmp_path / "stock.lock"),
            _path=str(node.commands),
            _sleep_fn=lambda _: None,
            _enabled=True,
        )

    script("echo out; exit 3", "fails")
    script("echo out", "works")
    script("kill $$", "dies")
    assert node.run("works") == stock("works")
    for name in ("fails", "dies", "missing"):
        with pytest.raises(backend.RPCFail) as caught:
            stock(name)
        assert node.refuse(name) == str(caught.value)


def test_time_limit(node: Node, script: Callable[..., Path]) -> None:
    script("exec sleep 300")
    node.limits = Limits(time_limit=0.2)
    assert node.refuse("hello") == (
        "Restricted command 'hello' failed: terminated by signal 15, terminated after timeout of 0.20 seconds; output: "
    )
    assert node.time.slept == []


# --- what the file of settings changes


def test_limits_for_all_and_for_one(node: Node, script: Callable[..., Path]) -> None:
    for name in ("slow", "hello"):
        script("echo 0123456789; [ $0 != ${0%slow} ] && exec sleep 300", name)
    node.settings.write_text(
        "[DEFAULT]\noutput_limit = 4\ndelay = 33\n[slow]\ntime_limit = 0.3 s\noutput_limit = 6 B\n"
    )
    cut = "\n[output cut: the first {} of 11 bytes]\n"
    assert node.refuse("slow") == (
        "Restricted command 'slow' failed: terminated by signal 15, terminated after timeout of 0.30 seconds;"
        f" output: 012345{cut.format(6)}"
    )
    assert node.refuse("hello").endswith(f"exited with exit code 1; output: 0123{cut.format(4)}")
    assert node.time.slept == []
    assert node.refuse("missing") == GENERIC % "missing"
    assert node.time.slept == [33.0]


def test_a_section_says_nothing_to_who_guesses(node: Node, script: Callable[..., Path]) -> None:
    """A name that is in the file, but whose command is missing or unsafe, is like any other."""
    script("", "unsafe").chmod(0o775)
    node.settings.write_text("[missing]\ntime_limit = 1\n[unsafe]\noutput_limit = 1\n")
    for name in ("missing", "unsafe", "neither"):
        node.time.slept.clear()
        assert node.refuse(name) == GENERIC % name
        assert node.time.slept == [10.0]


@pytest.mark.parametrize("text", ["[DEFAULT]\ndelay = 0\n", "[DEFAULT]\ndelay = 1\n[hello]\ntime_limit = never\n"])
def test_a_bad_file_neither_opens_anything_nor_takes_the_commands_away(
    node: Node, script: Callable[..., Path], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    script("echo hello")
    node.settings.write_text(text)
    assert node.run("hello") == "hello\n"
    assert caplog.text.count(f"{node.settings} line ") == 1
    assert node.refuse("missing") == GENERIC % "missing"
    assert node.time.slept == [10.0]


# --- what was refused


def test_refusals_look_alike(node: Node, script: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    script("", "unsafe").chmod(0o775)
    script("", "not-executable").chmod(0o644)
    script("", "no-interpreter", "/nonexistent")
    (node.commands / "link").symlink_to("link")
    (node.commands / "directory").mkdir()
    for name in ("missing", "unsafe", "not-executable", "no-interpreter", "link", "directory"):
        node.time.slept.clear()
        assert node.refuse(name) == GENERIC % name
        assert node.time.slept == [10.0]
    assert f"'unsafe' from 192.0.2.10: refused: '{node.commands}/unsafe' has the mode 0775" in caplog.text


@pytest.mark.parametrize(
    "name, shown",
    [
        ("", "''"),
        ("../x", "'../x'"),
        ("x y", "'x y'"),
        ("hello\n2026-01-01 INFO forged", r"'hello\n2026-01-01 INFO forged'"),
        ("\x1b[31m\0\u202e\ud800", r"'\x1b[31m\x00\u202e\ud800'"),
        ("y" * 65, "'" + "y" * 64 + "'"),
        ("y" * 1_000_000, "'" + "y" * 64 + "'"),
        (None, "<NoneType>"),
        (["hello"] * 1000, "<list>"),
        ({"a": 1}, "<dict>"),
        (7, "<int>"),
    ],
)
def test_bad_names(node: Node, name: object, shown: str, caplog: pytest.LogCaptureFixture) -> None:
    assert node.refuse(name) == f"Executing command {shown} failed"
    assert node.time.slept == [10.0]
    for record in caplog.records:
        message = record.getMessage()
        assert message.isprintable()
        assert shown in message
        assert len(message) < 300


def test_the_reason_is_logged_before_the_delay(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    logged = []
    node.refuse("missing", sleep=lambda _: logged.append(caplog.text))
    assert "'missing' from 192.0.2.10: refused: " in logged[0]


def test_nothing_of_a_refusal_is_in_the_answers_cause(node: Node) -> None:
    with pytest.raises(backend.RPCFail) as caught:
        node.run("missing")
    assert caught.value.__suppress_context__


def test_unforeseen_error_is_refused_and_delayed(
    node: Node,
    script: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    script()
    monkeypatch.setattr(run, "start", lambda *_: 1 / 0)
    assert node.refuse("hello") == GENERIC % "hello"
    assert node.time.slept == [10.0]
    assert "ZeroDivisionError" in caplog.text


def test_error_after_the_start_is_not_called_a_refusal(
    node: Node, script: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    script("exec sleep 300")
    processes = []

    def collect(process: subprocess.Popen[bytes], **_: object) -> None:
        processes.append(process)
        raise ZeroDivisionError

    monkeypatch.setattr(run, "collect", collect)
    with pytest.raises(ZeroDivisionError):
        node.run("hello")
    processes[0].kill()
    processes[0].communicate()
    assert node.time.slept == []


def test_directory_refused(node: Node, script: Callable[..., Path]) -> None:
    script()
    node.commands.chmod(0o777)
    assert node.refuse("hello") == GENERIC % "hello"
    assert node.time.slept == [10.0]
    node.commands.chmod(0o755)
    assert node.run("hello") == ""


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_unusable_lock_directory_refuses_unchecked(
    node: Node, script: Callable[..., Path], mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    script("touch /nonexistent/ran")
    node.locks.mkdir()
    node.locks.chmod(mode)
    assert node.refuse("hello") == GENERIC % "hello"
    assert node.time.slept == []
    assert "mode 0700" in caplog.text
    assert ": runs " not in caplog.text


def test_disabled(node: Node, script: Callable[..., Path], tmp_path: Path) -> None:
    script(f"touch {tmp_path}/ran")
    assert node.refuse("hello", enabled=False) == "Restricted commands disabled at configure time"
    assert not (tmp_path / "ran").exists()
    assert not node.locks.exists()


# --- turns and places


def test_a_wrong_name_shuts_out_only_its_own_address(node: Node, script: Callable[..., Path]) -> None:
    script("echo hello")
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert node.run("hello", "192.0.2.11") == "hello\n"
        assert node.run("hello", "198.51.100.1") == "hello\n"
        # A second wrong name of the same caller sits beside, then gives up.
        assert node.refuse("missing", "192.0.2.10", limits=Limits(wait_limit=1)) == GENERIC % "missing"

    node.refuse("missing", sleep=sleep)
    assert slept == [10.0]


def test_all_that_are_no_candidates_share_a_lock(node: Node) -> None:
    def sleep(_: float) -> None:
        for peer in ("198.51.100.2", None, "garbage"):
            node.refuse("missing", peer, limits=Limits(waiting=1))

    node.refuse("missing", "198.51.100.1", sleep=sleep, limits=Limits(waiting=1))
    assert node.time.slept == []


def test_flood_answers_at_once(node: Node, script: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    script()
    with (
        lock.opened(str(node.locks)) as directory,
        lock.place(directory, "waiting", 3),
        lock.place(directory, "waiting", 3),
        lock.place(directory, "waiting", 3),
        lock.turn(directory, lock.OTHERS),
    ):
        assert node.refuse("hello", "198.51.100.1") == GENERIC % "hello"
        assert node.time.slept == []
        assert "all 3 places for waiting calls are taken" in caplog.text
        assert node.run("hello", "192.0.2.10") == ""


def test_no_more_than_eight_run(node: Node, script: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    """The ninth is refused whether or not its name is right."""
    script("cat $0.fifo", "slow")
    os.mkfifo(node.commands / "slow.fifo")
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(node.run("slow", sleep=time.sleep))) for _ in range(8)]
    for thread in threads:
        thread.start()
        patience = time.monotonic() + 60
        wanted = threads.index(thread) + 1
        while caplog.text.count(": runs ") < wanted:
            assert time.monotonic() < patience
            time.sleep(0.01)
    for name in ("slow", "missing"):
        assert node.refuse(name) == GENERIC % name
    assert node.time.slept == []
    assert "all 8 places for running calls are taken" in caplog.text
    for thread in threads:
        # Each reader gets its own end of file, or shares one.
        while thread.is_alive():
            with contextlib.suppress(OSError):
                os.close(os.open(node.commands / "slow.fifo", os.O_WRONLY | os.O_NONBLOCK))
            thread.join(0.01)
    assert answers == [""] * 8
    script("echo hello")
    assert node.run("hello") == "hello\n"


def test_the_lock_is_free_while_a_command_runs(node: Node, script: Callable[..., Path]) -> None:
    """The command itself can take it (once its caller has let go)."""
    script(f"exec flock -w 30 {node.locks}/lock-192.0.2.10 echo free")
    assert node.run("hello") == "free\n"


def test_a_refusal_keeps_no_running_place(node: Node) -> None:
    def sleep(_: float) -> None:
        with lock.opened(str(node.locks)) as directory, lock.place(directory, "running", 1):
            pass

    node.refuse("missing", sleep=sleep)


def test_nothing_stays_open(node: Node, script: Callable[..., Path]) -> None:
    script()
    before = os.listdir("/proc/self/fd")
    node.run("hello")
    node.refuse("missing")
    assert os.listdir("/proc/self/fd") == before


# --- addresses


def test_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    class Store:
        def GetMasterCandidatesIPList(self) -> list[str]:
            return ["192.0.2.10"]

    monkeypatch.setattr(ssconf, "SimpleStore", Store)
    assert handler.candidate_addresses() == ["192.0.2.10"]


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigurationError("missing"),
        RuntimeError("too long"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ],
)
def test_no_candidates(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    class Store:
        def GetMasterCandidatesIPList(self) -> list[str]:
            raise error

    monkeypatch.setattr(ssconf, "SimpleStore", Store)
    assert handler.candidate_addresses() == []


@pytest.mark.parametrize(
    "name, address",
    [
        (("192.0.2.10", 4711), "192.0.2.10"),
        (("2001:db8::1", 4711, 0, 0), "2001:db8::1"),
        ((), None),
        (None, None),
        ("", None),
        ((b"x", 1), None),
    ],
)
def test_peer_address(name: object, address: str | None) -> None:
    request = SimpleNamespace(request_sock=SimpleNamespace(getpeername=lambda: name))
    assert handler.peer_address(request) == address


def test_peer_that_has_gone() -> None:
    def getpeername() -> None:
        raise OSError(107, "not connected")

    request = SimpleNamespace(request_sock=SimpleNamespace(getpeername=getpeername))
    assert handler.peer_address(request) is None
    assert handler.peer_address(SimpleNamespace()) is None


# --- the handler


def request(path: str, params: object, peer: str = "192.0.2.10", method: str = "POST") -> SimpleNamespace:
    return SimpleNamespace(
        request_method=method,
        request_path=path,
        request_body=json.dumps(params).encode(),
        request_sock=SimpleNamespace(getpeername=lambda: (peer, 4711)),
    )


def test_handler_passes_the_address_per_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with several requests at once in threads of one process."""
    both = threading.Barrier(2, timeout=60)

    def run_restricted_command(name: object, *, peer: str | None) -> str:
        both.wait()
        return f"{name} for {peer}"

    monkeypatch.setattr(handler, "run_restricted_command", run_restricted_command)
    ours = handler.NodeRequestHandler()
    assert isinstance(ours, noded.NodeRequestHandler)
    answers = {}

    def call(peer: str) -> None:
        answers[peer] = json.loads(ours.HandleRequest(request("/restricted_command", ["hello"], peer)))

    threads = [threading.Thread(target=call, args=[peer]) for peer in ("192.0.2.10", "192.0.2.11")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {peer: [True, f"hello for {peer}"] for peer in ("192.0.2.10", "192.0.2.11")}
    assert not hasattr(ours._request, "peer")


def test_handler_forgets_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = handler.NodeRequestHandler()
    with pytest.raises(http.HttpNotFound):
        ours.HandleRequest(request("/no_such_call", []))
    with pytest.raises(http.HttpBadRequest):
        ours.HandleRequest(request("/version", [], method="GET"))
    assert ours._request.peer is None
    monkeypatch.setattr(handler, "run_restricted_command", lambda name, *, peer: f"{name} for {peer}")
    assert ours.perspective_restricted_command(["x"]) == "x for None"


def test_handler_answers_as_ganetis(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = handler.NodeRequestHandler()

    def fail(name: object, *, peer: str | None) -> str:
        raise backend.RPCFail("Executing command 'x' failed")

    monkeypatch.setattr(handler, "run_restricted_command", fail)
    assert json.loads(ours.HandleRequest(request("/restricted_command", ["x"]))) == [
        False,
        "Executing command 'x' failed",
    ]


@pytest.mark.parametrize("params", [[], ["a", "b"], None, 1])
def test_handler_with_other_parameters_runs_nothing(monkeypatch: pytest.MonkeyPatch, params: object) -> None:
    monkeypatch.setattr(handler, "run_restricted_command", lambda *_, **__: pytest.fail("ran"))
    ours = handler.NodeRequestHandler()
    status, message = json.loads(ours.HandleRequest(request("/restricted_command", params)))
    assert not status
    assert message.startswith("Error while executing backend function")


def test_paths_are_the_nodes_own() -> None:
    """Below GANETI_ROOTDIR every node of a virtual cluster has its own."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from ganeti_ext.noded import handler\n"
        "defaults = handler.run_restricted_command.__kwdefaults__\n"
        "print(defaults['directory'], defaults['lock_directory'], defaults['settings_file'])"
    )
    ganeti = str(Path(pathutils.__file__).parents[1])
    for environment, root in (
        ({}, ""),
        ({"GANETI_ROOTDIR": "/tmp/x/node1", "GANETI_HOSTNAME": "node1"}, "/tmp/x/node1"),
    ):
        # From elsewhere: there could be another ganeti here.
        found = subprocess.check_output(
            [sys.executable, "-c", code, REPOSITORY, ganeti],
            text=True,
            env={**environment, "PATH": os.environ["PATH"]},
            cwd="/",
        ).split()
        assert found == [
            f"{root}/etc/ganeti/restricted-commands",
            f"{root}/var/run/ganeti-ext",
            f"{root}/etc/ganeti/restricted-commands.conf",
        ]


def test_binary(node: Node) -> None:
    shutil.copy("/bin/echo", node.commands / "echo")
    assert node.run("echo") == "\n"
