//! The bytes themselves. A change here is a change of format: it needs a version, a line in the
//! history in `wal/mod.rs`, and a fixture.

use std::fmt::Write as _;

use expect_test::expect;

use super::*;

/// Sixteen bytes a line; lines of zeroes are left out.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, line) in
        bytes.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|b| *b != 0))
    {
        write!(text, "{:06x} ", number * 16).unwrap();
        line.iter().for_each(|byte| write!(text, " {byte:02x}").unwrap());
        let plain = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' };
        writeln!(text, "  {}", line.iter().map(plain).collect::<String>()).unwrap();
    }
    text
}

#[test]
fn one_small_segment() {
    let mut log = Log::new(segment_bytes(3));
    log.append(batch([run(1, 4, 18, &[b"SET a 1", b"SET b 2"]), run(2, 5, 1, &[])]));
    log.append(batch([run(1, 4, 20, &[b"SET c 3"])]));
    log.close();
    expect![[r#"
        000000  4f 55 54 52 57 41 4c 00 34 ca d4 f8 05 00 00 00  OUTRWAL.4.......
        000010  c1 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00  ................
        000020  03 00 00 00 00 50 00 00 01 00 00 00 00 00 00 00  .....P..........
        000040  00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  ................
        001000  4f 52 55 4e b0 5d 05 4e 01 00 00 00 00 00 00 00  ORUN.].N........
        001010  00 10 00 00 00 00 00 00 01 00 00 00 00 00 00 00  ................
        001020  79 00 00 00 02 00 00 00 34 ca d4 f8 58 0b b7 87  y.......4...X...
        001040  6a cf 4f b7 11 11 01 01 02 01 04 07 11 02 07 00  j.O.............
        001050  00 01 31 f4 2a 30 07 00 00 01 d2 1b 65 ab 53 45  ..1.*0......e.SE
        001060  54 20 61 20 31 53 45 54 20 62 20 32 bf 08 72 8d  T.a.1SET.b.2..r.
        001070  10 11 10 01 02 05 07 05 02 00 00 00 00 00 00 00  ................
        002000  4f 52 55 4e 34 ad 9d bd 01 00 00 00 00 00 00 00  ORUN4...........
        002010  00 20 00 00 00 00 00 00 02 00 00 00 00 00 00 00  ................
        002020  5d 00 00 00 01 00 00 00 b0 5d 05 4e ba 98 3f e6  ]........].N..?.
        002030  01 00 00 00 00 00 00 00 00 20 00 00 00 00 00 00  ................
        002040  3d e3 57 c0 11 11 01 01 01 01 04 07 13 02 07 00  =.W.............
        002050  00 01 73 41 a0 dd 53 45 54 20 63 20 33 00 00 00  ..sA..SET.c.3...
        003000  4f 52 55 4e 7f be 2e 91 01 00 00 00 00 00 00 00  ORUN............
        003010  00 30 00 00 00 00 00 00 03 00 00 00 00 00 00 00  .0..............
        003020  40 00 00 00 00 00 00 00 34 ad 9d bd 00 00 00 00  @.......4.......
        003030  01 00 00 00 00 00 00 00 00 30 00 00 00 00 00 00  .........0......
    "#]]
    .assert_eq(&hex(log.disk.file(1)));
}

