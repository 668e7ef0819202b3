//! One connection's commands in order: replies leave in the order the commands came, whatever
//! order the groups answer in.

use std::collections::VecDeque;

use crate::wire::reply::Reply;

#[derive(Debug)]
struct Slot {
    write: bool,
    reply: Option<Reply>,
}

/// One per connection; the driver stops reading at `limits::PIPELINE_MAX`.
#[derive(Debug, Default)]
pub struct Pipeline {
    /// The number of `slots[0]`.
    first: u64,
    slots: VecDeque<Slot>,
    writes_outstanding: usize,
    /// Bytes of replies that are here and have not left.
    reply_bytes: usize,
}

impl Pipeline {
    /// No commands yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next command went to the shard; its reply comes with the number returned.
    pub fn push(&mut self, write: bool) -> u64 {
        self.writes_outstanding += usize::from(write);
        self.slots.push_back(Slot { write, reply: None });
        self.first + self.slots.len() as u64 - 1
    }

    /// The next command was answered by the connection itself.
    pub fn push_done(&mut self, reply: Reply) {
        self.reply_bytes += reply.bytes();
        self.slots.push_back(Slot { write: false, reply: Some(reply) });
    }

    /// The reply to command `seq`; an unknown number (answered before) is ignored.
    pub fn complete(&mut self, seq: u64, reply: Reply) {
        let Some(offset) = seq.checked_sub(self.first) else { return };
        let Some(slot) = self.slots.get_mut(offset as usize) else { return };
        if slot.reply.is_none() {
            self.writes_outstanding -= usize::from(slot.write);
            self.reply_bytes += reply.bytes();
            slot.reply = Some(reply);
        }
    }

    /// The next reply to send, if the command whose turn it is has one.
    #[expect(
        clippy::should_implement_trait,
        reason = "it yields what is ready now, and more later"
    )]
    pub fn next(&mut self) -> Option<Reply> {
        self.slots.front()?.reply.as_ref()?;
        self.first += 1;
        let reply = self.slots.pop_front()?.reply?;
        self.reply_bytes -= reply.bytes();
        Some(reply)
    }

    /// Bytes of replies that wait for their turn or for the socket.
    #[must_use]
    pub fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    /// Whether [`Self::next`] has a reply.
    #[must_use]
    pub fn has_next(&self) -> bool {
        self.slots.front().is_some_and(|slot| slot.reply.is_some())
    }

    /// Whether a write of this connection is not answered yet: a read that follows must see it.
    #[must_use]
    pub fn writes_outstanding(&self) -> bool {
        self.writes_outstanding > 0
    }

    /// Commands whose reply has not left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Every reply has left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_leave_in_command_order() {
        let mut pipeline = Pipeline::new();
        let set = pipeline.push(true);
        let get = pipeline.push(false);
        pipeline.push_done(Reply::Simple("PONG"));
        assert!(pipeline.writes_outstanding());
        pipeline.complete(get, Reply::Int(2));
        assert_eq!(pipeline.next(), None, "a later reply overtook an earlier command");
        pipeline.complete(set, Reply::Ok);
        assert!(!pipeline.writes_outstanding());
        assert_eq!(pipeline.next(), Some(Reply::Ok));
        assert_eq!(pipeline.next(), Some(Reply::Int(2)));
        assert!(pipeline.reply_bytes() > 0);
        assert_eq!(pipeline.next(), Some(Reply::Simple("PONG")));
        assert_eq!(pipeline.reply_bytes(), 0);
        assert_eq!(pipeline.next(), None);
        let later = pipeline.push(false);
        assert_eq!(later, 3);
        pipeline.complete(set, Reply::Int(9));
        assert_eq!(pipeline.next(), None, "a stale reply was taken for a new command");
        assert_eq!(pipeline.len(), 1);
    }
}
