//! Users and their rules, as `ACL` commands say them: each line of an input is one, without its first word.

use outrigger::store::acl::{self, Rule, User, Users};
use outrigger::wire::resp::Command;

/// One input.
pub fn run(data: &[u8]) {
    let mut users = Users::default();
    for line in data.split(|byte| *byte == b'\n') {
        line.split(|byte| *byte == b' ').for_each(judge);
        let words: Vec<&[u8]> =
            [&b"ACL"[..]].into_iter().chain(line.split(|byte| *byte == b' ')).collect();
        said(&Command::from_args(&words), &mut users);
    }
    let mut again = Users::default();
    for command in users.commands() {
        assert!(again.restore(command), "a snapshot is taken back");
    }
    assert_eq!(again, users);
}

/// A word is refused, or written in one way and read back as the same rule; and a user is what its rules say.
fn judge(word: &[u8]) {
    let Ok(rule) = Rule::parse(word) else { return };
    assert_eq!(Rule::parse(&rule.word()).as_ref(), Ok(&rule));
    let mut user = User::default();
    user.apply(&rule);
    let mut again = User::default();
    user.rules().iter().for_each(|rule| again.apply(rule));
    assert_eq!(again, user);
}

/// A command is refused and changes nothing; or what leaves the connection is understood, by this node and by
/// whoever reads it later.
fn said(command: &Command, users: &mut Users) {
    if !acl::is_acl(command) {
        return;
    }
    let Ok(sealed) = acl::sealed(command) else { return };
    assert_eq!(acl::sealed(&sealed).expect("it was sealed").raw, sealed.raw);
    let call = acl::read(&sealed).expect("it was read");
    if !call.changes() {
        let _ = users.answer(&call, false);
        return;
    }
    let before = users.clone();
    if users.apply(&call).is_err() {
        assert_eq!(*users, before);
    }
}
