//! Every bound in the system, and why they agree with one another.
//!
//! Past a bound the caller gets a refusal that names it; nothing grows, nothing hangs.

/// Largest command a client may send, in bytes, as encoded on the socket. It is also the largest
/// entry payload.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;
/// Largest value, in bytes: a command less room for its name, key and options.
pub const VALUE_BYTES_MAX: usize = COMMAND_BYTES_MAX - KEY_BYTES_MAX - 1024;
/// Largest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Most fields of one hash, and members of one set.
pub const COLLECTION_PARTS_MAX: usize = 4 << 20;
/// Parts of a hash or set that one call of `HSCAN` or `SSCAN` may return whatever its `COUNT`; with more of them their order by
/// hash is kept.
pub const COLLECTION_FEW_MAX: usize = 512;
/// Most arguments in one command.
pub const COMMAND_ARGS_MAX: usize = 64 << 10;
/// Buffers that the kernel may fill for the clients of one core in one turn, if they send that much; a power of two.
pub const RECEIVE_BUFFERS: u16 = 8;
/// Bytes of each.
pub const RECEIVE_BUFFER_BYTES: usize = 64 << 10;
/// What a client may still send after an error that ends its connection, in bytes, so that it comes to read the error.
pub const LINGER_BYTES_MAX: usize = 64 << 20;
/// And for how long, in ms.
pub const LINGER_MS_MAX: u64 = 5_000;
/// Longest inline (non-RESP) command line, in bytes, as Redis has it.
pub const INLINE_BYTES_MAX: usize = 64 << 10;

/// Most users.
pub const ACL_USERS_MAX: usize = 256;
/// Longest name of a user, in bytes.
pub const ACL_NAME_BYTES_MAX: usize = 64;
/// Most passwords, prefixes of keys, and commands and categories that one user's rules name, all counted.
pub const ACL_RULES_MAX: usize = 128;
/// Most bytes of the rules of one user, as `ACL LIST` shows them.
pub const ACL_USER_BYTES_MAX: usize = 8 << 10;
/// Longest name of a command or category in a rule, in bytes.
pub const ACL_WORD_BYTES_MAX: usize = 32;

/// Most entries in one append message and in one WAL run.
pub const APPEND_ENTRIES_MAX: u32 = 4096;
/// Soft size of one append message, in payload bytes; one entry may exceed it alone.
pub const APPEND_BYTES_MAX: u64 = 256 << 10;
/// Append messages one follower may have unacknowledged.
pub const INFLIGHT_MESSAGES_MAX: usize = 128;
/// Payload bytes one follower may have unacknowledged.
pub const INFLIGHT_BYTES_MAX: u64 = 8 << 20;
/// Uncommitted payload bytes a leader accepts in one group before it refuses proposals.
pub const UNCOMMITTED_BYTES_MAX: u64 = 32 << 20;

