"""Which option of a multiple choice a response commits to, as a person reads it.

A response commits in a box, in `<answer>` tags, in a sentence ("the answer is B", "I choose B", "B is correct") or by a last
line that is a letter alone. The last of them that names an option counts. One that is denied ("the answer is not B"), supposed
("if the answer is B") or somebody else's ("one might think the answer is B") names none.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .answers import boxed_answer, ends_inside_box

LETTERS = "ABCDEFGHIJ"
MAX_LENGTH = 1500
"""Of the words that commit to an option. What is longer is cut."""
_MAX_HEADS, _MAX_WRAPPED, _BEFORE = 50, 4, 120

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_EMPHASIS = re.compile(r"~~[^~\n]{1,80}~~|\*+|__|`+|</?(?:b|i|em|strong|u|p|span)>|✅|✓", re.IGNORECASE)
_WRAPPING = re.compile(r"\\(?:text|mathrm|mathbf|textbf|boxed|rm|bf)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\(?:quad|qquad|[,;: ])")
_DELIMITERS = re.compile(r"\\[()!]|\$")

# Heads: what announces an option

_NOUN = (
    r"(?:\banswer(?:[ \t]+(?:to|for|of|here|among|from)\b[^.\n:;?!]{0,60}?)?(?:,[^,.\n:;?!]{1,40},)?"
    r"|\b(?:option|choice)|\b(?:right|correct|best)[ \t]+(?:one|letter))"
)
_BE = (
    r"\b(?:is|would(?:[ \t]+then)?[ \t]+be|must[ \t]+be|should[ \t]+be|has[ \t]+to[ \t]+be|will[ \t]+be)\b(?:[ \t]*:)?"
)
_DENYING = r"\b(?:isn['’]t|is[ \t]+not|can(?:no|['’])t[ \t]+be|cannot[ \t]+be|is[ \t]+never)\b"
_OTHER_LANGUAGES = (
    r"\b(?:réponse|antwort|lösung|respuesta|resposta|risposta|ответ)(?:[ \t]+(?:correcte|correcta|correta|corretta|exacte))?"
    r"(?:[ \t]*:|[ \t]+(?:est|ist|es|é|è)\b(?![ \t]+(?:pas|nicht)))"
    r"|(?:答案|答え|正解|正答|정답|답|الإجابة)(?:[ \t]*:|[ \t]*(?:是|为|為|選|选|は|은|는)(?!不))|(?:故选|应选|所以选|因此选|選)择?[ \t]*:?"
)
_HEAD = re.compile(
    rf"{_NOUN}[ \t]*(?:(?P<no>{_DENYING})|[:=]|{_BE})|^[#> \t]{{0,8}}(?:(?:the|my|final|correct)[ \t]+){{0,3}}answer[ \t]*$"
    r"|\b(?:I|we)(?:['’](?:ll|d)|[ \t]+(?:will|would|therefore|thus|now)){0,2}[ \t]+(?:choose|pick|select|chose"
    r"|go[ \t]+with|opt[ \t]+for)\b"
    r"|\b(?:so|hence|thus|therefore),?[ \t]+it[ \t]+(?:is|must[ \t]+be|should[ \t]+be|has[ \t]+to[ \t]+be)\b"
    rf"|{_OTHER_LANGUAGES}",
    re.IGNORECASE | re.MULTILINE,
)
_TAGS = re.compile(r"<(?:final_)?answer>(?P<said>.*?)(?:</(?:final_)?answer>|\Z)", re.IGNORECASE | re.DOTALL)
_IS_CORRECT = re.compile(
    r"(?P<before>(?:\b(?i:statement|claim|assertion|reason)[ \t]+|[A-J][)\]]?(?:,|[ \t]+(?:and|or|nor)|,[ \t]*(?:and"
    r"|or))[ \t]+)?)"
    r"(?<![\w'’])[(\[]?(?P<letter>[A-J])[)\]]?[ \t]+"
    r"(?:(?P<no>(?:is|are)(?:n['’]t|[ \t]+not)\b|cannot[ \t]+be|is[ \t]+(?:wrong|incorrect|false)\b)"
    r"|(?:is|must[ \t]+be)[ \t]+(?:(?:therefore|thus|clearly|indeed|also)[ \t]+)?(?:the[ \t]+|our[ \t]+|my[ \t]+)?(?:only[ \t]+)?"
    r"(?:(?:correct|right|best)(?:[ \t]+(?:answer|option|choice|one))?|answer)(?=[ \t]*(?:[.,;:!)]|$|because|since"
    r"|as\b|here\b)))",
    re.MULTILINE,
)

# What stands before a head, in its clause, and turns it into no commitment

_CLAUSE = re.compile(r"[.!?\n;:,]|\b(?:so|thus|hence|therefore|then|and|but|because|means|fact)\b", re.IGNORECASE)
_NOT_COMMITTING = re.compile(
    r"\b(?:not|never|nobody|hardly|doubt|unlikely|false|cannot|thought|believed|no[ \t]+(?:one|reason|way)|is[ \t]+it)\b|n['’]t\b"
    r"|\b(?:say|says|said|saying|think|thinks|claims?|argues?|guess|assumes?|believes?|suggests?|implies|pretend"
    r"|reject|rule|pick|wrong)\b"
    r"|\b(?:no|every|any|each)[ \t]*\Z"
    r"|\b(?:if|whether|unless|suppose|supposing|assume|assuming|is)[ \t]+(?:that[ \t]+)?(?:the[ \t]+)?(?:(?:correct"
    r"|right|final)[ \t]+)?(?:option[ \t]+)?\Z"
    r"|\b(?:wrong|incorrect|tempting|least|initial|first|previous|earlier|naive|second|student['’]?s?|their|his|her"
    r"|other|worst|format)"
    r"(?:[ \t]+\w+)?[ \t]*['’\"“]?\Z",
    re.IGNORECASE,
)
_IF = re.compile(r"\bif\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|never|hardly|cannot)\b|n['’]t\b", re.IGNORECASE)
_OWN_VIEW = re.compile(
    r"\b(?:I|we|this|that|which|it)(?:['’](?:d|ll))?[ \t]+(?:(?:\w+ly|would|can|must|will|strongly|now)[ \t]+){0,2}"
    r"(?:think|believe|conclude|say|guess|suggests?|implies|find|get|see)\b(?:[ \t]+that)?"
    r"(?:[ \t]+(?:the|my|our|\w+est|correct|right|final|most|likely)){0,4}[ \t]*\Z",
    re.IGNORECASE,
)
_DISOWNED = re.compile(
    r"\b(?:but|yet|and|though|although)[ \t]+(?:that|this|it)[ \t]+(?:is|would[ \t]+be)[ \t]+"
    r"(?:wrong|incorrect|false|not|a[ \t]+(?:myth|mistake))\b",
    re.IGNORECASE,
)
_TAKES_BACK = re.compile(
    r"\b(?:wait|hmm|actually\b,?[ \t]+(?:it|the|that|no|I|option|[(\[]?[A-J]\b)|scratch[ \t]+that|correction"
    r"|on[ \t]+second[ \t]+thoughts?|or[ \t]+rather|my[ \t]+mistake|oops|sorry|(?:edit|update|erratum)[ \t]*:"
    r"|I[ \t]+was[ \t]+wrong|I[ \t]+mean|no(?=[,.:!]))",
    re.IGNORECASE,
)
_JOINED = re.compile(r"[\s,/|&]*(?:or|and)?[\s,/|&]*", re.IGNORECASE)

# What a head announces

_LEAD = re.compile(
    r"(?:[\s(\[\"'“‘«:>#-]|\b(?:option|choice|letter|the|la|le|el|die|die[ \t]+Option|given|shown|found|described|by"
    r"|in|as|still|just|most|indeed|therefore|thus|hence|then|again"
    r"|number|answer|is|(?!unlikely|hardly|barely|rarely|supposedly|allegedly|reportedly|apparently|seemingly"
    r"|partially|partly|falsely|wrongly)[a-z]{2,12}ly)\b(?=[\s(:]))*",
    re.IGNORECASE,
)
_NO = re.compile(r"\b(?:not|neither|nor|never)\b[\s:]*", re.IGNORECASE)
_VERB = re.compile(
    r"[)\]]?\s+(?:is|are|was|were|would|could|cannot|can|does|do|did|may|might|has|have|had|needs?|fails?|lacks?"
    r"|ignores?|violates?"
    r"|gives?|requires?|contradicts?|wrong|incorrect|violate|violates|fail)\b",
    re.IGNORECASE,
)
_IS_DENIED = re.compile(
    r"[)\]]?\s*\((?:wrong|incorrect|false|no)\b"
    r"|[)\]]?\s+(?:is|are|was)(?:n['’]t|\s+(?:not|wrong|incorrect|false|ruled out|out|too|impossible))\b",
    re.IGNORECASE,
)
_BUT = re.compile(r"[\s,;:.)\]]*(?:\b(?:but|so|hence|thus|it|is|it['’]s|rather)\b[\s,:]*)*", re.IGNORECASE)
_FIRST = re.compile(r"(?P<letter>[A-Ja-j])(?![A-Za-z0-9'’_^])")
_ENDS = re.compile(r"[\s)\].:,;!?。，、…\"'”’»>-]*\Z")
_LABEL = re.compile(
    r"[)\]\"'”’»]*[)\].:,;!?。，、…]|[\"'”’»]|\s+[-–—(/|&+]|[–—/|&+](?![A-Z0-9a-z])|\s*[/|&]|\s+[\d$\\.]|\s*\n|-(?=[A-J]\b)"
)
_GOES_ON = re.compile(
    r"\s+(?:because|since|as|due|given|for|which|although|though|even|while|whereas|rather|instead|over|unlike|and|or"
    r"|not|but|so|by|on|in|with"
    r"|meaning|despite|where|if|is\s+(?:the|correct|right)|plus|oder|ou|o|y|und|et|e|The|It|This|Because|Since"
    r"|[A-J]\b)\b|\s*(?:或|和|及|입니다|です)|이|が",
)
_LOWER_GOES_ON = re.compile(r"[)\].,;]|\s+(?:because|since|as|due)\b")
_LETTER = re.compile(
    r"(?<![A-Za-z0-9'’\\^_{-])(?:[B-HJ]|[AI](?!\s+(?!(?:or|and|because|since|as|but|if|for|with"
    r"|is)\b)[a-z]))(?![A-Za-z0-9'’_^-])(?!\s*[=<>+])"
)
_SIDE_BY_SIDE = re.compile(
    r"[\s,;/&|+()\[\].–—-]*(?:(?:or|and|also|maybe|possibly|perhaps|plus|as well as|both|option|choice|oder|ou|o|y"
    r"|und|et|e|или|и|或|和|及|、)[\s,()\[\]]*)*",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\b(?:because|since|as(?! well)|due|given|for|which|although|though|while|whereas|rather|instead|over|unlike|not"
    r"|than|so|by|meaning|despite|where"
    r"|reason)\b|[:;]|\s[-–—]\s|\((?![A-J]\))",
    re.IGNORECASE,
)
_OF_SEVERAL = re.compile(r"[)\].:]*\s*(?:both|neither|all|none|either)\b", re.IGNORECASE)
_ADDED = re.compile(r"\b(?:or|and|plus|maybe|possibly)(?:,[^,.]{1,20},)?\s+[(\[]?\Z", re.IGNORECASE)
_NEW_CLAUSE = re.compile(r"\s*[,;]\s*(?:(?:and|while)\s+)?(?:option\s+)?[(\[]?")
_HAS_VERB = re.compile(
    r"[)\]]?\s+(?:is|was|would|could|can|does|has|had|fails|lacks|needs|gives)\b(?!\s+(?:correct|right|also|possible))"
)
_NAMED_LATER = re.compile(
    r"(?:[,=→:]|\b(?:which[ ]is|that[ ]is|i\.e\.|is|(?:corresponds|corresponding|equal)[ ]to|match(?:es|ing)"
    r"|namely))\s*(?:the\s+)?"
    r"(?:option|choice|answer|letter)\s+[(\[]?(?P<named>[A-J])(?![A-Za-z0-9])|[(\[](?:option\s+"
    r"|choice\s+)?(?P<bracketed>[A-J])[)\]]",
    re.IGNORECASE,
)
_ROW = re.compile(r"[A-J](?:[\s,]*(?:and|or)?\s*[A-J]\b)*(?:\s+(?:all|both)(?=\s+\w+))?")
_SENTENCE = re.compile(r"[.!?。！？](?=\s|\Z)|\n\s*\n")
_ALONE = re.compile(
    r"[\s(\[$\"'“#>-]*(?:option\s+|choice\s+)?[(\[]?(?P<letter>[A-Ja-j])[)\].:]*[\s)\]$\"'”.。]*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a response says, and the options that this names: one if it commits to one."""

    said: str
    letters: frozenset[str]
    why_none: str = ""


