"""The kernels of one environment step: the counter on small programs, and the default method's number, which may not grow."""

from __future__ import annotations

import pytest

from runs.kernels import Kernel, compiled, kernels
from runs.programs import STEPS, trainer

MOST = 680  # of TaskMet side by side on a CPU, which fuses less than a GPU does: an H100 has 284


PROGRAM = """
HloModule jit_steps, is_scheduled=true

%fused_sine (p: f32[4,8]) -> f32[4,8] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %sine = f32[4,8]{1,0} sine(%p)
}

%product (y: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %y = (s32[], f32[4,8]{1,0}) parameter(0)
  %value = f32[4,8]{1,0} get-tuple-element(%y), index=1
  %dot = f32[4,8]{1,0} dot(%value, %value), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %again = (s32[], f32[4,8]{1,0}) tuple(%y, %dot)
}

%rounds (k: (s32[], u32[2])) -> (s32[], u32[2]) {
  %xor = u32[2]{0} xor(%k, %k)
  ROOT %mixed = (s32[], u32[2]{0}) tuple(%k, %xor)
}

%learned (a: f32[4,8]) -> f32[4,8] {
  %inner = f32[4,8]{1,0} conditional(%p, %a, %a), true_computation=%moved, false_computation=%kept
  %loop = (s32[], f32[4,8]{1,0}) while(%inner), condition=%less, body=%product, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %b = f32[4,8]{1,0} get-tuple-element(%loop), index=1
}

%moved (a: f32[4,8]) -> f32[4,8] {
  %u = f32[4,8]{1,0} fusion(%a), kind=kLoop, calls=%fused_sine
  ROOT %v = (f32[4]{0}, f32[4,8]{1,0}) fusion(%u), kind=kInput, calls=%fused_sine
}

%kept (a: f32[4,8]) -> f32[4,8] {
  %a = f32[4,8]{1,0} parameter(0)
  ROOT %c = f32[4,8]{1,0} copy(%a)
}

%outlined (a: f32[4,8]) -> f32[4,8] {
  ROOT %d = f32[32]{0} reduce(%a), to_apply=%sum
}

%body (carry: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %count = s32[] copy(%carry)
  %key = (s32[], u32[2]{0}) while(%carry), condition=%less, body=%rounds, backend_config={"known_trip_count":{"n":"5"}}
  %called = f32[32]{0} call(%carry), to_apply=%outlined
  ROOT %new = f32[4,8]{1,0} conditional(%p, %carry, %carry), branch_computations={%kept, %learned}
}

ENTRY %main (carry: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %outside = f32[4,8]{1,0} fusion(%carry), kind=kLoop, calls=%fused_sine
  ROOT %steps = (s32[], f32[4,8]{1,0}) while(%carry), condition=%less, body=%body, backend_config={"known_trip_count":{"n":"7"}}
}
"""


def test_a_step_starts_what_its_loops_calls_and_largest_branches_hold_and_nothing_that_only_names_memory() -> None:
    random, called, solve = Kernel("while", 2, 1), Kernel("reduce", 32, 1), Kernel("dot", 32, 5)
    assert kernels(PROGRAM, 7) == [random, called, Kernel("fusion", 32, 1), Kernel("fusion", 32, 1), solve]
    assert kernels(PROGRAM, 7, inner=min) == [random, called, Kernel("copy", 32, 1), solve]


@pytest.fixture(scope="module")
def taskmet() -> list[Kernel]:
    return kernels(compiled(trainer({}, seeds=2), side_by_side=True), STEPS)


def test_an_environment_step_of_the_default_method_has_few_kernels(taskmet: list[Kernel]) -> None:
    assert 300 < len(taskmet) <= MOST


def test_an_environment_step_copies_nothing_of_the_replay(taskmet: list[Kernel]) -> None:
    rows = trainer({}).settings.steps + 1
    assert max(kernel.numbers for kernel in taskmet if kernel.operation == "copy") < rows
