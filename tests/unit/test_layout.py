"""Trees as vectors and back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbrl_taskmet.core.layout import Layout

TREE: dict[str, Any] = {
    "kernel": jnp.arange(6.0).reshape(2, 3), "count": jnp.int32(7), "none": (), "bias": jnp.ones(3), "counts": jnp.arange(2),
}  # fmt: skip


def test_each_type_is_one_vector_and_a_tree_comes_back() -> None:
    layout = Layout(jax.eval_shape(lambda: TREE))
    vectors = layout.ravel(TREE)
    assert {name: (vector.shape, vector.dtype.name) for name, vector in vectors.items()} == {
        "float32": ((9,), "float32"), "int32": ((3,), "int32")
    }  # fmt: skip
    back = layout.unravel(vectors)
    assert jax.tree.structure(back) == jax.tree.structure(TREE)
    jax.tree.map(np.testing.assert_array_equal, back, TREE)
    assert Layout(()).unravel(Layout(()).ravel(())) == ()


@pytest.mark.parametrize("change", [{"kernel": jnp.zeros((3, 2))}, {"bias": jnp.zeros(3, jnp.float16)}, {"more": jnp.zeros(0)}])
def test_a_tree_of_other_leaves_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"there are .* where there were .*'kernel': 'float32\[2, 3\]'"):
        Layout(TREE).ravel(TREE | change)
