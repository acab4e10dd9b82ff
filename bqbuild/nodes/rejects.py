"""The rejects of a filter, `<model>__rejects`: the rows that were dropped, with the rule that spoke and its reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from bqbuild.core.records import LINEAGE_COLUMNS
from bqbuild.nodes.survivors import Survivors

RULE = "_bq_rule"
REASON = "_bq_reason"


def rejects_schema(schema: pa.Schema) -> pa.Schema:
    """The columns of the rejects of rows of `schema`: the user's, the rule and the reason, then the lineage's."""
    fields = [field for field in schema if field.name not in (RULE, REASON)]
    user = [field for field in fields if field.name not in LINEAGE_COLUMNS]
    own = [field for field in fields if field.name in LINEAGE_COLUMNS]
    return pa.schema([*user, pa.field(RULE, pa.string()), pa.field(REASON, pa.string()), *own])


def rejects_of(rows: Survivors, rules: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows that rules, named by number in `rules`, have dropped."""
    schema = rejects_schema(rows.schema)
    names = np.array(rules, dtype=object)
    for numbers, reasons, batch in rows.rejected():
        said = {RULE: pa.array(names[numbers], pa.string()), REASON: reasons}
        columns = [said[field.name] if field.name in said else batch.column(field.name) for field in schema]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
