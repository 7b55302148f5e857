"""Which level of a bundle to run: policies, what they see, and the day that they are judged on."""
