# SPDX-License-Identifier: BSD-2-Clause
"""Tests of the rules for names and files, in pairs: accepted, refused."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ganeti_ext.noded import Refused, verify

NOBODY = 65534


# --- the name


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "hello",
        "restart-sshd",
        "restart_sshd",
        "_x",
        "9",
        "fsck.ext4",
        "A-Z.0_9-",
        "x" * 64,
    ],
)
def test_name_accepted(name: str) -> None:
    assert verify.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "hello ",
        " hello",
        "x" * 65,
        ".",
        "..",
        ".hidden",
        "-x",
        "--help",
        "/hello",
        "a/b",
        "../hello",
        "hello/",
        "a\\b",
        "hello\n",
        "hello\n2026 INFO forged",
        "\nhello",
        "a\tb",
        "a\rb",
        "hello\0",
        "\0",
        "h\x1b[31m",
        "a;b",
        "a b",
        "$(id)",
        "`id`",
        "*",
        'a"b',
        "h\u00e9llo",
        "\u0430dmin",
        "hello\u202e",
        "\uff41",
        "\ud800",
        "\u00b2",
        None,
        True,
        1,
        1.5,
        b"hello",
        ["hello"],
        {"hello": 1},
        ("hello",),
    ],
)
def test_name_refused(name: object) -> None:
    with pytest.raises(Refused):
        verify.check_name(name)


# --- the command itself


def test_script_accepted(commands: Path, script: Callable[..., Path]) -> None:
    script()
    assert verify.verify(str(commands), "hello") == str(commands / "hello")


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o700, 0o555, 0o500, 0o100, 0o711, 0o744])
def test_mode_accepted(commands: Path, script: Callable[..., Path], mode: int) -> None:
    script().chmod(mode)
    verify.verify(str(commands), "hello")


@pytest.mark.parametrize(
    "mode",
    [
        0o775,
        0o757,
        0o777,
        0o720,
        0o702,  # others could change it
        0o644,
        0o600,
        0o400,
        0o000,
        0o611,
        0o055,  # root's run bit is missing
        0o4755,
        0o2755,
        0o6755,
        0o1755,
        0o4700,
    ],
)  # set-id, sticky
def test_mode_refused(commands: Path, script: Callable[..., Path], mode: int) -> None:
    script().chmod(mode)
    with pytest.raises(Refused):
        verify.verify(str(commands), "hello")


@pytest.mark.parametrize("uid, gid", [(NOBODY, 0), (0, NOBODY), (NOBODY, NOBODY)])
def test_owner_refused(commands: Path, script: Callable[..., Path], uid: int, gid: int) -> None:
    os.chown(script(), uid, gid)
    with pytest.raises(Refused):
        verify.verify(str(commands), "hello")


def test_another_owner_can_be_asked_for(commands: Path, script: Callable[..., Path]) -> None:
    script()
    with pytest.raises(Refused, match=r"'/' belongs to user 0"):
        verify.verify(str(commands), "hello", owner=(NOBODY, NOBODY))


def test_missing_is_refused(commands: Path) -> None:
    with pytest.raises(Refused):
        verify.verify(str(commands), "hello")


def _make_fifo(path: Path) -> None:
    os.mkfifo(path, 0o755)


def _make_device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o755, os.makedev(1, 3))


def _make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        # Its path is bounded, so name it from where it lies.
        before = os.getcwd()
        os.chdir(path.parent)
        try:
            unix.bind(path.name)
        finally:
            os.chdir(before)
    path.chmod(0o755)


def _make_block_device(path: Path) -> None:
    os.mknod(path, stat.S_IFBLK | 0o755, os.makedev(7, 200))


@pytest.mark.parametrize("make", [Path.mkdir, _make_fifo, _make_device, _make_block_device, _make_socket])
def test_no_regular_file_is_refused(commands: Path, make: Callable[[Path], None]) -> None:
    # (A fifo that was opened in the ordinary way would hang here.)
    make(commands / "hello")
    (commands / "hello").chmod(0o755)
    with pytest.raises(Refused):
        verify.verify(str(commands), "hello")


# --- the directory of the commands, and those above it


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o700, 0o555, 0o500])
def test_directory_mode_accepted(commands: Path, script: Callable[..., Path], mode: int) -> None:
    script()
    commands.chmod(mode)
    verify.verify(str(commands), "hello")


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777, 0o1755, 0o2755])
def test_directory_mode_refused(commands: Path, script: Callable[..., Path], mode: int) -> None:
    script()
    commands.chmod(mode)
    with pytest.raises(Refused):
        verify.verify(str(commands), "hello")


@pytest.mark.parametrize("uid, gid", [(NOBODY, 0), (0, NOBODY)])
def test_directory_owner_refused(commands: Path, script: Callable[..., Path], uid: int, gid: int) -> None:
    script()
    os.chown(commands, uid, gid)
    with pytest.raises(Refused):
        verify.verify(str(commands), "hello")


def test_directory_missing_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        verify.verify(str(tmp_path / "missing"), "hello")
    (tmp_path / "file").touch(mode=0o755)
    with pytest.raises(Refused):
        verify.verify(str(tmp_path / "file"), "hello")


def test_directory_must_be_absolute(
    commands: Path, script: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    script()
    monkeypatch.chdir(commands.parent)
    with pytest.raises(Refused):
        verify.verify(commands.name, "hello")
    with pytest.raises(Refused):
        verify.verify("", "hello")


@pytest.mark.parametrize("link", ["itself", "above"])
def test_directory_is_reached_without_links(tmp_path: Path, link: str) -> None:
    real = tmp_path / "a" / "commands"
    real.mkdir(parents=True)
    shutil.copy("/bin/true", real / "hello")
    (tmp_path / "link").symlink_to(real if link == "itself" else real.parent)
    verify.verify(str(real), "hello")
    with pytest.raises(Refused):
        verify.verify(str(tmp_path / "link" / ("" if link == "itself" else "commands")), "hello")


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A command three directories below tmp_path."""
    directory = tmp_path / "one" / "two" / "three"
    directory.mkdir(parents=True)
    for path in (directory, directory.parent, directory.parent.parent):
        path.chmod(0o755)
    shutil.copy("/bin/true", directory / "hello")
    return directory


