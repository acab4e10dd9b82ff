"""Leases: one holder at a time, released by whatever ends the holder."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import pytest

from bqbuild.core.errors import StoreError
from bqbuild.store.base import Store

HOLD = """
import sys, time
from bqbuild.store import open_store
store = open_store(sys.argv[1])
with store.leases.hold("node a") as waited:
    print("held", waited, flush=True)
    sys.stdin.readline()
store.close()
"""


def test_a_free_lease_is_taken_without_waiting(store: Store) -> None:
    with store.leases.hold("a") as waited, store.leases.hold("b"):
        assert waited is False
    with store.leases.hold("a") as waited:
        assert waited is False


def test_a_lease_excludes_other_threads(store: Store) -> None:
    order = []

    def second() -> None:
        with store.leases.hold("a") as waited:
            order.append(("second", waited))

    with store.leases.hold("a"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append(("first", False))
    thread.join()
    assert order == [("first", False), ("second", True)]


def test_a_lease_excludes_other_processes_and_dies_with_its_process(
    store: Store, python: Callable[..., object]
) -> None:
    holder = python(HOLD)
    assert holder.stdout.readline() == "held False\n"
    waiter = python(HOLD)
    time.sleep(0.1)
    holder.send_signal(signal.SIGKILL)
    assert waiter.stdout.readline().startswith("held")
    waiter.communicate("\n", timeout=60)
    with store.leases.hold("node a"):
        pass


def test_one_who_waits_can_be_interrupted(store: Store, python: Callable[..., object]) -> None:
    with store.leases.hold("node a"):
        waiter = python(HOLD)
        time.sleep(1.0)
        waiter.send_signal(signal.SIGINT)
        _, error = waiter.communicate(timeout=60)
    assert "KeyboardInterrupt" in error


def test_closing_the_store_ends_the_waiting(store: Store, reopen: Callable[[], Store]) -> None:
    other = reopen()
    problems = []

    def wait() -> None:
        with pytest.raises(StoreError, match="was closed") as raised, other.leases.hold("a"):
            pass
        problems.append(raised.value)

    with store.leases.hold("a"):
        thread = threading.Thread(target=wait)
        thread.start()
        other.close()
        thread.join()
    assert len(problems) == 1
