"""What a model costs: the packaged table, the user's own over it, and endpoints that are free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alpacafarm.errors import PlanError
from alpacafarm.lookup import suggestion
from alpacafarm.request import FREE, Price
from alpacafarm.spec.api import ApiSpec, EndpointSpec

PACKAGED = Path(__file__).with_name("prices.yaml")
MOST_USD = 1e5  # for a million tokens: what is more is a mistake, and could overflow the ledger


class Prices:
    """Prices by a model's exact name: snapshots of one model have differed by a factor of two."""

    def __init__(self, api: ApiSpec) -> None:
        self.endpoints = api.endpoints
        self.known = read(PACKAGED) | (read(Path(api.prices).expanduser()) if api.prices else {})

    def of(self, model: str) -> Price:
        """The highest of the endpoints that may be asked. PlanError where there is none."""
        serving = serving_endpoints(self.endpoints, model)
        if not serving:
            named = sorted({name for endpoint in self.endpoints.values() for name in endpoint.models or ()})
            raise PlanError(
                f"model {model}: no endpoint serves it; {suggestion(model, named)}add it to the models of "
                "one of api.endpoints, or set models=null there for any"
            )
        return max(
            (self.at(model, e) for e in serving.values()), key=lambda p: (p.per_million_out, p.per_million_in)
        )

    def at(self, model: str, endpoint: EndpointSpec) -> Price:
        """At one endpoint. PlanError where the model has no price."""
        if endpoint.free:
            return FREE
        if model not in self.known:
            raise PlanError(
                f"model {model}: its price is unknown, and none is guessed; {suggestion(model, self.known)}"
                "set api.prices=FILE, a YAML file with the line "
                f"`{model}: {{input: USD, output: USD}}` for a million tokens (0 and 0 where it is free), or "
                "free=true at its endpoint"
            )
        return self.known[model]


def serving_endpoints(endpoints: Mapping[str, EndpointSpec], model: str) -> dict[str, EndpointSpec]:
    """Those that name the model; where none does, those that serve any."""
    naming = {name: e for name, e in endpoints.items() if e.models is not None and model in e.models}
    return naming or {name: e for name, e in endpoints.items() if e.models is None}


def read(path: Path) -> dict[str, Price]:
    """A table of prices. PlanError where the file or a line of it is wrong."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        raw, lines = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise PlanError(f"api.prices={path}: cannot be read ({reason}); name a YAML file") from None
    if not isinstance(raw, Mapping):
        raise PlanError(f"api.prices={path}: must hold `MODEL: {{input: USD, output: USD}}`, a line for each")
    named = [key.value for key, _ in lines.value]
    if twice := sorted({model for model in named if named.count(model) > 1}):
        raise PlanError(f"api.prices={path}: comes twice: {', '.join(twice)}; give each model one line")
    return {str(model): price(path, model, told) for model, told in raw.items()}


def price(path: Path, model: Any, told: Any) -> Price:
    is_pair = isinstance(told, Mapping) and set(told) == {"input", "output"}
    numbers = [told["input"], told["output"]] if is_pair else []
    good = [
        n for n in numbers if isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n <= MOST_USD
    ]
    if len(good) != 2:
        raise PlanError(
            f"api.prices={path}: {model}: {told}: must be input and output in USD for a million tokens, "
            f"from 0 to {MOST_USD:,.0f}; write `{model}: {{input: 2.5, output: 10}}`"
        )
    return Price(float(good[0]), float(good[1]))
