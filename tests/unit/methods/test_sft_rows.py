"""What SFT will not learn from."""

import pytest

from alpacafarm.data.rows import write_rows
from alpacafarm.errors import SpecError
from alpacafarm.methods.sft import demonstrations
from alpacafarm.ports import Artifact
from alpacafarm.stage import Kind
from alpacafarm.types import Example


def test_a_split_without_outputs_is_refused(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [Example("0", "Say hi.", "", ""), Example("1", "Say ho.", "", "")])
    with pytest.raises(
        SpecError, match=r"rows\.jsonl: none of the 2 rows has an output to learn from; leave"
    ):
        demonstrations(Artifact(tmp_path, Kind.ROWS, "key", {}), None, None)
