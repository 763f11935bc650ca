"""One more option, metric, critic, method or solver is one line where it belongs: flags, refusals and saved runs follow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from envs.probes import Walk
from mbrl_taskmet.core.linear_solve import SOLVERS, Identity, Operator, Vector
from mbrl_taskmet.core.metric import METRICS, Diagonal, Metric
from mbrl_taskmet.core.settings import ConfigError, setting
from mbrl_taskmet.rl.critics import CRITICS, Critic, SoftQ, SoftQSettings
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.methods import METHODS
from mbrl_taskmet.rl.methods.mle import MLE, MLESettings
from mbrl_taskmet.rl.replay import Transitions
from mbrl_taskmet.rl.settings import Config, Settings, read_saved
from mbrl_taskmet.rl.spaces import ActionSpace
from mbrl_taskmet.runner.command import Parser
from mbrl_taskmet.runner.rundir import to_json


def parser() -> Parser:
    """The parser of an agent's flags."""
    made = Parser(prog="agent")
    made.add_settings(Settings)
    return made


def words() -> str:
    """What `--help` says, on one line."""
    return " ".join(parser().format_help().split())


def given(*argv: str) -> dict[str, Any]:
    return parser().read(list(argv))[0]


def reread(names: Mapping[str, Any]) -> Settings:
    """What is read of a run that was saved with settings by these names."""
    return read_saved(json.loads(json.dumps(to_json(names))))


def without(names: Mapping[str, Any], *left_out: str) -> dict[str, Any]:
    return {name: value for name, value in names.items() if name not in left_out}


@pytest.mark.parametrize("before", [None, 2.0])
def test_adding_one_option_of_the_metric_is_one_line_in_one_file(before: float | None, monkeypatch: Any) -> None:
    older = Config().resolve().names
    how = {} if before is None else {"before": before}

    @dataclass(frozen=True, kw_only=True)
    class Powered(Diagonal):
        """`Diagonal` with one line more."""

        power: float = setting(1.5, "power to which weights are raised", flag="metric_power", above=0, **how)

    monkeypatch.setitem(METRICS, "diagonal", Powered)

    assert "--metric-power X power to which weights are raised (default: 1.5)" in words()
    assert given("--metric-power", "3") == {"metric_power": 3.0}
    with pytest.raises(ConfigError, match=r"invalid float value: 'x'.*--help"):
        given("--metric-power", "x")

    settings = Config(**given("--metric-power", "3", "--metric-input", "state")).resolve()
    assert settings.method.metric.power == settings.names["metric_power"] == 3.0  # type: ignore[attr-defined]
    assert make_method(Walk(), settings).settings.metric.power == 3.0
    assert Config().resolve().names["metric_power"] == 1.5
    with pytest.raises(ConfigError, match=r"^--metric-power is 0\.0; give a finite number above 0$"):
        Config(metric_power=0).resolve()
    with pytest.raises(ConfigError, match=r"^--metric-power is 'x'; give a number$"):
        Config(metric_power="x").resolve()
    with pytest.raises(ConfigError, match=r"^--metric-power 3\.0 does nothing for --metric full; .* or use --metric diagonal$"):
        Config(metric="full", metric_power=3.0).resolve()
    with pytest.raises(ConfigError, match=r"^--metric-power 3\.0 does nothing for --method mle; .* or use --method taskmet$"):
        Config(method="mle", metric_power=3.0).resolve()

    assert reread(settings.names) == settings
    assert "metric_power" not in older
    assert reread(older) == Config(metric_power=before or 1.5).resolve()
    config = {name: value for name, value in older.items() if name not in ("env", "distractors", "critic")}
    format_1 = {"format": 1, "environment": "CartPole-v1", "distractors": 0, "config": config}
    assert read_saved(format_1) == reread(older)


def test_one_more_metric_is_its_class_and_a_line_in_the_registry(monkeypatch: Any) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Ramp(Metric):
        """Weights that rise with the dimension; φ is their common factor."""

        slope: float = setting(1.0, "rise of the weights", flag="metric_slope", low=0)

        def start(self, size: int) -> jax.Array:
            return jnp.ones(1)

        def semidefinite(self, raw: jax.Array, size: int) -> jax.Array:
            return jax.nn.softplus(raw[0]) * (1 + self.slope * jnp.arange(size))

    monkeypatch.setitem(METRICS, "ramp", Ramp)
    assert "--metric NAME parametrisation of the learned metric: scalar, diagonal, full, ramp (default: diagonal)" in words()
    assert "--metric-slope X rise of the weights (default: 1.0)" in words()
    settings = Config(**given("--metric", "ramp", "--metric-slope", "2", "--metric-floor", "0.1")).resolve()
    assert settings.method.metric == Ramp(slope=2.0, floor=0.1)  # type: ignore[attr-defined]
    assert reread(settings.names) == settings
    method = make_method(Walk(), settings)

    def start(key: jax.Array) -> jax.Array | None:
        batch = Transitions(jnp.zeros((3, 1)), jnp.zeros((3, 2)), jnp.zeros(3), jnp.zeros(3), jnp.zeros((3, 1)))
        return method.metric_diagonal(method.init(key), batch)

    assert jax.eval_shape(start, jax.random.key(0)).shape == (1,)


