-- Who can cause an event: each class is kept for a time and up to a number of its own, so that nobody pushes out what
-- only those above them cause. identity/src/audit.rs says which there are and how long they are kept.
--
-- What is there, and what a copy of the program from before writes meanwhile, is kept as what accounts do: nothing is
-- rewritten while logins wait for the table.

alter table identity.audit_event add column class text not null default 'account';
create index audit_event_class on identity.audit_event (class, id);
-- not written any more; goes once no copy from before can be running
alter table identity.audit_event alter column routine drop not null;
drop index identity.audit_event_routine;