/// Disk writes are aligned to this, in bytes, so that O_DIRECT accepts them.
pub const BLOCK_BYTES: usize = 4096;
/// One WAL segment, in bytes. Zeroed before its first use, written once in each, sealed whole.
pub const SEGMENT_BYTES: usize = 64 << 20;
/// Soft size of one WAL batch, in bytes; gathering stops here and goes on in the next batch.
pub const BATCH_BYTES_SOFT: usize = 512 << 10;
/// What one group may put into a WAL batch before the other groups that wait have had their turn, in bytes; one
/// entry may exceed it alone.
pub const BATCH_SHARE_BYTES: usize = 128 << 10;
/// Soft size of one write of a log that is used alone (`runtime::log`), in bytes. Larger than a shard's: whoever
/// appends so much has it ready, and a flush costs the same for more.
pub const LOG_WRITE_BYTES_SOFT: usize = 2 << 20;
/// Writes of so many bytes on average go to new segments whose blocks are only reserved, in a log that is used alone.
/// Smaller ones cost more there than the zeroes cost.
pub const RESERVE_WRITE_BYTES_MIN: u64 = 768 << 10;
/// Hard size of one WAL batch, in bytes: the soft size plus one largest run.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// WAL batches of one core being made durable at once.
pub const FLUSHES_IN_FLIGHT_MAX: usize = 4;
/// While a write is on its way, a batch smaller than this waits for its end and grows, in bytes. A larger one goes
/// beside it: one write at a time does not fill a device.
pub const FLUSH_JOINS_BYTES: usize = 64 << 10;
/// Runs that a written batch may have room for and still be used again; a larger one is given back to the allocator.
/// As many batches are kept as there are flushes in flight.
pub const BATCH_RUNS_KEPT: usize = 1024;
/// Entries for which a written batch keeps room in the lists of its runs, in all, about 40 bytes each.
pub const BATCH_ENTRIES_KEPT: usize = 8 << 10;
/// Committed entries of one group that wait to be executed while a log is replayed.
pub const REPLAY_UNSETTLED_MAX: u64 = 4_096;
/// Spare (durable, named) segments kept ready per core.
pub const SPARE_SEGMENTS: usize = 2;
/// Segments that the log of one core no longer needs and that are kept to become spares; more are
/// deleted. As snapshots become whole several segments go at once, and the next ones are wanted one at a
/// time.
pub const RETIRED_SEGMENTS_MAX: usize = 8;

/// Largest peer frame, in bytes, checked before anything is allocated for it.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Soft payload size of one frame, in bytes; a turn cuts its output into frames about this big.
pub const FRAME_BYTES_SOFT: usize = 512 << 10;
/// Small payloads and heads of frames are put together in pieces of memory of this size, in bytes.
pub const FRAME_CHUNK_BYTES: usize = 32 << 10;
/// Such pieces that are kept for each peer and lane until what lies in them has been sent, beside the one that is being
/// filled. More are taken if they are needed, and given back.
pub const FRAME_CHUNKS_KEPT: usize = 3;
/// Frames that were sent and whose lists one core keeps to use them again.
pub const FRAMES_KEPT: usize = 64;
/// Slices that the list of such a frame may have room for, 32 bytes each.
pub const FRAME_SLICES_KEPT: usize = 512;
/// Bytes queued towards one peer in one lane before the lane reports `unreachable` and drops.
pub const LANE_BYTES_MAX: usize = 32 << 20;
/// Frames queued towards one peer in one lane before the lane reports `unreachable` and drops.
pub const LANE_FRAMES_MAX: usize = 4096;

/// Largest piece of a snapshot, its header included, in bytes. One frame of the bulk lane carries one
/// piece, so a vote never waits for more than one.
pub const SNAPSHOT_PIECE_BYTES_MAX: usize = SNAPSHOT_PIECE_BYTES + 64;
/// Most pieces of one snapshot: 256 GiB in pieces of the largest size.
pub const SNAPSHOT_PIECES_MAX: u32 = 1 << 20;
/// Pieces one follower may have unacknowledged; the sender keeps them in memory.
pub const SNAPSHOT_WINDOW_PIECES: usize = 8;
/// Snapshots one core sends at once.
pub const SNAPSHOTS_SENDING_MAX: usize = 4;
/// Snapshots one core receives at once; each builds a second copy of its group's data.
pub const SNAPSHOTS_RECEIVING_MAX: usize = 4;
/// Bytes of snapshots one core sends per second, unless told otherwise.
pub const SNAPSHOT_BYTES_PER_S: u64 = 64 << 20;
/// A sender that hears nothing sends what is unacknowledged again after this long, in ms; each
/// further silence doubles it up to `SNAPSHOT_RESEND_MS_MAX`.
pub const SNAPSHOT_RESEND_MS: u64 = 500;
/// The longest wait of a sender before it sends again, in ms.
pub const SNAPSHOT_RESEND_MS_MAX: u64 = 5_000;
/// A transfer without progress for this long, in ms, is given up, by its sender and by its receiver
/// alike.
pub const SNAPSHOT_SILENCE_MS_MAX: u64 = 30_000;
/// Times a sender begins again because the receiver lost a transfer, before it gives up.
pub const SNAPSHOT_STARTS_MAX: u32 = 4;
/// After a transfer the sender keeps the log behind the snapshot for this long at most, in ms, for a
/// follower that has not yet shown that it goes on from there (contract row 42).
pub const SNAPSHOT_HOLD_MS_MAX: u64 = 30_000;

