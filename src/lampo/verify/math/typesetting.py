r"""Answers as text: what only changes how they look is taken off, and words in them are marked, before they are read."""

from __future__ import annotations

import re

from .tree import Malformed
from .units import BARE_UNITS, SCALES, vocabulary

_GREEK_LETTERS = "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"
_GREEK_NAMES = re.findall(
    r"\w+",
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega",
)
_UNICODE = str.maketrans(
    {
        **dict.fromkeys("\xa0\u2009\u202f\u2002\u2003\u2005\u2006\u2007\u2008\u200a", " "),
        **dict.fromkeys("\u200b\u2060\ufeff\u200e", ""),
        **dict.fromkeys("−–‐‑", "-"),
        **dict.fromkeys("×⋅·∙∗", "*"),
        "÷": "/",
        "⁄": "/",
        "∕": "/",
        "√": r"\sqrt ",
        "∞": r"\infty ",
        "∪": r"\cup ",
        "∩": r"\cap ",
        "∈": r"\in ",
        "∖": r"\setminus ",
        "∅": r"\emptyset ",
        "ℝ": r"\mathbb{R}",
        "≤": r"\le ",
        "⩽": r"\le ",
        "≥": r"\ge ",
        "⩾": r"\ge ",
        "≠": r"\ne ",
        "≈": r"\approx ",
        "±": r"\pm ",
        "∓": r"\mp ",
        "°": r"^\circ ",
        "⊥": r"\perp ",
        "∥": r"\parallel ",
        "↔": r"\leftrightarrow ",
        "⟨": r"\langle ",
        "⟩": r"\rangle ",
        "⌊": r"\lfloor ",
        "⌋": r"\rfloor ",
        "⌈": r"\lceil ",
        "⌉": r"\rceil ",
        "′": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "…": r"\ldots ",
        "€": r"\euro ",
        "£": r"\pounds ",
        "¢": r"\text{ cents}",
        **{c: f" {n} ; " for n, c in enumerate("①②③④⑤⑥⑦⑧⑨", 1)},
        **{c: rf"\{name} " for c, name in zip(_GREEK_LETTERS, _GREEK_NAMES, strict=True)},
        **{c: rf"\frac{{{n}}}{{{d}}}" for c, n, d in (
            ("½", 1, 2), ("⅓", 1, 3), ("⅔", 2, 3), ("¼", 1, 4), ("¾", 3, 4), ("⅕", 1, 5), ("⅖", 2, 5), ("⅗", 3, 5),
            ("⅘", 4, 5), ("⅙", 1, 6), ("⅚", 5, 6), ("⅐", 1, 7), ("⅛", 1, 8), ("⅜", 3, 8), ("⅝", 5, 8), ("⅞", 7, 8),
            ("⅑", 1, 9), ("⅒", 1, 10),
        )},
    }
)  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

