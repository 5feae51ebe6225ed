//! The NBD server: against a client of our own that says what it likes, and against those of libnbd and QEMU; two resources.

mod it {
    mod certs;
    mod client;
    mod conduct;
    mod drain;
    mod fuzz;
    mod hostile;
    mod peers;
    mod peers_tls;
    mod resource;
    mod rig;
}
