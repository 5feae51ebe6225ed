//! Volumes on a unit of a disk array: real daemons, a real `shorefast target serve`, and networks that are cut, or plain addresses of
//! the loopback interface where nothing needs to be cut.

#[path = "san/array.rs"]
mod array;
#[path = "san/cuts.rs"]
mod cuts;
#[path = "san/lab.rs"]
mod lab;
#[path = "../../src/demo/san/networks.rs"]
#[allow(dead_code, reason = "the demo, whose file it is, records its namespaces, and a test does not")]
mod networks;
#[path = "san/outsiders.rs"]
mod outsiders;
#[path = "san/restarts.rs"]
mod restarts;
#[path = "san/rules.rs"]
mod rules;
#[path = "san/volumes.rs"]
mod volumes;
