//! One client, called from whatever runs the caller: it knows no runtime, and asks for none.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use outrigger::id::{GroupId, Index};
use outrigger::runtime::client::{Failure, Why};
use outrigger::store::{Frozen, Restoring, Wanted, whole};
use outrigger::wire::reply::Reply;
use outrigger::{Client, Config, Node, StateMachine};

use super::cluster::{TestDir, free_address};

const PATIENCE: Duration = Duration::from_secs(60);
const GROUP: GroupId = GroupId(0);
/// Writes of each caller, and as many in a session.
const WRITES: i64 = 20;

/// Counts what it executed.
struct Count(i64);

impl StateMachine for Count {
    fn apply(&mut self, _: Index, _: &Bytes, _: Wanted) -> Reply {
        self.0 += 1;
        Reply::Int(self.0)
    }
    fn read(&self, _: &Bytes) -> Reply {
        Reply::Int(self.0)
    }
    fn digest(&self) -> u64 {
        self.0 as u64
    }
    fn len(&self) -> u64 {
        1
    }
    fn freeze(&self) -> Box<dyn Frozen> {
        whole::frozen(self.0.to_le_bytes().to_vec())
    }
    fn restoring(&self) -> Box<dyn Restoring> {
        whole::restoring(|bytes| Some(Box::new(Count(i64::from_le_bytes(bytes.try_into().ok()?)))))
    }
}

/// Everything that a client offers to an async caller, on the executor this is polled by. What the machine counted then.
async fn everything(client: Client) -> Result<i64, Failure> {
    let mut tail = client.tail(GROUP, None).expect("there is room");
    let mut session = client.open_session(GROUP).await?;
    for _ in 0..WRITES {
        client.write(GROUP, "x").await?;
        let seq = session.next_seq();
        let first = session.run(seq, "y").await?;
        let again = session.run(seq, "y").await?;
        assert_eq!(first, again, "executed once");
    }
    let mut heard = 0;
    while heard < 2 * WRITES {
        let change = tail.next().await.expect("no end");
        heard += i64::from(change.payload == "x" || change.session.is_some());
    }
    let refused = client.write(GroupId(99), "given back").await.expect_err("no such group");
    assert_eq!(refused.why(), Some(Why::Invalid));
    assert_eq!(refused.into_payload(), "given back");
    match client.read(GROUP, "").await? {
        Reply::Int(count) => Ok(count),
        reply => panic!("{reply:?}"),
    }
}

/// The same from a thread that has no executor, and blocks in `wait` only.
fn everything_on_a_thread(client: &Client) -> Result<i64, Failure> {
    let mut session = client.open_session(GROUP).wait()?;
    for _ in 0..WRITES {
        client.write(GROUP, "x").wait()?;
        let seq = session.next_seq();
        let first = session.run(seq, "y").wait()?;
        let again = session.run(seq, "y").wait()?;
        assert_eq!(first, again, "executed once");
    }
    match client.read(GROUP, "").wait()? {
        Reply::Int(count) => Ok(count),
        reply => panic!("{reply:?}"),
    }
}

/// The smallest executor there can be: a thread that parks until it is woken.
fn parked<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn a_client_works_on_every_executor_and_on_none() {
    const fn is_portable<T: Send + Sync + Clone + 'static>(_: &T) {}

    let dir = TestDir::new("executors");
    let config = Config { groups: 1, cores: 1, ..Config::new(1, dir.path(), free_address()) };
    let node = Node::start(config, |_| Box::new(Count(0))).expect("it starts");
    assert!(node.wait_until_ready(PATIENCE));
    let client = node.client();
    is_portable(&client);
    let mut expected = 0;
    let mut counts = |who: &str, count: Result<i64, Failure>| {
        expected += 2 * WRITES;
        assert_eq!(count, Ok(expected), "from {who}");
    };

    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    // A task that may move between threads: it is `Send`.
    let count = tokio.block_on(async { tokio.spawn(everything(client.clone())).await });
    counts("tokio", count.expect("it does not panic"));
    // No timer, no reactor: the runtime was built with nothing but its scheduler.
    counts("smol", smol::block_on(smol::spawn(everything(client.clone()))));

    let calls = client.clone();
    let executor = glommio::LocalExecutorBuilder::default().spawn(|| async move {
        // glommio 0.9 now and then loses a wake-up from another thread; a timer finds what was missed.
        let ticks = glommio::spawn_local(async {
            loop {
                glommio::timer::sleep(Duration::from_millis(5)).await;
            }
        });
        let count = everything(calls).await;
        ticks.cancel().await;
        count
    });
    let joined = executor.expect("a thread").join();
    counts("glommio", joined.expect("it does not panic"));

    counts("a thread that parks", parked(everything(client.clone())));
    let calls = client.clone();
    let joined = thread::spawn(move || everything_on_a_thread(&calls)).join();
    counts("a thread that waits", joined.expect("it does not panic"));

    node.stop().expect("a clean end");
    let stopped = smol::block_on(client.write(GROUP, "x")).expect_err("stopped");
    assert_eq!(stopped.why(), Some(Why::Stopped));
}

#[test]
fn no_runtime_shows_in_the_public_names() {
    let names = include_str!("../../docs/public-api.txt");
    for runtime in ["glommio", "tokio", "smol", "futures"] {
        let shown = names.lines().find(|line| line.contains(runtime));
        assert_eq!(shown, None);
    }
}
