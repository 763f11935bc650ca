"""The environments: noise that is the same in both places it is seen, and episodes that end for the right reason."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.distractors import Distractors
from envs.gymnax import GymnaxEnvironment
from envs.make import make_environment
from mbrl_taskmet import Config
from mbrl_taskmet.rl.environment import (
    Environment,
    EnvironmentSettings,
    State,
    Step,
    UnsupportedEnvironment,
    check_environment,
)
from mbrl_taskmet.rl.spaces import Discrete
from mbrl_taskmet.rl.training import resolved

NOISE = 8


class Countdown(Environment):
    """Counts down from 3; the time limit cuts it at 0 if the last action was 0, and it ends by itself if that was 1."""

    name, state_names, action_space, max_episode_steps = "countdown", ("left",), Discrete(2), 3

    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        return jnp.int32(3), jnp.full(1, 3.0)

    def transition(self, key: jax.Array, state: State, action: jax.Array) -> tuple[Any, ...]:
        left = state - 1
        return left, left[None].astype(float), jnp.ones(()), (left == 0) & (action == 1), (left == 0) & (action == 0)


@pytest.fixture(scope="module")
def cartpole() -> GymnaxEnvironment:
    return GymnaxEnvironment("CartPole-v1")


def rollout(env: Environment, actions: jax.Array, key: jax.Array) -> tuple[jax.Array, Step]:
    """The first observation, and every `Step`, stacked."""
    reset_key, key = jax.random.split(key)
    state, first = env.reset(reset_key)

    def move(state: State, at: tuple[jax.Array, jax.Array]) -> tuple[State, Step]:
        return env.step(jax.random.fold_in(key, at[0]), state, at[1])

    return first, jax.jit(lambda: jax.lax.scan(move, state, (jnp.arange(actions.size), actions))[1])()


@pytest.fixture(scope="module")
def noisy(cartpole: GymnaxEnvironment) -> tuple[jax.Array, Step]:
    """2000 steps of CartPole with distractors, always pushing left, so that an episode lasts about ten."""
    return rollout(Distractors(cartpole, NOISE), jnp.zeros(2000, int), jax.random.key(1))


def test_an_environment_of_ones_own_starts_anew_after_its_end() -> None:
    actions = jnp.array([0, 0, 1, 0, 0, 0, 1])
    _, steps = rollout(check_environment(Countdown()), actions, jax.random.key(0))
    np.testing.assert_array_equal(steps.next_observation[:, 0], [2, 1, 0, 2, 1, 0, 2])
    np.testing.assert_array_equal(steps.observation[:, 0], [2, 1, 3, 2, 1, 3, 2])
    np.testing.assert_array_equal(jnp.flatnonzero(steps.terminated), [2])
    np.testing.assert_array_equal(jnp.flatnonzero(steps.truncated), [5])


def test_an_environment_without_reset_or_transition_says_which_is_missing() -> None:
    class Nothing(Environment):
        pass

    with pytest.raises(NotImplementedError, match="Nothing does not say how an episode starts"):
        Nothing().reset(jax.random.key(0))
    with pytest.raises(NotImplementedError, match="Nothing does not say how it moves"):
        Nothing().transition(jax.random.key(0), (), jnp.int32(0))


def test_distractors_come_after_the_state_and_leave_it_alone(cartpole: GymnaxEnvironment, noisy: tuple[Any, Step]) -> None:
    env = Distractors(cartpole, NOISE)
    assert (env.observation_size, env.state_names, env.action_space) == (4 + NOISE, cartpole.state_names, Discrete(2))
    assert env.max_episode_steps == cartpole.max_episode_steps == 500
    first, steps = noisy
    before = jnp.concatenate([first[None], steps.observation[:-1]])
    after = steps.next_observation
    # CartPole is explicit Euler: positions move by 0.02 times the velocities of the observation before
    np.testing.assert_allclose(after[:, [0, 2]], before[:, [0, 2]] + 0.02 * before[:, [1, 3]], atol=1e-6)


def test_the_noise_stored_is_the_noise_the_next_step_sees_also_across_a_reset(noisy: tuple[Any, Step]) -> None:
    steps = noisy[1]
    assert int(steps.terminated.sum()) > 100
    np.testing.assert_array_equal(steps.observation[:, 4:], steps.next_observation[:, 4:])
    np.testing.assert_array_equal(
        jnp.any(steps.observation[:, :4] != steps.next_observation[:, :4], axis=1), steps.terminated | steps.truncated
    )


def test_the_noise_is_standard_normal_and_fresh(noisy: tuple[Any, Step]) -> None:
    noise = np.asarray(noisy[1].observation[:, 4:])
    count = noise.size  # 16 000 independent values, so a mean has deviation 1/√count; 5 of them leave a chance of 6e-7
    bound = 5 / count**0.5
    assert abs(noise.mean()) < bound
    assert abs((noise**2).mean() - 1) < bound * 2**0.5
    assert abs((noise**4).mean() - 3) < bound * 96**0.5
    correlations = np.corrcoef(np.hstack([noise[1:], noise[:-1]]).T)  # between dimensions, and from step to step
    assert np.abs(correlations - np.eye(2 * NOISE)).max() < 5 / len(noise) ** 0.5


def test_no_distractors_change_nothing_and_fewer_are_refused(cartpole: GymnaxEnvironment) -> None:
    assert Distractors(cartpole, 0).observation_size == 4
    assert Distractors(cartpole, 0).name == "CartPole-v1"
    assert Distractors(cartpole, 3).name == "CartPole-v1 with 3 distractors"
    with pytest.raises(UnsupportedEnvironment, match="distractors is -1; give 0 or more"):
        Distractors(cartpole, -1)


def test_cartpole_terminates_when_it_falls_and_keeps_the_observation_before_the_reset(noisy: tuple[Any, Step]) -> None:
    steps = noisy[1]
    fallen = steps.terminated
    angle, position = jnp.abs(steps.next_observation[:, 2]), jnp.abs(steps.next_observation[:, 0])
    limit = 12 * 2 * jnp.pi / 360
    np.testing.assert_array_equal(fallen, (angle > limit) | (position > 2.4))
    assert not steps.truncated.any()
    assert jnp.abs(steps.observation[fallen, :4]).max() <= 0.05  # where CartPole starts
    assert (steps.reward == 1).all()


def test_cartpole_is_cut_at_500_steps_without_terminating(cartpole: GymnaxEnvironment) -> None:
    def balance(carry: tuple[State, jax.Array], key: jax.Array) -> tuple[tuple[State, jax.Array], Step]:
        state, seen = carry
        # push towards where the pole falls, and lean against the cart's drift
        push = seen[2] + 0.2 * seen[3] + 0.02 * seen[0] + 0.05 * seen[1] > 0
        state, step = cartpole.step(key, state, push.astype(int))
        return (state, step.observation), step

    @jax.jit
    def run() -> Step:
        start = cartpole.reset(jax.random.key(2))
        return jax.lax.scan(balance, start, jax.random.split(jax.random.key(3), 1001))[1]

    steps = run()
    assert not steps.terminated.any()
    np.testing.assert_array_equal(jnp.flatnonzero(steps.truncated), [499, 999])
    assert jnp.abs(steps.observation[499]).max() <= 0.05
    assert not jnp.array_equal(steps.observation[499], steps.next_observation[499])


def test_an_environment_gives_floats_of_the_precision_in_use(cartpole: GymnaxEnvironment) -> None:
    for wide, dtype in ((False, np.dtype(np.float32)), (True, np.dtype(np.float64))):
        with jax.enable_x64(wide):
            state, observation = cartpole.reset(jax.random.key(0))
            step = cartpole.step(jax.random.key(1), state, jnp.int32(0))[1]
        assert {observation.dtype, step.next_observation.dtype, step.reward.dtype} == {dtype}
        assert {step.terminated.dtype, step.truncated.dtype} == {jnp.dtype(bool)}


def test_an_environment_whose_dimensions_have_no_names_numbers_them() -> None:
    env = GymnaxEnvironment("FourRooms-misc")
    assert env.state_names == tuple(f"dimension_{i}" for i in range(env.observation_size))


def test_settings_of_a_run_name_the_environment_as_it_was_made() -> None:
    env = make_environment("CartPole-v1", 3)
    assert env.name == "CartPole-v1 with 3 distractors"
    assert resolved(env, Config()).environment == env.made_of == EnvironmentSettings(name="CartPole-v1", distractors=3)


def test_the_noise_that_an_environment_of_ones_own_has_is_not_added_again() -> None:
    env = make_environment("runs.subspace:Off0")
    assert env.observation_size == 36 and env.state_size == 4
    assert resolved(env, Config(method="model_free")).environment == env.made_of
