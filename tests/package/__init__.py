# SPDX-License-Identifier: BSD-2-Clause
"""The .deb, tested on throw-away Debian systems."""
