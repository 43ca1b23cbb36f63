# SPDX-License-Identifier: BSD-2-Clause
"""A daemon that could not load its checks answers, and serves nothing."""

from __future__ import annotations

import logging

import pytest
from ganeti import http

from ganeti_ext.rapi.refuse import refusing_handler
from tests.unit.rapi import fake
from tests.unit.rapi.fake import PAIRS, Server


@pytest.mark.parametrize("user", [None, "root"])
def test_everything_but_the_version_is_503_with_the_reason(user: str | None) -> None:
    server = Server("root write", cls=refusing_handler("Ganeti 9.9 <is> not known"))
    for pair in PAIRS:
        answer = server.ask_pair(pair, user)
        if pair[0].__name__ == "R_version":
            assert (answer.status, answer.body) == (200, 2)
        else:
            assert (answer.status, answer.calls) == (503, [])
            assert "Ganeti 9.9 &lt;is&gt; not known" in answer.message


@pytest.mark.parametrize(
    "path", ["/version/", "/versionx", "//version", "/2/info?/version", "/2/info#/version", "/nothing", ""]
)
def test_what_looks_like_the_version(path: str) -> None:
    answer = Server("root write", cls=refusing_handler("x")).ask("GET", path, "root")
    assert (answer.status, answer.calls) == (503, [])


def test_the_version_with_a_wrong_password_is_as_in_stock() -> None:
    refusing, stock = Server("root write", cls=refusing_handler("x")), Server("root write", cls=fake.STOCK)
    asked = ("GET", "/version?x=1", "root")
    assert refusing.ask(*asked, password="y")[:2] == stock.ask(*asked, password="y")[:2]
    assert refusing.ask(*asked)[:2] == stock.ask(*asked)[:2]


def test_handling_without_the_step_before_it_refuses_too() -> None:
    handler = refusing_handler("x")(lambda name: None, False)
    request = type("Request", (), {"request_path": "/2/info", "request_method": "GET", "private": None})()
    with pytest.raises(http.HttpServiceUnavailable):
        handler.HandleRequest(request)


def test_the_log_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    server = Server("root write", cls=refusing_handler("the reason"))
    server.ask("GET", "/2/info")
    server.ask("GET", "/2/info")
    lines = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert lines == ["Every request is refused: the reason"]
