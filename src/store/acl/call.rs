//! `ACL …`, read; and what of it may be replicated.

use crate::limits;
use crate::store::command::{Access, NO_KEYS, Spec, spec};
use crate::wire::reply::Reply;
use crate::wire::resp::Command;

use super::DEFAULT;
use super::rule::Rule;

/// What the client wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// `SETUSER name rule …`: the rules, one after the other, on top of those there are.
    SetUser {
        /// Whose.
        name: Box<[u8]>,
        /// In order.
        rules: Vec<Rule>,
    },
    /// `DELUSER name …`.
    DelUser(Vec<Box<[u8]>>),
    /// `GETUSER name`.
    GetUser(Box<[u8]>),
    /// `LIST`: users with their rules, one line each.
    List,
    /// `USERS`: their names.
    Users,
    /// `WHOAMI`.
    WhoAmI,
    /// `CAT [category]`.
    Cat(Option<Box<[u8]>>),
}

/// An `ACL` command that changes the table.
pub const CHANGE: Spec = spec("acl", -2, Access::Users, NO_KEYS, "Changes who may do what.");

/// Whether this is `ACL …`.
#[must_use]
pub fn is_acl(command: &Command) -> bool {
    command.name().eq_ignore_ascii_case(b"acl") && 2 <= command.len()
}

impl Call {
    /// Whether it is one for the log.
    #[must_use]
    pub const fn changes(&self) -> bool {
        matches!(self, Self::SetUser { .. } | Self::DelUser(_))
    }
}

/// Reads an `ACL` command.
///
/// # Errors
/// If it cannot be executed as written.
pub fn read(command: &Command) -> Result<Call, Reply> {
    let word = command.arg(1).to_ascii_lowercase();
    let arity = |min: usize, max: usize| {
        if (min..=max).contains(&command.len()) {
            return Ok(());
        }
        Err(Reply::wrong_arity(&[b"acl|", &word[..]].concat()))
    };
    Ok(match &word[..] {
        b"setuser" => {
            arity(3, usize::MAX)?;
            let rules = command
                .args()
                .skip(3)
                .map(|word| Rule::parse(word).map_err(|why| wrong(word, &why)));
            Call::SetUser { name: name(command.arg(2))?, rules: rules.collect::<Result<_, _>>()? }
        }
        b"deluser" => {
            arity(3, usize::MAX)?;
            Call::DelUser(command.args().skip(2).map(name).collect::<Result<_, _>>()?)
        }
        b"getuser" => {
            arity(3, 3)?;
            Call::GetUser(command.arg(2).into())
        }
        b"list" => arity(2, 2).map(|()| Call::List)?,
        b"users" => arity(2, 2).map(|()| Call::Users)?,
        b"whoami" => arity(2, 2).map(|()| Call::WhoAmI)?,
        b"cat" => {
            arity(2, 3)?;
            Call::Cat((command.len() == 3).then(|| command.arg(2).into()))
        }
        _ => {
            let name = String::from_utf8_lossy(command.arg(1));
            let text = format!(
                "unknown subcommand '{name}'. ACL knows CAT, DELUSER, GETUSER, LIST, SETUSER, USERS, WHOAMI."
            );
            return Err(Reply::error("ERR", text));
        }
    })
}

/// The same command as it may leave the connection: read, every name in it known, and every password a
/// digest.
///
/// # Errors
/// If it cannot be executed as written.
pub fn sealed(command: &Command) -> Result<Command, Reply> {
    let Call::SetUser { name, mut rules } = read(command)? else { return Ok(command.clone()) };
    for (rule, word) in rules.iter().zip(command.args().skip(3)) {
        if !rule.is_known() {
            return Err(wrong(word, "there is no such command or category"));
        }
    }
    if *name == *DEFAULT {
        // Its password is a setting of each node. Where there is one, this was refused before.
        rules.retain(|rule| *rule != Rule::NoPass);
    }
    Ok(set_user(&name, &rules))
}

/// `ACL SETUSER` with these rules.
pub(super) fn set_user(name: &[u8], rules: &[Rule]) -> Command {
    let words: Vec<Vec<u8>> = rules.iter().map(Rule::word).collect();
    let mut args: Vec<&[u8]> = vec![b"ACL", b"SETUSER", name];
    args.extend(words.iter().map(|word| &word[..]));
    Command::from_args(&args)
}

/// The name of a user: what can be written in a line.
fn name(name: &[u8]) -> Result<Box<[u8]>, Reply> {
    let max = limits::ACL_NAME_BYTES_MAX;
    let is_plain = name.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if name.is_empty() || max < name.len() || !is_plain {
        let text = format!("a user's name has 1 to {max} printable characters and no blanks");
        return Err(Reply::error("ERR", text));
    }
    Ok(name.into())
}

fn wrong(word: &[u8], why: &str) -> Reply {
    // Whoever forgets the > in front of a password need not see it in the log of its client.
    let shown = match word.first() {
        Some(b'~' | b'%' | b'&' | b'+' | b'-' | b'(') => {
            String::from_utf8_lossy(&word[..word.len().min(64)])
        }
        _ => "(not shown)".into(),
    };
    Reply::error("ERR", format!("Error in ACL SETUSER modifier '{shown}': {why}"))
}