@dataclass(frozen=True, slots=True)
class _Mark:
    """A mention by which a response may commit to an option."""

    begin: int
    end: int
    said: str
    letters: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    is_plain: bool = True  # False: "B is correct", which may be said of several


def chosen_option(text: str, options: Sequence[str]) -> Chosen | None:
    r"""The option that a response commits to. None if it gives no answer at all.

    Args:
        text: the response without its thought.
        options: the texts of the options, where they are known.

    >>> chosen_option("The answer is C, not B.", []).letters == {"C"}
    True
    >>> chosen_option("The answer is not C.", []).letters == set()
    True
    """
    if ends_inside_box(text):
        return None
    text = _EMPHASIS.sub("", text.translate(_FULL_WIDTH))
    marks = sorted(_marks(text, options), key=lambda mark: mark.begin)
    denied: set[str] = set()
    for index in range(len(marks) - 1, -1, -1):
        mark = marks[index]
        denied |= mark.denied
        if not mark.letters:
            continue
        letters = mark.letters - denied
        if not letters:
            return Chosen(mark.said, frozenset(), "takes its answer back")
        for other in reversed([other for other in marks[:index] if other.letters]):
            between = text[other.end : mark.begin]
            if other.letters == letters or _TAKES_BACK.search(between):
                break
            if _JOINED.fullmatch(between) or not mark.is_plain:
                letters |= other.letters
            break
        if len(letters) == 1 and _is_taken_back(text[mark.end :], letters):
            return Chosen(mark.said, frozenset(), "takes its answer back")
        return Chosen(mark.said, frozenset(letters))
    said = next((mark.said for mark in reversed(marks) if mark.said), "")
    return Chosen(said, frozenset(), "names none of the options") if said else None


