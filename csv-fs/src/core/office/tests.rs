//! Several offices over one simulated disk and network in virtual time, and the interleavings that the rules prevent.

mod lab;

mod caws;
mod challenges;
mod fences;
mod offices;
mod resumed;
mod scsi;
mod storm;
mod taking;
