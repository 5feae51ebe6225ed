//! The block layer against the real kernel, with real processes killed.

mod it {
    mod killed;
    mod slow;
}
