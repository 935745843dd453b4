"""The `warmstart` command: one file per command, options generated from settings classes.

`main` is the console script. Nothing here imports torch, transformers or matplotlib before the command in
use needs them, so that `warmstart --help` answers at once.
"""

from warmstart.cli.app import main

__all__ = ["main"]
