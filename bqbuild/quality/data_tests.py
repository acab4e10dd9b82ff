"""Data tests: a test is a SELECT of the rows that are wrong, over the models' views; no row, and it passes.

Declared on models and columns (`not_null`, `unique`, `accepted_values`, `relationships`, `expression`, as in dbt), or
written as SQL in project/tests. NULL passes every test but `not_null`, as in dbt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bqbuild.config.project import Project
from bqbuild.core.errors import BqError, BuildError, ProjectError, ProjectErrors, Where, did_you_mean
from bqbuild.core.records import Node, NodeName
from bqbuild.graph.predicates import parse_predicate

if TYPE_CHECKING:
    import duckdb

FOLDER = "project/tests"

SAMPLE = 5
"""Failing rows that a result shows."""

_CALL = re.compile(r"^\s*(?:ref|source)\(\s*(.*?)\s*\)\s*$")
_COMMON_KEYS = ("name", "severity", "where", "config", "arguments", "description", "tags")


@dataclass(frozen=True, slots=True)
class DataTest:
    """One test. `node` is the model that declares it, None for one in project/tests; `reads` are the nodes
    and side tables it reads; `severity` is `error` or `warn`."""

    name: str
    node: NodeName | None
    sql: str
    severity: str
    where: Where
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TestResult:
    """What came of a test: how many rows are wrong, and some of them."""

    __test__ = False  # pytest: this is not a test

    test: DataTest
    failures: int
    sample: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    @property
    def status(self) -> str:
        """`pass`, `warn` or `fail`."""
        if not self.failures:
            return "pass"
        return "warn" if self.test.severity == "warn" else "fail"


@dataclass(frozen=True, slots=True)
class _Declared:
    """One entry of a `tests:` list, read: which test, with which arguments, on which columns."""

    node: Node
    kind: str
    arguments: Mapping[str, Any]
    common: Mapping[str, Any]
    column: str | None
    where: Where


def collect_tests(project: Project) -> list[DataTest]:
    """All tests of a project, in the order of their nodes, then those of project/tests. Raises ProjectErrors."""
    tests: list[DataTest] = []
    errors: list[BqError] = []
    names: dict[str, int] = {}
    for node in project.nodes.values():
        for column, number, entry in _entries(node):
            where = _place(node, column, number)
            with _collected(errors):
                tests.append(_compile(_read(node, column, entry, where), project, names))
    for path in sorted((project.root / FOLDER).rglob("*.sql")):
        with _collected(errors):
            tests.append(_singular(path, project, names))
    if errors:
        raise ProjectErrors(errors)
    return tests


def run_test(connection: duckdb.DuckDBPyConnection, test: DataTest) -> TestResult:
    """Run a test over the views of a connection. Raises BuildError where DuckDB does not accept it."""
    # whoever has a connection has loaded it; reading declarations must not
    import duckdb

    body = test.sql.strip().rstrip(";")
    try:
        failures = int(connection.execute(f"SELECT count(*) FROM (\n{body}\n)").fetchall()[0][0])
        if not failures:
            return TestResult(test, 0)
        sample = connection.sql(f"SELECT * FROM (\n{body}\n) ORDER BY ALL LIMIT {SAMPLE}").to_arrow_table().to_pylist()
        return TestResult(test, failures, tuple(sample))
    except duckdb.Error as error:
        message = str(error).strip().splitlines()[0]
        raise BuildError(f"test `{test.name}`: {message}", where=test.where) from error


@contextmanager
def _collected(errors: list[BqError]) -> Iterator[None]:
    """Mistakes are added to `errors`, so that all are told together."""
    try:
        yield
    except ProjectErrors as error:
        errors += error.errors
    except ProjectError as error:
        errors.append(error)


def _singular(path: Path, project: Project, names: dict[str, int]) -> DataTest:
    """A test written as SQL: its name is the file's."""
    where = Where(path.relative_to(project.root).as_posix(), 1)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"cannot be read: {error}", where=where) from error
    rendered = project.render_sql(text, where)
    reads = tuple(str(ref) for ref in rendered.refs)
    return DataTest(_numbered(path.stem, names), None, rendered.body, "error", where, reads)


