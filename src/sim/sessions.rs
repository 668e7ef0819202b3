//! Clients that write in sessions: whatever happens, they send a request again, through any node and
//! under its number, until they know its result. What they did is in the history once.
//!
//! ```text
//!           ┌──── closed, -NOSESSION: lost ────────┐
//!           ▼                                      │
//!   no session ── OPEN ──► idle ── RUN id seq ──► outstanding ──┐
//!                           ▲                     │   ▲         │ UNCERTAIN, closed,
//!                           └──── a result ───────┘   └─────────┘ impatience: again
//! ```

use crate::id::GroupId;
use crate::store::slot;
use crate::wire::reply::Reply;
use crate::wire::resp::Command;

use super::clients::{Effects, What};
use super::safety::Checked;
use super::workload::{self, Call, Heard};
use super::world::World;

/// So many times a client of a world may not hear that its session is open, or closed: it hangs up, or is told that only some
/// groups have done it. That leaves one behind in the others, and a snapshot of many would not fit the small segments
/// that worlds have (seeds 7000848 and 9002746, of 24 minutes). From then on who has no session does without.
const SESSIONS_ADRIFT_MAX: u32 = 1_000;

/// What a client keeps.
#[derive(Debug, Default)]
pub(super) struct InSession {
    /// Its session, if one is open.
    id: Option<i64>,
    /// The last number it gave to a request.
    seq: i64,
    outstanding: Option<Outstanding>,
}

/// A request whose result its client does not know.
#[derive(Debug)]
struct Outstanding {
    seq: i64,
    command: Command,
    effects: Effects,
    attempts: u32,
    /// Attempts that were neither answered nor given up.
    under_way: u32,
    /// Some attempt may have been executed.
    is_uncertain: bool,
}

/// What a client waits to hear.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    /// The id of a new session.
    Open,
    /// That its session is closed.
    Close,
    /// The result of an attempt at this request.
    Attempt(i64),
}

impl World {
    fn in_session(&mut self, client: usize) -> &mut InSession {
        self.clients[client].in_session.as_mut().expect("asked only about those that are")
    }

    /// The groups of the request whose result a client does not know.
    pub(super) fn groups_waited_for(&self, client: usize) -> Option<Vec<GroupId>> {
        let outstanding = self.clients[client].in_session.as_ref()?.outstanding.as_ref()?;
        let places = &outstanding.effects.places;
        if places.is_empty() {
            // CLIENT SESSION RUN id seq NAME key: one key, which expires.
            let key = outstanding.command.args().nth(6)?;
            return Some(vec![slot::key_group(key, self.options.groups)]);
        }
        Some(places.iter().map(|&(key, _)| self.workload.group(key)).collect())
    }

    /// A client that writes in sessions thinks of something.
    pub(super) fn call_in_session(&mut self, client: usize, node: usize) {
        let it = self.in_session(client);
        let (id, is_outstanding) = (it.id, it.outstanding.is_some());
        if id.is_none() && self.sessions_adrift < SESSIONS_ADRIFT_MAX {
            self.sessions_adrift += 1;
            let open = Command::from_args(&[b"CLIENT", b"SESSION", b"OPEN"]);
            return self.ask(client, node, open, Asked::Open);
        }
        if is_outstanding {
            return self.attempt(client, node);
        }
        if let Some(id) = id
            && self.rng.u32(..100) == 0
        {
            let id = id.to_string();
            let close = Command::from_args(&[b"CLIENT", b"SESSION", b"CLOSE", id.as_bytes()]);
            return self.ask(client, node, close, Asked::Close);
        }
        let call = self.workload.next(client, false, self.now, &mut self.rng);
        let Some(id) = id.filter(|_| call.is_for_sessions()) else {
            self.call(client, node, call);
            return;
        };
        let Call { command, acts } = call;
        let effects = self.note_call(client, acts);
        // Numbers ascend; nobody says that they must follow one another.
        let step = self.rng.i64(1..=3);
        let it = self.in_session(client);
        it.seq += step;
        let (id, seq) = (id.to_string(), it.seq.to_string());
        let head: [&[u8]; 5] = [b"CLIENT", b"SESSION", b"RUN", id.as_bytes(), seq.as_bytes()];
        let args: Vec<&[u8]> = head.into_iter().chain(command.args()).collect();
        let command = Command::from_args(&args);
        let seq = it.seq;
        it.outstanding = Some(Outstanding {
            seq,
            command,
            effects,
            attempts: 0,
            under_way: 0,
            is_uncertain: false,
        });
        self.attempt(client, node);
    }

