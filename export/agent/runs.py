"""What a request for runs of a model says, to an agent and to the server of `ofa serve`. Free of torch."""

from typing import Any

from export.agent.config import MAX_RUNS
from export.http_server import RefusedError

RUNS = '{"model": id, "n": int}'
"""The body of such a request, for error messages."""


def check_runs(runs: dict[str, Any]) -> dict[str, Any]:
    """Return the model and the number of runs that a body asks for; RefusedError if it says neither or too much."""
    if set(runs) != {"model", "n"} or type(runs["model"]) is not str:
        raise RefusedError(422, f"the body does not say what to run; send {RUNS}")
    if type(runs["n"]) is not int or not 1 <= runs["n"] <= MAX_RUNS:
        raise RefusedError(422, f"n = {str(runs['n'])[:99]} is not allowed; give a whole number from 1 to {MAX_RUNS}")
    return runs
