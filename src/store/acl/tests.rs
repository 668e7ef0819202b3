//! What rules come to, what is kept of them, and what a connection hears.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::id::Index;
use crate::limits;
use crate::store::map::Map;
use crate::store::password::Password;
use crate::store::{RestoreError, StateMachine, Wanted};
use crate::wire::reply::Reply;
use crate::wire::resp::Command;

fn command(line: &str) -> Command {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    Command::from_args(&args)
}

/// What the table says to a line.
fn say(users: &mut Users, line: &str) -> Result<Reply, String> {
    let call = sealed(&command(line)).and_then(|sealed| read(&sealed));
    let said = call.and_then(|call| match call.changes() {
        true => users.apply(&call),
        false => Ok(users.answer(&call, false)),
    });
    match said {
        Ok(reply) if !reply.is_error() => Ok(reply),
        Ok(refusal) | Err(refusal) => Err(refusal.error_text().to_owned()),
    }
}

fn table(lines: &[&str]) -> Arc<Users> {
    let mut users = Users::default();
    for line in lines {
        say(&mut users, line).expect(line);
    }
    Arc::new(users)
}

fn listed(users: &mut Users) -> Vec<String> {
    let Ok(Reply::Array(lines)) = say(users, "ACL LIST") else { panic!("no list") };
    let text = |line: Reply| match line {
        Reply::Bulk(text) => String::from_utf8_lossy(&text).into_owned(),
        other => panic!("{other:?}"),
    };
    lines.into_iter().map(text).collect()
}

/// The rules of a user after those of each line.
fn comes_to(rules: &str) -> String {
    let mut users = Users::default();
    say(&mut users, &format!("ACL SETUSER u {rules}")).expect(rules);
    listed(&mut users).pop().expect("u").split_off("user u ".len())
}

#[test]
fn rules_come_to_what_redis_users_expect() {
    let hash = |password: &str| format!("#{}", Password::new(password.as_bytes()).to_hex());
    let (p, q) = (hash("p"), hash("q"));
    let cases = [
        ("off", "off -@all".to_owned()),
        ("on nopass ~* &* +@all", "on nopass ~* +@all".into()),
        ("ON NoPass AllKeys AllCommands AllChannels", "on nopass ~* +@all".into()),
        ("on >p ~app:* +get", format!("on {p} ~app:* -@all +get")),
        ("on >p >q <p", format!("on {q} -@all")),
        (&format!("on {p} {q} !{}", &p[1..]), format!("on {q} -@all")),
        ("nopass >p", format!("off {p} -@all")),
        (">p nopass", "off nopass -@all".into()),
        (">p resetpass", "off -@all".into()),
        ("~b* ~a* ~b*", "off ~a* ~b* -@all".into()),
        ("~a* allkeys ~b*", "off ~* -@all".into()),
        ("~a* resetkeys ~b*", "off ~b* -@all".into()),
        ("+@read -GET +set", "off -@all +@read -get +set".into()),
        ("+get -@all +set", "off -@all +set".into()),
        ("+get +@all -flushall", "off +@all -flushall".into()),
        ("+get -set -get", "off -@all -set -get".into()),
        ("on >p ~* +@all reset", "off -@all".into()),
    ];
    for (rules, expected) in cases {
        assert_eq!(comes_to(rules), expected, "{rules}");
    }
}

#[test]
fn what_is_no_rule_is_refused_and_shows_no_password() {
    let keys = "key rules are prefixes: ~<prefix>*, without any other of * ? [ ] \\";
    let cases = [
        ("~app", "'~app'", keys),
        ("~a*b*", "'~a*b*'", keys),
        ("~a?*", "'~a?*'", keys),
        ("~[ab]*", "'~[ab]*'", keys),
        ("~", "'~'", keys),
        ("+nosuch", "'+nosuch'", "there is no such command or category"),
        ("+@nosuch", "'+@nosuch'", "there is no such command or category"),
        ("+", "'+'", "there is no such command or category"),
        ("+config|get", "'+config|get'", "rules are for whole commands, not for parts of them"),
        ("%R~a*", "'%R~a*'", "there is no such rule"),
        ("#12", "'(not shown)'", "a hash is a SHA-256 in 64 hex digits"),
        ("secret", "'(not shown)'", "there is no such rule"),
    ];
    for (rule, shown, why) in cases {
        let refusal = say(&mut Users::default(), &format!("ACL SETUSER u on {rule}"));
        let expected = format!("ERR Error in ACL SETUSER modifier {shown}: {why}");
        assert_eq!(refusal, Err(expected), "{rule}");
    }
    for (line, expected) in [
        ("ACL DELUSER default", "ERR The 'default' user cannot be removed"),
        (
            "ACL SETUSER default >p",
            "ERR the password of 'default' is requirepass, a setting of each node",
        ),
        ("ACL SETUSER", "ERR wrong number of arguments for 'acl|setuser' command"),
        ("ACL LIST x", "ERR wrong number of arguments for 'acl|list' command"),
        ("ACL SETUSER ü on", "ERR a user's name has 1 to 64 printable characters and no blanks"),
        ("ACL CAT nosuch", "ERR there is no category 'nosuch'; ACL CAT names them"),
        (
            "ACL GENPASS",
            "ERR unknown subcommand 'GENPASS'. ACL knows CAT, DELUSER, GETUSER, LIST, SETUSER, USERS, WHOAMI.",
        ),
    ] {
        assert_eq!(say(&mut Users::default(), line), Err(expected.to_owned()), "{line}");
    }
}

