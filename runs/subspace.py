"""How exactly must a metric find the real subspace, where a rotation mixes state and noise? `python -m runs.subspace`.

An oracle: the critic learns from true transitions of CartPole with 32 dimensions of noise, all of it rotated, and sees them
through a projection that is given. Its subspace is off the real one by an angle, the same for all four directions.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from envs.gymnax import GymnaxEnvironment
from envs.projected import Linear, projected
from mbrl_taskmet.runner.plotting import STYLES, draw_against, save_both
from runs.benchmark import DISTRACTORS, ENVIRONMENTS, LAST, STATES
from runs.experiment import Experiment, main
from runs.report import Results, returns_against
from runs.setting import Setting


class Seen(Linear):
    """CartPole beside noise, mixed by a rotation, times the root of a metric whose subspace is `angle` degrees off.

    The metric is the projection onto that subspace, and `floor` on everything orthogonal to it.
    """

    angle, floor = 0.0, 0.0

    def __init__(self) -> None:
        env = projected(GymnaxEnvironment(ENVIRONMENTS["cartpole"]), DISTRACTORS)
        rotation, turned, root = env.rotation, np.deg2rad(self.angle), np.sqrt(self.floor)
        found = np.cos(turned) * rotation[:, :STATES] + np.sin(turned) * rotation[:, STATES : 2 * STATES]
        super().__init__(env, root * np.eye(len(rotation)) + (1 - root) * found @ found.T)
        self.name = f"{env.name}, seen {self.angle:g} degrees off"


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
    curves = {
        label: returns_against(results, "off", ANGLES, last)
        for label, last in (("over training", None), (f"last {LAST} evaluations", LAST))
    }
    draw_against(axis, ANGLES, curves, dict(zip(curves, STYLES, strict=False)), even=True)
    axis.set_xlabel("degrees between the subspace that is seen and the real one")
    axis.set_ylabel("return of true transitions, mean ± standard error")
    axis.set_ylim(0, 510)
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
