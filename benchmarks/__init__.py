"""The cost of the engine, compared with the same work on plain Postgres."""