def _entries(node: Node) -> list[tuple[str | None, int, Any]]:
    """Every entry of the `tests:` lists of a node: its column, its number in the list, what is written."""
    own: list[tuple[str | None, int, Any]] = [(None, number, entry) for number, entry in enumerate(node.spec.tests)]
    for column in node.spec.columns:
        own += [(column.name, number, entry) for number, entry in enumerate(column.tests)]
    return own


def _place(node: Node, column: str | None, number: int) -> Where:
    if column is None:
        keys = [f"tests.{number}", "tests"]
    else:
        index = next(index for index, known in enumerate(node.spec.columns) if known.name == column)
        keys = [f"columns.{name}{part}" for name in (column, index) for part in (f".tests.{number}", ".tests", "")]
    return next((node.places[key] for key in keys if key in node.places), node.where)


def _read(node: Node, column: str | None, entry: Any, where: Where) -> _Declared:
    given: dict[str, Any] = {}
    if isinstance(entry, str):
        kind = entry
    elif isinstance(entry, dict) and (len(entry) == 1 or set(entry) - set(_COMMON_KEYS) != set(entry)):
        kinds = [key for key in entry if key not in _COMMON_KEYS]
        if len(kinds) != 1:
            raise ProjectError("a test is one name with its arguments", where=where, hint="- unique: {columns: [a, b]}")
        kind = kinds[0]
        given = {"expression": entry[kind]} if isinstance(entry[kind], str) else dict(entry[kind] or {})
        given |= {key: value for key, value in entry.items() if key != kind}
    else:
        raise ProjectError("a test is a name, or a name with its arguments", where=where, hint="- not_null")
    if kind not in _TESTS:
        raise ProjectError(f"unknown test '{kind}'", where=where, hint=did_you_mean(kind, _TESTS) or _known())
    config = given.get("config") or {}
    common = {key: value for key, value in {**given, **config}.items() if key in _COMMON_KEYS}
    arguments = {key: value for key, value in given.items() if key not in _COMMON_KEYS}
    return _Declared(node, kind, {**arguments, **(given.get("arguments") or {})}, common, column, where)


def _known() -> str:
    return f"tests are {', '.join(_TESTS)}"


def _compile(declared: _Declared, project: Project, names: dict[str, int]) -> DataTest:
    compiler, known = _TESTS[declared.kind]
    for key in declared.arguments:
        if key not in known:
            hint = (
                did_you_mean(key, [*known, *_COMMON_KEYS]) or f"`{declared.kind}` takes {', '.join(known) or 'nothing'}"
            )
            raise ProjectError(f"unknown key '{key}' of the test '{declared.kind}'", where=declared.where, hint=hint)
    severity = str(declared.common.get("severity", "error")).lower()
    if severity not in ("error", "warn"):
        raise ProjectError(f"severity is error or warn, not '{severity}'", where=declared.where)
    rows = _quoted(declared.node.name)
    if condition := declared.common.get("where"):
        parse_predicate(str(condition), declared.where, volatile=True)
        rows = f"(SELECT * FROM {rows} WHERE {condition}\n)"
    sql, other = compiler(declared, rows)
    if other is not None and not {other, other.rpartition("__")[0]} & set(project.nodes):
        raise ProjectError(
            f"the test relates to '{other}', which does not exist",
            where=declared.where,
            hint=did_you_mean(other, project.nodes),
        )
    reads = (str(declared.node.name), *([other] if other else []))
    return DataTest(_name(declared, names), declared.node.name, sql, severity, declared.where, reads)


def _name(declared: _Declared, names: dict[str, int]) -> str:
    """The user's name, or one made of what is tested; the second of a name is `…_2`."""
    columns = [declared.column] if declared.column else _texts(declared.arguments.get("columns"))
    name = str(declared.common.get("name") or "_".join([declared.kind, str(declared.node.name), *columns]))
    return _numbered(name, names)