def alone(text: str) -> str | None:
    """The letter that a text consists of, such as "(b).". None if it says more."""
    match = _ALONE.fullmatch(text)
    return match["letter"].upper() if match else None


def _marks(text: str, options: Sequence[str]) -> Iterator[_Mark]:
    if boxed := boxed_answer(text):
        begin = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
        yield _read(begin, begin + len(boxed) + 6, boxed, options)
    if tags := deque(_TAGS.finditer(text), maxlen=1):
        inner = tags[0]["said"]
        if not boxed_answer(inner) and not _HEAD.search(inner):
            yield _read(tags[0].start(), tags[0].end(), inner, options)
    heads = deque(_HEAD.finditer(text), maxlen=_MAX_HEADS)
    for index, head in enumerate(heads):
        next_head = heads[index + 1].start() if index + 1 < len(heads) else len(text)
        end = min(next_head, head.end() + MAX_LENGTH)
        said = text[head.end() : end]
        first_line, _, rest = said.partition("\n")
        if not first_line.strip(" \t$:|-"):  # the option stands on the next line
            first_line = rest.lstrip(" \t\n$").partition("\n")[0]
        first_line = first_line.partition("</")[0]
        if "boxed{" not in first_line and not _is_no_commitment(text, head.start()):
            yield _read(head.start(), head.end(), first_line, options, denied=head["no"] is not None)
    for match in deque(_IS_CORRECT.finditer(text), maxlen=_MAX_HEADS):
        letter = frozenset(match["letter"])
        if match["no"]:
            yield _Mark(match.start(), match.end(), "", denied=letter)
        elif not match["before"] and not _is_no_commitment(text, match.start()):
            yield _Mark(match.start(), match.end(), match[0], letter, is_plain=False)
    last = text.strip().rpartition("\n")[2]
    if len(last) <= MAX_LENGTH and (letter := alone(last)):
        yield _Mark(len(text) - 1, len(text), last, frozenset(letter))


