# SPDX-License-Identifier: BSD-2-Clause
"""The names that a middleware may use; they are kept stable (`docs/middleware.md`)."""

from ganeti import http
from ganeti.rapi import rlib2

from ganeti_ext.rapi.handler import RemoteApiHandler
from ganeti_ext.rapi.permissions import register_role
from ganeti_ext.rapi.request import Request

__all__ = ["RemoteApiHandler", "Request", "http", "register_role", "rlib2"]
