-- Who can cause an event: each class is kept for a time and up to a number of its own, so that nobody pushes out what
-- only those above them cause. identity/src/audit.rs says which there are and how long they are kept.
--
-- A copy of the program from before writes no class: what it writes meanwhile is kept as what accounts do.

alter table identity.audit_event add column class text not null default 'account';
update identity.audit_event set class = case
    when act = 'account-created' and actor_type = 'account' or act = 'login-failed' and account_id is null then 'anybody'
    when routine then 'routine'
    when act in ('password-changed', 'password-change-refused', 'refresh-token-reused') then 'account'
    else 'administration'
end;
create index audit_event_class on identity.audit_event (class, id);
-- not written any more; goes once no copy from before can be running
alter table identity.audit_event alter column routine drop not null;
drop index identity.audit_event_routine;
