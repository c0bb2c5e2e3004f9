"""What a row takes beyond what it shares with others."""

from collections.abc import Sequence
from pathlib import Path

from alpacafarm.artifacts import manifest
from alpacafarm.errors import ArtifactError
from alpacafarm.table2.runs import Outcome, Planned


def seconds_alone(outcomes: Sequence[Outcome]) -> dict[Path, float]:
    """By run folder the time in the row's own stages, as their artifacts tell, where these are not gone."""
    own = own_stages([outcome.planned for outcome in outcomes])
    found = {}
    for outcome in outcomes:
        folder = outcome.planned.folder
        stages = outcome.result.stages if outcome.result else ()
        places = [Path(stage.folder) for stage in stages if stage.key in own[folder]]
        try:
            found[folder] = sum(manifest.read(place).manifest.seconds for place in places)
        except ArtifactError:
            continue
    return found


def own_stages(items: Sequence[Planned]) -> dict[Path, set[str]]:
    """By run folder the keys of the stages that no other row of its seed needs.

    What the row is about, its policy and its scores, counts even where others build on it.
    """
    users: dict[tuple[int, str], set[str]] = {}
    for item in items:
        for stage in item.job.plan.stages:
            users.setdefault((item.seed, stage.key), set()).add(item.row.name)
    found = {}
    for item in items:
        plan = item.job.plan
        about = {plan.candidate.key} | ({plan.scores.key} if plan.scores else set())
        found[item.folder] = about | {s.key for s in plan.stages if len(users[item.seed, s.key]) == 1}
    return found
