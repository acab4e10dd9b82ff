"""CPU seconds of the client per 1,000 calls: a bare aiohttp loop, our client, and our client with the durable log.

Run as `python tests/benchmarks/llm_calls.py [calls]`; the server runs in a process of its own and is not counted.
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

import aiohttp
import orjson

sys.path.insert(0, str(Path(__file__).parents[2]))

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.records import CallRecord, ChatRequest, Message
from bqbuild.llm.client import Client, Journal
from bqbuild.store import open_store

CONCURRENCY = 64


class NoLog:
    """A call log that keeps nothing."""

    async def append(self, record: CallRecord) -> None:
        pass


def requests(number: int) -> list[ChatRequest]:
    system = Message("system", "You write exam questions.")
    filler = "The text goes on for a while, as texts do. " * 10
    params = {"temperature": 0.7, "max_tokens": 200}
    return [
        ChatRequest((system, Message("user", f"Write question {item}. Answer in JSON.\n{filler}")), params)
        for item in range(number)
    ]


async def spread(items: Sequence[ChatRequest], work: Callable[[ChatRequest], Awaitable[object]]) -> float:
    """CPU seconds for `work` on all items, `CONCURRENCY` at a time."""
    waiting = iter(items)

    async def take() -> None:
        for item in waiting:
            await work(item)

    began = time.process_time()
    await asyncio.gather(*(take() for _ in range(CONCURRENCY)))
    return time.process_time() - began


async def bare(url: str, number: int) -> float:
    """The least that asking can cost."""
    async with aiohttp.ClientSession() as session:

        async def ask(request: ChatRequest) -> None:
            messages = [{"role": message.role, "content": message.content} for message in request.messages]
            data = orjson.dumps({"model": "m", "messages": messages, **request.params})
            headers = {"Content-Type": "application/json"}
            async with session.post(f"{url}/chat/completions", data=data, headers=headers) as response:
                orjson.loads(await response.read())

        return await spread(requests(number), ask)


async def ours(url: str, number: int, log: Journal) -> float:
    """The same through the client."""
    spec = ConnectionSpec(provider="openai", model="m", base_url=url, max_concurrency=CONCURRENCY)
    client = Client({"writer": spec}, log, print)

    async def ask(request: ChatRequest) -> None:
        await client.call("writer", client.key("writer", request), request)

    await client.call("writer", client.key("writer", ChatRequest(())), ChatRequest(()))  # imports are not counted
    seconds = await spread(requests(number), ask)
    await client.close()
    return seconds


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
    """Print the three figures."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 5000

    def report(name: str, seconds: float) -> None:
        print(f"{name:<28} {seconds / number * 1000:.3f} CPU s per 1,000 calls", flush=True)

    with server() as url, tempfile.TemporaryDirectory() as folder:
        report("bare aiohttp and orjson", asyncio.run(bare(url, number)))
        report("client, no log", asyncio.run(ours(url, number, NoLog())))
        store = open_store(folder)
        seconds = asyncio.run(ours(url, number, store.calls))
        report("client, durable log", seconds)
        began = time.process_time()
        store.close()
        report("the same, log compacted", seconds + time.process_time() - began)


if __name__ == "__main__":
    main()
