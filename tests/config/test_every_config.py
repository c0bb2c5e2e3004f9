"""Every YAML file of every group and every recipe composes, validates and gives a plan."""

import json
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from alpacafarm import compose

ROOT = Path(__file__).parents[2]
CONF, RECIPES = ROOT / "conf", ROOT / "recipes"
FILES = [
    "data.sft={rows}",
    "data.unlabeled={rows}",
    "data.eval={rows}",
    "data.preferences={pairs}",
]
JUDGED = ["method.reward=judge", "method.reward_std=null"]
NEEDS = {  # what a file leaves to the user, or only goes with
    "model/path": ["model.path={model}"],
    "data/alpaca_farm": ["model=llama-7b", "eval/judge=reward"],
    "data/files": [*FILES, "model=scratch", "feedback=human", "eval/judge=reward"],
    "feedback/judge/recorded": ["feedback.judge.path={pairs}"],
    "feedback/judge/people": ["feedback=human"],
    "feedback/judge/reward": ["given.rm={model}"],
    "feedback/judge/local": ["feedback.judge.path={model}"],
    "eval/judge/recorded": ["eval.judge.path={pairs}"],
    "eval/judge/local": ["eval.judge.path={model}"],
    "method/judge/reward": JUDGED,
    "method/judge/world": JUDGED,
    "method/judge/pool": JUDGED,
    "method/judge/noisy": JUDGED,
    "method/judge/api": JUDGED,
    "method/judge/alpaca_eval": JUDGED,
    "recipe/own_data": FILES,
    "recipe/davinci001": ["api.endpoints.openai.free=true"],
    "method/pick/reward": ["method.snapshot_every=5"],
    "method/pick/judge": ["method.snapshot_every=5"],
}
METHOD = {"method/judge": "rloo", "method/pick": "ppo"}  # what a nested group goes with


def files(group: str) -> list[Path]:
    return sorted((RECIPES if group == "recipe" else CONF / group).glob("*.yaml"))


OVERLAYS = ("tuned", "published")  # found by what else is chosen
GROUPS = sorted(p.parent.relative_to(CONF).as_posix() for p in CONF.glob("*/**/*.yaml"))
CHOICES = [(g, p.stem) for g in dict.fromkeys([*GROUPS, "recipe"]) if g not in OVERLAYS for p in files(g)]
TUNED = [path.stem for path in files("tuned")]
METHODS = [path.stem for path in files("method")]


def test_there_are_groups_and_files():
    expected = {"model", "data", "method", "feedback", "feedback/judge", "eval", "eval/judge", "cluster"}
    assert {*expected, "recipe"} <= {group for group, _ in CHOICES}
    assert len(CHOICES) >= 30
    assert len(TUNED) >= 10


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_choice_composes_validates_and_plans(job, things, group, name):
    method = [] if group in ("method", "recipe") else [f"method={METHOD.get(group, 'best_of_n')}"]
    needs = [need.format(**things) for need in NEEDS.get(f"{group}/{name}", [])]
    made = job(f"{group}={name}", *method, *needs, "store=store")
    assert made.plan.stages
    assert len({stage.key for stage in made.plan.stages}) == len(made.plan.stages)


@pytest.mark.parametrize("stem", TUNED)
def test_tuned_values_stand_over_the_published_ones(job, things, stem):
    """`conf/tuned/<model>-<method>.yaml` is optional: a misspelt one would be passed over in silence."""
    model, method = next(
        (stem.removesuffix(f"-{name}"), name) for name in METHODS if stem.endswith(f"-{name}")
    )
    tuned = tuned_values(stem)
    spec = job(f"method={method}", f"model={model}").spec.method.canonical()
    written = {key: value_at(tuned, key) for key in compose.dotted(tuned)}
    values = {key: v for key, v in written.items() if not isinstance(v, dict) and "${" not in str(v)}
    assert written
    assert {key: value_at(spec, key) for key in values} == values


def tuned_values(stem: str) -> dict:
    """What the file gives, and before it the files of its defaults list."""
    values = yaml.safe_load((CONF / "tuned" / f"{stem}.yaml").read_text(encoding="utf-8"))
    bases = [name for name in values.pop("defaults", []) if name != "_self_"]
    return OmegaConf.to_container(OmegaConf.merge(*map(tuned_values, bases), values))


@pytest.mark.parametrize("stem", [path.stem for path in files("published")])
def test_values_for_one_kind_of_feedback_stand_over_the_others(job, stem):
    rest, feedback = stem.rsplit("-", 1)
    model, method = rest.rsplit("-", 1)
    asked = yaml.safe_load((CONF / "published" / f"{stem}.yaml").read_text(encoding="utf-8"))
    others = (f"method={method}", f"model={model}", "data=alpaca_farm", "eval/judge=reward")
    spec = job(*others, f"feedback={feedback}").spec.method.canonical()
    assert asked
    assert {key: spec[key] for key in asked} == asked
    assert job(*others, "feedback=sim").spec.kl_coef == 0.0067


