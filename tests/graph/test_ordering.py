from __future__ import annotations

import pytest

from bqbuild.core.errors import ProjectError, Where
from bqbuild.graph.ordering import check_order


@pytest.mark.parametrize("text", ["score", "score DESC, length(answer) NULLS LAST", 'meta.n, "odd name" ASC -- first'])
def test_expressions_over_a_row_are_an_order(text: str) -> None:
    check_order(text)


@pytest.mark.parametrize(
    "text", ["", "n LIMIT 1", "n)", "n; DROP TABLE x", "(SELECT 1)", "random()", "now() - made", "n WHERE true"]
)
def test_anything_else_is_an_error_with_its_place(text: str) -> None:
    with pytest.raises(ProjectError) as raised:
        check_order(text, Where("models/m.yml", 3))
    assert str(raised.value.where).startswith("models/m.yml:3")
