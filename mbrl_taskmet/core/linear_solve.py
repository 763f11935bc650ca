"""Matrix-free solvers for symmetric systems (H + δI) u = g on pytrees.

A solver is a value: its number of steps and its damping δ are fields, and calling it solves one system. H is given by its
product with a vector. Away from an optimum a Hessian is *indefinite*, so each docstring says what the solver does then.

Cost is counted in products with H, the only expensive operation. Every solver tracks its residual from the recursion it
runs anyway; where that needs one more product (`Identity`), an unused residual costs nothing inside `jax.jit`.

A Krylov space is exhausted when what is left is rounding. A method that went on would divide rounding by rounding: its
solution would leave the space, and its recursion the truth. So each of them stands still there. A division's two operands are
made safe before it, for a derivative reaches both branches of a `where`. Where squares would leave the number range, a vector
is first brought to the size of 1 by a power of two, which rounds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from typing_extensions import override

from mbrl_taskmet.core.safe import magnitude, norm, rounding_of, safe_divide
from mbrl_taskmet.core.settings import setting
from mbrl_taskmet.core.settings_tree import check_fields

PyTree = Any
Product = Callable[[PyTree], PyTree]
Vector = jax.Array
Operator = Callable[[Vector], Vector]


class Solution(NamedTuple):
    """What a solver returns.

    value: u, a pytree like the right-hand side g.
    residual: ‖g − (H + δI)u‖ / ‖g‖, scalar, for the matrix the solver was given (0 where g = 0).
    products: how many products with H were spent, residual excluded.
    """

    value: PyTree
    residual: jax.Array
    products: int


def _damping(default: float) -> Any:
    return setting(default, "multiple of the identity that is added to the Hessian", flag="damping", low=0)


def _steps(default: int) -> Any:
    return setting(default, "iterations of the solver", flag="solver_steps", low=1)


@dataclass(frozen=True, kw_only=True)
class Solver:
    """Solves (H + damping·I) u = g. Subclasses implement `solve` on flat vectors.

    `curvature` says which matrix the solver wants from the caller: the Hessian, or its Gauss-Newton part.
    """

    damping: float = _damping(0.0)
    curvature: ClassVar[Literal["hessian", "gauss_newton"]] = "hessian"

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, product: Product, cotangent: PyTree) -> Solution:
        """Solve for `cotangent` g (any pytree of floats); `product` maps such a pytree v to H v."""
        g, unravel = ravel_pytree(cotangent)

        def operator(v: Vector) -> Vector:
            return ravel_pytree(product(unravel(v)))[0] + self.damping * v

        u, residual_norm, products = self.solve(operator, g)
        return Solution(unravel(u), safe_divide(residual_norm, norm(g)), products)

    def solve(self, operator: Operator, g: Vector) -> tuple[Vector, jax.Array, int]:
        """Return (u, ‖g − operator(u)‖, products) for a flat g of shape (p,)."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it solves")


@dataclass(frozen=True)
class Iterative(Solver):
    """A solver whose cost is its number of `steps`."""

    steps: int = _steps(10)


@dataclass(frozen=True)
class Identity(Solver):
    """u = g: the inverse is approximated by the identity, as both papers do for the critic."""

    @override
    def solve(self, operator: Operator, g: Vector) -> tuple[Vector, jax.Array, int]:
        return g, norm(g - operator(g)), 0


@dataclass(frozen=True)
class CG(Iterative):
    """Conjugate gradient (Hestenes & Stiefel 1952), `steps` products, for positive definite H.

    Where a search direction has no positive curvature beyond rounding it stops, as Steihaug (1983) does; if that is the first
    direction, u = 0 and the residual says so (1).
    """

    @override
    def solve(self, operator: Operator, g: Vector) -> tuple[Vector, jax.Array, int]:
        rounding, least, unit = rounding_of(g), float(jnp.finfo(g.dtype).tiny), magnitude(g)
        g = g / unit

        def step(_: jax.Array, carry: tuple[Vector, Vector, Vector, jax.Array]) -> tuple[Vector, Vector, Vector, jax.Array]:
            u, r, p, size = carry
            hp = operator(p)
            curvature, rr, pp = p @ hp, r @ r, p @ p
            size = jnp.maximum(size, jax.lax.stop_gradient(safe_divide(norm(hp), jnp.sqrt(pp))))
            moves = ~((curvature <= rounding * size * pp) | (rr <= least))  # NaN moves on, to be seen
            length = safe_divide(rr, curvature, moves)
            u, r = u + length * p, r - length * hp
            return u, r, jnp.where(moves, r + safe_divide(r @ r, rr, moves) * p, p), size

        u, r, *_ = jax.lax.fori_loop(0, self.steps, step, (jnp.zeros_like(g), g, g, jnp.zeros_like(unit)))
        return unit * u, unit * norm(r), self.steps


