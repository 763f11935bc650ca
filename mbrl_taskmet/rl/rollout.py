"""Imagined transitions: a model unrolled from real ones under the critic's policy, as model value expansion needs them.

    ŝ_0 = s, a_0 = a;    ŝ_{i+1}, r̂_i = f_θ(ŝ_i, a_i),    a_{i+1} ~ π(·|ŝ_{i+1}) with its entropy bonus b_{i+1}
    d_i   the probability that the episode has not ended before step i
    y_i = Σ_{j=i}^{H−1} γ^{j−i} d_j (r̂_j + [j > i] b_j) + γ^{H−i} d_H V(ŝ_H)
    L_Q(ω, θ) = 1/H Σ_i E (Q_ω(ŝ_i, a_i) − y_i)²,    Q's own inputs are not differentiated

Feinberg et al., *Model-Based Value Expansion for Efficient Model-Free Reinforcement Learning* (2018), eq. 4. H = 1 is L_Q of
OMD and TaskMet. Each y_i is written as the target of one transition from (ŝ_i, a_i) to ŝ_H, so a critic need not know of
rollouts. A state in which an episode has ended has the value 0, hence d_j and not d_j/d_i.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mbrl_taskmet.rl.critics import Bootstrap, Critic
from mbrl_taskmet.rl.model import Model, ModelParams
from mbrl_taskmet.rl.normalization import Moments
from mbrl_taskmet.rl.replay import Transitions


def rollout(
    model: Model,
    critic: Critic,
    params: ModelParams,
    bootstrap: Bootstrap,
    start: Transitions,
    moments: Moments | tuple[()] = (),
) -> Transitions:
    """The transitions that L_Q(ω, θ) is the Bellman error of, differentiable in θ through reward and next observation.

    Args:
        model: f_θ, with the horizon H.
        critic: for the policy, and γ.
        params: θ.
        bootstrap: the critic's, with the noise of the imagined actions; constant.
        start: the real transitions (batch, …); of these s, a and whether they terminated are taken.
        moments: of the observations, where networks see them normalised.

    Returns:
        H·batch transitions, those of step i in the i-th batch. Their reward is the part of y_i before V; what γ and d take from
        V(ŝ_H), beyond one step's γ, counts as termination.
    """
    observation, action, alive = start.observation, start.action, jnp.ones_like(start.terminated)
    steps: list[tuple[jax.Array, ...]] = []
    ended, bonus = start.terminated, jnp.zeros_like(alive)  # of the first step the data tell
    for i in range(model.horizon):
        if i:
            action, bonus = critic.follow(bootstrap, observation, i)
        following = model.next_observation(params.dynamics, observation, action)
        if i:
            ended = model.ends(params, observation, action, following, moments)
        reward = model.reward(params.reward, observation, action)
        steps.append((observation, action, alive * reward, alive * bonus))
        observation, alive = following, alive * (1 - ended)

    discount, rewards, later = critic.settings.discount, [], jnp.zeros_like(alive)
    for _, _, reward, bonus in reversed(steps):
        rewards.append(reward + discount * later)
        later = rewards[-1] + bonus
    remaining = [1 - discount**count * alive for count in reversed(range(model.horizon))]
    observations, actions, *_ = zip(*steps, strict=True)
    return Transitions(
        observation=jax.lax.stop_gradient(jnp.concatenate(observations)),
        action=jnp.concatenate(actions),
        reward=jnp.concatenate(rewards[::-1]),
        terminated=jnp.concatenate(remaining),
        next_observation=jnp.concatenate([observation] * model.horizon),
    )
