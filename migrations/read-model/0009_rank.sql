-- The order that people give by hand. Bytes decide it, so the collation is "C".
alter table read_model.task add column rank text collate "C";