#[test]
fn the_second_segment_names_the_end_of_the_first() {
    let mut log = small_log(2, segment_bytes(1));
    expect![[r#"
        000000  4f 55 54 52 57 41 4c 00 1b 3a c2 cb 05 00 00 00  OUTRWAL..:......
        000010  c1 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00  ................
        000020  03 00 00 00 00 30 00 00 02 00 00 00 00 00 00 00  .....0..........
        000030  01 00 00 00 00 00 00 00 00 20 00 00 00 00 00 00  ................
        000040  31 b5 1b ae 00 00 00 00 02 00 00 00 00 00 00 00  1...............
    "#]]
    .assert_eq(&hex(&log.disk.file(2)[..BLOCK_BYTES]));
}

/// Puts lines as [`hex`] makes them in their places.
fn unhex(text: &str, bytes: &mut [u8]) {
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (at, rest) = line.split_at(6);
        let at = usize::from_str_radix(at, 16).unwrap();
        for (place, byte) in rest.split_whitespace().enumerate() {
            bytes[at + place] = u8::from_str_radix(byte, 16).unwrap();
        }
    }
}

/// What version 1 wrote for the log of [`one_small_segment`].
const VERSION_1: &str = "
000000  4f 55 54 52 57 41 4c 00 fd ac 53 b7 01 00 00 00
000010  c1 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00
000020  03 00 00 00 00 50 00 00 01 00 00 00 00 00 00 00
000040  00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00
001000  4f 42 41 54 99 56 d5 96 01 00 00 00 00 00 00 00
001010  00 10 00 00 00 00 00 00 01 00 00 00 00 00 00 00
001020  e6 00 00 00 02 00 00 00 fd ac 53 b7 72 66 4e 59
001040  28 e1 ad ef 02 00 00 00 01 00 00 00 00 00 00 00
001050  04 00 00 00 00 00 00 00 07 00 00 00 00 00 00 00
001060  11 00 00 00 00 00 00 00 04 00 00 00 00 00 00 00
001070  12 00 00 00 00 00 00 00 0e 00 00 00 00 00 00 00
001080  07 00 00 00 31 f4 2a 30 01 00 00 00 07 00 00 00
001090  d2 1b 65 ab 01 00 00 00 53 45 54 20 61 20 31 53
0010a0  45 54 20 62 20 32 cc 93 1b a0 00 00 00 00 02 00
0010b0  00 00 00 00 00 00 05 00 00 00 00 00 00 00 07 00
0010d0  00 00 00 00 00 00 01 00 00 00 00 00 00 00 00 00
002000  4f 42 41 54 f3 72 fe 62 01 00 00 00 00 00 00 00
002010  00 20 00 00 00 00 00 00 02 00 00 00 00 00 00 00
002020  93 00 00 00 01 00 00 00 99 56 d5 96 b3 b1 e8 5e
002030  01 00 00 00 00 00 00 00 00 20 00 00 00 00 00 00
002040  8f 67 45 8e 01 00 00 00 01 00 00 00 00 00 00 00
002050  04 00 00 00 00 00 00 00 07 00 00 00 00 00 00 00
002060  13 00 00 00 00 00 00 00 04 00 00 00 00 00 00 00
002070  14 00 00 00 00 00 00 00 07 00 00 00 00 00 00 00
002080  07 00 00 00 73 41 a0 dd 01 00 00 00 53 45 54 20
002090  63 20 33 00 00 00 00 00 00 00 00 00 00 00 00 00
003000  4f 42 41 54 ff 46 2f 03 01 00 00 00 00 00 00 00
003010  00 30 00 00 00 00 00 00 03 00 00 00 00 00 00 00
003020  40 00 00 00 00 00 00 00 f3 72 fe 62 00 00 00 00
003030  01 00 00 00 00 00 00 00 00 30 00 00 00 00 00 00
";

#[test]
fn version_1_is_still_read() {
    let mut bytes = vec![0; segment_bytes(3)];
    unhex(VERSION_1, &mut bytes);
    let disk = Disk(BTreeMap::from([(SegmentSeq(1), bytes)]));
    let (recovered, runs) = disk.recover(segment_bytes(3)).unwrap();
    assert_eq!(
        runs,
        [run(1, 4, 18, &[b"SET a 1", b"SET b 2"]), run(2, 5, 1, &[]), run(1, 4, 20, &[b"SET c 3"]),]
    );
    // It goes on in the present version.
    let mut log = Log::reopen(disk, recovered.position, segment_bytes(3));
    log.append(batch([run(1, 4, 21, &[b"SET d 4"])]));
    assert_eq!(log.recover().unwrap().1.len(), 4);
}

/// What version 3 wrote for the batch of [`a_snapshot_and_a_tombstone`].
const VERSION_3: &str = "
000000  4f 42 41 54 56 23 89 c0 01 00 00 00 00 00 00 00
000010  00 10 00 00 00 00 00 00 01 00 00 00 00 00 00 00
000020  51 01 00 00 04 00 00 00 8f 8c 9d 37 aa e9 61 af
000040  8d 98 68 e9 01 00 00 00 01 00 00 00 00 00 00 00
000050  04 00 00 00 00 00 00 00 07 00 00 00 00 00 00 00
000060  12 00 00 00 00 00 00 00 04 00 00 00 00 00 00 00
000070  12 00 00 00 00 00 00 00 05 00 00 00 01 00 00 00
000080  05 00 00 00 23 0b ca 44 01 00 00 00 70 69 65 63
000090  65 2d f4 69 92 00 00 00 00 01 00 00 00 00 00 00
0000a0  00 04 00 00 00 00 00 00 00 07 00 00 00 00 00 00
0000b0  00 12 00 00 00 00 00 00 00 04 00 00 00 00 00 00
0000c0  00 12 00 00 00 00 00 00 00 00 00 00 00 02 00 00
0000d0  00 f1 ab 02 b7 00 00 00 00 01 00 00 00 00 00 00
0000e0  00 04 00 00 00 00 00 00 00 07 00 00 00 00 00 00
0000f0  00 12 00 00 00 00 00 00 00 04 00 00 00 00 00 00
000100  00 12 00 00 00 00 00 00 00 00 00 00 00 04 00 00
000110  00 ea 16 54 22 00 00 00 00 01 00 00 00 00 00 00
000120  00 04 00 00 00 00 00 00 00 07 00 00 00 00 00 00
000130  00 12 00 00 00 00 00 00 00 00 00 00 00 00 00 00
000140  00 00 00 00 00 00 00 00 00 00 00 00 00 03 00 00
";

/// The first batch of a log of version 4, with its runs of other kinds.
const VERSION_4: &str = "
000000  4f 52 55 4e 54 2b 8d b4 01 00 00 00 00 00 00 00
000010  00 10 00 00 00 00 00 00 01 00 00 00 00 00 00 00
000020  80 00 00 00 04 00 00 00 20 42 5c d7 54 e1 03 7d
000040  46 0e e8 d3 11 11 01 10 01 01 04 07 12 05 00 00
000050  01 23 0b ca 44 70 69 65 63 65 af ad e0 d1 10 11
000060  01 20 01 04 07 12 e2 da d2 48 10 11 01 40 01 04
000070  07 12 4b ae 38 bb 10 11 11 31 01 04 07 12 04 23
";

#[test]
fn versions_3_and_4_are_still_read() {
    for (version, lines) in [(3, VERSION_3), (4, VERSION_4)] {
        let header = SegmentHeader {
            version,
            identity: IDENTITY,
            segment_bytes: segment_bytes(1) as u32,
            segment: SegmentSeq(1),
            previous: End::default(),
            first_batch: 1,
        };
        let mut bytes = vec![0; segment_bytes(1)];
        header.encode_into(&mut bytes[..BLOCK_BYTES]);
        unhex(lines, &mut bytes[BLOCK_BYTES..]);
        let disk = Disk(BTreeMap::from([(SegmentSeq(1), bytes)]));
        let (recovered, runs) = disk.recover(segment_bytes(1)).unwrap();
        assert_eq!(runs, others(1, 4, 18), "{version}");
        let mut log = Log::reopen(disk, recovered.position, segment_bytes(1));
        log.append(batch([run(1, 4, 19, &[b"SET d 4"])]));
        assert_eq!(log.recover().unwrap().1.len(), 5);
    }
}

#[test]
fn a_snapshot_and_a_tombstone() {
    let mut log = Log::new(segment_bytes(1));
    let [piece, taken, installed, tombstone] = others(1, 4, 18);
    log.append(batch([piece, taken, installed, tombstone]));
    expect![[r#"
        000000  4f 52 55 4e 65 08 97 a4 01 00 00 00 00 00 00 00  ORUNe...........
        000010  00 10 00 00 00 00 00 00 01 00 00 00 00 00 00 00  ................
        000020  80 00 00 00 04 00 00 00 02 da 61 b2 54 e1 03 7d  ..........a.T..}
        000040  46 0e e8 d3 11 11 01 10 01 01 04 07 12 05 00 00  F...............
        000050  01 23 0b ca 44 70 69 65 63 65 af ad e0 d1 10 11  .#..Dpiece......
        000060  01 20 01 04 07 12 e2 da d2 48 10 11 01 40 01 04  .........H...@..
        000070  07 12 4b ae 38 bb 10 11 11 31 01 04 07 12 04 23  ..K.8....1.....#
    "#]]
    .assert_eq(&hex(&log.disk.file(1)[BLOCK_BYTES..2 * BLOCK_BYTES]));
}

#[test]
fn what_is_said_again() {
    let mut log = Log::new(segment_bytes(1));
    let run = run(1, 4, 18, &[b"a"]);
    let last = EntryId { term: run.run_term, index: run.first };
    let again = Run::mark(RunKind::SaidAgain, run.group, run.hard_state, last);
    log.append(batch([run, again.clone()]));
    assert_eq!(log.recover().unwrap().1[1].kind, RunKind::SaidAgain);
    assert_eq!(log.written[1], again);
    expect![[r#"
        000000  4f 52 55 4e a0 f2 0f 4b 01 00 00 00 00 00 00 00  ORUN...K........
        000010  00 10 00 00 00 00 00 00 01 00 00 00 00 00 00 00  ................
        000020  64 00 00 00 02 00 00 00 02 da 61 b2 c7 4d e9 9f  d.........a..M..
        000040  7e b6 4e 1f 11 11 01 01 01 01 04 07 11 02 01 00  ~.N.............
        000050  00 01 43 be b7 e8 61 3c 4c fb 88 10 11 01 f1 01  ..C...a<L.......
        000060  04 07 11 02 00 00 00 00 00 00 00 00 00 00 00 00  ................
    "#]]
    .assert_eq(&hex(&log.disk.file(1)[BLOCK_BYTES..2 * BLOCK_BYTES]));
}