def _is_no_commitment(text: str, begin: int) -> bool:
    """Whether what stands before in the clause denies, supposes or reports what follows."""
    before = text[max(0, begin - _BEFORE) : begin]
    clause = _CLAUSE.split(before)[-1]
    if text[begin : begin + 80].partition("\n")[0].find("would be") >= 0 and _IF.search(_SENTENCE.split(before)[-1]):
        return True
    match = _NOT_COMMITTING.search(clause)
    return match is not None and not (_OWN_VIEW.search(clause) and not _NEGATION.search(clause))


def _is_taken_back(rest: str, letters: frozenset[str]) -> bool:
    """Whether the text after a commitment takes it back for another option."""
    if _DISOWNED.search(_SENTENCE.split(rest[:MAX_LENGTH])[0]):
        return True
    match = _TAKES_BACK.search(rest)
    if match is None:
        return False
    if match[0].lower() == "no" and rest[: match.start()].rstrip().endswith("?"):
        return True
    others = [other[0] for other in _LETTER.finditer(rest, match.start()) if not _IS_DENIED.match(rest, other.end())]
    return bool(set(others) - letters)


def _read(begin: int, end: int, said: str, options: Sequence[str], denied: bool = False) -> _Mark:
    said = _unwrapped(said)
    asserted, not_asserted = _after_denial(said, 0, options, 0) if denied else _named(said, options)
    return _Mark(begin, end, said, asserted, not_asserted)


