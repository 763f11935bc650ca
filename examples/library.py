"""Training from Python: one setting, then a sweep of several in one program."""

# --8<-- [start:train]
from envs import make_environment
from mbrl_taskmet import Config, train

env = make_environment("CartPole-v1", distractors=8)
result = train(env, Config(method="taskmet", steps=2000, seeds=2, metric_warmup=1000))
print(result.steps, result.returns)  # (evaluations,), (seeds, evaluations)
metric = result.reports.metric_diagonal  # None for a method without a metric
print(metric if metric is None else metric[:, -1])  # at the end, (seeds, dimensions)
# --8<-- [end:train]

# --8<-- [start:sweep]
swept = train(env, Config(steps=2000), sweep={"metric_lr": [1e-3, 3e-3], "metric_floor": [0.1, 0.5]})
print(swept.numbers["metric_lr"], swept.seeds, swept.returns[:, -1])  # each (4,): which run it is, and its return
# --8<-- [end:sweep]
