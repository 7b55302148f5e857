"""The stages of the main job, each reading and writing a run directory."""
