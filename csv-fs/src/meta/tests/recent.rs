//! Facts about what is kept in memory of look-ups: it is what a view of now shows, or nothing.

use redb::Value;

use super::*;
use crate::meta::redo::{Row, Rows};
use crate::meta::tables::InodeKey;
use crate::proto::SetAttr;

const ROOT: InodeNo = InodeNo::ROOT;

impl Fixture {
    /// Looks a name up in a view, and has it kept.
    pub(super) fn note(&self, view: &View, parent: InodeNo, name: &[u8]) {
        if let Ok(attr) = view.lookup(parent, name) {
            self.store.reader().note(view, Some((parent, name)), &attr);
        }
    }

    pub(super) fn known(&self, parent: InodeNo, name: &[u8]) -> Option<Attr> {
        self.store.recent().lookup(parent, name)
    }
}

fn mode(ino: InodeNo, mode: u32) -> impl FnOnce(&mut Ops<'_>) -> Result<Attr> {
    move |ops| ops.setattr(ino, &SetAttr { mode: Some(mode), ..SetAttr::default() })
}

#[test]
fn what_was_looked_up_is_known_until_it_changes() {
    let f = Fixture::new();
    let (a, b) = (f.file("a"), f.file("b"));
    assert_eq!((f.known(ROOT, b"a"), f.store.recent().attr(a)), (None, None));
    f.note(&f.view(), ROOT, b"a");
    f.note(&f.view(), ROOT, b"b");
    assert_eq!((f.known(ROOT, b"a"), f.store.recent().attr(b)), (Some(f.attr(a)), Some(f.attr(b))));
    f.run(mode(a, 0o600));
    assert_eq!((f.known(ROOT, b"a"), f.known(ROOT, b"b")), (None, Some(f.attr(b))));
    f.run_at(LATER, |ops| ops.unlink(ROOT, b"b", &never));
    assert_eq!((f.known(ROOT, b"b"), f.store.recent().attr(b)), (None, None));
}

/// A reader that was slow brought what it had read before a commit, and every look-up was told that until the next change.
#[test]
fn what_was_read_before_a_commit_is_not_taken_in_after_it() {
    let f = Fixture::new();
    let a = f.file("a");
    let before = f.view();
    f.run(mode(a, 0o600));
    f.note(&before, ROOT, b"a");
    assert_eq!(f.known(ROOT, b"a"), None);
    f.note(&f.view(), ROOT, b"a");
    assert_eq!(f.known(ROOT, b"a"), Some(f.attr(a)));
}

/// One look-up was answered from a view of after a commit, the next from memory with what was true before it.
#[test]
fn nothing_of_a_commit_is_known_while_it_goes_on() {
    let f = Fixture::new();
    let a = f.file("a");
    f.note(&f.view(), ROOT, b"a");
    f.note(&f.view(), ROOT, b".");
    let (recent, mut rows) = (f.store.recent(), Rows::default());
    rows.push(Row { table: 1, key: InodeKey::as_bytes(&(0, a.0)).as_ref(), value: None });
    recent.commit_begins(&rows);
    f.note(&f.view(), ROOT, b"a");
    assert_eq!(f.known(ROOT, b"a"), None, "from whatever view");
    assert_eq!(recent.attr(ROOT), Some(f.attr(ROOT)), "not of the commit");
    assert_eq!(f.known(ROOT, b"."), None, "no row, so no commit would end it");
}

/// More rows than a record holds are not kept to the end of their commit: then all is forgotten.
#[test]
fn a_commit_of_too_many_rows_leaves_nothing_known() {
    let f = Fixture::new();
    f.file("a");
    f.note(&f.view(), ROOT, b"a");
    let mut rows = Rows::default();
    let value = vec![0; crate::format::LOG_LEN as usize];
    rows.push(Row { table: 12, key: b"k", value: Some(&value) });
    f.store.recent().commit_begins(&rows);
    assert_eq!(f.known(ROOT, b"a"), None);
}

#[test]
fn a_closed_store_knows_nothing() {
    let f = Fixture::new();
    f.file("a");
    let view = f.view();
    f.note(&view, ROOT, b"a");
    let recent = f.store.recent();
    drop(view);
    f.store.close().expect("closes");
    assert_eq!(recent.lookup(ROOT, b"a"), None);
}
