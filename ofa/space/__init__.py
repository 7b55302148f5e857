"""Search spaces: choices, archs, and archs as rows of index matrices."""
