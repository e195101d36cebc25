"""The section `rewards` in its two forms: the list that a recipe writes, and by title, as `--set rewards.rouge_l.weight=0.2` names one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..options import OWN

FORMER_REWARDS = {
    "source": "add the reward likelihood, and set rewards.verifier.weight to 0",
    "likelihood_credit": "write rewards.likelihood.credit",
    "rouge_scope": "write rewards.rouge_l.scope",
    "overlong_penalty": "write rewards.overlong.weight",
    "overlong_share": "write rewards.overlong.share",
}
"""Keys of the section before it was a list, and how the same is written now."""


def rewards_as_list(rewards: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rewards by their titles as a list. A title with null is left out.

    Raises:
        ValueError: a title has a key of the section as it was, or no settings.
    """
    entries: list[dict[str, Any]] = []
    for title, entry in rewards.items():
        if title in FORMER_REWARDS:
            raise ValueError(f"{title} is no longer a setting: {FORMER_REWARDS[title]}")
        if entry is None:
            continue
        if not isinstance(entry, Mapping):
            raise ValueError(f"{title} is a reward with settings of its own: write rewards.{title}.weight={entry}")
        name = entry.get("name", title)
        label = {} if title == title_of({**entry, "name": name}) else {"label": title}
        entries.append({**entry, "name": name, **label})
    return entries


def rewards_by_title(rewards: Sequence[Any]) -> dict[str, Any]:
    """A list of rewards by their titles, so that settings can name them. A list without the verifier says so.

    Raises:
        ValueError: an entry has no name, or two have the same title.
    """
    found: dict[str, Any] = {}
    for entry in rewards:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise ValueError(f"each reward needs a name, such as {{name: verifier}}, and not {entry!r}")
        title = title_of(entry)
        if title in found:
            raise ValueError(f"two rewards are called {title}: give one of them a `label`")
        found[title] = dict(entry)
    return found if "verifier" in found else {"verifier": None, **found}


def title_of(entry: Mapping[str, Any]) -> str:
    """What a reward is called: its label, or its name, or that of the user's function."""
    name = str(entry["name"])
    return entry.get("label") or (
        name.rpartition(".")[2] if name.startswith(OWN) else str(entry.get("function", name)).rpartition(".")[2]
    )
