"""Training of supernets: strategies, distillation, schedules, checkpoints. `ofa.train(...)` is `trainer.train`."""

from ofa.core.packages import make_callable

make_callable(__name__, "trainer", "train")
