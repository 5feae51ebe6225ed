//! The bytes of messages: a change here is a change of the wire format, and of answers that lie in stores.

use super::*;

#[test]
fn bytes_of_clear_are_frozen() {
    let clear = Clear { ino: InodeNo(300), range: BlockRange::new(1, 200), into: ClearInto::Unwritten };
    let request = Request::Clear(clear);
    assert_eq!(postcard::to_stdvec(&request).expect("encodes"), [23, 0xac, 2, 1, 0xc8, 1, 1]);
    let reply = Reply::Cleared(FileBlock(9));
    assert_eq!(postcard::to_stdvec(&reply).expect("encodes"), [9, 9]);
}
