# SPDX-License-Identifier: BSD-2-Clause
"""`gnt-ext matrix`: users or roles against permissions, for the terminal or as a page for the auditor."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, NamedTuple

from ganeti import errors, ssconf, utils

from ganeti_ext.cli import rights, tables, text
from ganeti_ext.cli.describe import scope_text
from ganeti_ext.cli.rights import EVERYWHERE, Rights
from ganeti_ext.cli.state import State
from ganeti_ext.policy.model import BUILTIN
from ganeti_ext.policy.vocabulary import PERMISSIONS

ALL, SOME, NONE = "all", "some", "-"

#: Where the width of the terminal is not known.
_WIDTH = 80


class Row(NamedTuple):
    """A user or role, what is said about it, and what it may do."""

    name: str
    about: str
    rights: Rights


def matrix(opts: Any, args: Sequence[str]) -> int:
    """Shows it, or writes the page."""
    known = tables.load(opts)
    rows = _roles(known) if opts.roles else _users(known)
    if opts.html is not None:
        what = "Roles" if opts.roles else "Users"
        utils.WriteFile(opts.html, data="\n".join(page(rows, what, _heading())), mode=0o640)
        text.err(f"Written to {text.line(opts.html)}")
        return 0
    for part in _parts(rows, opts):
        data = [[name, *(mark(row.rights.get(name)) for row in part)] for name in PERMISSIONS]
        tables.show(opts, ["permission"], data, [row.name for row in part])
    text.err(f"{ALL}: everywhere, {SOME}: within limits (gnt-ext can --list tells which)")
    return 0


def _users(known: State) -> list[Row]:
    return [
        Row(name, ",".join(line.tokens or ()) or "no options", rights.rights(known.account(name)))
        for name, line in sorted(known.users.items())
    ]


def _roles(known: State) -> list[Row]:
    """As they are for anybody: `{user}` stays as it is written."""
    rows = []
    for role in (*BUILTIN.values(), *known.policy.roles.values()):
        where = scope_text(role)
        limits = "; ".join(f"{key} {value}" for key, value in rights.limits(role).items())
        about = "; ".join(filter(None, (role.description, "" if role.name in BUILTIN else limits)))
        rows.append(
            Row(f"@{role.name}" if role.kind is None else role.name, about, dict.fromkeys(role.permissions, where))
        )
    return rows


def mark(where: str | None) -> str:
    """How much of a permission is held, in a word."""
    return NONE if where is None else ALL if where == EVERYWHERE else SOME


def _parts(rows: Sequence[Row], opts: Any) -> Iterator[Sequence[Row]]:
    """As many rows at a time as a terminal has place for; all of them for a program."""
    if opts.separator is not None or not sys.stdout.isatty():
        yield rows
        return
    try:
        width = os.get_terminal_size(sys.stdout.fileno()).columns or _WIDTH
    except OSError:
        width = _WIDTH
    first = max(map(len, PERMISSIONS)) + 1
    part: list[Row] = []
    left = width - first
    for row in rows:
        needed = max(len(text.line(row.name)), len(SOME)) + 1
        if part and needed > left:
            yield part
            part, left = [], width - first
        part.append(row)
        left -= needed
    yield part


# --- the page ----------------------------------------------------------------------------

_STYLE = """
body { font: 14px/1.4 sans-serif; margin: 1.5em; color: #222; background: #fff }
h1 { font-size: 1.4em; margin: 0 0 .2em } h2 { font-size: 1.1em; margin: 1.5em 0 .5em }
p { margin: .3em 0; max-width: 60em }
input { font: inherit; padding: .3em .5em; width: 20em; margin: .8em 0 }
.wide { overflow: auto; max-height: 85vh; border: 1px solid #bbb }
table { border-collapse: separate; border-spacing: 0 }
thead th { position: sticky; top: 0; z-index: 1; background: #eee; vertical-align: bottom }
thead th span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; font-weight: normal }
thead th:first-child { left: 0; z-index: 2 }
tbody th { position: sticky; left: 0; background: #f7f7f7; text-align: left; font-weight: normal; white-space: nowrap;
  max-width: min(24em, 35vw); overflow: hidden; text-overflow: ellipsis }
th, td { padding: .2em .4em; border-right: 1px solid #ddd; border-bottom: 1px solid #ddd }
td { text-align: center } td.all { background: #f3c9a9 } td.some { background: #cfe3f6 } td.none { color: #767676 }
tbody tr:hover td, tbody tr:hover th { box-shadow: inset 0 1px #555, inset 0 -1px #555 }
section { border-top: 1px solid #ccc; padding: .5em 0 } h3 { font-size: 1em; margin: 0 } dl { margin: .3em 0 0 1.5em }
dt { font-style: italic } dd { margin: 0 0 .3em 1.5em } h3, p, dt, dd { overflow-wrap: anywhere }
[hidden] { display: none }
@media print { .wide { max-height: none; overflow: visible; border: 0 } #filter { display: none } }
"""

_SCRIPT = """
const box = document.getElementById("filter");
box.hidden = false;
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\\s+/);
  for (const one of document.querySelectorAll("[data-words]"))
    one.hidden = !words.every(word => one.dataset.words.includes(word));
});
"""


def _heading() -> str:
    try:
        cluster = ssconf.SimpleStore().GetClusterName()
    except errors.ConfigurationError:
        cluster = "no cluster"
    return f"{cluster}, {time.strftime('%Y-%m-%d %H:%M %Z')}"


def page(rows: Sequence[Row], what: str, heading: str) -> Iterator[str]:
    """The lines of a page that needs nothing else: whatever is in a name, it stays a name."""
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield (
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
    )
    yield '<meta name="viewport" content="width=device-width">'
    title = f"{what} of the remote API: {heading}"
    yield f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{_text(title)}</h1>"
    yield "<p>What each may do, by the policy and the users file. “all” is the whole cluster; “some” is told below:"
    yield "where, and what a deny takes out. Limits on parameters, quotas and jobs are those of the roles.</p>"
    yield '<input id="filter" type="search" aria-label="Filter" '
    yield 'placeholder="Filter: names, permissions, places" hidden>'
    yield '<div class="wide" tabindex="0"><table>\n<thead><tr><th></th>'
    yield "".join(
        f'<th scope="col" title="{_text(about)}"><span>{name}</span></th>' for name, about in PERMISSIONS.items()
    )
    yield "</tr></thead>\n<tbody>"
    for row in rows:
        cells = "".join(map(_cell, (row.rights.get(name) for name in PERMISSIONS)))
        name = _text(row.name)
        yield f'<tr data-words="{_words(row)}"><th scope="row" title="{name}">{name}</th>{cells}</tr>'
    yield f"</tbody>\n</table></div>\n<h2>{_text(what)} one by one</h2>"
    for row in rows:
        yield f'<section data-words="{_words(row)}"><h3>{_text(row.name)}</h3><p>{_text(row.about)}</p><dl>'
        for where, names in rights.by_place(row.rights).items():
            yield f"<dt>{_text(where)}</dt><dd>{_text(', '.join(names))}</dd>"
        yield "</dl></section>" if row.rights else "<dt>nothing</dt></dl></section>"
    yield f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def _cell(where: str | None) -> str:
    if where is None:
        return '<td class="none">·</td>'
    return f'<td class="{mark(where)}" title="{_text(where)}">{mark(where)}</td>'


def _words(row: Row) -> str:
    """What the filter looks at, in lower case."""
    return _text(" ".join([row.name, row.about, *row.rights, *dict.fromkeys(row.rights.values())]).lower())


def _text(words: str) -> str:
    return escape(text.line(words))
