//! The clients that are connected, on whichever core: for `CLIENT LIST`, `INFO` and `KILL`.
//!
//! ```text
//!   core 0: connections ─ enter, leave ─┐                       ┌─ list: a copy, then its lines
//!   core 1: connections ─ enter, leave ─┴─► Visitors (a lock) ──┴─ kill: a mark ─► their cores see it, and close
//! ```
//!
//! The lock is taken when a client comes and goes, and by whoever asks for the list, for as long as it takes to copy as
//! many pointers; never for a command. What a client does is told by numbers that its core writes and others read.
//!
//! Bounded by `--max-clients`: who is refused never enters.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::id::{ShardId, Tick};
use crate::limits::REPLY_BYTES_MAX;
use crate::store::clients::{self, Call, Done, Filter, Profile, Told};
use crate::store::command::Spec;
use crate::wire::reply::Reply;

use super::clock::Clock;

/// The number of no command.
const NONE: u8 = u8::MAX;

/// Everybody who is connected. One per node.
#[derive(Debug)]
pub struct Visitors {
    clock: Clock,
    /// The number of the last one.
    last: AtomicU64,
    /// How often somebody was marked.
    kills: AtomicU64,
    inside: Mutex<BTreeMap<u64, Arc<Visitor>>>,
}

/// One client, as others see it.
#[derive(Debug)]
struct Visitor {
    profile: Profile,
    since: Tick,
    /// When something last came from it, in ms.
    heard_at: AtomicU64,
    /// The number of its last command, or [`NONE`].
    command: AtomicU8,
    /// Its core is to close it.
    must_leave: AtomicBool,
    told: Mutex<Told>,
}

impl Visitors {
    /// Nobody yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let (last, kills) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { clock, last, kills, inside: Mutex::default() }
    }

    /// A client has come to a core.
    #[must_use]
    pub fn enter(
        self: &Arc<Self>,
        core: ShardId,
        address: SocketAddr,
        local: Option<SocketAddr>,
    ) -> Guest {
        let (id, now) = (1 + self.last.fetch_add(1, Ordering::Relaxed), self.clock.now());
        let visitor = Arc::new(Visitor {
            profile: Profile { id, address, local, core: core.0 },
            since: now,
            heard_at: AtomicU64::new(now.0),
            command: AtomicU8::new(NONE),
            must_leave: AtomicBool::new(false),
            told: Mutex::default(),
        });
        self.inside().insert(id, Arc::clone(&visitor));
        Guest { visitor, visitors: Arc::clone(self) }
    }

    /// Rises when somebody is to be closed: then each core looks whether it is one of its own.
    #[must_use]
    pub fn kills(&self) -> u64 {
        self.kills.load(Ordering::Acquire)
    }

    fn inside(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Visitor>>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is meant, in the order in which they came.
    fn find(&self, filter: &Filter, asks: u64) -> Vec<Arc<Visitor>> {
        let mut found: Vec<_> = self.inside().values().cloned().collect();
        found.retain(|it| filter.fits(&it.profile, &it.told(), asks));
        found
    }

    fn list(&self, filter: &Filter, asks: u64) -> Reply {
        let (mut text, now) = (String::new(), self.clock.now());
        for visitor in self.find(filter, asks) {
            visitor.line(now, &mut text);
            if REPLY_BYTES_MAX < text.len() {
                let why = format!(
                    "the list exceeds {REPLY_BYTES_MAX} bytes: ask for some, CLIENT LIST ID id [id ...]"
                );
                return Reply::error("ERR", why);
            }
        }
        Reply::Verbatim(text)
    }
}

impl Visitor {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, now: Tick, text: &mut String) {
        let heard_at = Tick(self.heard_at.load(Ordering::Relaxed));
        let command = self.command.load(Ordering::Relaxed);
        let done = Done {
            age_s: now.since(self.since) / 1000,
            idle_s: now.since(heard_at) / 1000,
            command: (command != NONE).then_some(command),
        };
        clients::line(&self.profile, &self.told(), &done, text);
    }
}

/// A connection's place among [`Visitors`]; given up when it is dropped.
#[derive(Debug)]
pub struct Guest {
    visitor: Arc<Visitor>,
    visitors: Arc<Visitors>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.visitors.inside().remove(&self.id());
    }
}