#[test]
fn no_password_leaves_the_connection() {
    let sealed = sealed(&command("ACL SETUSER u on >secret <older nopass")).expect("valid");
    let text = String::from_utf8_lossy(&sealed.raw).into_owned();
    assert!(!text.contains("secret") && !text.contains("older"), "{text}");
    assert!(text.contains(&Password::new(b"secret").to_hex()));
    let mut users = Users::default();
    say(&mut users, "ACL SETUSER u >secret").expect("set");
    assert!(!format!("{users:?}").contains(&Password::new(b"secret").to_hex()));
}

#[test]
fn a_user_may_do_what_it_was_given_and_nothing_else() {
    let users = table(&[
        "ACL SETUSER reader on nopass ~app:* ~{t}* +@read +client",
        "ACL SETUSER writer on nopass ~app:* +@write +@transaction +@connection -flushall",
        "ACL SETUSER root on nopass ~* +@all -debug",
    ]);
    let cases = [
        ("reader", "GET app:1", None),
        ("reader", "get APP:1", Some(Denial::Key)),
        ("reader", "MGET app:1 {t}2", None),
        ("reader", "MGET app:1 other", Some(Denial::Key)),
        ("reader", "SET app:1 v", Some(Denial::Command)),
        ("reader", "PING", Some(Denial::Command)),
        ("reader", "WATCH app:1", Some(Denial::Command)),
        ("reader", "SCAN 0", Some(Denial::Key)),
        ("reader", "DBSIZE", Some(Denial::Key)),
        ("reader", "GET", None),
        ("reader", "NOSUCH other", None),
        ("reader", "CLIENT SESSION RUN 7 1 SET app:1 v", Some(Denial::Command)),
        ("writer", "CLIENT SESSION RUN 7 1 SET app:1 v", None),
        ("writer", "CLIENT SESSION RUN 7 1 SET other v", Some(Denial::Key)),
        ("writer", "CLIENT SESSION OPEN", None),
        ("writer", "MSET app:1 v app:2 v", None),
        ("writer", "MSET app:1 app:2 other v", Some(Denial::Key)),
        ("writer", "WATCH app:1", None),
        ("writer", "WATCH app:1 other", Some(Denial::Key)),
        ("writer", "FLUSHDB", Some(Denial::Key)),
        ("writer", "FLUSHALL", Some(Denial::Command)),
        ("writer", "ACL LIST", Some(Denial::Command)),
        ("root", "FLUSHALL", None),
        ("root", "DEBUG DIGEST", Some(Denial::Command)),
        ("root", "BACKUP OPEN 0", None),
    ];
    for (user, line, expected) in cases {
        let user_of = users.get(user.as_bytes()).expect(user);
        assert_eq!(user_of.permits(&command(line)).err(), expected, "{user}: {line}");
    }
    let all = table(&["ACL SETUSER u nopass +@all ~a*"]);
    assert_eq!(all.get(b"u").expect("u").permits(&command("BACKUP OPEN 0")), Err(Denial::Key));
}

