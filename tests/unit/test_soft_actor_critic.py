"""Soft actor-critic against hand-computed values, written-out updates and finite differences of re-solved problems."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from mbrl_taskmet.core.linear_solve import Dense
from mbrl_taskmet.core.metric import Diagonal, Full, Metric, StateAction, prediction_loss
from mbrl_taskmet.core.optimizers import Trained
from mbrl_taskmet.rl.critics import SoftActorCritic, SoftActorCriticSettings
from mbrl_taskmet.rl.methods import METHODS, Learner, OMDSettings, TaskMetSettings
from mbrl_taskmet.rl.methods.omd import OMD, task_gradient
from mbrl_taskmet.rl.methods.taskmet import TaskMet
from mbrl_taskmet.rl.model import Model, ModelParams, ModelSettings
from mbrl_taskmet.rl.replay import Transitions
from mbrl_taskmet.rl.settings import Config
from mbrl_taskmet.rl.spaces import Box, Discrete
from tests.small_problem import Sizes

PyTree = Any
N, M, BATCH, LR = 2, 2, 24, 0.1
SPACE = Box((-2.0, 0.0), (2.0, 4.0))
SETTINGS = {
    "hidden": 4,
    "actor_hidden": 4,
    "layer_norm": False,
    "sparsity": 0.0,
    "discount": 0.9,
    "tau": 0.2,
    "temperature": 0.5,
}
KEY, OTHER_KEY = jax.random.split(jax.random.key(9))


def make(layers: int = 2, **settings: Any) -> SoftActorCritic:
    return SoftActorCritic(N, SPACE, SoftActorCriticSettings(**{**SETTINGS, **settings}), layers)


def draw(tree: PyTree, seed: int, scale: float = 1.0) -> PyTree:
    """Normal numbers in the shapes of `tree`, in the default precision: parameters at no special point."""
    normal = np.random.default_rng(seed).normal
    return jax.tree.map(lambda x: jnp.array(normal(0, scale, x.shape), dtype=float), tree)


def start(critic: SoftActorCritic) -> Any:
    """A state at no special point."""
    state = jax.jit(critic.init)(jax.random.key(0))
    actor = state.actor._replace(params=draw(state.actor.params, 3, scale=0.5))
    return state._replace(params=draw(state.params, 1), target_params=draw(state.target_params, 2), actor=actor)


def batch(seed: int = 0) -> Transitions:
    rng = np.random.default_rng(seed)
    return Transitions(
        observation=jnp.array(rng.normal(size=(BATCH, N)), float),
        action=jnp.array(rng.uniform(-1, 1, (BATCH, M)), float),
        reward=jnp.array(rng.normal(size=BATCH), float),
        terminated=jnp.array(np.arange(BATCH) % 5 == 0, float),
        next_observation=jnp.array(rng.normal(size=(BATCH, N)), float),
    )


def assert_close(found: PyTree, truth: PyTree, tolerance: float = 1e-11) -> None:
    """Equal up to the order of sums in float64."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, truth)


def test_the_target_is_the_smaller_head_at_a_drawn_action_less_its_priced_log_density(x64: None) -> None:
    critic = make(layers=0)
    state, steps = start(critic), batch()
    bootstrap = critic.bootstrap(state, KEY)
    found = jax.jit(critic.target)(bootstrap, steps)
    following = np.array(steps.next_observation)
    action = np.array(critic.sample(state.actor.params, steps.next_observation, KEY)[0])

    def linear(params: PyTree) -> tuple[np.ndarray, np.ndarray]:
        (layer,) = params["params"].values()
        return np.array(layer["kernel"]), np.array(layer["bias"])

    kernel, bias = linear(state.actor.params)
    mean, log_std = np.split(following @ kernel + bias, 2, axis=-1)
    assert log_std.max() > 2  # the bound shows
    log_std = np.clip(log_std, -10, 2)
    normal = -((np.arctanh(action) - mean) ** 2) / (2 * np.exp(2 * log_std)) - log_std - np.log(2 * np.pi) / 2
    log_prob = np.sum(normal - np.log(1 - action**2), axis=-1)  # of a density, by its change of variables
    kernels, biases = linear(state.target_params)
    heads = (np.concatenate([following, action], axis=-1) @ kernels)[..., 0] + biases
    assert set(np.argmin(heads, axis=0)) == {0, 1}  # each is the smaller one somewhere
    value = heads.min(axis=0) - 0.5 * log_prob
    # arctanh takes back up to four digits of an action near the bounds
    np.testing.assert_allclose(found, steps.reward + 0.9 * (1 - steps.terminated) * value, rtol=1e-10)


