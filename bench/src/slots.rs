//! `--by-slot`: which node leads the slot of each key, as the server says it (`CLUSTER SLOTS`), so that every operation goes
//! to the node that executes it. It is what clients do that know clusters.
//!
//! ```text
//!   CLUSTER SLOTS ──► [[first, last, [ip, port, id, …], replicas …] …] ──► the leader's address, by slot
//! ```

use crate::access::Access;
use crate::keys::write_key;
use crate::resp::Resp;
use crate::{conn, protocol::Manner};
use outrigger::store::slot::{SLOTS, key_slot};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

/// An answer is no longer than this; 16,384 slots in ranges of one, three nodes each, take a third of it.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// So many keys are looked at to see that a node leads some of them.
const KEYS_TRIED: u64 = 100_000;

/// Who leads which slot.
#[derive(Debug)]
pub(crate) struct Leaders {
    by_slot: Vec<Option<SocketAddr>>,
}

impl Leaders {
    /// Asks one node.
    pub(crate) fn ask(addr: SocketAddr, access: &Access) -> Result<Self, String> {
        let manner = Manner { readonly: false, creating: false };
        let failed = |error| format!("CLUSTER SLOTS from {addr}: {error}");
        let stream = TcpStream::connect(addr).map_err(failed)?;
        let mut wire = conn::greet::<Resp>(stream, addr, manner, access).map_err(failed)?;
        wire.socket().set_nonblocking(false).map_err(failed)?;
        wire.write_all(b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n").map_err(failed)?;
        let mut answer = Vec::new();
        let mut piece = [0; 16 << 10];
        loop {
            match wire.read(&mut piece).map_err(failed)? {
                0 => return Err(failed(ErrorKind::UnexpectedEof.into())),
                bytes => answer.extend_from_slice(&piece[..bytes]),
            }
            match parse(&answer) {
                Parsed::Whole(it, _) => {
                    return Self::read(&it).map_err(|why| format!("CLUSTER SLOTS: {why}"));
                }
                Parsed::Cut if answer.len() < ANSWER_BYTES_MAX => {}
                Parsed::Cut | Parsed::Garbage => {
                    let start = String::from_utf8_lossy(&answer[..answer.len().min(80)]);
                    return Err(format!(
                        "CLUSTER SLOTS from {addr}: '{}' is no table",
                        start.trim()
                    ));
                }
            }
        }
    }

    fn read(answer: &Answer<'_>) -> Result<Self, String> {
        let Answer::Many(ranges) = answer else {
            let Answer::Text(text) = answer else { return Err("the answer is a number".into()) };
            return Err(String::from_utf8_lossy(text).into_owned());
        };
        let mut by_slot = vec![None; usize::from(SLOTS)];
        for range in ranges {
            let (first, last, leader) =
                read_range(range).ok_or("a range is not what it should be")?;
            by_slot[first..=last].fill(Some(leader));
        }
        Ok(Self { by_slot })
    }

    /// Whether the node at that address leads the key's slot.
    pub(crate) fn is_leader(&self, addr: SocketAddr, key: u64) -> bool {
        self.by_slot[usize::from(key_slot(&write_key(key)))] == Some(addr)
    }

    /// Everybody who is connected to leads one of the keys, or would be sent nothing for ever.
    pub(crate) fn check(&self, addrs: &[SocketAddr], keys: u64) -> Result<(), String> {
        let leads_none =
            |addr: &&SocketAddr| !(0..keys.min(KEYS_TRIED)).any(|key| self.is_leader(**addr, key));
        match addrs.iter().find(leads_none) {
            Some(addr) => Err(format!("--by-slot: {addr} leads none of the keys; leave it out")),
            None => Ok(()),
        }
    }
}

fn read_range(range: &Answer<'_>) -> Option<(usize, usize, SocketAddr)> {
    let Answer::Many(parts) = range else { return None };
    let [Answer::Number(first), Answer::Number(last), Answer::Many(leader), ..] = &parts[..] else {
        return None;
    };
    let [Answer::Text(ip), Answer::Number(port), ..] = &leader[..] else { return None };
    let ip: IpAddr = std::str::from_utf8(ip).ok()?.parse().ok()?;
    let addr = SocketAddr::new(ip, u16::try_from(*port).ok()?);
    let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
    (first <= last && last < usize::from(SLOTS)).then_some((first, last, addr))
}

/// A reply, as far as the answer has such.
#[derive(Debug, PartialEq, Eq)]
enum Answer<'a> {
    Number(i64),
    /// A string, a status or an error.
    Text(&'a [u8]),
    Many(Vec<Answer<'a>>),
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed<'a> {
    Whole(Answer<'a>, &'a [u8]),
    /// It goes on.
    Cut,
    Garbage,
}

fn parse(input: &[u8]) -> Parsed<'_> {
    let Some(end) = input.windows(2).position(|it| it == b"\r\n") else { return Parsed::Cut };
    let (line, rest) = (&input[..end], &input[end + 2..]);
    let Some((kind, line)) = line.split_first() else { return Parsed::Garbage };
    let number = || std::str::from_utf8(line).ok()?.parse::<i64>().ok();
    match (kind, number()) {
        (b'+' | b'-', _) => Parsed::Whole(Answer::Text(line), rest),
        (b':', Some(number)) => Parsed::Whole(Answer::Number(number), rest),
        (b'$', Some(-1)) => Parsed::Whole(Answer::Text(b""), rest),
        (b'$', Some(bytes @ 0..)) => match rest.split_at_checked(bytes as usize) {
            Some((text, rest)) if 2 <= rest.len() => Parsed::Whole(Answer::Text(text), &rest[2..]),
            _ => Parsed::Cut,
        },
        (b'*', Some(count @ 0..)) => {
            let (mut all, mut rest) = (Vec::new(), rest);
            for _ in 0..count {
                match parse(rest) {
                    Parsed::Whole(it, after) => {
                        all.push(it);
                        rest = after;
                    }
                    other => return other,
                }
            }
            Parsed::Whole(Answer::Many(all), rest)
        }
        _ => Parsed::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"*2\r\n\
        *4\r\n:0\r\n:8191\r\n*4\r\n$9\r\n127.0.0.1\r\n:7001\r\n$2\r\naa\r\n*0\r\n*4\r\n$9\r\n127.0.0.1\r\n:7002\r\n$2\r\nbb\r\n*0\r\n\
        *3\r\n:8192\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:7002\r\n$-1\r\n";

    fn leaders(table: &[u8]) -> Result<Leaders, String> {
        match parse(table) {
            Parsed::Whole(answer, b"") => Leaders::read(&answer),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_table_says_who_leads_a_key() {
        let leaders = leaders(TABLE).unwrap();
        let node = |port| SocketAddr::from(([127, 0, 0, 1], port));
        for key in 0..1000 {
            let low = key_slot(&write_key(key)) < 8192;
            assert_eq!(leaders.is_leader(node(7001), key), low);
            assert_eq!(leaders.is_leader(node(7002), key), !low);
        }
        assert_eq!(leaders.check(&[node(7001), node(7002)], 1000), Ok(()));
        let problem = leaders.check(&[node(7001), node(7003)], 1000).unwrap_err();
        assert!(problem.contains("7003"), "{problem}");
    }

    #[test]
    fn every_beginning_of_a_table_is_cut_short() {
        for end in 0..TABLE.len() {
            assert_eq!(parse(&TABLE[..end]), Parsed::Cut, "after {end} bytes");
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        assert_eq!(parse(b"$x\r\n"), Parsed::Garbage);
        assert_eq!(parse(b"\r\n"), Parsed::Garbage);
        let problem = leaders(b"-ERR cluster support is disabled\r\n").unwrap_err();
        assert_eq!(problem, "ERR cluster support is disabled");
        for table in [
            &b":1\r\n"[..],
            b"*1\r\n*2\r\n:0\r\n:1\r\n",
            b"*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$9\r\n127.0.0.1\r\n:7001\r\n",
            b"*1\r\n*3\r\n:5\r\n:4\r\n*2\r\n$9\r\n127.0.0.1\r\n:7001\r\n",
            b"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$4\r\nhost\r\n:7001\r\n",
        ] {
            leaders(table).unwrap_err();
        }
    }
}
