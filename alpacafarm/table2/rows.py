"""The rows of Table 2 (Dubois et al. 2023, arXiv:2305.14387): what is published, and which run stands for it.

`IMAGE` is assets/results_table.png of github.com/tatsu-lab/alpaca_farm, commit 30717dd. Its columns: trained
on simulated preferences and judged by the simulated evaluators; trained on human ones and judged by
people. Errors are over the 805 instructions. `V4` is version 4 of the paper, which added DPO.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Column = Literal["sim", "human"]
COLUMNS: tuple[Column, ...] = ("sim", "human")
IMAGE, V4 = "results_table.png", "arXiv:2305.14387v4"


@dataclass(frozen=True)
class Published:
    """Percent against text-davinci-003 (50 by definition), standard error over instructions."""

    win_rate: float
    standard_error: float
    source: str = IMAGE


@dataclass(frozen=True)
class Row:
    """`overrides` describe the run, None for the models behind an API, which no run here stands for.

    `smoke` makes it short for SCALE=smoke.
    """

    name: str
    label: str  # the paper's
    sim: Published
    human: Published | None
    overrides: tuple[str, ...] | None
    smoke: tuple[str, ...] = ()

    def paper(self, column: Column) -> Published | None:
        return self.sim if column == "sim" else self.human


ON_POLICY = ("method.steps=2", "method.rollouts_per_step=32", "method.optim.batch_size=16")
ALL_SPLITS = "method.splits=[sft,preference,unlabeled]"

ROWS = (
    Row("gpt4", "GPT-4", Published(79.0, 1.4), Published(69.8, 1.6), None),
    Row("chatgpt", "ChatGPT", Published(61.4, 1.7), Published(52.9, 1.7), None),
    Row("ppo", "PPO", Published(46.8, 1.8), Published(55.1, 1.7), ("method=ppo",), ON_POLICY),
    Row("dpo", "DPO", Published(46.8, 1.7, V4), None, ("method=dpo",)),
    Row("best_of_n", "Best-of-n", Published(45.0, 1.7), Published(50.7, 1.8), ("method=best_of_n",)),
    Row("expiter", "Expert iteration", Published(41.9, 1.7), Published(45.7, 1.7), ("method=expiter",)),
    Row("sft52k", "SFT 52k", Published(39.2, 1.7), Published(40.7, 1.7), ("method=sft", ALL_SPLITS)),
    Row("sft10k", "SFT 10k", Published(36.7, 1.7), Published(44.3, 1.7), ("method=sft",)),
    Row("feedme", "Binary FeedME", Published(36.6, 1.7), Published(37.9, 1.7), ("method=feedme",)),
    Row("quark", "Quark", Published(35.6, 1.7), None, ("method=quark",), ON_POLICY),
    Row(
        "reward_condition",
        "Binary reward conditioning",
        Published(32.4, 1.6),
        None,
        ("method=reward_condition",),
    ),
    Row("davinci001", "Davinci001", Published(24.4, 1.5), Published(32.5, 1.6), None),
    Row("base", "LLaMA 7B", Published(11.3, 1.1), Published(6.5, 0.9), ("method=base",)),
)
TRAINED = {row.name: row for row in ROWS if row.overrides is not None}


@dataclass(frozen=True)
class Scale:
    """`judges` are those of each column, whom overrides of `eval.judge` replace.

    `most_jobs`: how many runs at the same time pay on this machine, where there is a core for each.
    """

    overrides: tuple[str, ...]
    judges: Mapping[Column, tuple[str, ...]]
    is_short: bool = False
    most_jobs: int = 4
    notes: tuple[str, ...] = ()


POOLS: Mapping[Column, tuple[str, ...]] = {
    "sim": ("eval/judge=world", "eval.judge.pool=eval"),
    "human": ("eval/judge=world", "eval.judge.pool=human"),
}
IN_A_QUEUE = 4  # runs at the same time whose stages are jobs of a site: a run waits, and needs no core
SCALES = {
    # kl_coef is the method's own in both columns: nothing is published of this model. At 7b the paper's 0.02
    # for human feedback comes from conf/published/llama-7b-ppo-human.yaml.
    "world": Scale((), POOLS),
    "smoke": Scale(("data=tiny",), POOLS, is_short=True, notes=("SCALE=smoke: the numbers mean nothing.",)),
    "7b": Scale(
        # A node with which PPO's four models of 7B fit into 80 GB, see `alpacafarm.cost`
        (
            "model=llama-7b",
            "data=alpaca_farm",
            "cluster=slurm_8gpu",
            "cluster.zero.stage=3",
            "cluster.gradient_checkpointing=true",
            "cluster.generation_batch=64",
        ),
        {column: ("eval/judge=p_sim_eval",) for column in COLUMNS},
        most_jobs=1,  # with cluster=local, where a run takes all GPUs
        notes=(
            "LLaMA 7B and AlpacaFarm's own data: 10,000 demonstrations, about 9,700 judged pairs of each "
            "kind, 20,001 unlabeled instructions, 805 for evaluation; published values of each method.",
            "The judge of both columns is the paper's simulated one, eval/judge=p_sim_eval, in the human "
            "column in the place of people. Without a key: eval/judge=reward, each run's own reward model, "
            "which asks nobody and is no measure of quality.",
        ),
    ),
}
