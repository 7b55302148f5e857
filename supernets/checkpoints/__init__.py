"""Checkpoints and tables of other projects, in the names of this one."""
