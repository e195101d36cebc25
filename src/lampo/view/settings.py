"""The settings of a run as a page shows them: its config.yaml, which may be damaged or of another origin."""

from __future__ import annotations

from typing import Any

import yaml

NO_SETTINGS = (yaml.YAMLError, RecursionError, LookupError, TypeError, ValueError, AttributeError, OverflowError)


def read_settings(text: str) -> dict[str, Any]:
    """The mapping in a YAML text. Empty where there is none.

    A config.yaml that a run wrote has no aliases. They are not followed, since few of them can stand for billions of values.

    >>> read_settings("task: {name: sums}"), read_settings("a: &a [1]\\nb: *a"), read_settings("[1"), read_settings("7")
    ({'task': {'name': 'sums'}}, {}, {}, {})
    """
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            return {}
        values = yaml.safe_load(text)
    except NO_SETTINGS:
        return {}
    return values if isinstance(values, dict) else {}
