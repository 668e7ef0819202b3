//! What waits to be sent to one peer: three queues in order of urgency, and what is being sent.
//!
//! ```text
//!   Control ─┐
//!   Append  ─┼─► sending: slices of whole frames ──► one vectored send
//!   Bulk    ─┘
//! ```
//!
//! A frame that has begun must end before another begins, so what is being sent is bounded
//! (`SENDING_BYTES_SOFT`): a vote never waits behind more than that (contract row 45).

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};

use crate::limits::{FRAMES_KEPT, LANE_BYTES_MAX, LANE_FRAMES_MAX};
use crate::wire::{Lane, OutFrame};

/// Frames are moved to the socket's head until this many bytes are there.
const SENDING_BYTES_SOFT: usize = 256 << 10;
/// Slices in one vectored send; the kernel takes 1024.
const SLICES_MAX: usize = 128;

/// What was dropped, for the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Frames.
    pub frames: u64,
    /// Heartbeats in them.
    pub heartbeats: u64,
}

impl Lost {
    /// This frame as well.
    pub fn note(&mut self, frame: &OutFrame) {
        self.frames += 1;
        self.heartbeats += u64::from(frame.heartbeats);
    }
}

/// How far a send got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Nothing is left.
    All,
    /// The socket takes no more for now.
    Blocked,
}

