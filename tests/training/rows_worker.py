"""One of several processes that train chosen rows: `python rows_worker.py FOLDER '{"settings": …}'`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import training_tiny as tiny
from test_training_rows import run, signed_zeros

if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), signed_zeros(tiny.llama(tied=False)), **json.loads(sys.argv[2]))
