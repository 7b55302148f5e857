"""How many images the next hours will bring, from those counted so far."""

import math
from dataclasses import dataclass

_RECENT_HOURS = 0.2
"""Time after which a count has fallen to 1/e of its weight in the recent rate."""
_PERSISTENCE_HOURS = 0.5
"""Time after which a departure of the recent rate from the mean is expected to have fallen to 1/e."""
_EXPECTED_HOURS = 0.5
"""An expected rate weighs as much as this many hours of counting."""


@dataclass(frozen=True)
class RequestRate:
    """Images counted, in all and recently.

    Attributes:
        images: counted so far.
        hours: over which they were counted.
        recent_images: the same with exponentially falling weights.
        recent_hours: the weights of those hours.
    """

    images: float = 0.0
    hours: float = 0.0
    recent_images: float = 0.0
    recent_hours: float = 0.0

    def counted(self, images: int, hours: float) -> "RequestRate":
        """Return the rate after `images` more were counted over `hours` more."""
        decay = math.exp(-hours / _RECENT_HOURS)
        return RequestRate(
            self.images + images,
            self.hours + hours,
            self.recent_images * decay + images,
            self.recent_hours * decay + hours,
        )

    def expected_images(self, hours: float, requests_per_hour: float | None = None) -> float:
        """Return how many images the next `hours` bring; `requests_per_hour` is what was expected beforehand.

        The mean rate so far is expected to go on, and a recent departure from it to fade.
        """
        weight = 0.0 if requests_per_hour is None else _EXPECTED_HOURS
        if weight + self.hours == 0:
            return 0.0
        mean = ((requests_per_hour or 0.0) * weight + self.images) / (weight + self.hours)
        recent = self.recent_images / self.recent_hours if self.recent_hours else mean
        fading = _PERSISTENCE_HOURS * (1 - math.exp(-hours / _PERSISTENCE_HOURS))
        return max(0.0, mean * hours + (recent - mean) * fading)
