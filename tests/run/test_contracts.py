"""`contract: enforced` and `engine` mean what they say."""

from __future__ import annotations

import pytest

from bqbuild.core.errors import ProjectError
from tests.space import Space

CONTRACT = (
    "models:\n  - {{name: clean_notes, contract: enforced, columns: {{id: string, topic: string, text: {type}}}}}\n"
)


def test_a_table_that_breaks_its_contract_is_an_error(capitals: Space) -> None:
    capitals.write("models/staging/contract.yml", CONTRACT.format(type="integer"))
    results = capitals.run("clean_notes")
    assert results["clean_notes"].status == "error"
    assert "`text` is varchar, not bigint" in results["clean_notes"].reason


def test_a_contract_declared_afterwards_is_checked_on_the_table_that_is_there(capitals: Space) -> None:
    capitals.run("clean_notes")
    capitals.write("models/staging/contract.yml", CONTRACT.format(type="string"))
    assert capitals.run("clean_notes")["clean_notes"].status == "cached"
    capitals.write("models/staging/contract.yml", CONTRACT.format(type="double"))
    assert capitals.run("clean_notes")["clean_notes"].status == "error"


def test_an_engine_that_this_release_lacks_is_an_error(capitals: Space) -> None:
    capitals.edit("project/profiles.yml", "engine: local", "engine: ray")
    with pytest.raises(ProjectError, match="engine `ray`"):
        capitals.run()
