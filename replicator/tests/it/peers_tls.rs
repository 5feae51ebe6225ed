//! TLS with the certificates of a cluster, and clients that use GnuTLS.

use std::fs;
use std::path::Path;

use replicator::nbd::Security;
use replicator::nbd::core::wire::reply;

use super::certs::Authority;
use super::rig::{Served, exported, installed, memory, must, run};

const SERVER: &str = "node-1.0123456789abcdef.shorefast.internal";
const CLIENT: &str = "node-2.0123456789abcdef.shorefast.internal";
const STRANGER: &str = "node-2.fedcba9876543210.shorefast.internal";

/// The three files that GnuTLS clients look for.
fn folder(of: &Path, name: &str, ca: &Authority, signer: &Authority, subject: &str) -> String {
    let folder = of.join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let (certificate, key) = signer.certificate(&[subject], |_| {});
    for (file, text) in [("ca-cert.pem", ca.ca_pem()), ("client-cert.pem", certificate), ("client-key.pem", key)] {
        fs::write(folder.join(file), text).expect("written");
    }
    folder.display().to_string()
}

/// What GnuTLS calls the versions of TLS that a client is to speak.
const ANY: &str = "NORMAL";
const ONLY_1_2: &str = "NORMAL:-VERS-ALL:+VERS-TLS1.2";

fn qemu_io(served: &Served, folder: &str, hostname: &str, commands: &[&str]) -> super::rig::Ran {
    qemu_io_as(ANY, served, folder, hostname, commands)
}

fn qemu_io_as(priority: &str, served: &Served, folder: &str, hostname: &str, commands: &[&str]) -> super::rig::Ran {
    let creds = format!("tls-creds-x509,id=tls0,dir={folder},endpoint=client,priority={priority}");
    let address = served.address();
    let image = format!(
        "driver=nbd,server.type=inet,server.host={},server.port={},export=disk,tls-creds=tls0,tls-hostname={hostname}",
        address.ip(),
        address.port(),
    );
    let mut args = vec!["--object", &creds, "--image-opts"];
    commands.iter().for_each(|c| args.extend(["-c", c]));
    args.push(&image);
    run("qemu-io", &args)
}

#[test]
fn clients_of_the_cluster_are_served_over_tls_and_no_others() {
    if !installed(&["qemu-io", "nbdinfo"]) {
        return;
    }
    let (ours, theirs) = (Authority::new(), Authority::new());
    let device = memory(16 << 20);
    let served = Served::with_tcp([exported(&device)], Security::Tls(ours.node(SERVER)));
    let good = folder(served.folder(), "good", &ours, &ours, CLIENT);
    let io = qemu_io(&served, &good, SERVER, &["write -P 0x33 0 4M", "flush", "read -P 0x33 0 4M"]);
    assert!(io.ok && !io.out.contains("failed"), "{io:?}");
    let wrong_name = qemu_io(&served, &good, "node-3.0123456789abcdef.shorefast.internal", &["read 0 512"]);
    assert!(!wrong_name.ok, "the client looks whom it talks to: {wrong_name:?}");
    for (name, signer, subject) in [("signed by others", &theirs, CLIENT), ("another cluster", &ours, STRANGER)] {
        let bad = folder(served.folder(), name, &ours, signer, subject);
        let refused = qemu_io(&served, &bad, SERVER, &["read 0 512"]);
        assert!(!refused.ok || refused.out.contains("failed"), "{name}: {refused:?}");
    }
    let plain = run("nbdinfo", &[&format!("nbd://{}/disk", served.address())]);
    assert!(!plain.ok, "{plain:?}");
    let copied = must("qemu-io", &["-r", "-f", "raw", "-c", "read -P 0x33 0 4M", &served.uri("disk")]);
    assert!(!copied.contains("failed"), "its own socket needs none: {copied}");
}

#[test]
fn libnbd_speaks_tls_with_it() {
    if !installed(&["nbdsh"]) {
        return;
    }
    let ours = Authority::new();
    let served = Served::with_tcp([exported(&memory(16 << 20))], Security::Tls(ours.node(SERVER)));
    let good = folder(served.folder(), "good", &ours, &ours, CLIENT);
    let address = served.address();
    // This version has no way to name the host that it expects.
    let script = format!(
        "h.set_tls(nbd.TLS_REQUIRE)\nh.set_tls_certificates('{good}')\nh.set_tls_verify_peer(False)\n\
         h.set_export_name('disk')\nh.connect_tcp('{}', '{}')\nassert h.get_tls_negotiated()\n\
         h.pwrite(b'x' * 1048576, 0)\nassert h.pread(1048576, 0) == b'x' * 1048576\nh.shutdown()",
        address.ip(),
        address.port(),
    );
    must("nbdsh", &["-c", &script]);
}

