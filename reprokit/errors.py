"""Errors that a person can act on; commands print them without a traceback and exit with code 2."""

from __future__ import annotations


class UserError(Exception):
    """Something only the person at the keyboard can put right: the message says what, and how."""
