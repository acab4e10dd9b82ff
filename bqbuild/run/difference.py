"""What differs between two versions of environments: model by model, down to rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bqbuild.core.hashing import Digest
from bqbuild.core.records import NodeName, Table
from bqbuild.run.comparison import RowChanges, compare_rows
from bqbuild.run.session import Session
from bqbuild.run.versions import Version
from bqbuild.store.base import Store

SAME, CHANGED, ADDED, REMOVED, GONE = "same", "changed", "added", "removed", "gone"


@dataclass(frozen=True, slots=True)
class ModelChange:
    """A model, or one of its side tables, on both sides. `status` is `added` or `removed` where one side alone has it,
    `gone` where a table is no longer in the store. Columns are maps from names to types."""

    name: str
    kind: str
    status: str
    rows_before: int | None = None
    rows_after: int | None = None
    rows: RowChanges | None = None
    columns_added: Mapping[str, str] = field(default_factory=dict)
    columns_removed: Mapping[str, str] = field(default_factory=dict)
    columns_retyped: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """The form that `diff --json` prints."""
        rows = self.rows or RowChanges(0, 0)
        return {
            "name": self.name,
            "kind": self.kind,
            "status": self.status,
            "rows": {"before": self.rows_before, "after": self.rows_after},
            "added": rows.added,
            "removed": rows.removed,
            "changed": rows.changed,
            "columns": dict(rows.columns),
            "matched_by": "id" if rows.by_id else "content",
            "schema": {
                "added": dict(self.columns_added),
                "removed": dict(self.columns_removed),
                "retyped": {name: {"before": old, "after": new} for name, (old, new) in self.columns_retyped.items()},
            },
            "samples": {
                "added": list(rows.samples.added),
                "removed": list(rows.samples.removed),
                "changed": [{"before": old, "after": new} for old, new in rows.samples.changed],
            },
        }


def compare_versions(
    session: Session, before: Version, after: Version, names: Sequence[NodeName] | None, *, samples: int
) -> Iterator[ModelChange]:
    """Every table of the models on either side, in the order of the graph; `names` None means all but sources.

    Raises StoreError.
    """
    order = {name: number for number, name in enumerate(session.dag.order)}
    both = {**before.pointers, **after.pointers}
    for name in sorted(both, key=lambda each: (order.get(each, len(order)), each)):
        node = session.project.nodes.get(name)
        kind = node.kind if node is not None else _kind(session.store, both[name].trace)
        if name not in names if names is not None else kind == "source":
            continue
        old = before.pointers[name].tables if name in before.pointers else {}
        new = after.pointers[name].tables if name in after.pointers else {}
        for side in dict.fromkeys((*new, *old)):
            shown = f"{name}__{side}" if side else str(name)
            if side in old and side in new and old[side] == new[side]:
                yield _same(shown, kind, session.store.tables.find(new[side]))
                continue
            tables = [session.store.tables.find(each[side]) if side in each else None for each in (old, new)]
            if (side in old and tables[0] is None) or (side in new and tables[1] is None):
                yield ModelChange(shown, kind, GONE)
            else:
                yield _change(session.store, shown, kind, tables[0], tables[1], samples)


def _same(name: str, kind: str, table: Table | None) -> ModelChange:
    """Equal digests: nothing is read."""
    rows = table.rows if table is not None else None
    return ModelChange(name, kind, SAME, rows, rows)


def _kind(store: Store, trace: Digest) -> str:
    """The kind of a model that the project no longer has."""
    found = store.traces.find([trace])
    return found[trace].kind if trace in found else ""


def _change(store: Store, name: str, kind: str, before: Table | None, after: Table | None, samples: int) -> ModelChange:
    if before is None or after is None:
        status = ADDED if before is None else REMOVED
        return ModelChange(
            name,
            kind,
            status,
            before.rows if before else None,
            after.rows if after else None,
            RowChanges(after.rows if after else 0, before.rows if before else 0),
        )
    old = {column.name: column.type for column in before.columns if column.name in before.user_columns}
    new = {column.name: column.type for column in after.columns if column.name in after.user_columns}
    common = [column for column in new if column in old]
    return ModelChange(
        name,
        kind,
        CHANGED,
        before.rows,
        after.rows,
        compare_rows(store, before, after, common, samples=samples),
        {column: new[column] for column in new if column not in old},
        {column: old[column] for column in old if column not in new},
        {column: (old[column], new[column]) for column in common if old[column] != new[column]},
    )
