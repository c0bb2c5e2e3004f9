"""The report of a run: one HTML file that needs no other file and no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from alpacafarm.artifacts.files import write_aside
from alpacafarm.report import plots, table
from alpacafarm.report.lineage import lineage
from alpacafarm.report.result import Measure, Reading, Result, duration, measures, number
from alpacafarm.report.table import Sample

TEMPLATE = "template.html.j2"
# `throughput` of a manifest: computed tokens, padding included, for each real one.
COMPUTED = "computed_per_real_token"


@dataclass(frozen=True)
class RunReport:
    """What the report is made from: values only, read by the caller.

    `manifests` are the `artifact.json` of the run's stages and of what they build on, `logs` the rows of
    `log.jsonl` by stage name.
    """

    result: Result
    manifests: Sequence[Mapping[str, Any]] = ()
    logs: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)
    reading: Reading = field(default_factory=Reading)


@dataclass(frozen=True)
class StageRow:
    """A line of the stage table, as text."""

    name: str
    key: str
    kind: str
    state: str
    time: str
    tokens_per_second: str
    samples_per_second: str
    computed_per_token: str
    memory: str
    phases: str
    went_on: str
    made_from: str
    folder: str


def report_html(run: RunReport) -> str:
    """The page. Everything that people or models wrote is escaped."""
    result, rows = run.result, measures(run.result, run.reading)
    logs = {name: plots.curves(log, title=f"Training curves of {name}") for name, log in run.logs.items()}
    return page(
        TEMPLATE,
        result=result,
        title=table.title(result),
        headlines=headlines(result, rows),
        rows=[row for row in rows if row.value is not None],
        notes=table.notes(result, run.reading),
        reading=run.reading,
        meanings=meanings(result, run.reading),
        rates=Markup(plots.intervals(rows)),
        curves={name: Markup(drawing) for name, drawing in logs.items() if drawing},
        samples=run.samples,
        lineage=Markup(lineage(result.stages, run.manifests)),
        stages=stage_rows(run),
        spec=json.dumps(run.spec, indent=2, ensure_ascii=False, default=str),
        versions=versions(run),
        seconds=duration(result.seconds),
    )


def page(template: str, **values: Any) -> str:
    """A page from one of this package's templates. Everything is escaped that is not Markup."""
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = table.printable
    made = environment.get_template(template).render(**values)
    return made.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair, from a cut answer


def _template(name: str) -> str:
    return files("alpacafarm.report").joinpath(name).read_text(encoding="utf-8")


def write_report(path: Path, run: RunReport) -> None:
    """Writes the page aside and renames it: whoever opens `path` sees a whole report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, report_html(run))


def headlines(result: Result, rows: Sequence[Measure]) -> list[Measure]:
    """The two or three numbers that answer the question of the run."""
    first = ("win rate vs reference", "gold vs SFT", "win rate vs SFT", "proxy reward")
    present = {row.label: row for row in rows if row.value is not None}
    return [present[label] for label in first if label in present][:3]


def meanings(result: Result, reading: Reading) -> dict[str, str]:
    """What the words of the result table stand for, in this run."""
    judged = result.eval
    found = {
        "Win rate": "Percent of instructions on which the judge prefers the policy's output; 50 is no "
        "difference. A tie counts one half; comparisons without a verdict are left out."
    }
    if judged:
        found["Judge"] = f"{judged.judge}. Numbers of different judges are not comparable."
        found["Reference"] = f"{judged.reference}: the outputs that the policy is compared with."
    if judged and judged.length_controlled_win_rate is not None:
        found["Length-controlled"] = (
            "The win rate that a regression on the difference in length predicts for answers as long as the "
            "references (Dubois et al. 2024)."
        )
    found["Standard error"] = "Over instructions. It says nothing about other seeds of training."
    if result.gold:
        found["Gold"] = (
            "The embedded world's true preference, by rules that no trained model sees. Where the judge's "
            "win rate rises and gold falls, the policy exploits its judge."
        )
    if result.gold and result.gold.null:
        found["Null"] = "SFT sampled again and compared with SFT: what a policy that learned nothing gets."
    if result.reward_model_score is not None:
        found["Proxy reward"] = "The reward model's mean score of the evaluated outputs."
    if result.kl_to_sft is not None:
        found["KL to SFT"] = (
            f"Nats per response, estimated with {reading.kl_estimator} on sampled responses: how far the "
            "policy moved away from SFT."
        )
    if reading.fidelity:
        explained = {
            "corrected": "what the papers say",
            "published": "the original release, its quirks included",
        }
        found["Fidelity"] = f"{reading.fidelity}: {explained.get(reading.fidelity, 'see the spec')}."
    if judged and judged.avg_length is not None:
        found["Length"] = "Mean characters of an output. Judges like length, so read win rates beside it."
    return found


def stage_rows(run: RunReport) -> list[StageRow]:
    manifests = {manifest["key"]: manifest for manifest in run.manifests}
    names = {key: manifest["stage"] for key, manifest in manifests.items()}
    names |= {line.key: line.name for line in run.result.stages}
    found = []
    for line in run.result.stages:
        manifest = manifests.get(line.key, {})
        speed = manifest.get("throughput") or {}
        spent, inputs = speed.get("seconds") or {}, manifest.get("inputs") or {}
        found.append(
            StageRow(
                name=line.name,
                key=line.key,
                kind=line.kind,
                state=line.state,
                time=duration(line.seconds),
                tokens_per_second=_count(speed.get("tokens_per_second")),
                samples_per_second=number(speed.get("samples_per_second"), 1),
                computed_per_token=number(speed.get(COMPUTED), 2),
                memory=_memory(speed.get("peak_memory_bytes")),
                phases=", ".join(f"{phase} {duration(s)}" for phase, s in spent.items()),
                went_on="; ".join(f"went on from {how}" for how in line.went_on),
                made_from=", ".join(f"{role}: {names.get(key, key)}" for role, key in inputs.items()),
                folder=line.folder,
            )
        )
    return found


def versions(run: RunReport) -> dict[str, str]:
    """Of every library that made a stage; several, where stages were made at different times."""
    found: dict[str, list[str]] = {"alpacafarm (this report)": [run.result.version]}
    for manifest in run.manifests:
        for library, version in manifest.get("versions", {}).items():
            known = found.setdefault(library, [])
            if str(version) not in known:
                known.append(str(version))
    return {library: ", ".join(known) for library, known in found.items()}


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _memory(size: float | None) -> str:
    if size is None:
        return "-"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
