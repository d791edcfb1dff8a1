"""Real servers and databases for tests: nothing here imitates our own code."""