@pytest.mark.parametrize("level", ["one", "one/two"])
@pytest.mark.parametrize(
    "mode, gid",
    [(0o755, 0), (0o700, 0), (0o755, NOBODY), (0o2755, NOBODY), (0o1777, 0), (0o1775, NOBODY)],
)  # what lies in them are directories
def test_parent_accepted(tmp_path: Path, deep: Path, level: str, mode: int, gid: int) -> None:
    os.chown(tmp_path / level, 0, gid)
    (tmp_path / level).chmod(mode)
    verify.verify(str(deep), "hello")


@pytest.mark.parametrize("level", ["one", "one/two"])
@pytest.mark.parametrize(
    "mode, uid",
    [
        (0o775, 0),
        (0o757, 0),
        (0o777, 0),
        (0o2775, 0),
        (0o722, 0),
        (0o755, NOBODY),
        (0o700, NOBODY),
        (0o1777, NOBODY),
        (0o000, NOBODY),
    ],
)
def test_parent_refused(tmp_path: Path, deep: Path, level: str, mode: int, uid: int) -> None:
    os.chown(tmp_path / level, uid, 0)
    (tmp_path / level).chmod(mode)
    with pytest.raises(Refused):
        verify.verify(str(deep), "hello")


# --- links


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A program outside the directory of the commands."""
    directory = tmp_path / "programs"
    directory.mkdir(mode=0o755)
    shutil.copy("/bin/true", directory / "true")
    return directory / "true"


@pytest.mark.parametrize(
    "text",
    [
        "{target}",
        "../programs/true",
        "./../programs/./true",
        "..//programs//true",
        "../restricted-commands/../programs/true",
    ],
)
def test_link_accepted(commands: Path, target: Path, text: str) -> None:
    (commands / "hello").symlink_to(text.format(target=target))
    assert verify.verify(str(commands), "hello") == str(target)


def test_link_beyond_the_root_stays_there(commands: Path, target: Path) -> None:
    (commands / "hello").symlink_to("../" * 50 + str(target)[1:])
    assert verify.verify(str(commands), "hello") == str(target)


def test_links_of_directories_and_chains_accepted(commands: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "by-link").symlink_to("programs")
    (target.parent / "again").symlink_to(tmp_path / "by-link" / "true")
    (commands / "hello").symlink_to("../by-link/again")
    assert verify.verify(str(commands), "hello") == str(target)


@pytest.mark.parametrize("count, accepted", [(1, True), (40, True), (41, False)])
def test_number_of_links(commands: Path, target: Path, tmp_path: Path, count: int, accepted: bool) -> None:
    last = target
    for number in range(count - 1):
        link = tmp_path / f"link{number}"
        link.symlink_to(last)
        last = link
    (commands / "hello").symlink_to(last)
    if accepted:
        verify.verify(str(commands), "hello")
    else:
        with pytest.raises(Refused, match="one link too many"):
            verify.verify(str(commands), "hello")


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "./hello",
        "loop",
        "missing",
        "missing/true",
        "..",
        ".",
        "/",
        "../programs",
        "../programs/",
        "../programs/true/",
        "../programs/true/.",
        "../programs/true/../true",
        "/proc/self/root",
    ],
)
def test_link_refused(commands: Path, target: Path, text: str) -> None:
    (commands / "loop").symlink_to("hello")
    (commands / "hello").symlink_to(text)
    with pytest.raises(Refused):
        verify.verify(str(commands), "hello")


def test_link_of_somebody_else_refused(commands: Path, target: Path) -> None:
    (commands / "hello").symlink_to(target)
    os.chown(commands / "hello", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(Refused):
        verify.verify(str(commands), "hello")


@pytest.mark.parametrize("uid, mode", [(NOBODY, 0o755), (0, 0o777), (0, 0o775)])
def test_link_into_a_directory_of_others_refused(commands: Path, target: Path, uid: int, mode: int) -> None:
    (commands / "hello").symlink_to(target)
    os.chown(target.parent, uid, 0)
    target.parent.chmod(mode)
    with pytest.raises(Refused):
        verify.verify(str(commands), "hello")


def test_link_through_a_directory_of_others_refused(commands: Path, target: Path, tmp_path: Path) -> None:
    """Everything at its end is root's; only the way there is not."""
    (tmp_path / "his").mkdir()
    (tmp_path / "his" / "link").symlink_to(target)
    os.chown(tmp_path / "his", NOBODY, NOBODY)
    for text in ("../his/link", "../his/../programs/true"):
        (commands / "hello").unlink(missing_ok=True)
        (commands / "hello").symlink_to(text)
        with pytest.raises(Refused, match="his' belongs to user"):
            verify.verify(str(commands), "hello")


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o644, 0o775])
def test_link_to_a_bad_file_refused(commands: Path, target: Path, mode: int) -> None:
    (commands / "hello").symlink_to(target)
    target.chmod(mode)
    with pytest.raises(Refused):
        verify.verify(str(commands), "hello")