def test_a_target_and_a_heads_value_are_differentiated_through_q_alone(x64: None) -> None:
    critic = make()
    state, steps = start(critic), batch()
    bootstrap, actor, following = critic.bootstrap(state, KEY), state.actor.params, steps.next_observation

    def total(reward: jax.Array, following: jax.Array) -> jax.Array:
        return jnp.sum(critic.target(bootstrap, steps._replace(reward=reward, next_observation=following)))

    def smaller(following: jax.Array, action: jax.Array) -> jax.Array:
        return 0.9 * jnp.sum((1 - steps.terminated) * critic.action_values(state.target_params, following, action).min(axis=0))

    by_reward, by_state = jax.grad(total, argnums=(0, 1))(steps.reward, following)
    held = critic.sample(actor, following, KEY)[0]
    np.testing.assert_array_equal(by_reward, 1)
    assert_close(by_state, jax.grad(smaller)(following, held))
    through = jax.grad(lambda s: smaller(s, critic.sample(actor, s, KEY)[0]))(following)
    assert jnp.abs(by_state - through).max() > 0.1  # what flows through the action would show
    by_heads = jax.jacrev(critic.head_values, argnums=2)(state.params, state, following)
    at_mean = jax.jacrev(critic.action_values, argnums=1)(state.params, following, critic.mean_action(actor, following))
    assert_close(by_heads, at_mean)


def test_one_bootstrap_gives_both_losses_of_an_update_the_same_noise() -> None:
    critic = make()
    state, steps = start(critic), batch()
    loss = jax.jit(lambda key, steps: critic.loss(state.params, critic.bootstrap(state, key), steps))
    assert loss(KEY, steps) == loss(KEY, batch())  # a perfect model leaves no difference
    assert abs(loss(KEY, steps) - loss(OTHER_KEY, steps)) > 0.01


def test_an_update_moves_the_critic_its_average_the_actor_and_the_temperature_in_this_order(x64: None) -> None:
    critic = make(target_entropy=-0.7 / M)
    critic.optimizer = critic.actor_optimizer = critic.temperature_optimizer = optax.sgd(LR)  # Adam's first step hides sizes
    state, imagined, real = start(critic), batch(1), batch(2)
    bootstrap_key, actor_key = jax.random.split(KEY)

    def descend(params: PyTree, gradient: PyTree) -> PyTree:
        return jax.tree.map(lambda p, g: p - LR * g, params, gradient)

    @jax.jit
    def expected() -> tuple[PyTree, ...]:
        bootstrap, psi = critic.bootstrap(state, bootstrap_key), state.actor.params
        omega = descend(state.params, jax.grad(critic.loss)(state.params, bootstrap, imagined))
        average = jax.tree.map(lambda new, old: 0.2 * new + 0.8 * old, omega, state.target_params)

        def actor_loss(psi: PyTree) -> jax.Array:
            action, log_prob = critic.sample(psi, real.observation, actor_key)
            return jnp.mean(0.5 * log_prob - critic.action_values(omega, real.observation, action).min(axis=0))

        entropy = -jnp.mean(critic.sample(psi, real.observation, actor_key)[1])  # of the old actor
        log_temperature = jnp.log(0.5) - LR * 0.5 * (entropy + 0.7)
        return omega, average, descend(psi, jax.grad(actor_loss)(psi)), log_temperature

    new = jax.jit(critic.update)(state, critic.bootstrap(state, bootstrap_key), imagined, real, actor_key)
    assert_close((new.params, new.target_params, new.actor.params, new.log_temperature.params), expected())


def test_the_temperature_follows_the_entropy_unless_its_rate_is_0() -> None:
    assert make().target_entropy == -M
    for rate, target, sign in [(0.1, 50.0, 1), (0.1, -50.0, -1), (0.0, 50.0, 0)]:
        critic = make(layers=0, temperature_lr=rate, target_entropy=target)
        state = start(critic)
        new = jax.jit(critic.update)(state, critic.bootstrap(state, OTHER_KEY), batch(), batch(), KEY)
        assert np.sign(new.log_temperature.params - state.log_temperature.params) == sign


