-- What each kind of connection may do in identity. `primetrade migrate` runs this after the migrations, each time: a right that
-- a role no longer needs is revoked here by name.
grant usage on schema identity to primetrade_identity;
grant select on identity._migrations, identity.compatibility to primetrade_identity;
grant select, insert, update on identity.account to primetrade_identity;
grant select, insert, update, delete on identity.session, identity.signing_key, identity.api_key to primetrade_identity;
grant select, insert, delete on identity.audit_event to primetrade_identity;
