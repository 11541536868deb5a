-- Who writes marts, and who reads them, in a database of their own. For an administrator, with psql, once:
--
--     psql --file infra/postgres/marts.sql --set writer=PASSWORD --set reader=PASSWORD
--
-- Tables are made by the first fill, and belong to the writer; whatever it makes, the reader may read.
\set ON_ERROR_STOP on
create role revector login password :'writer';
create role reader login password :'reader';
create database marts owner revector;
\connect marts
revoke all on schema public from public;
revoke all on database marts from public;
grant connect on database marts to reader;
create schema revector authorization revector;
grant usage on schema revector to reader;
alter default privileges for role revector in schema revector grant select on tables to reader;
alter role reader set default_transaction_read_only = on;
alter role reader set statement_timeout = '60s';
alter role reader set search_path = revector;
alter role reader set timezone = 'UTC';
