"""Small stages for the tests of this folder."""

from alpacafarm.stage import Given, Kind, Stage

BASE = Given(Kind.POLICY, "gpt2", "gpt2@main")


def stage(name="sft", *, inputs=None, seed=1, **params):
    """A stage that differs from another only in what is said here."""
    inputs = {"init": BASE} if inputs is None else inputs
    return Stage(name, f"somewhere:{name}", Kind.POLICY, params, inputs, seed)


def make(store, stage, files=None):
    """Makes and publishes a stage unless it is there."""
    with store.claim(stage) as claim:
        if claim.artifact is not None:
            return claim.artifact
        for name, text in (files or {"model/weights.txt": "1 2 3", "log.jsonl": "{}\n"}).items():
            path = claim.folder / "out" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return store.publish(stage, claim.folder)
