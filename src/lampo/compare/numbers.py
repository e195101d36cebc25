"""Numbers as a comparison writes them."""

from __future__ import annotations

from .statistics import OverSeeds

NONE = "–"


def share(value: float, digits: int = 1) -> str:
    """A share in percent.

    >>> share(0.6034), share(0.5, 0)
    ('60.3 %', '50 %')
    """
    return f"{value * 100:.{digits}f} %"


def percent(mean: OverSeeds, digits: int = 1) -> str:
    """A share with its interval: 60.3 % [58.0, 63.2]."""
    return f"{share(mean.value, digits)} {_ends(mean, f'.{digits}f')}".strip()


def points(mean: OverSeeds) -> str:
    """A difference of shares in percentage points, with its interval: +8.1 [+5.2, +10.8]."""
    return f"{_signed(mean.value)} {_ends(mean, '+.1f')}".strip()


def rate(value: float) -> str:
    """A learning rate: 1e-6.

    >>> rate(1e-6), rate(3e-5), rate(0.001)
    ('1e-6', '3e-5', '0.001')
    """
    return f"{value:g}".replace("e-0", "e-")


def p_value(p: float | None) -> str:
    """A p-value with three digits.

    >>> p_value(0.0312), p_value(0.0001), p_value(None)
    ('0.031', '<0.001', '–')
    """
    return NONE if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _signed(value: float, form: str = "+.1f") -> str:
    text = f"{value * 100:{form}}"
    return text[1:] if float(text) == 0 and text[0] in "+-" else text  # neither +0.0 nor -0.0


def _ends(mean: OverSeeds, form: str) -> str:
    if mean.low is None or mean.high is None:
        return ""
    return f"[{_signed(mean.low, form)}, {_signed(mean.high, form)}]"
