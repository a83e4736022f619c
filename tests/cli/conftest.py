"""Every test here starts in a folder of its own with a tiny experiment in it."""

from helpers import work  # noqa: F401
