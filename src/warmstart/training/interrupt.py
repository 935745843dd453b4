"""Stopping on request: Ctrl-C and SIGTERM end a run cleanly, at a point from which it can continue."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from warmstart.training.result import TrainResult


class Interrupted(UserError):
    """The person or the system asked the run to stop; the command line exits with code 130.

    Args:
        checkpoint: Newest whole checkpoint, None when none was written yet.
        run_dir: Run folder.
        result: What the run had measured until then.
    """

    exit_code = 130

    def __init__(
        self, checkpoint: Path | None, run_dir: Path, result: TrainResult | None = None, **_: object
    ) -> None:
        self.checkpoint, self.result = checkpoint, result
        kept = f"the state is saved in {checkpoint.name}" if checkpoint else "no checkpoint was written yet"
        again = "the same command continues from there" if checkpoint else "the same command starts again"
        super().__init__(f"training was stopped; {kept}", where=run_dir, fix=again)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.checkpoint, Path(self.where or "."), self.result))


class StopRequest:
    """Flag that a signal sets; a second Ctrl-C, or one while `immediate`, raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False
        self.immediate = False

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Signal handler."""
        again, self.asked = self.asked, True
        if self.immediate or (again and signum == signal.SIGINT):
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside the block a signal raises KeyboardInterrupt: for long work that leaves nothing half done."""
        if self.asked:
            raise KeyboardInterrupt
        self.immediate = True
        try:
            yield
        finally:
            self.immediate = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a `StopRequest` while the block runs; old handlers come back after it.

    Outside the main thread Python delivers no signals; the request then never fires by itself.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request.handle) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
