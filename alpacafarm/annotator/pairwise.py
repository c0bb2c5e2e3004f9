"""`PairwiseAutoAnnotator`: the original's Python API for preferences (tatsu-lab/alpaca_farm), on any judge.

    annotator = PairwiseAutoAnnotator()          # alpaca-eval's GPT-4 annotator, on OPENAI_API_KEY
    annotator.annotate_pairs(rows)               # rows with `preference` and `annotator`

Where it departs from the original: failed rows are not lost but stand in `failures`; one instruction's pairs
are independent; swapping the outputs mirrors the preference, also that of a coin; nothing is joined by text
where rows have ids.
"""

import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alpacafarm.annotator.alone import client_alone, judge_alone
from alpacafarm.annotator.config import Config, api_spec, judge_spec
from alpacafarm.data.tables import Row, joined, key_of, rows_of, text
from alpacafarm.ports import Judge
from alpacafarm.stage import content_key
from alpacafarm.stats.noise import check_flip_probability, flips
from alpacafarm.stats.pairs import derangement_pairs
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import Pair, Verdict

COIN = "coin"  # the annotator of a label that noise has drawn, as in `pairs.jsonl`
OUTPUTS = ("output_1", "output_2")


@dataclass(frozen=True)
class Failed:
    """A row that got no preference, as it came in, and why."""

    row: Row
    reason: str


