# SPDX-License-Identifier: BSD-2-Clause
"""Lets every test import the real Ganeti, before the client library of the same name."""

from ganeti_ext import compat

compat.put_ganeti_first()
