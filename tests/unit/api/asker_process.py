"""A process to kill: `python -m tests.unit.api.asker_process SPEC STORE COUNT BUDGET` asks COUNT questions.

Prints a line for each outcome, and at the end the error that it ended with.
"""

import json
import sys
from pathlib import Path

from alpacafarm.api.client import ApiClient
from alpacafarm.errors import AlpacaFarmError
from alpacafarm.spec.api import ApiSpec, BudgetSpec
from tests.unit.api.asking import question


def main(spec: str, store: str, count: str, budget: str) -> None:
    caps = BudgetSpec.model_validate_json(budget)
    client = ApiClient(
        ApiSpec.model_validate_json(spec), Path(store), budget=caps, run="run", stage="stage", stage_name="s"
    )
    try:
        with client:
            for position, told in client.asker("me").ask(question(i) for i in range(int(count))):
                print(json.dumps([position, type(told).__name__, told.calls]), flush=True)
    except AlpacaFarmError as error:
        print(json.dumps(str(error)))
    except KeyboardInterrupt:
        sys.exit(130)


main(*sys.argv[1:])
