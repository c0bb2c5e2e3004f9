import xml.etree.ElementTree as ET
from itertools import combinations

import pytest

from alpacafarm.report import lineage as module
from alpacafarm.report.lineage import lineage, vertices
from alpacafarm.report.result import StageLine


def stage(name: str) -> StageLine:
    return StageLine(name, name, "policy", "made", 1.0, f"store/{name}")


def manifest(name: str, *parents: str) -> dict:
    return {"key": name, "stage": name, "kind": "policy", "inputs": {f"from {p}": p for p in parents}}


CHAIN = [manifest("a"), manifest("b", "a"), manifest("c", "a", "b"), manifest("d", "c", "a")]


def graph_of(manifests):
    return {v.key: v for v in vertices([stage(m["key"]) for m in manifests], manifests)}


def test_every_stage_has_a_box_with_name_state_seconds_and_key(result, manifests):
    texts = {"".join(node.itertext()) for node in ET.fromstring(lineage(result.stages, manifests)).iter()}
    for line in result.stages:
        assert {line.name, line.key} <= texts
    assert "reward \u00b7 resumed \u00b7 51 s" in texts


def test_an_input_that_no_stage_made_is_drawn_as_given():
    found = {v.key: v.state for v in vertices([stage("b")], [manifest("b", "a")])}
    assert found == {"b": "made", "a": "given"}


def test_an_input_known_to_the_store_keeps_its_name_and_its_parents():
    found = {v.key: (v.name, v.state) for v in vertices([stage("c")], CHAIN)}
    assert found == {"c": ("c", "made"), "a": ("a", "reused"), "b": ("b", "reused")}


def test_arrows_that_a_longer_path_implies_are_left_out():
    assert module._essential(graph_of(CHAIN)) == [("a", "b"), ("b", "c"), ("c", "d")]


def test_every_stage_stands_below_what_it_was_made_from(result, manifests):
    graph = {v.key: v for v in vertices(result.stages, manifests)}
    layers = module._layers(graph)
    assert all(layers[p] < layers[key] for key, v in graph.items() for p in v.parents.values())


@pytest.mark.parametrize("width", [1, 4])
def test_boxes_and_lanes_do_not_overlap(result, manifests, width):
    wide = [manifest(f"s{i}") for i in range(width)] + [
        manifest("end", "c", *(f"s{i}" for i in range(width)))
    ]
    graph = {v.key: v for v in vertices(result.stages, manifests)} | graph_of([*CHAIN, *wide])
    places = module._arrange(module._layers(graph), module._essential(graph)).values()
    for one, other in combinations(places, 2):
        if one.layer == other.layer:
            assert one.x + one.width < other.x or other.x + other.width < one.x


def test_layout_depends_on_the_graph_alone(result, manifests):
    assert lineage(result.stages, manifests) == lineage(result.stages, manifests)


def test_names_are_escaped():
    svg = lineage([StageLine("<b>&", "k", "policy", "made", 1.0, "")], [])
    assert "<b>" not in svg
    assert "&lt;b&gt;&amp;" in svg


def test_no_stages_give_no_drawing():
    assert lineage([], []) == ""