@dataclass(frozen=True)
class GaussNewton(CG):
    """Conjugate gradient on the damped Gauss-Newton matrix, which is positive semi-definite: only rounding stops it.

    Its residual is that of the Gauss-Newton system it solves, not of the Hessian's.
    """

    steps: int = _steps(5)
    _: KW_ONLY
    damping: float = _damping(1e-3)
    curvature: ClassVar[Literal["hessian", "gauss_newton"]] = "gauss_newton"


@dataclass(frozen=True)
class NormalCG(Iterative):
    """Conjugate gradient on the normal equations H²u = Hg, the papers' solver; 2·steps + 1 products.

    Works for indefinite and singular H. Run in the CGLS form (Björck 1996, algorithm 7.4.1), which is the same iteration
    without ever forming products with H² and so loses fewer digits, and which keeps the residual of Hu = g itself. H, too, is
    brought to the size of 1, for its square enters.
    """

    @override
    def solve(self, operator: Operator, g: Vector) -> tuple[Vector, jax.Array, int]:
        rounding, least, unit = rounding_of(g), float(jnp.finfo(g.dtype).tiny), magnitude(g)
        g = g / unit
        s = operator(g)
        scale = magnitude(s)
        s = s / scale

        def step(_: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            u, r, s, p, size = carry
            hp = operator(p) / scale
            ss, rr, hphp = s @ s, r @ r, hp @ hp
            size = jnp.maximum(size, jax.lax.stop_gradient(safe_divide(hphp, p @ p)))  # of H², at least
            moves = ~((ss <= rounding**2 * size * rr) | (hphp <= least))  # NaN moves on, to be seen
            length = safe_divide(ss, hphp, moves)
            u, r = u + length * p, r - length * hp
            s = operator(r) / scale
            return u, r, s, s + safe_divide(s @ s, ss, moves) * p, size

        u, r, *_ = jax.lax.fori_loop(0, self.steps, step, (jnp.zeros_like(g), g, s, s, safe_divide(s @ s, g @ g)))
        return unit * u / scale, unit * norm(r), 2 * self.steps + 1


@dataclass(frozen=True)
class Minres(Iterative):
    """MINRES (Paige & Saunders 1975), `steps` products: the smallest residual in the Krylov space, H indefinite or not.

    The recursion's residual is the true one as long as the Lanczos vectors are orthogonal. So the space counts as exhausted
    where
    a new vector is small and lies in the span of the earlier ones, which are kept for this (`steps` vectors). Of a singular
    system with fewer dimensions than steps give a damping: rounding loses orthogonality bit by bit there, and the residual is
    the recursion's alone.
    """

    steps: int = _steps(5)

    @override
    def solve(self, operator: Operator, g: Vector) -> tuple[Vector, jax.Array, int]:
        rounding, small = rounding_of(g), float(jnp.finfo(g.dtype).eps) ** 0.5

        # What a loop hands on under another name is copied, and on an accelerator every copy is a kernel: so vectors that are
        # handed on are two rows of one array, scalars are one vector, and v_old is the basis'.
        def step(i: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            u, v, basis, (w_old, w), (c_old, c, s_old, s, beta, eta, size) = carry
            basis = basis.at[i].set(v)
            # Lanczos: the next orthonormal vector
            hv = operator(v)
            alpha = v @ hv
            v_new = hv - alpha * v - beta * basis[i - 1]  # the last row, 0, where there is none: β is 0 as well
            beta_new = norm(v_new)
            # What may be rounding: H is `size` at least, and orthogonal vectors have no part in each other
            size = jnp.maximum(size, jax.lax.stop_gradient(jnp.maximum(jnp.abs(alpha), beta_new)))
            overlap = jnp.max(jnp.abs(jax.lax.stop_gradient(basis) @ jax.lax.stop_gradient(v_new)))
            noise = jnp.maximum(rounding * size, jnp.minimum(100 * overlap, small * size))
            beta_new = jnp.where(beta_new <= noise, 0.0, beta_new)
            # Givens rotations: the tridiagonal matrix's QR decomposition, one column further
            rho0 = c * alpha - c_old * s * beta
            moves = ~(jnp.maximum(jnp.abs(rho0), beta_new) <= noise)  # NaN moves on, to be seen
            rho1 = jnp.where(moves, jnp.hypot(jnp.where(moves, rho0, 1.0), beta_new), 0.0)
            rho2 = s * alpha + c_old * c * beta
            rho3 = s_old * beta
            c_new = safe_divide(rho0, rho1)
            s_new = jnp.where(moves, safe_divide(beta_new, rho1), 1.0)  # H annihilates v: the residual stays
            w_new = safe_divide(v - rho3 * w_old - rho2 * w, rho1)
            u = u + c_new * eta * w_new
            scalars = jnp.stack([c, c_new, s, s_new, beta_new, -s_new * eta, size])
            return u, safe_divide(v_new, beta_new), basis, jnp.stack([w, w_new]), scalars

        zero, length = jnp.zeros_like(g), norm(g)
        one, none = jnp.ones_like(length), jnp.zeros_like(length)
        scalars = jnp.stack([one, one, none, none, none, length, none])
        start = (zero, safe_divide(g, length), jnp.zeros((self.steps, g.size), g.dtype), jnp.stack([zero, zero]), scalars)
        u, _, _, _, scalars = jax.lax.fori_loop(0, self.steps, step, start)
        return u, jnp.abs(scalars[5]), self.steps


@dataclass(frozen=True)
class Dense(Solver):
    """Forms H, p products and p² memory, and applies its pseudo-inverse (eigenvalues under 10 ε p |λ|max count as 0).

    For small problems and for tests.
    """

    @override
    def solve(self, operator: Operator, g: Vector) -> tuple[Vector, jax.Array, int]:
        matrix = jax.vmap(operator)(jnp.eye(g.size, dtype=g.dtype))
        eigenvalues, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
        cutoff = 10 * g.size * jnp.finfo(g.dtype).eps * jnp.abs(eigenvalues).max()
        inverse = jnp.where(jnp.abs(eigenvalues) > cutoff, safe_divide(jnp.ones_like(eigenvalues), eigenvalues), 0.0)
        u = vectors @ (inverse * (vectors.T @ g))
        return u, norm(g - matrix @ u), g.size


@dataclass(frozen=True)
class Neumann(Iterative):
    """Truncated Neumann series u = η Σ_{k < steps} (I − ηH)^k g (Lorraine et al. 2020), `steps` products.

    Converges for positive definite H with η < 2/λmax; directions of negative curvature grow by 1 + η|λ| a step, bounded
    because `steps` is.
    """

    step_size: float = setting(0.1, "step size η of the Neumann series", flag="solver_step_size", above=0)

    @override
    def solve(self, operator: Operator, g: Vector) -> tuple[Vector, jax.Array, int]:
        def step(_: jax.Array, carry: tuple[Vector, Vector]) -> tuple[Vector, Vector]:
            u, r = carry
            return u + self.step_size * r, r - self.step_size * operator(r)

        u, r = jax.lax.fori_loop(0, self.steps, step, (jnp.zeros_like(g), g))
        return u, norm(r), self.steps


SOLVERS: dict[str, type[Solver]] = {
    "identity": Identity,
    "cg": CG,
    "normal_cg": NormalCG,
    "minres": Minres,
    "gauss_newton": GaussNewton,
    "dense": Dense,
    "neumann": Neumann,
}
"""Every solver by the name the configuration uses."""
