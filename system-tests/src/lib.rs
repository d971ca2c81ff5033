//! The outside view: a real Postgres, real `primetrade` processes, and nothing but the HTTP contract, the command
//! line and SQL between them and the tests.
//!
//! A test binary starts one Postgres cluster ([`cluster`]), a database per server ([`server`]), talks to it as a
//! client would ([`client`]), breaks things ([`proxy`], signals), and asks at the end whether what always holds
//! still does ([`ledger`], [`check`]).

pub mod wait;

pub mod slowness;

pub mod reaper;

pub mod cluster;

pub mod kafka;

pub mod redis;

pub mod authority;

pub mod catch_up;

pub mod process;

pub mod server;

pub mod services;

pub mod stack;

pub mod document;

pub mod client;

pub mod jobs;

pub mod terminal;

pub mod raw_http;

pub mod flood;

pub mod proxy;

pub mod address;

#[cfg(target_os = "linux")]
pub mod sockets;

pub mod pgbouncer;

pub mod s3;

pub mod calendar;

pub mod ledger;

pub mod check;

pub mod world;