/// A core's disk is late if it has an entry so much later than a quorum without it, in ms.
pub const SLOW_DISK_LATE_MS: u64 = 20;
/// A core whose disk was late for this long without a break, in ms, hands over what it leads.
pub const SLOW_DISK_MS: u64 = 3_000;
/// It does so after no fewer late entries than this.
pub const SLOW_DISK_SAMPLES_MIN: u32 = 8;

/// The longest a fault switch may stay on, in ms.
pub const FAULT_MS_MAX: u64 = 600_000;
/// A connection from a peer over which nothing comes for this long, in ms, is closed.
pub const PEER_SILENCE_MS_MAX: u64 = 5_000;
/// A link over which nothing was sent for this long, in ms, sends an empty frame, so that silence means
/// that something is wrong.
pub const LINK_BEAT_MS: u64 = 1_000;

/// Recent entries one core keeps in memory to feed its followers, in bytes.
pub const LOG_CACHE_BYTES_MAX: usize = 128 << 20;
/// Runs of one batch that say again what others said, in what its last block has room for: each takes a fifth of a microsecond.
pub const SAID_AGAIN_MAX: usize = 8;
/// Of those, so many of groups that have been silent.
pub const SAID_AGAIN_SILENT_MAX: usize = 2;
/// What the replicas of one core hold in memory of entries behind gaps in their logs, in bytes, for when what is gone comes
/// back; each has its share of it.
pub const ISLANDS_BYTES_MAX: usize = 256 << 20;
/// How far the recent entries of one core may exceed their budget, in bytes, before it refuses
/// proposals with `-BUSY`: what is not yet durable, applied and in a sealed segment cannot be evicted,
/// so this is where a disk that has stopped answering is felt.
pub const LOG_CACHE_BYTES_OVER_MAX: usize = 4 * SEGMENT_BYTES;
/// Entries read back from sealed segments in one go for a follower that is behind, in bytes.
pub const LOG_READ_BYTES_MAX: usize = 1 << 20;

/// Largest body of one piece of a snapshot, in bytes. A core writes at most about one piece per turn,
/// so that a snapshot does not hold up the groups beside it.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;
/// Groups of one core whose snapshots are being taken at the same time.
pub const SNAPSHOTS_TAKEN_AT_ONCE: usize = 8;
/// When a replica needs more of the log than it should and can do nothing about it, how soon it is asked again, in ms.
pub const LOG_LOOK_AGAIN_MS: u64 = 100;
/// How long the log of one core should be unless told otherwise, in bytes.
pub const LOG_BYTES_DEFAULT: u64 = 1 << 30;
/// Segments that a core's log keeps, however short it should be: the one being written and those that
/// were just left.
pub const LOG_SEGMENTS_MIN: u64 = 3;
/// Largest meta part of a snapshot, in bytes: everything of a replica but its machine. It is made and
/// read in one go.
pub const SNAPSHOT_META_BYTES_MAX: usize = 64 << 20;

/// Keys that one entry lets expire, so that it does not hold up the core. What is left goes with the next.
pub const EXPIRED_AT_ONCE_MAX: usize = 1024;

/// Backups that clients take of one core's groups at once. Each holds on to what its group has changed since.
pub const BACKUPS_MAX: usize = 4;
/// A backup that nobody asks for the next piece of for this long, in ms, is given up.
pub const BACKUP_SILENCE_MS_MAX: u64 = 30_000;

