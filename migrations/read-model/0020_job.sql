-- Jobs as their owners see them, for live streams: command-api writes those that have changed each second, query-api looks at
-- them. The table of jobs is in another database.

create table read_model.job (
    id uuid primary key,
    owner_id uuid not null,
    -- JSON
    shown text not null,
    -- by the clock of the database that it was read from: what another copy read before changes nothing
    seen_at timestamptz not null,
    changed_at timestamptz not null default clock_timestamp()
);
create index job_changed_at on read_model.job (changed_at);
