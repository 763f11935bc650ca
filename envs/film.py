"""A film of a policy: one episode, drawn from its observations as GIF, or of bodies in brax' viewer as HTML."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.brax import BraxEnvironment
from envs.physics import Simulated
from mbrl_taskmet.rl.environment import Environment, EnvironmentSettings, State, UnsupportedEnvironment
from mbrl_taskmet.rl.suites import BraxSuite, GymnaxSuite, PlaygroundSuite, Suite

WIDTH, HEIGHT = 300, 200
MAX_FRAMES = 250

Canvas = Any  # PIL.ImageDraw.ImageDraw
Drawing = Callable[[Canvas, np.ndarray], None]


class Recording(NamedTuple):
    """An episode of T steps.

    Attributes:
        observations: (T + 1, k), noise left out, the last one included.
        states: the environment's before each step, leaves (T, …).
    """

    observations: np.ndarray
    states: State


Film = Callable[[Recording, Path], Path]
"""Writes a recording into a directory; the file."""


def _cartpole(canvas: Canvas, observation: np.ndarray) -> None:
    x, angle = WIDTH / 2 + observation[0] / 2.4 * WIDTH / 2, observation[2]
    ground = 0.75 * HEIGHT
    canvas.line([(0, ground), (WIDTH, ground)], fill="grey")
    canvas.rectangle([x - 20, ground - 12, x + 20, ground + 12], fill="black")
    canvas.line([(x, ground - 12), (x + 100 * math.sin(angle), ground - 12 - 100 * math.cos(angle))], fill="peru", width=8)


def _acrobot(canvas: Canvas, observation: np.ndarray) -> None:
    cos1, sin1, cos2, sin2 = observation[:4]
    link, start = HEIGHT / 5, (WIDTH / 2, HEIGHT / 2)
    elbow = start[0] + link * sin1, start[1] + link * cos1
    hand = elbow[0] + link * (sin1 * cos2 + cos1 * sin2), elbow[1] + link * (cos1 * cos2 - sin1 * sin2)
    canvas.line([(0, start[1] - link), (WIDTH, start[1] - link)], fill="grey")  # to be reached by the hand
    canvas.line([start, elbow, hand], fill="teal", width=8)
    for x, y in (start, elbow):
        canvas.ellipse([x - 6, y - 6, x + 6, y + 6], fill="black")


def _pendulum(canvas: Canvas, observation: np.ndarray) -> None:
    cos, sin = observation[:2]  # of the angle from upright, counterclockwise
    x, y, rod = WIDTH / 2, HEIGHT / 2, 0.4 * HEIGHT
    canvas.line([(x, y), (x - rod * sin, y - rod * cos)], fill="firebrick", width=12)
    canvas.ellipse([x - 6, y - 6, x + 6, y + 6], fill="black")


def _mountain_car(canvas: Canvas, observation: np.ndarray, goal: float = 0.5) -> None:
    def place(position: float) -> tuple[float, float]:
        return (position + 1.2) / 1.8 * WIDTH, HEIGHT * (0.85 - 0.3 * (1 + math.sin(3 * position)))

    canvas.line([place(position) for position in np.linspace(-1.2, 0.6, 60)], fill="black", width=3)
    goal_x, goal_y = place(goal)
    canvas.line([(goal_x, goal_y), (goal_x, goal_y - 30)], fill="red", width=3)
    x, y = place(float(observation[0]))
    canvas.ellipse([x - 9, y - 18, x + 9, y], fill="teal")


def _catch(canvas: Canvas, observation: np.ndarray) -> None:
    rows, columns = 10, 5
    side = HEIGHT / rows
    left = (WIDTH - columns * side) / 2
    canvas.rectangle([left, 0, left + columns * side, HEIGHT - 1], outline="grey")
    for row, column in np.argwhere(observation.reshape(rows, columns) > 0):
        x, y = left + column * side, row * side
        canvas.rectangle([x, y, x + side, y + side], fill="black" if row == rows - 1 else "teal")


DRAWINGS: dict[str, Drawing] = {
    "CartPole-v1": _cartpole, "Acrobot-v1": _acrobot, "MountainCar-v0": _mountain_car, "Catch-bsuite": _catch,
    "Pendulum-v1": _pendulum, "MountainCarContinuous-v0": partial(_mountain_car, goal=0.45),
}  # fmt: skip
"""How an observation without its noise is drawn, by the environment's name."""


