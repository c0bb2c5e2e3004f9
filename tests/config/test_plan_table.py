"""What `action=plan` prints beside what tests of plans look at."""

from alpacafarm import run
from alpacafarm.report.status import show_plan


def test_each_role_is_told_once_and_as_the_method_has_it(job, capsys):
    made = job("method=rm", "method.optim.batch_size=32")
    show_plan(made.spec, made.plan)
    told = capsys.readouterr().out
    assert [line.split(" rows")[0] for line in told.splitlines() if line.startswith("rm: ")] == ["rm: 32"]


def test_a_column_of_reasons_stands_only_where_there_is_one(job, capsys):
    made = job("method=sft")
    show_plan(made.spec, made.plan)
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "#"
    assert "why" not in header
    assert any(line.startswith("4  sft ") for line in lines)


def test_each_plan_of_a_sweep_is_told_by_what_differs(capsys):
    run.show_only(run.check(["-m", "method=sft", "data=tiny", "seed=1,2", "action=plan"]))
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run ")]
    assert heads == ["run 0: seed=1", "run 1: seed=2"]


def test_a_stage_without_a_model_has_no_unknown_memory(job, capsys):
    """What an API answered is compared, and no model is on the device."""
    for method, told in (("api_baseline", False), ("sft", True)):
        made = job(f"method={method}", "model=path", "model.path=somebody/something")
        show_plan(made.spec, made.plan)
        assert ("  unknown, for a model's config.json" in capsys.readouterr().out) == told
