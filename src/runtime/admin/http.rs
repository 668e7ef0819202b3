//! As much of HTTP/1.1 as an admin port needs: a head without a body in, one answer out, then the end.
//!
//! ```text
//!  GET /readyz HTTP/1.1 ␍␊ Host: … ␍␊ ␍␊   ──►   HTTP/1.1 200 OK ␍␊ … Connection: close ␍␊ ␍␊ body
//! ```

use std::net::IpAddr;

use crate::limits::{ADMIN_HEAD_BYTES_MAX, ADMIN_HEADERS_MAX};

/// What clients may call the port they have reached.
///
/// A page of somebody else's site can have a browser on this machine ask here: it gives its own name an address of this
/// machine (DNS rebinding), and reads the answer as its own. The browser says that name as `Host`, so a port that only
/// this machine reaches does not answer to names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// `localhost`, and addresses.
    Local,
    /// Any: a port that other machines reach has whatever name they were told.
    Any,
}

impl Names {
    /// Of a port that listens on this address.
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_loopback() { Self::Local } else { Self::Any }
    }

    fn has(self, host: &[u8]) -> bool {
        let Ok(host) = std::str::from_utf8(host) else { return false };
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
        };
        let is_local = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
        self == Self::Any || is_local
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) target: Target,
    /// `HEAD`: the answer's head is wanted, without its body.
    pub(super) head_only: bool,
    /// The client reads OpenMetrics, which names units; otherwise it gets Prometheus' own text.
    pub(super) open_metrics: bool,
}

/// What there is to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Page,
    Live,
    Ready,
    Metrics,
    Status,
}

impl Target {
    const ALL: [(&'static str, Self); 5] = [
        ("/", Self::Page),
        ("/livez", Self::Live),
        ("/readyz", Self::Ready),
        ("/metrics", Self::Metrics),
        ("/status", Self::Status),
    ];
}

/// What became of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// More must come.
    Partial,
    Asked(Request),
    Refused(Response),
}

/// An answer, not yet encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: Status,
    pub(super) kind: &'static str,
    pub(super) body: Vec<u8>,
}

/// The answers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 200,
    BadRequest = 400,
    NotFound = 404,
    MethodNotAllowed = 405,
    RequestTimeout = 408,
    Misdirected = 421,
    HeadTooLarge = 431,
    Unavailable = 503,
    VersionNotSupported = 505,
}

impl Status {
    const fn reason(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::BadRequest => "Bad Request",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::RequestTimeout => "Request Timeout",
            Self::Misdirected => "Misdirected Request",
            Self::HeadTooLarge => "Request Header Fields Too Large",
            Self::Unavailable => "Service Unavailable",
            Self::VersionNotSupported => "HTTP Version Not Supported",
        }
    }
}

/// Answers since the start, by class.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Answered {
    counts: [u64; Self::CLASSES.len()],
}

impl Answered {
    /// Those that there are: nothing is redirected.
    const CLASSES: [(u16, &'static str); 3] = [(2, "2xx"), (4, "4xx"), (5, "5xx")];

    pub(super) fn count(&mut self, status: Status) {
        let class = status as u16 / 100;
        for ((of, _), count) in Self::CLASSES.iter().zip(&mut self.counts) {
            *count += u64::from(*of == class);
        }
    }

    pub(super) fn by_class(self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::CLASSES.into_iter().map(|(_, name)| name).zip(self.counts)
    }
}

/// What a page of ours may do in a browser: run what is in it, and ask the node it came from.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      img-src data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";

impl Response {
    /// Plain text, one or more lines.
    pub(super) fn text(status: Status, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.push('\n');
        Self { status, kind: "text/plain; charset=utf-8", body: text.into_bytes() }
    }

    /// Its bytes.
    pub(super) fn encode(&self, head_only: bool) -> Vec<u8> {
        let Self { status, kind, body } = self;
        let allow = match status {
            Status::MethodNotAllowed => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        let mut bytes = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Content-Security-Policy: {POLICY}\r\nConnection: close\r\n\r\n",
            *status as u16,
            status.reason(),
            body.len(),
        )
        .into_bytes();
        if !head_only {
            bytes.extend_from_slice(body);
        }
        bytes
    }
}

/// Understands what has arrived of a request. What follows the head is not looked at: the connection
/// ends with the answer.
pub(super) fn parse(bytes: &[u8], names: Names) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; ADMIN_HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let refused = |status, why: &str| Parsed::Refused(Response::text(status, why));
    let too_long = || {
        let why = format!("the head of a request has at most {ADMIN_HEAD_BYTES_MAX} bytes here");
        refused(Status::HeadTooLarge, &why)
    };
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if ADMIN_HEAD_BYTES_MAX < length => too_long(),
        Ok(httparse::Status::Complete(_)) => {
            understand(&head, names).unwrap_or_else(Parsed::Refused)
        }
        Ok(httparse::Status::Partial) if ADMIN_HEAD_BYTES_MAX <= bytes.len() => too_long(),
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => {
            let why = format!("a request has at most {ADMIN_HEADERS_MAX} header lines here");
            refused(Status::HeadTooLarge, &why)
        }
        Err(httparse::Error::Version) => {
            refused(Status::VersionNotSupported, "this port speaks HTTP/1.1 and HTTP/1.0")
        }
        Err(error) => refused(Status::BadRequest, &format!("not an HTTP request: {error}")),
    }
}

