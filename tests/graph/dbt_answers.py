"""What dbt selects. Run by the Python that dbt is installed in, never by bqbuild's.

One JSON line in, one out: {"root": folder, "selectors": [...], "asked": [[select, exclude], …]} is answered with a list
for each question: ids or, where dbt ends with an error, {"error": message}. The project is parsed once; each question
goes through dbt's own parser and selector classes, as in `dbt ls`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

# bqbuild's own environment has no dbt
from dbt.cli.main import dbtRunner  # type: ignore[import-not-found]
from dbt.compilation import Linker  # type: ignore[import-not-found]
from dbt.config.selectors import SelectorConfig  # type: ignore[import-not-found]
from dbt.graph import Graph  # type: ignore[import-not-found]
from dbt.graph.cli import parse_difference  # type: ignore[import-not-found]
from dbt.graph.selector import NodeSelector  # type: ignore[import-not-found]
from dbt_common.exceptions import DbtBaseException  # type: ignore[import-not-found]


def answers(root: str, selectors: Sequence[Any], asked: Sequence[Any]) -> list[Any]:
    """An answer for each question."""
    os.chdir(root)  # `path:` looks at the files of the working directory
    folders = ["--project-dir", root, "--profiles-dir", root]
    parsed = dbtRunner().invoke(["--quiet", "--no-partial-parse", "parse", *folders])
    if parsed.exception is not None:
        raise parsed.exception
    linker = Linker()
    linker.link_graph(parsed.result)
    known = SelectorConfig.selectors_from_dict({"selectors": list(selectors)})
    selector = NodeSelector(Graph(linker.graph), parsed.result, selectors=known)
    return [_answer(selector, *each) for each in asked]


def _answer(selector: Any, select: list[str] | None, exclude: list[str] | None) -> Any:
    try:
        return sorted(selector.get_selected(parse_difference(select, exclude)))
    except (DbtBaseException, ValueError, IndexError, NotImplementedError) as error:
        # Python's, for patterns that `Path.glob` does not take
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    for line in sys.stdin:
        found = answers(**json.loads(line))
        print("ANSWERS " + json.dumps(found), flush=True)
