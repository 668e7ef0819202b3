//! Categories of commands, by the command table.

use crate::store::command::{Access, COMMANDS, Spec};
use crate::store::describe::{family, is_fast};
use crate::wire::reply::Reply;

/// The category of all commands.
pub(super) const ALL: &str = "@all";

/// Whether a command is in a category.
type Holds = fn(&Spec) -> bool;

/// Every category but [`ALL`], and what is in it.
const CATEGORIES: &[(&str, Holds)] = &[
    ("@admin", is_admin),
    ("@connection", is_connection),
    ("@dangerous", |spec| is_admin(spec) || matches!(spec.name, "flushall" | "flushdb" | "info")),
    ("@fast", is_fast),
    ("@hash", |spec| family(spec) == "hash"),
    ("@keyspace", |spec| {
        let is_wait = matches!(spec.name, "wait" | "waitaof");
        let of_all = matches!(spec.name, "dbsize" | "flushall" | "flushdb");
        (family(spec) == "generic" && !is_wait) || of_all
    }),
    ("@read", |spec| {
        matches!(spec.access, Access::Read | Access::AllRead | Access::Scan)
            && !is_transaction(spec)
    }),
    ("@set", |spec| family(spec) == "set"),
    ("@slow", |spec| !is_fast(spec)),
    ("@string", |spec| family(spec) == "string"),
    ("@transaction", is_transaction),
    ("@write", |spec| matches!(spec.access, Access::Write | Access::AllWrite)),
];

fn is_admin(spec: &Spec) -> bool {
    matches!(spec.name, "acl" | "backup" | "config" | "debug" | "drain" | "member" | "slowlog")
}

fn is_transaction(spec: &Spec) -> bool {
    family(spec) == "transactions"
}

fn is_connection(spec: &Spec) -> bool {
    let of_a_connection = spec.access == Access::Connection;
    let asks = matches!(spec.name, "cluster" | "wait" | "waitaof");
    (of_a_connection && !is_admin(spec) && !is_transaction(spec)) || asks
}

/// Whether there is such a category.
pub(super) fn is_known(category: &str) -> bool {
    category == ALL || CATEGORIES.iter().any(|(name, _)| *name == category)
}

/// Whether a command is in a category; nothing is in one that is not known.
pub(in crate::store) fn holds(category: &str, spec: &Spec) -> bool {
    category == ALL || CATEGORIES.iter().any(|(name, holds)| *name == category && holds(spec))
}

/// The categories that a command is in, [`ALL`] left out.
pub(in crate::store) fn of(spec: &Spec) -> impl Iterator<Item = &'static str> + use<'_> {
    CATEGORIES.iter().filter(|(_, holds)| holds(spec)).map(|(name, _)| *name)
}

/// `ACL CAT [category]`.
pub(super) fn list(category: Option<&[u8]>) -> Reply {
    let Some(category) = category else {
        let names = CATEGORIES.iter().map(|(name, _)| Reply::bulk(&name[1..]));
        return Reply::Array(names.chain([Reply::bulk(&ALL[1..])]).collect());
    };
    let name = format!("@{}", String::from_utf8_lossy(category).to_lowercase());
    if !is_known(&name) {
        let text = format!("there is no category '{}'; ACL CAT names them", &name[1..]);
        return Reply::error("ERR", text);
    }
    let inside = COMMANDS.iter().filter(|spec| holds(&name, spec));
    Reply::Array(inside.map(|spec| Reply::bulk(spec.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_but_info_and_time_is_in_a_category_that_says_what_it_does() {
        let kinds = ["@admin", "@connection", "@read", "@transaction", "@write"];
        for spec in COMMANDS {
            let found: Vec<_> = kinds.iter().filter(|kind| holds(kind, spec)).collect();
            let expected = usize::from(!matches!(spec.name, "info" | "time"));
            assert_eq!(found.len(), expected, "{} is in {found:?}", spec.name);
        }
        assert!(COMMANDS.iter().all(|spec| holds(ALL, spec) && !holds("@nosuch", spec)));
    }
}