fn understand(head: &httparse::Request<'_, '_>, names: Names) -> Result<Parsed, Response> {
    let values = |name: &'static str| {
        let named = head.headers.iter().filter(move |it| it.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value)
    };
    let bad = |why: &str| Response::text(Status::BadRequest, why);
    if head.version == Some(1) && values("host").count() != 1 {
        return Err(bad("a request of HTTP/1.1 names its Host once"));
    }
    if !values("host").all(|host| names.has(host)) {
        let why = "this port is for this machine alone: call it localhost, or by its address";
        return Err(Response::text(Status::Misdirected, why));
    }
    if values("transfer-encoding").next().is_some()
        || values("content-length").any(|value| value != b"0")
    {
        return Err(bad("requests to this port have no body"));
    }
    let head_only = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Response::text(Status::MethodNotAllowed, "only GET and HEAD, here")),
    };
    let path = path(head.path.unwrap_or_default());
    let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
    let Some((_, target)) = Target::ALL.into_iter().find(|(name, _)| *name == path) else {
        let all = Target::ALL.map(|(name, _)| name).join(" ");
        return Err(Response::text(Status::NotFound, format!("no such page; there are {all}")));
    };
    let open_metrics = values("accept").any(|value| accepts(value, "application/openmetrics-text"));
    Ok(Parsed::Asked(Request { target, head_only, open_metrics }))
}

/// Whether a line `Accept` names this kind, and not with a weight of 0, which says that it is not wanted.
fn accepts(line: &[u8], kind: &str) -> bool {
    let is_zero = |part: &str| {
        let weight = part.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
        weight.is_some_and(|(_, weight)| weight.trim().parse() == Ok(0.0_f32))
    };
    std::str::from_utf8(line).unwrap_or_default().split(',').any(|range| {
        let (named, rest) = range.split_once(';').unwrap_or((range, ""));
        named.trim().eq_ignore_ascii_case(kind) && !rest.split(';').any(is_zero)
    })
}

