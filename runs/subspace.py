"""How exactly must a metric find the real subspace, where a rotation mixes state and noise? `python -m runs.subspace`.

An oracle: the critic learns from true transitions of CartPole with 32 dimensions of noise, all of it rotated, and sees them
through a projection that is given. Its subspace is off the real one by an angle, the same for all four directions.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from envs.gymnax import GymnaxEnvironment
from envs.projected import projected
from mbrl_taskmet.rl.environment import State, Step, Wrapper
from mbrl_taskmet.runner.plotting import save_both
from runs.benchmark import DISTRACTORS, ENVIRONMENTS, LAST, STATES
from runs.experiment import Experiment, main
from runs.report import Results, returns_against
from runs.setting import Setting


class Seen(Wrapper):
    """CartPole beside noise, mixed by a rotation, times the root of a metric whose subspace is `angle` degrees off.

    The metric is the projection onto that subspace, and `floor` on everything orthogonal to it.
    """

    angle, floor = 0.0, 0.0

    def __init__(self) -> None:
        env = projected(GymnaxEnvironment(ENVIRONMENTS["cartpole"]), DISTRACTORS)
        super().__init__(env)
        rotation, turned = env.rotation, np.deg2rad(self.angle)  # type: ignore[attr-defined]
        found = np.cos(turned) * rotation[:, :STATES] + np.sin(turned) * rotation[:, STATES : 2 * STATES]
        root = np.sqrt(self.floor)
        self._root = root * np.eye(len(rotation)) + (1 - root) * found @ found.T
        self.name = f"{env.name}, seen {self.angle:g} degrees off"

    @override
    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        state, observation = self.env.reset(key)
        return state, self._times(observation)

    @override
    def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, Step]:
        state, step = self.env.step(key, state, action)
        return state, step._replace(
            observation=self._times(step.observation), next_observation=self._times(step.next_observation)
        )

    def _times(self, observation: jax.Array) -> jax.Array:
        return jnp.matmul(jnp.asarray(self._root, observation.dtype), observation, precision="highest")


class Off0(Seen):
    """The real subspace."""


class Off1(Seen):
    """One degree off."""

    angle = 1.0


class Off2(Seen):
    """Two degrees off."""

    angle = 2.0


class Off5(Seen):
    """Five degrees off."""

    angle = 5.0


class Off20(Seen):
    """Twenty degrees off."""

    angle = 20.0


class Floor(Seen):
    """The real subspace, and the benchmark's floor on the rest."""

    floor = 0.05


ANGLES = (0, 1, 2, 5, 20)


def draw(results: Results, output: Path, logdir: Path) -> None:
    """The return over training and at the end, against the angle."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for last, label, style in ((None, "over training", "o-"), (LAST, f"last {LAST} evaluations", "s--")):
        points = returns_against(results, "off", ANGLES, last)
        centers, errors = zip(*points.values(), strict=True)
        axis.errorbar([ANGLES.index(angle) for angle in points], centers, errors, fmt=style, capsize=3, label=label)
    axis.set_xticks(range(len(ANGLES)), [f"{angle}°" for angle in ANGLES])
    axis.set_xlabel("angle between the subspace that is seen and the real one")
    axis.set_ylabel("return of true transitions, mean ± standard error")
    axis.set_ylim(0, 510)
    axis.grid(alpha=0.3)
    axis.legend()
    save_both(figure, output / "subspace.png")


GIVEN = {"method": "model_free", "eval_every": 2500}
EXPERIMENT = Experiment(
    "subspace",
    (
        *(Setting(f"off-{angle}", f"runs.subspace:Off{angle}", given=GIVEN) for angle in ANGLES),
        Setting("floor-0.05", "runs.subspace:Floor", given=GIVEN),
    ),
    draw,
    steps=50_000,
    seeds=8,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