    /// Sends the outstanding request of a client, again or for the first time.
    pub(super) fn attempt(&mut self, client: usize, node: usize) {
        let Some(outstanding) = &mut self.in_session(client).outstanding else { return };
        outstanding.attempts += 1;
        outstanding.under_way += 1;
        let (command, asked) = (outstanding.command.clone(), Asked::Attempt(outstanding.seq));
        self.ask(client, node, command, asked);
    }

    fn ask(&mut self, client: usize, node: usize, command: Command, asked: Asked) {
        let most = 3_000 * self.options.request_ms;
        // Some hang up soon, while the node still works for them: then two attempts are under way.
        let patience = if self.rng.u32(..4) == 0 { self.rng.u64(500..most / 10) } else { most };
        self.send_command(client, node, command, What::Session(asked), patience);
    }

    /// A client hears about its session, or that its connection was closed.
    pub(super) fn on_session_reply(
        &mut self,
        client: usize,
        asked: Asked,
        reply: Option<&Reply>,
    ) -> Checked {
        match (asked, reply) {
            (Asked::Open, Some(Reply::Int(id))) => {
                self.sessions_adrift -= 1;
                let it = self.in_session(client);
                it.id = Some(*id);
                it.seq = 0;
            }
            (Asked::Open, Some(reply)) if !reply.is_error() => {
                return Err(format!("{reply:?} is no answer to CLIENT SESSION OPEN"));
            }
            (Asked::Open, _) => self.clients[client].home = self.any_node(),
            // Some do not notice that they have closed it, and are told when they use it again.
            (Asked::Close, reply) => {
                self.sessions_adrift += u32::from(reply.is_none_or(Reply::is_error));
                if self.rng.bool() {
                    self.in_session(client).id = None;
                }
            }
            (Asked::Attempt(seq), reply) => return self.on_attempt(client, seq, reply),
        }
        Ok(())
    }

    fn on_attempt(&mut self, client: usize, seq: i64, reply: Option<&Reply>) -> Checked {
        let it = self.in_session(client);
        let Some(mut outstanding) = it.outstanding.take_if(|it| it.seq == seq) else {
            // Another attempt was answered before.
            return Ok(());
        };
        let text = reply.map_or("", Reply::error_text);
        if text.contains("numbers must ascend") {
            return Err(format!("client {client} never went past request {seq}: {text}"));
        }
        // Also within an UNCERTAIN, when only some groups have lost it.
        let is_lost = text.contains("NOSESSION");
        if is_lost {
            it.id = None;
        }
        let heard = match reply {
            Some(reply) => workload::hear(&outstanding.effects.acts, reply)?,
            None => Heard::Unknown,
        };
        // What this attempt did not do, another may still do.
        outstanding.under_way -= 1;
        outstanding.is_uncertain |= heard == Heard::Unknown || outstanding.under_way > 0;
        match heard {
            Heard::Done(answers) => {
                self.outcome.retried += u64::from(outstanding.attempts > 1);
                self.on_done(&outstanding.effects, answers);
            }
            _ if is_lost && outstanding.is_uncertain => self.on_unknown(&outstanding.effects),
            // No attempt was executed: some give up, and then it must never be seen.
            Heard::NotExecuted if !outstanding.is_uncertain && (is_lost || self.rng.bool()) => {
                self.on_not_executed(client, &outstanding.effects);
            }
            Heard::NotExecuted | Heard::Unknown => {
                self.clients[client].home = self.any_node();
                self.in_session(client).outstanding = Some(outstanding);
            }
        }
        Ok(())
    }
}
