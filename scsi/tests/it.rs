//! Parsers of what a target sends, under what targets have sent and under whatever bytes there are.

mod it {
    mod fuzz;
    mod peers;
}