_SPACING = re.compile(
    r"(?<!\\)\\(?:[,;:! ]|(?:quad|qquad|enspace|thinspace|displaystyle|textstyle|limits|nolimits|left|right|middle|hfill"
    r"|[bB]igg?[lrm]?)(?![a-zA-Z])|(?:[hv]?phantom|hspace|vspace|label)(?:\{[^{}]*\}| ?-))|~"
)
_THOUSANDS = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!|\\!,|\\,|\\;|\\ |~)(?:\\!|\s)*(?=[0-9]{3}(?![0-9]))")
_SPACED_THOUSANDS = re.compile(r"(?<![0-9.,_^])(?<!frac)(?<!frac )[1-9][0-9]{0,2}(?: [0-9]{3})+(?![0-9])")
_TEXT = r"(?:text(?:bf|it|rm|sf|tt|up|sc|normal|normalfont)?|mbox|hbox|mathrm|mathbf|mathit|mathsf|mathtt|operatorname\*?|bm|boldsymbol)"
_TEXT_COMMAND = re.compile(rf"\\{_TEXT}\s*\{{")
_MATH_FONT = re.compile(r"\\(?:mathbf|mathit|mathsf|mathtt|bm|boldsymbol)")
_BARE_TEXT_COMMAND = re.compile(
    r"\\(?:(?:bf|rm|it|sf|tt|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge)(?![a-zA-Z])"
    r"|underline(?=\s*\{)|(?:text)?color\s*\{[^{}]*\})"
)
_ROMAN = re.compile(r"\{\s*\\rm(?![a-zA-Z])([A-Za-z. ]+)\}")
_TEMPERATURE = re.compile(
    rf"\^\s*(?:\{{\s*\\circ\s*\}}|\\circ)\s*(?:\\{_TEXT}\s*\{{\s*([CF])\s*\}}|([CF])(?=\s*(?:\Z|[,;)}}])))"
)
_ROW_END = re.compile(r"\\\\\s*\[\s*-?[0-9.]+\s*[a-z]{2}\s*\]")
_NUMERAL_IN_BRACKETS = re.compile(
    r"(?<![A-Za-z0-9)}\]^_])(?:\(([0-9A-F]*[0-9][0-9A-F]*)\)|\{([0-9A-F]*[0-9][0-9A-F]*)\})(?=\s*_)"
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}(?![A-Za-z])")
FUNCTIONS = vocabulary(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth arcsinh arccosh arctanh "
    "log ln lg exp gcd lcm max min Re Im arg cis sgn"
)
GREEK = (frozenset(_GREEK_NAMES) | vocabulary("varepsilon vartheta varphi Upsilon ell hbar")) - {"pi"}
PLAIN_COMMANDS = (
    FUNCTIONS | {"sqrt", "pi", "infty", "infinity", "inf", "cup", "binom", "asin", "acos", "atan", "pm"}
    | {name for name in GREEK if len(name) > 2}
) - {"max", "min", "arg"}  # fmt: skip
_SCALES_OF_HEAT = {"C": "degrees celsius", "F": "degrees fahrenheit"}
NUMBER_WORDS = {
    word: i
    for i, word in enumerate(
        re.findall(
            r"\w+",
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen twenty",
        )
    )
}


_CIRCLED = re.compile(r"\\textcircled\s*\{\s*(?:\\[a-z]+\s*)*\{?\s*([0-9]+)\s*\}?\s*\}")
_LINES = re.compile(r"\\(begin|end)\s*\{(?:aligned|align\*?|split|gathered|gather\*?|eqnarray\*?)\}")
_BREAK = re.compile(
    r"\\(begin|end)\s*\{|\\\\(?:\s*\[[^\]]*\])?\s*&?\s*(?P<sign>[=<>]|\\[gln]eq?(?![a-z])|\\approx(?![a-z]))?|&"
)
_BRANCHES = re.compile(
    r"\\left\s*\\\{\s*\\begin\s*\{array\}\s*\{[^{}]*\}(.*?)\\end\s*\{array\}\s*\\right\s*\.", re.DOTALL
)
_PRIMES = re.compile(r"(?<=[A-Za-z])(_(?:\{[^{}]*\}|\w))?\s*\^\s*(?:\{\s*((?:\\prime\s*)+)\}|(\\prime)(?![a-z]))")
_NEXT_STATEMENT = re.compile(r"(?<=[^-+*/=<>,;(\s])\s*(?:\$\s+\$|\\q?quad(?![a-z]))(?=\s*[A-Za-z](?:_\{?\w+\}?)?\s*=)")
_MINUTES = re.compile(
    r"(?<![0-9.])(-?)([0-9]+) *\^ *(?:\{ *\\circ *\}|\\circ) *([0-9]{1,2}) *(?:\^ *(?:\{ *\\prime *\}|\\prime)|')(?!')"
    r"(?: *([0-9]{1,2}) *(?:\^ *\{ *\\prime *\\prime *\}|''))?"
)
_HYPHENATED_UNIT = re.compile(r"\\mathrm\s*\{\s*~?\s*([A-Za-z]{1,4})\s*\}\s*-\s*\\mathrm\s*\{\s*([A-Za-z]{1,4})\s*\}")


