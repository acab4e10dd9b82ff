"""CPU seconds per 1,000 calls, and calls a second: a bare aiohttp loop, our client, our client with the durable log.

Run as `python tests/benchmarks/llm_calls.py [calls]`; the server runs in a process of its own and is not counted. The
three take turns, so that what else the machine does falls on all of them; medians, and ratios to the bare loop.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import aiohttp
import orjson

sys.path.insert(0, str(Path(__file__).parents[2]))

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.records import CallRecord, ChatRequest, Message
from bqbuild.llm.client import Client, Journal
from bqbuild.store import open_store

CONCURRENCY = 64
ROUNDS = 5


class NoLog:
    """A call log that keeps nothing."""

    async def append(self, record: CallRecord) -> None:
        pass

    def room(self) -> int:
        return 1_000


def requests(number: int) -> list[ChatRequest]:
    system = Message("system", "You write exam questions.")
    filler = "The text goes on for a while, as texts do. " * 10
    params = {"temperature": 0.7, "max_tokens": 200}
    return [
        ChatRequest((system, Message("user", f"Write question {item}. Answer in JSON.\n{filler}")), params)
        for item in range(number)
    ]


Spent = tuple[float, float]
"""CPU seconds and seconds."""


async def spread(items: Sequence[ChatRequest], work: Callable[[ChatRequest], Awaitable[object]]) -> Spent:
    """What `work` on all items takes, `CONCURRENCY` at a time."""
    waiting = iter(items)

    async def take() -> None:
        for item in waiting:
            await work(item)

    began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(take() for _ in range(CONCURRENCY)))
    return time.process_time() - began[0], time.perf_counter() - began[1]


async def bare(url: str, number: int) -> Spent:
    """The least that asking can cost."""
    async with aiohttp.ClientSession() as session:

        async def ask(request: ChatRequest) -> None:
            messages = [{"role": message.role, "content": message.content} for message in request.messages]
            data = orjson.dumps({"model": "m", "messages": messages, **request.params})
            headers = {"Content-Type": "application/json"}
            async with session.post(f"{url}/chat/completions", data=data, headers=headers) as response:
                orjson.loads(await response.read())

        return await spread(requests(number), ask)


async def ours(url: str, number: int, log: Journal) -> Spent:
    """The same through the client."""
    spec = ConnectionSpec(provider="openai", model="m", base_url=url, max_concurrency=CONCURRENCY)
    client = Client({"writer": spec}, log, print)

    async def ask(request: ChatRequest) -> None:
        await client.call("writer", client.key("writer", request), request)

    await client.call("writer", client.key("writer", ChatRequest(())), ChatRequest(()))  # imports are not counted
    spent = await spread(requests(number), ask)
    await client.close()
    return spent


@contextmanager
def server() -> Iterator[str]:
    """A chat server in another process."""
    script = Path(__file__).parents[1] / "llm_server.py"
    process = subprocess.Popen([sys.executable, str(script), "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Print the figures."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    spent: dict[str, list[Spent]] = {"bare aiohttp and orjson": [], "client, no log": [], "client, durable log": []}
    compacting: list[float] = []
    with server() as url:
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder:
                store = open_store(folder)
                spent["bare aiohttp and orjson"].append(asyncio.run(bare(url, number)))
                spent["client, no log"].append(asyncio.run(ours(url, number, NoLog())))
                spent["client, durable log"].append(asyncio.run(ours(url, number, store.calls)))
                began = time.process_time()
                store.close()
                compacting.append(time.process_time() - began)
    bare_cpu, bare_wall = map(median, zip(*spent["bare aiohttp and orjson"], strict=True))
    for name, rounds in spent.items():
        cpu, wall = map(median, zip(*rounds, strict=True))
        print(
            f"{name:<26} {cpu / number * 1000:.3f} CPU s per 1,000 calls ({cpu / bare_cpu:.2f} x bare), "
            f"{number / wall:,.0f} calls/s ({bare_wall / wall:.0%} of bare)"
        )
    print(f"{'compacting the log':<26} {median(compacting) / number * 1000:.3f} CPU s per 1,000 calls")


if __name__ == "__main__":
    main()