/// Commands and watched keys of one transaction.
pub const TRANSACTION_COMMANDS_MAX: usize = 1024;

/// Client requests one core holds unanswered before it answers `-BUSY`.
pub const REQUESTS_MAX: usize = 64 << 10;
/// Bytes of client requests one core holds unanswered before it answers `-BUSY`.
pub const REQUEST_BYTES_MAX: usize = 128 << 20;
/// Calls of embedders that one core holds unanswered before it refuses more.
pub const CALLS_MAX: usize = 32 << 10;
/// Bytes of calls of embedders that one core holds unanswered before it refuses more.
pub const CALL_BYTES_MAX: usize = 64 << 20;
/// Subscriptions to the logs of groups of one core (`Client::tail`).
pub const TAILS_MAX: usize = 64;
/// Commands that wait for one such subscriber; the core goes on when some were taken.
pub const TAIL_CHANGES_MAX: usize = 4096;
/// Bytes of such commands, past which no more are added.
pub const TAIL_BYTES_MAX: usize = 4 << 20;
/// Changes of role that wait for one subscriber before it misses some: two of each group, in the largest cluster.
pub const ROLE_EVENTS_MAX: usize = 2 * GROUPS_MAX as usize;
/// Commands of one connection that may be unanswered before the node stops reading from it.
pub const PIPELINE_MAX: usize = 4096;
/// Reply bytes one connection may leave unread before the node stops reading from it.
pub const OUTPUT_BYTES_MAX: usize = 8 << 20;
/// Reply bytes that all connections of one core together may leave unread before the one that leaves the most is closed. A full
/// pipeline of reads of 128 KiB is half of it.
pub const OUTPUT_BYTES_OF_CORE_MAX: usize = 1 << 30;
/// Client connections one node accepts unless told otherwise; one more gets
/// `-ERR max number of clients reached`.
pub const CONNECTIONS_DEFAULT: usize = 10_000;
/// Most client connections one node can be told to accept.
pub const CONNECTIONS_MAX: usize = 100_000;
/// The longest that a client may be silent before it is disconnected, unless that is for ever, in seconds.
pub const CLIENT_IDLE_S_MAX: u64 = 365 * 24 * 3600;
/// What a client that has not logged in may leave unfinished, in bytes: no command it may send is longer.
pub const LOCKED_BYTES_MAX: usize = 64 << 10;
/// A client's TLS handshake may take this long, in ms; then the connection is closed.
pub const TLS_HANDSHAKE_MS_MAX: u64 = 10_000;
/// Clients whose handshakes one core furthers in one turn: each step is up to a millisecond of arithmetic, and the
/// rest of the core waits for it.
pub const TLS_HANDSHAKES_PER_TURN: usize = 8;
/// A certificate of the node's that expires sooner is warned about when it is read, in days.
pub const CERTIFICATE_WARNING_DAYS: u64 = 14;
/// Largest file of certificates, of a key or of a password, in bytes.
pub const SECURITY_FILE_BYTES_MAX: u64 = 1 << 20;
/// Messages one core's mailbox holds from its sibling cores.
pub const MAILBOX_MAX: usize = 64 << 10;
/// Passages that one replica follows with its stage clocks, oldest given up first.
pub const PASSAGES_MAX: usize = 64;
/// Slow operations that one core remembers for `SLOWLOG`.
pub const SLOW_OPS_MAX: usize = 128;
/// Of those, what one group's part of one turn may add.
pub const SLOW_OPS_OF_TURN_MAX: u64 = 16;
/// Arguments of a slow operation that are remembered.
pub const SLOW_ARGS_MAX: usize = 32;
/// Bytes of each that are.
pub const SLOW_ARG_BYTES_MAX: usize = 128;
/// Reads one group holds while it waits for its leadership to be confirmed.
pub const READS_PENDING_MAX: usize = 64 << 10;

