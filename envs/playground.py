"""Environments of MuJoCo Playground, by name: those of the DeepMind Control Suite."""

from __future__ import annotations

from envs.physics import Physics, known, simulators


class PlaygroundEnvironment(Physics):
    """The environment `name` of MuJoCo Playground on MJX, with actions from −1 to 1 and episodes of at most 1000 steps.

    Its robots, for locomotion and manipulation, observe dictionaries and fetch files from the network, so they are left out.

    Raises:
        UnsupportedEnvironment: Playground is not installed, or the name is unknown.
    """

    def __init__(self, name: str):
        with simulators("playground"):
            from mujoco_playground import dm_control_suite

            known(name, dm_control_suite.ALL_ENVS, "playground")
            env = dm_control_suite.load(name, config_overrides={"impl": "jax"})  # its default, warp, needs a GPU
        super().__init__(name, env, "data")
