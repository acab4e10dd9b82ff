"""The values that layers hand to each other. Frozen, and free of behaviour beyond their own shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NewType

from bqbuild.core.errors import Where
from bqbuild.core.hashing import Digest

NodeName = NewType("NodeName", str)
CallKey = NewType("CallKey", str)
"""Digest of everything about a call that can change its reply."""

ID = "_bq_id"
PARENT = "_bq_parent"
CALLS = "_bq_calls"
ROOTS = "_bq_roots"
LINEAGE_COLUMNS = (ID, PARENT, CALLS, ROOTS)
"""Columns that bqbuild adds. ROOTS (the ids of the source rows that a row came from) stays inside the store."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A dependency: a node, or one of its side tables (`kept__rejects` is the side `rejects` of `kept`)."""

    node: NodeName
    side: str = ""

    def __str__(self) -> str:
        return f"{self.node}__{self.side}" if self.side else str(self.node)


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the DAG. `spec` is the validated, typed declaration of its kind (config.specs).

    `body` is the SQL after Jinja, with every reference as one quoted identifier; `places` maps dotted keys of the
    declaration (`prompt`, `output.columns.answer`, `rules.0`) to where the user wrote them; `fqn` is dbt's: project,
    folders, name; `patch` is the YAML file that describes a model of another file.
    """

    name: NodeName
    kind: str
    spec: Any
    refs: tuple[Ref, ...]
    where: Where
    path: str
    fqn: tuple[str, ...]
    body: str = ""
    places: Mapping[str, Where] = field(default_factory=dict)
    patch: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its name and its DuckDB type in lower case (`varchar`, `bigint`, `double`, …)."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class DataFile:
    """One Parquet file of a table: its name inside the table's folder, size in bytes and xxh3-128."""

    name: str
    bytes: int
    checksum: Digest


@dataclass(frozen=True, slots=True)
class Table:
    """A handle on an immutable, content-addressed set of Parquet files; never the rows themselves."""

    digest: Digest
    columns: tuple[Column, ...]
    rows: int
    files: tuple[DataFile, ...]

    @property
    def user_columns(self) -> tuple[str, ...]:
        """The names of the columns that are not bqbuild's own, in order."""
        return tuple(column.name for column in self.columns if column.name not in LINEAGE_COLUMNS)


@dataclass(frozen=True, slots=True)
class Reads:
    """What a node reads of one parent: these columns (None: all of the user's), and whether row ids count."""

    columns: frozenset[str] | None
    ids: bool


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the user declared, normalised: named components, each with its digest and the place to look at.

    `components` maps a user's word (`prompt:ask`, `llm.model`, `sql`, `matrix`) to a digest; `places` maps the same
    words to where the user wrote them. The digest covers kind, semantics version and components, not places.
    """

    kind: str
    semantics: int
    components: Mapping[str, Digest]
    digest: Digest
    places: Mapping[str, Where] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a recipe's component that stands in one place: a key, a macro, an included prompt, a function.

    `digest` is of what counts, `text` what a person would look at: a value as JSON, or where `is_source`, lines of a
    file from `where` on. It is empty where it would show a secret.
    """

    digest: Digest
    text: str
    is_source: bool = False
    where: Where | None = None


@dataclass(frozen=True, slots=True)
class ReadInput:
    """The content that a build really read of one parent: which columns, ids or not, and their digest."""

    columns: tuple[str, ...]
    ids: bool
    digest: Digest


@dataclass(frozen=True, slots=True)
class Trace:
    """The recorded fact that a build key gave a table.

    `outputs` maps side names to table digests; the main table is the side "". `stats` holds what the run reported
    (rows, calls, tokens, cost, seconds): it is never content. `complete` is False while rows have no answer.
    """

    key: Digest
    node: NodeName
    kind: str
    recipe: Digest
    components: Mapping[str, Digest]
    inputs: Mapping[str, ReadInput]
    outputs: Mapping[str, Digest]
    complete: bool = True
    stats: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a reply must look like, where that is declared to be sent: a closed set of labels, or a JSON Schema."""

    choices: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request to an LLM. `params` are sampling parameters and whatever else goes into the body; `sample` counts
    the draws of an otherwise equal request from 0."""

    messages: tuple[Message, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    sample: int = 0
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What an LLM answered. Token counts are the server's; `finish_reason` is `stop`, `length`, `content_filter` …"""

    text: str
    reasoning: str = ""
    finish_reason: str = "stop"
    input_tokens: int = 0
    output_tokens: int = 0
    model: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call as the call log keeps it: the request, the reply, and what it cost (dollars) and took (seconds).

    `epoch` is the number of the attempt that asked for it again, 0 where nobody did: the highest one counts.
    """

    key: CallKey
    llm: str
    identity: Mapping[str, Any]
    request: ChatRequest
    reply: ChatReply
    cost: float = 0.0
    seconds: float = 0.0
    created: float = 0.0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """How far a batch of calls has got at its provider; written down before and after each step there.

    `token` names it here and there. `state` is `planned`, `uploaded` (`input_file` is the provider's name of the file
    of requests) or `created` (`batch` is the provider's name of the batch). `place` is the address, without secrets.
    `epoch` is that of the calls.
    """

    token: str
    llm: str
    identity: Mapping[str, Any]
    place: str
    requests: int
    created: float
    state: str = "planned"
    input_file: str = ""
    batch: str = ""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that could not be made. `answered` is False where no answer came (the next run asks again)."""

    row_id: str
    cell: str
    reason: str
    message: str
    answered: bool
    response: str = ""
    calls: tuple[str, ...] = ()
