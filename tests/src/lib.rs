//! Tests of the tree itself: who imports whom, what is pure, how long files and functions are, what documents promise.
//!
//! This library reads sources; the tests are in `tests/it`. It takes no dependency on the crates it looks at, so it
//! also works on a tree that does not compile.
#![forbid(unsafe_code)]

pub mod code;
pub mod tree;
