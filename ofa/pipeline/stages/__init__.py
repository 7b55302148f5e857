"""The stages from training to search, one file each; those that know model formats live in `export/`."""
