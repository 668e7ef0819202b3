//! A blocking RESP client for the commands that ask a node something: `up`, `ctl`, `drain`.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wire::resp::Command;

/// One connection to a node.
pub struct Asker {
    stream: BufReader<Box<dyn Stream>>,
}

/// What an asker talks over.
trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// What a node says, in RESP2. Strings need not be told apart by how they were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Text of any kind.
    Text(String),
    /// What is no text.
    Bytes(Vec<u8>),
    /// An error: its first word is its kind.
    Error(String),
    /// A number.
    Number(i64),
    /// Nothing.
    Nothing,
    /// A list; a map is a list of names and values in turn.
    List(Vec<Said>),
}

/// The largest text taken, in bytes.
const TEXT_BYTES_MAX: usize = 64 << 20;
/// Deepest nesting of lists taken.
const DEPTH_MAX: u32 = 8;

impl Asker {
    /// Connects; each step may take `patience`.
    ///
    /// # Errors
    /// When nobody answers there.
    pub fn connect(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        Self::dial(address, patience).map(Self::over)
    }

    /// A connection in which each step may take `patience`.
    pub(super) fn dial(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(stream)
    }

    /// Asks over this.
    pub(super) fn over(stream: impl Read + Write + Send + 'static) -> Self {
        Self { stream: BufReader::new(Box::new(stream)) }
    }

    /// Says one command and returns the reply.
    ///
    /// # Errors
    /// When the connection breaks, the answer takes too long, or makes no sense.
    pub fn ask(&mut self, words: &[&str]) -> io::Result<Said> {
        let mut bytes = format!("*{}\r\n", words.len());
        for word in words {
            bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(bytes.as_bytes())?;
        self.stream.get_mut().flush()?;
        self.read(0)
    }

    /// Says these commands, one behind the other, and returns the replies in their order.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_all(&mut self, commands: &[Command]) -> io::Result<Vec<Said>> {
        let raw: Vec<&[u8]> = commands.iter().map(|command| &command.raw[..]).collect();
        self.stream.get_mut().write_all(&raw.concat())?;
        self.stream.get_mut().flush()?;
        commands.iter().map(|_| self.read(0)).collect()
    }

    fn read(&mut self, depth: u32) -> io::Result<Said> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not RESP2");
        let Some(text) = line.strip_suffix("\r\n") else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let (kind, rest) = text.split_at_checked(1).ok_or_else(bad)?;
        let number = || rest.parse::<i64>().map_err(|_| bad());
        Ok(match kind {
            "+" => Said::Text(rest.to_owned()),
            "-" => Said::Error(rest.to_owned()),
            ":" => Said::Number(number()?),
            "$" | "*" if number()? < 0 => Said::Nothing,
            "$" => {
                let length = usize::try_from(number()?).map_err(|_| bad())?;
                if TEXT_BYTES_MAX < length {
                    return Err(bad());
                }
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(length);
                String::from_utf8(bytes)
                    .map_or_else(|error| Said::Bytes(error.into_bytes()), Said::Text)
            }
            "*" if depth < DEPTH_MAX => {
                let items = (0..number()?).map(|_| self.read(depth + 1));
                Said::List(items.collect::<io::Result<_>>()?)
            }
            _ => return Err(bad()),
        })
    }
}

/// Whether a node does not let us in: a password, a certificate or a port that is wrong does not become right.
pub(super) fn is_shut_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidData)
}

/// Whether the same words may be answered otherwise a little later.
pub(super) fn may_change(error: &str) -> bool {
    let kind = error.split(' ').next().unwrap_or_default();
    matches!(kind, "BUSY" | "NOLEADER" | "UNCERTAIN" | "LOADING" | "FULL")
}

impl Said {
    /// The value of this name in a map.
    #[must_use]
    pub fn field(&self, name: &str) -> &Said {
        let Said::List(items) = self else { return &Said::Nothing };
        let named = |pair: &&[Said]| matches!(&pair[0], Said::Text(text) if text == name);
        items.chunks_exact(2).find(named).map_or(&Said::Nothing, |pair| &pair[1])
    }

    /// It as bytes; none of anything that is no string.
    #[must_use]
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Said::Text(text) => Some(text.into_bytes()),
            Said::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// It as a number; zero if it is none.
    #[must_use]
    pub fn number(&self) -> i64 {
        if let Said::Number(number) = self { *number } else { 0 }
    }

    /// The items of a list; none of anything else.
    #[must_use]
    pub fn items(&self) -> &[Said] {
        if let Said::List(items) = self { items } else { &[] }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Said::Text(text) | Said::Error(text) => f.write_str(text),
            Said::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Said::Number(number) => write!(f, "{number}"),
            Said::Nothing => f.write_str("nothing"),
            Said::List(items) => {
                let items: Vec<String> = items.iter().map(Said::to_string).collect();
                write!(f, "[{}]", items.join(" "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answered(bytes: &'static [u8]) -> io::Result<Said> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut heard = [0; 14];
            socket.read_exact(&mut heard).unwrap();
            socket.write_all(bytes).unwrap();
            heard
        });
        let mut asker = Asker::connect(address, Duration::from_secs(10)).unwrap();
        let said = asker.ask(&["PING"]);
        assert_eq!(&server.join().unwrap(), b"*1\r\n$4\r\nPING\r\n");
        said
    }

    #[test]
    fn what_a_node_says_is_understood() {
        let said =
            answered(b"*4\r\n$2\r\nid\r\n:4\r\n$7\r\naddress\r\n*2\r\n+a\r\n$-1\r\n").unwrap();
        assert_eq!(said.field("id").number(), 4);
        assert_eq!(said.field("address").items().len(), 2);
        assert_eq!(said.field("lag"), &Said::Nothing);
        assert_eq!(answered(b"-BUSY not yet\r\n").unwrap(), Said::Error("BUSY not yet".into()));
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        for bytes in [&b""[..], b"+OK", b"%1\r\n", b"$5\r\nab\r\n", b":x\r\n", b"*2\r\n:1\r\n"] {
            assert!(answered(bytes).is_err(), "{bytes:?}");
        }
    }
}
