"""Wrong command lines and what must be said of them."""

from dataclasses import dataclass

METHODS = r"known: .*best_of_n, .*ppo, .*sft"
FILES = "data=files model=scratch data.sft={rows} data.unlabeled={rows} data.eval={rows}"


@dataclass(frozen=True)
class Wrong:
    """A command line, and what each line of the message must say, in order."""

    overrides: str  # {names} are paths of the fixture `things`
    lines: tuple[str, ...]


def wrong(overrides: str, *lines: str) -> Wrong:
    return Wrong(overrides, lines)


TABLE = [
    # Keys
    wrong("method=sft sead=1", r"^sead=1: there is no such key; did you mean seed\?; `--cfg job` prints all"),
    wrong(
        "method=ppo method.clib=0.1", r"^method\.clib=0\.1: there is no such key; did you mean method\.clip\?"
    ),
    wrong(
        "method=ppo +method.clib=0.1", r"^method\.clib=0\.1: .*did you mean clip\?; known: .*clip.*kl_coef"
    ),
    wrong(
        "method=sft +data.kinds=x",
        r"^data\.kinds=x: there is no such key; did you mean kind\?; known: eval, kind",
    ),
    wrong("method=sft ~method.epochs", r"^method\.epochs is missing: .*set method\.epochs=VALUE"),
    wrong(
        "method=sft ~cluster.zero.stage",
        r"^cluster\.zero\.stage is missing: .*set cluster\.zero\.stage=VALUE",
    ),
    wrong("method=sft judge=reward", r"^judge=reward: there is no such key; "),
    wrong(
        "-m method=sft seed=1,2 hydra.sweep.dir=runs/${{nowhere}}",
        r"^hydra\.sweep\.dir: cannot be read \(Interpolation key 'nowhere' not found\); put a key",
    ),
    wrong(
        "method=sft hydra.run.dir=${{no:where}}", r"^hydra\.run\.dir: cannot be read .* type no\); put a key"
    ),
    # Memory
    wrong(
        "method=sft cluster.device_memory_gb=0",
        r"^cluster\.device_memory_gb=0: must be greater than 0; set cluster\.device_memory_gb above 0",
    ),
    wrong("method=sft force=perhaps", r"^force=perhaps: must be true or false; "),
    wrong(
        "method=sft eval=none cluster.device_memory_gb=0.5",
        r"^stage base \(too large as well: sft\): its process takes about 0\.\d+ GiB \(process 0\.4.*; most "
        r"at: forward and backward\), and 0\.5 GiB are there \(cluster\.device_memory_gb=0\.5\); "
        r"set cluster\.micro_batch=\d, with which the most is 0\.4\d+ GiB, or force=true to run all",
    ),
    wrong(
        "method=sft eval=none cluster.device_memory_gb=0.1",
        r"^stage base .*; no setting of cluster makes it fit: choose a smaller model or larger devices",
    ),
    wrong(
        "method=ppo model=llama-7b data=alpaca_farm eval=none cluster=slurm_8gpu",
        r"^stage ppo: each of 8 processes takes about \d+ GiB \(.*\), and 76 GiB are there \(cluster\.device_"
        r"memory_gb=76\); set cluster\.gradient_checkpointing=true cluster\.zero\.stage=3, with which",
    ),
    wrong(
        "method=sft cluster=slurm cluster.speed.device=v100",
        r"^cluster\.speed\.device=v100: must be a100-80gb or h100-sxm; set cluster\.speed\.device=",
    ),
    wrong(
        "method=sft cluster=slurm cluster.speed.mfu=2",
        r"^cluster\.speed\.mfu=2: must be at most 1; set cluster\.speed\.mfu=1 or less",
    ),
    wrong(
        "method=sft cluster=slurm cluster.speed.bandwidth_use=0 cluster.speed.usd_per_gpu_hour=-1",
        r"^cluster\.speed\.bandwidth_use=0: must be greater than 0",
        r"^cluster\.speed\.usd_per_gpu_hour=-1: must be at least 0",
    ),
    wrong(
        "method=sft cluster.at_once=0 cluster.device_memory_gb=0",
        r"^cluster\.at_once=0: must be at least 1; set cluster\.at_once=1",
        r"^cluster\.device_memory_gb=0: must be greater than 0",
    ),
    wrong(
        "method=sft model=qwen-0.5b data=alpaca_farm model.shape={{model_type:mamba}} cluster=slurm",
        r"^model\.shape=.*mamba.*: must be .* model_type one of llama, .*; set model\.shape=null to plan",
    ),
    # Snapshots
    wrong(
        "method=ppo method/pick=reward",
        r"^method\.snapshot_every=null: must be set where method\.pick is; set method\.snapshot_every=10",
    ),
    wrong(
        "method=ppo method.snapshot_every=5 method.pick={{by:step,step:7}}",
        r"^method\.pick\.step=7: must be a multiple of method\.snapshot_every=5; set method\.pick\.step=5",
    ),
    wrong("method=sft method/pick=reward", r"^method\.pick=\{\.\.\.\}: there is no such key"),
    wrong(
        "method=sft +method._module=nowhere",
        r"^method\._module=nowhere: cannot be imported \(ModuleNotFoundError: No .*\); name a module on",
    ),
    wrong(
        "method=sft +method._module=json", r"^method\._module=json: has no Spec and no plan; a method defines"
    ),
    wrong(
        "method=ppo method/pick=reward method.snapshot_every=5 eval.split=val",
        r"^eval\.split=val: must not be val, on which method\.pick chooses; set eval\.split=eval",
    ),
    wrong(
        "method=ppo kl_coef=0 method.kl_budget=3 method.sampling.top_p=0.9",
        r"^method\.sampling\.top_p=0\.9: method\.kl_budget=3\.0, and a sampled KL .*method\.kl_budget=null",
    ),
    wrong(
        f"method=ppo method/pick=reward method.snapshot_every=5 {FILES} data.val={{rows}} "
        "feedback=human data.preferences={pairs} eval/judge=reward",
        r"^data\.val=.*: must not be the file of data\.eval, which method\.pick would then choose on",
    ),
    wrong(
        "method=ppo method.snapshot_every=5 method.pick={{by:step,step:25}}",
        r"^method\.pick\.step=25: must be at most method\.steps=20; set method\.pick\.step=20 or raise",
    ),
    wrong(
        "method=ppo method.snapshot_every=5 method.pick={{by:foo}}",
        r"^method\.pick\.by=foo: must be step, reward or judge; set method\.pick\.by=",
    ),
    wrong(
        "method=ppo method.snapshot_every=5 method.pick={{}}", r"^method\.pick\.by is missing: .*set method"
    ),
    wrong("method=cdpo method._module=7", r"^method\._module=7: must be the dotted name of a module"),
    wrong("method=sft +method._module=../../x", r"^method\._module=\.\./\.\./x: cannot be imported"),
    wrong(
        "method=ppo method@upstream.sft=dpo",
        r"^upstream\.sft\.name=dpo: it builds on the sft stage itself, .*@upstream\.sft to a method",
    ),
    wrong("method=expiter method.rounds=1000", r"^method\.rounds=1000: must be at most 50"),
    wrong(
        "--config-dir nowhere method=sft", r"^--config-dir=nowhere: there is no such folder; name one that"
    ),
    # Names
    wrong("", r"^method is missing: every run has one; set method=NAME, known: .*grpo, .*ppo, .*simpo$"),
    wrong("seed=-1", r"^method is missing: ", r"^seed=-1: must be at least 0"),
    wrong(
        "method=api_baseline method.sampling.top_k=5",
        r"^method\.sampling\.top_k=5: the API has no such parameter; set method\.sampling\.top_k=0$",
    ),
    wrong(
        "method=api_baseline method.system=Brief method.interface=completion",
        r"^method\.system=Brief: a completion has no system message; set method\.system=null or "
        r"method\.interface=chat$",
    ),
    wrong(
        "method=api_baseline method.api_model=mine",
        r"^model mine: its price is unknown, and none is guessed; set api\.prices=FILE",
    ),
    wrong(
        "recipe=davinci001", r"^model text-davinci-001: its price is unknown, and none is guessed; set api"
    ),
    wrong("method=ppu", rf"^method=ppu: there is no such method; did you mean ppo\?; {METHODS}"),
    wrong(
        "method=sft method.name=stf",
        rf"^method\.name=stf: there is no such method; did you mean sft\?; {METHODS}",
    ),
    wrong(
        "method=ppo upstream.rm.name=rmm",
        rf"^upstream\.rm\.name=rmm: there is no such method; did you mean rm\?; {METHODS}",
    ),
    wrong(
        "method=sft feedback=sym",
        r"^feedback=sym: there is no such feedback; did you mean sim\?; known: human, .*sim",
    ),
    wrong("method=sft eval=winrat", r"^eval=winrat: .* did you mean winrate\?; known: none, .*winrate"),
    wrong("method=sft model=word", r"^model=word: .* did you mean world\?; known: llama-3\.2-1b, .*world"),
    wrong(
        "method=sft cluster=slrum", r"^cluster=slrum: there is no such cluster; .*known: local, local_2proc"
    ),
    wrong("recipe=smok", r"^recipe=smok: .* did you mean smoke\?; known: .*smoke"),
    wrong(
        "method=ppo feedback/judge=wold",
        r"^feedback/judge=wold: .* did you mean world\?; known: .*human, .*world",
    ),
    wrong("method=sft data.kind=file", r"^data\.kind=file: must be world or files; set data\.kind=files"),
    wrong("method=sft action=dance", r"^action=dance: must be run, plan or status; set action=run"),
    wrong("method=sft action=pln", r"^action=pln: must be run, plan or status; set action=plan"),
    wrong(
        "method=sft method.optim.schedule=linea",
        r"^method\.optim\.schedule=linea: must be cosine, linear or constant; set method\..*=linear",
    ),
    # Values
    wrong("method=sft seed=-1", r"^seed=-1: must be at least 0; set seed=0 or more"),
    wrong("method=sft seed=abc", r"^seed=abc: must be a whole number; set seed=1, for example"),
    wrong("method=sft name=''", r"^name='': must be a text that is not empty; set name=NAME"),
    wrong("method=sft name=3", r"^name=3: must be a text; put it in quotes: 'name=\"3\"'"),
    wrong(
        "method=sft method.optim.lr=-1e-5",
        r"^method\.optim\.lr=-1e-05: must be at least 0; set method\.optim\.lr=0 or more",
    ),
    wrong(
        "method=sft method.optim.batch_size=0",
        r"^method\.optim\.batch_size=0: must be at least 1; set method",
    ),
    wrong(
        "method=sft method.optim.batch_size=1.5",
        r"^method\.optim\.batch_size=1\.5: must be a whole number; set method",
    ),
    wrong(
        "method=sft method.optim.batch_size=many",
        r"^method\.optim\.batch_size=many: must be a whole number; set method",
    ),
    wrong("method=sft method.optim=3", r"^method\.optim=3: must be a group of keys; set its keys one by one"),
    wrong(
        "method=sft upstream.base.optim.lr=x",
        r"^upstream\.base\.optim\.lr=x: must be a number; set upstream\.base\.optim",
    ),
    wrong("method=ppo method.steps=0", r"^method\.steps=0: must be at least 1; set method\.steps=1 or more"),
    wrong("method=ppo method.clip=2", r"^method\.clip=2: must be less than 1; set method\.clip below 1"),
    wrong(
        "method=ppo method.value_clip=0",
        r"^method\.value_clip=0: must be greater than 0; set method\.value_clip above 0",
    ),
    wrong(
        "method=ppo method.whiten_rewards=1",
        r"^method\.whiten_rewards=1: must be true or false; set method\.whiten_rewards=true",
    ),
    wrong(
        "method=ppo feedback.flip_probability=0.7",
        r"^feedback\.flip_probability=0\.7: must be at most 0\.5; set feedback",
    ),
    wrong("method=sft data.eval=900", r"^data\.eval=900: must be at most 805; set data\.eval=805 or less"),
    wrong(
        "method=sft cluster.processes=0",
        r"^cluster\.processes=0: must be at least 1 or auto; set cluster\.processes=1 or more",
    ),
    wrong(
        "method=sft cluster.processes=few",
        r"^cluster\.processes=few: must be a whole number or auto; set cluster\.processes=1",
    ),
    # kl_coef
    wrong(
        "method=sft kl_coef=0.1",
        r"^kl_coef=0\.1: method=sft has no KL penalty; leave kl_coef out or choose a method that has one: "
        r"dr_grpo, grpo, ppo, quark, reinforce, reinforce_pp, rloo$",
    ),
    wrong(
        "method=best_of_n kl_coef=0.1",
        r"^kl_coef=0\.1: method=best_of_n has no KL penalty; leave kl_coef out",
    ),
    wrong("method=ppo kl_coef=-1", r"^kl_coef=-1: must be at least 0; set kl_coef=0 or more"),
    wrong("method=ppo kl_coef=high", r"^kl_coef=high: must be a number; set kl_coef=0\.1, for example"),
    wrong("method=ppo method.kl_coef=-1", r"^kl_coef=-1: must be at least 0; set kl_coef=0 or more"),
    # Two values that do not go together
    wrong(
        "method=ppo method.rollouts_per_step=100",
        r"^method\.rollouts_per_step=100: must be a multiple of method\.optim\.batch_size=64; "
        r"set method\.rollouts_per_step=64",
    ),
    wrong(
        "method=ppo method.sampling.top_p=0.9",
        r"^method\.sampling\.top_p=0\.9: kl_coef=0\.0067, and .* set method\.sampling\.top_p=1\.0 .* kl_coef",
    ),
    wrong(
        "method=ppo method.sampling.top_k=50",
        r"^method\.sampling\.top_k=50: kl_coef=0\.0067, and .* or kl_coef=0",
    ),
    wrong(
        "method=ppo method.sampling.max_new_tokens=500",
        r"^method\.sampling\.max_new_tokens=500: must be at most model\.max_response_tokens=96; set .*=96 or",
    ),
    wrong(
        "method=ppo feedback.sampling.max_new_tokens=97",
        r"^feedback\.sampling\.max_new_tokens=97: must be at most",
    ),
    wrong(
        "method=sft eval.sampling.max_new_tokens=97", r"^eval\.sampling\.max_new_tokens=97: must be at most"
    ),
    wrong(
        "method=sft model.architecture.hidden_size=100",
        r"^model\.architecture\.hidden_size=100: .*2 \* model\.architecture\.heads = 8 .*set .*size=96",
    ),
    wrong(
        "method=sft model.architecture.max_positions=100",
        r"^model\.architecture\.max_positions=100: must be at least model\.max_prompt_tokens \+ "
        r"model\.max_response_tokens = 192; set model\.architecture\.max_positions=192",
    ),
    wrong(
        "method=sft model.path=x/y",
        r"^model\.path=x/y: model\.architecture=\{\.\.\.\}, and exactly one .*; choose model=path",
    ),
    wrong(
        "method=sft model.architecture=null",
        r"^model\.path=null: model\.architecture=null, and exactly one .*; choose",
    ),
    wrong(
        "method=sft cluster.processes=2 method.optim.batch_size=1",
        r"^method\.optim\.batch_size=1: must be at least cluster\.processes=2, .* set .*batch_size=2 or more",
    ),
    wrong(
        "method=dpo method.target_margin=1.0",
        r"^method\.target_margin=1\.0: method\.loss=dpo has no target margin; set method\.target_margin=0 or",
    ),
    wrong(
        "method=dpo method.loss=simpo",
        r"^method\.length_normalised=false: must be true for method\.loss=simpo, .*; set method\.length_",
    ),
    wrong(
        "method=orpo method.nll_coef=0",
        r"^method\.nll_coef=0\.0: must be greater than 0 for method\.loss=orpo: .*; set method\.nll_coef=1",
    ),
    wrong(
        "method=dpo method.flip_probability=0.25",
        r"^method\.flip_probability=0\.25: method\.correction=none would not .*; set method\.corr",
    ),
    wrong(
        "method=robust feedback.flip_probability=0.5",
        r"^method\.flip_probability=0\.5: must be below 0\.5 for method\.correction=robust: .*; set method",
    ),
    wrong(
        "method=ipo method.fidelity=published",
        r"^method\.fidelity=published: the original has DPO alone, .*; set method\.fidelity=corrected",
    ),
    wrong(
        f"method=kto {FILES} data.thumbs={{rows}} eval=none",
        r"^method\.unpaired=false: .* data\.thumbs names single answers; set method\.unpaired=true .* or",
    ),
    wrong(
        f"method=kto {FILES} data.thumbs={{nothing}} method.unpaired=true eval=none",
        r"^data\.thumbs=/.*nothing: there is no such file; set data\.thumbs to",
    ),
    wrong("method=dpo method.beta=0", r"^method\.beta=0: must be greater than 0; set method\.beta above 0"),
    wrong(
        "method=quark method.quantiles=200",
        r"^method\.quantiles=200: must be at most method\.rollouts_per_step=128, .*; set method\.quant",
    ),
    wrong(
        "method=quark method.train_on=all method.quantiles=1",
        r"^method\.quantiles=1: must be at least 2 for method\.train_on=all: .*; set method\.quantiles=2 or",
    ),
    wrong("method=quark method.pool_steps=0", r"^method\.pool_steps=0: must be at least 1; set method\.pool"),
    wrong(
        "method=quark method.train_on=all "
        "model.lora={{rank:8,alpha:16,dropout:0.0,targets:all-linear,export:adapter}}",
        r"^model\.lora\.export=adapter: method=quark adds .*; set model\.lora\.export=merged",
    ),
    wrong(
        "method=reward_condition "
        "model.lora={{rank:8,alpha:16,dropout:0.0,targets:all-linear,export:adapter}}",
        r"^model\.lora\.export=adapter: method=reward_condition adds .*; set model\.lora\.export=merged",
    ),
    wrong(
        "method=rm eval=winrate",
        r"^eval=winrate: it needs outputs, and method=rm makes a reward artifact; set eval=none",
    ),
    wrong(
        "method=ppo feedback/judge=reward",
        r"^feedback\.judge\.kind=reward: given\.rm=null, and .*; set given\.rm to",
    ),
    wrong(
        "method=rm_ensemble method.members=1",
        r"^method\.members=1: must be at least 2; set method\.members=2 or more",
    ),
    wrong(
        "method=rm_ensemble method.std_coef=0.5",
        r"^method\.std_coef=0\.5: must be null for method\.combine=min, .*; set method\.std_coef=null or",
    ),
    wrong(
        "method=ppo method@upstream.rm=rm_ensemble upstream.rm.combine=mean_minus_std",
        r"^upstream\.rm\.std_coef=null: must be a number for upstream\.rm\.combine=mean_minus_std; set upst",
    ),
    wrong(
        "method=ppo method@upstream.rm=rm_ensembl",
        r"^method=rm_ensembl: there is no such method; did you mean rm_ensemble\?",
    ),
    # Methods without a critic
    wrong(
        "method=grpo method.samples_per_prompt=1",
        r"^method\.samples_per_prompt=1: must be at least 2, for estimator=grpo compares .*"
        r"set method\.samples_per_prompt=4, or method\.estimator=reinforce",
    ),
    wrong(
        "method=reinforce method.samples_per_prompt=1 method.reward=judge method/judge=world "
        "method.reward_std=null",
        r"^method\.samples_per_prompt=1: .* a judge compares .*set method\.samples_per_prompt=4, or .*=model",
    ),
    wrong(
        "method=rloo method.samples_per_prompt=5",
        r"^method\.optim\.batch_size=64: must be a multiple of the 5 responses to a prompt, .*"
        r"set method\.optim\.batch_size=60",
    ),
    wrong(
        "method=rloo method.rollouts_per_step=96",
        r"^method\.rollouts_per_step=96: must be a multiple of method\.optim\.batch_size=64; set .*=64 or",
    ),
    wrong(
        "method=rloo cluster.processes=3 method.optim.batch_size=40 method.rollouts_per_step=120",
        r"^method\.optim\.batch_size=40: must be a multiple of the 3 processes times 4 responses, .*=36 or",
    ),
    wrong(
        "method=grpo method.kl_estimator=k1",
        r"^method\.kl_estimator=k1: must be k2 or k3 with method\.kl_placement=loss: .* ignores the "
        r"reference; set method\.kl_estimator=k2, or method\.kl_placement=reward",
    ),
    wrong(
        "method=grpo method.kl_estimator=clamped",
        r"^method\.kl_estimator=clamped: must be k2 or k3 with method\.kl_placement=loss",
    ),
    wrong(
        "method=rloo method.kl_estimator=k3",
        r"^method\.kl_estimator=k3: must be k1 or clamped with method\.kl_placement=reward",
    ),
    wrong(
        "method=reinforce method.clip_high=0.28",
        r"^method\.clip_high=0\.28: must be null where method\.clip=null .*; set method\.clip=0\.2",
    ),
    wrong(
        "method=rloo method.reward=judge method.reward_std=null",
        r"^method\.judge=null: method\.reward=judge needs one; choose it with method/judge=world, or",
    ),
    wrong(
        "method=rloo method/judge=world",
        r"^method\.judge=.*: method\.reward=model asks no judge; set method\.reward=judge, or",
    ),
    wrong(
        "method=rloo method.reward=judge method/judge=world",
        r"^method\.reward_std=0\.0335: no deviation is known .*; set method\.reward_std=null",
    ),
    wrong(
        "method=rloo method.reward=judge method.judge={{kind:recorded,path:x}} method.reward_std=null",
        r"^method\.judge\.kind=recorded: .* yet to be sampled; set method/judge=world",
    ),
    wrong(
        f"method=rloo {FILES} feedback=human data.preferences={{pairs}} eval/judge=reward "
        "method.reward=judge method/judge=world method.reward_std=null",
        r"^method\.judge\.kind=world: .*data=world, and this run has others",
    ),
    wrong(
        "method=online_dpo method.annotator=judge method.missing_eos_penalty=0",
        r"^method\.judge=null: method\.annotator=judge needs one; .*, or set method\.annotator=reward",
    ),
    wrong(
        "method=online_dpo method.annotator=judge method/judge=world",
        r"^method\.missing_eos_penalty=1\.0: method\.annotator=judge gives no scores .*; set .*penalty=0",
    ),
    wrong(
        "method=online_dpo method.optim.batch_size=63",
        r"^method\.optim\.batch_size=63: must be a multiple of the 2 responses to a prompt, .*=62",
    ),
    wrong(
        "method=sft eval/judge=api eval.judge.kind=asked",
        r"^eval\.judge\.kind=asked: is what a plan makes of kind=api or .*; set eval\.judge\.kind=api",
    ),
    # Local judges
    wrong(
        "method=rm feedback/judge=local feedback.judge.path={nothing}",
        r"^feedback\.judge\.path=/.*nothing: there is no such folder .*; set feedback\.judge\.path to",
    ),
    wrong(
        "method=sft eval/judge=local eval.judge.path={model} eval.judge.prompt=pair",
        r"^eval\.judge\.prompt=pair: there is no such prompt .*known: .*pairwise; or name a file",
    ),
    # Judges behind an API
    wrong(
        "method=rm feedback/judge=api feedback.judge.extra={{max_tokens:-5}}",
        r"^feedback\.judge\.extra\.max_tokens=-5: must be a whole number from 1 to 10,000,000; set .*=16",
    ),
    wrong(
        "method=rm feedback/judge=api feedback.judge.extra={{top_p:nan}}",
        r"^feedback\.judge\.extra\.top_p=.*: cannot be sent as JSON \(.*\); set feedback\.judge\.extra",
    ),
    wrong(
        "method=rm feedback/judge=api feedback.judge.max_tokens=99999999999999999999",
        r"^feedback\.judge\.max_tokens=9+: must be at most 1",
    ),
    wrong("method=rm budget.max_usd=1e300", r"^budget\.max_usd=1e\+300: must be at most 1"),
    wrong(
        "method=rm feedback=human feedback/judge=people feedback.judge.labels_per_pair=99999999999999999999",
        r"^feedback\.judge\.labels_per_pair=9+: must be at most 10000; set",
    ),
    # Pools
    wrong(
        "method=rm feedback/judge=noisy feedback.judge.members.noisy.noise.flip=1.5",
        r"^feedback\.judge\.members\.noisy\.noise\.flip=1\.5: must be at most 1; set .*flip=1 or less",
    ),
    wrong(
        "method=rm feedback/judge=noisy feedback.judge.members.noisy.noise.drift=-0.5",
        r"^feedback\.judge\.members\.noisy\.noise\.drift=-0\.5: with feedback\.judge\.members\.noisy\.noise\."
        r"flip=0\.1 .*; set feedback\.judge\.members\.noisy\.noise\.drift between -0\.1 and 0\.9",
    ),
    wrong(
        "method=rm feedback/judge=noisy ~feedback.judge.members.noisy.noise",
        r"^feedback\.judge\.members\.noisy\.noise is missing: .*; set feedback\.judge\.members\.noisy\.noise",
    ),
    wrong(
        "method=rm feedback/judge=noisy feedback.judge.members.noisy.weight=0",
        r"^feedback\.judge\.members\.noisy\.weight=0: must be greater than 0; set .* above 0",
    ),
    wrong(
        "method=rm feedback/judge=noisy feedback.judge.members.noisy.weight=1e308",
        r"^feedback\.judge\.members\.noisy\.weight=1e\+308: must be at most 1000000000; set",
    ),
    wrong(
        "method=rm feedback/judge=noisy feedback.judge.members.noisy.judge.kind=pool",
        r"^feedback\.judge\.members\.noisy\.judge\.kind=pool: must be .*world",
    ),
    wrong(
        "method=rm feedback/judge=noisy feedback.judge.members.noisy.judge.kind=reward "
        "~feedback.judge.members.noisy.judge.pool ~feedback.judge.members.noisy.judge.pool_seed "
        "+feedback.judge.members.noisy.judge.soft=true",
        r"^feedback\.judge\.members\.noisy\.judge\.kind=reward: given\.rm=null, .*; set given\.rm to",
    ),
    wrong(
        f"method=rm {FILES} feedback/judge=pool data.preference={{rows}} eval=none",
        r"^feedback\.judge\.members\.plain\.judge\.kind=world: .*; set feedback/judge=reward or",
    ),
    wrong(
        "method=rloo method.reward=judge method.reward_std=null "
        "method.judge={{kind:pool,members:{{a:{{weight:1.0,judge:{{kind:reward,soft:true}},noise:null}}}}}}",
        r"^method\.judge\.kind=pool: its members must not run models on this machine",
    ),
    # Machines
    wrong(
        "method=sft cluster.zero.stage=0 model.dtype=bfloat16",
        r"^cluster\.zero\.stage=0 with model\.dtype=bfloat16 .*; set",
    ),
    wrong(
        "method=sft cluster.zero.stage=2 cluster.zero.offload.parameters=cpu",
        r"^cluster\.zero\.offload\.parameters=cpu needs stage 3 and .* set cluster\.zero\.stage=3 or",
    ),
    wrong(
        "method=sft cluster.zero.stage=3 cluster.zero.offload.parameters=nvme",
        r"^cluster\.zero\.offload\.nvme_path=null .*; set cluster\.zero\.offload\.nvme_path to a folder",
    ),
    wrong(
        "method=sft cluster.launcher=moon:Base",
        r"^cluster\.launcher=moon:Base cannot be loaded .* such as launchers\.local:",
    ),
    wrong(
        "method=sft cluster.launcher=pathlib:Path",
        r"^cluster\.launcher=pathlib:Path is no launcher \(it has no at_once, room, submit, wait, cancel\);",
    ),
    wrong(
        "method=sft cluster.launcher=launchers.local:Lokal",
        r"^cluster\.launcher=launchers\.local:Lokal cannot be loaded",
    ),
    # Files and folders
    wrong("method=sft model=path", r"^model\.path is missing: a value is required; set model\.path=VALUE"),
    wrong(
        "method=sft model=path model.path={nothing}",
        r"^model\.path=/.*nothing: there is no such folder .*; set model\.path to",
    ),
    wrong(
        "method=sft model=path model.path={empty}",
        r"^model\.path=/.*empty: .*neither config\.json nor .*; set model\.path to",
    ),
    wrong(
        "method=ppo given.sft={nothing}",
        r"^given\.sft=/.*nothing: there is no such folder .*; set given\.sft to a folder",
    ),
    wrong(
        "method=ppo given.rm={empty}", r"^given\.rm=/.*empty: .*neither config\.json nor .*; set given\.rm to"
    ),
    wrong(
        "method=rm given.pairs={nothing}",
        r"^given\.pairs=/.*nothing: there is no such file; set given\.pairs to",
    ),
    wrong(
        "method=sft given.sft={model}",
        r"^given\.sft=/.*model: method=sft would make it, .*; leave given\.sft out or",
    ),
    wrong(
        "method=rm_ensemble given.rm={model}",
        r"^given\.rm=/.*model: method=rm_ensemble would make it, .*; leave given\.rm out or",
    ),
    wrong(
        "method=sft data=files model=scratch eval=none",
        r"^data\.sft=null: the plan needs the sft split; set data\.sft to",
    ),
    wrong(
        f"method=sft {FILES} data.sft={{nothing}} eval=none",
        r"^data\.sft=/.*nothing: there is no such file; set data\.sft to",
    ),
    wrong(
        f"method=sft {FILES} model=world feedback=human",
        r"^model\.name=world: data\.kind=files, and .*; set model=scratch",
    ),
    wrong(
        f"method=sft {FILES} eval/judge=world",
        r"^eval\.judge\.kind=world: .*data=world, and this run has others; set eval/judge=",
    ),
    wrong(
        f"method=rm {FILES}",
        r"^feedback\.judge\.kind=world: .* set feedback/judge=reward or .*",
    ),
    wrong(
        f"method=rm {FILES} feedback/judge=recorded feedback.judge.path={{pairs}}",
        r"^data\.preference=null: simulated feedback answers .*; set it to a file .* or given\.pairs=FILE",
    ),
    wrong(
        "method=pretrain model=llama-7b data=alpaca_farm eval/judge=reward",
        r"^method\.name=pretrain: model\.path=huggyllama/llama-7b: .* trained already; set method=base",
    ),
    wrong(
        f"method=rm {FILES} feedback=human",
        r"^feedback=human .*data\.preferences=null: name a file .*data\.preferences or given\.pairs, "
        r"have people judge pairs with feedback/judge=people, or use data=world",
    ),
    # People
    wrong(
        f"method=rm {FILES} feedback=human feedback/judge=people",
        r"^data\.preference=null: simulated feedback answers .*; set it to a file",
    ),
    wrong(
        f"method=rm {FILES} data.preference={{rows}} data.preferences={{pairs}} feedback=human "
        "feedback/judge=people",
        r"^feedback\.judge\.kind=people: data\.preferences=/.* has .* already; set data\.preferences=null to",
    ),
    wrong(
        "method=rm feedback=human feedback/judge=people feedback.flip_probability=0.25",
        r"^feedback\.flip_probability=0\.25: must be 0 where people judge: .*; set feedback\.flip",
    ),
    wrong(
        "method=rm feedback=human feedback/judge=people feedback.judge.pairs=0",
        r"^feedback\.judge\.pairs=0: must be at least 1; set feedback\.judge\.pairs=1 or more",
    ),
    wrong(
        "method=rm feedback=human feedback/judge=people feedback.judge.count=all",
        r"^feedback\.judge\.count=all: must be majority or mean; set feedback\.judge\.count=",
    ),
    wrong(
        "method=rm feedback=sim feedback/judge=people",
        r"^feedback\.judge\.kind=people: must be world, .*reward.*; set feedback\.judge\.kind=",
    ),
    wrong("method=sft eval/judge=people", r"^eval/judge=people: there is no such eval/judge; .*known: "),
    wrong(
        f"method=sft {FILES} eval/judge=recorded eval.judge.path={{pairs}} eval.gold=true",
        r"^eval\.gold=true: only the embedded world's .*; set eval\.gold=null or",
    ),
    wrong(
        "method=sft data=alpaca_farm model=llama-7b eval=none data.expect.rows.sft=0",
        r"^data\.expect\.rows\.sft=0: must be at least 1 or .*; set data\.expect\.rows\.sft=1 or more",
    ),
    wrong(
        "method=sft data=alpaca_farm model=llama-7b eval=none data.expect.rows.preferences=[5]",
        r"^data\.expect\.rows\.preferences=\[5\]: must be a whole number or a list of 2 entries",
    ),
    wrong(
        "method=sft data=alpaca_farm model=llama-7b eval=none data.expect.disjoint=[sfd]",
        r"^data\.expect\.disjoint\.0=sfd: must be pretrain, sft, .*; set data\.expect\.disjoint\.0=sft",
    ),
    wrong(
        "method=sft model=world model.prompt=chat",
        r"^model\.prompt=chat: needs a chat template, .*; set model\.prompt=short",
    ),
    wrong(
        "method=rm data=alpaca_farm model=llama-7b eval=none "
        "data.simulated_preferences=alpaca_gpt_preference",
        r"^data\.simulated_preferences=alpaca_gpt_preference: there is no such file, and the data set has no "
        r".*; did you mean alpaca_gpt4_preference\?; known: alpaca_gpt4_preference, alpaca_human_preference, "
        r"alpaca_noisy_multi_preference; or set data\.simulated_preferences to a file of them$",
    ),
    wrong(
        "method=rm data=alpaca_farm model=llama-7b eval=none feedback=human data.preferences=human.json",
        r"^data\.preferences=human\.json: there is no such file, and .*known: alpaca_gpt4_preference, ",
    ),
    # Saved specs
    wrong(
        "spec={nothing}",
        r"^spec=/.*nothing: cannot be read as JSON \(.*No such file.*\); name the spec\.json of a run",
    ),
    wrong(
        "spec={text}", r"^spec=/.*text\.txt: cannot be read as JSON .*; name the spec\.json of a run folder"
    ),
    wrong(
        "spec={list}", r"^spec=/.*list\.json: must hold one JSON object; name the spec\.json of a run folder"
    ),
    wrong(
        "spec={text} method=sft cluster=local",
        r"^spec=/.*: a saved spec has its groups already; leave method=sft, cluster=local out",
    ),
    # Judges behind an API
    wrong(
        "method=ppo feedback/judge=api feedback.judge.prompt=pairwize",
        r"^feedback\.judge\.prompt=pairwize: there is no such prompt and no file .*known: pairwise; or name",
    ),
    wrong(
        "method=ppo eval/judge=api eval.judge.prompt={text}",
        r"^eval\.judge\.prompt=/.*text\.txt: it has \{instruction\} 0 times, .*; set another prompt",
    ),
    wrong(
        "method=ppo eval/judge=api eval.judge.answer=number",
        r"^eval\.judge\.answer=number: must be label, json, tool or logprobs; set eval\.judge\.answer=",
    ),
    wrong(
        "method=ppo eval/judge=api eval.judge.temperature=-1",
        r"^eval\.judge\.temperature=-1: must be at least 0",
    ),
    wrong(
        "method=ppo eval/judge=api eval.judge.max_tokens=0", r"^eval\.judge\.max_tokens=0: must be at least 1"
    ),
    wrong(
        "method=ppo eval/judge=api eval.judge.extra={{model:x,stream:true}}",
        r"^eval\.judge\.extra\.model=x: is no parameter to add; leave eval\.judge\.extra\.model out",
        r"^eval\.judge\.extra\.stream=true: is no parameter to add; leave",
    ),
    wrong(
        "method=ppo eval/judge=api eval.judge.model=gpt-5000",
        r"^model gpt-5000: its price is unknown, and none is guessed; .*set api\.prices=FILE",
    ),
    wrong(
        "method=ppo eval/judge=alpaca_eval eval.judge.name=alpaca_eval_gpt5",
        r"^eval\.judge\.name=alpaca_eval_gpt5: there is no such annotator; did you mean alpaca_eval_gpt4",
    ),
    wrong(
        "method=ppo feedback/judge=alpaca_eval feedback.judge.name=claude feedback.judge.model=null",
        r"^feedback\.judge\.name=claude: .*through anthropic_completions, .*; set feedback\.judge\.model to",
    ),
    wrong(
        "method=rloo method.reward=judge method/judge=alpaca_eval method.reward_std=null "
        "method.judge.name=alpaca_farm",
        r"^method\.judge\.name=alpaca_farm: it has several annotators; name one of them: alpaca_farm/gpt4_1",
    ),
    # Endpoints, prices and budget
    wrong(
        "method=sft api.endpoints.openai.base_url=http://me:secret@host/v1",
        r"^api\.endpoints\.openai\.base_url=\.\.\.: must be http\(s\)://HOST.* without user, password",
    ),
    wrong(
        "method=sft api.endpoints.openai.base_url=localhost:8000",
        r"^api\.endpoints\.openai\.base_url=\.\.\.: ",
    ),
    wrong(
        "method=sft api.endpoints.openai.concurrency=0",
        r"^api\.endpoints\.openai\.concurrency=0: must be at least 1; set ",
    ),
    wrong(
        "method=sft api=opnai",
        r"^api=opnai: there is no such api; did you mean openai\?; known: local, openai",
    ),
    wrong(
        "method=sft +api.endpoints.own={{free:true}}",
        r"^api\.endpoints\.own\.base_url is missing: a value is required",
    ),
    wrong("method=sft api.prices={nothing}", r"^api\.prices=/.*nothing: cannot be read \(.*No such file"),
    wrong("method=sft api.prices={list}", r"^api\.prices=/.*list\.json: must hold `MODEL: "),
    wrong("method=sft budget.max_usd=-1", r"^budget\.max_usd=-1: must be at least 0; set budget\.max_usd=0"),
    wrong("method=sft budget.max_calls=1.5", r"^budget\.max_calls=1\.5: must be a whole number; set"),
    # Hydra's grammar
    wrong("method=sft seed=[1", r"^seed=\[1: cannot be read .*; write KEY=VALUE"),
    wrong("method=sft seed=1,2", r"^Ambiguous value for argument 'seed=1,2'; .*add --multirun"),
    wrong("method=sft name=${{nmae}}", r"^name: Interpolation key 'nmae' not found; `--cfg job` prints"),
    # Several at once
    wrong("method=sft seed=-1 method.epochs=0", r"^seed=-1: ", r"^method\.epochs=0: "),
    wrong("method=sft kl_coef=0.1 seed=-1 sead=2", r"^sead=2: ", r"^kl_coef=0\.1: method=sft", r"^seed=-1: "),
    wrong("method=sft sead=1 metod=ppo", r"^sead=1: .*mean seed", r"^metod=ppo: .*mean method"),
    wrong("method=ppo given.sft={nothing} given.rm={empty}", r"^given\.sft=", r"^given\.rm="),
    wrong(
        "method=ppo data=files model=scratch eval=none given.pairs={pairs}",
        r"^data\.sft=null: ",
        r"^data\.unlabeled=null: ",
    ),
    wrong(
        "method=ppo given.sft={nothing} cluster.zero.stage=0 model.dtype=bfloat16 cluster.launcher=moon:Base",
        r"^given\.sft=",
        r"^cluster\.zero\.stage=0",
        r"^cluster\.launcher=moon:Base",
    ),
    wrong("-m method=sft seed=1,-1,-2", r"^seed=-1: must be at least 0", r"^seed=-2: must be at least 0"),
    wrong(
        "-m method=sft,ppo kl_coef=0.1,-1",
        r"^kl_coef=0\.1: method=sft",
        r"^kl_coef=-1: method=sft",
        r"^kl_coef=-1: must",
    ),
]
