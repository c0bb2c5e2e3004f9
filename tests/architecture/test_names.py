"""A method, a preference source and an evaluation are one module and one YAML file, found by name."""

from pathlib import Path

import pytest
import yaml

from alpacafarm import lookup
from alpacafarm.spec.eval import EvalSpec
from alpacafarm.spec.feedback import FeedbackSpec
from alpacafarm.spec.method import MethodSpec

CONF = Path(__file__).parents[2] / "conf"
GROUPS = {"method": "methods", "feedback": "feedback", "eval": "evals"}
BASES = {"methods": MethodSpec, "feedback": FeedbackSpec, "evals": EvalSpec}
NO_MODULE = {CONF / "eval" / "none.yaml"}

YAMLS = [(group, path) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
MODULES = [(package, name) for package in BASES for name in lookup.names(package)]


def told(path: Path) -> dict[str, str]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def named(path: Path) -> str:
    return told(path)["name"]


def test_there_are_some_of_each():
    assert {group for group, _ in YAMLS} == set(GROUPS)
    assert {package for package, _ in MODULES} == set(BASES)
    assert len(MODULES) >= 8


@pytest.mark.parametrize(("group", "path"), YAMLS, ids=lambda x: x.stem if isinstance(x, Path) else x)
def test_every_yaml_names_a_module(group, path):
    if path in NO_MODULE:
        assert named(path) == path.stem
        return
    assert named(path) == path.stem
    dotted = told(path).get("_module")  # of settings that share a module
    assert dotted is not None or path.stem in lookup.names(GROUPS[group])
    assert lookup.module(GROUPS[group], path.stem, dotted)


@pytest.mark.parametrize(("package", "name"), MODULES)
def test_every_module_has_a_yaml_of_its_name(package, name):
    (group,) = (g for g, p in GROUPS.items() if p == package)
    assert named(CONF / group / f"{name}.yaml") == name


@pytest.mark.parametrize(("package", "name"), MODULES)
def test_every_module_has_a_spec_and_a_plan(package, name):
    module = lookup.module(package, name)
    assert issubclass(module.Spec, BASES[package])
    assert callable(module.plan)
    assert module.__doc__
