# SPDX-License-Identifier: BSD-2-Clause
"""The answers that Ganeti's own list of HTTP errors lacks."""

from __future__ import annotations

from ganeti import http


class HttpContentTooLarge(http.HttpException):  # type: ignore[misc]
    """413 Content Too Large (RFC 9110, 15.5.14): the body is larger than this client may send."""

    code = 413


class HttpTooManyRequests(http.HttpException):  # type: ignore[misc]
    """429 Too Many Requests (RFC 6585, 4), with a header Retry-After."""

    code = 429

    def __init__(self, message: str, retry_after: int) -> None:
        """`retry_after`: seconds."""
        super().__init__(message, headers={"Retry-After": str(retry_after)})
