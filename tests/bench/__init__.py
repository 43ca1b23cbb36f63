# SPDX-License-Identifier: BSD-2-Clause
"""Measurements, ours and stock side by side; none of them is a test."""
