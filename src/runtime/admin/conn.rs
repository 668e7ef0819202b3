//! One connection to the admin port: a request in, an answer out, and its end.
//!
//! ```text
//!            head is whole            cores have told           all sent           peer has closed
//!  Reading ────────────────► Waiting ────────────────► Sending ─────────► Lingering ─────────────► over
//!     │ bad, too long, too late                            ▲                  │
//!     └──────────────────────────── a 4xx ─────────────────┘                  └── 5 s ──► over
//! ```
//!
//! A time runs in every state but `Waiting`, which the gathering bounds, and no byte that arrives makes it
//! longer: a client that sends one byte a second is no better off than one that sends nothing.

use std::io::{self, Read as _};
use std::net::{Shutdown, TcpStream};

use rustix::event::PollFlags;

use crate::id::Tick;
use crate::limits::{
    ADMIN_HEAD_BYTES_MAX, ADMIN_LINGER_MS_MAX, ADMIN_REQUEST_MS_MAX, ADMIN_SEND_MS_MAX,
};
use crate::runtime::socket;

use super::http::{self, Names, Parsed, Request, Response, Status};

/// One connection. At most `2 * ADMIN_CONNECTIONS_MAX` of them, all on the admin thread.
#[derive(Debug)]
pub(super) struct Conn {
    socket: TcpStream,
    state: State,
    until: Tick,
    names: Names,
    /// The answer, until somebody counts it.
    answered: Option<Status>,
}

#[derive(Debug)]
enum State {
    /// The head, as far as it has arrived.
    Reading(Vec<u8>),
    /// The cores are asked.
    Waiting(Request),
    /// The answer, and how much of it has left.
    Sending(Vec<u8>, usize),
    /// Nothing is left to say. Closed while bytes of the client are unread, the socket would tell it to
    /// forget what it has not read of ours.
    Lingering,
    Over,
}

