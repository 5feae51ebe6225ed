//! The program as its users meet it: commands, daemons, volumes on real files, real mounts. Every daemon is a process
//! of the program under test, ended by its identity; nothing here touches a mount without a time limit.
#![forbid(unsafe_code)]

#[path = "it/annex.rs"]
mod annex;
#[path = "it/appends.rs"]
mod appends;
#[path = "it/bad_input.rs"]
mod bad_input;
#[path = "it/check.rs"]
mod check;
#[path = "it/commands.rs"]
mod commands;
#[path = "it/coordinator_path.rs"]
mod coordinator_path;
#[path = "it/counters.rs"]
mod counters;
#[path = "it/cuts.rs"]
mod cuts;
#[path = "it/data.rs"]
mod data;
#[path = "it/demo.rs"]
mod demo;
#[path = "it/disks.rs"]
mod disks;
#[path = "it/eviction.rs"]
mod eviction;
#[path = "it/ext4.rs"]
mod ext4;
#[path = "it/fallbacks.rs"]
mod fallbacks;
#[path = "it/fewer_volumes.rs"]
mod fewer_volumes;
#[path = "it/field.rs"]
mod field;
#[path = "it/fixture.rs"]
mod fixture;
#[path = "it/flush.rs"]
mod flush;
#[path = "it/grow.rs"]
mod grow;
#[path = "it/handles.rs"]
mod handles;
#[path = "it/holder.rs"]
mod holder;
#[path = "it/holes.rs"]
mod holes;
#[path = "it/io_timeout.rs"]
mod io_timeout;
#[path = "it/iscsi.rs"]
mod iscsi;
#[path = "it/kills.rs"]
mod kills;
#[path = "it/listing.rs"]
mod listing;
#[path = "it/lockers.rs"]
mod lockers;
#[path = "it/locks.rs"]
mod locks;
#[path = "it/mounts.rs"]
mod mounts;
#[path = "it/names.rs"]
mod names;
#[path = "it/nbd.rs"]
mod nbd;
#[path = "it/nodes.rs"]
mod nodes;
#[path = "it/office.rs"]
mod office;
#[path = "it/posix.rs"]
mod posix;
#[path = "it/pressure.rs"]
mod pressure;
#[path = "it/promotions.rs"]
mod promotions;
#[path = "it/quorum.rs"]
mod quorum;
#[path = "it/refusals.rs"]
mod refusals;
#[path = "it/replica.rs"]
mod replica;
#[path = "it/restarts.rs"]
mod restarts;
#[path = "it/returns.rs"]
mod returns;
#[path = "it/routes.rs"]
mod routes;
#[path = "it/san.rs"]
mod san;
#[path = "it/service.rs"]
mod service;
#[path = "it/shared.rs"]
mod shared;
#[path = "it/silence.rs"]
mod silence;
#[path = "it/space.rs"]
mod space;
#[path = "it/story.rs"]
mod story;
#[path = "it/stuck_write.rs"]
mod stuck_write;
#[path = "it/support.rs"]
mod support;
#[path = "it/suspended.rs"]
mod suspended;
#[path = "it/target.rs"]
mod target;
#[path = "it/torture.rs"]
mod torture;
#[path = "it/units.rs"]
mod units;
#[path = "it/unprivileged.rs"]
mod unprivileged;
#[path = "it/upgrade.rs"]
mod upgrade;
#[path = "it/volumes.rs"]
mod volumes;
#[path = "it/xattrs.rs"]
mod xattrs;
