# SPDX-License-Identifier: BSD-2-Clause
"""Everything that `make test`, `make demo` and `make bench` run."""
