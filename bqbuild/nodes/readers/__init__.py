"""How the rows of a source's files are read: one reader a format, each a function from a file to batches of rows."""

from __future__ import annotations

from collections.abc import Mapping

from bqbuild.nodes.readers.base import Reader
from bqbuild.nodes.readers.csv_reader import read_csv
from bqbuild.nodes.readers.json_reader import read_json, read_jsonl
from bqbuild.nodes.readers.parquet_reader import read_parquet
from bqbuild.nodes.readers.text_reader import read_markdown, read_text

READERS: Mapping[str, Reader] = {
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
    "json": read_json,
    "text": read_text,
    "markdown": read_markdown,
}

TEXTUAL = frozenset({"csv"})
"""Formats whose cells are all text, so that a number is what looks like one."""
