"""The report of a run: `summary.json` for programs, `report.html` for people."""