#[test]
fn the_table_and_its_users_have_bounds() {
    let mut users = Users::default();
    for number in 0..limits::ACL_USERS_MAX {
        say(&mut users, &format!("ACL SETUSER u{number} on")).expect("room");
    }
    let refusal = say(&mut users, "ACL SETUSER another on");
    let expected =
        format!("ERR there are {} users, as many as there may be", limits::ACL_USERS_MAX);
    assert_eq!(refusal, Err(expected));
    say(&mut users, "ACL SETUSER u7 nopass").expect("it is there");
    say(&mut users, "ACL DELUSER u7").expect("deleted");
    say(&mut users, "ACL SETUSER another on").expect("room again");

    let before = users.clone();
    let rules: Vec<String> = (0..=limits::ACL_RULES_MAX).map(|it| format!("~{it}:*")).collect();
    let long = format!("~{}*", "k".repeat(limits::ACL_USER_BYTES_MAX));
    for rules in [rules.join(" "), long] {
        let refusal = say(&mut users, &format!("ACL SETUSER u8 {rules}"));
        let expected = "ERR a user has at most 128 rules and 8192 bytes of them";
        assert_eq!(refusal, Err(expected.to_owned()));
    }
    assert_eq!(users, before, "what is refused changes nothing");
}

#[test]
fn default_is_of_the_table_when_it_may_not_do_everything() {
    let mut users = Users::default();
    assert_eq!(listed(&mut users), ["user default on ~* +@all"]);
    say(&mut users, "ACL SETUSER default -@admin").expect("set");
    assert_eq!(listed(&mut users), ["user default on ~* +@all -@admin"]);
    say(&mut users, "ACL SETUSER default +@all").expect("set");
    assert!(users.is_empty(), "nothing is looked at again");
    say(&mut users, "ACL SETUSER default reset").expect("set");
    assert_eq!(listed(&mut users), ["user default off -@all"]);
    say(&mut users, "ACL SETUSER default reset on ~* +@all").expect("set");
    assert!(users.is_empty());
    assert_eq!(say(&mut users, "ACL GETUSER nobody"), Ok(Reply::Nil));
}

fn apply(map: &mut Map, line: &str) -> Reply {
    map.apply(Index(1), &command(line).raw, Wanted::Yes)
}

fn restored(map: &Map) -> Result<Box<dyn StateMachine>, RestoreError> {
    let mut frozen = map.freeze();
    let mut restoring = map.restoring();
    while let Some(chunk) = frozen.next_chunk(7) {
        restoring.chunk(&chunk)?;
    }
    restoring.finish()
}

#[test]
fn the_machine_keeps_users_through_snapshots_and_flushes() {
    let mut map = Map::new();
    let plain = map.digest();
    let first = Arc::clone(map.users().expect("it keeps them"));
    for line in ["ACL SETUSER u on >p ~a* +get", "ACL SETUSER default -@admin", "SET k v"] {
        assert_eq!(apply(&mut map, line), Reply::Ok, "{line}");
    }
    let users = Arc::clone(map.users().expect("it keeps them"));
    assert!(!Arc::ptr_eq(&first, &users) && first.is_empty(), "who held the old one still does");
    assert_eq!(apply(&mut map, "FLUSHALL"), Reply::Ok);
    assert!(Arc::ptr_eq(&users, map.users().expect("it keeps them")));
    assert_ne!(map.digest(), plain);
    apply(&mut map, "SET l v");
    let back = restored(&map).expect("whole");
    assert_eq!((back.digest(), back.len()), (map.digest(), 1));
    assert_eq!(back.users().map(|it| &**it), Some(&*users));
    assert_eq!(apply(&mut map, "ACL DELUSER u v"), Reply::Int(1));
    assert_eq!(apply(&mut map, "ACL SETUSER default +@all"), Reply::Ok);
    apply(&mut map, "DEL l");
    assert_eq!(map.digest(), plain, "as if there had never been any");
    let refused = apply(&mut map, "ACL SETUSER u ~*a*");
    assert!(refused.is_error() && map.users().is_some_and(|users| users.is_empty()));
}

#[test]
fn what_a_later_version_calls_a_command_is_kept() {
    let mut map = Map::new();
    assert_eq!(apply(&mut map, "ACL SETUSER u on nopass ~* -@all +future +@fancy"), Reply::Ok);
    let back = restored(&map).expect("whole");
    assert_eq!(back.digest(), map.digest());
    let users = map.users().expect("it keeps them");
    let rules = users.get(b"u").expect("u").rules();
    assert!(rules.iter().any(|rule| rule.word() == b"+future"));
}

