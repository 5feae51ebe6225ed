//! Taking the kernel's caches back.

use crate::harness::{Served, can_mount};
use crate::memfs::Seen;
use block::units::ByteOffset;
use fuse::{Notified, Notifier, NotifyError};
use std::os::unix::fs::FileExt;

fn notify<F>(served: &Served, f: impl FnOnce(Notifier) -> F + Send + 'static) -> Result<Notified, NotifyError>
where
    F: Future<Output = Result<Notified, NotifyError>>,
{
    let notifier = served.mount.notifier().clone();
    served.within(move || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(f(notifier)))
}

fn head(served: &Served) -> [u8; 4] {
    let path = served.path("cached");
    served.within(move || {
        let mut data = [0; 4];
        std::fs::File::open(path).unwrap().read_exact_at(&mut data, 0).unwrap();
        data
    })
}

fn with_cached_file() -> (Served, u64) {
    let served = Served::new(&[], 1);
    let ino = served.fs.add("cached", b"old!");
    assert_eq!(&head(&served), b"old!");
    (served, ino)
}

#[test]
fn cached_data_stays_until_it_is_invalidated() {
    if !can_mount() {
        return;
    }
    let (served, ino) = with_cached_file();
    served.fs.set(ino, b"new!");
    assert_eq!(&head(&served), b"old!", "the page cache answers");
    let outcome = notify(&served, move |n| async move { n.inval_inode(ino, ByteOffset(0), None).await });
    assert_eq!(outcome, Ok(Notified::Done));
    assert_eq!(&head(&served), b"new!");
    let outcome = notify(&served, move |n| async move { n.inval_attr(9999).await });
    assert_eq!(outcome, Ok(Notified::NotCached));
}

#[test]
fn a_cached_name_is_looked_up_again_once_invalidated_or_expired() {
    if !can_mount() {
        return;
    }
    let (served, ino) = with_cached_file();
    let lookups = |served: &Served| served.fs.seen(|seen| *seen == Seen::Lookup("cached".into()));
    head(&served);
    assert_eq!(lookups(&served), 1);
    for (round, expire) in [(2, false), (3, true)] {
        let outcome = notify(&served, move |n| async move { n.inval_entry(1, b"cached", expire).await });
        assert_eq!(outcome, Ok(Notified::Done));
        head(&served);
        assert_eq!(lookups(&served), round);
    }
    let outcome = notify(&served, move |n| async move { n.delete(1, ino, b"cached").await });
    assert_eq!(outcome, Ok(Notified::Done));
    head(&served);
    assert_eq!(lookups(&served), 4);
}

#[test]
fn stored_data_is_read_without_asking() {
    if !can_mount() {
        return;
    }
    let (served, ino) = with_cached_file();
    let reads = |served: &Served| served.fs.seen(|seen| matches!(seen, Seen::Read { .. }));
    let before = reads(&served);
    let outcome = notify(&served, move |n| async move { n.store(ino, ByteOffset(0), b"push".as_slice().into()).await });
    assert_eq!(outcome, Ok(Notified::Done));
    assert_eq!(&head(&served), b"push");
    assert_eq!(reads(&served), before);
}

#[test]
fn notifying_a_mount_that_is_gone_finds_nothing_cached() {
    if !can_mount() {
        return;
    }
    let served = Served::new(&[], 1);
    let mount = std::sync::Arc::clone(&served.mount);
    served.within(move || mount.unmount(fuse::Unmount::Idle)).unwrap();
    served.ends();
    let outcome = notify(&served, |n| async move { n.inval_attr(1).await });
    assert!(matches!(outcome, Ok(Notified::NotCached) | Err(NotifyError::Gone)), "{outcome:?}");
}
