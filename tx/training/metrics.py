"""Metrics of a group of runs: losses and tokens since the last line of the logs."""

from collections.abc import Sequence

import jax
import numpy as np

from tx.runtime.clock import running_time

SIDES = ("source", "target")
LOGGED = ("loss", "nll", "grad_norm")


class Window:
    """Window of losses and tokens of a group since the last line of its logs; losses stay on the device until read.

    Args:
      members: how many.
      earlier: of each member, what is LOGGED by step that an earlier process left unread; {} for none.
    """

    def __init__(self, members: int, earlier: Sequence[dict[str, list[float]]] = ()):
        self.members, self.metrics, self.start = members, [], running_time()
        self.earlier = earlier or [{}] * members
        self.tokens = {side: np.zeros(members, int) for side in SIDES}

    def add(self, metrics: dict, tokens: dict[str, np.ndarray]) -> None:
        """Adds the metrics of a dispatch, for one member or for a stack of all, and the tokens of each on each side."""
        self.metrics.append({key: metrics[key] for key in LOGGED})
        for side in SIDES:
            self.tokens[side] += tokens[side]

    def losses(self) -> list[dict[str, list[float]]]:
        """Returns each member's {"loss", "nll", "grad_norm"} by step; waits for the last step."""
        host, found = jax.device_get(self.metrics), []
        for i, earlier in enumerate(self.earlier):
            found.append(dict(earlier))
            for key in host[0] if host else ():
                new = [x for m in host for x in np.reshape(m[key], (self.members, -1))[i].tolist()]
                found[i][key] = [*earlier.get(key, ()), *new]
        return found

    def read(self) -> list[tuple[dict, dict]]:
        """Returns each member's (means of what is LOGGED, tokens per second of its share); waits for the last step."""
        losses = self.losses()
        share = (running_time() - self.start) / self.members
        return [
            (
                {key: float(np.mean(np.float32(each))) for key, each in losses[i].items()},
                {
                    "target_tokens_per_s": float(self.tokens["target"][i] / share),
                    "tokens_per_s": float((self.tokens["source"][i] + self.tokens["target"][i]) / share),
                },
            )
            for i in range(self.members)
        ]
