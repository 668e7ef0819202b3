//! One user: how it logs in, and what it may do.

use std::collections::BTreeSet;

use crate::limits;
use crate::store::clients;
use crate::store::command::{self, Access, COMMANDS};
use crate::store::password::Password;
use crate::store::session;
use crate::wire::resp::Command;

use super::category;
use super::rule::Rule;

/// Why a user may not run a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// Not this one.
    Command,
    /// Not on these keys.
    Key,
}

/// One user. Whoever has not been given anything may do nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    is_on: bool,
    /// Any password will do; `passwords` is empty then.
    nopass: bool,
    passwords: BTreeSet<Password>,
    /// Every key; `prefixes` is empty then.
    all_keys: bool,
    prefixes: BTreeSet<Box<[u8]>>,
    /// What may and what may not be run, in the order in which it was said; nothing at first. Each name
    /// is there once, and `@all` only as the first. They are kept as said, whether or not this version knows them:
    /// replicas of different versions keep the same.
    commands: Vec<(bool, Box<str>)>,
    /// What `commands` comes to by this version's table.
    allowed: Allowed,
}

impl User {
    /// One who may do everything, without a password.
    #[must_use]
    pub fn everything() -> Self {
        let mut user = Self::default();
        let all = Rule::Commands { allow: true, what: category::ALL.into() };
        for rule in [Rule::On(true), Rule::NoPass, Rule::AllKeys, all] {
            user.apply(&rule);
        }
        user
    }

    /// The rule takes effect.
    pub fn apply(&mut self, rule: &Rule) {
        match rule {
            Rule::On(is_on) => self.is_on = *is_on,
            Rule::NoPass => {
                self.nopass = true;
                self.passwords.clear();
            }
            Rule::ResetPass => {
                self.nopass = false;
                self.passwords.clear();
            }
            Rule::AddPassword(password) => {
                self.nopass = false;
                self.passwords.insert(*password);
            }
            Rule::RemovePassword(password) => _ = self.passwords.remove(password),
            Rule::AllKeys => {
                self.all_keys = true;
                self.prefixes.clear();
            }
            Rule::ResetKeys => {
                self.all_keys = false;
                self.prefixes.clear();
            }
            // Whoever may use every key may use these, too.
            Rule::Prefix(_) if self.all_keys => {}
            Rule::Prefix(prefix) => _ = self.prefixes.insert(prefix.clone()),
            Rule::Commands { allow, what } => {
                if &**what == category::ALL {
                    self.commands.clear();
                } else {
                    self.commands.retain(|(_, it)| it != what);
                }
                if *allow || &**what != category::ALL {
                    self.commands.push((*allow, what.clone()));
                }
                self.allowed = Allowed::by(&self.commands);
            }
            Rule::Channels => {}
            Rule::Reset => *self = Self::default(),
        }
    }

    /// Whether it may log in, and stay.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether this is a password of it. It is compared with all of them, however early one fits.
    #[must_use]
    pub fn knows(&self, offered: &Password) -> bool {
        let fits = |found: bool, password: &Password| found | password.equals(offered);
        self.passwords.iter().fold(self.nopass, fits)
    }

    /// Whether it may run this command, which need not be valid.
    ///
    /// # Errors
    /// Why not.
    pub fn permits(&self, command: &Command) -> Result<(), Denial> {
        // What is not known is refused as that.
        let Some(at) = command::position(command.name()) else { return Ok(()) };
        if !self.allowed.has(at) {
            return Err(Denial::Command);
        }
        // Who the others are is for those who may look at the node itself.
        let looks = || command::position(b"config").is_none_or(|at| self.allowed.has(at));
        if clients::is_about_others(command) && !looks() {
            return Err(Denial::Command);
        }
        if session::is_session(command) && 5 < command.len() {
            let inner: Vec<&[u8]> = command.args().skip(5).collect();
            return self.permits(&Command::from_args(&inner));
        }
        let spec = &COMMANDS[at];
        if self.all_keys {
            return Ok(());
        }
        let on_all = matches!(spec.access, Access::AllRead | Access::AllWrite | Access::Scan);
        if on_all || spec.name == "backup" {
            return Err(Denial::Key);
        }
        let mut keys = spec.keys(command.len()).filter(|at| *at < command.len());
        let is_free = |key: &[u8]| self.prefixes.iter().any(|prefix| key.starts_with(prefix));
        if keys.all(|at| is_free(command.arg(at))) { Ok(()) } else { Err(Denial::Key) }
    }

    /// Rules that make the same of one that has none.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        let mut rules = vec![Rule::On(self.is_on)];
        rules.extend(self.nopass.then_some(Rule::NoPass));
        rules.extend(self.passwords.iter().copied().map(Rule::AddPassword));
        rules.extend(self.all_keys.then_some(Rule::AllKeys));
        rules.extend(self.prefixes.iter().cloned().map(Rule::Prefix));
        let command =
            |(allow, what): &(bool, Box<str>)| Rule::Commands { allow: *allow, what: what.clone() };
        let none = (false, category::ALL.into());
        let has_all = self.commands.first().is_some_and(|(_, what)| &**what == category::ALL);
        rules.extend((!has_all).then(|| command(&none)));
        rules.extend(self.commands.iter().map(command));
        rules
    }

    /// Whether it is within the bounds of a user.
    #[must_use]
    pub fn fits(&self) -> bool {
        let parts = self.passwords.len() + self.prefixes.len() + self.commands.len();
        let bytes: usize = self.rules().iter().map(|rule| rule.word().len()).sum();
        parts <= limits::ACL_RULES_MAX && bytes <= limits::ACL_USER_BYTES_MAX
    }
}

const WORDS: usize = COMMANDS.len().div_ceil(64);

/// A bit for each command of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Allowed([u64; WORDS]);

impl Allowed {
    fn by(commands: &[(bool, Box<str>)]) -> Self {
        let mut allowed = Self::default();
        for (allow, what) in commands {
            for (at, spec) in COMMANDS.iter().enumerate() {
                if **what == *spec.name || category::holds(what, spec) {
                    let (word, bit) = (&mut allowed.0[at / 64], 1 << (at % 64));
                    *word = if *allow { *word | bit } else { *word & !bit };
                }
            }
        }
        allowed
    }

    const fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }
}
