//! The load generator as its users meet it: the real program against small servers made here.
#![allow(clippy::disallowed_methods, reason = "the servers of these tests are threads that wait")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Serves every connection on a thread of its own; returns the address.
fn serve(on_connection: impl Fn(TcpStream) + Send + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let on_connection = on_connection.clone();
            thread::spawn(move || on_connection(stream.unwrap()));
        }
    });
    addr
}

/// Answers each request (of one-byte values: one `\r\nx\r\n` each) with `reply(n)` for the n-th.
fn answer(mut stream: TcpStream, reply: impl Fn(u64) -> Option<&'static [u8]>) {
    let (mut input, mut buffer, mut count) = (Vec::new(), [0; 4096], 0);
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        input.extend_from_slice(&buffer[..bytes]);
        while let Some(end) = input.windows(5).position(|window| window == b"\r\nx\r\n") {
            input.drain(..end + 5);
            let Some(reply) = reply(count) else { return };
            count += 1;
            if stream.write_all(reply).is_err() {
                return;
            }
        }
    }
}

fn load(addr: &str, flags: &str) -> (Output, serde_json::Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(if addr.is_empty() { vec![] } else { vec!["--addr", addr] })
        .args(["--warmup", "0", "--json", "-"])
        .args(if flags.contains("--value-size") || flags.contains("--workload") {
            &[][..]
        } else {
            &["--value-size", "1"]
        })
        .args(flags.split_whitespace())
        .output()
        .unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, json)
}

#[test]
fn a_stall_counts_from_when_each_operation_was_due() {
    const STALL: Duration = Duration::from_millis(300);
    let addr = serve(|stream| {
        answer(stream, |n| {
            if n == 20 {
                thread::sleep(STALL);
            }
            Some(b"+OK\r\n")
        });
    });
    let (output, json) = load(&addr, "-c 1 --rate 1000/s -n 600");
    assert!(output.status.success(), "{output:?}");
    let run = &json["runs"][0];
    assert_eq!(run["ops_count"], 600);
    let stall_us = STALL.as_micros() as f64;
    assert!(run["latency_max_us"].as_f64().unwrap() >= stall_us, "{run}");
    // About 300 of 600 arrivals fell into the stall, and the one in the middle waited for half of
    // it. A generator that omits them has one slow operation in 600, below its p99.
    assert!(run["latency_p99_us"].as_f64().unwrap() >= 0.9 * stall_us, "{run}");
    assert!(run["latency_p90_us"].as_f64().unwrap() >= 0.5 * stall_us, "{run}");
}

#[test]
fn the_json_has_every_field_and_the_table_reads_back() {
    let addr = serve(|stream| answer(stream, |_| Some(b"+OK\r\n")));
    let hgrm = std::env::temp_dir().join(format!("load-{}.hgrm", std::process::id()));
    let html = std::env::temp_dir().join(format!("load-{}.html", std::process::id()));
    let flags = format!(
        "-c 4 -P 3 --threads 2 -n 1000 --runs 2 --server-pids {} --hgrm {} --html {}",
        std::process::id(),
        hgrm.display(),
        html.display()
    );
    let (output, json) = load(&addr, &flags);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json["runs"].as_array().unwrap().len(), 2);
    for result in [&json["runs"][0], &json["runs"][1], &json["median"]] {
        assert_eq!(result["ops_count"], 1000);
        assert_eq!(result["errors_count"], 0);
        if let Some(counts) = result["throughput_over_time"]["ops_count"].as_array() {
            assert_eq!(counts.iter().filter_map(serde_json::Value::as_u64).sum::<u64>(), 1000);
        }
        for field in [
            "throughput_ops_per_s",
            "payload_bytes_per_s",
            "latency_p50_us",
            "latency_p90_us",
            "latency_p99_us",
            "latency_p99_9_us",
            "latency_max_us",
            "latency_mean_us",
            "server_cpu_us_per_op",
            "server_write_bytes_per_op",
            "server_write_bytes_per_payload_byte",
            "generator_cpu_us_per_op",
            "window_s",
        ] {
            assert!(result[field].is_f64() || result[field].is_u64(), "{field} in {result}");
        }
        // Not asked for, and therefore null instead of absent.
        for field in
            ["device_write_bytes_per_op", "device_flushes_per_write", "unsent_arrivals_count"]
        {
            assert_eq!(result.get(field), Some(&serde_json::Value::Null), "{field}");
        }
    }
    assert!(json["runs"][1]["throughput_over_time"]["ops_count"].is_array(), "{json}");
    assert_eq!(json["plan"]["pipeline_count"], 3);
    let page = std::fs::read_to_string(&html).unwrap();
    std::fs::remove_file(&html).unwrap();
    assert!(page.starts_with("<!doctype html>"), "{page}");
    for word in [
        "<svg",
        "p99, µs</th>",
        ">run 2</th>",
        ">median</th>",
        "<dt>connections</dt><dd>4</dd>",
        "seconds",
    ] {
        assert!(page.contains(word), "{word} is missing");
    }
    // Where it was made, and how to make it again.
    for (field, word) in [("date", "UTC"), ("generator", "load 0."), ("command", "--hgrm")] {
        let said = json[field].as_str().unwrap();
        assert!(said.contains(word) && page.contains(said), "{field}: {said}");
    }
    assert_eq!(json["plan"]["seed"], 1);
    needs_nothing_else(&page);
    let table = std::fs::read_to_string(&hgrm).unwrap();
    std::fs::remove_file(&hgrm).unwrap();
    let last = table.lines().rfind(|line| !line.starts_with('#')).unwrap();
    let fields: Vec<f64> = last.split_whitespace().map(|field| field.parse().unwrap()).collect();
    assert_eq!(fields[1..], [1.0, 2000.0]);
}