# --- hard links


def test_hard_link_in_a_directory_of_roots_accepted(commands: Path, target: Path) -> None:
    os.link(target, commands / "hello")
    assert verify.verify(str(commands), "hello") == str(commands / "hello")
    assert (commands / "hello").stat().st_nlink == 2


@pytest.mark.parametrize("his", [True, False])
def test_hard_link_that_others_can_make_refused(commands: Path, target: Path, tmp_path: Path, his: bool) -> None:
    """The file is root's own and right in itself; where it has another name, somebody else chose it."""
    place = tmp_path / "place"
    place.mkdir()
    os.link(target, place / "other")
    if his:
        os.chown(place, NOBODY, NOBODY)
    else:
        place.chmod(0o1777)
    (commands / "hello").symlink_to(place / "other")
    with pytest.raises(Refused, match="belongs to user|directory for all"):
        verify.verify(str(commands), "hello")


# --- sticky directories


def test_nothing_but_a_directory_counts_in_a_sticky_one(commands: Path, target: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "roots").mkdir(parents=True)
    shared.chmod(0o1777)
    shutil.copy(target, shared / "roots" / "true")
    shutil.copy(target, shared / "true")
    (shared / "link").symlink_to(target)
    hello = commands / "hello"
    hello.symlink_to(shared / "roots" / "true")
    assert verify.verify(str(commands), "hello") == str(shared / "roots" / "true")
    for name in ("true", "link"):
        hello.unlink()
        hello.symlink_to(shared / name)
        with pytest.raises(Refused, match="directory for all"):
            verify.verify(str(commands), "hello")


def test_directory_of_others_in_a_sticky_one_refused(commands: Path, target: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "his").mkdir(parents=True)
    shared.chmod(0o1777)
    shutil.copy(target, shared / "his" / "true")
    os.chown(shared / "his", NOBODY, NOBODY)
    (commands / "hello").symlink_to(shared / "his" / "true")
    with pytest.raises(Refused):
        verify.verify(str(commands), "hello")


# --- the walk itself


def test_no_descriptor_stays_open(commands: Path, target: Path) -> None:
    (commands / "hello").symlink_to(target)
    (commands / "bad").symlink_to("bad")
    before = os.listdir("/proc/self/fd")
    verify.verify(str(commands), "hello")
    with pytest.raises(Refused):
        verify.verify(str(commands), "bad")
    assert os.listdir("/proc/self/fd") == before


def test_resolve_directories(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert verify.resolve("/").path == "/"
    assert verify.resolve("//").path == "/"
    assert verify.resolve(f"{tmp_path}/link/").path == f"{tmp_path}/real"
