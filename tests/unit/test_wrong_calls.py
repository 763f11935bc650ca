"""The library called with what is of the wrong type or out of range: one sentence, before anything is computed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = {
    "Config(steps=b'1').resolve()": "--steps is b'1'; give a whole number",
    "Config(steps=10**5000).resolve()": "--steps is a value of type int; give 2147483647 or less",
    "Config(metric_lr=10**400).resolve()": "--metric-lr is 1000",
    "Config(metric_lr=1j).resolve()": "--metric-lr is 1j; give a number",
    "Config(method=np.zeros(2)).resolve()": "--method array([0., 0.]) is unknown",
    "Config().resolve({})": "the action space is {}; give Discrete or Box, or none",
    "train(Walk(), {'steps': 10})": "the configuration is {'steps': 10}; give a mbrl_taskmet.Config",
    "train(Walk(), Config, None)": "the configuration is <class",
    "train(Walk(), Config(), 'taskmet')": "the method is 'taskmet'; give an instance",
    "run(Walk(), Config(), 5)": "the directory is 5; give the path",
    "run(Walk(), Config(), '')": "the directory is ''; give the path",
    "run(Walk(), Config(), 'x', checkpoint_share=0)": "the checkpoint share is 0; give a number above 0",
    "run(Walk(), Config(), 'x', say=1)": "say is 1; give a function",
    "make_environment([])": "--env is []; give a text",
    "make_environment('Walk', (1,))": "--distractors is (1,); give a whole number",
    "make_environment('Walk', 0, disturbance={})": "--disturbance is {}; give a text",
    "Discrete(np.zeros((2, 1), int))": "Discrete has n = array([[0],        [0]]); give the number",
    "Minres(steps='a')": "--solver-steps is 'a'; give a whole number",
    "Minres(0)": "--solver-steps is 0; give 1 or more",
    "CG(damping=float('nan'))": "--damping is nan; give 0 or more",
    "Neumann(step_size=0.0)": "--solver-step-size is 0.0; give a finite number above 0",
    "Diagonal(floor=2.0)": "--metric-floor is 2.0; give a number from 0 to 0.99",
    "Diagonal(input='state')": "Diagonal.input is 'state'; give an instance of its settings",
    "bilevel(inner_steps=0)": "--inner-steps is 0; give 1 or more",
    "bilevel(tolerance={1})": "--tolerance is {1}; give a number",
    "bilevel(predict=0)": "Bilevel.predict is 0; give a function",
    "bilevel(task_loss=0)": "Bilevel.task_loss is 0; give a function, or several as {name: (weight, function)}",
    "bilevel(task_loss={})": "Bilevel.task_loss is {}; give a function, or several as {name: (weight, function)}",
    "bilevel(task_loss={'a': right['loss']})": "for 'a'; give a name with (weight, function)",
    "bilevel(task_loss={'a': (-1, right['loss'])})": "Bilevel.task_loss has the weight -1 for 'a'; give a finite number",
    "bilevel(task_loss={'a': (0, right['loss'])})": "Bilevel.task_loss has no weight above 0, and nothing would be learned",
    "bilevel(optimizer=17)": "Bilevel.optimizer is 17; give an optimiser of optax",
    "bilevel(solver='minres')": "Bilevel.solver is 'minres'; give an instance of a Solver",
    "Jaxopt(['LBFGS'])": "inner solver ['LBFGS'] is unknown",
    "decisions.train(None, 'mse')": "the task is None; give an instance of a Task",
    "decisions.train(decisions.Cubic(), (1,))": "the objective is (1,); give an instance of a Objective",
    "decisions.run(decisions.Cubic(), 'x')": "the cells are Cubic(",
    "decisions.run([0.5], 'x')": "the cells are [0.5]; give CellSettings",
    "decisions.Cubic(items=['a'])": "--items is ['a']; give a whole number",
    "decisions.LODL(samples=0)": "--lodl-samples is 0; give 1 or more",
    "decisions.Portfolio(prices=np.zeros((90, 3), int))": "the prices has prices of stock 1 from 0 to 0",
    "decisions.Portfolio(prices='x')": "the prices are 'x'; give numbers, days × stocks",
}
PROGRAM = """
import json, sys
import numpy as np, optax
import decision_tasks as decisions
from envs.make import make_environment
from envs.probes import Walk
from mbrl_taskmet import *
from mbrl_taskmet.core.bilevel import Bilevel, Jaxopt
from mbrl_taskmet.core.linear_solve import CG, Minres, Neumann
right = dict.fromkeys(("predict", "weigh", "loss", "task_loss"), print)
bilevel = lambda **given: Bilevel(**{**right, "optimizer": optax.sgd(1.0), "metric_optimizer": optax.sgd(1.0), **given})
def said(call):
    try:
        return repr(eval(call))
    except ConfigError as error:
        return str(error)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
print(json.dumps({call: said(call) for call in json.load(sys.stdin)}))
"""


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What each call is refused with, in a process without the tests' own checks of types."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=json.dumps(list(CALLS)), capture_output=True, text=True,
                          timeout=120, cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_call_is_refused_in_a_sentence(call: str, said: dict[str, str]) -> None:
    assert CALLS[call] in said[call]
    assert "\n" not in said[call] and "Error:" not in said[call]