def _numbered(name: str, names: dict[str, int]) -> str:
    names[name] = names.get(name, 0) + 1
    return name if names[name] == 1 else f"{name}_{names[name]}"


Compiled = tuple[str, str | None]


def _not_null(declared: _Declared, rows: str) -> Compiled:
    missing = " OR ".join(f"{_quoted(name)} IS NULL" for name in _columns_of(declared))
    return f"SELECT * FROM {rows} AS tested WHERE {missing}", None


def _unique(declared: _Declared, rows: str) -> Compiled:
    columns = [_quoted(name) for name in _columns_of(declared)]
    listed = ", ".join(columns)
    present = " AND ".join(f"{column} IS NOT NULL" for column in columns)
    return (
        f"SELECT {listed}, count(*) AS times FROM {rows} AS tested WHERE {present}"
        f" GROUP BY {listed} HAVING count(*) > 1",
        None,
    )


def _accepted_values(declared: _Declared, rows: str) -> Compiled:
    (column,) = _one_column(declared)
    values = declared.arguments.get("values")
    if not isinstance(values, list) or not values:
        raise ProjectError("`accepted_values` needs a list of `values`", where=declared.where)
    accepted = ", ".join(_literal(value) for value in values)
    quoted = _quoted(column)
    return (
        f"SELECT {quoted}, count(*) AS times FROM {rows} AS tested"
        f" WHERE {quoted} IS NOT NULL AND {quoted}::VARCHAR NOT IN ({accepted}) GROUP BY {quoted}",
        None,
    )


def _relationships(declared: _Declared, rows: str) -> Compiled:
    (column,) = _one_column(declared)
    target, key = declared.arguments.get("to"), declared.arguments.get("field")
    if not isinstance(target, str) or not isinstance(key, str):
        raise ProjectError("`relationships` needs `to` and `field`", where=declared.where)
    name = _referred(target)
    quoted = _quoted(column)
    return (
        f"SELECT {quoted} FROM {rows} AS tested WHERE {quoted} IS NOT NULL AND NOT EXISTS"
        f" (SELECT 1 FROM {_quoted(name)} AS other WHERE other.{_quoted(key)} = tested.{quoted})",
        name,
    )


def _expression(declared: _Declared, rows: str) -> Compiled:
    text = declared.arguments.get("expression")
    if not isinstance(text, str):
        raise ProjectError("`expression` needs a SQL predicate", where=declared.where)
    parse_predicate(text, declared.where, volatile=True)
    return f"SELECT * FROM {rows} AS tested WHERE NOT ({text}\n)", None


def _columns_of(declared: _Declared) -> list[str]:
    columns = [declared.column] if declared.column else _texts(declared.arguments.get("columns"))
    if not columns:
        raise ProjectError(f"`{declared.kind}` of a model needs `columns`", where=declared.where)
    return columns


def _one_column(declared: _Declared) -> list[str]:
    columns = [declared.column] if declared.column else _texts(declared.arguments.get("column"))
    if len(columns) != 1:
        raise ProjectError(f"`{declared.kind}` of a model needs one `column`", where=declared.where)
    return columns


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)] if value is not None else []


def _referred(target: str) -> str:
    """The name in `ref('x')`, `source('a', 'b')` or plain `x`."""
    found = _CALL.match(target)
    if not found:
        return target
    return ".".join(part.strip().strip("'\"") for part in found.group(1).split(","))


def _literal(value: Any) -> str:
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    return "'" + text.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_TESTS: dict[str, tuple[Callable[[_Declared, str], Compiled], tuple[str, ...]]] = {
    "not_null": (_not_null, ("columns",)),
    "unique": (_unique, ("columns",)),
    "accepted_values": (_accepted_values, ("column", "values")),
    "relationships": (_relationships, ("column", "to", "field")),
    "expression": (_expression, ("expression",)),
}
