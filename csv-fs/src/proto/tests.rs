//! The bytes of messages: a change here is a change of the wire format, and of answers that lie in stores.

use super::*;

#[test]
fn bytes_of_what_version_2_added_are_frozen() {
    let clear = Clear { ino: InodeNo(300), range: BlockRange::new(1, 200), into: ClearInto::Unwritten };
    let request = Request::Clear(clear);
    assert_eq!(postcard::to_stdvec(&request).expect("encodes"), [24, 0xac, 2, 1, 0xc8, 1, 1]);
    let xattr = XattrCall::Set { ino: InodeNo(7), name: b"user.a".to_vec(), value: vec![9], flags: 1, kill_sgid: true };
    let expected = [25, 2, 7, 6, b'u', b's', b'e', b'r', b'.', b'a', 1, 9, 1, 1];
    assert_eq!(postcard::to_stdvec(&Request::Xattr(xattr)).expect("encodes"), expected);
    assert_eq!(postcard::to_stdvec(&Reply::Bytes(vec![1, 2])).expect("encodes"), [11, 2, 1, 2]);
    let hints = Hints { extent_size: 4096, project: 3 };
    let set = Request::Hints(HintsCall::Set { ino: InodeNo(7), hints });
    assert_eq!(postcard::to_stdvec(&set).expect("encodes"), [26, 1, 7, 0x80, 32, 3]);
    assert_eq!(postcard::to_stdvec(&Reply::Hints { hints, extents: 2 }).expect("encodes"), [12, 0x80, 32, 3, 2]);
    let reply = Reply::Cleared(FileBlock(9));
    assert_eq!(postcard::to_stdvec(&reply).expect("encodes"), [10, 9]);
}