#[test]
fn a_user_behind_a_key_or_twice_is_no_snapshot() {
    let mut map = Map::new();
    apply(&mut map, "ACL SETUSER u on");
    let users: Bytes = map.freeze().next_chunk(1 << 20).expect("a user");
    apply(&mut map, "SET k v");
    let all = map.freeze().next_chunk(1 << 20).expect("both");
    let key = all.slice(users.len()..);
    let outcome = |chunks: &[&Bytes]| {
        let mut restoring = map.restoring();
        chunks.iter().try_for_each(|chunk| restoring.chunk(chunk)).err()
    };
    assert_eq!(outcome(&[&users, &key]), None);
    assert_eq!(outcome(&[&key, &users]), Some(RestoreError::OutOfOrder));
    assert_eq!(outcome(&[&users, &users]), Some(RestoreError::OutOfOrder));
}

fn rule() -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &["get", "set", "@read", "@write", "@all", "flushall", "future"];
    let name = prop::sample::select(NAMES);
    prop_oneof![
        prop::sample::select(&["on", "off", "nopass", "resetpass", "allkeys", "resetkeys"][..])
            .prop_map(str::to_owned),
        "[><][a-c]".prop_map(|it| it),
        "~[a-c]{0,2}\\*".prop_map(|it| it),
        (any::<bool>(), name)
            .prop_map(|(plus, name)| format!("{}{name}", if plus { '+' } else { '-' })),
        prop::sample::select(&["reset"][..]).prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn whatever_was_said_the_rules_make_the_same_again(
        rules in prop::collection::vec(rule(), 0..12),
        is_default in any::<bool>(),
    ) {
        let mut user = User::default();
        for word in &rules {
            let read = Rule::parse(word.as_bytes()).expect("a rule");
            prop_assert_eq!(Rule::parse(&read.word()), Ok(read.clone()));
            user.apply(&read);
        }
        let mut again = User::default();
        user.rules().iter().for_each(|rule| again.apply(rule));
        prop_assert_eq!(&again, &user);

        let name = if is_default { "default" } else { "u" };
        let mut map = Map::new();
        for word in &rules {
            apply(&mut map, &format!("ACL SETUSER {name} {word}"));
        }
        let back = restored(&map).expect("whole");
        prop_assert_eq!(back.users(), map.users());
        prop_assert_eq!(back.digest(), map.digest());
    }

    #[test]
    fn no_bytes_panic(word in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(rule) = Rule::parse(&word) {
            prop_assert_eq!(Rule::parse(&rule.word()), Ok(rule));
        }
        let _ = read(&Command::from_args(&[b"ACL", b"SETUSER", &word, &word]));
        let mut restoring = Map::new().restoring();
        let _ = restoring.chunk(&Bytes::from([&[0, 0, 0, 5, 80, 0, 0, 0][..], &word].concat()));
    }

    /// A command is allowed by the last rule that names it, or its category.
    #[test]
    fn the_last_rule_about_a_command_decides(
        rules in prop::collection::vec(
            (any::<bool>(), prop::sample::select(&["get", "set", "@read", "@write", "@all"][..])),
            0..8,
        ),
    ) {
        let mut user = User::default();
        user.apply(&Rule::AllKeys);
        for (allow, what) in &rules {
            user.apply(&Rule::Commands { allow: *allow, what: (*what).into() });
        }
        for (line, names) in
            [("GET k", ["get", "@read", "@all"]), ("SET k v", ["set", "@write", "@all"])]
        {
            let last = rules.iter().rev().find(|(_, what)| names.contains(what));
            let expected = last.is_some_and(|(allow, _)| *allow);
            prop_assert_eq!(user.permits(&command(line)).is_ok(), expected, "{}", line);
        }
    }
}

