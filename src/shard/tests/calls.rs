//! Calls of whoever embeds the node: each is answered once, in the same words and at the same time as a
//! client's command, and over no connection.

use bytes::Bytes;

use super::*;
use crate::shard::event::Call;

/// A write, or a read, of group `group`, whose number is 5.
fn call(shard: &mut Shard, group: u64, access: Access, body: &[&[u8]]) {
    let command = GroupCommand {
        group: GroupId(group),
        access,
        after_writes: false,
        manner: Manner::default(),
        session: None,
        body: Command::from_args(body).raw,
    };
    shard.on_event(NOW, Event::Call(Call { seq: 5, command }));
}

/// The only reply, which is a call's.
fn answer(fx: &Effects) -> Reply {
    let [ReplyTo { conn: ConnId::EMBEDDER, seq: 5, reply }] = &fx.replies[..] else {
        panic!("{:?}", fx.replies)
    };
    reply.clone()
}

#[test]
fn a_call_is_answered_over_no_connection() {
    let mut shard = shard(&[1], 1, 1);
    turns(&mut shard, NOW);
    call(&mut shard, 0, Access::Write, &[b"SET", b"k", b"v"]);
    assert_eq!(answer(&turns(&mut shard, NOW)), Reply::Ok);
    call(&mut shard, 0, Access::Read, &[b"GET", b"k"]);
    assert_eq!(answer(&turns(&mut shard, NOW)), Reply::bulk("v"));
}

#[test]
fn a_call_of_another_cores_group_goes_there() {
    let mut shard = shard(&[1], 2, 2);
    call(&mut shard, 1, Access::Read, &[b"GET", b"k"]);
    let posts = turns(&mut shard, NOW).posts;
    let [(ShardId(1), Post::Command { part, .. })] = posts[..] else { panic!("{posts:?}") };
    shard.on_event(NOW, Event::Post(Post::Answer { part, reply: Reply::Nil }));
    assert_eq!(answer(&turns(&mut shard, NOW)), Reply::Nil);
}

#[test]
fn a_call_of_no_group_is_refused() {
    let mut shard = shard(&[1], 1, 1);
    call(&mut shard, 1, Access::Write, &[b"SET", b"k", b"v"]);
    assert!(answer(&turns(&mut shard, NOW)).error_text().starts_with("ERR there is no group 1"));
}

#[test]
fn a_call_is_forwarded_and_given_up_like_a_command() {
    for (access, expected) in [(Access::Write, "UNCERTAIN"), (Access::Read, "NOLEADER")] {
        let mut shard = follower();
        call(&mut shard, 0, access, &[b"GET", b"k"]);
        let ids = forwarded(&turns(&mut shard, NOW));
        assert_eq!(ids.len(), 1);
        let fx = turns(&mut shard, NOW.plus(1_000));
        assert_eq!(answer(&fx).error_text().split(' ').next(), Some(expected));
        // What the leader says after that is nobody's any more.
        let answer = crate::wire::peer::Answer { id: ids[0], body: Bytes::from_static(b"+OK\r\n") };
        shard.on_event(NOW, Event::Frame(frame(|it| it.answer(answer))));
        assert!(turns(&mut shard, NOW).replies.is_empty());
    }
}

#[test]
fn without_a_leader_a_call_is_refused_and_leaves_nothing_behind() {
    let mut shard = shard(&[1, 2, 3], 1, 1);
    call(&mut shard, 0, Access::Write, &[b"SET", b"k", b"v"]);
    assert_eq!(answer(&turns(&mut shard, NOW)), refusal_of_no_leader());
    assert_eq!(entries(&shard), 0);
}

fn refusal_of_no_leader() -> Reply {
    crate::group::refusal::no_leader(GroupId(0))
}
