# SPDX-License-Identifier: BSD-2-Clause
"""Every Debian release that we support: the package built, installed and tested in a system of each."""
