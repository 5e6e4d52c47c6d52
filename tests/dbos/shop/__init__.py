"""A DBOS program as users write them, a process of its own: ``python -m tests.dbos.shop``."""
