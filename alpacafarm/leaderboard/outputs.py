"""`alpaca_leaderboard`: the original's call for the win rate of a file of outputs, on any judge.

    alpaca_leaderboard("outputs.json", name="My model", reference_outputs="reference.json")

Where it departs from the original: outputs meet their references by the rows' identity or place, never by
text, so no row is lost where one side has merged instruction and input; and there are no rows of other judges
beside one's own, which could not be compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpacafarm.data.annotations import Annotation, merged, read_annotations, write_annotations
from alpacafarm.data.files import located
from alpacafarm.data.tables import Row, is_missing, rows_of, text
from alpacafarm.errors import SpecError
from alpacafarm.leaderboard.entries import entries
from alpacafarm.leaderboard.files import Source
from alpacafarm.leaderboard.show import show
from alpacafarm.leaderboard.standings import as_rows, tables

# Of AlpacaFarm's 805 evaluation instructions, answered by text-davinci-003.
REFERENCES = "hf://datasets/tatsu-lab/alpaca_farm/alpaca_farm_evaluation.json"
IDENTITIES = ("id", "index")


def alpaca_leaderboard(
    path_or_all_outputs: Any,
    annotators_config: Any = None,
    name: str = "Current method",
    is_add_reference_methods: bool = False,
    is_print_metrics: bool = False,
    *,
    reference_outputs: Any = None,
    annotations: str | Path | None = None,
    annotations_path: str | Path | None = None,
    **annotator_kwargs: Any,
) -> Any:
    """A DataFrame with the win rate of a model against the references, one row under its name.

    Args:
        path_or_all_outputs: rows with `instruction` and `output` (`input`, `id` and others beside them), as a
            file, a list of dictionaries, a DataFrame or a datasets.Dataset.
        annotators_config: the judge, as for PairwiseAutoAnnotator; None is that one's default.
        is_add_reference_methods: adds nothing, and says so: the published rows have other judges.
        is_print_metrics: also print the table.
        reference_outputs: as `path_or_all_outputs`; None is AlpacaFarm's evaluation set, from the hub.
        annotations: a file of judged pairs to read in place of asking; output 2 is the model's.
        annotations_path: where the judged pairs go, as AlpacaEval's `annotations.json`.
        annotator_kwargs: of PairwiseAutoAnnotator, such as `seed`.

    Rows that got no verdict are in `n_failures`. ValueError where outputs and references do not belong
    together; a warning counts rows that met but whose instructions differ, and those without a partner.
    """
    if is_add_reference_methods:
        warnings.warn(
            "is_add_reference_methods=True adds nothing: the published rows have other judges and cannot "
            "stand in one column with yours; have their outputs judged, one call each",
            stacklevel=2,
        )
    if annotations is None:
        judged = judge_outputs(
            path_or_all_outputs, reference_outputs, annotators_config, name, annotator_kwargs
        )
    else:
        judged = of_one_model(Path(annotations))
    if annotations_path is not None:
        write_annotations(Path(annotations_path), judged)
    found = tables(entries([Source(str(annotations or "outputs"), name, judged, is_run=True)]))
    if is_print_metrics:
        from alpacafarm.report.status import console

        show(found, console())
    import pandas as pd

    frame = pd.DataFrame(as_rows(found)).set_index("name")
    return frame.drop(columns=["failures", "source"]).sort_values("win_rate", ascending=False)


def of_one_model(path: Path) -> list[Annotation]:
    """Judged pairs. SpecError where they are of several models, which one name cannot stand for."""
    rows = read_annotations(path)
    models = sorted({row.model for row in rows if row.model is not None})
    if len(models) > 1:
        raise SpecError(
            f"annotations={path}: has outputs of {len(models)} models ({', '.join(models)}), and one row of "
            "the table is asked for; name a file of one of them, or see python -m alpacafarm.leaderboard "
            f"{path}"
        )
    return rows


def judge_outputs(
    outputs: Any, references: Any, config: Any, name: str, annotator_kwargs: Any
) -> list[Annotation]:
    """The model's answers against the references'; every reference row is in what comes back."""
    from alpacafarm.annotator.pairwise import PairwiseAutoAnnotator

    met = meet(_of_alpaca_farm() if references is None else table(references), table(outputs))
    if config is not None:
        annotator_kwargs = {"annotators_config": config, **annotator_kwargs}
    annotator = PairwiseAutoAnnotator(keep_failures=True, **annotator_kwargs)
    asked = [place for place, one in enumerate(met) if one.output is not None]
    rows: list[Row] = [
        {
            "instruction": met[place].instruction,
            "input": met[place].input,
            "output_1": met[place].reference,
            "output_2": met[place].output,
            "place": place,
        }
        for place in asked
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*without a preference")  # n_failures has them
        told = {row["place"]: row for row in annotator.annotate_pairs(rows)}
    reasons = {failed.row["place"]: failed.reason for failed in annotator.failures}
    return [
        Annotation(
            row=one.row,
            place=place,
            preference=told[place]["preference"] if place in told else None,
            instruction=merged(one.instruction, one.input),
            output_1=one.reference,
            output_2=one.output,
            length_1=len(one.reference),
            length_2=None if one.output is None else len(one.output),
            baseline=one.baseline,
            model=name,
            annotator=told[place]["annotator"] if place in told else None,
            judge=annotator.judge.name,
            dataset=one.dataset,
            failure=reasons.get(place) if place in told else "no output",
        )
        for place, one in enumerate(met)
    ]


def _of_alpaca_farm() -> list[Row]:
    try:
        return table(REFERENCES)
    except SpecError as error:
        raise SpecError(
            f"reference_outputs=None: AlpacaFarm's evaluation set cannot be fetched ({REFERENCES}); pass a "
            "file of references with instruction, input, output"
        ) from error


@dataclass(frozen=True)
class Met:
    """A reference and the model's answer to the same row; `output` is None where it has no such row."""

    row: str | None
    instruction: str
    input: str
    reference: str
    output: str | None
    baseline: str
    dataset: str


