"""Where rows come from: files by their content, names on the hub by themselves."""

import pytest

from alpacafarm.data.plan import source_node
from alpacafarm.errors import PlanError

FILE = "hf://datasets/tatsu-lab/alpaca_farm/alpaca_instructions/sft.json"


@pytest.mark.parametrize("location", [FILE, FILE.replace("farm/", "farm@v1.0/", 1), FILE + "l"])
def test_a_file_of_the_hub_stands_for_itself(location):
    node = source_node("data.sft", location)
    assert (node.location, node.fingerprint) == (location, f"hub:{location}")


@pytest.mark.parametrize(
    "location", ["hf://tatsu-lab/alpaca_farm/sft.json", FILE[:-5], FILE + ".gz", "hf://"]
)
def test_what_is_no_file_of_the_hub_is_refused(location):
    with pytest.raises(
        PlanError, match=r"^data\.sft=hf://.*: there is no such file; set data\.sft to .* or to hf://"
    ):
        source_node("data.sft", location)
