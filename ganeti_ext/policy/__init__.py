# SPDX-License-Identifier: BSD-2-Clause
"""Deciding who may do what: pure Python over plain values, without Ganeti."""