/// Where frames go: a connection that takes what it can and never waits.
pub trait Outlet {
    /// Takes what it can of `slices`; `None` when it takes nothing now.
    ///
    /// # Errors
    /// When the connection is of no more use.
    fn send(&mut self, slices: &mut [IoSlice<'_>]) -> io::Result<Option<usize>>;

    /// Whether all that was taken has left; it is tried once more.
    ///
    /// # Errors
    /// When the connection is of no more use.
    fn flush(&mut self) -> io::Result<bool>;
}

/// A socket in the clear.
#[derive(Debug)]
pub struct Plain<'a, S>(pub &'a S);

impl<S: AsFd> Outlet for Plain<'_, S> {
    fn send(&mut self, slices: &mut [IoSlice<'_>]) -> io::Result<Option<usize>> {
        loop {
            let sent = rustix::net::sendmsg(
                self.0.as_fd(),
                slices,
                &mut SendAncillaryBuffer::default(),
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            );
            match sent {
                Ok(sent) => return Ok(Some(sent)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }
}

/// The frames on their way to one peer. One per link.
#[derive(Debug, Default)]
pub struct Lanes {
    waiting: [Queue; Lane::ALL.len()],
    sending: VecDeque<Bytes>,
    sending_bytes: usize,
    /// Frames whose slices have moved to `sending`, for [`Self::take_spent`].
    spent: Vec<OutFrame>,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<OutFrame>,
    bytes: usize,
}

impl Lanes {
    /// Queue a frame in its lane.
    ///
    /// # Errors
    /// Gives the frame back when the lane is full; the peer is as good as unreachable then.
    pub fn push(&mut self, frame: OutFrame) -> Result<(), OutFrame> {
        let queue = &mut self.waiting[frame.lane as usize];
        let bytes = queue.bytes + frame.bytes();
        if LANE_FRAMES_MAX <= queue.frames.len() || LANE_BYTES_MAX < bytes {
            return Err(frame);
        }
        queue.bytes = bytes;
        queue.frames.push_back(frame);
        Ok(())
    }

    /// Frames that have nothing left but the memory of their lists.
    pub fn take_spent(&mut self) -> impl Iterator<Item = OutFrame> {
        self.spent.drain(..)
    }

    /// Whether nothing waits and nothing is being sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sending.is_empty() && self.waiting.iter().all(|queue| queue.frames.is_empty())
    }

    /// Forget everything: the connection is gone, and what was on its way must not be sent again
    /// on the next one, because the peer may have it already. What was lost is added to `lost`,
    /// frames half-sent not counted; the forwarded commands in those that had not begun to leave are
    /// added to `unsent`.
    pub fn clear(&mut self, lost: &mut Lost, unsent: &mut Vec<u64>) {
        self.sending.clear();
        self.sending_bytes = 0;
        for queue in &mut self.waiting {
            queue.frames.iter().for_each(|frame| lost.note(frame));
            unsent.extend(queue.frames.drain(..).flat_map(|frame| frame.forwards));
            queue.bytes = 0;
        }
    }

    /// Send as much as the connection takes, most urgent first, without blocking.
    ///
    /// # Errors
    /// Whatever the connection reports; the caller closes it.
    pub fn send(&mut self, to: &mut impl Outlet) -> io::Result<Sent> {
        loop {
            self.refill();
            if self.sending.is_empty() {
                return Ok(if to.flush()? { Sent::All } else { Sent::Blocked });
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.sending.len().min(SLICES_MAX);
            let mut offered = 0;
            for (slot, slice) in slices.iter_mut().zip(&self.sending) {
                offered += slice.len();
                *slot = IoSlice::new(slice);
            }
            let Some(sent) = to.send(&mut slices[..count])? else { return Ok(Sent::Blocked) };
            self.advance(sent);
            if sent < offered {
                return Ok(Sent::Blocked);
            }
        }
    }

    fn refill(&mut self) {
        for queue in &mut self.waiting {
            while self.sending_bytes < SENDING_BYTES_SOFT {
                let Some(mut frame) = queue.frames.pop_front() else { break };
                queue.bytes -= frame.bytes();
                self.sending_bytes += frame.bytes();
                self.sending.push_back(std::mem::take(&mut frame.head));
                self.sending.extend(frame.payload.drain(..));
                if self.spent.len() < FRAMES_KEPT {
                    self.spent.push(frame);
                }
            }
        }
    }

    fn advance(&mut self, mut sent: usize) {
        self.sending_bytes -= sent;
        while let Some(slice) = self.sending.front_mut() {
            if sent < slice.len() {
                slice.advance(sent);
                return;
            }
            sent -= slice.len();
            self.sending.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::id::{GroupId, NodeId, ReplicaId, Term};
    use crate::raft::message::{Message, MessageKind};
    use crate::wire::{Forward, FrameBuilder, Route};

    fn frame(lane: Lane, mark: u64, payload: &'static [u8]) -> OutFrame {
        let mut builder = FrameBuilder::new();
        let body = Bytes::from_static(payload);
        builder.forward(Forward { id: mark, group: GroupId(0), flags: 0, body });
        let route = Route {
            cluster: crate::id::ClusterId(1),
            from: NodeId(1),
            to: NodeId(2),
            incarnation: crate::id::Incarnation(1),
            shard: crate::id::ShardId(0),
        };
        builder.finish(&route, lane)
    }

    fn marks(mut stream: UnixStream) -> Vec<u64> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let mut reader = crate::wire::FrameReader::new();
        reader.feed(&bytes);
        let mut marks = Vec::new();
        while let Some(frame) = reader.next().unwrap() {
            marks.extend(frame.forwards().map(|forward| forward.id));
        }
        marks
    }

    #[test]
    fn contract_row_45_the_urgent_leave_first_and_each_lane_keeps_its_order() {
        let mut lanes = Lanes::default();
        for (lane, mark) in [
            (Lane::Bulk, 1),
            (Lane::Append, 2),
            (Lane::Control, 3),
            (Lane::Append, 4),
            (Lane::Control, 5),
        ] {
            lanes.push(frame(lane, mark, b"x")).unwrap();
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(lanes.send(&mut Plain(&ours)).unwrap(), Sent::All);
        assert!(lanes.is_empty());
        drop(ours);
        assert_eq!(marks(theirs), [3, 5, 2, 4, 1]);
    }

    #[test]
    fn a_slow_socket_gets_every_byte_once() {
        static PAYLOAD: [u8; 50_000] = [7; 50_000];
        let mut lanes = Lanes::default();
        for mark in 0..100 {
            lanes.push(frame(Lane::Append, mark, &PAYLOAD)).unwrap();
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let reading = std::thread::Builder::new().spawn(move || marks(theirs)).unwrap();
        let mut blocked = 0;
        while lanes.send(&mut Plain(&ours)).unwrap() == Sent::Blocked {
            blocked += 1;
            std::thread::yield_now();
        }
        drop(ours);
        let (mut lost, mut unsent) = (Lost::default(), Vec::new());
        lanes.clear(&mut lost, &mut unsent);
        assert_eq!((lost.frames, unsent.len()), (0, 0), "all of it was sent");
        assert!(0 < blocked, "5 MB should not fit a socket's buffer");
        assert_eq!(reading.join().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn heartbeats_that_did_not_leave_are_counted_one_by_one() {
        let mut builder = FrameBuilder::new();
        for kind in [MessageKind::Heartbeat, MessageKind::Vote, MessageKind::Heartbeat] {
            let message = Message::new(kind, ReplicaId(1), ReplicaId(2), Term(1));
            builder.message(GroupId(0), &message, []);
        }
        let route = Route {
            cluster: crate::id::ClusterId(1),
            from: NodeId(1),
            to: NodeId(2),
            incarnation: crate::id::Incarnation(1),
            shard: crate::id::ShardId(0),
        };
        let mut lanes = Lanes::default();
        lanes.push(builder.finish(&route, Lane::Control)).unwrap();
        lanes.push(frame(Lane::Append, 1, b"x")).unwrap();
        let mut lost = Lost::default();
        lanes.clear(&mut lost, &mut Vec::new());
        assert_eq!(lost, Lost { frames: 2, heartbeats: 2 });
    }

    /// Nobody reads: a send that waited would wait for ever.
    #[test]
    fn contract_row_44_sending_to_a_peer_that_never_reads_does_not_wait() {
        static PAYLOAD: [u8; 1 << 20] = [7; 1 << 20];
        let mut lanes = Lanes::default();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut taken = 0;
        while lanes.push(frame(Lane::Append, taken, &PAYLOAD)).is_ok() {
            taken += 1;
            if lanes.send(&mut Plain(&ours)).unwrap() == Sent::All {
                assert!(taken < 8, "8 MB should not fit a socket's buffer");
            }
        }
        // What the socket took, what is being sent, and the lane: bounded.
        assert!((LANE_BYTES_MAX as u64 >> 20) - 1 <= taken && taken < 48, "{taken}");
        assert_eq!(lanes.send(&mut Plain(&ours)).unwrap(), Sent::Blocked);
        drop(theirs);
    }

    #[test]
    fn contract_row_46_a_full_lane_gives_the_frame_back_and_leaves_the_others_open() {
        let mut lanes = Lanes::default();
        for mark in 0..LANE_FRAMES_MAX as u64 {
            lanes.push(frame(Lane::Append, mark, b"x")).unwrap();
        }
        assert!(lanes.push(frame(Lane::Append, 0, b"x")).is_err());
        lanes.push(frame(Lane::Control, 0, b"x")).unwrap();
        let (mut lost, mut unsent) = (Lost::default(), Vec::new());
        lanes.clear(&mut lost, &mut unsent);
        assert_eq!(lost.frames, LANE_FRAMES_MAX as u64 + 1);
        assert!(lanes.is_empty());
        assert_eq!(unsent.len(), LANE_FRAMES_MAX + 1, "each carried one forwarded command");
    }
}
