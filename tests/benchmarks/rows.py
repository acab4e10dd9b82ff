"""Requests, CPU seconds and peak memory of whole runs over many rows, beside a bare aiohttp loop over the same rows.

Run as `python tests/benchmarks/rows.py [--rows N]`. One LLM step over N rows (100,000 by default): a first run, a run
after 1 % of new rows, one with nothing to do; then two steps over 5,000 rows. The server is a process of its own and is
not counted. The machine's load shows in wall time, not in these figures.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import aiohttp
import orjson
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.builds import Cost, measure

ROWS = 100_000
SMALL = 5_000
CONCURRENCY = 64
FILLER = "The text goes on for a while as texts do. " * 4
ANSWER = orjson.dumps({"question": "What follows?", "answer": "Another sentence.", "verdict": "good"}).decode()
REPLY = orjson.dumps(
    {
        "id": "1",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 60, "completion_tokens": 20, "total_tokens": 80},
    }
)

PROFILES = """
default: dev
targets:
  dev:
    store: .bqbuild
    llms: {{writer: {{provider: openai, model: m, base_url: "{url}", max_concurrency: {concurrency}}}}}
"""
FIRST = """
models:
  - name: asked
    kind: synthesize
    from: rows
    prompt: ask
    llm: writer
    params: {temperature: 0.7, max_tokens: 200}
    output: {format: json, columns: {question: string, answer: string}}
"""
SECOND = """
  - name: judged
    kind: annotate
    from: asked
    prompt: judge
    llm: writer
    params: {temperature: 0.0, max_tokens: 200}
    output: {format: json, columns: {verdict: string}}
"""


def write_project(root: Path, url: str, *, steps: int) -> None:
    """A project of one step or two."""
    files = {
        "project/bqbuild.yml": "name: many\nversion: 1\n",
        "project/profiles.yml": PROFILES.format(url=f"{url}/v1", concurrency=CONCURRENCY),
        "models/sources.yml": "sources: [{name: rows, path: sources/rows.csv, key: [id]}]\n",
        "models/models.yml": FIRST + (SECOND if steps == 2 else ""),
        "prompts/ask.md": "Write a question about row {{ id }}. Answer in JSON.\n{{ text }}\n",
        "prompts/judge.md": "Answer in JSON. {{ id }}: {{ question }}\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")


def write_rows(root: Path, number: int) -> None:
    """The source, with `number` rows; the first are the same whatever the number."""
    path = root / "project/sources/rows.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text\n")
        file.writelines(f"{row},{FILLER}{row}\n" for row in range(number))


def run(root: Path) -> Cost:
    """One `bqbuild run`."""
    return measure([sys.executable, "-m", "bqbuild.cli.main", "--quiet", "run"], root)


async def bare(url: str, number: int) -> None:
    """The least that asking can cost: requests out, replies in, nothing kept."""
    waiting = iter(range(number))
    async with aiohttp.ClientSession() as session:

        async def take() -> None:
            for row in waiting:
                content = f"Write a question about row {row}. Answer in JSON.\n{FILLER}{row}"
                body = {"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": 200}
                data = orjson.dumps({**body, "temperature": 0.7})
                headers = {"Content-Type": "application/json"}
                async with session.post(f"{url}/v1/chat/completions", data=data, headers=headers) as response:
                    orjson.loads(orjson.loads(await response.read())["choices"][0]["message"]["content"])

        await asyncio.gather(*(take() for _ in range(CONCURRENCY)))


def serve() -> None:
    """Answer every request with the same reply; `GET /` says how many there were."""
    count = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        await request.read()
        return web.Response(body=REPLY, content_type="application/json")

    async def counted(request: web.Request) -> web.Response:
        return web.Response(text=str(count))

    async def start() -> None:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", answer), web.get("/", counted)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.Event().wait()

    asyncio.run(start())


@contextmanager
def server() -> Iterator[str]:
    """The server in another process."""
    process = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


class Table:
    """Prints a line for each process, with the requests that reached the server meanwhile."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before = 0

    def head(self, title: str) -> None:
        """Begin a table."""
        print(f"\n{title}\n\n| | requests | CPU s | peak MB | CPU / bare |\n|---|--:|--:|--:|--:|")

    def line(self, name: str, cost: Cost, beside: Cost | None = None) -> Cost:
        """Say what a process cost, and its ratio to another."""
        with urlopen(self._url) as response:  # our own server
            count = int(response.read())
        ratio = f"{cost.seconds / beside.seconds:.1f}" if beside else ""
        print(f"| {name} | {count - self._before:,} | {cost.seconds:.1f} | {cost.memory:.0f} | {ratio} |", flush=True)
        self._before = count
        return cost


def one_step(table: Table, url: str, number: int) -> None:
    """A first run, an increment, and a run with nothing to do."""
    table.head(f"one step over {number:,} rows")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_project(root, url, steps=1)
        write_rows(root, number)
        least = table.line("bare loop", measure_bare(url, number, root))
        table.line("first run", run(root), least)
        write_rows(root, number + number // 100)
        table.line("1 % new rows", run(root))
        run(root)
        table.line("nothing to do", run(root))


def two_steps(table: Table, url: str, number: int) -> None:
    """Rows that stream through two steps."""
    table.head(f"two steps over {number:,} rows")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_project(root, url, steps=2)
        write_rows(root, number)
        least = table.line("bare loop, as many requests", measure_bare(url, 2 * number, root))
        table.line("first run", run(root), least)


def measure_bare(url: str, number: int, folder: Path) -> Cost:
    """The bare loop in a process of its own."""
    return measure([sys.executable, __file__, "--bare", url, "--rows", str(number)], folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the large table")
    parser.add_argument("--small", type=int, default=SMALL, help="rows that go through two steps")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        serve()
    elif given.bare:
        asyncio.run(bare(given.bare, given.rows))
    else:
        with server() as url:
            table = Table(url)
            one_step(table, url, given.rows)
            two_steps(table, url, given.small)


if __name__ == "__main__":
    main()
