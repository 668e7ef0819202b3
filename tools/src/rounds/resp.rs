//! A client of one node: commands written in one go, replies read one by one.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for a connection to a node of this machine.
const CONNECT: Duration = Duration::from_secs(1);
/// Longest wait for a reply. A node answers within `--request-ms` (2.5 s) or says UNCERTAIN.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Largest bulk and longest array this client believes.
const LENGTH_MAX: i64 = 64 << 20;

/// One reply, RESP2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-NOLEADER group 3 …`, without the sign.
    Error(String),
    /// `:42`
    Integer(i64),
    /// `$3 abc`; `None` is nil.
    Bulk(Option<Vec<u8>>),
}

/// One connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends commands that [`encode`] wrote. After an error any of them may have been executed.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next reply.
    pub fn receive(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 || !line.ends_with("\r\n") {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the node closed it"));
        }
        let garbage = || io::Error::new(io::ErrorKind::InvalidData, format!("no reply: {line:?}"));
        let (sign, rest) = line.trim_end().split_at_checked(1).ok_or_else(garbage)?;
        let number = || rest.parse::<i64>().map_err(|_| garbage());
        match sign {
            "+" => Ok(Reply::Simple(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            ":" => Ok(Reply::Integer(number()?)),
            "$" => match number()? {
                -1 => Ok(Reply::Bulk(None)),
                length @ 0..=LENGTH_MAX => {
                    let mut bytes = vec![0; length as usize + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length as usize);
                    Ok(Reply::Bulk(Some(bytes)))
                }
                _ => Err(garbage()),
            },
            _ => Err(garbage()),
        }
    }

    /// One command, one reply.
    pub fn ask(&mut self, command: &[&str]) -> io::Result<Reply> {
        let mut bytes = Vec::new();
        encode(command, &mut bytes);
        self.send(&bytes)?;
        self.receive()
    }
}

/// Appends one command.
pub fn encode(command: &[impl AsRef<str>], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for word in command {
        let word = word.as_ref();
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn replies_are_read_and_a_cut_one_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut client = Client::connect(listener.local_addr().expect("bound")).expect("connects");
        let (mut node, _) = listener.accept().expect("accepts");
        node.write_all(b"+OK\r\n-BUSY no\r\n:-7\r\n$-1\r\n$4\r\na\r\nb\r\n$9\r\nabc")
            .expect("sent");
        drop(node);
        let expected = [
            Reply::Simple("OK".into()),
            Reply::Error("BUSY no".into()),
            Reply::Integer(-7),
            Reply::Bulk(None),
            Reply::Bulk(Some(b"a\r\nb".to_vec())),
        ];
        for reply in expected {
            assert_eq!(client.receive().expect("whole"), reply);
        }
        assert!(client.receive().is_err(), "nine bytes were promised, three came");
    }

    #[test]
    fn commands_are_arrays_of_bulks() {
        let mut bytes = Vec::new();
        encode(&["GET", "a b"], &mut bytes);
        assert_eq!(bytes, b"*2\r\n$3\r\nGET\r\n$3\r\na b\r\n");
    }
}
