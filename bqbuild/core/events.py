"""What a run says of itself while it runs. The progress display, the log and the tests are listeners."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bqbuild.core.hashing import Digest
from bqbuild.core.records import NodeName


@dataclass(frozen=True, slots=True)
class Counts:
    """What a node has done so far: rows made, calls, tokens and dollars spent in this run."""

    rows: int = 0
    new_calls: int = 0
    cached_calls: int = 0
    failed_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeResult:
    """How a node ended: `status` is `success`, `cached`, `partial`, `error` or `skipped`; `seconds` is wall time.

    `sides` maps the names of side tables (`errors`, `rejects`, `summary`) to their numbers of rows.
    """

    name: NodeName
    kind: str
    status: str
    reason: str
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    table: Digest | None = None
    sides: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The nodes that this run looks at, in order."""

    nodes: tuple[tuple[NodeName, str], ...]


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """A node is being built, and why. `expected_rows` is the number of input rows where it is known."""

    name: NodeName
    reason: str
    expected_rows: int | None = None


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """A node got further. `done` of `total` is in `unit` (`rows`, `steps`, `questions`); `note` is free text."""

    name: NodeName
    counts: Counts
    done: int = 0
    total: int | None = None
    unit: str = "rows"
    note: str = ""


@dataclass(frozen=True, slots=True)
class LlmProgress:
    """How a connection does now; a few times a second while calls are under way.

    `limit` is how many may be in flight at this moment, `waiting` how many wait to be sent. Rates are those of the last
    seconds; half of the answers came within `median_seconds`, 95 % within `slow_seconds`. `cost` is in dollars.
    """

    llm: str
    in_flight: int
    limit: int
    waiting: int
    answered: int
    failed: int
    retries: int
    calls_per_second: float
    tokens_per_second: float
    median_seconds: float
    slow_seconds: float
    cost: float


@dataclass(frozen=True, slots=True)
class NodeFinished:
    """A node ended."""

    result: NodeResult


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should know that stops nothing. `name` is None where it concerns the whole run."""

    message: str
    name: NodeName | None = None


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """A batch of calls got further. `batch` is our name of it, `remote` the provider's once there is one.

    `status` is the provider's word, or `uploading` or `collecting`; the counts are of requests. `is_over` where nothing
    more will be told of it.
    """

    llm: str
    batch: str
    status: str
    total: int
    done: int = 0
    failed: int = 0
    remote: str = ""
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Tested:
    """A data test was run: `status` is `pass`, `warn` or `fail`, `failures` the number of rows that are wrong.

    `model` is None for a test of project/tests; `sample` are some of the wrong rows.
    """

    name: str
    model: NodeName | None
    status: str
    failures: int
    sample: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run ended."""

    results: tuple[NodeResult, ...]
    seconds: float


Event = (
    RunStarted | NodeStarted | NodeProgress | LlmProgress | NodeFinished | BatchProgress | Tested | Warned | RunFinished
)
Listener = Callable[[Event], None]