#[test]
fn a_connection_is_who_it_says_and_hears_of_changes_at_once() {
    let users = table(&["ACL SETUSER u on >p ~a* +get"]);
    let mut it = Identity::begin(None, Arc::clone(&users));
    assert_eq!((it.name(), it.is_locked()), (DEFAULT, false));
    let denied = |it: &Identity, line: &str| {
        it.denial(&command(line)).map(|denial| denial.error_text().to_owned())
    };
    assert_eq!(denied(&it, "FLUSHALL"), None);
    assert!(!it.log_in(b"u", b"q") && !it.log_in(b"v", b"p"));
    assert_eq!(it.name(), DEFAULT, "who fails stays who it was");
    assert!(it.log_in(b"u", b"p"));
    assert_eq!(it.answer(&command("ACL WHOAMI")), Reply::bulk("u"));
    let no_key = Some("NOPERM No permissions to access a key".to_owned());
    let no =
        |name: &str| Some(format!("NOPERM User u has no permissions to run the '{name}' command"));
    assert_eq!(denied(&it, "GET ab"), None);
    assert_eq!(denied(&it, "GET b"), no_key);
    assert_eq!(denied(&it, "Set ab v"), no("set"));
    assert_eq!(denied(&it, "ACL WHOAMI"), None);
    assert_eq!(denied(&it, "ACL LIST"), no("acl"));
    assert_eq!(denied(&it, "AUTH default x"), None);

    let mut next = Users::clone(&users);
    say(&mut next, "ACL SETUSER u ~b* +set").expect("set");
    assert!(it.hear(Arc::new(next.clone())) && denied(&it, "SET b v").is_none());
    say(&mut next, "ACL SETUSER other on").expect("set");
    assert!(!it.hear(Arc::new(next.clone())), "it is about somebody else");
    say(&mut next, "ACL SETUSER u off").expect("set");
    assert!(it.hear(Arc::new(next.clone())) && it.is_locked());
    assert!(!it.log_in(b"u", b"p"), "it is off");
    say(&mut next, "ACL SETUSER u on").expect("set");
    it.hear(Arc::new(next.clone()));
    assert!(it.is_locked(), "nobody is let in again without saying so");
    assert!(it.log_in(b"u", b"p"));
    say(&mut next, "ACL DELUSER u").expect("deleted");
    it.hear(Arc::new(next.clone()));
    assert!(it.is_locked());
    it.log_out();
    assert_eq!((it.name(), it.is_locked()), (DEFAULT, false));
    say(&mut next, "ACL SETUSER default off").expect("set");
    it.hear(Arc::new(next.clone()));
    assert!(it.is_locked() && Identity::begin(None, Arc::new(next)).is_locked());
}

/// `ACL LIST` shows `default` in words that `SETUSER` takes back.
#[test]
fn a_default_without_a_password_is_told_as_that() {
    let told = |it: &Identity| match it.answer(&command("ACL LIST")) {
        Reply::Array(lines) => lines,
        other => panic!("{other:?}"),
    };
    let users = table(&["ACL SETUSER default -@admin"]);
    let mut open = Identity::begin(None, Arc::clone(&users));
    assert_eq!(told(&open), [Reply::bulk("user default on nopass ~* +@all -@admin")]);
    let again = "ACL SETUSER default on nopass ~* +@all -@admin";
    assert_eq!(open.refusal(&command(again)), None);
    assert_eq!(*table(&[again]), *users, "it takes its line back");
    assert_eq!(
        sealed(&command(again)).expect("valid"),
        command("ACL SETUSER default on ~* +@all -@admin"),
        "what is replicated says nothing of it"
    );
    open.hear(table(&[]));
    assert_eq!(told(&open), [Reply::bulk("user default on nopass ~* +@all")]);

    let it = Identity::begin(Some(Password::new(b"secret")), users);
    assert_eq!(told(&it), [Reply::bulk("user default on ~* +@all -@admin")]);
    assert!(it.refusal(&command(again)).is_some_and(|refusal| refusal.is_error()));
    for line in ["ACL SETUSER default on ~*", "ACL SETUSER u nopass", "ACL DELUSER u"] {
        assert_eq!(it.refusal(&command(line)), None, "{line}");
    }
}

#[test]
fn default_says_requirepass_and_may_do_what_the_table_says() {
    let users = table(&["ACL SETUSER default -@admin", "ACL SETUSER open on nopass"]);
    let mut it = Identity::begin(Some(Password::new(b"secret")), users);
    assert!(it.is_locked());
    assert!(!it.log_in(DEFAULT, b"x") && it.log_in(DEFAULT, b"secret"));
    assert!(it.denial(&command("ACL LIST")).is_some() && it.denial(&command("GET k")).is_none());
    assert!(it.log_in(b"open", b"whatever"));
    it.log_out();
    assert!(it.is_locked());
    for (line, expected) in [
        ("AUTH u p", true),
        ("AUTH default p", false),
        ("AUTH p", false),
        ("HELLO 3 AUTH u p", true),
        ("HELLO 3 SETNAME x AUTH u p", true),
        ("HELLO 3 AUTH default p", false),
        ("HELLO 3 AUTH", false),
        ("GET u p", false),
    ] {
        assert_eq!(names_user(&command(line)), expected, "{line}");
    }
}