/// Two nodes, each of which leads half of the slots and refuses keys of the other half: asked by slot, they refuse none; asked
/// as it comes, they do.
#[test]
fn by_slot_every_operation_goes_to_the_node_that_leads_its_key() {
    let halves = [(0, 8191), (8192, 16_383)];
    let listeners = halves.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = [0, 1].map(|node: usize| listeners[node].local_addr().unwrap().port());
    let range = |node: usize| {
        let ((first, last), port) = (halves[node], ports[node]);
        format!("*3\r\n:{first}\r\n:{last}\r\n*3\r\n$9\r\n127.0.0.1\r\n:{port}\r\n$1\r\nn\r\n")
    };
    let table = format!("*2\r\n{}{}", range(0), range(1));
    for (listener, half) in listeners.into_iter().zip(halves) {
        let table = table.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, table) = (stream.unwrap(), table.clone());
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                        // One outstanding operation: every read is one command.
                        let text = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
                        let key = text.find("key:").map(|at| &text.as_bytes()[at..at + 16]);
                        let answer = match key.map(outrigger::store::slot::key_slot) {
                            None => table.clone(),
                            Some(slot) if (half.0..=half.1).contains(&slot) => "+OK\r\n".into(),
                            Some(slot) => format!("-MOVED {slot} elsewhere\r\n"),
                        };
                        stream.write_all(answer.as_bytes()).unwrap();
                    }
                });
            }
        });
    }
    let addrs = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
    let (output, json) = load(&addrs, "-c 4 -n 500 --allow-errors --by-slot");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        (&json["runs"][0]["ops_count"], &json["runs"][0]["errors_count"]),
        (&500.into(), &0.into())
    );
    let (_, json) = load(&addrs, "-c 4 -n 500 --allow-errors");
    assert!(json["runs"][0]["errors_count"].as_u64() > Some(100), "{json}");
    // One of them alone is asked for its keys only.
    let one = format!("127.0.0.1:{}", ports[1]);
    let (output, json) = load(&one, "-c 2 -n 100 --by-slot");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json["runs"][0]["errors_count"], 0);
    let leader = outrigger::store::slot::key_slot(b"key:000000000000") / 8192;
    let other = format!("127.0.0.1:{}", ports[usize::from(1 - leader)]);
    let (output, _) = load(&other, "-c 2 -n 100 --by-slot --keys 1");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && problem.contains("leads none of the keys"), "{problem}");
}

fn needs_nothing_else(page: &str) {
    for reference in ["href=", "src=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(reference), "{reference} in {page}");
    }
}

