//! What clients asked, what they heard, and when: the only evidence the checker accepts.
//!
//! Keys are independent, so each has its own history (a history is linearizable iff its part for
//! every key is). A command over several keys (`MSET`, `MGET`) is not atomic across groups and
//! therefore enters as one operation per key.
//!
//! | the client heard | what the operation means |
//! |---|---|
//! | a result | it took effect once, between its call and its return |
//! | an error that means "not executed" | it never takes effect: it is not part of the history, so whatever it wrote must never be seen |
//! | `-UNCERTAIN`, or nothing because the connection closed | it took effect once at any time after its call, or never |

use std::fmt;

/// What one operation does to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// `GET`.
    Get,
    /// `SET key value`.
    Set(Vec<u8>),
    /// `SET key value IFEQ old`.
    Cas {
        /// The value it must hold.
        old: Vec<u8>,
        /// The value it then holds.
        new: Vec<u8>,
    },
    /// `APPEND key value`.
    Append(Vec<u8>),
    /// `INCR key`.
    Incr,
    /// `DEL key`.
    Del,
}

/// What a client heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// `+OK`.
    Ok,
    /// A value, or none.
    Value(Option<Vec<u8>>),
    /// A number.
    Int(i64),
}

/// One operation on one key.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Who asked.
    pub client: usize,
    /// What for.
    pub act: Act,
    /// When, in virtual microseconds.
    pub called: u64,
    /// When the answer came; `u64::MAX` if none that says whether it was executed.
    pub returned: u64,
    /// The answer; `None` if the outcome is unknown.
    pub answer: Option<Answer>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        write!(f, "[{:>9} … ", self.called)?;
        match self.returned {
            u64::MAX => write!(f, "  unknown] ")?,
            returned => write!(f, "{returned:>9}] ")?,
        }
        write!(f, "client {:<2} ", self.client)?;
        match &self.act {
            Act::Get => write!(f, "GET")?,
            Act::Set(value) => write!(f, "SET {}", text(value))?,
            Act::Cas { old, new } => write!(f, "SET {} IFEQ {}", text(new), text(old))?,
            Act::Append(value) => write!(f, "APPEND {}", text(value))?,
            Act::Incr => write!(f, "INCR")?,
            Act::Del => write!(f, "DEL")?,
        }
        match &self.answer {
            None => Ok(()),
            Some(Answer::Ok) => write!(f, " -> OK"),
            Some(Answer::Int(value)) => write!(f, " -> {value}"),
            Some(Answer::Value(None)) => write!(f, " -> nil"),
            Some(Answer::Value(Some(value))) => write!(f, " -> {}", text(value)),
        }
    }
}

/// Operations per key.
#[derive(Debug, Default)]
pub struct History {
    /// `keys[k]` is the history of key `k`, in the order of the calls.
    pub keys: Vec<Vec<Operation>>,
}

impl History {
    /// Empty histories for this many keys.
    #[must_use]
    pub fn new(keys: usize) -> Self {
        Self { keys: vec![Vec::new(); keys] }
    }

    /// There are this many keys now.
    pub fn grow(&mut self, keys: usize) {
        self.keys.resize(keys.max(self.keys.len()), Vec::new());
    }

    /// A client calls; returns the operation's place.
    pub fn call(&mut self, key: usize, client: usize, act: Act, now: u64) -> (usize, usize) {
        let operations = &mut self.keys[key];
        operations.push(Operation { client, act, called: now, returned: u64::MAX, answer: None });
        (key, operations.len() - 1)
    }

    /// The answer came.
    pub fn answer(&mut self, (key, place): (usize, usize), answer: Answer, now: u64) {
        let operation = &mut self.keys[key][place];
        operation.returned = now;
        operation.answer = Some(answer);
    }

    /// The operation is known never to take effect: it is struck out. Its place stays, so that
    /// other places keep their meaning.
    pub fn strike(&mut self, (key, place): (usize, usize)) {
        // A read without an answer constrains nothing, which is what "struck out" means.
        self.keys[key][place].act = Act::Get;
    }

    /// The operations of `key` that say anything, in the order of the calls: reads without an
    /// answer are left out. They are gone from here: at the end of a world nobody needs a copy.
    #[must_use]
    pub fn take_evidence(&mut self, key: usize) -> Vec<Operation> {
        let mut operations = std::mem::take(&mut self.keys[key]);
        operations.retain(|operation| operation.answer.is_some() || operation.act != Act::Get);
        operations
    }
}