/// The oldest state that a bounded read may ask for (`READONLY STALE`), in ms.
pub const STALE_MS_MAX: u32 = 600_000;

/// Largest reply of a command that gathers values (`MGET`, `SCAN`), in bytes, counted as
/// [`Reply::bytes`](crate::wire::reply::Reply::bytes) does; past it the command is refused. It fits a
/// frame, because a forwarded command's reply travels in one.
pub const REPLY_BYTES_MAX: usize = 8 << 20;

/// Client sessions one group remembers; one more pushes out the one that was used the longest ago.
/// Each costs about 150 bytes in every group.
pub const SESSIONS_MAX: usize = 16 << 10;
/// Bytes of answers one group remembers for its sessions in all, counted as
/// [`Reply::bytes`](crate::wire::reply::Reply::bytes) does; past it, sessions are pushed out as above.
pub const SESSION_REPLY_BYTES_MAX: usize = 8 << 20;

/// Connections of the admin port that are served at once; as many more are told so, and the others wait.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;
/// Longest head of a request to the admin port, in bytes.
pub const ADMIN_HEAD_BYTES_MAX: usize = 8 << 10;
/// Most header lines in it.
pub const ADMIN_HEADERS_MAX: usize = 64;
/// The head of a request must be there this long after its connection was made, in ms.
pub const ADMIN_REQUEST_MS_MAX: u64 = 5_000;
/// The answer must have been taken this long after it was ready, in ms.
pub const ADMIN_SEND_MS_MAX: u64 = 10_000;
/// After its answer a connection may take this long to end, in ms: closed at once, it could lose the answer.
pub const ADMIN_LINGER_MS_MAX: u64 = 5_000;
/// The cores must tell their numbers this long after the admin port asked, in ms.
pub const ADMIN_ANSWER_MS_MAX: u64 = 1_000;
/// What the cores told serves every request for this long, in ms: nobody makes them tell it more often.
pub const ADMIN_FRESH_MS: u64 = 100;
/// A core that has not turned for this long, in ms, is not alive (`/livez`).
pub const ADMIN_TURN_MS_MAX: u64 = 10_000;
/// A node of more groups than this has no series for each of them in `/metrics`, only sums.
pub const ADMIN_GROUP_SERIES_MAX: usize = 256;
/// Groups that `/status` lists, those that are not well first.
pub const ADMIN_GROUPS_SHOWN_MAX: usize = 1_024;
/// Groups named in one sentence of `/readyz`.
pub const ADMIN_NAMES_MAX: usize = 16;

/// Most raft groups in one cluster; a SCAN cursor has 14 bits for the group.
pub const GROUPS_MAX: u64 = 16_384;
/// A learner that is this many entries behind is ready to vote, however short the log is.
pub const PROMOTE_LAG_MIN: u64 = 64;
/// A learner that is more than this many entries behind is not, however long the log is; in between
/// it is a tenth of the log.
pub const PROMOTE_LAG_MAX: u64 = 4096;
/// Most nodes in one cluster.
pub const NODES_MAX: usize = 64;
/// Most cores one node uses.
pub const CORES_MAX: u16 = 256;

