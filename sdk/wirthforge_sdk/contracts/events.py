"""The ``[events]`` table of a manifest: what a plugin publishes, and what it is sent."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wirthforge_sdk.contracts.topics import PatternText, TopicText

MAX_SUBSCRIPTIONS = 32
"""Of one plugin, those of its manifest and those it makes while it runs together."""
MAX_QUEUE = 10_000


class Overflow(StrEnum):
    """What happens to an event for which a subscriber's queue has no room."""

    DROP_OLDEST = "drop_oldest"
    """The oldest that waits is dropped, and the next that is delivered tells how many were."""
    BLOCK = "block"
    """Its publisher waits for room, a few seconds at most, and is then refused: the event is published to nobody."""


class Subscription(BaseModel):
    """One ``[[events.subscriptions]]`` table: topics a plugin is sent the events of."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    topic: PatternText
    """A topic, or a pattern: * is any one word, # at the end any number of words."""
    durable: bool = False
    """What is published while the plugin does not run, or dies of, is kept for it and sent again until it is
    acknowledged."""
    queue: Annotated[int, Field(ge=1, le=MAX_QUEUE)] = 1_000
    """Events that may wait. Of a durable subscription they wait in the database, and its retention is their bound."""
    overflow: Overflow = Overflow.DROP_OLDEST
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """How long one event may take."""

    @model_validator(mode="after")
    def _durable_ones_block_nobody(self) -> Subscription:
        if self.durable and self.overflow is Overflow.BLOCK:
            raise ValueError("a durable subscription has no queue that could block: remove overflow")
        return self


class Events(BaseModel):
    """The ``[events]`` table."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    publishes: Annotated[list[TopicText], Field(max_length=64)] = []
    """Topics it publishes on; for whoever reads the manifest."""
    subscriptions: Annotated[list[Subscription], Field(max_length=MAX_SUBSCRIPTIONS)] = []

    @model_validator(mode="after")
    def _topics_are_distinct(self) -> Events:
        for name, topics in (
            ("publishes", self.publishes),
            ("subscriptions", [each.topic for each in self.subscriptions]),
        ):
            if twice := next((topic for topic in topics if topics.count(topic) > 1), None):
                raise ValueError(f"{name}: '{twice}' is there twice: keep one")
        return self
