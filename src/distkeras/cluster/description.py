"""What Spark's web pages say of our jobs: which training they belong to, and what they do for it.

Spark shows a description beside every job, stage and query. Without one, it shows a line of this package's
source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql.utils import is_remote
from pyspark.traceback_utils import SCCallSiteSync

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DESCRIPTION = "spark.job.description"
STAGE_NAME = "callSite.short"
MOST_CHARACTERS = 200


@dataclass(frozen=True)
class Subject:
    """What the Spark jobs of a thread are for.

    Attributes:
        name: a training, in words.
        tell: receives in words what the thread does for it, before it does it.
    """

    name: str
    tell: Callable[[str], None] = lambda what: None

    def doing(self, what: str) -> str:
        """Return the description of a job."""
        return f"{self.name}: {what}"[:MOST_CHARACTERS]


_UNNAMED = Subject("distkeras")
_subject: ContextVar[Subject] = ContextVar("distkeras-subject", default=_UNNAMED)


def current_subject() -> Subject:
    """Return what the Spark jobs of this thread are for."""
    return _subject.get()


@contextmanager
def about(name: str, tell: Callable[[str], None] = lambda what: None) -> Iterator[None]:
    """Name what the Spark jobs of this thread are for, in a `with` block.

    Args:
        name: as in `Subject`.
        tell: as in `Subject`.
    """
    token = _subject.set(Subject(f"distkeras {name}", tell))
    try:
        yield
    finally:
        _subject.reset(token)


@contextmanager
def described(spark: SparkSession, what: str, subject: Subject | None = None) -> Iterator[None]:
    """Describe the Spark jobs of this thread in a `with` block. Then the user's own description is back.

    Over Spark Connect, where the server describes every job by its plan, they get a tag instead.

    Args:
        spark: the session.
        what: what they do, such as "counts and checks the rows".
        subject: what they are for, which is then not told of it; default: that of the thread.
    """
    if subject is None:
        subject = current_subject()
        subject.tell(what)
    text = subject.doing(what)
    if is_remote():
        with _tagged(spark, text):
            yield
        return
    context = spark.sparkContext
    before = {name: context.getLocalProperty(name) for name in (DESCRIPTION, STAGE_NAME)}
    try:
        # PySpark names the stages after the line that collects, unless it believes to be in such a call.
        with SCCallSiteSync(context):
            for name in before:
                context.setLocalProperty(name, text)
            yield
    finally:
        for name, value in before.items():
            context.setLocalProperty(name, value)


@contextmanager
def _tagged(spark: SparkSession, text: str) -> Iterator[None]:
    tag = re.sub(r"\s*,\s*", " - ", text)  # Spark allows no comma in a tag.
    had = tag in spark.getTags()
    spark.addTag(tag)
    try:
        yield
    finally:
        if not had:
            spark.removeTag(tag)
