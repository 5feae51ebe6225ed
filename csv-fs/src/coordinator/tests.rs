//! The shell with a real store on a device in memory, clients in this process, and an office that always fences.

mod cluster;
mod group;
mod hostile;
mod known;
mod move_and_stop;
mod redirected;
mod sharing;
mod takeover;
