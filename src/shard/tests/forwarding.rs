//! The clock of what is sent on to another node, turned by hand.

use super::*;
use crate::id::Micros;
use crate::shard::stages::{ForwardLeg, Mark};
use crate::wire::peer::Answer;

/// A turn whose kernel was asked at `at` µs; what it asks for, and what it explained.
fn turn(shard: &mut Shard, at: u64, events: Vec<Event>) -> (Effects, Vec<ForwardLeg>) {
    shard.mark(NOW, Mark::Reaped, Micros(at));
    shard.mark(NOW, Mark::Gathered, Micros(at + 10));
    events.into_iter().for_each(|event| shard.on_event(NOW, event));
    let fx = turns(shard, NOW);
    shard.mark(NOW, Mark::Decided, Micros(at + 20));
    shard.mark(NOW, Mark::Replied, Micros(at + 30));
    let legs = shard.forward_legs().to_vec();
    (fx, legs)
}

fn request(line: &str) -> Event {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let (command, manner) = (Command::from_args(&args), Manner::default());
    Event::Request(Request { conn: ConnId(1), seq: 0, command, after_writes: false, manner })
}

fn answer(id: u64) -> Event {
    let body = Reply::Ok.encode_forwarded();
    Event::Frame(frame(|it| it.answer(Answer { id, body })))
}

#[test]
fn the_forward_leg_is_from_the_turn_that_sent_it_on_to_the_answer() {
    let mut shard = follower();
    shard.slow_after(1_000);
    let (fx, legs) = turn(&mut shard, 5_000, vec![request("SET slow v"), request("SET fast v")]);
    let ids = forwarded(&fx);
    assert_eq!((ids.len(), legs), (2, vec![]), "nothing is known yet");

    let node = NodeId(2);
    let (fx, legs) = turn(&mut shard, 5_900, vec![answer(ids[1])]);
    assert_eq!((fx.replies.len(), legs), (1, vec![ForwardLeg { node, us: 890 }]));
    let (fx, legs) = turn(&mut shard, 17_510, vec![answer(ids[0])]);
    assert_eq!((fx.replies.len(), legs), (1, vec![ForwardLeg { node, us: 12_500 }]));
    let (_, legs) = turn(&mut shard, 20_000, vec![answer(ids[0])]);
    assert_eq!(legs, [], "it was told, and nobody waits for it any more");

    // The slow one alone is remembered, with the way and where it led.
    let (fx, _) = turn(&mut shard, 21_000, vec![request("SLOWLOG GET")]);
    let [ReplyTo { reply: Reply::Array(ops), .. }] = &fx.replies[..] else {
        panic!("{:?}", fx.replies)
    };
    let [Reply::Array(op)] = &ops[..] else { panic!("one operation: {ops:?}") };
    assert_eq!(op[2], Reply::Int(12_510));
    assert_eq!(op[3], Reply::Array(["SET", "slow", "v"].map(Reply::bulk).into()));
    let lines = ["group 0 forwarded to node 2", "node 1 queue 10 us", "node 2 forward 12500 us"];
    assert_eq!(op[6], Reply::Array(lines.map(Reply::bulk).into()));
}

#[test]
fn what_is_not_answered_has_no_forward_leg_and_a_driver_without_a_clock_has_none() {
    let mut shard = follower();
    shard.slow_after(0);
    let (fx, _) = turn(&mut shard, 5_000, vec![request("SET k v")]);
    let (fx, legs) = turn(&mut shard, 6_000, vec![Event::Unsent(forwarded(&fx))]);
    assert_eq!((fx.replies.len(), legs), (1, vec![]));
    turn(&mut shard, 7_000, vec![request("SET k v")]);
    let (fx, legs) = turn(&mut shard, 8_000, vec![Event::LinkBroken(NodeId(2))]);
    assert_eq!((fx.replies.len(), legs), (1, vec![]));

    let mut shard = follower();
    say(&mut shard, "SET k v");
    let ids = forwarded(&turns(&mut shard, NOW));
    shard.on_event(NOW, answer(ids[0]));
    assert_eq!(turns(&mut shard, NOW).replies.len(), 1);
    assert_eq!(shard.forward_legs(), []);
}