def _as_degrees(match: re.Match[str]) -> str:
    minutes = f"\\frac{{{match[3]}}}{{60}}" + (f"+\\frac{{{match[4]}}}{{3600}}" if match[4] else "")
    return rf"{match[1]}({match[2]}+{minutes})^{{\circ}}"


def _in_one_line(text: str) -> str:
    """Lines that are aligned at their signs as one line: a chain where a line begins with a sign, else a list."""
    text, depth, parts, position = _LINES.sub(" ", text), 0, [], 0
    for match in _BREAK.finditer(text):
        if match[1]:
            depth += 1 if match[1] == "begin" else -1
        elif depth == 0:
            between = " " if match["sign"] or match[0] == "&" else " , "
            parts += [text[position : match.start()], between, match["sign"] or ""]
            position = match.end()
    return "".join([*parts, text[position:]])


def clean_answer(text: str) -> str:
    r"""An answer without what only changes how it looks.

    >>> clean_answer(r"$\left( 1\,000,\ \dfrac{\!1}{2} \right).$")
    '( 1000, \\frac{1}{2}  )'
    """
    text = text.strip()
    while len(text) > 1 and (pair := (text[:2], text[-2:])) in ((r"\(", r"\)"), (r"\[", r"\]"), ("$$", "$$")):
        text = text[len(pair[0]) : -2].strip() if len(text) > 3 else ""
    text = re.sub(r"(?<!\\)\$", " ", _NEXT_STATEMENT.sub(" , ", text) if "=" in text else text)
    if r"\begin" in text:
        text = _BRANCHES.sub(r"\\begin{cases}\1\\end{cases}", text)
        text = _in_one_line(text) if _LINES.search(text) else text
    if r"\textcircled" in text:
        text = _CIRCLED.sub(r" \1 ; ", text)
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉]+", lambda match: "_{" + match[0].translate(_SUBSCRIPTS) + "}", text)
    text = re.sub(r"(?<=[0-9])\s*€", r"\\text{ euros}", text).translate(_UNICODE)
    if r"\begin" not in text:
        text = re.sub(r"\\\\(?=[A-Za-z{}%$,;!()\[\]])", r"\\", text)
    text = _ROW_END.sub(r"\\\\", text)
    text = re.sub(r"(?<!\\)\\[()\[\]]", " ", text).replace("**", "" if text.startswith("**") else "^")
    text = _THOUSANDS.sub("", text)
    text = _SPACING.sub(lambda match: "" if match[0] == r"\!" else " ", text)
    text = re.sub(r"\\(?:d|t|c)frac(?![A-Za-z])", r"\\frac", text)
    text = _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)
    text = re.sub(r"\(\s*(?:\\text\s*\{\s*mod\s*\}|\\mod|mod)\s*([0-9]+)\s*\)", r"\\pmod{\1}", text)
    text = _BARE_TEXT_COMMAND.sub(" ", _ROMAN.sub(r"\\mathrm{\1}", text))
    text = _TEMPERATURE.sub(lambda match: rf"\text{{ {_SCALES_OF_HEAT[match[1] or match[2]]}}}", text)
    text = _NUMERAL_IN_BRACKETS.sub(lambda match: match[1] or match[2], text)
    text = _MINUTES.sub(_as_degrees, _HYPHENATED_UNIT.sub(r"\\text{ \1 \2}", text))
    if r"\prime" in text:
        text = _PRIMES.sub(lambda match: "'" * (match[2] or match[3]).count("prime") + (match[1] or ""), text)
    text = re.sub(r"(?<=[0-9])\.(?=/)", "", text)
    text = re.sub(r"\\text\s*\{\s*\}", "", text).strip()
    text = re.sub(r"\.\.\.+", r"\\ldots ", text)
    while text.endswith((".", ",", ";", ":")) and not text.endswith(r"\."):
        text = text[:-1].rstrip()
    while text.startswith("{") and _balanced_end(f"{text}}}", 1) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def words_of(clean: str) -> str:
    r"""A cleaned answer as words: without text commands and their braces.

    >>> words_of(r"\text{(B)}"), words_of(r"\textbf{two}\ lines")
    ('(B)', 'two lines')
    """
    if _TEXT_COMMAND.search(clean):
        clean = re.sub(r"[{}]", " ", _TEXT_COMMAND.sub(" ", clean))
    return " ".join(clean.replace("\\ ", " ").split()).strip(" .\"'")


