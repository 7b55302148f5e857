"""Costs of archs that are known without running the whole network: counted, predicted from a table, measured."""
