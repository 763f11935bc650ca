"""Pytrees packed into few vectors: on an accelerator each array costs a kernel, a small one as much as a large one."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
Vectors = dict[str, jax.Array]
"""One vector for each type of number, by the type's name."""


class Unchanged:
    """A layout that leaves trees as they are."""

    def __init__(self, tree: PyTree):
        del tree

    def ravel(self, tree: PyTree) -> PyTree:
        """The tree."""
        return tree

    def unravel(self, tree: PyTree) -> PyTree:
        """The tree."""
        return tree


class Layout:
    """The positions of the numbers of pytrees like `tree` in packed vectors. `tree` may hold shapes and types only."""

    def __init__(self, tree: PyTree):
        leaves, self._structure = jax.tree.flatten(tree)
        self._shapes = [(jnp.shape(leaf), jnp.result_type(leaf).name) for leaf in leaves]

    def ravel(self, tree: PyTree) -> Vectors:
        """The numbers of a tree.

        Raises:
            TypeError: it has other leaves than the tree that the layout was made of.
        """
        other = Layout(tree)
        if (other._structure, other._shapes) != (self._structure, self._shapes):
            raise TypeError(f"there are {other} where there were {self}")
        parts: dict[str, list[jax.Array]] = {}
        for leaf, (_, kind) in zip(jax.tree.leaves(tree), self._shapes, strict=True):
            parts.setdefault(kind, []).append(jnp.ravel(leaf))
        return {kind: jnp.concatenate(vectors) for kind, vectors in parts.items()}

    def unravel(self, vectors: Vectors) -> PyTree:
        """The inverse of `ravel`."""
        leaves, begin = [], dict.fromkeys(vectors, 0)
        for shape, kind in self._shapes:
            end = begin[kind] + math.prod(shape)
            leaves.append(vectors[kind][begin[kind] : end].reshape(shape))
            begin[kind] = end
        return jax.tree.unflatten(self._structure, leaves)

    def __repr__(self) -> str:
        return str(jax.tree.unflatten(self._structure, [f"{kind}{list(shape)}" for shape, kind in self._shapes]))
