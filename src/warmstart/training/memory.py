"""Memory that a CPU run frees is kept for the next step instead of going back to the system.

Every step allocates and frees the same activations. The C library gives blocks above some 100 kB straight
back to the kernel, which hands out zeroed pages anew, one fault per 4 kB: a tenth of the time of a float32
step and a third of a bfloat16 step of a 7M-parameter model on the machine where this was measured.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_GLIBC_MOST = 32 * 2**20


def keep_freed_memory() -> bool:
    """Tell the C library (glibc) to keep freed blocks in the process. True when it agreed.

    Results do not change; the process holds its peak memory until it ends. Calling it again changes nothing.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(_M_TRIM_THRESHOLD, 2**31 - 1):
            return bool(mallopt(_M_MMAP_THRESHOLD, 2**30) or mallopt(_M_MMAP_THRESHOLD, _GLIBC_MOST))
    return False