def test_acts_by_the_mean_the_actor_or_chance_within_the_bounds() -> None:
    critic, observation = make(layers=0), jnp.array([0.3, -0.2])
    state, keys = start(critic), jax.random.split(KEY, 4000)
    act = jax.jit(jax.vmap(critic.act, in_axes=(None, 0, None, None, None)))
    best, drawn, blind = (act(state, keys, observation, *mode) for mode in [(False, False), (True, False), (True, True)])
    greedy = SPACE.decode(critic.mean_action(state.actor.params, observation))
    np.testing.assert_allclose(best, jnp.broadcast_to(greedy, best.shape), rtol=1e-6)  # float32
    np.testing.assert_array_equal(
        critic.act(state, keys[0], observation, True), critic.act(state, keys[0], observation, jnp.array(True))
    )
    inside = np.arctanh(SPACE.encode(drawn))
    # four standard errors of 4000 draws, of a standard deviation of about 1
    np.testing.assert_allclose(inside.mean(axis=0), np.arctanh(SPACE.encode(greedy)), atol=0.07)
    # of a uniform one: mean 0 ± 0.009, variance 1/3 ± 0.005
    np.testing.assert_allclose(SPACE.encode(blind).mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose(SPACE.encode(blind).var(axis=0), 1 / 3, atol=0.02)
    for actions in (best, drawn, blind):
        assert np.all((actions >= np.array(SPACE.low)) & (actions <= np.array(SPACE.high)))


def test_evaluations_act_by_the_mean_unless_they_are_to_be_drawn() -> None:
    state, observation = start(make(layers=0)), jnp.array([0.3, -0.2])
    for deterministic in (True, False):
        critic = make(layers=0, deterministic_evaluation=deterministic)
        first, second = (critic.act(state, key, observation) for key in (KEY, OTHER_KEY))
        assert bool(jnp.all(first == second)) == deterministic
        drawn = critic.act(state, KEY, observation, True)
        assert bool(jnp.all(first == drawn)) != deterministic


@pytest.mark.parametrize(("mean", "log_std"), [(8.0, 0.0), (-40.0, -12.0), (1e4, 5.0)])
def test_an_actor_at_the_bounds_stays_finite(mean: float, log_std: float) -> None:
    critic = make(layers=0)
    state = start(critic)
    bias = jnp.array([mean] * M + [log_std] * M)
    actor = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if leaf.ndim == 2 else bias, state.actor.params)
    state = state._replace(actor=state.actor._replace(params=actor))
    new = jax.jit(critic.update)(state, critic.bootstrap(state, OTHER_KEY), batch(), batch(), KEY)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new))
    assert jnp.isfinite(jax.jit(critic.target)(critic.bootstrap(state, KEY), batch())).all()


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_an_update_gives_back_the_types_it_was_given_in_the_default_precision(precision: type) -> None:
    critic = SoftActorCriticSettings().make(N, SPACE)
    with jax.enable_x64(precision == np.float64):
        state = jax.eval_shape(critic.init, jax.random.key(0))
        new = jax.eval_shape(critic.update, state, critic.bootstrap(state, OTHER_KEY), batch(), batch(), KEY)
        action = jax.eval_shape(critic.act, state, KEY, batch().observation[0], True)
    # otherwise a chunk compiles again for its own output
    types = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (state, new))
    assert types[0] == types[1]
    floats = {leaf.dtype for leaf in jax.tree.leaves((state, action)) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floats == {np.dtype(precision)}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_updates_through_this_critic(name: str) -> None:
    small = {"model": ModelSettings(hidden=3)} if name != "model_free" else {}
    method = METHODS[name](**small, **({"metric_warmup": 0} if name == "taskmet" else {})).make(Sizes(N, SPACE), make())
    learner = method.init(jax.random.key(0))
    new = jax.jit(method.update)(learner, batch(), jnp.int32(0), KEY)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new))
    assert np.any(ravel_pytree(new.critic.actor.params)[0] != ravel_pytree(learner.critic.actor.params)[0])


