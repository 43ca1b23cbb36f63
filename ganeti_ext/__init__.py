# SPDX-License-Identifier: BSD-2-Clause
"""Access control and restricted commands for Ganeti's daemons."""

__version__ = "0.2.0"
