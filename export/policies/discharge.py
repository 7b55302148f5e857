"""What a falling charge tells of the energy that the machine and the levels take: a Kalman filter."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.policies.battery import Battery

_DRIFT_HOURS = 1.0
"""Time after which a departure of the background from its mean is expected to have fallen to 1/e."""
_DRIFT_SHARE = 0.2
"""Standard deviation of that departure, relative to an even discharge over the promised hours."""
_JUMP_PERCENT, _JUMP_SDS = 3.0, 4.0
"""Surprises beyond both are jumps of the gauge; nothing is learned from them."""
_CHARGE, _DRIFT, _BACKGROUND, _SCALE = range(4)


@dataclass(frozen=True, eq=False)
class Discharge:
    """A Gaussian belief about the charge and what lowers it.

    Its state is the charge in percent, the background (what the rest of the machine takes) in percent per hour as a
    constant mean and a drift around it, and the scale: what the levels take, relative to what is stated. The drift is
    an Ornstein-Uhlenbeck process. R. E. Kalman, "A new approach to linear filtering and prediction problems", 1960.

    Attributes:
        mean: `[4]`: charge, drift, background, scale.
        covariance: `[4, 4]`, in the same order.
        drift_sd: standard deviation of the drift in the long run, in percent per hour.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    drift_sd: float

    @classmethod
    def prior(cls, battery: Battery, *, hours: float, background: float | None, scale_sd: float) -> "Discharge":
        """Return the belief before the charge has changed.

        `background`, in percent per hour, is a first guess; None means half of an even discharge over `hours`. Either
        has that half as its standard deviation. `scale_sd` is that of the scale.
        """
        even = max(battery.percent, battery.step_percent) / hours
        drift_sd = _DRIFT_SHARE * even
        mean = np.array([battery.percent, 0.0, even / 2 if background is None else background, 1.0])
        sds = np.array([0.3 * battery.step_percent, drift_sd, even / 2, scale_sd])
        return cls(mean, np.diag(sds**2), drift_sd)

    @property
    def background_percent_per_hour(self) -> float:
        """What the rest of the machine takes now."""
        return float(self.mean[_DRIFT] + self.mean[_BACKGROUND])

    @property
    def scale(self) -> float:
        """What the levels take, relative to what is stated."""
        return float(self.mean[_SCALE])

    def expected_percent(self, hours: float, used_percent: float) -> float:
        """Return the expected charge after `hours` in which the levels take `used_percent` at the stated scale.

        It is negative if the battery is expected to be empty before.
        """
        charge, drift, background, scale = self.mean
        fading_hours = _DRIFT_HOURS * (1 - math.exp(-hours / _DRIFT_HOURS))
        return float(charge - fading_hours * drift - hours * background - used_percent * scale)

    def after(self, hours: float, used_percent: float) -> "Discharge":
        """Return the belief after `hours` in which the levels take `used_percent` at the stated scale."""
        decay = math.exp(-hours / _DRIFT_HOURS)
        step = np.eye(4)
        step[_CHARGE, 1:] = -_DRIFT_HOURS * (1 - decay), -hours, -used_percent
        step[_DRIFT, _DRIFT] = decay
        noise = np.zeros((4, 4))  # exact covariance of minus the integral of the process, and of the process
        noise[_CHARGE, _CHARGE] = 2 * hours * _DRIFT_HOURS - _DRIFT_HOURS**2 * (3 - 4 * decay + decay**2)
        noise[_CHARGE, _DRIFT] = noise[_DRIFT, _CHARGE] = -_DRIFT_HOURS * (1 - decay) ** 2
        noise[_DRIFT, _DRIFT] = 1 - decay**2
        covariance = step @ self.covariance @ step.T + self.drift_sd**2 * noise
        return Discharge(step @ self.mean, covariance, self.drift_sd)

    def read(self, before_percent: float, battery: Battery) -> "Discharge | None":
        """Return the belief after a reading that follows one of `before_percent`; None if it is a jump.

        When a reading changes by one step, the charge is just between the two. While it does not change, it tells
        something only once the charge is expected to be well below.
        """
        step, change = battery.step_percent, abs(battery.percent - before_percent)
        charge_percent, sd = battery.percent, 0.3 * step
        if change == 0:
            if self.mean[_CHARGE] >= battery.percent - step:
                return self
            charge_percent -= step / 2
        elif change <= 1.5 * step:
            charge_percent, sd = (battery.percent + before_percent) / 2, 0.1 * step
        variance = self.covariance[_CHARGE, _CHARGE] + sd**2
        surprise = charge_percent - self.mean[_CHARGE]
        if abs(surprise) > max(_JUMP_PERCENT, _JUMP_SDS * math.sqrt(variance)):
            return None
        gain = self.covariance[_CHARGE] / variance
        mean = self.mean + gain * surprise
        mean[_BACKGROUND], mean[_SCALE] = max(0.0, mean[_BACKGROUND]), max(0.1, mean[_SCALE])
        return Discharge(mean, self.covariance - np.outer(gain, self.covariance[_CHARGE]), self.drift_sd)

    def restarted(self, battery: Battery) -> "Discharge":
        """Return the belief with the charge of a reading from which nothing else is learned, as after charging."""
        mean, covariance = self.mean.copy(), self.covariance.copy()
        mean[_CHARGE] = battery.percent
        covariance[_CHARGE, :] = covariance[:, _CHARGE] = 0.0
        covariance[_CHARGE, _CHARGE] = (0.3 * battery.step_percent) ** 2
        return Discharge(mean, covariance, self.drift_sd)