def _unwrapped(text: str) -> str:
    text = text[:MAX_LENGTH]
    for _ in range(_MAX_WRAPPED):
        text = _WRAPPING.sub(r"\1", text)
    return text.strip()


_Letters = frozenset[str]
_NONE: _Letters = frozenset()


def _named(said: str, options: Sequence[str], depth: int = 0) -> tuple[_Letters, _Letters]:
    """The options that these words name, and those that they deny."""
    if letter := alone(said):
        return frozenset(letter), _NONE
    texts = {
        plain(_unwrapped(_EMPHASIS.sub("", option))): letter for letter, option in zip(LETTERS, options, strict=False)
    }
    sentence = _SENTENCE.split(said)[0]
    for words in (said, sentence):
        if plain(words) in texts:
            return frozenset(texts[plain(words)]), _NONE
    said = _SPACING.sub(" ", _DELIMITERS.sub("", said))
    lead = _LEAD.match(said)
    position = lead.end() if lead else 0
    if no := _NO.match(said, position):
        return _after_denial(said, no.end(), options, depth)
    first = _FIRST.match(said, position)
    rest = said[first.end() :] if first else ""
    goes_on = _LOWER_GOES_ON if first and first["letter"].islower() else _LABEL
    if first is None or not (_ENDS.match(rest) or goes_on.match(rest) or (goes_on is _LABEL and _GOES_ON.match(rest))):
        if first and texts and plain(rest) in texts:  # "B Paris"
            return frozenset((first["letter"].upper(), texts[plain(rest)])), _NONE
        return _named_later(sentence)
    letter = first["letter"].upper()
    if _IS_DENIED.match(rest):
        return _after_denial(said, first.start(), options, depth)
    if texts and (other := texts.get(plain(rest.lstrip(")].:-–— ")))):
        return frozenset((letter, other)), _NONE
    return _with_others(letter, rest), _NONE


