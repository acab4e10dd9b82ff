"""The graph: order, reach, cycles."""

from __future__ import annotations

import random

import pytest

from bqbuild.config.specs import SqlSpec
from bqbuild.core.errors import ProjectError, Where
from bqbuild.core.records import Node, NodeName, Ref
from bqbuild.graph.dag import build_dag


def graph_of(edges: dict[str, str]) -> dict[NodeName, Node]:
    """Nodes from `{"child": "parent parent"}`."""
    nodes = {}
    for name, parents in edges.items():
        path = f"models/{name}.sql"
        refs = tuple(Ref(NodeName(parent)) for parent in parents.split())
        spec = SqlSpec(name=name, sql="select 1")
        nodes[NodeName(name)] = Node(NodeName(name), "sql", spec, refs, Where(path, 1), path, ("p", name))
    return nodes


DIAMOND = {"d": "b c", "b": "a", "c": "a", "a": "", "lone": ""}


def test_the_order_is_topological_and_by_name_where_the_graph_leaves_a_choice() -> None:
    assert build_dag(graph_of(DIAMOND)).order == ("a", "b", "c", "d", "lone")


def test_the_order_does_not_depend_on_the_order_of_declaration() -> None:
    items = list(DIAMOND.items())
    orders = set()
    for seed in range(10):
        random.Random(seed).shuffle(items)
        orders.add(build_dag(graph_of(dict(items))).order)
    assert len(orders) == 1


def test_parents_and_children_are_direct_and_ancestors_and_descendants_are_all() -> None:
    dag = build_dag(graph_of(DIAMOND))
    assert dag.parents[NodeName("d")] == ("b", "c")
    assert dag.children[NodeName("a")] == ("b", "c")
    assert dag.ancestors(NodeName("d")) == {"a", "b", "c"}
    assert dag.ancestors(NodeName("d"), 1) == {"b", "c"}
    assert dag.ancestors(NodeName("d"), 0) == set()
    assert dag.descendants(NodeName("a")) == {"b", "c", "d"}
    assert dag.descendants(NodeName("a"), 1) == {"b", "c"}


def test_a_node_that_reads_a_parent_twice_has_it_once() -> None:
    nodes = graph_of({"a": "", "b": "a a"})
    nodes[NodeName("c")] = Node(
        NodeName("c"),
        "sql",
        SqlSpec(name="c", sql="select 1"),
        (Ref(NodeName("a")), Ref(NodeName("a"), "rejects")),
        Where("c.sql"),
        "c.sql",
        ("p", "c"),
    )
    dag = build_dag(nodes)
    assert dag.parents[NodeName("b")] == dag.parents[NodeName("c")] == ("a",)


def test_a_cycle_is_shown_as_a_path_with_the_files() -> None:
    with pytest.raises(ProjectError) as caught:
        build_dag(graph_of({"a": "", "x": "z a", "y": "x", "z": "y", "below": "z"}))
    assert "x → y → z → x" in caught.value.message
    assert "below" not in str(caught.value)
    assert caught.value.hint is not None
    assert "y in models/y.sql" in caught.value.hint
    assert str(caught.value.where) == "models/x.sql:1"


def test_a_node_that_reads_itself_is_a_cycle() -> None:
    with pytest.raises(ProjectError, match="a → a"):
        build_dag(graph_of({"a": "a"}))


def test_a_chain_of_many_nodes_needs_no_recursion() -> None:
    edges = {f"n{i:05}": f"n{i - 1:05}" if i else "" for i in range(5000)}
    dag = build_dag(graph_of(edges))
    assert len(dag.ancestors(NodeName("n04999"))) == 4999
