//! The load generator as its users meet it: the real program against small servers made here.
#![allow(clippy::disallowed_methods, reason = "the servers of these tests are threads that wait")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
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
        .args(["--addr", addr, "--value-size", "1", "--warmup", "0", "--json", "-"])
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
    let flags = format!(
        "-c 4 -P 3 --threads 2 -n 1000 --runs 2 --server-pids {} --hgrm {}",
        std::process::id(),
        hgrm.display()
    );
    let (output, json) = load(&addr, &flags);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json["runs"].as_array().unwrap().len(), 2);
    for result in [&json["runs"][0], &json["runs"][1], &json["median"]] {
        assert_eq!(result["ops_count"], 1000);
        assert_eq!(result["errors_count"], 0);
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
        for field in ["device_write_bytes_per_op", "unsent_arrivals_count"] {
            assert_eq!(result.get(field), Some(&serde_json::Value::Null), "{field}");
        }
    }
    assert_eq!(json["plan"]["pipeline_count"], 3);
    let table = std::fs::read_to_string(&hgrm).unwrap();
    std::fs::remove_file(&hgrm).unwrap();
    let last = table.lines().rfind(|line| !line.starts_with('#')).unwrap();
    let fields: Vec<f64> = last.split_whitespace().map(|field| field.parse().unwrap()).collect();
    assert_eq!(fields[1..], [1.0, 2000.0]);
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
    assert!(child.wait().unwrap().success());
    assert!(text.contains("ops/s"), "{text}");
    assert!(asked.elapsed() < Duration::from_secs(300), "it did not wait for --duration");
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
