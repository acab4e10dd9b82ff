"""The table of the rows that could not be made: `<model>__errors`."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from bqbuild.core.ids import row_id
from bqbuild.core.records import CALLS, ID, PARENT, ROOTS, RowError, Table
from bqbuild.store.base import Tables

ERRORS_SCHEMA = pa.schema(
    [
        ("cell", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("answered", pa.bool_()),
        ("response", pa.string()),
        (ID, pa.string()),
        (PARENT, pa.string()),
        (CALLS, pa.list_(pa.string())),
        (ROOTS, pa.list_(pa.string())),
    ]
)
"""`_bq_parent` is the input row; `answered` is false where no answer came, so that the next run asks again."""


def errors_table(errors: Sequence[RowError]) -> pa.Table:
    """The errors as Arrow rows of `ERRORS_SCHEMA`."""
    rows = [
        {
            "cell": error.cell,
            "reason": error.reason,
            "message": error.message,
            "answered": error.answered,
            "response": error.response,
            ID: row_id("error", error.row_id, error.cell, number),
            PARENT: error.row_id,
            CALLS: list(error.calls),
            ROOTS: [],
        }
        for number, error in enumerate(errors)
    ]
    return pa.Table.from_pylist(rows, schema=ERRORS_SCHEMA)


def write_errors(tables: Tables, errors: Sequence[RowError]) -> Table:
    """Store the errors; in an order of their own, so that equal errors are an equal table."""
    ordered = sorted(errors, key=lambda error: (error.row_id, error.cell, error.reason, error.message, error.response))
    writer = tables.writer(ERRORS_SCHEMA)
    writer.write(errors_table(ordered))
    return writer.commit()
