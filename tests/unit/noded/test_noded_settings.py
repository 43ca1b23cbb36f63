# SPDX-License-Identifier: BSD-2-Clause
"""Tests of restricted-commands.conf."""

from __future__ import annotations

import logging
import os
import random
import re
import textwrap
from pathlib import Path

import pytest

from ganeti_ext.noded import DEFAULT_LIMITS, Limits, settings

FILE = "/etc/ganeti/restricted-commands.conf"


def test_nothing_set() -> None:
    for text in ("", "\n# a comment\n; another\n", "[DEFAULT]\n", "[hello]\n"):
        found = settings.parse(text, FILE)
        assert found.limits == found.of("hello") == found.of("other") == DEFAULT_LIMITS


def test_for_all_and_for_one() -> None:
    found = settings.parse(
        """\
# how long
[DEFAULT]
time_limit = 5 min   # for all
delay = 20

[sosreport]
time_limit = 30min
output_limit = 1 MiB

[quick]
output_limit = 0
""",
        FILE,
    )
    assert found.limits == Limits(time_limit=300, delay=20)
    assert found.of("other") == found.limits
    assert found.of("sosreport") == Limits(time_limit=1800, delay=20, output_limit=1024**2)
    assert found.of("quick") == Limits(time_limit=300, delay=20, output_limit=0)


@pytest.mark.parametrize(
    "value, seconds",
    [
        ("90", 90),
        ("90 s", 90),
        ("90s", 90),
        ("1.5 s", 1.5),
        ("2 min", 120),
        ("0.5min", 30),
        ("0.1", 0.1),
        ("1800", 1800),
    ],
)
def test_times(value: str, seconds: float) -> None:
    assert settings.parse(f"[x]\ntime_limit = {value}\n", FILE).of("x").time_limit == seconds


@pytest.mark.parametrize(
    "value, size",
    [("0", 0), ("4096", 4096), ("4096 B", 4096), ("64 KiB", 65536), ("64KiB", 65536), ("1 MiB", 1048576)],
)
def test_sizes(value: str, size: int) -> None:
    found = settings.parse(f"[x]\noutput_limit = {value}\n", FILE).of("x").output_limit
    assert found == size and isinstance(found, int)


@pytest.mark.parametrize(
    "key, value",
    [
        *(("time_limit", value) for value in ("", "0", "-1", "0.05", "1801", "31 min", "1 h", "2 hours", "1 m", "1 S")),
        *(
            ("time_limit", value)
            for value in ("inf", "nan", "1e3", "1_000", "1,5", ".5", "5.", "\u0665", "5 min s", "9" * 10)
        ),
        *(("time_limit", value) for value in ("5 min\n  6 min", "%(delay)s", "60 s 60", "0x10")),
        *(
            ("output_limit", value)
            for value in ("-1", "1.5 MiB", "2 MiB", "1048577", "1 MB", "1 mib", "1 M", "64 kB", "all")
        ),
        *(("delay", value) for value in ("0", "0.9", "-10", "601", "11 min", "", "none")),
    ],
)
def test_values_refused(key: str, value: str) -> None:
    with pytest.raises(settings.BadSettings, match=f"^{FILE} line 3: {key} must be a ") as caught:
        settings.parse(f"[DEFAULT]\n# two\n{key} = {value}\n", FILE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, said",
    [
        ("time_limit = 5\n", "line 1: a section such as [DEFAULT] must come first"),
        ("[DEFAULT]\ntime_limit: 5\n", "line 2: write it as KEY = VALUE"),
        ("[DEFAULT]\ntime_limit\n", "line 2: write it as KEY = VALUE"),
        ("[DEFAULT]\nTime_Limit = 5\n", "line 2: 'Time_Limit' is none of time_limit, output_limit, delay"),
        ("[DEFAULT]\n\ntimelimit = 5\n", "line 3: 'timelimit' is none of time_limit, output_limit, delay"),
        ("[x]\ndelay = 20\n", "line 2: 'delay' is none of time_limit, output_limit"),
        ("[DEFAULT]\ndelay = 20\n[x]\n[x]\n", "line 4: this was there before; remove one of the two"),
        ("[x]\ntime_limit=5\ntime_limit=6\n", "line 3: this was there before; remove one of the two"),
        ("[DEFAULT]\n[DEFAULT]\n", "line 2: this was there before; remove one of the two"),
        ("[a/b]\n", ": section 'a/b' is neither [DEFAULT] nor a command: the name is not one of a command"),
        ("[ x]\n", ": section ' x' is neither [DEFAULT] nor a command: the name is not one of a command"),
        ("[-x]\n", ": section '-x' is neither [DEFAULT] nor a command: the name is not one of a command"),
        (
            "[" + "x" * 65 + "]\n",
            f": section '{'x' * 64}' is neither [DEFAULT] nor a command: the name has more than 64",
        ),
        ("[]\n", "line 1: "),
        ("[x\n", "line 1: "),
        ("\0\n", "line 1: "),
    ],
)
def test_files_refused(text: str, said: str) -> None:
    with pytest.raises(settings.BadSettings) as caught:
        settings.parse(text, FILE)
    message = str(caught.value)
    assert message.startswith(f"{FILE} {said}" if not said.startswith(":") else FILE + said)
    assert message.isprintable() and len(message) < 300