class PairwiseAutoAnnotator:
    """Says which of two outputs is better.

    Args:
        annotators_config: a judge. The name of a preset (`conf/feedback/judge`) or of one of alpaca-eval's
            annotators, the path of a YAML file with a judge's keys, or these as a mapping.
        seed: of noise, order and who of a pool reads what; None is 0. The same seed gives the same labels.
        p_label_flip: see `set_noise`.
        model: asked in place of the judge's own one.
        store: the folder that keeps paid answers; runs with this store share them.
        max_usd, max_calls: what this annotator may spend at most; None is no cap. BudgetError at the cap.
        api: where models are asked: a preset (`conf/api`), the path of a YAML file, or a mapping.
        keep_failures: rows without a verdict come back too, with a `preference` of None.

    `failures` has the rows of the last call that got no preference; each call also warns of them.
    """

    def __init__(
        self,
        annotators_config: Config = "alpaca_eval_gpt4",
        seed: int | None = None,
        p_label_flip: float | None = None,
        *,
        model: str | None = None,
        store: str | Path = "store",
        max_usd: float | None = None,
        max_calls: int | None = None,
        api: Config = "openai",
        input_keys: Sequence[str] = ("instruction", "input"),
        output_keys: Sequence[str] = OUTPUTS,
        keep_failures: bool = False,
    ) -> None:
        self.seed = 0 if seed is None else seed
        self.spec = judge_spec(annotators_config, seed=self.seed, model=model)
        self.client = client_alone(api_spec(api), Path(store), max_usd=max_usd, max_calls=max_calls)
        weakref.finalize(self, self.client.close)
        self.input_keys = _columns_named("input_keys", input_keys)
        self.output_keys = _columns_named("output_keys", output_keys, count=2)
        self.keep_failures = keep_failures
        self.failures: list[Failed] = []
        self.set_noise(p_label_flip)

    @cached_property
    def judge(self) -> Judge:
        """Loads what the judge needs at its first use."""
        return judge_alone(self.spec, self.client, seed=self.seed)

    def set_noise(self, p_label_flip: float | None) -> None:
        """From now on labels are flipped with this probability, at most one half; None is zero.

        With twice the probability a row gets a fair coin instead of the judge's label (and is never sent to
        the judge), as in the original and in `feedback.flip_probability`.
        """
        self.p_label_flip = check_flip_probability(p_label_flip or 0.0)

    def annotate_pairs(self, to_annotate: Any) -> list[Row]:
        """The rows with `preference` (1, 2; 1.5 a tie; between them a probability), `annotator` and
        `price_per_example` (USD).

        Rows need `instruction`, `output_1` and `output_2`; `input` and any other column may stand beside.
        Rows of equal outputs are ties that nobody is asked about. ValueError names a malformed row.
        """
        self.failures = []
        return self._annotated(rows_of(to_annotate))

    def annotate_samples(
        self,
        all_outputs: Any,
        keys_to_sample_output_2: Sequence[str] | None = None,
        is_unique_instructions: bool = True,
        p_label_flip: float | None = None,
        is_multisample_list: bool = True,
    ) -> list[Row]:
        """Pairs of one model's samples, annotated; `sample_id` is the place of output 1 among its samples.

        Equal samples count once; each is compared with another one of its instruction, by a random
        derangement. An instruction whose samples are all equal, or that has none, gives no pair and is among
        the `failures`.

        Args:
            all_outputs: rows whose `output` is a list of samples, or one row for each sample
                (`is_multisample_list=False`).
            keys_to_sample_output_2: the columns that rows of one instruction share; `input_keys` if None.
            is_unique_instructions: only the first pair of each instruction.
            p_label_flip: in place of the annotator's own for this call.
        """
        self.failures = []
        rows = rows_of(all_outputs)
        samples = rows
        if is_multisample_list:
            listed = [_samples(row, place) for place, row in enumerate(rows)]
            samples = [one for some in listed for one in some]
            silent = [row for row, some in zip(rows, listed, strict=True) if not some]
            self.failures += [Failed(row, "no pair: there are no samples") for row in silent]
        groups: dict[tuple[Any, ...], list[Row]] = {}
        for row in samples:
            groups.setdefault(key_of(row, keys_to_sample_output_2 or self.input_keys), []).append(row)
        pairs: list[Row] = []
        for key, group in groups.items():
            pairs += self._paired(key, group, first_only=is_unique_instructions)
        noise = self.p_label_flip
        try:
            self.set_noise(noise if p_label_flip is None else p_label_flip)
            return self._annotated(pairs)
        finally:
            self.set_noise(noise)

    def annotate_head2head(
        self,
        outputs_1: Any,
        outputs_2: Any,
        keys_to_merge: Sequence[str] = ("instruction", "input"),
        is_ordered: bool = False,
    ) -> list[Row]:
        """Two models' outputs compared, row by row; `output_1` is the first model's.

        Rows are joined by their place (`is_ordered=True`), by `id` where all have one, else by
        `keys_to_merge`. Rows without a partner are among the `failures`; ValueError for duplicates.
        """
        self.failures = []
        found = joined(outputs_1, outputs_2, keys=tuple(keys_to_merge), in_order=is_ordered)
        self.failures += [Failed(row, f"unmatched: only in outputs_{number}") for number, row in found.alone]
        return self._annotated(found.rows)

    def _paired(self, key: Sequence[Any], group: Sequence[Row], *, first_only: bool) -> list[Row]:
        outputs = [text(row, "output", place) for place, row in enumerate(group)]
        places = derangement_pairs(outputs, stable_seed("samples", self.seed, *map(str, key)))
        if not places:
            self.failures.append(Failed(group[0], "no pair: all samples of the instruction are equal"))
        return [
            {c: v for c, v in group[i].items() if c != "output"}
            | dict(zip(self.output_keys, (outputs[i], outputs[j]), strict=True))
            | {"sample_id": group[i].get("sample_id", i)}
            for i, j in (places[:1] if first_only else places)
        ]

    def _annotated(self, rows: Sequence[Row]) -> list[Row]:
        pairs = [self._pair(row, place) for place, row in enumerate(rows)]
        verdicts = {i: coin for i, pair in enumerate(pairs) if (coin := self._coin(pair)) is not None}
        asked = [i for i in range(len(pairs)) if i not in verdicts]
        if asked:
            told = self.judge.compare([pairs[i] for i in asked])
            verdicts |= dict(zip(asked, told, strict=True))
        failed = [i for i in range(len(rows)) if verdicts[i].preference is None]
        self.failures += [Failed(rows[i], str(verdicts[i].failure)) for i in failed]
        self._warn()
        return [
            row | _columns(verdicts[i])
            for i, row in enumerate(rows)
            if self.keep_failures or verdicts[i].preference is not None
        ]

    def _pair(self, row: Row, place: int) -> Pair:
        instruction, *others = self.input_keys
        given = "\n\n".join(filter(None, (text(row, column, place, "") for column in others)))
        output_1, output_2 = (text(row, column, place) for column in self.output_keys)
        return Pair(str(place), text(row, instruction, place), given, output_1, output_2)

    def _coin(self, pair: Pair) -> Verdict | None:
        """The label that noise draws, if it does: of the pair, whichever output comes first."""
        lower, higher = sorted((pair.output_1, pair.output_2))
        if lower == higher:
            return Verdict(1.5, "equal")
        (fate,) = flips(
            [content_key([pair.instruction, pair.input, lower, higher])], self.p_label_flip, self.seed
        )
        if fate.coin is None:
            return None
        return Verdict(float(fate.coin if pair.output_1 == lower else 3 - fate.coin), COIN)

    def _warn(self) -> None:
        """Of what got no preference, by reason."""
        reasons = [one.reason.partition(":")[0] for one in self.failures]
        if reasons:
            counts = ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))
            warnings.warn(
                f"{len(reasons)} rows without a preference ({counts}); see annotator.failures", stacklevel=4
            )


def _columns_named(argument: str, names: Sequence[str], count: int | None = None) -> tuple[str, ...]:
    """Names of columns. ValueError where they are none, or not `count`."""
    sound = not isinstance(names, str) and names and all(isinstance(name, str) for name in names)
    if not sound or count not in (None, len(names)):
        told = "names of columns" if count is None else f"{count} names of columns"
        raise ValueError(f"{argument}={names!r} must be a list of {told}")
    return tuple(names)


def _samples(row: Row, place: int) -> list[Row]:
    """One row for each of the samples that a row lists."""
    outputs: Any = row.get("output")
    if hasattr(outputs, "tolist"):  # the arrays of a DataFrame that was read from Parquet
        outputs = outputs.tolist()
    if isinstance(outputs, str | bytes) or not isinstance(outputs, Sequence):
        raise ValueError(
            f"row {place}: output={outputs!r} must be a list of samples; pass is_multisample_list=False for "
            "one row each"
        )
    return [{**row, "output": output, "sample_id": i} for i, output in enumerate(outputs)]


def _columns(verdict: Verdict) -> Row:
    return {
        "annotator": verdict.annotator,
        "preference": verdict.preference,
        "price_per_example": verdict.price_usd,
    }
