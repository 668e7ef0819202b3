//! Users: who may run which commands on which keys.
//!
//! ```text
//!   ACL SETUSER … ─► read, sealed ─► entry of group 0 ─► Map ─► Users ─► every core of every node
//!                    (no password       (as any write)           │
//!                     leaves here)                               ▼
//!                                               Identity of a connection ─► each of its commands
//! ```
//!
//! The table is part of the machine of group 0 (docs/decisions/0018), so it is replicated, kept and restored as
//! keys are. Every node that belongs to that group has it; connections are judged where they are, by what
//! their node has applied.
//!
//! Until somebody changes a user there is only `default`, who may do everything, and nothing is looked at.
//!
//! # Rules
//!
//! `on` `off` · `>password` `<password` `#sha256` `!sha256` `nopass` `resetpass` · `~prefix*` `allkeys` `resetkeys` ·
//! `+command` `-command` `+@category` `-@category` `allcommands` `nocommands` · `reset`

mod call;
mod category;
mod identity;
mod rule;
#[cfg(test)]
mod tests;
mod user;
mod users;

use crate::id::GroupId;

pub use call::{CHANGE, Call, is_acl, read, sealed};
pub(super) use category::{holds as category_holds, of as categories_of};
pub use identity::{Identity, names_user};
pub use rule::Rule;
pub use user::{Denial, User};
pub use users::Users;

/// The group whose machine keeps the users.
pub const GROUP: GroupId = GroupId(0);

/// The user that a connection is before it says another, in Redis' word.
pub const DEFAULT: &[u8] = b"default";
