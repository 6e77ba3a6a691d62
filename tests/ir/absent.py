"""Pointwise ops of ATen that the op table does without, and why. They run at once."""

_SPECIAL = "a special function: eager computes it element by element, and programs rarely call it"
_POLYNOMIALS = (
    "chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v chebyshev_polynomial_w"
)

ABSENT = {
    "aten::_conj_physical": "complex only",
    "aten::equal": "returns a Python bool: a reader",
    "aten::frexp": "two results of different dtypes",
    "aten::ldexp": "runs as a product with a power, which is recorded",
    "aten::mvlgamma": "raises on data (p against the smallest element), and sums",
    "aten::polygamma": _SPECIAL,
    "aten::round.decimals": "scales by a power of ten that depends on the dtype; rare",
    **{
        f"aten::__{name}__": "the operator's own spelling; programs reach bitwise_left_shift and its like"
        for name in ("lshift", "rshift", "ilshift", "irshift")
    },
    **{
        f"aten::special_{name}": _SPECIAL
        for name in (
            f"airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 {_POLYNOMIALS} entr erfcx"
            " hermite_polynomial_h hermite_polynomial_he i0e i1 i1e laguerre_polynomial_l"
            " legendre_polynomial_p log_ndtr modified_bessel_i0 modified_bessel_i1 modified_bessel_k0"
            " modified_bessel_k1 ndtri scaled_modified_bessel_k0 scaled_modified_bessel_k1"
            " spherical_bessel_j0 xlog1py zeta"
        ).split()
    },
    **{f"aten::special_shifted_{name}": _SPECIAL for name in _POLYNOMIALS.split()},
}
