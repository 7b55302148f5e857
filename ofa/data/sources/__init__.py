"""Data sets by name: functions from the section `data` of a recipe, and options of their own, to a `Data`."""