/// The path of a request's target, which may be a whole URL, without its query.
fn path(target: &str) -> &str {
    let whole = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"));
    let target = whole.map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    target.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(target: Target) -> Parsed {
        Parsed::Asked(Request { target, head_only: false, open_metrics: false })
    }

    fn status(bytes: &str) -> Status {
        match parse(bytes.as_bytes(), Names::Any) {
            Parsed::Refused(response) => response.status,
            other => panic!("{bytes:?} is {other:?}"),
        }
    }

    #[test]
    fn every_page_is_found_and_the_query_is_not_part_of_its_name() {
        for (text, target) in Target::ALL {
            let slash = if text == "/" { "/".to_owned() } else { format!("{text}/") };
            for path in [text.to_owned(), slash, format!("{text}?x=1"), format!("http://a:1{text}")]
            {
                let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                assert_eq!(parse(request.as_bytes(), Names::Any), asked(target), "{path}");
            }
        }
        assert_eq!(parse(b"GET /livez HTTP/1.0\r\n\r\n", Names::Local), asked(Target::Live));
        let Parsed::Asked(request) = parse(
            b"HEAD /metrics HTTP/1.1\r\nhost: a\r\naccept: text/plain, application/openmetrics-text;q=0.9\r\n\r\n",
            Names::Any,
        ) else {
            panic!("a good request")
        };
        assert!(request.head_only && request.open_metrics);
    }

    #[test]
    fn openmetrics_is_for_who_wants_it() {
        let kind = "application/openmetrics-text";
        for (line, wants) in [
            ("application/openmetrics-text", true),
            ("text/plain;q=0.5, Application/OpenMetrics-Text; version=1.0.0; q=0.001", true),
            ("application/openmetrics-text;version=1.0.0;q=0", false),
            ("application/openmetrics-text; Q=0.000 ,text/plain", false),
            ("application/openmetrics-text;q=0,application/openmetrics-text;version=1.0.0", true),
            ("application/openmetrics-texts", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(accepts(line.as_bytes(), kind), wants, "{line}");
        }
    }

    #[test]
    fn what_is_not_whole_waits_and_what_is_wrong_is_refused_by_name() {
        for partial in ["", "G", "GET /livez HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\n"] {
            assert_eq!(parse(partial.as_bytes(), Names::Any), Parsed::Partial, "{partial:?}");
        }
        let host = "HTTP/1.1\r\nHost: a\r\n";
        for (bytes, expected) in [
            ("\0\0".to_owned(), Status::BadRequest),
            ("*1\r\n$4\r\nPING\r\n".to_owned(), Status::BadRequest),
            ("GET /livez HTTP/1.1\r\n\r\n".to_owned(), Status::BadRequest),
            (format!("GET /livez {host}Host: b\r\n\r\n"), Status::BadRequest),
            (format!("GET /livez {host}Content-Length: 3\r\n\r\nabc"), Status::BadRequest),
            (format!("GET /livez {host}Transfer-Encoding: chunked\r\n\r\n"), Status::BadRequest),
            (format!("POST /livez {host}\r\n"), Status::MethodNotAllowed),
            (format!("GET /nothing {host}\r\n"), Status::NotFound),
            (format!("GET //livez {host}\r\n"), Status::NotFound),
            (format!("GET /livez// {host}\r\n"), Status::NotFound),
            ("GET / HTTP/2.0\r\n\r\n".to_owned(), Status::VersionNotSupported),
        ] {
            assert_eq!(status(&bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_port_of_this_machine_alone_does_not_answer_to_the_names_of_others() {
        let asks = |host: &str, names| {
            parse(format!("GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), names)
        };
        for host in
            ["127.0.0.1:7201", "localhost", "LocalHost:80", "[::1]:7201", "[::1]", "10.0.0.1"]
        {
            assert_eq!(asks(host, Names::Local), asked(Target::Status), "{host}");
        }
        for host in
            ["evil.example:7201", "localhost.evil.example", "127.0.0.1.evil.example", "", "[x"]
        {
            let Parsed::Refused(response) = asks(host, Names::Local) else { panic!("{host}") };
            assert_eq!(response.status, Status::Misdirected, "{host}");
            assert_eq!(asks(host, Names::Any), asked(Target::Status), "{host}");
        }
        let of = |address: &str| Names::of(address.parse().expect("an address"));
        assert_eq!(["127.0.0.1", "::1"].map(of), [Names::Local; 2]);
        assert_eq!(["0.0.0.0", "10.0.0.1", "::"].map(of), [Names::Any; 3]);
    }

    #[test]
    fn heads_are_bounded_in_bytes_and_lines() {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        let long = |bytes: usize| format!("{start}{}", "x".repeat(bytes - start.len()));
        assert_eq!(parse(long(ADMIN_HEAD_BYTES_MAX - 1).as_bytes(), Names::Any), Parsed::Partial);
        assert_eq!(status(&long(ADMIN_HEAD_BYTES_MAX)), Status::HeadTooLarge);
        let whole = |bytes: usize| long(bytes - 4) + "\r\n\r\n";
        assert_eq!(parse(whole(ADMIN_HEAD_BYTES_MAX).as_bytes(), Names::Any), asked(Target::Page));
        assert_eq!(status(&whole(ADMIN_HEAD_BYTES_MAX + 1)), Status::HeadTooLarge);
        let lines = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(ADMIN_HEADERS_MAX + 1));
        assert_eq!(status(&lines), Status::HeadTooLarge);
    }

    #[test]
    fn an_answer_says_how_long_it_is_and_that_it_is_the_last() {
        let bytes = Response::text(Status::MethodNotAllowed, "no").encode(false);
        let text = String::from_utf8(bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{head}");
        for line in ["Content-Length: 3", "Allow: GET, HEAD", "Connection: close"] {
            assert!(head.lines().any(|found| found == line), "{line} is not in {head}");
        }
        assert_eq!(body, "no\n");
        let bytes = Response::text(Status::Ok, "live").encode(true);
        let text = String::from_utf8(bytes).expect("text");
        assert!(text.contains("Content-Length: 5\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    }
}
