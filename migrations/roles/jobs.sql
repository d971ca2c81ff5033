-- What each kind of connection may do in jobs. `primetrade migrate` runs this after the migrations, each time: a right that a
-- role no longer needs is revoked here by name.
grant usage on schema jobs to primetrade_jobs;
grant select on jobs._migrations, jobs.compatibility to primetrade_jobs;
grant select, insert, update, delete on jobs.job to primetrade_jobs;
grant select, insert, delete on jobs.error to primetrade_jobs;
-- Locking its row takes the right to update it.
grant select, update on jobs.turn to primetrade_jobs;
