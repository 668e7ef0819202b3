//! The thread of the admin port: it accepts, hears, asks the cores, answers, and closes what took too long.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::id::Tick;
use crate::limits::ADMIN_CONNECTIONS_MAX;
use crate::runtime::keyring::Keyring;
use crate::runtime::mailbox::Mailbox;
use crate::runtime::shard_loop::Shared;

use super::conn::Conn;
use super::exposition;
use super::gather::{Gather, Gathered, Letter};
use super::health;
use super::http::{Answered, Names, Request, Response, Status, Target};
use super::status;

/// Connections held at most: beside those that are served, as many that are being told that they are too
/// many, or that are about to end.
const HELD_MAX: usize = 2 * ADMIN_CONNECTIONS_MAX;
/// After a failure to accept, the port waits this long, in ms: what is missing is not there at once.
const PAUSE_MS: u64 = 100;

/// A running admin port; it ends when this is dropped.
#[derive(Debug)]
pub struct AdminPort {
    address: SocketAddr,
    mailbox: Arc<Mailbox<Letter>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminPort {
    /// Serve what comes to `listener`, which does not block.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(listener: TcpListener, shared: Shared, keyring: Arc<Keyring>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let mailbox = Arc::new(Mailbox::new(usize::from(shared.roster.cores) + 1)?);
        let gather = Gather::new(shared.mailboxes.clone(), Arc::clone(&mailbox));
        let port = Port {
            listener,
            names: Names::of(address.ip()),
            mailbox: Arc::clone(&mailbox),
            gather,
            shared,
            keyring,
            conns: Vec::new(),
            answered: Answered::default(),
            paused_until: Tick(0),
        };
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || port.run())?;
        Ok(Self { address, mailbox, thread: Some(thread) })
    }

    /// Where it listens; tells the port when port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminPort {
    fn drop(&mut self) {
        self.mailbox.deliver(Letter::Stop);
        if let Some(thread) = self.thread.take() {
            // If it has panicked, its report is on stderr already.
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
#[derive(Debug)]
struct Port {
    listener: TcpListener,
    names: Names,
    mailbox: Arc<Mailbox<Letter>>,
    gather: Gather,
    shared: Shared,
    keyring: Arc<Keyring>,
    conns: Vec<Conn>,
    answered: Answered,
    paused_until: Tick,
}

impl Port {
    fn run(mut self) {
        loop {
            match self.round() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(%error, "the admin port has stopped; the node goes on");
                    return;
                }
            }
        }
    }

    fn now(&self) -> Tick {
        self.shared.clock.now()
    }

    /// Waits for something, and does what there is to do. False at the end.
    fn round(&mut self) -> io::Result<bool> {
        let ready = self.wait()?;
        let now = self.now();
        let mut letters = Vec::new();
        self.mailbox.take(&mut letters);
        for letter in letters {
            match letter {
                Letter::Stop => return Ok(false),
                Letter::Told(report) => {
                    let gathered = self.gather.on_told(now, *report);
                    self.pass_on(gathered, now);
                }
            }
        }
        // The order of the connections is that of the poll: nothing was removed since.
        for (at, _) in ready.into_iter().enumerate().filter(|(_, ready)| *ready) {
            if let Some(request) = self.conns[at].on_ready(now)
                && let Some(response) = self.respond(request, now)
            {
                self.conns[at].answer(&response, now);
            }
        }
        let gathered = self.gather.expire(now);
        self.pass_on(gathered, now);
        self.conns.iter_mut().for_each(|conn| conn.expire(now));
        self.accept(now);
        for status in self.conns.iter_mut().filter_map(Conn::take_answered) {
            self.answered.count(status);
        }
        self.conns.retain(|conn| !conn.is_over());
        Ok(true)
    }

    /// Sleeps until a socket, a core or a deadline wants something; which connections do.
    fn wait(&mut self) -> io::Result<Vec<bool>> {
        let now = self.now();
        let may_accept = self.conns.len() < HELD_MAX && self.paused_until <= now;
        let own = self.conns.iter().filter_map(Conn::deadline).chain(self.gather.deadline());
        let paused = (now < self.paused_until).then_some(self.paused_until);
        let until = own.chain(paused).min();
        let timeout = until.map(|until| {
            let ms = until.0.saturating_sub(now.0);
            Timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as i64 }
        });
        let accepts = if may_accept { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = Vec::with_capacity(self.conns.len() + 2);
        let bell = self.mailbox.bell();
        fds.push(PollFd::from_borrowed_fd(bell, PollFlags::IN));
        fds.push(PollFd::from_borrowed_fd(self.listener.as_fd(), accepts));
        for conn in &self.conns {
            fds.push(PollFd::from_borrowed_fd(conn.socket().as_fd(), conn.interest()));
        }
        self.mailbox.prepare_to_sleep();
        let polled = poll(&mut fds, timeout.as_ref());
        self.mailbox.awake();
        self.mailbox.silence();
        match polled {
            Ok(_) => Ok(fds[2..].iter().map(|fd| !fd.revents().is_empty()).collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn accept(&mut self, now: Tick) {
        while self.conns.len() < HELD_MAX && self.paused_until <= now {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the admin port");
                    self.paused_until = now.plus(PAUSE_MS);
                    return;
                }
            };
            if let Err(error) = socket.set_nonblocking(true) {
                tracing::debug!(%error, "a connection to the admin port failed at once");
                continue;
            }
            let served = self.conns.iter().filter(|conn| conn.is_served()).count();
            let mut conn = Conn::new(socket, self.names, now);
            if ADMIN_CONNECTIONS_MAX <= served {
                match self.conns.iter_mut().find(|conn| conn.is_reading()) {
                    // Whoever says nothing must not have a supervisor believe that the node is dead.
                    Some(oldest) => oldest.give_way(),
                    None => {
                        let why = format!(
                            "{ADMIN_CONNECTIONS_MAX} connections are open already, and that is all; again later"
                        );
                        conn.answer(&Response::text(Status::Unavailable, why), now);
                    }
                }
            }
            self.conns.push(conn);
        }
    }

    /// The answer, if it takes no core to give it; otherwise the cores are being asked.
    fn respond(&mut self, request: Request, now: Tick) -> Option<Response> {
        match request.target {
            Target::Page => return Some(status::page()),
            Target::Live => return Some(health::live(&self.shared.pulse, now)),
            Target::Ready | Target::Metrics | Target::Status => {}
        }
        let hindrances = health::before_cores(&self.shared);
        let is_answered = match request.target {
            // Cores that replay their logs, or have ended, tell nothing.
            Target::Ready => !hindrances.is_empty(),
            _ => self.shared.pulse.loading().next().is_some(),
        };
        if is_answered {
            return Some(health::not_ready(&hindrances));
        }
        let reports = self.gather.want(now)?;
        Some(self.answer(request, &Ok(reports)))
    }

    /// The cores have told, or have not: whoever waits for it is answered.
    fn pass_on(&mut self, gathered: Option<Gathered>, now: Tick) {
        let Some(gathered) = gathered else { return };
        for at in 0..self.conns.len() {
            if let Some(request) = self.conns[at].waits_for() {
                let response = self.answer(request, &gathered);
                self.conns[at].answer(&response, now);
            }
        }
    }

    fn answer(&self, request: Request, gathered: &Gathered) -> Response {
        let reports = match gathered {
            Ok(reports) => reports,
            Err(silent) => return health::silent(silent),
        };
        match request.target {
            Target::Metrics => {
                let (answered, until) = (self.answered, self.keyring.keys().until);
                exposition::metrics(&self.shared, reports, answered, until, request.open_metrics)
            }
            Target::Status => status::status(&self.shared, reports),
            Target::Ready | Target::Live | Target::Page => {
                health::ready(&self.shared, &reports.cores)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::config::Security;
    use crate::id::{ClusterId, Incarnation, NodeId, ShardId};
    use crate::limits::MAILBOX_MAX;
    use crate::runtime::admin::gather::tests::report;
    use crate::runtime::clock::Clock;
    use crate::runtime::pulse::Pulse;
    use crate::runtime::roster::{Card, Roster};
    use crate::runtime::shard_loop::Mail;
    use crate::runtime::socket;

    /// A node of two cores, which do nothing by themselves.
    fn still_node() -> (AdminPort, Shared) {
        let address: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let card = Card {
            cluster: ClusterId(1),
            node: NodeId(1),
            incarnation: Incarnation(1),
            cores: 2,
            groups: 2,
            birth: 1,
            origin: 1,
            address,
            client: None,
            proven: true,
        };
        let clock = Clock::start();
        let mailbox = || Arc::new(Mailbox::new(MAILBOX_MAX).expect("eventfd"));
        let shared = Shared {
            mailboxes: (0..2).map(|_| mailbox()).collect(),
            loading: Arc::new(AtomicUsize::new(2)),
            roster: Arc::new(Roster::new(card, [])),
            roll: Arc::default(),
            clock,
            faults: None,
            pulse: Arc::new(Pulse::new(2, clock.now())),
        };
        let listener = socket::listen(address).expect("a port");
        let keyring = Arc::new(Keyring::open(&Security::default()).expect("no files"));
        (AdminPort::start(listener, shared.clone(), keyring).expect("a thread"), shared)
    }

    fn ask(port: &AdminPort, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(port.address()).expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.write_all(request.as_bytes()).expect("sent");
        client
    }

    /// The status, and the body.
    fn heard(mut client: TcpStream) -> (u16, String) {
        let mut text = String::new();
        client.read_to_string(&mut text).expect("an answer and an end");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    fn get(port: &AdminPort, path: &str) -> (u16, String) {
        heard(ask(port, path))
    }

    #[test]
    fn a_node_that_replays_its_log_is_alive_and_says_what_it_does() {
        let (port, shared) = still_node();
        shared.pulse.loaded(ShardId(1));
        let missing = (503, "not ready\ncore 0 replays its log\n".to_owned());
        for path in ["/readyz", "/metrics", "/status"] {
            assert_eq!(get(&port, path), missing, "{path}");
        }
        assert_eq!(get(&port, "/livez"), (200, "live\n".to_owned()));
        assert_eq!(get(&port, "/").0, 200);
        assert_eq!(health::live(&shared.pulse, Tick(1 << 40)).status, Status::Unavailable);
        shared.pulse.stop();
        let ended = health::live(&shared.pulse, Tick(1 << 40));
        assert_eq!(ended.status, Status::Ok, "cores that have ended are no reason to kill it");
        let (_, body) = get(&port, "/readyz");
        assert_eq!(body, "not ready\nthe node stops\ncore 0 replays its log\n");
        let mut mail = Vec::new();
        shared.mailboxes[1].take(&mut mail);
        assert!(mail.is_empty(), "no core was asked");
    }

    #[test]
    fn a_core_that_does_not_answer_makes_it_a_503_and_the_others_are_not_asked_twice() {
        let (port, shared) = still_node();
        shared.loading.store(0, Ordering::SeqCst);
        (0..2).for_each(|core| shared.pulse.loaded(ShardId(core)));
        // Three at once are one question to each core.
        let waiting = ["/readyz", "/metrics", "/status"].map(|path| ask(&port, path));
        let mut mail = Vec::new();
        while mail.is_empty() {
            std::thread::yield_now();
            shared.mailboxes[0].take(&mut mail);
        }
        let Some(Mail::Tell(question)) = mail.pop() else { panic!("a question") };
        assert!(mail.is_empty());
        question.answer(report(0));
        let why = "not ready\ncore 1 did not answer within 1000 ms\n";
        for client in waiting {
            assert_eq!(heard(client), (503, why.to_owned()));
        }
        assert_eq!(get(&port, "/livez").0, 200, "it asks nobody");
    }
}