def test_one_more_critic_is_its_class_and_a_line_in_the_registry(monkeypatch: Any) -> None:
    class Timid(SoftQ):
        """Values less what they are afraid of."""

        def value(self, bootstrap: Any, observation: jax.Array) -> jax.Array:
            return super().value(bootstrap, observation) - self.settings.fear  # type: ignore[attr-defined]

    @dataclass(frozen=True, kw_only=True)
    class TimidSettings(SoftQSettings):
        """What it is afraid of."""

        fear: float = setting(1.0, "taken from every value", low=0)

        def make(self, observation_size: int, action_space: ActionSpace) -> Critic:
            return Timid(observation_size, action_space, self)

    monkeypatch.setitem(CRITICS, "timid", TimidSettings)
    assert "soft_q, sac, timid (default: soft_q)" in words()
    assert "--fear X taken from every value (default: 1.0)" in words()
    env, config = Walk(), Config(**given("--critic", "timid", "--fear", "2"))
    settings = config.resolve(env.action_space)
    assert settings.critic == TimidSettings(fear=2.0) and reread(settings.names) == settings
    assert Config(fear=2).resolve(env.action_space) == settings  # only one critic has fear
    assert Config().resolve(env.action_space).critic == SoftQSettings()
    with pytest.raises(ConfigError, match=r"--fear 2 does nothing for --critic soft_q; .* or use --critic timid"):
        Config(critic="soft_q", fear=2).resolve()
    timid, soft = (make_method(env, Config(critic=name).resolve()).critic for name in ("timid", "soft_q"))
    state = soft.init(jax.random.key(0))
    bootstrap, observation = soft.bootstrap(state, jax.random.key(1)), jnp.ones((4, 1))
    assert jnp.allclose(timid.value(bootstrap, observation), soft.value(bootstrap, observation) - 1)


def test_one_more_method_is_its_class_and_a_line_in_the_registry(monkeypatch: Any) -> None:
    class Twice(MLE):
        """MLE that forgets."""

    @dataclass(frozen=True, kw_only=True)
    class TwiceSettings(MLESettings):
        """How fast it forgets."""

        rate: float = setting(0.5, "share that is forgotten", flag="forget_rate", low=0, high=1)

        def make(self, env: Environment, critic: Critic) -> Twice:
            return Twice(self, self.model.make(env), critic)

    monkeypatch.setitem(METHODS, "twice", TwiceSettings)
    assert "model_free, twice (default: taskmet)" in words()
    assert "--forget-rate X share that is forgotten (default: 0.5)" in words()
    settings = Config(**given("--method", "twice", "--forget-rate", "0.25", "--model-lr", "0.5")).resolve()
    assert settings.names["forget_rate"] == 0.25 and settings.names["model_lr"] == 0.5
    assert reread(settings.names) == settings
    assert isinstance(make_method(Walk(), settings), Twice)
    with pytest.raises(ConfigError, match=r"--forget-rate is 2\.0; give a number from 0 to 1"):
        Config(method="twice", forget_rate=2).resolve()
    with pytest.raises(ConfigError, match=r"--forget-rate 1 does nothing for --method taskmet; .* or use --method twice"):
        Config(forget_rate=1).resolve()
    with pytest.raises(ConfigError, match=r"--model-lr 1 does nothing for --method model_free; .* or itervaml or twice"):
        Config(method="model_free", model_lr=1).resolve()


def test_one_more_solver_is_its_class_and_a_line_in_the_registry(monkeypatch: Any) -> None:
    @dataclass(frozen=True)
    class Part(Identity):
        """u = share·g."""

        share: float = setting(0.5, "part of the gradient that is taken", flag="solver_share", low=0, high=1)

        def solve(self, operator: Operator, g: Vector) -> tuple[Vector, jax.Array, int]:
            return self.share * g, jnp.linalg.norm(g - self.share * operator(g)), 1

    monkeypatch.setitem(SOLVERS, "part", Part)
    for which in ("solver", "critic-solver"):
        assert f"--{which}-share X part of the gradient that is taken (default: 0.5)" in words()
    settings = Config(**given("--solver", "part", "--critic-solver", "part", "--critic-solver-share", "0.25")).resolve()
    method = make_method(Walk(), settings).settings
    assert (method.solver, method.critic_solver) == (Part(), Part(share=0.25))
    assert reread(settings.names) == settings
    solution = method.critic_solver(lambda v: 2 * v, jnp.array([4.0]))
    assert (solution.value[0], solution.residual) == (1.0, 0.5)
    with pytest.raises(ConfigError, match=r"--solver-share 1 does nothing for --solver minres; .* or use --solver part"):
        Config(solver_share=1).resolve()
