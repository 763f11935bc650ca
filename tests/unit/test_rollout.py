"""Rollouts of a model: targets written out, gradients against re-solved problems, and how an imagined episode ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.gymnax import TERMINATIONS
from envs.make import make_environment
from envs.probes import Walk
from mbrl_taskmet.core.linear_solve import Dense
from mbrl_taskmet.core.optimizers import Trained
from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.rl.critics import Critic, SoftActorCritic, SoftActorCriticSettings
from mbrl_taskmet.rl.environment import UnsupportedEnvironment, check_environment
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.methods.base import Learner
from mbrl_taskmet.rl.methods.mle import MLESettings
from mbrl_taskmet.rl.methods.omd import OMD, OMDSettings, task_gradient
from mbrl_taskmet.rl.methods.taskmet import TaskMet, TaskMetSettings
from mbrl_taskmet.rl.model import ModelParams, ModelSettings
from mbrl_taskmet.rl.normalization import Moments
from mbrl_taskmet.rl.replay import Transitions
from mbrl_taskmet.rl.rollout import rollout
from mbrl_taskmet.rl.settings import Config
from mbrl_taskmet.rl.spaces import Box
from tests.small_problem import BATCH, KEY, Mixing, draw, make, make_critic, make_metric, newton, start, theta_star

PyTree = Any
GAMMA = 0.9
SPACE = Box((-1.0, -1.0), (1.0, 1.0))


class Unrolled(Mixing):
    """`Mixing` over several steps; an episode ends where sin(5 ŝ'_0) is large."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def ends(self, params: Any, observation: Any, action: Any, following: jax.Array, moments: Any) -> jax.Array:
        return (jnp.sin(5 * following[..., 0]) > 0.5).astype(following.dtype)


def actor_critic() -> SoftActorCritic:
    """Linear heads and a linear actor, at no special point."""
    settings = SoftActorCriticSettings(hidden=4, actor_hidden=4, layer_norm=False, discount=GAMMA, temperature=0.5, tau=0.2)
    return SoftActorCritic(2, SPACE, settings, layers=0)


CRITICS: dict[str, Callable[[], Critic]] = {"soft_q": make_critic, "sac": actor_critic}


def problem(name: str) -> tuple[Any, Any, Any, Transitions]:
    """(critic, its state at no special point, θ, real transitions of which a third terminate)."""
    critic = CRITICS[name]()
    learner, batch = start(make(MLESettings()))
    shapes = jax.eval_shape(critic.init, KEY)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    state = state._replace(params=draw(shapes.params, 2), target_params=draw(shapes.target_params, 3))
    if name == "sac":
        actor = Trained(draw(shapes.actor.params, 4, scale=0.5), ())
        log_temperature = Trained(jnp.log(0.5 * jnp.ones(())), ())
        state = state._replace(actor=actor, log_temperature=log_temperature)
        action, theta = jnp.tanh(draw(batch.observation, 8)), learner.model.params
        noise = batch.next_observation - Mixing().next_observation(theta.dynamics, batch.observation, batch.action)
        following = Mixing().next_observation(theta.dynamics, batch.observation, action) + noise
        batch = batch._replace(action=action, next_observation=following)
    return critic, state, learner.model.params, batch


def written_out(
    critic: Any, bootstrap: Any, theta: ModelParams, batch: Transitions, horizon: int, held: Any = None, drawn: Any = None
) -> tuple[list[Any], jax.Array, list[Any]]:
    """(s, a, …) of every step, all y by the definition's double sum, and the actions, bonuses and ends, or those of `held`.

    `drawn` are soft actor-critic's last actions and their log-probabilities where these are to be constant as well.
    """
    model, steps, ends = Mixing(), [], [batch.terminated]
    s, a, bonus = batch.observation, batch.action, jnp.zeros(BATCH)
    for i in range(horizon):
        if i:
            a, bonus = critic.follow(bootstrap, s, i) if held is None else held[i][:2]
        following = model.next_observation(theta.dynamics, s, a)
        if i:
            ends.append((jnp.sin(5 * following[:, 0]) > 0.5).astype(float) if held is None else held[i][2])
        steps.append((s, a, model.reward(theta.reward, s, a), bonus))
        s = following
    survival = [jnp.ones(BATCH)]
    for end in ends:
        survival.append(survival[-1] * (1 - end))
    last = jnp.tile(s, (horizon, 1))  # every y_i has noise of its own
    if drawn is None:
        values = critic.value(bootstrap, last)
    else:
        values = critic.action_values(bootstrap.target_params, last, drawn[0]).min(axis=0) - 0.5 * drawn[1]
    targets = []
    for i in range(horizon):
        y = GAMMA ** (horizon - i) * survival[horizon] * values[i * BATCH : (i + 1) * BATCH]
        for j in range(i, horizon):
            y += GAMMA ** (j - i) * survival[j] * (steps[j][2] + (steps[j][3] if j > i else 0))
        targets.append(y)
    return steps, jnp.concatenate(targets), [(a, b, e) for (_, a, _, b), e in zip(steps, ends, strict=True)]


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("horizon", [1, 3])
def test_the_targets_are_model_value_expansion_on_all_imagined_states(name: str, horizon: int, x64: None) -> None:
    critic, state, theta, batch = problem(name)
    bootstrap = critic.bootstrap(state, KEY)
    imagined = jax.jit(lambda: rollout(Unrolled(horizon), critic, theta, bootstrap, batch, ()))()
    steps, targets, held = written_out(critic, bootstrap, theta, batch, horizon)
    np.testing.assert_allclose(critic.target(bootstrap, imagined), targets, rtol=1e-11)  # float64, other sums
    np.testing.assert_allclose(imagined.observation, jnp.concatenate([s for s, *_ in steps]), rtol=1e-11)
    np.testing.assert_allclose(imagined.action, jnp.concatenate([a for _, a, *_ in steps]), rtol=1e-11)
    if horizon == 3:
        assert 0 < held[1][2].mean() < 1  # some imagined episodes end on the way


@pytest.mark.parametrize("name", CRITICS)
def test_one_step_is_the_one_step_prediction_bit_for_bit(name: str) -> None:
    critic, state, theta, batch = problem(name)
    method = OMD(OMDSettings(), Mixing(), critic)
    learner = Learner(Trained(theta, ()), state, Trained((), ()))
    found = method.rollout(learner, theta, batch, critic.bootstrap(state, KEY))
    jax.tree.map(np.testing.assert_array_equal, found, method.imagine(theta, batch))


@pytest.mark.parametrize("name", CRITICS)
def test_the_policy_of_a_rollout_is_the_one_whose_value_the_target_takes(name: str, x64: None) -> None:
    critic, state, _, batch = problem(name)
    same = jax.tree.map(lambda x: 0.1 * x.at[1].set(x[0]), state.target_params)  # no smaller head, and every action likely
    state = state._replace(target_params=same)
    s = jnp.tile(batch.observation[:1], (40_000, 1))
    bootstrap = critic.bootstrap(state, KEY)
    action, bonus = critic.follow(bootstrap, s, 1)
    drawn = critic.predict(state.target_params, Transitions(s, action, bonus, bonus, s))[0] + bonus
    # soft Q-learning's Q − α log π is V at every action; the actor's has to be averaged
    error = drawn.std() / len(s) ** 0.5
    assert abs(drawn.mean() - critic.value(bootstrap, s).mean()) < 6 * error + 1e-9
    again, _ = critic.follow(bootstrap, s, 2)
    assert np.any(np.asarray(action != again))  # every step has noise of its own


class Resolved:
    """The task's loss as a function of θ where ω* is solved for, and all that was imagined at `theta` is constant but y."""

    def __init__(self, name: str, horizon: int, theta: ModelParams | None = None):
        self.critic, self.state, at, self.batch = problem(name)
        self.theta, self.bootstrap = theta or at, self.critic.bootstrap(self.state, KEY)
        self.given: tuple[Any, ...] = (self.critic, self.bootstrap)
        steps, _, held = written_out(*self.given, self.theta, self.batch, horizon)
        drawn = None
        if name == "sac":
            last = Mixing().next_observation(self.theta.dynamics, steps[-1][0], steps[-1][1])
            drawn = self.critic.sample(self.state.actor.params, jnp.tile(last, (horizon, 1)), KEY)
        self.targets = lambda theta: written_out(*self.given, theta, self.batch, horizon, held, drawn)[1]
        s, a = (jnp.concatenate(part) for part in list(zip(*steps, strict=True))[:2])
        self.inputs = Transitions(s, a, s[:, 0], s[:, 0], s)
        self.loss = jax.jit(lambda theta: self.solve(theta)[0])

    def solve(self, theta: ModelParams) -> tuple[jax.Array, PyTree]:
        """(L_task(ω*(θ)), ω*(θ))."""
        targets, critic = self.targets(theta), self.critic
        inner = jax.grad(lambda omega: critic.error(critic.predict(omega, self.inputs), targets))
        omega = newton(inner, self.state.params, steps=2)  # quadratic: one step, and one for rounding
        return critic.loss(omega, self.bootstrap, self.batch), omega

    def learner(self, metric: PyTree = ()) -> Learner:
        critic = self.state._replace(params=self.solve(self.theta)[1])
        return Learner(Trained(self.theta, ()), critic, Trained(metric, ()))


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("horizon", [3])
def test_omds_gradient_through_a_rollout_is_that_of_the_re_solved_problem(
    name: str, horizon: int, x64: None, central_differences: Callable[..., PyTree], relative_error: Callable[..., float]
) -> None:
    resolved = Resolved(name, horizon)
    method = OMD(OMDSettings(), Unrolled(horizon), resolved.critic)
    pulled = jax.jit(lambda learner: task_gradient(method, learner, resolved.batch, resolved.bootstrap, Dense()))
    gradient, solved = pulled(resolved.learner())
    assert solved.residual < 1e-10
    truth = central_differences(resolved.loss, resolved.theta)
    assert relative_error(gradient, truth) < 1e-6  # differences of step 1e-5 are off by about 1e-8


@pytest.mark.parametrize("name", CRITICS)
def test_taskmets_gradient_through_a_rollout_is_that_of_the_re_solved_problem(
    name: str, x64: None, central_differences: Callable[..., PyTree], relative_error: Callable[..., float]
) -> None:
    metric = make_metric("diagonal", normalize=False)
    phi = draw(metric.init(KEY, 2, 2), 4, scale=0.4)
    _, _, theta, batch = problem(name)

    def solution(phi: PyTree) -> ModelParams:
        matrices = metric.diagonals(phi, batch.observation, batch.action)[:, :, None] * jnp.eye(2)
        return ModelParams(theta_star(theta.dynamics, matrices, batch), theta.reward)

    resolved = Resolved(name, 2, solution(phi))
    method = TaskMet(TaskMetSettings(metric=metric, solver=Dense(), critic_solver=Dense()), Unrolled(2), resolved.critic)
    gradient, solved = jax.jit(method.metric_gradient)(resolved.learner(phi), batch, KEY)
    assert solved.residual < 1e-10
    truth = central_differences(lambda phi: resolved.loss(solution(phi)), phi)
    assert relative_error(gradient, truth) < 1e-6  # differences of step 1e-5 are off by about 1e-8


@pytest.mark.parametrize("name", TERMINATIONS)
def test_a_known_termination_is_the_environments_own(name: str) -> None:
    env = check_environment(make_environment(name, 3))
    known = env.known_termination()
    assert known is not None

    def step(carry: Any, key: jax.Array) -> Any:
        act, move = jax.random.split(key)
        action = env.action_space.sample(act)
        state, result = env.step(move, carry[0], action)
        vector = env.action_space.encode(action)
        return (state, result.observation), (carry[1], vector, result.next_observation, result.terminated)

    keys = jax.random.split(jax.random.key(0), 3000)
    *steps, terminated = jax.jit(lambda start: jax.lax.scan(step, start, keys)[1])(env.reset(KEY))
    np.testing.assert_array_equal(known(*steps), terminated)
    assert terminated.any() or name != "CartPole-v1"


class Cliff(Walk):
    """Ends by itself at the edge, in units of a hundred."""

    def termination(self, observation: jax.Array, action: jax.Array, next_observation: jax.Array) -> jax.Array:
        return (action == 1) & (next_observation[0] >= 250)


def test_a_termination_sees_the_environments_units_and_actions() -> None:
    model = ModelSettings(horizon=2).make(Cliff())
    params = model.init(KEY)
    assert params.termination == ()
    s, vectors = jnp.array([[0.0], [0.0], [0.0]]), jnp.array([[0.0, 1], [1, 0], [0, 1]])
    moments = Moments(jnp.ones(()), jnp.array([200.0]), jnp.array([100.0**2]))
    found = model.ends(params, s, vectors, jnp.array([[0.6], [0.6], [0.4]]), moments)  # 260, 260 and 240
    assert found.tolist() == [1, 0, 0]


def test_where_no_termination_is_known_one_is_learned_of_the_batch(x64: None) -> None:
    assert jax.tree.leaves(ModelSettings().make(Walk()).init(KEY).termination) == []  # H = 1 needs none
    env, config = Walk(), Config(method="omd", horizon=2, model_lr=0.01, model_hidden=8)
    method = make_method(env, config.resolve())
    learner = method.init(KEY)
    assert jax.tree.leaves(learner.model.params.termination)
    s = jnp.linspace(-2, 2, 64)[:, None]
    batch = Transitions(s, jnp.eye(2)[np.arange(64) % 2], s[:, 0], (s[:, 0] > 1).astype(float), s)
    update = jax.jit(method.update)
    for step in range(300):
        learner = update(learner, batch, jnp.int32(step), KEY)
    ends = method.model.ends(learner.model.params, s, batch.action, s, ())
    assert np.mean(np.asarray((ends > 0.5) == (s[:, 0] > 1))) > 0.95 and ends.max() < 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"horizon": 0}, r"--horizon is 0; give 1 or more"),
        ({"horizon": 2.5}, r"--horizon is 2\.5"),
        ({"horizon": 2, "method": "model_free"}, r"--horizon 2 does nothing for --method model_free"),
        ({"model_target": "delta"}, r"--model-target 'delta' is unknown; .* observation, difference"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config(**given).resolve()


@pytest.mark.parametrize(
    ("termination", "message"),
    [
        (lambda self, s, a, following: following, r"Bad\.termination is .*one bool"),
        (lambda self, s, a, following: following[7:].sum() + s.no, r"Bad\.termination fails \(AttributeError"),
    ],
)
def test_a_termination_that_will_not_do_is_refused(termination: Any, message: str) -> None:
    bad = type("Bad", (Walk,), {"termination": termination})
    with pytest.raises(UnsupportedEnvironment, match=message):
        check_environment(bad())


def test_a_model_of_differences_starts_at_no_change() -> None:
    settings = ModelSettings(target="difference")
    model = settings.make(Walk())
    s = jnp.array([[3.0], [-2.0]])
    found = model.next_observation(model.init(KEY).dynamics, s, jnp.eye(2))
    np.testing.assert_allclose(found, s, atol=0.1)  # the last layer starts at 0.01
