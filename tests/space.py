"""A project on disk with a counting LLM server behind it: what the rules of the product are tested in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bqbuild.core.events import NodeResult
from bqbuild.core.records import NodeName
from bqbuild.plan.plan import Plan
from bqbuild.run.execute import run
from bqbuild.run.options import RunOptions
from bqbuild.run.planning import plan
from bqbuild.run.session import Session, open_session
from bqbuild.run.warehouse import connect
from tests.llm_server import LlmServer

PROJECTS = Path(__file__).parent / "projects"


class Space:
    """Write, edit, run, and look at what came of it. `sent` counts the requests of the last run."""

    def __init__(self, root: Path, server: LlmServer) -> None:
        self.root = root
        self.server = server
        self.sent = 0

    @classmethod
    def copy(cls, name: str, root: Path, server: LlmServer) -> Space:
        """A copy of one of tests/projects."""
        shutil.copytree(PROJECTS / name, root)
        return cls(root, server)

    @classmethod
    def copy_of(cls, space: Space, root: Path) -> Space:
        """A copy of a project that is there already, with its store."""
        shutil.copytree(space.root, root)
        return cls(root, space.server)

    def write(self, path: str, text: str) -> None:
        """Write a file of the project."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def read(self, path: str) -> str:
        """The text of a file of the project."""
        return (self.root / path).read_text(encoding="utf-8")

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace text that must be there."""
        text = self.read(path)
        assert old in text, f"{old!r} is not in {path}"
        self.write(path, text.replace(old, new))

    @contextmanager
    def session(self, **how: Any) -> Iterator[Session]:
        """The project, opened against the server; `how` is open_session's (`target`, `sample` …)."""
        before = os.environ.get("LLM_URL")
        os.environ["LLM_URL"] = self.server.url
        try:
            with open_session(self.root, **how) as session:
                yield session
        finally:
            if before is None:
                del os.environ["LLM_URL"]
            else:
                os.environ["LLM_URL"] = before

    def run(self, *names: str, options: RunOptions | None = None, **how: Any) -> dict[str, NodeResult]:
        """Run the named models, or all; returns the results of models by name."""
        already = len(self.server.requests)
        with self.session(**how) as session:
            chosen: Sequence[NodeName] = [NodeName(name) for name in names] or session.models()
            results = run(session, chosen, options or RunOptions())
        self.sent = len(self.server.requests) - already
        return {str(result.name): result for result in results if result.kind != "source"}

    def plan(self, *names: str, sample: int | None = None, **how: bool) -> Plan:
        """The plan for the named models, or all."""
        with self.session(sample=sample) as session:
            chosen: Sequence[NodeName] = [NodeName(name) for name in names] or session.models()
            return plan(session, chosen, **how)

    def rows(self, sql: str, **how: Any) -> list[dict[str, Any]]:
        """What a query over the environment's models gives."""
        with self.session(**how) as session, connect(session) as connection:
            found: list[dict[str, Any]] = connection.sql(sql).to_arrow_table().to_pylist()
            return found

    def digests(self, **how: Any) -> dict[str, str]:
        """The content digest of every table that the environment points to, side tables included."""
        with self.session(**how) as session:
            return {
                f"{name}__{side}" if side else str(name): digest
                for name, pointer in session.pointers().items()
                for side, digest in pointer.tables.items()
            }


def statuses(results: dict[str, NodeResult]) -> dict[str, str]:
    """How every model ended."""
    return {name: result.status for name, result in results.items()}
