"""Search algorithms, one file each, and Pareto tools.

`ofa.search(...)` searches over functions; `ofa.search.create(...)` returns an algorithm to ask and tell.
"""

from ofa.core.packages import make_callable
from ofa.search.algorithm import create as create

make_callable(__name__, "algorithm", "search")