/// A directory of this test's own, gone when it ends.
struct Dir(std::path::PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("load-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    /// Width and height of a PNG file in it.
    fn png_size(&self, name: &str) -> (u32, u32) {
        let bytes = std::fs::read(self.0.join(name)).unwrap();
        assert_eq!(bytes[..16], *b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", "{name}");
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        (number(16), number(20))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_sweep_finds_the_rate_that_a_server_keeps_up_with() {
    // Every connection has 500 good answers in it, and every rate has one connection for one second: 500 a second, of
    // which 97 % are offered at 515, however slow this machine is.
    let addr = serve(|stream| {
        answer(stream, |n| Some(if n < 500 { b"+OK\r\n" } else { b"-BUSY enough\r\n" }));
    });
    let dir = Dir::new("sweep");
    let flags = format!(
        "-c 1 -P 1000 --sweep --sweep-from 200 --duration 1 --slo-p99-us 1e9 --allow-errors --png {0}/plots --html {0}/page",
        dir.0.display()
    );
    let (output, json) = load(&addr, &flags);
    let target = &json["targets"][0];
    let steps = target["steps"].as_array().unwrap();
    let offered = |step: &serde_json::Value| step["offered_ops_per_s"].as_f64().unwrap();
    let kept = |step: &&serde_json::Value| step["verdict"] == "kept up";
    for step in steps {
        let achieved = step["throughput_ops_per_s"].as_f64().unwrap();
        assert_eq!(kept(&step), achieved >= 0.97 * offered(step), "{step}");
        assert!(offered(step) <= 515.5 || step["verdict"] == "fell behind", "{step}");
    }
    assert!(steps.iter().any(|step| !kept(&step)), "it looked until it was too much: {steps:?}");
    let best = steps.iter().filter(kept).map(offered).fold(0.0, f64::max);
    // Only a machine that answers 6 of 200 late has no knee here.
    assert_eq!(target["knee_ops_per_s"].as_f64().unwrap_or(0.0), best, "{json}");
    assert_eq!(output.status.success(), best > 0.0, "{output:?}");
    assert!(json["knee_definition"].as_str().unwrap().contains("97 %"), "{json}");
    assert_eq!(dir.png_size("plots/latency-vs-rate.png"), (1720, 840));
    let page = std::fs::read_to_string(dir.0.join("page")).unwrap();
    needs_nothing_else(&page);
    for word in ["fell behind", "offered operations a second", "The knee is the highest rate"] {
        assert!(page.contains(word), "{word} is missing");
    }
}

#[test]
fn targets_side_by_side_take_turns_and_are_compared_with_the_first() {
    let turns = Arc::new(Mutex::new(Vec::new()));
    let serve_as = |name: &'static str, reply: fn(u64) -> Option<&'static [u8]>| {
        let turns = Arc::clone(&turns);
        serve(move |stream| {
            turns.lock().unwrap().push(name);
            answer(stream, reply);
        })
    };
    let all = serve_as("all", |_| Some(b"+OK\r\n"));
    let half =
        serve_as("half", |n| Some(if n % 2 == 0 { b"-BUSY not now\r\n" } else { b"+OK\r\n" }));
    let dir = Dir::new("sides");
    let flags = format!(
        "--target all={all} --target half=resp://{half} --rounds 3 -c 1 -n 100 --allow-errors --png {0} --html {0}/page",
        dir.0.display()
    );
    let (output, json) = load("", &flags);
    assert!(output.status.success(), "{output:?}");
    // Both are connected to before the first round.
    let turns = turns.lock().unwrap().clone();
    assert_eq!(turns, ["all", "half", "all", "half", "half", "all", "all", "half"]);
    let [first, second] = &json["targets"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!((&first["name"], &second["name"]), (&"all".into(), &"half".into()));
    assert_eq!(first["ratio_to_first"]["ops_count"], 1);
    assert_eq!(second["median"]["ops_count"], 50);
    assert_eq!(second["ratio_to_first"]["latency_samples_count"], 0.5);
    assert_eq!(second["runs"].as_array().unwrap().len(), 3);
    // With JSON on standard output, the text is on the other.
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let row =
        |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or("").to_owned();
    assert!(row("| median").contains("half | ÷ all |"), "{text}");
    assert!(row("| operations/s").matches('|').count() == 5, "{text}");
    for name in ["latency-by-percentile.png", "throughput-over-time.png"] {
        assert_eq!(dir.png_size(name), (1720, 840));
    }
    assert!(!dir.0.join("latency-vs-rate.png").exists(), "there was one rate");
    let page = std::fs::read_to_string(dir.0.join("page")).unwrap();
    needs_nothing_else(&page);
    for word in [">÷ all</th>", ">half run 3</th>", "<dt>half</dt><dd>resp: 127.0.0.1:"] {
        assert!(page.contains(word), "{word} is missing");
    }
}

/// One command as a server reads it: its name, and the numbers of its keys.
type Asked = (String, Vec<u64>);

/// A small Redis: keeps which keys were set, and what each connection asked for that asked for something.
#[derive(Clone, Default)]
struct Keeper {
    keys: Arc<Mutex<std::collections::BTreeSet<u64>>>,
    asked: Arc<Mutex<Vec<Vec<Asked>>>>,
}

impl Keeper {
    fn serve(&self) -> String {
        let keeper = self.clone();
        serve(move |stream| keeper.answer(stream))
    }

    fn answer(&self, mut stream: TcpStream) {
        let (mut input, mut buffer, mut mine) = (Vec::new(), [0; 4096], None);
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            input.extend_from_slice(&buffer[..bytes]);
            let mut output = Vec::new();
            while let Some((command, bytes)) = command(&input) {
                input.drain(..bytes);
                output.extend_from_slice(&self.execute(&command));
                let mut asked = self.asked.lock().unwrap();
                let number = *mine.get_or_insert_with(|| {
                    asked.push(Vec::new());
                    asked.len() - 1
                });
                asked[number].push(command);
            }
            if stream.write_all(&output).is_err() {
                return;
            }
        }
    }

    fn execute(&self, (name, keys): &Asked) -> Vec<u8> {
        let mut there = self.keys.lock().unwrap();
        let one = |key| if there.contains(key) { "$1\r\nx\r\n" } else { "$-1\r\n" };
        match name.as_str() {
            "GET" => one(&keys[0]).into(),
            "MGET" => {
                let all: String = keys.iter().map(one).collect();
                format!("*{}\r\n{all}", keys.len()).into_bytes()
            }
            "SET" => {
                there.insert(keys[0]);
                b"+OK\r\n".to_vec()
            }
            other => format!("-ERR {other}\r\n").into_bytes(),
        }
    }
}

/// The whole command at the start of `input`, and its length.
fn command(input: &[u8]) -> Option<(Asked, usize)> {
    let mut at = 0;
    let mut line = |sign: u8| {
        let rest = input.get(at..)?;
        let end = rest.windows(2).position(|it| it == b"\r\n")?;
        assert_eq!(rest[0], sign, "{}", String::from_utf8_lossy(rest));
        at += end + 2;
        let number: usize = std::str::from_utf8(&rest[1..end]).unwrap().parse().unwrap();
        if sign == b'*' {
            return Some((number, &b""[..]));
        }
        let word = input.get(at..at + number + 2)?;
        at += number + 2;
        Some((number, &word[..number]))
    };
    let (count, _) = line(b'*')?;
    let words: Option<Vec<&[u8]>> = (0..count).map(|_| line(b'$').map(|it| it.1)).collect();
    let words = words?;
    let key = |word: &&[u8]| std::str::from_utf8(word.strip_prefix(b"key:")?).ok()?.parse().ok();
    let name = String::from_utf8_lossy(words[0]).into_owned();
    Some(((name, words[1..].iter().filter_map(key).collect()), at))
}

#[test]
fn ycsb_d_appends_keys_and_reads_the_newest() {
    let keeper = Keeper::default();
    let addr = keeper.serve();
    let flags = "--workload ycsb-d -c 4 --threads 2 --keys 1000 -n 3000 --runs 2";
    let (output, json) = load(&addr, flags);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json["plan"]["insert_share_ratio"], 0.05);
    let asked: Vec<Asked> = keeper.asked.lock().unwrap().concat();
    let sets = asked.iter().filter(|(name, _)| name == "SET").map(|(_, keys)| keys[0]);
    let mut fresh: Vec<u64> = sets.filter(|key| *key >= 1000).collect();
    fresh.sort_unstable();
    // Of both runs: the second goes on where the first was.
    assert!(fresh.iter().copied().eq(1000..1000 + fresh.len() as u64), "{fresh:?}");
    assert!((210..400).contains(&fresh.len()), "5 % of 6000: {}", fresh.len());
    let reads: Vec<u64> =
        asked.iter().filter(|(name, _)| name == "GET").map(|(_, keys)| keys[0]).collect();
    assert_eq!(reads.len() + fresh.len(), 6000);
    // Zipf backwards: the newest tenth is most of it; from the first key on, it would be next to nothing.
    let newest = reads.iter().filter(|key| 900 <= **key).count();
    assert!(newest * 10 > reads.len() * 6, "{newest} of {}", reads.len());
    for run in json["runs"].as_array().unwrap() {
        assert_eq!(run["missing_keys_count"], 0, "an insert is read when it has been answered");
        assert!(run["write_latency_p50_us"].is_f64() && run["read_latency_p50_us"].is_f64());
        assert!(run.get("scan_latency_p50_us").is_none(), "{run}");
    }
}

#[test]
fn ycsb_e_reads_neighbours_with_one_command() {
    let keeper = Keeper::default();
    let addr = keeper.serve();
    let (output, json) = load(&addr, "--workload ycsb-e -c 2 -P 2 --keys 1000 -n 2000");
    assert!(output.status.success(), "{output:?}");
    let asked: Vec<Asked> = keeper.asked.lock().unwrap().concat();
    let of = |name: &str| asked.iter().filter(|it| it.0 == name).count();
    let (scans, inserts) = (of("MGET"), of("SET") - 1000);
    assert_eq!((scans + inserts, of("GET")), (2000, 0));
    assert!((1850..1950).contains(&scans), "95 % of 2000: {scans}");
    let mut lengths = std::collections::BTreeSet::new();
    for (_, keys) in asked.iter().filter(|it| it.0 == "MGET") {
        assert!(keys.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{keys:?}");
        lengths.insert(keys.len());
    }
    assert!(lengths.first() == Some(&1) && lengths.last() == Some(&100), "{lengths:?}");
    let first = asked.iter().filter(|it| it.0 == "MGET" && it.1[0] == 0).count();
    assert!(first * 20 > scans, "a zipf-chosen start: {first} of {scans} at the first key");
    let run = &json["runs"][0];
    assert!(run["scan_latency_p99_us"].is_f64() && run["write_latency_p99_us"].is_f64(), "{run}");
    assert!(run.get("read_latency_p50_us").is_none(), "{run}");
}

#[test]
fn ycsb_f_writes_what_it_has_read_and_counts_both_as_one() {
    let keeper = Keeper::default();
    let addr = keeper.serve();
    let (output, json) = load(&addr, "--workload ycsb-f -c 1 --keys 200 -n 1000");
    assert!(output.status.success(), "{output:?}");
    let asked = keeper.asked.lock().unwrap().last().unwrap().clone();
    let reads = asked.iter().filter(|it| it.0 == "GET").count();
    let writes = asked.len() - reads;
    assert_eq!(reads, 1000, "every operation begins with a read");
    assert!((420..580).contains(&writes), "half of 1000: {writes}");
    for pair in asked.windows(2).filter(|pair| pair[1].0 == "SET") {
        assert_eq!((pair[0].0.as_str(), &pair[0].1), ("GET", &pair[1].1), "of the key just read");
    }
    let run = &json["runs"][0];
    assert_eq!((&run["ops_count"], &run["latency_samples_count"]), (&1000.into(), &1000.into()));
    assert_eq!(run["acked_writes_count"], writes);
    assert!(run["read_modify_write_latency_p50_us"].is_f64(), "{run}");
    assert!(run.get("write_latency_p50_us").is_none(), "{run}");
    // With several outstanding each write still follows its own read.
    let keeper = Keeper::default();
    let addr = keeper.serve();
    let (output, json) = load(&addr, "--workload ycsb-f -c 1 -P 8 --keys 200 -n 1000");
    assert!(output.status.success() && json["runs"][0]["ops_count"] == 1000, "{output:?}");
    let mut read = BTreeMap::new();
    for (name, keys) in keeper.asked.lock().unwrap().last().unwrap() {
        let balance: &mut i32 = read.entry(keys[0]).or_default();
        *balance += if name == "GET" { 1 } else { -1 };
        assert!(*balance >= 0, "a write of {} that nothing read before", keys[0]);
    }
}

#[test]
fn a_workload_s_file_is_followed_and_what_is_passed_over_is_said() {
    let keeper = Keeper::default();
    let addr = keeper.serve();
    let dir = Dir::new("workload");
    let file = dir.0.join("mine");
    let text = "recordcount=40\noperationcount=300\nreadproportion=1\nupdateproportion=0\n\
                readallfields=true\nfieldcount=1\nfieldlength=8\n";
    std::fs::write(&file, text).unwrap();
    let (output, json) = load(&addr, &format!("--workload {} -c 2", file.display()));
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("passed over readallfields"));
    assert_eq!(json["runs"][0]["ops_count"], 300);
    assert_eq!(keeper.keys.lock().unwrap().len(), 40);
    let (output, _) = load(&addr, &format!("--workload {} --keys 50", file.display()));
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && problem.contains("recordcount=40"), "{problem}");
}

#[test]
fn what_was_due_and_never_sent_is_in_the_percentiles() {
    // Ten answers, then silence. At 1000/s, 500 are due in the window; what waits for a slot is never sent.
    let addr = serve(|stream| {
        answer(stream, |n| {
            if n >= 10 {
                thread::sleep(Duration::from_secs(60));
            }
            Some(b"+OK\r\n")
        });
    });
    let flags = "-c 1 -P 4 --rate 1000/s --duration 0.5 --drain 0.5";
    let (output, json) = load(&addr, flags);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("never sent") && text.contains("p99 ≥"), "{text}");
    assert!(text.contains("all 1 × 4 slots were taken"), "{text}");
    let run = &json["runs"][0];
    let count = |name: &str| run[name].as_u64().unwrap();
    assert_eq!(count("due_arrivals_count"), 500);
    assert_eq!(count("latency_samples_count"), 500, "every one of them has a latency: {run}");
    assert_eq!(count("unsent_arrivals_count") + 4, 500 - count("ops_count"));
    // The median was due in the middle of the window, so at the end of the drain it is 0.75 s old.
    assert!(run["latency_p50_us"].as_f64().unwrap() > 7e5, "{run}");
    let bounds = run["lower_bounds"].as_array().unwrap();
    assert!(bounds.contains(&"latency_p50_us".into()), "{bounds:?}");
    assert!(load(&addr, &format!("{flags} --allow-errors")).0.status.success());
}

#[test]
fn what_was_due_is_sent_while_replies_are_waited_for() {
    // Still for a second from the first operation on: all of the window passes meanwhile.
    let addr = serve(|stream| {
        answer(stream, |n| {
            if n == 10 {
                thread::sleep(Duration::from_secs(1));
            }
            Some(b"+OK\r\n")
        });
    });
    let (output, json) = load(&addr, "-c 1 --rate 1000/s --duration 0.5 --drain 60");
    assert!(output.status.success(), "{output:?}");
    let run = &json["runs"][0];
    assert_eq!(run["latency_samples_count"], 500, "{run}");
    assert_eq!(run["unsent_arrivals_count"], 0);
    assert!(run["overdue_arrivals_count"].as_u64() > Some(400), "{run}");
    assert!(run["latency_p50_us"].as_f64().unwrap() > 5e5 && run.get("lower_bounds").is_none());
}

#[test]
fn a_target_that_is_not_there_is_learnt_before_the_first_round() {
    let answered = Arc::new(Mutex::new(0));
    let addr = serve({
        let answered = Arc::clone(&answered);
        move |stream| {
            answer(stream, |_| {
                *answered.lock().unwrap() += 1;
                Some(b"+OK\r\n")
            });
        }
    });
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (output, _) = load("", &format!("--target a={addr} --target b={gone} -n 10"));
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(problem.contains(&format!("b: cannot connect to {gone}")), "{problem}");
    assert_eq!((output.status.code(), *answered.lock().unwrap()), (Some(1), 0));
}

#[test]
fn a_target_that_fails_in_the_middle_is_marked_and_the_others_go_on() {
    let there = serve(|stream| answer(stream, |_| Some(b"+OK\r\n")));
    // It is looked at, has one round, and is gone in the second.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = listener.local_addr().unwrap();
    thread::spawn(move || {
        for _ in 0..2 {
            let (stream, _) = listener.accept().unwrap();
            thread::spawn(|| answer(stream, |_| Some(b"+OK\r\n")));
        }
    });
    let dir = Dir::new("ended");
    let page = dir.0.join("page");
    let flags = format!(
        "--target there={there} --target gone={gone} --rounds 3 -c 1 -n 50 --html {}",
        page.display()
    );
    let (output, json) = load("", &flags);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let [first, second] = &json["targets"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!(first["runs"].as_array().unwrap().len(), 3);
    assert_eq!(second["runs"].as_array().unwrap().len(), 1);
    assert!(second["ended"].as_str().unwrap().contains("round 2"), "{second}");
    assert!(first.get("ended").is_none());
    assert!(std::fs::read_to_string(page).unwrap().contains("ended in round 2"));
}

#[test]
fn a_file_that_cannot_be_written_is_learnt_first_and_costs_no_other() {
    let addr = serve(|stream| answer(stream, |_| Some(b"+OK\r\n")));
    for flag in ["--html", "--png", "--hgrm"] {
        let (output, _) = load(&addr, &format!("-c 1 -n 10 {flag} /proc/none/file"));
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(problem.contains(flag) && !problem.contains("ops/s"), "{problem}");
        assert_eq!(output.status.code(), Some(1));
    }
    // One that goes away meanwhile: the others are written all the same.
    let dir = Dir::new("files");
    let (html, hgrm) = (dir.0.join("sub/page"), dir.0.join("table"));
    std::fs::create_dir(dir.0.join("sub")).unwrap();
    let gone = Mutex::new(Some(dir.0.join("sub")));
    let gone = Arc::new(gone);
    let addr = serve(move |stream| {
        let gone = Arc::clone(&gone);
        answer(stream, move |_| {
            if let Some(dir) = gone.lock().unwrap().take() {
                std::fs::remove_dir(dir).unwrap();
            }
            Some(b"+OK\r\n")
        });
    });
    let flags = format!("-c 1 -n 10 --html {} --hgrm {}", html.display(), hgrm.display());
    let (output, json) = load(&addr, &flags);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--html"));
    assert_eq!(json["runs"][0]["ops_count"], 10);
    assert!(std::fs::read_to_string(hgrm).unwrap().contains("#[Max"));
}

#[test]
fn the_percentile_table_may_be_standard_output() {
    let addr = serve(|stream| answer(stream, |_| Some(b"+OK\r\n")));
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--addr", &addr, "-d", "1", "--warmup", "0", "-c", "1", "-n", "10", "--hgrm", "-"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.trim_start().starts_with("Value") && !table.contains("ops/s"), "{table}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("ops/s"));
}

#[test]
fn an_interrupted_round_is_no_part_of_the_medians() {
    // The first round is answered at once; in the second every answer takes its time.
    let slow = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let addr = serve(move |stream| {
        let slow = Arc::clone(&slow);
        answer(stream, move |_| {
            if slow.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= 50 {
                thread::sleep(Duration::from_millis(200));
            }
            Some(b"+OK\r\n")
        });
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--target", &format!("one={addr}"), "--rounds", "20", "-d", "1", "--warmup", "0"])
        .args(["-c", "1", "-n", "50", "--progress", "--json", "-"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("run 2/20 · measuring") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut stderr, &mut line).unwrap() > 0);
    }
    let kill = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(kill.unwrap().success());
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["interrupted"], "1 of 20 rounds, interrupted");
    let target = &json["targets"][0];
    assert_eq!(target["runs"].as_array().unwrap().len(), 2);
    assert_eq!(target["runs"][1]["interrupted"], true);
    assert_eq!(target["median"]["ops_count"], 50, "of the first alone: {target}");
    assert_eq!(target["median"]["latency_p50_us"], target["runs"][0]["latency_p50_us"]);
}

#[test]
fn error_replies_fail_the_program_unless_allowed() {
    let addr = serve(|stream| {
        answer(stream, |n| Some(if n % 2 == 0 { b"-BUSY not now\r\n" } else { b"+OK\r\n" }));
    });
    let (output, json) = load(&addr, "-c 1 -n 100");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json["runs"][0]["errors_by_token_count"]["BUSY"], 50);
    assert_eq!(json["runs"][0]["ops_count"], 50);
    assert!(String::from_utf8_lossy(&output.stderr).contains("BUSY not now"));
    assert!(load(&addr, "-c 1 -n 100 --allow-errors").0.status.success());
}

