//! Who a connection is, and what it may do as that.

use std::sync::Arc;

use crate::store::password::Password;
use crate::wire::reply::Reply;
use crate::wire::resp::Command;

use super::DEFAULT;
use super::call::{self, Call};
use super::rule::Rule;
use super::user::{Denial, User};
use super::users::{self, Users};

/// One connection's user.
///
/// ```text
///   begin ─┬─ nobody has to say anything ──────────────► default
///          └─ requirepass, or `default` is off ─► locked ─ log_in ─► somebody ─ deleted, off ─► locked
/// ```
#[derive(Debug, Default)]
pub struct Identity {
    users: Arc<Users>,
    /// What `default` must say; none if it need not say anything.
    password: Option<Password>,
    /// Empty is `default`.
    name: Box<[u8]>,
    /// What it may do; none is everything.
    rules: Option<Arc<User>>,
    /// It has still to log in.
    locked: bool,
}

impl Identity {
    /// A new connection's.
    #[must_use]
    pub fn begin(password: Option<Password>, users: Arc<Users>) -> Self {
        let mut identity = Self { users, password, ..Self::default() };
        identity.log_out();
        identity
    }

    /// As it was at the beginning.
    pub fn log_out(&mut self) {
        self.name = Box::default();
        self.rules = self.users.get(DEFAULT).cloned();
        self.locked = self.password.is_some() || self.is_off();
    }

    fn is_off(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| !rules.is_on())
    }

    /// Whether it has to log in first.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Whether `default` has a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// Its user.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        if self.name.is_empty() { DEFAULT } else { &self.name }
    }

    /// Becomes `user`; whether that is right. Otherwise it stays who it was. Where `default` has no password, any will
    /// do, as in Redis.
    pub fn log_in(&mut self, user: &[u8], password: &[u8]) -> bool {
        // Judged first: an unknown name must not be answered faster.
        let offered = Password::new(password);
        let found = self.users.get(user);
        let is_it = if user == DEFAULT {
            let is_on = found.is_none_or(|user| user.is_on());
            self.password.is_none_or(|right| right.equals(&offered)) && is_on
        } else {
            found.is_some_and(|user| user.knows(&offered) && user.is_on())
        };
        if is_it {
            self.rules = found.cloned();
            self.name = if user == DEFAULT { Box::default() } else { user.into() };
            self.locked = false;
        }
        is_it
    }

    /// The table is this one now. Whether that changes what it may do.
    pub fn hear(&mut self, users: Arc<Users>) -> bool {
        self.users = users;
        if self.locked {
            return false;
        }
        let rules = self.users.get(self.name()).cloned();
        let is_gone = rules.is_none() && !self.name.is_empty();
        let changed = rules != self.rules;
        self.rules = rules;
        self.locked = is_gone || self.is_off();
        changed
    }

    /// What a command is answered with, if its user may not run it.
    #[must_use]
    pub fn denial(&self, command: &Command) -> Option<Reply> {
        self.judge(command).map(|denial| self.reply_to(denial, command))
    }

    /// What of a command its user may not do, if anything.
    #[must_use]
    pub fn judge(&self, command: &Command) -> Option<Denial> {
        let rules = self.rules.as_ref()?;
        if is_free(command) { None } else { rules.permits(command).err() }
    }

    /// What it is answered with then.
    #[must_use]
    pub fn reply_to(&self, denial: Denial, command: &Command) -> Reply {
        match denial {
            Denial::Key => Reply::error("NOPERM", "No permissions to access a key"),
            Denial::Command => {
                let (user, name) = (self.name(), command.name().to_ascii_lowercase());
                let [user, name] = [user, &name].map(String::from_utf8_lossy);
                let text = format!("User {user} has no permissions to run the '{name}' command");
                Reply::error("NOPERM", text)
            }
        }
    }

    /// What an `ACL` command that changes the table is answered with, if it is about this node's password.
    #[must_use]
    pub fn refusal(&self, command: &Command) -> Option<Reply> {
        self.password?;
        match call::read(command) {
            Ok(Call::SetUser { name, rules }) if *name == *DEFAULT => {
                rules.contains(&Rule::NoPass).then(users::of_each_node)
            }
            _ => None,
        }
    }

    /// Answers an `ACL` command that changes nothing.
    #[must_use]
    pub fn answer(&self, command: &Command) -> Reply {
        match call::read(command) {
            Ok(Call::WhoAmI) => Reply::bulk(self.name()),
            Ok(call) => self.users.answer(&call, self.password.is_none()),
            Err(refusal) => refusal,
        }
    }
}

/// What everybody may say: who they are, and goodbye.
fn is_free(command: &Command) -> bool {
    let is = |name: &str| command.name().eq_ignore_ascii_case(name.as_bytes());
    let asks_who = call::is_acl(command) && command.arg(1).eq_ignore_ascii_case(b"whoami");
    asks_who || ["auth", "hello", "quit", "reset"].into_iter().any(is)
}

/// Whether this is a login as somebody of the table.
#[must_use]
pub fn names_user(command: &Command) -> bool {
    let is = |at: usize, word: &str| command.arg(at).eq_ignore_ascii_case(word.as_bytes());
    let user = match command.len() {
        3 if is(0, "auth") => Some(1),
        len if is(0, "hello") => (2..len).find(|at| is(*at, "auth")).map(|at| at + 1),
        _ => None,
    };
    user.is_some_and(|at| at < command.len() && command.arg(at) != DEFAULT)
}
