from tests.unit.artifacts.stored import make, stage


def test_nothing_to_explain_when_done_or_when_no_stage_of_that_name_is_stored(store):
    make(store, stage("sft"))
    assert store.explain(stage("sft")) is None
    assert store.explain(stage("ppo")) is None


def test_a_changed_parameter_is_named_with_both_values(store):
    make(store, stage(beta=0.1, optim={"lr": 1e-6, "warmup": 0.03}))
    assert store.explain(stage(beta=0.2, optim={"lr": 1e-6, "warmup": 0.03})) == "params.beta: 0.1 -> 0.2"


def test_a_changed_input_is_named_with_its_maker(store):
    old, new = stage("annotate", flip=0.0), stage("annotate", flip=0.25)
    make(store, old)
    make(store, stage("reward", inputs={"pairs": old}))
    expected = f"input pairs: {old.key[:8]} -> {new.key[:8]} (annotate)"
    assert store.explain(stage("reward", inputs={"pairs": new})) == expected


def test_the_most_similar_stored_stage_is_the_one_compared_with(store):
    make(store, stage(beta=0.1, epochs=2))
    make(store, stage(beta=0.5, epochs=3))
    assert store.explain(stage(beta=0.6, epochs=3)) == "params.beta: 0.5 -> 0.6"


def test_added_removed_and_many_differences(store):
    make(store, stage(a=1, b=1, c=1, d={}), {"x": "x"})
    assert store.explain(stage(a=1, b=1, e=1, d={})) == "params.c: 1 -> absent; params.e: absent -> 1"
    told = store.explain(stage(a=2, b=2, c=2, d={"f": 1}, seed=2))
    assert told == "params.a: 1 -> 2; params.b: 1 -> 2; params.c: 1 -> 2; and 3 more"


def test_tuples_and_lists_are_the_same_value(store):
    make(store, stage(steps=(1, (2, 3)), beta=0.1))
    assert store.explain(stage(steps=(1, (2, 3)), beta=0.2)) == "params.beta: 0.1 -> 0.2"
