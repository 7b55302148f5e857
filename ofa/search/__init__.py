"""Search algorithms over matrices of archs, and Pareto tools. `ofa.search(...)` is `nsga2.search`."""

from ofa.core.packages import make_callable

make_callable(__name__, "nsga2", "search")
