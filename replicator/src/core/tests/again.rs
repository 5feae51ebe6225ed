//! What is asked for while it is under way.

use super::*;

/// Somebody verified again while a verification ran. Answers of the first one came to the second one's questions, and spoke of
/// what was there before a write that both had by then: a difference was told where there was none.
#[test]
fn a_verification_that_is_under_way_goes_on_when_it_is_asked_for_again() {
    let (mut bench, fx) = driver();
    assert!(!looks(&fx).is_empty());
    assert!(looks(&bench.tell(Event::Verify)).is_empty(), "nothing is asked about twice");
    assert!(looks(&bench.says(Message::Verify)).is_empty());
    let fx = answer_all(&mut bench, fx, Span::new(88, 16));
    assert_eq!(found(&fx), Some((vec![Span::new(88, 16)], 16, 0)));
    assert!(!looks(&bench.tell(Event::Verify)).is_empty(), "when it is over another one begins");
}
