-- compatible-since: 21
-- Which programs may run on this schema, where it has migrations that they do not know: what the first line of each
-- migration says, kept here for programs that do not have the file.
create table read_model.compatibility (
    migration bigint primary key,
    -- the oldest program that can run beside it, by the newest migration which that program knows
    since bigint not null
);