#[test]
fn a_broken_connection_is_opened_again_and_its_operations_are_unknown() {
    // Every connection dies on its eleventh request.
    let addr = serve(|stream| answer(stream, |n| (n < 10).then_some(b"+OK\r\n")));
    let (output, json) = load(&addr, "-c 1 -n 33");
    assert!(output.status.success(), "{output:?}");
    let run = &json["runs"][0];
    assert_eq!(run["ops_count"], 30);
    assert_eq!(run["unknown_outcomes_count"], 3);
    assert_eq!(run["disconnects_count"], 3);
}

#[test]
fn a_server_that_never_answers_ends_with_unknown_outcomes() {
    let addr = serve(|stream| {
        thread::sleep(Duration::from_secs(60));
        drop(stream);
    });
    let (output, json) = load(&addr, "-c 2 -P 2 --duration 0.2 --drain 0.2");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json["runs"][0]["unknown_outcomes_count"], 4);
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing was answered"));
}

#[test]
fn ctrl_c_prints_what_was_measured() {
    let addr = serve(|stream| answer(stream, |_| Some(b"+OK\r\n")));
    let mut child = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--addr", &addr, "--value-size", "1", "--warmup", "0", "--duration", "600"])
        .args(["-c", "1", "--progress"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The first progress line: the run is under way, whatever this machine is busy with.
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    assert!(line.contains("measuring"), "{line}");
    let kill = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(kill.unwrap().success());
    let asked = Instant::now();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(text.contains("ops/s") && text.contains("0 of 1 runs, interrupted"), "{text}");
    assert!(asked.elapsed() < Duration::from_secs(300), "it did not wait for --duration");
}

/// What a small ZooKeeper keeps: the value of every path.
type Znodes = Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>;

/// Reads one frame: four bytes of length, then as many.
fn frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn send_frame(stream: &mut TcpStream, parts: &[&[u8]]) {
    let body = parts.concat();
    let frame = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
    // A client that has gone needs no answer.
    let _ = stream.write_all(&frame);
}

/// Serves one session: gives it an id, then answers create, getData, setData and close.
fn zookeeper(mut stream: TcpStream, znodes: &Znodes, closed: &Sender<()>) {
    let connect = frame(&mut stream).unwrap();
    assert_eq!(connect.len(), 4 + 8 + 4 + 8 + 4 + 16 + 1);
    let (timeout, session) = (&connect[12..16], &[7; 8]);
    send_frame(&mut stream, &[&[0; 4], timeout, session, &[0, 0, 0, 16], &[1; 16], &[0]]);
    let field = |bytes: &[u8], at: usize| {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        bytes[at + 4..at + 4 + length].to_vec()
    };
    while let Some(request) = frame(&mut stream) {
        let (xid, kind) = (&request[..4], i32::from_be_bytes(request[4..8].try_into().unwrap()));
        if kind == -11 {
            // Whoever counts may have gone.
            let _ = closed.send(());
            return;
        }
        let path = field(&request, 8);
        let value_at = 12 + path.len();
        let mut znodes = znodes.lock().unwrap();
        let there = znodes.contains_key(&path);
        let (error, body): (i32, Vec<u8>) = match kind {
            1 if there => (-110, Vec::new()),
            1 => {
                znodes.insert(path.clone(), field(&request, value_at));
                (0, [&(path.len() as u32).to_be_bytes()[..], &path].concat())
            }
            4 | 5 if !there => (-101, Vec::new()),
            4 => {
                let value = &znodes[&path];
                (0, [&(value.len() as u32).to_be_bytes()[..], value, &[0; 68]].concat())
            }
            5 => {
                znodes.insert(path, field(&request, value_at));
                (0, vec![0; 68])
            }
            _ => (-6, Vec::new()),
        };
        drop(znodes);
        send_frame(&mut stream, &[xid, &[0; 8], &error.to_be_bytes(), &body]);
    }
}

#[test]
fn zookeeper_s_znodes_are_made_before_they_are_set_and_read() {
    let (znodes, (sender, closed)) = (Znodes::default(), mpsc::channel());
    let addr = serve({
        let znodes = Arc::clone(&znodes);
        move |stream| zookeeper(stream, &znodes, &sender)
    });
    let flags = "--target zookeeper -c 3 -P 4 --keys 50 -n 600 --read-share 0.5 --value-size 100";
    let (output, json) = load(&addr, flags);
    assert!(output.status.success(), "{output:?}");
    let run = &json["runs"][0];
    assert_eq!((&run["ops_count"], &run["errors_count"]), (&600.into(), &0.into()), "{run}");
    assert_eq!(run["missing_keys_count"], 0);
    let writes = run["acked_writes_count"].as_u64().unwrap();
    assert!(0 < writes && writes < 600, "{run}");
    assert!(run["read_latency_p50_us"].is_f64() && run["write_latency_p50_us"].is_f64(), "{run}");
    let znodes = znodes.lock().unwrap();
    assert_eq!(znodes.len(), 50);
    assert!(znodes.contains_key(&b"/key:000000000049"[..]));
    assert!(znodes.values().all(|value| value.len() == 100));
    // Three connections filled and three were measured; each took its leave.
    for _ in 0..6 {
        closed.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    // A second run finds the znodes there, which is as good.
    drop(znodes);
    assert!(load(&addr, "--target zookeeper -c 1 --keys 50 -n 10").0.status.success());
}

#[test]
fn a_zookeeper_that_forgets_its_znodes_fails_the_run_in_words() {
    let addr = serve(|stream| {
        let znodes = Znodes::default();
        zookeeper(stream, &znodes, &mpsc::channel().0);
    });
    // Every connection has znodes of its own here: those made by the fill are gone for the run.
    let (output, json) = load(&addr, "--target zookeeper -c 1 --keys 5 -n 10");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json["runs"][0]["errors_by_token_count"]["NIL"], 10);
    assert!(String::from_utf8_lossy(&output.stderr).contains("the key does not exist"));
}

#[test]
fn no_server_is_said_plainly() {
    // A port that was free a moment ago.
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (output, _) = load(&addr, "-n 1");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("cannot connect") && text.contains(&addr), "{text}");
}
