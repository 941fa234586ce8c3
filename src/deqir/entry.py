"""The entry point of ``deqir``: signals are minded from here on, before anything heavy is imported."""

from __future__ import annotations

import signal
import sys
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Run the command line; a signal during its imports takes effect after them, with exit code 130 or 143."""
    received: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        received.append(number)

    minded = (signal.default_int_handler, signal.SIG_DFL)
    before = {number: signal.signal(number, keep) for number in SIGNALS if signal.getsignal(number) in minded}
    try:
        from deqir.cli import main as run

        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            sys.exit(128 + received[0])
        run()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
