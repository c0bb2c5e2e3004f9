"""What was made from what: the graph of stages as inline SVG, laid out in layers from the top down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from alpacafarm.report.result import StageLine, duration

BOX_WIDTH, BOX_HEIGHT = 190, 56
LANE = 26  # width kept free where an arrow passes a layer
GAP_X, GAP_Y = 22, 38
# Of a box: class, baseline, letters that fit.
LINES = (("name", 18, 22), ("facts", 33, 30), ("key", 48, 26))


@dataclass(frozen=True)
class Vertex:
    """A stage, or something that was given. `parents` are the keys of what it was made from, by role."""

    key: str
    name: str
    kind: str
    state: str
    seconds: float | None
    parents: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """Where a box, or an arrow on its way through a layer, stands: its left edge, its layer, its width."""

    x: float
    layer: int
    width: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def y(self) -> float:
        return 6 + self.layer * (BOX_HEIGHT + GAP_Y)


def vertices(stages: Sequence[StageLine], manifests: Sequence[Mapping[str, Any]]) -> list[Vertex]:
    """Every stage of the run and every input that no stage of it made, which counts as given."""
    inputs = {manifest["key"]: dict(manifest["inputs"]) for manifest in manifests}
    named = {manifest["key"]: manifest for manifest in manifests}
    found = {
        line.key: Vertex(line.key, line.name, line.kind, line.state, line.seconds, inputs.get(line.key, {}))
        for line in stages
    }
    pending = [(role, key) for vertex in found.values() for role, key in vertex.parents.items()]
    while pending:
        role, key = pending.pop(0)
        if key in found:
            continue
        known = named.get(key, {})
        state, kind = ("reused", known["kind"]) if known else ("given", "")
        found[key] = Vertex(key, known.get("stage", role), kind, state, None, inputs.get(key, {}))
        pending += found[key].parents.items()
    return list(found.values())


def lineage(stages: Sequence[StageLine], manifests: Sequence[Mapping[str, Any]]) -> str:
    """The graph as an SVG element. What a longer path implies has no arrow; titles name all inputs."""
    graph = {vertex.key: vertex for vertex in vertices(stages, manifests)}
    if not graph:
        return ""
    layer_of = _layers(graph)
    arrows = _essential(graph)
    places = _arrange(layer_of, arrows)
    width = max(place.x + place.width for place in places.values()) + 6
    height = max(place.y for place in places.values()) + BOX_HEIGHT + 6
    paths = [_arrow(_route(parent, child, layer_of), places) for parent, child in arrows]
    boxes = [_box(vertex, places[key,], graph) for key, vertex in graph.items()]
    return (
        f'<svg role="img" aria-label="Lineage" class="lineage" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" xmlns="http://www.w3.org/2000/svg">'
        f'<g class="arrows">{"".join(paths)}</g>{"".join(boxes)}</svg>'
    )


Spot = tuple[str] | tuple[str, str, int]  # a box by its key, or an arrow (parent, child) in a layer it passes


def _layers(graph: Mapping[str, Vertex]) -> dict[str, int]:
    """The longest way from a source; a source itself stands just above the first stage that uses it."""
    depth: dict[str, int] = {}

    def of(key: str) -> int:
        if key not in depth:
            depth[key] = max((of(parent) + 1 for parent in graph[key].parents.values()), default=0)
        return depth[key]

    for key in graph:
        of(key)
    for key, vertex in graph.items():
        users = [depth[other.key] for other in graph.values() if key in other.parents.values()]
        if not vertex.parents and users:
            depth[key] = min(users) - 1
    return depth


def _essential(graph: Mapping[str, Vertex]) -> list[tuple[str, str]]:
    """The arrows without those that a longer path implies."""

    def ancestors(key: str) -> set[str]:
        parents = set(graph[key].parents.values())
        return parents.union(*(ancestors(parent) for parent in parents))

    arrows = []
    for child, vertex in graph.items():
        parents = list(dict.fromkeys(vertex.parents.values()))
        implied = set[str]().union(*(ancestors(parent) for parent in parents))
        arrows += [(parent, child) for parent in parents if parent not in implied]
    return arrows


def _route(parent: str, child: str, layer_of: Mapping[str, int]) -> list[Spot]:
    between = range(layer_of[parent] + 1, layer_of[child])
    return [(parent,), *((parent, child, layer) for layer in between), (child,)]


def _arrange(layer_of: Mapping[str, int], arrows: Sequence[tuple[str, str]]) -> dict[Spot, Place]:
    """Layers from the top, each ordered by the mean place of what its spots come from, each centred."""
    layers: list[list[Spot]] = [[] for _ in range(max(layer_of.values()) + 1)]
    above: dict[Spot, list[Spot]] = {}
    below: dict[Spot, list[Spot]] = {}
    for key, layer in layer_of.items():
        layers[layer].append((key,))
    for parent, child in arrows:
        route = _route(parent, child, layer_of)
        for spot in route[1:-1]:
            layers[spot[2]].append(spot)  # type: ignore[misc]
        for upper, lower in pairwise(route):
            above.setdefault(lower, []).append(upper)
            below.setdefault(upper, []).append(lower)
    places: dict[Spot, Place] = {}
    for layer, spots in enumerate(layers):
        _place_layer(places, layer, dict.fromkeys(spots, 0.0))
    for neighbours, order in ((above, 1), (below, -1)) * 3:
        for layer, spots in list(enumerate(layers))[::order]:
            wanted = {spot: _mean(places, neighbours.get(spot, [spot])) for spot in spots}
            spots.sort(key=wanted.__getitem__)
            _place_layer(places, layer, {spot: wanted[spot] for spot in spots})
    left = min(place.x for place in places.values()) - 6
    return {spot: Place(place.x - left, place.layer, place.width) for spot, place in places.items()}


def _place_layer(places: dict[Spot, Place], layer: int, wanted: Mapping[Spot, float]) -> None:
    """As near to the wanted middles as the order and the gaps allow, none favoured."""
    free, placed = -math.inf, {}
    for spot, middle in wanted.items():
        width = BOX_WIDTH if len(spot) == 1 else LANE
        placed[spot] = Place(max(middle - width / 2, free), layer, width)
        free = placed[spot].x + width + GAP_X
    pushed = sum(placed[spot].middle - middle for spot, middle in wanted.items()) / max(len(wanted), 1)
    for spot, place in placed.items():
        places[spot] = Place(place.x - pushed, layer, place.width)


def _mean(places: Mapping[Spot, Place], spots: Sequence[Spot]) -> float:
    return sum(places[spot].middle for spot in spots) / len(spots)


def _arrow(route: Sequence[Spot], places: Mapping[Spot, Place]) -> str:
    start = places[route[0]]
    x, y = start.middle, start.y + BOX_HEIGHT
    path = f"M{x:.1f} {y:.1f}"
    for spot in route[1:]:
        place = places[spot]
        to, half = place.middle, (place.y - y) / 2
        path += f" C{x:.1f} {y + half:.1f} {to:.1f} {place.y - half:.1f} {to:.1f} {place.y:.1f}"
        x, y = to, place.y
        if len(spot) > 1:
            y += BOX_HEIGHT
            path += f" V{y:.1f}"
    tip = f"M{x - 4:.1f} {y - 7:.1f} L{x:.1f} {y:.1f} L{x + 4:.1f} {y - 7:.1f}"
    return f'<path d="{path} {tip}" fill="none" stroke="currentColor"/>'


def _box(vertex: Vertex, place: Place, graph: Mapping[str, Vertex]) -> str:
    made_from = ", ".join(f"{role}: {graph[key].name}" for role, key in vertex.parents.items())
    facts = [vertex.kind, vertex.state, duration(vertex.seconds) if vertex.seconds is not None else ""]
    lines = [vertex.name, " \u00b7 ".join(fact for fact in facts if fact), vertex.key]
    x = f"{place.x + 10:.1f}"
    texts = "".join(
        f'<text class="{role}" x="{x}" y="{place.y + down}">{escape(_short(line, letters))}</text>'
        for (role, down, letters), line in zip(LINES, lines, strict=True)
    )
    title = escape(f"{vertex.name}, made from {made_from}" if made_from else vertex.name)
    size = f'width="{place.width}" height="{BOX_HEIGHT}" rx="6"'
    frame = f'<rect x="{place.x:.1f}" y="{place.y}" {size}/>'
    return f'<g class="stage {escape(vertex.state)}"><title>{title}</title>{frame}{texts}</g>'


def _short(line: str, letters: int) -> str:
    return line if len(line) <= letters else line[: letters - 1] + "\u2026"
