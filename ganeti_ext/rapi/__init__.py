# SPDX-License-Identifier: BSD-2-Clause
"""The access control of the remote API daemon."""