impl Conn {
    /// A client that was accepted; its socket never blocks.
    pub(super) fn new(socket: TcpStream, names: Names, now: Tick) -> Self {
        let state = State::Reading(Vec::new());
        let until = now.plus(ADMIN_REQUEST_MS_MAX);
        Self { socket, state, until, names, answered: None }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// What to poll for.
    pub(super) fn interest(&self) -> PollFlags {
        match self.state {
            State::Reading(_) | State::Lingering => PollFlags::IN,
            State::Sending(..) => PollFlags::OUT,
            State::Waiting(_) | State::Over => PollFlags::empty(),
        }
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Tick> {
        (!matches!(self.state, State::Waiting(_))).then_some(self.until)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// What it was answered with, once.
    pub(super) fn take_answered(&mut self) -> Option<Status> {
        self.answered.take()
    }

    /// Whether it has not been answered yet.
    pub(super) fn is_served(&self) -> bool {
        matches!(self.state, State::Reading(_) | State::Waiting(_))
    }

    /// Whether it has said nothing whole yet.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading(_))
    }

    /// Another takes its place.
    pub(super) fn give_way(&mut self) {
        self.state = State::Over;
    }

    /// What it waits for, while the cores are asked.
    pub(super) fn waits_for(&self) -> Option<Request> {
        if let State::Waiting(request) = self.state { Some(request) } else { None }
    }

    /// The socket has something for us, or takes something, or has failed. The request, when it is whole.
    pub(super) fn on_ready(&mut self, now: Tick) -> Option<Request> {
        let outcome = match &self.state {
            State::Reading(_) => self.read(now),
            State::Sending(..) => self.send(now).map(|()| None),
            State::Lingering => self.drain().map(|()| None),
            // Polled for nothing, it can only have failed.
            State::Waiting(_) | State::Over => Err(io::ErrorKind::ConnectionReset.into()),
        };
        outcome.unwrap_or_else(|error: io::Error| {
            tracing::debug!(%error, "a connection to the admin port ended early");
            self.state = State::Over;
            None
        })
    }

    fn read(&mut self, now: Tick) -> io::Result<Option<Request>> {
        let State::Reading(bytes) = &mut self.state else { return Ok(None) };
        let room = ADMIN_HEAD_BYTES_MAX + 1 - bytes.len();
        match (&self.socket).take(room as u64).read_to_end(bytes) {
            // As much as may come, or the client's end.
            Ok(read) if read == room => {}
            Ok(_) if matches!(http::parse(bytes, self.names), Parsed::Partial) => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        match http::parse(bytes, self.names) {
            Parsed::Partial => Ok(None),
            Parsed::Refused(response) => {
                self.answer(&response, now);
                Ok(None)
            }
            Parsed::Asked(request) => {
                self.state = State::Waiting(request);
                Ok(Some(request))
            }
        }
    }

    /// Begin to answer, whatever it waits for.
    pub(super) fn answer(&mut self, response: &Response, now: Tick) {
        let head_only = self.waits_for().is_some_and(|request| request.head_only);
        self.state = State::Sending(response.encode(head_only), 0);
        self.answered = Some(response.status);
        self.until = now.plus(ADMIN_SEND_MS_MAX);
        if let Err(error) = self.send(now) {
            tracing::debug!(%error, "a client of the admin port did not take its answer");
            self.state = State::Over;
        }
    }

    fn send(&mut self, now: Tick) -> io::Result<()> {
        let State::Sending(bytes, sent) = &mut self.state else { return Ok(()) };
        while let Some(more) = socket::send(&self.socket, &bytes[*sent..])? {
            *sent += more;
            if *sent == bytes.len() {
                self.socket.shutdown(Shutdown::Write)?;
                self.state = State::Lingering;
                self.until = now.plus(ADMIN_LINGER_MS_MAX);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whatever the client still says is of no interest; its end is.
    fn drain(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 << 10];
        // One piece per round: a client that never ends does not hold up the others.
        match (&self.socket).read(&mut chunk) {
            Ok(0) => self.state = State::Over,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Time passes.
    pub(super) fn expire(&mut self, now: Tick) {
        if self.deadline().is_none_or(|until| now < until) {
            return;
        }
        match &self.state {
            State::Reading(bytes) if !bytes.is_empty() => {
                let why =
                    format!("the head of a request must be whole after {ADMIN_REQUEST_MS_MAX} ms");
                self.answer(&Response::text(Status::RequestTimeout, why), now);
            }
            _ => self.state = State::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;
    use crate::runtime::admin::http::Target;

    /// Both ends of a connection made at time 0.
    fn pair() -> (Conn, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("accepted");
        let (socket, _) = listener.accept().expect("connected");
        socket.set_nonblocking(true).expect("a socket");
        (Conn::new(socket, Names::Local, Tick(0)), client)
    }

    /// Waits until the other end's bytes, or its end, have arrived.
    fn arrive(conn: &Conn) {
        let mut fds = [rustix::event::PollFd::new(conn.socket(), PollFlags::IN)];
        rustix::event::poll(&mut fds, None).expect("polled");
    }

    fn heard(mut client: TcpStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).expect("an answer and an end, not a reset");
        text
    }

    #[test]
    fn a_request_in_pieces_is_answered_once_and_the_connection_ends() {
        let (mut conn, mut client) = pair();
        client.write_all(b"GET /livez HT").expect("sent");
        arrive(&conn);
        assert_eq!(conn.on_ready(Tick(1)), None);
        client.write_all(b"TP/1.1\r\nHost: localhost\r\n\r\nGET /livez").expect("sent");
        arrive(&conn);
        let request = conn.on_ready(Tick(2)).expect("whole");
        assert_eq!((request.target, conn.deadline()), (Target::Live, None), "no time runs here");
        conn.answer(&Response::text(Status::Ok, "live"), Tick(3));
        assert_eq!((conn.take_answered(), conn.take_answered()), (Some(Status::Ok), None));
        assert_eq!(conn.deadline(), Some(Tick(3 + ADMIN_LINGER_MS_MAX)));
        assert!(heard(client).ends_with("live\n"));
        arrive(&conn);
        conn.on_ready(Tick(4));
        assert!(conn.is_over());
    }

    #[test]
    fn bytes_buy_no_time() {
        let (mut conn, mut client) = pair();
        for at in 1..4 {
            client.write_all(b"G").expect("sent");
            arrive(&conn);
            assert_eq!(conn.on_ready(Tick(at)), None);
        }
        conn.expire(Tick(ADMIN_REQUEST_MS_MAX - 1));
        assert!(conn.is_served());
        conn.expire(Tick(ADMIN_REQUEST_MS_MAX));
        assert!(!conn.is_served());
        assert!(heard(client).starts_with("HTTP/1.1 408 "));
        // One that says nothing hears nothing.
        let (mut conn, client) = pair();
        conn.expire(Tick(ADMIN_REQUEST_MS_MAX));
        assert!(conn.is_over());
        drop(conn);
        assert_eq!(heard(client), "");
    }

    #[test]
    fn a_head_that_is_too_long_is_refused_and_the_refusal_arrives() {
        let (mut conn, mut client) = pair();
        let long =
            [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 2 * ADMIN_HEAD_BYTES_MAX]].concat();
        client.write_all(&long).expect("sent");
        while conn.is_served() {
            arrive(&conn);
            assert_eq!(conn.on_ready(Tick(1)), None);
        }
        while !conn.is_over() && conn.interest() == PollFlags::IN {
            // What was sent past the bound is read before the end, so nothing is lost to a reset.
            let mut peek = [0; 1];
            if conn.socket().peek(&mut peek).is_err() {
                break;
            }
            conn.on_ready(Tick(2));
        }
        assert!(heard(client).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn an_answer_that_nobody_takes_is_given_up() {
        let (mut conn, _client) = pair();
        let body = vec![b'x'; 64 << 20];
        conn.answer(&Response { status: Status::Ok, kind: "text/plain", body }, Tick(10));
        assert_eq!(conn.interest(), PollFlags::OUT, "more than a socket takes");
        conn.expire(Tick(9 + ADMIN_SEND_MS_MAX));
        assert!(!conn.is_over());
        conn.expire(Tick(10 + ADMIN_SEND_MS_MAX));
        assert!(conn.is_over());
    }
}
