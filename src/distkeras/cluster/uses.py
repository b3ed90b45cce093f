"""The use of each of the user's columns: a feature, a label or a weight, of one input or output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from distkeras.cluster import dry_run, forms, labels, padded, validate
from distkeras.cluster.arrays import Roles
from distkeras.cluster.facts import Expected, Facts
from distkeras.cluster.names import Table
from distkeras.cluster.source import Source
from distkeras.cluster.validate import Names
from distkeras.model.losses import NO_LOSS
from distkeras.worker.columns import RAW, Column, integer_limits
from distkeras.worker.feeding import Feeding
from distkeras.worker.preprocess import Function
from distkeras.worker.tensor_spec import TensorSpec

Losses = str | Sequence[str | None] | Mapping[str, str | None] | None
"""Name of the loss of all outputs, of each in order, or of each by name; `None` for a loss without a name."""


@dataclass(frozen=True)
class Use:
    """Columns of the user's, and their use.

    Attributes:
        sources: one column; or several that are combined for one input.
        spec: the input or output.
        role: "feature", "label" or "weight"; `RAW` for columns that `preprocess` receives.
        loss: name of the output's loss.
        place: index of the output, for a weight of one of several outputs.
        row_bytes: bytes of the longest row, for columns that `preprocess` receives.
    """

    sources: tuple[Source, ...]
    spec: TensorSpec
    role: str
    loss: str | None = None
    place: int | None = None
    row_bytes: int = 1

    @property
    def expected(self) -> Expected:
        """The requirements on the numbers."""
        if self.role == RAW:
            return Expected()
        if self.role == "label":
            return labels.expected(self.sources[0], self.spec, self.loss)
        if self.role == "weight":
            return Expected(finite="float32")
        limits = integer_limits(self.spec.dtype)
        if self.spec.size is not None:
            limits = (0, self.spec.size - 1)
        if limits is not None:
            limits = (limits[0], min(limits[1], 2**63 - 1))  # Spark's largest integer.
        finite = "float64" if self.spec.dtype == "float64" else "float32"
        return Expected(finite, integers=self.spec.dtype.startswith(("int", "uint")), limits=limits)

    def resolve(self, found: list[Facts], feeding: Feeding) -> Column:
        """Return the form in which the model gets the columns, or raise an error for their faults."""
        for source, facts in zip(self.sources, found, strict=True):
            validate.check_nulls(source, facts)
        if not any(self.passes_not_finite(facts, feeding) for facts in found):
            return self._form(found, feeding)
        return replace(
            self._form([facts.without("not finite") for facts in found], feeding), finite=False, limits=None
        )

    def passes_not_finite(self, facts: Facts, feeding: Feeding) -> bool:
        """Whether there are numbers that are not finite, and the model gets them; an integer is never one."""
        return "not finite" in facts.faults and feeding.not_finite == "warn" and not self.expected.integers

    def _form(self, found: list[Facts], feeding: Feeding) -> Column:
        source, facts = self.sources[0], found[0]
        if self.role == RAW:
            return Column("", (self.row_bytes,), RAW, source=source.name)
        step = padded.step_of(source, self.spec) if self.role == "feature" else 1
        padding = None
        if len(found) == 1:
            padding = padded.padding_for(source, facts, self.spec, feeding, step, label=self.role == "label")
        if padding is None:
            return self._resolve(found)
        return padded.resolve(facts, step, padding, lambda equal: self._resolve([equal]))

    def _resolve(self, found: list[Facts]) -> Column:
        source, facts = self.sources[0], found[0]
        if self.role == "label":
            return labels.label(source, facts, self.spec, self.loss)
        for each, its in zip(self.sources, found, strict=True):
            validate.check_numbers(each, its, self.spec, self.expected)
        if self.role == "weight":
            return forms.weight(source, facts, self.spec, labels.is_known(self.loss))
        if len(self.sources) > 1:
            column = forms.assembled(self.sources, found, self.spec)
        else:
            column = forms.feature(source, facts, self.spec)
        return replace(column, limits=self.expected.limits, finite=True)


def uses_of(
    table: Table,
    roles: Roles,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    loss: Losses,
) -> list[Use]:
    """Return every use of a column, in the order of inputs and outputs, after checking the columns' types.

    Raises:
        ValueError: an unknown or ambiguous column; too few or too many columns.
        TypeError: a column of a type that does not fit its use.
    """

    def source(name: str, argument: str) -> Source:
        return replace(table.source(name, argument), shape=roles.shapes.get(name))

    uses = []
    features = validate.match_features(roles.features_col, inputs)
    for names, spec in zip(features, inputs, strict=True):
        sources = tuple(source(name, "features_col") for name in names)
        uses.append(Use(sources, spec, "feature"))
    losses = [_loss_of(loss, spec, index) for index, spec in enumerate(outputs)]
    outputs, losses = _labelled(outputs, losses, roles.label_col)
    if roles.label_col is not None:
        matched = validate.match(roles.label_col, outputs, "label_col", "output")
        for name, spec, own in zip(matched, outputs, losses, strict=True):
            uses.append(Use((source(name, "label_col"),), spec, "label", own))
    for place, name in validate.match_weights(roles.sample_weight_col, outputs).items():
        spec, own = outputs[place or 0], losses[place or 0]
        uses.append(Use((source(name, "sample_weight_col"),), spec, "weight", own, place))
    for use in uses:
        # The loss decides the type of a label, but no loss takes strings.
        dtype = use.spec.dtype if use.role == "feature" else "float32"
        for each in use.sources:
            validate.check_leaf(each, dtype, _target(use))
    return uses


def _labelled(
    outputs: tuple[TensorSpec, ...], losses: list[str | None], label_col: Names | None
) -> tuple[tuple[TensorSpec, ...], list[str | None]]:
    """Return the outputs that `label_col` gives labels for, and their losses.

    These are all; or, as in Keras, only those with a loss.
    """
    num_labels = 1 if label_col is None or isinstance(label_col, str) else len(label_col)
    judged = [index for index, own in enumerate(losses) if own != NO_LOSS]
    if label_col is None or num_labels != len(judged):
        return outputs, losses
    return tuple(outputs[index] for index in judged), [losses[index] for index in judged]


def try_out(
    table: Table, roles: Roles, inputs: tuple[TensorSpec, ...], function: Function
) -> tuple[dry_run.DryRun, list[Use], Roles]:
    """Try `function` on the first rows.

    Returns:
        The result; the columns that the function receives; and the roles that remain for columns.
    """
    sources = {}
    for argument in ("features_col", "label_col", "sample_weight_col"):
        for name in dry_run.names_of(getattr(roles, argument)):
            sources[name] = table.source(name, argument)
    tried = dry_run.try_out(table.frame, function, list(sources.values()), inputs)
    uses = [
        Use((source,), TensorSpec(name, None, RAW), RAW, row_bytes=tried.row_bytes[name])
        for name, source in sources.items()
    ]
    left = replace(roles, features_col=[])
    if len(tried.preprocess.made) > 1:
        left = replace(left, label_col=None)
    if len(tried.preprocess.made) > 2:
        left = replace(left, sample_weight_col=None)
    return tried, uses, left


def _target(use: Use) -> str:
    return "the sample weight" if use.role == "weight" else f"{use.spec.name!r}"


def _loss_of(loss: Losses, spec: TensorSpec, index: int) -> str | None:
    if loss is None or isinstance(loss, str):
        return loss
    if isinstance(loss, Mapping):
        return loss.get(spec.key or spec.name, loss.get(spec.name, NO_LOSS))
    return loss[index] if index < len(loss) else None