def meet(references: Sequence[Row], outputs: Sequence[Row]) -> list[Met]:
    """Every reference with its output: by `id` or `index` where all rows have one, else by place."""
    column = next(
        (c for c in IDENTITIES if all(not is_missing(row.get(c)) for row in (*references, *outputs))), None
    )
    if column is None and len(references) != len(outputs):
        raise ValueError(
            f"{len(outputs)} outputs and {len(references)} references without an id cannot be told to belong "
            "together; give rows of both an id, or one output for each reference in the same order"
        )
    answers = _by_identity(outputs, column, "outputs")
    met: list[Met] = []
    differing = 0
    for identity, reference in _by_identity(references, column, "references").items():
        place = len(met)
        answer = answers.pop(identity, None)
        # Where only one side keeps the input apart, that one says more.
        told = (
            answer if answer is not None and answer.get("input") and not reference.get("input") else reference
        )
        met.append(
            Met(
                row=None if column is None else identity,
                instruction=text(told, "instruction", place),
                input=text(told, "input", place, ""),
                reference=text(reference, "output", place),
                output=None if answer is None else text(answer, "output", place),
                baseline=text(reference, "generator", place, "reference"),
                dataset=text(reference, "dataset", place, ""),
            )
        )
        differing += answer is not None and _whole(answer, place) != _whole(reference, place)
    _tell(met, differing, len(answers), by_place=column is None)
    return met


def _tell(met: Sequence[Met], differing: int, unasked: int, *, by_place: bool) -> None:
    """Counts what does not fit. Rows that met by place and mostly differ are in another order."""
    answered = sum(one.output is not None for one in met)
    if by_place and 2 * differing > answered:
        raise ValueError(
            f"{differing} of {answered} outputs have another instruction than the reference in their place; "
            "bring them into one order, or give rows of both an id"
        )
    if not answered:
        raise ValueError("no output has the id of a reference; name the outputs to these references")
    counts = {
        "outputs whose instruction is not that of their reference": differing,
        "references without an output": len(met) - answered,
        "outputs without a reference, which are left out": unasked,
    }
    found = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if found:
        warnings.warn(f"{len(met)} references: {found}", stacklevel=5)


def _by_identity(rows: Sequence[Row], column: str | None, what: str) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for place, row in enumerate(rows):
        identity = str(place if column is None else row[column])
        if identity in found:
            raise ValueError(
                f"{what}: row {place} has the {column} of an earlier row, {identity}; one is asked for"
            )
        found[identity] = row
    return found


def _whole(row: Row, place: int) -> str:
    return merged(text(row, "instruction", place), text(row, "input", place, "")).strip()


def table(given: Any) -> list[Row]:
    """Rows of a file or of a table of Python's."""
    if not isinstance(given, str | Path):
        return rows_of(given)
    rows = []
    for where, row in located(str(given)):
        if not isinstance(row, dict):
            raise SpecError(
                f"{where}: holds a {type(row).__name__}; an object with named columns is required"
            )
        rows.append(row)
    return rows
