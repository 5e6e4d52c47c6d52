"""A DBOS program as users write it, in a separate process: ``python -m tests.dbos.shop``."""
