"""How full a server is kept by a chain of three LLM models whose replies have a heavy-tailed latency.

Run as `python tests/benchmarks/makespan.py [rows]`. A row goes through a synthesis, a refinement and an annotation.
The server, a process of its own, takes `CONCURRENCY` requests at a time, and answers each after a time that is a
function of the request: log-normal with sigma 1.2, so that one in a hundred takes sixteen times the median and more.
Printed are the seconds of one run of the chain, those of the three models one after the other (a barrier after each),
and the share of the server's capacity that each used: no client can be quicker than the sum of all latencies over the
concurrency.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import xxhash

sys.path.insert(0, str(Path(__file__).parents[2]))

from bqbuild.core.records import CallKey, NodeName
from bqbuild.run.execute import run
from bqbuild.run.options import RunOptions
from bqbuild.run.session import open_session
from bqbuild.run.warehouse import connect

CONCURRENCY = 32
MEDIAN_SECONDS = 0.1
SIGMA = 1.2
MODELS = ("questions", "answers", "labelled")

PROFILES = """
default: dev
targets:
  dev:
    store: .bqbuild
    llms:
      writer: {{provider: openai, base_url: "{url}", model: mock, max_concurrency: {concurrency}}}
"""

MODELS_YML = """
sources: [{name: notes, path: sources/notes.jsonl, key: [id]}]
models:
  - {name: questions, kind: synthesize, from: notes, prompt: ask, llm: writer, output: {columns: {question: string}}}
  - {name: answers, kind: refine, from: questions, prompt: improve, llm: writer, output: {columns: {question: string}}}
  - name: labelled
    kind: annotate
    from: answers
    prompt: label
    llm: writer
    output: {format: choice, columns: {level: {values: ["1", "2", "3"]}}}
"""


def latency(body: bytes) -> float:
    """Seconds that the answer to a request takes: the same for the same request."""
    return MEDIAN_SECONDS * random.Random(xxhash.xxh3_64_intdigest(body)).lognormvariate(0, SIGMA)


def serve() -> None:
    """Answer on a port that is printed, until killed."""
    import asyncio

    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        await asyncio.sleep(latency(body))
        said = json.loads(body)["messages"][-1]["content"]
        text = "2" if said.startswith("Label") else f"{xxhash.xxh3_64_hexdigest(said.encode())} of {said[:20]}"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}})

    async def start() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(start())


def project(root: Path, url: str, rows: int) -> None:
    """Write the project."""
    files = {
        "project/bqbuild.yml": "name: makespan\nversion: 1\n",
        "project/profiles.yml": PROFILES.format(url=url, concurrency=CONCURRENCY),
        "project/sources/notes.jsonl": "".join(json.dumps({"id": n, "text": f"Note {n}."}) + "\n" for n in range(rows)),
        "models/models.yml": MODELS_YML,
        "prompts/ask.md": "Ask about: {{ text }}\n",
        "prompts/improve.md": "Improve: {{ question }}\n",
        "prompts/label.md": "Label: {{ question }}\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def seconds(root: Path, url: str, rows: int, steps: list[list[str]]) -> tuple[float, float]:
    """What a fresh build takes, some models after the others; and the seconds that all its requests take the server."""
    project(root, url, rows)
    began = time.perf_counter()
    for step in steps:
        with open_session(root) as session:
            results = run(session, [NodeName(name) for name in step], RunOptions())
            assert all(result.status in ("success", "cached") for result in results), results
    spent = time.perf_counter() - began
    with open_session(root) as session:
        with connect(session) as connection:
            keys = [
                CallKey(key)
                for name in MODELS
                for (calls,) in connection.sql(f"select _bq_calls from {name}").fetchall()
                for key in calls
            ]
        work = sum(record.seconds for record in session.store.calls.find(keys).values())
    return spent, work


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        print(
            f"{rows:,} rows through three models, {CONCURRENCY} requests at a time, median latency {MEDIAN_SECONDS} s"
        )
        for name, steps in (("chain", [list(MODELS)]), ("barriers", [[model] for model in MODELS])):
            with tempfile.TemporaryDirectory() as folder:
                spent, work = seconds(Path(folder), url, rows, steps)
            share = work / CONCURRENCY / spent
            print(f"{name:<9} {spent:7.1f} s   {share:6.1%} of the server's capacity")
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    os.environ.setdefault("BQBUILD_TARGET", "dev")
    serve() if "--serve" in sys.argv else main()
