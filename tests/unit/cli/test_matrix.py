# SPDX-License-Identifier: BSD-2-Clause
"""The matrix: for a terminal, and as a page in which a name is never more than a name."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ganeti_ext.cli import matrix
from ganeti_ext.cli.rights import rights
from ganeti_ext.cli.state import State, by_name, parsed
from ganeti_ext.policy.loader import load_policy
from ganeti_ext.policy.vocabulary import PERMISSIONS

EVIL = "</td><script>alert(1)</script>\"'&\x1b[2J"
POLICY = b"""\
version: 1
roles:
  tester:
    description: "</section><img src=x onerror=alert(2)> & more"
    permissions: [instances.reboot]
    scope: {instances: {name: "{user}-*.test"}}
"""
LINES = ["root x write", f"{EVIL} x @tester,{EVIL.replace(' ', '')}", "joe x @tester"]


def known() -> State:
    return State(load_policy(POLICY, "x"), by_name(parsed(LINES)))


def options(**settings: Any) -> Any:
    return SimpleNamespace(
        **{"policy_file": None, "users_file": None, "html": None, "roles": False, "no_headers": False,
           "separator": None, **settings}
    )  # fmt: skip


class Page(HTMLParser):
    """What a browser would see."""

    VOID = ("meta", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("rows", [matrix._users, matrix._roles])
def test_a_page_is_whole_and_nothing_is_injected(rows: Any) -> None:
    text = "\n".join(matrix.page(rows(known()), "Users", EVIL))
    page = Page(text)
    assert page.open == []
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 1 and "img" not in names
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert "\x1b" not in text
    count = len(rows(known()))
    assert names.count("tr") == count + 1 and names.count("section") == count
    assert names.count("td") == count * len(PERMISSIONS)
    # It needs nothing from elsewhere.
    assert not re.findall(r"(?:src|href|url)\s*[=(]", re.sub(r"&lt;img src=x", "", text))
    assert "<script>alert" not in text


def test_the_page_says_what_the_policy_says() -> None:
    page = Page("\n".join(matrix.page(matrix._users(known()), "Users", "x")))
    cells = [attributes for tag, attributes in page.tags if tag == "td"]
    rows = [cells[start : start + len(PERMISSIONS)] for start in range(0, len(cells), len(PERMISSIONS))]
    for name, row in zip(sorted(known().users), rows):
        held = rights(known().account(name))
        for permission, cell in zip(PERMISSIONS, row):
            assert cell["class"] == {"-": "none"}.get(
                matrix.mark(held.get(permission)), matrix.mark(held.get(permission))
            )
            assert cell.get("title") == held.get(permission)
    assert "instances: name joe-*.test" in page.text


def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ganeti_ext.cli.tables.load", lambda opts: known())
    assert matrix.matrix(options(separator="|", no_headers=True), []) == 0
    lines = {line.split("|")[0]: line.split("|")[1:] for line in capsys.readouterr().out.splitlines()}
    assert list(lines) == list(PERMISSIONS)
    # The users in the order of their names: the evil one, joe, root.
    assert lines["instances.reboot"] == ["-", "some", "all"]
    assert lines["jobs.list"] == ["-", "-", "all"]
    assert matrix.matrix(options(roles=True, separator="|"), []) == 0
    header = capsys.readouterr().out.splitlines()[0].split("|")
    assert header[0] == "Permission" and header[1] == "@admin" and header[-1] == "@tester"
    path = tmp_path / "page.html"
    assert matrix.matrix(options(html=str(path)), []) == 0
    assert Page(path.read_text(encoding="utf-8")).open == []
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_terminal_gets_as_much_as_it_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [matrix.Row(f"user{number}", "", {}) for number in range(30)]
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True, fileno=lambda: -1))
    parts = list(matrix._parts(rows, options()))
    assert [row for part in parts for row in part] == rows
    first = max(map(len, PERMISSIONS)) + 1
    assert all(first + sum(len(row.name) + 1 for row in part) <= 80 for part in parts)
    assert len(parts) == 5
    assert list(matrix._parts(rows, options(separator=":"))) == [rows]
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: False))
    assert list(matrix._parts(rows, options())) == [rows]


#: What a reader does: scrolls, then filters. What he sees afterwards becomes the title.
READER = """
<script>
const wide = document.querySelector(".wide"), corner = document.querySelector("thead th");
wide.scrollTo(600, 50);
const gap = (one, other) => Math.abs(one.getBoundingClientRect()[other] - wide.getBoundingClientRect()[other]);
const seen = {
  scrolled: [wide.scrollLeft > 0, wide.scrollTop > 0],
  corner: [gap(corner, "left"), gap(corner, "top")],
  name: gap(document.querySelector("tbody th"), "left"),
  fits: document.documentElement.scrollWidth <= document.documentElement.clientWidth,
};
const field = document.getElementById("filter");
const shown = words => {
  field.value = words;
  field.dispatchEvent(new Event("input"));
  return ["tbody tr", "section"].map(what => [...document.querySelectorAll(what)]
    .filter(one => one.getClientRects().length).map(one => one.querySelector("th, h3").textContent));
};
seen.field = field.getClientRects().length;
seen.found = ["USER1 instances.Reboot", "no such thing", ""].map(shown);
document.title = JSON.stringify(seen);
</script>
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
@pytest.mark.parametrize("width", [1280, 700])
def test_a_browser_shows_the_page(width: int, tmp_path: Path) -> None:
    """The headers stay in sight, nothing is wider than the window, and the filter does what it says."""
    lines = ["root x write", f"{'long' * 20} x @readonly", *(f"user{number} x @tester" for number in range(40))]
    state = State(load_policy(POLICY, "x"), by_name(parsed(lines)))
    (tmp_path / "page.html").write_text("\n".join(matrix.page(matrix._users(state), "Users", "x")) + READER, "utf-8")
    done = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path}/profile", f"--window-size={width},900", "--dump-dom",
            f"file://{tmp_path}/page.html",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", timeout=120, check=True,
    )  # fmt: skip
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title is not None
    seen = json.loads(html.unescape(title[1]))
    assert seen["scrolled"] == [True, True] and seen["fits"] and seen["field"] == 1
    assert max(*seen["corner"], seen["name"]) <= 1  # the border
    names = sorted(state.users)
    mine = [name for name in names if name.startswith("user1")]
    assert len(mine) == 11
    assert seen["found"] == [[mine, mine], [[], []], [names, names]]
