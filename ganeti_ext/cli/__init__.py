# SPDX-License-Identifier: BSD-2-Clause
"""gnt-ext, the administrator's command."""
