"""Training of supernets: strategies, distillation, schedules, checkpoints."""
