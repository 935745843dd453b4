"""The tiny models of the anatomy, evaluation and command-line tests serve here too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / name) for name in ("anatomy", "evaluation", "cli")]
