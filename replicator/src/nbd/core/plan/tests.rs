use super::*;

const ALL: Abilities = Abilities { discards: true, discard_zeroes: true, zeroes_fast: true };
const NONE: Abilities = Abilities { discards: false, discard_zeroes: false, zeroes_fast: false };

/// Carries a command out against a device that answers by `device`; what it was asked, and the client's answer.
fn carry_out(
    command: Command,
    abilities: Abilities,
    device: impl Fn(Ask) -> Result<(), Trouble>,
) -> (Vec<Ask>, Result<(), Errno>) {
    let mut asked = Vec::new();
    let mut next = Plan::begin(command, || abilities);
    loop {
        match next {
            Next::Answer(result) => return (asked, result.map_err(|refusal| refusal.errno)),
            Next::Ask(plan) => {
                asked.push(plan.ask());
                assert!(asked.len() <= 3, "no command needs more: {asked:?}");
                next = plan.next(device(plan.ask()));
            }
        }
    }
}

fn well(_: Ask) -> Result<(), Trouble> {
    Ok(())
}

fn refuses_discards(ask: Ask) -> Result<(), Trouble> {
    if ask == Ask::Discard { Err(Trouble::NotSupported) } else { Ok(()) }
}

fn zeroes(fua: bool, may_free: bool, fast: bool) -> Command {
    Command::Zeroes { len: 4096, fua, may_free, fast }
}

#[test]
fn fua_of_a_write_is_the_devices_and_of_a_trim_or_zeroes_a_flush_behind_it() {
    assert_eq!(carry_out(Command::Write { len: 1, fua: true }, ALL, well), (vec![Ask::Write { fua: true }], Ok(())));
    assert_eq!(carry_out(Command::Trim { len: 1, fua: true }, ALL, well), (vec![Ask::Discard, Ask::Flush], Ok(())));
    assert_eq!(carry_out(Command::Trim { len: 1, fua: false }, ALL, well), (vec![Ask::Discard], Ok(())));
    assert_eq!(carry_out(zeroes(true, false, false), ALL, well), (vec![Ask::Zero, Ask::Flush], Ok(())));
    assert_eq!(carry_out(zeroes(true, true, false), ALL, well), (vec![Ask::Discard, Ask::Flush], Ok(())));
}

#[test]
fn flush_that_fails_behind_zeroes_fails_the_request() {
    let device = |ask| if ask == Ask::Flush { Err(Trouble::Failed) } else { Ok(()) };
    assert_eq!(carry_out(zeroes(true, false, false), ALL, device).1, Err(Errno::Eio));
    assert_eq!(carry_out(Command::Trim { len: 1, fua: true }, ALL, device).1, Err(Errno::Eio));
}

#[test]
fn zeroes_are_discarded_only_where_that_leaves_zeroes_and_holes_are_allowed() {
    assert_eq!(carry_out(zeroes(false, true, false), ALL, well).0, [Ask::Discard]);
    assert_eq!(carry_out(zeroes(false, false, false), ALL, well).0, [Ask::Zero], "NO_HOLE");
    let unknown = Abilities { discard_zeroes: false, ..ALL };
    assert_eq!(carry_out(zeroes(false, true, false), unknown, well).0, [Ask::Zero]);
    assert_eq!(carry_out(zeroes(true, true, false), ALL, refuses_discards).0, [Ask::Discard, Ask::Zero, Ask::Flush]);
}

#[test]
fn fast_zeroes_are_refused_rather_than_written() {
    assert_eq!(carry_out(zeroes(false, false, true), NONE, well), (vec![], Err(Errno::Enotsup)));
    assert_eq!(carry_out(zeroes(false, true, true), ALL, refuses_discards), (vec![Ask::Discard], Err(Errno::Enotsup)));
    assert_eq!(carry_out(zeroes(false, false, true), ALL, well), (vec![Ask::Zero], Ok(())));
    assert_eq!(carry_out(zeroes(false, false, false), NONE, well), (vec![Ask::Zero], Ok(())), "slow is not refused");
}

#[test]
fn trim_is_a_hint_and_other_refusals_are_errors() {
    assert_eq!(carry_out(Command::Trim { len: 1, fua: true }, NONE, well), (vec![], Ok(())));
    assert_eq!(carry_out(Command::Trim { len: 1, fua: true }, ALL, refuses_discards), (vec![Ask::Discard], Ok(())));
    let fails = |_| Err(Trouble::Failed);
    assert_eq!(carry_out(Command::Trim { len: 1, fua: false }, ALL, fails).1, Err(Errno::Eio));
    assert_eq!(carry_out(Command::Flush, ALL, fails), (vec![Ask::Flush], Err(Errno::Eio)));
}

#[test]
fn errors_have_the_names_that_the_specification_gives_them() {
    let read = Command::Read { len: 1 };
    let write = Command::Write { len: 1, fua: false };
    for (trouble, of_read, of_write) in [
        (Trouble::NoSpace, Errno::Einval, Errno::Enospc),
        (Trouble::Invalid, Errno::Einval, Errno::Einval),
        (Trouble::NotSupported, Errno::Einval, Errno::Einval),
        (Trouble::ReadOnly, Errno::Eperm, Errno::Eperm),
        (Trouble::Closing, Errno::Eshutdown, Errno::Eshutdown),
        (Trouble::Failed, Errno::Eio, Errno::Eio),
    ] {
        assert_eq!(carry_out(read, ALL, |_| Err(trouble)).1, Err(of_read), "{trouble:?}");
        assert_eq!(carry_out(write, ALL, |_| Err(trouble)).1, Err(of_write), "{trouble:?}");
    }
}
