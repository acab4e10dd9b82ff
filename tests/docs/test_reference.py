"""The reference says what the code says."""

from __future__ import annotations

import pytest

from tests.docs.meanings import MEANINGS
from tests.docs.reference import FOLDER, documented, pages


@pytest.mark.parametrize("name", ["cli.md", "yaml.md"])
def test_the_reference_is_what_the_code_gives(name: str) -> None:
    again = "run `.venv/bin/python -m tests.docs.reference` and commit what it writes"
    assert (FOLDER / name).read_text("utf-8") == pages()[name], again


def test_every_key_has_a_meaning_and_no_meaning_is_left_over() -> None:
    assert set(MEANINGS) == documented()
