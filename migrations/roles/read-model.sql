-- What each kind of connection may do in read_model. `primetrade migrate` runs this after the migrations, each time: a right
-- that a role no longer needs is revoked here by name.
--
-- Generations are made, filled and dropped by who owns the tables (`primetrade rebuild`). All others go through the
-- partitioned tables, which is where rights are looked for, and have none on partitions.
grant usage on schema read_model to primetrade_fold, primetrade_query, primetrade_announce;

grant select on
    read_model._migrations, read_model.compatibility, read_model.projected_table,
    read_model.projection, read_model.checkpoint, read_model.kafka_partition, read_model.ended_session
to primetrade_fold, primetrade_query;

-- The projector: rows are added and changed, a deleted task is a tombstone.
do $$
declare
    t text;
begin
    for t in select name from read_model.projected_table order by ordinal loop
        execute format('grant select, insert, update on read_model.%I to primetrade_fold', t);
        execute format('grant select on read_model.%I to primetrade_query', t);
    end loop;
end $$;
grant update on read_model.projection to primetrade_fold;
grant insert, update on read_model.checkpoint, read_model.kafka_partition to primetrade_fold;
grant select, update on read_model.generation to primetrade_fold;
grant select, insert, update, delete on read_model.kafka_position, read_model.parked to primetrade_fold;
-- What admins did there, for command-api to take.
grant insert on read_model.admin_act to primetrade_fold;

-- Live streams.
grant select on read_model.job to primetrade_query;

-- command-api: which log the read models are of and how far they are; sessions that ended and jobs are told there, what
-- admins did is taken.
grant select on read_model.projection, read_model.checkpoint, read_model.kafka_position to primetrade_announce;
grant select, insert, delete on read_model.ended_session to primetrade_announce;
grant select, delete on read_model.admin_act to primetrade_announce;
grant select, insert, update, delete on read_model.job to primetrade_announce;
