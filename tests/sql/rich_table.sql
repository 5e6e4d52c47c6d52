-- A table with everything that can hang on one and that a partitioned table can have, too.
CREATE ROLE reader; CREATE ROLE writer; CREATE ROLE keeper;
GRANT CREATE ON SCHEMA public TO keeper;
CREATE TYPE mood AS ENUM ('calm', 'wild');
CREATE DOMAIN percent AS numeric(5, 2) CHECK (VALUE BETWEEN 0 AND 100);
CREATE TABLE public.site (id int PRIMARY KEY);
INSERT INTO public.site SELECT generate_series(0, 9);
CREATE FUNCTION public.noted() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.note VALUES (TG_NAME, TG_OP); RETURN NEW; END $$;
CREATE TABLE public.note (trigger_name text, event text);
CREATE TABLE public.metrics (
    id        bigserial,
    dropped   int,
    ts        timestamptz NOT NULL DEFAULT now(),
    number    smallint GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME public."Numbers" START 100 INCREMENT 5),
    site_id   int CONSTRAINT "known site" REFERENCES public.site ON DELETE CASCADE,
    value     numeric(10, 2) CONSTRAINT "not too low" CHECK (value > -100),
    twice     numeric GENERATED ALWAYS AS (value * 2) STORED,
    feeling   mood DEFAULT 'calm',
    share     percent,
    tags      text[],
    "The Name" varchar(40) COLLATE "C",
    blob      bytea,
    CONSTRAINT "The Key" PRIMARY KEY (id, ts) WITH (fillfactor = 70),
    CONSTRAINT once UNIQUE NULLS NOT DISTINCT (ts, site_id) INCLUDE (value) WITH (deduplicate_items = off)
        DEFERRABLE INITIALLY DEFERRED
);
ALTER TABLE public.metrics DROP COLUMN dropped;
ALTER TABLE public.metrics ALTER COLUMN blob SET STORAGE EXTERNAL, ALTER COLUMN tags SET COMPRESSION pglz,
    ALTER COLUMN value SET STATISTICS 500, ALTER COLUMN ts SET STATISTICS 0,
    ALTER COLUMN site_id SET (n_distinct = 10, n_distinct_inherited = -0.5);
CREATE INDEX "low values" ON public.metrics (value) WHERE value < 0;
CREATE INDEX by_lower ON public.metrics (lower("The Name") text_pattern_ops, ts DESC NULLS LAST) INCLUDE (feeling);
CREATE INDEX by_tag ON public.metrics USING gin (tags);
CREATE INDEX by_time ON public.metrics USING brin (ts) WITH (pages_per_range = 8);
CREATE STATISTICS public."value by site" (dependencies, mcv) ON site_id, value FROM public.metrics;
ALTER STATISTICS public."value by site" SET STATISTICS 200;
GRANT SELECT ON public.metrics TO reader WITH GRANT OPTION;
GRANT INSERT, UPDATE, TRUNCATE ON public.metrics TO writer;
GRANT UPDATE (value), REFERENCES (id) ON public.metrics TO reader WITH GRANT OPTION;
GRANT SELECT (ts) ON public.metrics TO PUBLIC;
GRANT SELECT, UPDATE ON SEQUENCE public."Numbers" TO writer WITH GRANT OPTION;
GRANT USAGE ON SEQUENCE public.metrics_id_seq TO writer;
ALTER TABLE public.metrics ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Own rows" ON public.metrics AS RESTRICTIVE FOR SELECT TO reader, writer USING (site_id < 5);
CREATE POLICY all_in ON public.metrics FOR INSERT WITH CHECK (value > 0);
CREATE TRIGGER "After It" AFTER INSERT ON public.metrics FOR EACH ROW WHEN (NEW.value > 0) EXECUTE FUNCTION public.noted();
CREATE TRIGGER before_it BEFORE UPDATE OF value ON public.metrics FOR EACH ROW EXECUTE FUNCTION public.noted();
CREATE TRIGGER sleeping AFTER DELETE ON public.metrics FOR EACH STATEMENT EXECUTE FUNCTION public.noted();
CREATE TRIGGER watchful BEFORE INSERT ON public.metrics FOR EACH STATEMENT EXECUTE FUNCTION public.noted();
ALTER TABLE public.metrics DISABLE TRIGGER sleeping, ENABLE ALWAYS TRIGGER watchful;
COMMENT ON TABLE public.metrics IS 'it''s a table';
COMMENT ON COLUMN public.metrics.value IS 'a column';
COMMENT ON INDEX public.by_tag IS 'an index';
COMMENT ON CONSTRAINT "The Key" ON public.metrics IS 'a key';
COMMENT ON CONSTRAINT "not too low" ON public.metrics IS 'a check';
COMMENT ON CONSTRAINT "known site" ON public.metrics IS 'a reference';
COMMENT ON TRIGGER "After It" ON public.metrics IS 'a trigger';
COMMENT ON POLICY "Own rows" ON public.metrics IS 'a policy';
COMMENT ON STATISTICS public."value by site" IS 'statistics';
COMMENT ON SEQUENCE public."Numbers" IS 'numbers';
COMMENT ON SEQUENCE public.metrics_id_seq IS 'ids';
ALTER TABLE public.metrics OWNER TO keeper;
REVOKE DELETE, REFERENCES ON public.metrics FROM keeper;
