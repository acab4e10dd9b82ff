"""Ctrl-C while calls are under way: the first lets them end, since they are paid for; the second stops now."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bqbuild.core.events import Listener, Warned
from bqbuild.llm.client import Client

STOPS = (signal.SIGINT, signal.SIGTERM)
"""What asks a run to stop: Ctrl-C, and a machine or scheduler that goes on to SIGKILL where that takes long."""


@contextmanager
def stopping(client: Client, emit: Listener) -> Iterator[None]:
    """While this lasts, Ctrl-C raises KeyboardInterrupt out of the running loop: at once where no call is under way or
    it is the second one, else when the last call has been recorded. Nothing new is sent meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    draining: list[asyncio.Task[None]] = []

    def interrupted() -> None:
        if draining or not client.under_way:
            _stop()
        calls = client.under_way
        noun = "call that is" if calls == 1 else "calls that are"
        emit(Warned(f"stopping: nothing new is sent; {calls} {noun} under way may end. Ctrl-C again stops now"))
        draining.append(loop.create_task(client.drain()))
        # from a callback of the loop, KeyboardInterrupt leaves the loop as if Ctrl-C had come now
        draining[0].add_done_callback(lambda task: None if task.cancelled() else _stop())

    for number in STOPS:
        loop.add_signal_handler(number, interrupted)
    try:
        yield
    finally:
        for number in STOPS:
            loop.remove_signal_handler(number)


def _stop() -> None:
    raise KeyboardInterrupt
