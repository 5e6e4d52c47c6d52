-- One policy may be run by two jobs, each at its own time. last_run_at remains the last time of either.
ALTER TABLE lakets._policy_registry
    ADD COLUMN tiered_at   timestamptz,
    ADD COLUMN retained_at timestamptz;
UPDATE lakets._policy_registry AS pol
   SET tiered_at = CASE WHEN pol.policy_type <> 'retention' THEN pol.last_run_at END,
       retained_at = CASE WHEN pol.policy_type <> 'tiering' THEN pol.last_run_at END
 WHERE pol.last_run_at IS NOT NULL;
