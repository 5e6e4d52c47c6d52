-- What PUBLIC was given so that writers' triggers could do their work, which now run as the table's owner (45_tracking.sql).
REVOKE ALL ON SCHEMA lakets, lakets_cdf FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA lakets FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA lakets_cdf FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA lakets FROM PUBLIC;
