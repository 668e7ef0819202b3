//! One rule of `ACL SETUSER`, as it is written.

use crate::limits;
use crate::store::command;
use crate::store::password::Password;

use super::category;

/// What a rule does to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// `on`, `off`: may log in and run commands.
    On(bool),
    /// `nopass`: any password will do; those there were are forgotten.
    NoPass,
    /// `resetpass`: no password will do.
    ResetPass,
    /// `>password`, `#sha256`: this one will do, too.
    AddPassword(Password),
    /// `<password`, `!sha256`: this one will not do any more.
    RemovePassword(Password),
    /// `allkeys`, `~*`: every key.
    AllKeys,
    /// `resetkeys`: no key.
    ResetKeys,
    /// `~prefix*`: keys that begin so, too.
    Prefix(Box<[u8]>),
    /// `+command`, `-command`, or with an `@category`: without the sign, in lower case.
    Commands {
        /// It may be run.
        allow: bool,
        /// What; `@all` is everything.
        what: Box<str>,
    },
    /// `allchannels`, `resetchannels`, `&…`: there are no channels, so it does nothing.
    Channels,
    /// `reset`: as a user that was never changed.
    Reset,
}

impl Rule {
    /// Reads a rule. A command or category need not be known: a later version may have written it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(word: &[u8]) -> Result<Self, String> {
        let lower = word.to_ascii_lowercase();
        match &lower[..] {
            b"on" => return Ok(Self::On(true)),
            b"off" => return Ok(Self::On(false)),
            b"nopass" => return Ok(Self::NoPass),
            b"resetpass" => return Ok(Self::ResetPass),
            b"allkeys" | b"~*" => return Ok(Self::AllKeys),
            b"resetkeys" => return Ok(Self::ResetKeys),
            b"allcommands" => return Ok(Self::commands(true, category::ALL)),
            b"nocommands" => return Ok(Self::commands(false, category::ALL)),
            b"allchannels" | b"resetchannels" => return Ok(Self::Channels),
            b"reset" => return Ok(Self::Reset),
            _ => {}
        }
        let rest = word.get(1..).unwrap_or_default();
        match word.first() {
            Some(b'>') => Ok(Self::AddPassword(Password::new(rest))),
            Some(b'<') => Ok(Self::RemovePassword(Password::new(rest))),
            Some(sign @ (b'#' | b'!')) => {
                let password =
                    Password::from_hex(rest).ok_or("a hash is a SHA-256 in 64 hex digits")?;
                Ok(match sign {
                    b'#' => Self::AddPassword(password),
                    _ => Self::RemovePassword(password),
                })
            }
            Some(b'~') => prefix(rest).map(|prefix| Self::Prefix(prefix.into())),
            Some(b'&') => Ok(Self::Channels),
            Some(sign @ (b'+' | b'-')) => {
                let what = name(&lower[1..])?;
                Ok(Self::commands(*sign == b'+', what))
            }
            _ => Err("there is no such rule".into()),
        }
    }

    fn commands(allow: bool, what: &str) -> Self {
        Self::Commands { allow, what: what.into() }
    }

    /// The rule as it may be kept and replicated: passwords are digests.
    #[must_use]
    pub fn word(&self) -> Vec<u8> {
        let text = match self {
            Self::On(true) => "on".into(),
            Self::On(false) => "off".into(),
            Self::NoPass => "nopass".into(),
            Self::ResetPass => "resetpass".into(),
            Self::AddPassword(password) => format!("#{}", password.to_hex()),
            Self::RemovePassword(password) => format!("!{}", password.to_hex()),
            Self::AllKeys => "~*".into(),
            Self::ResetKeys => "resetkeys".into(),
            Self::Prefix(prefix) => return [b"~", &prefix[..], b"*"].concat(),
            Self::Commands { allow, what } => format!("{}{what}", if *allow { '+' } else { '-' }),
            Self::Channels => "allchannels".into(),
            Self::Reset => "reset".into(),
        };
        text.into_bytes()
    }

    /// Whether this version knows every command and category in it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        match self {
            Self::Commands { what, .. } => match what.strip_prefix('@') {
                Some(_) => category::is_known(what),
                None => command::lookup(what.as_bytes()).is_some(),
            },
            _ => true,
        }
    }
}

/// What stands before the one star, which is the last byte.
fn prefix(pattern: &[u8]) -> Result<&[u8], String> {
    const WHY: &str = "key rules are prefixes: ~<prefix>*, without any other of * ? [ ] \\";
    let prefix = pattern.strip_suffix(b"*").ok_or(WHY)?;
    if prefix.iter().any(|byte| b"*?[]\\".contains(byte)) {
        return Err(WHY.into());
    }
    if limits::KEY_BYTES_MAX < prefix.len() {
        return Err("a prefix is longer than any key may be".into());
    }
    Ok(prefix)
}

/// The name of a command or, with its `@`, of a category.
fn name(word: &[u8]) -> Result<&str, String> {
    if word.contains(&b'|') {
        return Err("rules are for whole commands, not for parts of them".into());
    }
    let bare = word.strip_prefix(b"@").unwrap_or(word);
    let is_name = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let is_one = !bare.is_empty() && bare.len() <= limits::ACL_WORD_BYTES_MAX;
    let text = std::str::from_utf8(word).ok().filter(|_| is_one && bare.iter().all(is_name));
    text.ok_or_else(|| "there is no such command or category".into())
}