def test_no_file_makes_anything_but_settings_or_one_line() -> None:
    chance = random.Random(4)
    pieces = [
        "[DEFAULT]",
        "[x]",
        "[",
        "]",
        "time_limit",
        "output_limit",
        "delay",
        "=",
        ":",
        " ",
        "\n",
        "\n ",
        "\r",
        "#",
        ";",
    ]
    pieces += [
        "5",
        "60 s",
        "2 min",
        "64 KiB",
        "%",
        "%(x)s",
        "\0",
        "\x85",
        "\u2028",
        "\N{EURO SIGN}",
        "rem ",
        "\t",
        "\x1c",
    ]
    for _ in range(5000):
        text = "".join(chance.choices(pieces, k=chance.randrange(25)))
        try:
            found = settings.parse(text, FILE)
        except settings.BadSettings as err:
            assert str(err).isprintable(), text
        else:
            assert found.limits.delay in (5, 60, 120, DEFAULT_LIMITS.delay)


def test_the_longest_call_and_the_largest_answer() -> None:
    """It ends before Ganeti's RPC client gives up, after an hour."""
    limits = settings.parse("[DEFAULT]\ntime_limit=1800\noutput_limit=1 MiB\ndelay=10 min\n", FILE).limits
    runs = limits.wait_limit + limits.delay + limits.time_limit + 2 * limits.grace
    refused = limits.wait_limit + 2 * limits.delay
    assert max(runs, refused) < 3600


# --- what the pages show

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("page", ["restricted-commands.md", "ganeti-ext.7.rst"])
def test_the_file_that_is_shown_is_taken(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    (shown,) = re.findall(r"^( +\[DEFAULT\](?:.*\n|\n(?= ))+?)\n?(?=^[|`S])", text, re.MULTILINE)
    found = settings.parse(textwrap.dedent(shown.split("\n\n    See")[0]), page)
    assert found.limits.time_limit == 120
    assert found.of("collect-logs") == found.limits._replace(time_limit=1200, output_limit=1024**2)


def test_the_figures_that_are_told_are_right() -> None:
    text = (DOCS / "restricted-commands.md").read_text(encoding="utf-8")
    told = {key: (default, span) for key, default, span in re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?)[;|]", text, re.M)}
    assert told["time_limit"][0] == f"{DEFAULT_LIMITS.time_limit:g} s"
    assert told["output_limit"][0] == f"{DEFAULT_LIMITS.output_limit // 1024} KiB"
    assert told["delay"][0] == f"{DEFAULT_LIMITS.delay:g} s"
    for key, (_, span) in told.items():
        unit = span.split()[-1]
        for value in span.strip().split(" to "):
            number = value if " " in value else f"{value} {unit}" if value == "0.1" else value
            settings.parse(f"[DEFAULT]\n{key} = {number}\n", FILE)
    quoted = re.search(r"^    (/etc/ganeti/restricted-commands.conf line 2:.*?)\n\n", text, re.M | re.S)
    assert quoted
    with pytest.raises(settings.BadSettings) as caught:
        settings.parse("[DEFAULT]\ntime_limit = 1 h\n", FILE)
    assert " ".join(quoted[1].split()).startswith(str(caught.value) + "; until that is mended")


# --- the file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "restricted-commands.conf"
    path.write_text("[DEFAULT]\ntime_limit = 7\ndelay = 1\n")
    path.chmod(0o644)
    return path


def test_load(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert settings.load(str(file)).limits == Limits(time_limit=7, delay=1)
    file.write_text("[x]\ntime_limit = 7\n")  # at each call
    assert settings.load(str(file)).of("x") == Limits(time_limit=7)
    file.unlink()
    assert settings.load(str(file)).limits == DEFAULT_LIMITS
    assert caplog.text == ""


def _foreign(path: Path) -> None:
    os.chown(path, 65534, 0)


def _link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda path: path.chmod(0o664), "may be written by others: chmod go-w "),
        (lambda path: path.chmod(0o646), "may be written by others: chmod go-w "),
        (_foreign, "must belong to root: chown root "),
        (_link, "Too many levels of symbolic links"),
        (_fifo, "is not a regular file"),
        (lambda path: path.write_bytes(b"[x]\n#" + b"x" * 70000), "has more than 64 KiB"),
        (lambda path: path.write_bytes(b"[x]\n\xff"), "line 2 is not UTF-8"),
        (lambda path: path.write_text("[DEFAULT]\ndelay = 0\ntime_limit = 7\n"), "line 2: delay must be "),
        (
            lambda path: path.write_text("[x]\ntime_limit = 7\n[y]\ntime_limit = 1 week\n"),
            "line 4: time_limit must be ",
        ),
    ],
)
def test_a_bad_file_is_not_taken_at_all(file: Path, spoil, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of it holds, the built-in limits do, and one line of the log says what to mend."""
    spoil(file)
    assert settings.load(str(file)) == settings.Settings()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert str(file) in record.getMessage() and said in record.getMessage()
    assert record.getMessage().endswith("; until that is mended the built-in limits hold for every restricted command")