impl Guest {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.visitor.profile.id
    }

    /// Something has come from it.
    pub fn heard(&self, now: Tick) {
        self.visitor.heard_at.store(now.0, Ordering::Relaxed);
    }

    /// It has said this command.
    pub fn ran(&self, spec: &Spec) {
        let number = clients::number(spec).unwrap_or(NONE);
        self.visitor.command.store(number, Ordering::Relaxed);
    }

    /// What it says of itself is this now.
    pub fn tell(&self, told: Told) {
        *self.visitor.told() = told;
    }

    /// Whether somebody wants it closed.
    #[must_use]
    pub fn must_leave(&self) -> bool {
        self.visitor.must_leave.load(Ordering::Acquire)
    }

    /// What it is answered, and whether it is to be closed after that.
    #[must_use]
    pub fn answer(&self, call: &Call) -> (Reply, bool) {
        let Self { visitor, visitors } = self;
        match call {
            Call::Info => {
                let mut text = String::new();
                visitor.line(visitors.clock.now(), &mut text);
                (Reply::Verbatim(text), false)
            }
            Call::List(filter) => (visitors.list(filter, self.id()), false),
            Call::Kill(filter) => {
                let (count, is_self) = self.kill(visitors.find(filter, self.id()));
                (Reply::Int(count), is_self)
            }
            Call::KillOne(address) => {
                let mut found = visitors.find(&Filter::default(), self.id());
                found.retain(|it| it.profile.address == *address);
                match self.kill(found) {
                    (0, _) => (Reply::error("ERR", "No such client"), false),
                    (_, is_self) => (Reply::Ok, is_self),
                }
            }
        }
    }

    /// Marks them for their cores to close; who asks is closed by itself, after the answer. How many, and whether that is
    /// among them.
    fn kill(&self, found: Vec<Arc<Visitor>>) -> (i64, bool) {
        let (mut count, mut is_self) = (0, false);
        for it in found {
            if it.profile.id == self.id() {
                is_self = true;
            } else if it.must_leave.swap(true, Ordering::AcqRel) {
                continue;
            }
            count += 1;
        }
        self.visitors.kills.fetch_add(1, Ordering::Release);
        (count, is_self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::command;
    use crate::wire::resp::Command;

    fn ask(guest: &Guest, line: &str) -> (Reply, bool) {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        guest.answer(&clients::read(&Command::from_args(&args)).unwrap().expect("a call"))
    }

    fn lines(reply: &Reply) -> Vec<String> {
        let Reply::Verbatim(text) = reply else { panic!("{reply:?}") };
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn who_is_inside_is_listed_and_who_leaves_is_not() {
        let visitors = Arc::new(Visitors::new(Clock::start()));
        let enter = |core, port| {
            let address = SocketAddr::from(([10, 0, 0, 9], port));
            visitors.enter(ShardId(core), address, None)
        };
        let (one, two, three) = (enter(0, 1), enter(1, 2), enter(1, 3));
        two.ran(command::lookup(b"get").unwrap());
        two.tell(Told { name: (*b"me").into(), ..Told::default() });
        two.heard(visitors.clock.now().plus(2_000));
        let list = lines(&ask(&one, "CLIENT LIST").0);
        let ids: Vec<_> = list.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(ids, ["id=1", "id=2", "id=3"]);
        assert!(list[1].contains(" name=me ") && list[1].contains(" cmd=get "), "{}", list[1]);
        assert!(list[1].ends_with(" core=1") && list[0].contains(" addr=10.0.0.9:1 "));
        assert_eq!(lines(&ask(&two, "CLIENT INFO").0), list[1..2]);

        let kills = visitors.kills();
        assert_eq!(ask(&one, "CLIENT KILL ID 2"), (Reply::Int(1), false));
        assert!(two.must_leave() && !three.must_leave() && kills < visitors.kills());
        assert_eq!(ask(&one, "CLIENT KILL ID 2"), (Reply::Int(0), false), "it is on its way");
        assert_eq!(ask(&one, "CLIENT KILL 10.0.0.9:3"), (Reply::Ok, false));
        drop((two, three));
        assert!(ask(&one, "CLIENT KILL 10.0.0.9:3").0.is_error());
        assert_eq!(lines(&ask(&one, "CLIENT LIST").0).len(), 1);
        assert_eq!(ask(&one, "CLIENT KILL USER default"), (Reply::Int(0), false));
        assert_eq!(ask(&one, "CLIENT KILL USER default SKIPME no"), (Reply::Int(1), true));
        assert!(!one.must_leave(), "it closes itself, after the answer");
        assert_eq!(enter(0, 4).id(), 4, "no number is used twice");
    }
}