def value_at(node: dict, dotted: str) -> object:
    for part in dotted.split("."):
        node = node[part]
    return node


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_spec_fed_back_is_the_same_run(job, tmp_path, method):
    made = job(f"method={method}", "seed=7", "store=somewhere")
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(made.spec.canonical()))
    again = job(f"spec={path}")
    assert again.spec == made.spec
    assert [s.key for s in again.plan.stages] == [s.key for s in made.plan.stages]


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("tracking.wandb=off", "tracking.wandb", "off"),
        ("name='it\\'s'", "name", "it's"),
        (r"name=a\,b", "name", "a,b"),
        ("name=12:30:45", "name", "12:30:45"),
        ("tracking.project=yes", "tracking.project", "yes"),
        ("model.lora={rank:4,alpha:8,dropout:0.0,targets:[q_proj],export:merged}", "model.lora.rank", 4),
    ],
)
def test_overrides_of_a_saved_spec_are_read_as_all_others(job, tmp_path, override, key, value):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(job("method=sft").spec.canonical()))
    assert value_at(json.loads(job(f"spec={path}", override).spec.model_dump_json()), key) == value


def test_a_line_of_shell_in_a_saved_spec_stays_as_it_is(job, tmp_path):
    path = tmp_path / "spec.json"
    setup = r"cluster.slurm.setup=['export X=\${HOME}/x']"
    made = job("method=sft", "cluster=slurm", setup).spec
    assert made.cluster.slurm.setup == ["export X=${HOME}/x"]
    path.write_text(json.dumps(made.canonical()))
    assert job(f"spec={path}").spec == made


def test_the_file_of_a_judges_prompt_is_found_from_anywhere(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "alpacafarm/judges/prompts/pairwise.txt").read_text()
    for name in ("mine.txt", "pairwise"):  # a name of ours is no file
        (tmp_path / name).write_text(text)
    for asked, told in (("mine.txt", str(tmp_path / "mine.txt")), ("pairwise", "pairwise")):
        spec = job("method=sft", "eval/judge=api", f"eval.judge.prompt={asked}").spec
        assert compose.anywhere(spec)["eval"]["judge"]["prompt"] == told


def test_the_keys_beside_a_wrong_one_are_found_below_names_with_dots():
    raw = {"members": {"gpt-4": {"a": 1}, "gpt-4.1": {"judge": {"kind": "world", "wrong": 3}}}}
    assert compose.siblings("members.gpt-4.1.judge", raw, []) == {"kind", "wrong"}
    assert compose.siblings("members.gpt-4", raw, ["members.gpt-4.b"]) == {"a", "b"}
    assert compose.siblings("members.gpt-5.judge", raw, []) == set()


@pytest.mark.parametrize("key", ["kl_coef", "method.kl_coef"])
def test_either_kl_coef_changes_a_saved_spec(job, tmp_path, key):
    path = tmp_path / "spec.json"
    path.write_text(job("method=ppo", "kl_coef=0.5").spec.model_dump_json())
    spec = job(f"spec={path}", f"{key}=0.25", "hydra.run.dir=elsewhere").spec
    assert (spec.kl_coef, spec.method.kl_coef) == (0.25, 0.25)


def test_methods_with_a_kl_penalty_give_their_default(job):
    assert job("method=ppo").spec.kl_coef == 0.0067
    assert job("method=sft").spec.kl_coef is None


@pytest.mark.parametrize("method", METHODS)
def test_machine_settings_are_in_no_key(job, method):
    keys = [s.key for s in job(f"method={method}").plan.stages]
    machine = ["cluster=local_2proc", "cluster.micro_batch=3", "cluster.engine=deepspeed", "store=elsewhere"]
    assert [s.key for s in job(f"method={method}", *machine, "name=other").plan.stages] == keys


def test_a_saved_spec_holds_whole_paths(job, tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (tmp_path / "files").mkdir()  # a folder with the name of a kind must not be taken for it
    monkeypatch.chdir(tmp_path)
    made = job("method=sft", "data=files", "model=scratch", "eval=none", "data.sft=rows.jsonl", "store=store")
    saved = compose.anywhere(made.spec)
    assert saved["data"]["sft"] == str(tmp_path / "rows.jsonl")
    assert saved["data"]["kind"] == "files"
    assert saved["store"] == str(tmp_path / "store")
    assert saved["model"]["path"] is None


def test_where_a_judges_file_lies_is_in_the_saved_spec_and_in_no_key(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pairs.jsonl").write_text("{}\n")
    member = "{kind: recorded, path: one/pairs.jsonl}"
    made = job(
        "method=sft",
        "eval/judge=recorded",
        "eval.judge.path=two/pairs.jsonl",
        "feedback/judge=noisy",
        f"++feedback.judge.members.people={{weight: 1.0, noise: null, judge: {member}}}",
    )
    saved = compose.anywhere(made.spec)
    assert saved["eval"]["judge"]["path"] == str(tmp_path / "two" / "pairs.jsonl")
    people = saved["feedback"]["judge"]["members"]["people"]
    assert people["judge"]["path"] == str(tmp_path / "one" / "pairs.jsonl")
    elsewhere = job("method=sft", "eval/judge=recorded", "eval.judge.path=one/pairs.jsonl")
    assert [s.key for s in elsewhere.plan.stages] == [s.key for s in made.plan.stages]


@pytest.mark.parametrize("path", files("recipe"), ids=lambda path: path.stem)
def test_a_recipe_has_the_last_word(job, things, path):
    """Every value that a recipe gives is the run's, the root's own keys included."""
    asked = {k: v for k, v in yaml.safe_load(path.read_text(encoding="utf-8")).items() if k != "defaults"}
    asked.pop("hydra", None)
    needs = [need.format(**things) for need in NEEDS.get(f"recipe/{path.stem}", [])]
    spec = job(f"recipe={path.stem}", *needs, "store=store").spec.canonical()
    wanted = dict(leaves(asked))
    assert wanted
    found = dict(leaves(spec))
    assert {key: found[key] for key in wanted} == wanted


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
