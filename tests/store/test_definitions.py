"""Definitions: what recipes were made of is found again, and losing it harms nobody."""

from __future__ import annotations

import logging

import pytest

from bqbuild.core.hashing import digest
from bqbuild.core.records import Part
from bqbuild.store.base import Store

RECIPE = digest("recipe")
PARTS = {
    "prompt:ask/body": Part(digest("a"), "Ask\nabout {{ topic }}", True),
    "params/seed": Part(digest(1), "1"),
    "params/key": Part(digest(2), ""),
}


def test_the_parts_of_a_recipe_are_found_again_as_they_were_first_put(store: Store) -> None:
    assert store.definitions.find(RECIPE) is None
    store.definitions.put(RECIPE, PARTS)
    store.definitions.put(RECIPE, {})
    assert store.definitions.find(RECIPE) == PARTS


def test_a_damaged_definition_is_as_good_as_none_and_is_put_again(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.definitions.put(RECIPE, PARTS)
    path = store.scratch.parent / "definitions" / RECIPE[:2] / f"{RECIPE}.json"
    path.write_bytes(path.read_bytes().replace(b"topic", b"tropic"))
    with caplog.at_level(logging.WARNING):
        assert store.definitions.find(RECIPE) is None
    assert "is damaged" in caplog.text
    store.definitions.put(RECIPE, PARTS)
    assert store.definitions.find(RECIPE) == PARTS