const _: () = {
    // The largest entry, alone in its run, fits a batch, and a batch fits a segment beside its
    // header: recovery never stitches two files together.
    assert!(COMMAND_BYTES_MAX + BATCH_BYTES_SOFT + BLOCK_BYTES < BATCH_BYTES_MAX);
    assert!(COMMAND_BYTES_MAX + LOG_WRITE_BYTES_SOFT + BLOCK_BYTES < BATCH_BYTES_MAX);
    assert!(BATCH_BYTES_MAX + 2 * BLOCK_BYTES < SEGMENT_BYTES);
    // What recovery hands back, all spares, is not made of zeroes again.
    assert!(SPARE_SEGMENTS <= RETIRED_SEGMENTS_MAX);
    // A segment is a whole number of blocks: its tail needs no special case.
    assert!(SEGMENT_BYTES.is_multiple_of(BLOCK_BYTES));
    // A frame carries the largest entry beside a frame that was already full.
    assert!(FRAME_BYTES_SOFT + COMMAND_BYTES_MAX + (1 << 20) < FRAME_BYTES_MAX);
    // So does it carry the largest forwarded answer.
    assert!(FRAME_BYTES_SOFT + REPLY_BYTES_MAX + (1 << 20) < FRAME_BYTES_MAX);
    // One connection that is stopped at its own bound closes nobody.
    assert!(OUTPUT_BYTES_OF_CORE_MAX > 4 * (OUTPUT_BYTES_MAX + REPLY_BYTES_MAX));
    // A reply of one value is never refused.
    assert!(VALUE_BYTES_MAX < REPLY_BYTES_MAX);
    // A follower's window and a leader's admission both hold the largest entry.
    assert!(INFLIGHT_BYTES_MAX > COMMAND_BYTES_MAX as u64);
    assert!(UNCOMMITTED_BYTES_MAX > COMMAND_BYTES_MAX as u64);
    // One follower's whole window fits its lane.
    assert!(LANE_BYTES_MAX > INFLIGHT_BYTES_MAX as usize);
    // What one core has under way in snapshots to one follower fits its lane.
    assert!(
        LANE_BYTES_MAX
            > 2 * SNAPSHOTS_SENDING_MAX * SNAPSHOT_WINDOW_PIECES * SNAPSHOT_PIECE_BYTES_MAX
    );
    // One segment's worth of the smallest commands, with what each costs in memory, is no excess.
    assert!(LOG_CACHE_BYTES_OVER_MAX > 3 * SEGMENT_BYTES);
    // A piece of a snapshot is smaller than the largest entry, so it fits wherever an entry does: a run,
    // a batch, a frame.
    assert!(SNAPSHOT_PIECE_BYTES + 1024 < COMMAND_BYTES_MAX);
    // A full table of sessions fits the meta of a snapshot, 64 bytes of each beside its answer.
    assert!(SESSION_REPLY_BYTES_MAX + 64 * SESSIONS_MAX < SNAPSHOT_META_BYTES_MAX / 2);
    // The answer with the largest value can be remembered, beside a full table of small ones.
    assert!(VALUE_BYTES_MAX + 64 * SESSIONS_MAX < SESSION_REPLY_BYTES_MAX);
    // A link that is well is never taken for a silent one, even if a few turns start late.
    assert!(4 * LINK_BEAT_MS < PEER_SILENCE_MS_MAX);
    // What is kept to be used again is small beside what it saves: a few MiB for each core.
    assert!(FLUSHES_IN_FLIGHT_MAX * (BATCH_RUNS_KEPT * 256 + BATCH_ENTRIES_KEPT * 40) < 4 << 20);
    assert!(FRAMES_KEPT * FRAME_SLICES_KEPT * 32 <= 1 << 20);
    // A core that is late for one gathering is not asked again before the answer would be stale.
    assert!(ADMIN_FRESH_MS < ADMIN_ANSWER_MS_MAX && ADMIN_ANSWER_MS_MAX < ADMIN_TURN_MS_MAX);
    // A connection of the admin port that wants something gets its answer before its patience ends.
    assert!(ADMIN_ANSWER_MS_MAX < ADMIN_REQUEST_MS_MAX);
    // Embedders cannot take all the places there are: clients of the same node find some.
    assert!(CALLS_MAX < REQUESTS_MAX && CALLS_MAX < MAILBOX_MAX);
    assert!(2 * CALL_BYTES_MAX <= REQUEST_BYTES_MAX);
    // The largest call may be made when nothing else is under way.
    assert!(COMMAND_BYTES_MAX < CALL_BYTES_MAX);
    // A value of the largest size fits a command.
    assert!(VALUE_BYTES_MAX + KEY_BYTES_MAX < COMMAND_BYTES_MAX);
};