def _after_denial(said: str, position: int, options: Sequence[str], depth: int) -> tuple[_Letters, _Letters]:
    """What stands after "not B" or "B is wrong": "not B but C" names C."""
    lead = _LEAD.match(said, position)
    first = _FIRST.match(said, lead.end() if lead else position)
    if first is None or depth > 4:
        return _NONE, _NONE
    denied = frozenset(first["letter"].upper())
    rest = said[first.end() :]
    if wrong := _IS_DENIED.match(rest):
        rest = rest[wrong.end() :]
    rest = rest[_BUT.match(rest).end() :]  # pyright: ignore[reportOptionalMemberAccess]  it matches nothing, too
    asserted, more = _named(rest, options, depth + 1) if rest else (_NONE, _NONE)
    return asserted - denied, denied | more


def _named_later(sentence: str) -> tuple[_Letters, _Letters]:
    """An option named behind its text: "4.5 eV, which is option C", "4.5 eV (C)"."""
    if re.search(r"\b(?:not|neither|but|than|except|between|either|or)\b", sentence, re.IGNORECASE):
        return _NONE, _NONE
    return frozenset((match["named"] or match["bracketed"]).upper() for match in _NAMED_LATER.finditer(sentence)), _NONE


def _with_others(letter: str, rest: str) -> _Letters:
    """The letter that was said first, and those that the words after it put beside it."""
    if _OF_SEVERAL.match(rest):  # "D) Both A and B"
        return frozenset(letter)
    if range_of := re.match(r"\s?[-–—]\s?([A-J])\b", rest):  # "A-C"
        return frozenset((letter, range_of[1]))
    letters, last_end, row_end, is_beside = {letter}, 0, 0, True
    is_label = rest[:1] in tuple(")].:") and rest[:1] != ""
    sentence_end = _SENTENCE.search(rest)
    for match in _LETTER.finditer(rest[:MAX_LENGTH]):
        between = rest[last_end : match.start()]
        before = rest[: match.start()]
        if match.start() < row_end:
            continue
        row_end = _row_end(rest, match.start())
        is_subject = row_end or _VERB.match(rest, match.end())
        if is_beside and not is_subject and _SIDE_BY_SIDE.fullmatch(between):
            letters.add(match[0])
            last_end = match.end()
            continue
        is_beside = False
        if _NEW_CLAUSE.fullmatch(between) and _HAS_VERB.match(
            rest, match.end()
        ):  # ", and C is only true at low pressure"
            break
        if _REASON.search(rest, int(is_label), match.end() + 1) or (
            sentence_end and sentence_end.start() < match.start()
        ):
            break
        if not is_label or _ADDED.search(before):
            letters.add(match[0])
    return frozenset(letters)


def _row_end(rest: str, begin: int) -> int:
    """Where letters in a row end that a clause of its own is about, ". A, B and C are too small"; 0 if it is about none."""
    row = _ROW.match(rest, begin)
    is_subject = row and _VERB.match(rest, row.end()) and set(".:(;–—") & set(rest[:begin])
    return row.end() if row and is_subject else 0


def plain(text: str) -> str:
    """A text without what surrounds it, and without capitals."""
    return " ".join(text.strip(" \t\n.*_$()\"'").split()).casefold()
