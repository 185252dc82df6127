"""Which checkpoints stay: the newest, and the best by a metric of evaluation."""

from collections.abc import Mapping, Sequence
import dataclasses
import math

MODES = ("min", "max")


@dataclasses.dataclass(frozen=True)
class Retention:
    """The rule of one run.

    Attributes:
      keep: number of newest checkpoints that stay; None keeps all.
      keep_best: number of best ones that stay, whatever their age; 0 = age alone decides.
      best: "METRIC:min" or "METRIC:max", a metric of evaluation and which end of it is better.
    Raises:
      ValueError: `keep` is below 1 or `keep_best` below 0, or `best` is written in another way.
    """

    keep: int | None = None
    keep_best: int = 0
    best: str = "loss:min"

    def __post_init__(self):
        name, _, mode = self.best.rpartition(":")
        if not name or mode not in MODES:
            raise ValueError(
                f"checkpoint.best is {self.best!r}, expected METRIC:min or METRIC:max, as loss:min"
            )
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"checkpoint.keep is {self.keep}, expected 1 or more, or None")
        if self.keep_best < 0:
            raise ValueError(f"checkpoint.keep_best is {self.keep_best}, expected 0 or more")

    def check_metrics(self, metrics: Mapping[str, float]) -> None:
        """Raises ValueError if the metric that decides is not among those of the evaluation."""
        name = self.best.rpartition(":")[0]
        if self.keep_best and name not in metrics:
            raise ValueError(
                f"checkpoint.best is {self.best!r}, but the evaluation gives "
                f"{', '.join(sorted(metrics))}"
            )

    def of(
        self, steps: Sequence[int], metrics: Mapping[int, Mapping[str, float] | None]
    ) -> set[int]:
        """Steps that stay.

        Args:
          steps: all that there are, ascending.
          metrics: step -> metrics of its evaluation; one that is missing, None or not finite is
            no candidate for the best. Of equal ones the later is better.
        """
        if self.keep is None:
            return set(steps)
        name, _, mode = self.best.rpartition(":")
        sign = -1.0 if mode == "min" else 1.0
        values = {step: (metrics.get(step) or {}).get(name, math.nan) for step in steps}
        ranked = [step for step in steps if math.isfinite(values[step])]
        ranked.sort(key=lambda step: (sign * values[step], step))
        best = ranked[-self.keep_best :] if self.keep_best else []
        return {*best, *steps[-self.keep :]}
