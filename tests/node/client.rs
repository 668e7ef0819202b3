//! A RESP2/RESP3 client that hides nothing: it sends exact bytes and shows exact replies.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::wait::{PATIENCE, wait_for};

/// One connection. Replies come in the order of the commands.
pub(crate) struct Client {
    reader: BufReader<Stream>,
}

/// How a node's clients get in: open to all, in the clear, unless something is set.
#[derive(Clone, Default)]
pub(crate) struct Door {
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) password: Option<String>,
}

/// A test that failed does not use it again.
impl std::panic::RefUnwindSafe for Door {}
impl std::panic::UnwindSafe for Door {}

/// What a client talks over.
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(space),
            Stream::Tls(stream) => stream.read(space),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

/// A reply, one variant per RESP type, so that a test sees a RESP2 nil where RESP3 wants a null.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    /// `$-1`, RESP2.
    NilBulk,
    /// `*-1`, RESP2.
    NilArray,
    /// `_`, RESP3.
    Null,
    Boolean(bool),
    /// `=…`, RESP3: three letters of format, then text.
    Verbatim(String),
    Array(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    Set(Vec<Reply>),
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        wait_for(&format!("a connection to {address}"), || {
            Client::try_connect(address, PATIENCE).ok()
        })
    }

    /// Connects once; a reply may take as long as `patience`.
    pub(crate) fn try_connect(address: SocketAddr, patience: Duration) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Client { reader: BufReader::new(Stream::Plain(stream)) })
    }

    /// Connects once, as the door wants it.
    pub(crate) fn enter(
        address: SocketAddr,
        door: &Door,
        patience: Duration,
    ) -> io::Result<Client> {
        let mut client = Client::try_connect(address, patience)?;
        if let Some(config) = &door.tls {
            let name = ServerName::from(address.ip());
            let session = ClientConnection::new(Arc::clone(config), name).expect("a configuration");
            let Stream::Plain(socket) = client.reader.into_inner() else {
                unreachable!("just made")
            };
            let stream = Box::new(StreamOwned::new(session, socket));
            client = Client { reader: BufReader::new(Stream::Tls(stream)) };
        }
        if let Some(password) = &door.password {
            let reply = client.try_call(&["AUTH", password])?;
            assert_eq!(reply, Reply::ok(), "AUTH");
        }
        Ok(client)
    }

    /// Sends one command and returns its reply. Asks again while the node says that it executed
    /// nothing because it is not ready: that is no answer to the question a test asks.
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Reply {
        wait_for("an answer other than NOLEADER or LOADING", || {
            let reply = self.try_call(arguments).unwrap_or_else(|error| {
                let words: Vec<_> = arguments.iter().map(|a| start_of(a.as_ref())).collect();
                panic!("{} got no reply: {error}", words.join(" "))
            });
            (!reply.is_not_ready()).then_some(reply)
        })
    }

    /// Sends one command and returns whatever comes, once.
    pub(crate) fn try_call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Reply> {
        self.send(&encode(arguments))?;
        self.read()
    }

    /// The command's words separated by spaces, for commands that are simple enough.
    pub(crate) fn say(&mut self, line: &str) -> Reply {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.call(&words)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)?;
        self.reader.get_mut().flush()
    }

    /// A second handle on the socket, to write from another thread.
    pub(crate) fn writer(&self) -> TcpStream {
        let Stream::Plain(socket) = self.reader.get_ref() else { panic!("TLS has one writer") };
        socket.try_clone().expect("a socket can be shared")
    }

    pub(crate) fn read(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| bad("an empty line"))?;
        Ok(match kind {
            "+" => Reply::Simple(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(number(rest)?),
            "_" => Reply::Null,
            "#" => Reply::Boolean(rest == "t"),
            "$" if rest == "-1" => Reply::NilBulk,
            "*" if rest == "-1" => Reply::NilArray,
            "$" => Reply::Bulk(self.blob(rest)?),
            "=" => Reply::Verbatim(String::from_utf8_lossy(&self.blob(rest)?).into_owned()),
            "*" => Reply::Array(self.items(number(rest)?)?),
            "~" => Reply::Set(self.items(number(rest)?)?),
            "%" => {
                let flat = self.items(2 * number(rest)?)?;
                Reply::Map(flat.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
            }
            _ => return Err(bad(&format!("a line of no RESP type: {line:?}"))),
        })
    }

    /// Whether the node closes the connection without saying anything more.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.reader.get_mut().read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// The client's end of the connection.
    pub(crate) fn address(&self) -> SocketAddr {
        self.reader.get_ref().socket().local_addr().expect("connected")
    }

    fn items(&mut self, count: i64) -> io::Result<Vec<Reply>> {
        (0..count).map(|_| self.read()).collect()
    }

    fn blob(&mut self, length: &str) -> io::Result<Vec<u8>> {
        let length = usize::try_from(number(length)?).map_err(|_| bad("a negative length"))?;
        let mut bytes = vec![0; length + 2];
        self.reader.read_exact(&mut bytes)?;
        if bytes.split_off(length) != b"\r\n" {
            return Err(bad("a bulk that is longer than it says"));
        }
        Ok(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Reply {
    pub(crate) fn bulk(bytes: impl AsRef<[u8]>) -> Reply {
        Reply::Bulk(bytes.as_ref().to_vec())
    }

    pub(crate) fn ok() -> Reply {
        Reply::Simple("OK".into())
    }

    /// An error that says: nothing was executed, ask again.
    pub(crate) fn is_not_ready(&self) -> bool {
        matches!(self, Reply::Error(text)
            if ["NOLEADER", "LOADING", "CLUSTERDOWN"].contains(&first_word(text)))
    }

    /// An error after which the command may have been executed or not.
    pub(crate) fn is_uncertain(&self) -> bool {
        matches!(self, Reply::Error(text) if first_word(text) == "UNCERTAIN")
    }

    pub(crate) fn integer(&self) -> i64 {
        match self {
            Reply::Integer(number) => *number,
            other => panic!("expected an integer, got {other}"),
        }
    }

    pub(crate) fn array(self) -> Vec<Reply> {
        match self {
            Reply::Array(items) => items,
            other => panic!("expected an array, got {other}"),
        }
    }

    /// The text of a bulk, simple or verbatim string.
    pub(crate) fn text(&self) -> String {
        match self {
            Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Reply::Simple(text) => text.clone(),
            Reply::Verbatim(text) => text.strip_prefix("txt:").unwrap_or(text).to_owned(),
            other => panic!("expected text, got {other}"),
        }
    }

    #[track_caller]
    pub(crate) fn error(&self) -> &str {
        match self {
            Reply::Error(text) => text,
            other => panic!("expected an error, got {other}"),
        }
    }
}

/// As transcripts spell it: `+OK`, `-ERR …`, `:1`, `"bulk"`, `$-1`, `[:1 "two"]`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &[Reply], open: char, close: char| {
            let items: Vec<String> = items.iter().map(Reply::to_string).collect();
            write!(f, "{open}{}{close}", items.join(" "))
        };
        match self {
            Reply::Simple(text) => write!(f, "+{text}"),
            Reply::Error(text) => write!(f, "-{text}"),
            Reply::Integer(number) => write!(f, ":{number}"),
            Reply::Bulk(bytes) => write!(f, "\"{}\"", start_of(bytes)),
            Reply::NilBulk => write!(f, "$-1"),
            Reply::NilArray => write!(f, "*-1"),
            Reply::Null => write!(f, "_"),
            Reply::Boolean(truth) => write!(f, "#{truth}"),
            Reply::Verbatim(text) => write!(f, "={text}"),
            Reply::Array(items) => list(f, items, '[', ']'),
            Reply::Set(items) => list(f, items, '<', '>'),
            Reply::Map(pairs) => {
                let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "{{{}}}", pairs.join(" "))
            }
        }
    }
}

/// The same, so that a failed comparison can be read.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One command as Redis clients send it.
pub(crate) fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}

fn start_of(bytes: &[u8]) -> String {
    match bytes.len() {
        0..=2000 => bytes.escape_ascii().to_string(),
        length => format!("{}… {length} bytes", bytes[..100].escape_ascii()),
    }
}

fn number(text: &str) -> io::Result<i64> {
    text.parse().map_err(|_| bad(&format!("not a number: {text:?}")))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the node sent {what}"))
}