def test_is_chosen_by_the_action_space_and_costs_no_import_before_its_use() -> None:
    assert isinstance(Config(actor_lr=1e-4).resolve(SPACE).critic, SoftActorCriticSettings)
    assert not isinstance(Config().resolve(Discrete(2)).critic, SoftActorCriticSettings)
    code = "import sys, mbrl_taskmet.rl.settings; sys.exit('distrax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class Mixing(Model):
    """ŝ' = z (½, −1) + gain · sin(z), z = [s, a]·w: both outputs share z, so θ* depends on all metrics but constant scalars."""

    def __init__(self) -> None:
        self.observation_size, self.optimizer = N, optax.sgd(LR)

    def next_observation(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        z = (jnp.concatenate([observation, action], axis=-1) @ params["weights"])[..., None]
        return z * jnp.array([0.5, -1.0]) + params["gain"] * jnp.sin(z)

    def reward(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.concatenate([observation, action], axis=-1) @ params


THETA = ModelParams({"weights": np.array([0.9, 0.4, -0.6, 0.7]), "gain": np.array([0.8, 1.2])}, np.array([0.3, -0.5, 0.2, 0.6]))


def newton(gradient: Callable[[PyTree], PyTree], start: PyTree, steps: int) -> PyTree:
    """A root of `gradient` near `start`."""
    flat, unravel = ravel_pytree(start)

    def flat_gradient(x: jax.Array) -> jax.Array:
        return ravel_pytree(gradient(unravel(x)))[0]

    def step(_: int, x: jax.Array) -> jax.Array:
        return x - jnp.linalg.solve(jax.jacfwd(flat_gradient)(x), flat_gradient(x))

    return unravel(jax.lax.fori_loop(0, steps, step, flat))


class Resolved:
    """The task's loss as a function of θ, in which ω* is solved for and a', ℓ' stay what they are at `theta`."""

    def __init__(self, steps: Transitions, theta: ModelParams):
        self.critic, self.steps, self.model = make(layers=0), steps, Mixing()  # linear heads: ω* is a linear regression
        self.state = start(self.critic)
        self.bootstrap = self.critic.bootstrap(self.state, KEY)
        self.held = self.critic.sample(self.state.actor.params, self._next(theta.dynamics), KEY)
        self.loss = jax.jit(lambda theta: self.solve(theta)[0])

    def _next(self, dynamics: PyTree) -> jax.Array:
        return self.model.next_observation(dynamics, self.steps.observation, self.steps.action)

    def solve(self, theta: ModelParams) -> tuple[jax.Array, PyTree]:
        """(L_task(ω*(θ)), ω*(θ))."""
        steps, critic = self.steps, self.critic
        action, log_prob = self.held
        smaller = critic.action_values(self.state.target_params, self._next(theta.dynamics), action).min(axis=0)
        reward = self.model.reward(theta.reward, steps.observation, steps.action)
        target = reward + 0.9 * (1 - steps.terminated) * (smaller - 0.5 * log_prob)
        inner = jax.grad(lambda omega: critic.error(critic.predict(omega, steps), target))
        omega = newton(inner, self.state.params, steps=2)  # quadratic: one step, and one for rounding
        return critic.loss(omega, self.bootstrap, steps), omega

    def learner(self, theta: ModelParams, metric: PyTree = ()) -> Learner:
        critic = self.state._replace(params=self.solve(theta)[1])
        return Learner(model=Trained(theta, ()), critic=critic, metric=Trained(metric, ()))


def test_omds_gradient_is_that_of_the_re_solved_bilevel_problem(
    x64: None, central_differences: Callable[..., PyTree], relative_error: Callable[..., float]
) -> None:
    theta = jax.tree.map(jnp.array, THETA)
    problem = Resolved(batch(), theta)
    method = OMD(OMDSettings(critic_solver=Dense()), problem.model, problem.critic)
    pulled = jax.jit(lambda learner: task_gradient(method, learner, problem.steps, problem.bootstrap, Dense()))
    gradient, solved = pulled(problem.learner(theta))
    assert solved.residual < 1e-10
    assert relative_error(gradient, central_differences(problem.loss, theta)) < 1e-6  # step 1e-5: off by about 1e-9


@pytest.mark.parametrize(
    "metric",
    [Diagonal(normalize=False, floor=0.0), Full(input=StateAction(hidden=(3,)), floor=0.3)],
    ids=["weights", "network"],
)
def test_taskmets_gradient_is_that_of_the_re_solved_trilevel_problem(
    x64: None, metric: Metric, central_differences: Callable[..., PyTree], relative_error: Callable[..., float]
) -> None:
    steps, model, at = batch(), Mixing(), jax.tree.map(jnp.array, THETA)
    noise = 0.4 * draw(np.zeros((BATCH, N)), 6)  # mild, so that Newton's method may start where the data come from
    steps = steps._replace(next_observation=model.next_observation(at.dynamics, steps.observation, steps.action) + noise)
    phi = draw(jax.eval_shape(lambda: metric.init(KEY, N, M)), 4, scale=0.4)

    @jax.jit
    def theta_star(phi: PyTree) -> ModelParams:
        matrices = metric.batch(phi, steps.observation, steps.action)

        def loss(dynamics: PyTree) -> jax.Array:
            return prediction_loss(
                matrices, model.next_observation(dynamics, steps.observation, steps.action) - steps.next_observation
            )

        return ModelParams(newton(jax.grad(loss), at.dynamics, steps=12), at.reward)

    theta = theta_star(phi)
    problem = Resolved(steps, theta)
    method = TaskMet(TaskMetSettings(metric=metric, solver=Dense(), critic_solver=Dense()), model, problem.critic)
    gradient, solved = jax.jit(method.metric_gradient)(problem.learner(theta, phi), steps, KEY)
    assert solved.residual < 1e-10
    truth = central_differences(lambda phi: problem.loss(theta_star(phi)), phi)
    assert relative_error(gradient, truth) < 1e-6  # differences of step 1e-5 are off by about 1e-8