def film_of(env: Environment, settings: EnvironmentSettings) -> Film:
    """How an episode on `env`, which was made of `settings`, is filmed.

    Raises:
        UnsupportedEnvironment: nobody has drawn it.
    """
    return FILMS[type(settings.suite)](env, settings.name)


def episode(env: Environment, act: Callable[[jax.Array, jax.Array], jax.Array], key: jax.Array) -> Recording:
    """One episode of the policy `act`(key, observation) → action. `key` is consumed."""
    reset_key, key = jax.random.split(key)

    def step(carry: tuple[State, jax.Array], count: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array, State]]:
        before, observation = carry
        act_key, env_key = jax.random.split(jax.random.fold_in(key, count))
        state, result = env.step(env_key, before, act(act_key, observation))
        done = result.terminated | result.truncated
        return (state, result.observation), (env.state_of(result.next_observation), done, before)

    state, first = jax.jit(env.reset)(reset_key)
    counts = jnp.arange(env.max_episode_steps)
    following, done, states = jax.jit(lambda start: jax.lax.scan(step, start, counts)[1])((state, first))
    length = int(np.argmax(done)) + 1 if np.any(done) else len(counts)
    observations = np.concatenate([np.asarray(env.state_of(first))[None], np.asarray(following)[:length]])
    return Recording(observations, jax.tree.map(lambda leaf: leaf[:length], states))


def write_gif(draw: Drawing, recording: Recording, directory: Path) -> Path:
    """Draw the observations as `film.gif`, of at most `MAX_FRAMES` frames."""
    from PIL import Image, ImageDraw

    frames = []
    stride = -(-len(recording.observations) // MAX_FRAMES)
    for observation in recording.observations[::stride]:
        frame = Image.new("RGB", (WIDTH, HEIGHT), "white")
        draw(ImageDraw.Draw(frame), observation)
        frames.append(frame.quantize(16))
    path, aside = directory / "film.gif", directory / "film.part.gif"
    frames[0].save(aside, save_all=True, append_images=frames[1:], duration=40, loop=0)
    return aside.replace(path)


def write_page(env: Environment, recording: Recording, directory: Path) -> Path:
    """Write `film.html`: brax' viewer, which a browser fetches from the network, with the poses of the bodies."""
    while not isinstance(env, BraxEnvironment):
        env = env.env  # type: ignore[attr-defined]  # a wrapper, or an environment of brax at last
    # the first are the agent's own: what a disturbance simulates beside it comes later
    state = next(found for found in jax.tree.leaves(recording.states, is_leaf=_is_simulated) if _is_simulated(found))
    path, aside = directory / "film.html", directory / "film.part.html"
    aside.write_text(env.page(state), encoding="utf-8")
    return aside.replace(path)


def _is_simulated(node: Any) -> bool:
    return isinstance(node, Simulated)


def _undrawn(env: Environment, name: str) -> Film:
    raise UnsupportedEnvironment(f"{name} of playground cannot be drawn; leave --film out")


def _gif_of(env: Environment, name: str) -> Film:
    if name not in DRAWINGS:
        raise UnsupportedEnvironment(f"{name} cannot be drawn, only {', '.join(DRAWINGS)}; leave --film out")
    return partial(write_gif, DRAWINGS[name])


FILMS: dict[type[Suite], Callable[[Environment, str], Film]] = {
    GymnaxSuite: _gif_of,
    BraxSuite: lambda env, name: partial(write_page, env),
    PlaygroundSuite: _undrawn,
}
"""How an episode is filmed, by the record of the environment's suite."""
