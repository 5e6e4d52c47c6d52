-- It asks Postgres now, and needs the search_path for that.
DROP FUNCTION IF EXISTS lakets._check_current_time(text, text, text);
