"""Real processes for tests, forked so that they need not import everything again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from deqir.cli import main
from deqir.restoration import Restorer

TIMEOUT = 120
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


def start(function: Callable[..., object], *arguments: object, **environment: object):
    """A process that runs ``function`` with ``environment`` added to its own."""

    def child() -> None:
        os.environ.update({name: str(value) for name, value in environment.items()})
        signal.signal(signal.SIGINT, signal.default_int_handler)
        function(*arguments)

    process = multiprocessing.get_context("fork").Process(target=child)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking: no thread of this process is in use
        process.start()
    return process


def command(*arguments: object) -> None:
    """``deqir`` with ``arguments`` in this process."""
    sys.argv = ["deqir", *map(str, arguments)]
    main()


def held_command(images: int, release: Path, *arguments: object) -> None:
    """``command``, which waits before image number ``images`` until the file ``release`` is there.

    So it is never done before the file is, however late the one who makes it gets its turn.
    """
    restore, done = Restorer.restore, []

    def wait_and_restore(*given, **named):
        done.append(1)
        if len(done) == images:
            wait_for(release.exists)
        return restore(*given, **named)

    Restorer.restore = wait_and_restore
    command(*arguments)


def ranks(function: Callable[..., object], *arguments: object, count: int = 2):
    """``count`` processes with the environment that torchrun gives them, on the loopback device."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": LOOPBACK}
    return [start(function, *arguments, RANK=rank, LOCAL_RANK=rank, **group) for rank in range(count)]


def finish(*processes) -> list[int]:
    """The exit codes, once all have ended."""
    for process in processes:
        process.join(TIMEOUT)
        assert process.exitcode is not None, "the process hangs"
    return [process.exitcode for process in processes]


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` holds."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
