"""What the engine costs, beside the same work on plain Postgres."""
