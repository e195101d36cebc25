"""Units of measurement: what the words behind a number mean, and whether two of them measure the same thing."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction


def vocabulary(words: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(words.split())


_LENGTH = {
    "mm millimeter millimetre": Fraction(1, 1000),
    "cm centimeter centimetre": Fraction(1, 100),
    "dm decimeter decimetre": Fraction(1, 10),
    "m meter metre": Fraction(1),
    "km kilometer kilometre": Fraction(1000),
    "inch inche in": Fraction(254, 10_000),
    "ft foot feet": Fraction(3048, 10_000),
    "yd yard": Fraction(9144, 10_000),
    "mi mile": Fraction(1_609_344, 1000),
}
_TABLES: dict[str, dict[str, Fraction]] = {
    "length": _LENGTH,
    "mass": {
        "mg milligram": Fraction(1, 1_000_000),
        "g gram": Fraction(1, 1000),
        "kg kilogram": Fraction(1),
        "t tonne": Fraction(1000),
        "oz ounce": Fraction(45_359_237, 1_600_000_000),
        "lb pound": Fraction(45_359_237, 100_000_000),
    },
    "time": {
        "ms millisecond": Fraction(1, 1000),
        "s sec second": Fraction(1),
        "min minute": Fraction(60),
        "h hr hour": Fraction(3600),
        "day": Fraction(86_400),
        "week": Fraction(604_800),
    },
    "force": {"n newton": Fraction(1)},
    "energy": {"j joule": Fraction(1), "kj kilojoule": Fraction(1000)},
    "power": {"w watt": Fraction(1), "kw kilowatt": Fraction(1000)},
    "voltage": {"v volt": Fraction(1)},
    "pressure": {"pa pascal": Fraction(1), "kpa kilopascal": Fraction(1000)},
    "frequency": {"hz hertz": Fraction(1)},
    "radian": {"rad radian": Fraction(1)},
    "money": {"cent ¢": Fraction(1, 100), "dollar usd $": Fraction(1)},
}
_NAMES = {
    name: (dimension, factor)
    for dimension, table in _TABLES.items()
    for names, factor in table.items()
    for name in names.split()
}
_COMPOUND = {  # name: (dimension, power, factor)
    **dict.fromkeys(("l", "liter", "litre"), ("length", 3, Fraction(1, 1000))),
    **dict.fromkeys(("ml", "milliliter", "millilitre"), ("length", 3, Fraction(1, 1_000_000))),
    **dict.fromkeys(("hectare", "ha"), ("length", 2, Fraction(10_000))),
}
SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
"""Words that multiply the number before them."""

BARE_UNITS = vocabulary(
    "mm cm dm km ft yd mi mg kg lb lbs oz ms sec min hr hrs ml mph kmh kph day days inch cent cents mile miles"
)
"""Short names that are read as a unit behind a number even outside of `\\text{...}`. "m" or "in" could be letters."""

_NOT_UNITS = vocabulary(
    "a an the is are was be not no or and if when where for but either neither at least most more less than about "
    "approximately around maybe wrong then so because since with mod modulo squared cubed choose times plus minus "
    "over divided by factorial pi half halves third quarter to from between i think we it this that which"
)
_PLURALS = vocabulary("euro people children men women mice geese sheep fish dice yen baht fahrenheit")
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_MAX_WORDS = 4


@dataclass(frozen=True, slots=True)
class Unit:
    """A product of powers of units.

    Attributes:
        factor: how many of the base units it is.
        powers: powers of the base dimensions (length, mass, time, money), and of words that are in no table.
    """

    factor: Fraction
    powers: frozenset[tuple[str, int]]

    def measures_the_same_as(self, other: Unit) -> bool:
        """Whether amounts of the two can be compared. Of words in no table, one side may say only a part.

        >>> [read_unit("cm").measures_the_same_as(read_unit(word)) for word in ("inches", "cm^2", "apples")]
        [True, False, False]
        >>> read_unit("right triangles").measures_the_same_as(read_unit("triangles"))
        True
        """
        if self.powers == other.powers:
            return True
        in_tables = any(name in _TABLES for name, _ in self.powers | other.powers)
        return not in_tables and (self.powers <= other.powers or other.powers <= self.powers)


def read_unit(words: str, singular: bool = False) -> Unit | None:
    """The unit that these words name. None where they are no unit.

    Words in no table are units of their own if the last of them is a plural (apples, right triangles), or the amount
    is one. Words that say something else about a number (or, not, about, squared) are none, and neither are more than
    four words.

    >>> read_unit("square cm") == read_unit("cm^2"), read_unit("km/h").factor
    (True, Fraction(5, 18))
    >>> read_unit("apples") is None, read_unit("trust me"), read_unit("or maybe 7")
    (False, None, None)
    """
    text = words.casefold().replace("per ", "/").replace("²", "^2").replace("³", "^3").replace("mph", "mile/h")
    text = re.sub(r"km/?ph", "km/h", text).replace("sq.", "sq ").replace("cu.", "cu ")
    tokens = re.findall(r"[a-z¢$°'-]+|\^-?[0-9]|/|[^\s.·*{}]", text)
    powers: Counter[str] = Counter()
    factor, sign, next_power, last = Fraction(1), 1, 1, ""
    if not 0 < sum(token[0].isalpha() or token in "¢$" for token in tokens) <= _MAX_WORDS:
        return None
    for token in tokens:
        if token == "/":
            sign = -1
        elif token[0] == "^":
            if not last or len(token) == 1:
                return None
            dimension, power, size = _look_up(last)
            extra = (int(token[1:]) - 1) * sign
            powers[dimension] += power * extra
            factor *= size**extra
            last = ""
        elif token in _POWERS:
            next_power = _POWERS[token]
        elif token in _NOT_UNITS or not (token.replace("-", "").replace("'", "").isalpha() or token in "¢$"):
            return None
        else:
            dimension, power, size = _look_up(token)
            powers[dimension] += power * sign * next_power
            factor *= size ** (sign * next_power)
            next_power, last = 1, token
    noun = [token for token in tokens if token[0] not in "/^"][-1]
    if not (singular or "/" in tokens or _look_up(noun)[0] in _TABLES or noun.endswith("s") or noun in _PLURALS):
        return None
    return Unit(factor, frozenset((name, power) for name, power in powers.items() if power))


def _look_up(word: str) -> tuple[str, int, Fraction]:
    for name in (word, word.removesuffix("s"), word.removesuffix("es")):
        if name in _NAMES:
            dimension, factor = _NAMES[name]
            return dimension, 1, factor
        if name in _COMPOUND:
            return _COMPOUND[name]
    return word.removesuffix("s"), 1, Fraction(1)
