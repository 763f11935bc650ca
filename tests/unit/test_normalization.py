"""Observations in running standard deviations, alone and in a run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from envs.distractors import Distractors
from envs.probes import Walk
from mbrl_taskmet import Config, train
from mbrl_taskmet.rl import replay
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.normalization import LEAST_DEVIATION, Moments, deviation, include, normalize, prior
from mbrl_taskmet.rl.training import Trainer

SHORT = Config(method="mle", steps=200, eval_every=100, random_steps=64, batch_size=32, seeds=2)


def over(observations: np.ndarray) -> Moments:
    seen = jnp.asarray(observations)
    moments, _ = jax.lax.scan(lambda m, x: (include(m, x), None), prior(seen[0]), seen)
    return moments


def test_the_moments_are_those_of_the_observations_and_the_prior() -> None:
    rng = np.random.default_rng(0)
    observations = rng.normal(3.0, [0.01, 1.0, 50.0], size=(500, 3))
    with jax.enable_x64(True):
        moments = over(observations)
    # the prior is one observation of mean 0 and variance 1
    mean = observations.sum(axis=0) / 501
    variance = (1 + (observations**2).sum(axis=0)) / 501 - mean**2
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(moments.variance, variance, rtol=1e-9)


def test_normalised_observations_have_mean_zero_and_unit_deviation() -> None:
    observations = np.random.default_rng(1).normal([5.0, -2.0], [0.1, 20.0], size=(20_000, 2)).astype(np.float32)
    seen = normalize(over(observations), jnp.asarray(observations))
    # the prior weighs one in 20 000: it adds 25/20 000 to the first variance of .01
    np.testing.assert_allclose(np.mean(seen, axis=0), 0, atol=0.01)
    np.testing.assert_allclose(np.std(seen, axis=0), 1, atol=0.07)


def test_a_constant_dimension_stays_finite() -> None:
    moments = Moments(jnp.float32(1e6), jnp.zeros(1), jnp.zeros(1))
    assert deviation(moments) == np.float32(LEAST_DEVIATION)
    assert np.isfinite(normalize(moments, jnp.ones(1)))


def test_a_run_keeps_the_moments_of_every_step_also_of_the_random_ones() -> None:
    learner = train(Distractors(Walk(), 3), SHORT).learner
    np.testing.assert_array_equal(learner.moments.weight, SHORT.given["steps"] + 1)
    np.testing.assert_allclose(learner.moments.variance[:, 1:], 1, atol=0.35)  # 200 normals: standard error .1


def test_without_it_observations_are_left_as_they_are() -> None:
    learner = train(Distractors(Walk(), 3), SHORT | {"normalize_observations": False}).learner
    assert learner.moments == ()


def test_the_model_error_is_in_the_environments_own_units() -> None:
    """Predict, undo the normalisation, and compare with what the environment gave."""
    env, config = Distractors(Walk(), 2), SHORT.resolve()
    trainer = Trainer(env, make_method(env, config), config)
    carry, _ = trainer.chunk(trainer.init(), 0)
    seed: object = jax.tree.map(lambda x: x[0], carry)
    batch = replay.gather(seed.replay, jnp.arange(50))  # type: ignore[attr-defined]
    learner = seed.learner  # type: ignore[attr-defined]
    seen = batch._replace(observation=learner.normalized(batch.observation))
    predicted = trainer.method.model.next_observation(learner.model.params.dynamics, seen.observation, seen.action)
    predicted = predicted * deviation(learner.moments) + learner.moments.mean
    by_hand = np.mean(np.sum((predicted - batch.next_observation) ** 2, axis=-1))
    # float32, with terms of order 1 that are added and taken away again
    found = trainer.method.diagnose(learner, batch, env.state_of, jnp.int32(0), jax.random.key(0))["model_mse"]
    np.testing.assert_allclose(found, by_hand, rtol=1e-4)