def is_words(clean: str, words: str) -> bool:
    r"""Whether an answer is words: some in `\text{...}` and nothing outside, or so long that they are no product."""
    if not re.fullmatch(r"\(?[A-Za-z][A-Za-z ,.'&()/-]*", words):
        return False
    runs = re.findall(r"[A-Za-z]+", words)
    if _TEXT_COMMAND.match(clean) and len(_TEXT_COMMAND.findall(clean)) == 1 and clean.endswith("}"):
        return not (len(words) == 1 and words.islower()) and not set("+*/^=") & set(words)
    return any(len(run) > 3 and run not in PLAIN_COMMANDS for run in runs) and not set("+*/^=") & set(words)


def _balanced_end(text: str, start: int) -> int:
    """The index of the brace that closes the one before `start`."""
    depth = 1
    for i in range(start, len(text)):
        if text[i] in "{}" and text[i - 1] != "\\":
            depth += 1 if text[i] == "{" else -1
            if depth == 0:
                return i
    raise Malformed("a brace is not closed")


def mark_words(text: str, texts: list[str]) -> str:
    r"""Replace `\text{...}` and words that stand outside of it by a mark and the number of an entry in `texts`."""
    parts, position = [], 0
    while match := _TEXT_COMMAND.search(text, position):
        end = _balanced_end(text, match.end())
        content = text[match.end() : end]
        parts += [_mark_bare_words(text[position : match.start()], texts)]
        if _MATH_FONT.match(match[0]) and not content[:2].isalpha() and re.search(r"[0-9+*/=^_<>\\]", content):
            parts += ["{", mark_words(content, texts), "}"]
        elif (
            _MATH_FONT.match(match[0])
            and re.fullmatch(r"[a-z]", content.strip())
            and text.strip() != text[match.start() : end + 1]
        ):
            parts += [f" {content.strip()} "]  # a vector
        else:
            parts += [_text_mark(content, texts) if match[0] != r"\mathrm{" or content not in ("i", "e") else content]
        position = end + 1
    return "".join([*parts, _mark_bare_words(text[position:], texts)])


def _text_mark(content: str, texts: list[str]) -> str:
    words = " ".join(content.replace("\\", " ").split())
    key = words.casefold().strip(" ,.;")
    if key in NUMBER_WORDS:
        return f" {NUMBER_WORDS[key]} "
    if not key:
        return " , " if "," in words else " "
    if key in ("and", "or", "det"):
        return rf" \{key} "
    if re.fullmatch(r"[-0-9.+/=*^()\[\]{},%<> ]+", words):
        return f" {words} "
    if key in PLAIN_COMMANDS:
        return rf"\{key} "
    if key in ("percent", "percentage"):
        return "% "
    if key in ("deg", "degree", "degrees"):
        return r"^\circ "
    texts.append(words)
    return f" \x00{{{len(texts) - 1}}} "


def _mark_bare_words(text: str, texts: list[str]) -> str:
    def mark(match: re.Match[str]) -> str:
        word = match[0]
        if word in PLAIN_COMMANDS:
            return rf"\{word} "
        if word.casefold() in ("and", "or", "percent", "deg", "degree", "degrees") or word.casefold() in SCALES:
            return _text_mark(word, texts)
        before = text[: match.start()].rstrip()
        after_number = before[-1:].isdigit() or before[-1:] in tuple("})/\x00")
        if len(word) > 3 or (after_number and word.casefold() in BARE_UNITS) or word in ("is", "the", "not", "sq"):
            return _text_mark(word, texts)
        return word

    return text if r"\begin" in text else _WORD.sub(mark, text)
