"""Every test here starts in a folder of its own with a tiny experiment in it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers import work  # noqa: E402, F401