/// Programs of some years ago: QEMU with GnuTLS held to TLS 1.2.
#[test]
fn a_client_that_knows_only_tls_1_2_is_served_if_it_is_of_the_cluster() {
    if !installed(&["qemu-io"]) {
        return;
    }
    let (ours, theirs) = (Authority::new(), Authority::new());
    let served = Served::with_tcp([exported(&memory(16 << 20))], Security::Tls(ours.node(SERVER)));
    let good = folder(served.folder(), "good", &ours, &ours, CLIENT);
    let io = qemu_io_as(ONLY_1_2, &served, &good, SERVER, &["write -P 0x44 0 4M", "flush", "read -P 0x44 0 4M"]);
    assert!(io.ok && !io.out.contains("failed"), "{io:?}");
    for (name, signer, subject) in [("signed by others", &theirs, CLIENT), ("another cluster", &ours, STRANGER)] {
        let bad = folder(served.folder(), name, &ours, signer, subject);
        let refused = qemu_io_as(ONLY_1_2, &served, &bad, SERVER, &["write -P 0x55 0 4M"]);
        assert!(!refused.ok || refused.out.contains("failed"), "{name}: {refused:?}");
    }
    // No certificate at all: 1.2 has a server ask for one as 1.3 has.
    let bare = folder(served.folder(), "bare", &ours, &ours, CLIENT);
    for file in ["client-cert.pem", "client-key.pem"] {
        fs::remove_file(Path::new(&bare).join(file)).expect("a file");
    }
    let refused = qemu_io_as(ONLY_1_2, &served, &bare, SERVER, &["write -P 0x55 0 4M"]);
    assert!(!refused.ok || refused.out.contains("failed"), "{refused:?}");
    let kept = must("qemu-io", &["-r", "-f", "raw", "-c", "read -P 0x44 0 4M", &served.uri("disk")]);
    assert!(!kept.contains("failed"), "who was refused has written nothing: {kept}");
}

/// Also where client and server know nothing better in common.
#[test]
fn what_is_older_or_weaker_than_tls_1_2_with_own_keys_is_refused() {
    if !installed(&["qemu-io"]) {
        return;
    }
    let ours = Authority::new();
    let served = Served::with_tcp([exported(&memory(16 << 20))], Security::Tls(ours.node(SERVER)));
    let good = folder(served.folder(), "good", &ours, &ours, CLIENT);
    for priority in [
        "NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0:%ALLOW_SMALL_RECORDS",
        "NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+RSA",
        "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-CBC:+AES-256-CBC",
        "NORMAL:-VERS-ALL:+VERS-TLS1.2:%NO_SESSION_HASH",
    ] {
        let refused = qemu_io_as(priority, &served, &good, SERVER, &["read 0 512"]);
        assert!(!refused.ok || refused.out.contains("failed"), "{priority}: {refused:?}");
    }
    let io = qemu_io_as(ONLY_1_2, &served, &good, SERVER, &["read 0 512"]);
    assert!(io.ok && !io.out.contains("failed"), "{io:?}");
}

/// Without TLS nothing is told, not even whether an export is there.
#[test]
fn without_tls_every_option_is_refused() {
    use std::io::{Read, Write};
    let ours = Authority::new();
    let served = Served::with_tcp([exported(&memory(16 << 20))], Security::Tls(ours.node(SERVER)));
    let mut stream = std::net::TcpStream::connect(served.address()).expect("it listens");
    stream.set_read_timeout(Some(super::rig::DEADLINE)).expect("a bound");
    stream.read_exact(&mut [0; 18]).expect("a greeting");
    stream.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x03\0\0\0\0").expect("LIST");
    let mut head = [0; 20];
    stream.read_exact(&mut head).expect("a reply");
    assert_eq!(head[12..16], reply::ERR_TLS_REQD.to_be_bytes());
}
