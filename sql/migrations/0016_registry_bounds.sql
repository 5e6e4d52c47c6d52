-- Ages and lags that were written by hand and with which no time can be computed stopped the reports
-- of all tables. Older rows with such ages stay as they are until they are changed.
ALTER TABLE lakets._policy_registry
    ADD CONSTRAINT ages_are_intervals CHECK (
        coalesce((config ->> 'after')::interval >= interval '-1000 years', true)
        AND coalesce((config ->> 'tier_after')::interval >= interval '-1000 years', true)
        AND coalesce((config ->> 'drop_after')::interval >= interval '-1000 years', true)) NOT VALID;
UPDATE lakets._rollup_registry AS reg
   SET refresh_lag = greatest(least(reg.refresh_lag, interval '10000 years'), interval '-10000 years')
 WHERE reg.refresh_lag NOT BETWEEN interval '-10000 years' AND interval '10000 years';
ALTER TABLE lakets._rollup_registry
    ADD CONSTRAINT refresh_lag_is_possible CHECK (refresh_lag BETWEEN interval '-10000 years' AND interval '10000 years');
