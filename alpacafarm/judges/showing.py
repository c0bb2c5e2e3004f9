"""A pair as a model sees it that is shown both answers and names one.

Their order belongs to the pair, whichever of its outputs is called the first: so swapping them mirrors the
verdict, and asks nothing anew.
"""

from alpacafarm.judges.template import Shown, Template
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import Pair


def is_swapped(pair: Pair, *salt: object) -> bool:
    """Whether output 2 is shown first: a coin that knows the two texts, and not which is output 1."""
    lower, higher = sorted((pair.output_1, pair.output_2))
    coin = stable_seed("order", *salt, pair.instruction, pair.input, lower, higher) % 2
    return pair.output_2 == (higher if coin else lower)


def shown(pair: Pair, template: Template, *, swapped: bool) -> Shown:
    """What fills the template's places; the input goes to the instruction where it has none of its own."""
    first, second = (pair.output_1, pair.output_2)[:: -1 if swapped else 1]
    instruction = pair.instruction
    if pair.input and not template.has_input:  # as alpaca-eval merges them
        instruction = f"{pair.instruction}\n\n{pair.input}"
    return {"instruction": instruction, "input": pair.input, "output_1": first, "output_2": second}
