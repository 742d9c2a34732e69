"""Where the settings of a method come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Origin:
    """label: "published", the paper's own values; "ours", this suite's choice; "none", nothing to set.

    why: the table or section of the paper; or what ours were chosen on, from how many settings."""

    label: Literal["published", "ours", "none"]
    why: str

    def __str__(self) -> str:
        return f"{self.label} ({self.why})"


def paper(source: str) -> Origin:
    """The paper's own values."""
    return Origin("published", source)


def ours(chosen_on: str) -> Origin:
    """This suite's own choice."""
    return Origin("ours", chosen_on)
