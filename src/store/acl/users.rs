//! The table of users. One per cluster, in the machine of group 0; a copy at every node.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits;
use crate::wire::reply::Reply;
use crate::wire::resp::Command;

use super::call::{self, Call};
use super::rule::Rule;
use super::user::User;
use super::{DEFAULT, category};

/// All users. Bounded by [`limits::ACL_USERS_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Users {
    /// By name; `default` only if it may not do everything.
    named: BTreeMap<Box<[u8]>, Arc<User>>,
}

impl Users {
    /// The user with this name; none if there is no such user, and for a `default` that may do
    /// everything.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.named.get(name)
    }

    /// Whether nobody was ever given less than everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// Executes a call that changes the table.
    ///
    /// # Errors
    /// If it cannot be executed; nothing has changed then.
    pub fn apply(&mut self, call: &Call) -> Result<Reply, Reply> {
        match call {
            Call::SetUser { name, rules } => self.set(name, rules).map(|()| Reply::Ok),
            Call::DelUser(names) => {
                if names.iter().any(|name| **name == *DEFAULT) {
                    return Err(Reply::error("ERR", "The 'default' user cannot be removed"));
                }
                let gone = names.iter().filter(|name| self.named.remove(*name).is_some());
                Ok(Reply::Int(gone.count() as i64))
            }
            _ => Err(Reply::error("ERR", "this ACL command changes nothing")),
        }
    }

    fn set(&mut self, name: &[u8], rules: &[Rule]) -> Result<(), Reply> {
        let is_default = name == DEFAULT;
        let is_new = !is_default && !self.named.contains_key(name);
        if is_new && limits::ACL_USERS_MAX <= self.named.len() {
            let max = limits::ACL_USERS_MAX;
            return Err(Reply::error(
                "ERR",
                format!("there are {max} users, as many as there may be"),
            ));
        }
        let is_of_password = |rule: &Rule| {
            matches!(
                rule,
                Rule::NoPass | Rule::ResetPass | Rule::AddPassword(_) | Rule::RemovePassword(_)
            )
        };
        if is_default && rules.iter().any(is_of_password) {
            return Err(of_each_node());
        }
        let mut user = match self.named.get(name) {
            Some(user) => User::clone(user),
            None if is_default => User::everything(),
            None => User::default(),
        };
        rules.iter().for_each(|rule| user.apply(rule));
        if is_default {
            // Its password is not of this table.
            user.apply(&Rule::NoPass);
        }
        if !user.fits() {
            let (rules, bytes) = (limits::ACL_RULES_MAX, limits::ACL_USER_BYTES_MAX);
            let text = format!("a user has at most {rules} rules and {bytes} bytes of them");
            return Err(Reply::error("ERR", text));
        }
        if is_default && user == User::everything() {
            self.named.remove(name);
        } else {
            self.named.insert(name.into(), Arc::new(user));
        }
        Ok(())
    }

    /// Answers a call that changes nothing and is not about whoever asks. `open` is whether `default` has no
    /// password at this node.
    #[must_use]
    pub fn answer(&self, call: &Call, open: bool) -> Reply {
        match call {
            Call::GetUser(name) => match self.all().find(|(it, _)| **it == **name) {
                Some((name, user)) => describe(name, &user, open),
                None => Reply::Nil,
            },
            Call::List => {
                Reply::Array(self.all().map(|(name, user)| line(name, &user, open)).collect())
            }
            Call::Users => Reply::Array(self.all().map(|(name, _)| Reply::bulk(name)).collect()),
            Call::Cat(category) => category::list(category.as_deref()),
            _ => Reply::error("ERR", "this ACL command is not answered from the table"),
        }
    }

    /// Everybody by name, `default` whatever it may do.
    fn all(&self) -> impl Iterator<Item = (&[u8], Arc<User>)> {
        let mut all: BTreeMap<&[u8], Arc<User>> =
            self.named.iter().map(|(name, user)| (&**name, Arc::clone(user))).collect();
        all.entry(DEFAULT).or_insert_with(|| Arc::new(User::everything()));
        all.into_iter()
    }

    /// Commands that make the same table of an empty one.
    pub fn commands(&self) -> impl Iterator<Item = Command> {
        self.named.iter().map(|(name, user)| {
            let rules: Vec<Rule> =
                [Rule::Reset].into_iter().chain(shown(name, user, false)).collect();
            call::set_user(name, &rules)
        })
    }

    /// Takes back one of those commands; whether it is one.
    pub fn restore(&mut self, command: Command) -> bool {
        match call::read(&command) {
            Ok(Call::SetUser { name, rules }) => {
                !self.named.contains_key(&name) && self.set(&name, &rules).is_ok()
            }
            _ => false,
        }
    }
}

/// The rules of a user that are of this table; and that `default` has no password, if it is `open`.
fn shown(name: &[u8], user: &User, open: bool) -> impl Iterator<Item = Rule> + use<> {
    let is_elsewhere = name == DEFAULT && !open;
    user.rules().into_iter().filter(move |rule| !(is_elsewhere && *rule == Rule::NoPass))
}

/// What a rule for the password of `default` is refused with.
pub(super) fn of_each_node() -> Reply {
    Reply::error("ERR", "the password of 'default' is requirepass, a setting of each node")
}

fn text(rules: impl Iterator<Item = Rule>) -> Vec<u8> {
    rules.map(|rule| rule.word()).collect::<Vec<_>>().join(&b' ')
}

/// A line of `ACL LIST`.
fn line(name: &[u8], user: &User, open: bool) -> Reply {
    Reply::bulk([b"user ", name, b" ", &text(shown(name, user, open))].concat())
}

/// `ACL GETUSER`.
fn describe(name: &[u8], user: &User, open: bool) -> Reply {
    let rules: Vec<Rule> = shown(name, user, open).collect();
    let of = |wanted: fn(&Rule) -> bool| rules.iter().filter(move |rule| wanted(rule)).cloned();
    let flags = of(|rule| matches!(rule, Rule::On(_) | Rule::NoPass));
    let passwords = of(|rule| matches!(rule, Rule::AddPassword(_)));
    let commands = of(|rule| matches!(rule, Rule::Commands { .. }));
    let keys = of(|rule| matches!(rule, Rule::AllKeys | Rule::Prefix(_)));
    Reply::Map(vec![
        (Reply::bulk("flags"), Reply::Set(flags.map(|rule| Reply::bulk(rule.word())).collect())),
        (
            Reply::bulk("passwords"),
            Reply::Array(passwords.map(|rule| Reply::bulk(&rule.word()[1..])).collect()),
        ),
        (Reply::bulk("commands"), Reply::bulk(text(commands))),
        (Reply::bulk("keys"), Reply::bulk(text(keys))),
    ])
}
