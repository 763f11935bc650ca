"""The contract of an environment: what is converted, what is refused in which sentence, and a time limit that holds."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.command import main
from envs.distractors import Distractors
from envs.make import make_environment
from mbrl_taskmet import (
    Config,
    Environment,
    UnsupportedEnvironment,
    Wrapper,
    check_environment,
    run,
    train,
)
from mbrl_taskmet.rl.environment import State, Step
from mbrl_taskmet.rl.evaluation import evaluate
from tests.unit.contract_cases import REFUSED, TAKEN, Line, having, untyped

TINY: dict[str, Any] = {
    "method": "mle", "steps": 200, "eval_every": 100, "random_steps": 64, "batch_size": 32, "eval_episodes": 2,
}  # fmt: skip


def stream(env: Environment, steps: int, action: Callable[[jax.Array], Any] = lambda step: jnp.int32(0)) -> Step:
    """Steps of `env` one after the other, as training takes them, stacked."""
    key = jax.random.key(1)

    def move(state: State, step: jax.Array) -> tuple[State, Step]:
        return env.step(jax.random.fold_in(key, step), state, action(step))

    return jax.jit(lambda: jax.lax.scan(move, env.reset(jax.random.key(0))[0], jnp.arange(steps))[1])()


@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("case", TAKEN)
def test_what_can_be_converted_is_given_as_the_loop_needs_it(case: str, wide: bool) -> None:
    real, own = np.dtype(np.float64 if wide else np.float32), TAKEN[case]()
    with jax.enable_x64(wide):
        for env, size in ((check_environment(own), 1), (check_environment(Distractors(own, 3)), 4)):
            state, _ = jax.eval_shape(env.reset, jax.random.key(0))
            after, step = jax.eval_shape(env.step, jax.random.key(0), state, jnp.int32(0))
            assert after == state
            assert {step.observation.dtype, step.next_observation.dtype, step.reward.dtype} == {real}
            assert {step.terminated.dtype, step.truncated.dtype} == {np.dtype(bool)}
            assert step.observation.shape == step.next_observation.shape == (size,)
            assert {step.reward.shape, step.terminated.shape, step.truncated.shape} == {()}


def test_what_is_converted_keeps_its_values() -> None:
    counts = stream(check_environment(TAKEN["observation int32"]()), 12, lambda step: jnp.int32(1))
    np.testing.assert_array_equal(counts.next_observation[:, 0], [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2])
    np.testing.assert_array_equal(jnp.flatnonzero(counts.terminated), [4, 9])
    paid = stream(check_environment(TAKEN["reward bool"]()), 10)
    np.testing.assert_array_equal(paid.reward, [0, 0, 0, 0, 1] * 2)


@pytest.mark.parametrize("case", REFUSED)
def test_what_breaks_the_contract_is_refused_in_one_sentence(case: str) -> None:
    made, sentence = REFUSED[case]
    with pytest.raises(UnsupportedEnvironment) as refusal:
        check_environment(made())
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value) and "; " in str(refusal.value) and len(str(refusal.value)) < 400


def test_the_check_is_made_in_the_precision_of_the_run() -> None:
    def transition(self: Any, key: jax.Array, state: Any, action: jax.Array) -> Any:
        return Line.transition(self, key, state.astype(jnp.float32).view(jnp.int32).view(state.dtype), action)

    env = having(transition=transition)()
    check_environment(env)
    with pytest.raises(UnsupportedEnvironment, match=r"Own\.transition fails"):
        train(env, Config(**TINY, x64=True))


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (Line, "the environment is the class Line; give an instance of a subclass of mbrl_taskmet.Environment"),
        ("CartPole-v1", "the environment is a str; give an instance"),
    ],
)
def test_what_is_no_environment_is_refused(env: Any, sentence: str) -> None:
    with untyped(), pytest.raises(UnsupportedEnvironment, match=sentence):
        train(env, Config(**TINY))


class Louder(Wrapper):
    """A wrapper with its own `step`, which changes the reward."""

    change: Callable[[jax.Array], Any] = staticmethod(lambda reward: 2 * reward)

    def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, Step]:
        state, step = self.env.step(key, state, action)
        return state, step._replace(reward=self.change(step.reward))


def test_a_step_of_ones_own_is_taken_as_it_is_or_refused() -> None:
    env = Louder(Line())
    assert check_environment(env) is env
    np.testing.assert_array_equal(stream(env, 30).reward, 2 * stream(check_environment(Line()), 30).reward)
    for change, sentence in (
        (lambda reward: reward.astype(int), r"Louder.step's reward is int32\[\]; give float32\[\]"),
        (lambda reward: reward[None], r"Louder.step's reward is float32\[1\]; give float32\[\]"),
        (lambda reward: reward.missing, r"Louder's reset or step fails \(AttributeError: .*missing.*\); fix it"),
    ):
        loud = type("Louder", (Louder,), {"change": staticmethod(change)})(Line())
        with pytest.raises(UnsupportedEnvironment, match=sentence):
            check_environment(loud)


def test_a_wrapper_with_a_transition_nobody_would_call_is_refused() -> None:
    sticky = type("Sticky", (Wrapper,), {"transition": Line.transition})
    with pytest.raises(UnsupportedEnvironment, match="Sticky has a transition, which no Wrapper takes; override its reset and"):
        sticky(Line())


class Drift(Line):
    """Never ends by itself."""

    max_episode_steps = 50

    def transition(self, key: jax.Array, state: State, action: jax.Array) -> Any:
        return state + 0.2, (state + 0.2)[None], -jnp.abs(state), jnp.array(False), jnp.array(False)


@pytest.mark.parametrize("distractors", [None, 0, 2])
def test_the_time_limit_holds_where_the_contract_steps(distractors: int | None) -> None:
    env = check_environment(Drift()) if distractors is None else Distractors(Drift(), distractors)
    steps = stream(env, 1000)
    np.testing.assert_array_equal(jnp.flatnonzero(steps.truncated), np.arange(49, 1000, 50))
    assert not steps.terminated.any()
    np.testing.assert_allclose(steps.next_observation[:50, 0], 0.2 * np.arange(1, 51), rtol=1e-5)
    np.testing.assert_array_equal(steps.observation[49::50, 0], 0)  # the next step starts anew; the one before ended at 10
    np.testing.assert_allclose(steps.next_observation[49::50, 0], 10, rtol=1e-5)
    np.testing.assert_array_equal(steps.observation[:, 1:], steps.next_observation[:, 1:])


def test_a_costly_reset_is_cut_at_the_same_steps() -> None:
    slow = type("Slow", (Drift,), {"costly_reset": True})
    jax.tree.map(np.testing.assert_array_equal, stream(check_environment(slow()), 120), stream(check_environment(Drift()), 120))


def test_a_termination_at_the_limit_is_no_truncation() -> None:
    exact = having(max_episode_steps=5)  # five steps of 0.2 to the end
    steps = stream(check_environment(exact()), 20, lambda step: jnp.int32(1))
    np.testing.assert_array_equal(jnp.flatnonzero(steps.terminated), [4, 9, 14, 19])
    assert not steps.truncated.any()
    earlier = stream(check_environment(having(max_episode_steps=4)()), 20, lambda step: jnp.int32(1))
    np.testing.assert_array_equal(jnp.flatnonzero(earlier.truncated), [3, 7, 11, 15, 19])
    assert not earlier.terminated.any()


def test_training_sees_the_episodes_that_an_evaluation_sees() -> None:
    from mbrl_taskmet.rl.make import make_method
    from mbrl_taskmet.rl.training import Trainer

    env = Drift()
    settings = Config(**TINY).resolve(env.action_space)
    trainer = Trainer(env, make_method(env, settings), settings)
    *_, (_, carry, _) = trainer.run(trainer.init())
    kept = carry.replay
    np.testing.assert_array_equal(jnp.flatnonzero(kept.truncated[0]), [49, 99, 149, 199])
    assert not kept.terminated.any() and kept.next_state.max() < 10.1
    returns = evaluate(env, lambda key, observation: jnp.int32(0), jax.random.key(0), 2)
    np.testing.assert_allclose(returns, kept.reward[0, :50].sum(), rtol=1e-5)


@pytest.mark.parametrize("case", ["observation uint8", "both flags Python's", "state Python's", "state with a key"])
def test_what_is_taken_is_trained(case: str) -> None:
    result = train(TAKEN[case](), Config(**TINY))
    assert np.all(np.isfinite(result.returns)) and result.reports.failed_step[0, -1] == -1


def test_a_run_writes_and_goes_on_with_any_state_and_says_which_seed_failed(tmp_path: Path) -> None:
    env = TAKEN["state with an old key"]()
    done = run(env, Config(**TINY), tmp_path / "key")
    assert run(env, Config(**TINY), tmp_path / "key").rows == done.rows
    bad = run(TAKEN["reward infinite"](), Config(**{**TINY, "random_steps": 32}), tmp_path / "infinite")
    assert "turned non-finite at step" in bad.rows[-1]["failure"]


@pytest.mark.parametrize("case", ["terminated float", "no name", "state of two types", "if"])
def test_a_refusal_comes_before_anything_is_written(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, sentence = REFUSED[case]
    with pytest.raises(UnsupportedEnvironment) as refusal:
        run(made(), Config(**TINY), tmp_path / "run")
    assert sentence in str(refusal.value)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)  # JAX has started
    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(Own=made))
    assert main(None, ["--env", "mine:Own", "--method", "mle", "--logdir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("def", "mine:Own cannot be imported (invalid syntax"),
        ("raise SystemExit(3)", "mine:Own cannot be imported (3)"),
        ("import mbrl_taskmet as m\nclass Own(m.Environment):\n  action_space = m.Discrete(0)", "Discrete has n = 0; give the"),
        (
            "import mbrl_taskmet as m\nclass Own(m.Environment):\n  def __init__(self): 1 / 0",
            "cannot be made without arguments",
        ),
        ("import mbrl_taskmet as m\nclass Own(m.Environment):\n  pass", "Own has no name; give it a text"),
    ],
)
def test_a_module_that_cannot_be_used_is_refused(
    source: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(UnsupportedEnvironment) as refusal:
        make_environment("mine:Own")
    assert sentence in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--metric-warmup 2147483648", "--metric-warmup is 2147483648; give 2147483647 or less"),
        ("--steps 4294967296 --eval-every 1048576", "--steps is 4294967296; give 2147483647 or less"),
        ("--eval-episodes 4294967296", "--eval-episodes is 4294967296; give 2147483647 or less"),
    ],
)
def test_steps_are_counted_in_31_bits(flags: str, sentence: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agents.cartpole", *flags.split(), "--logdir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    assert done.returncode == 2 and sentence in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
