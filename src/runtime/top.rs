//! `outrigger top`: a cluster, live in a terminal.
//!
//! ```text
//!  CLUSTER NODES ─► addresses ─► INFO of each, once a second ─► Sample ─┬─► Model ─► view ─► terminal
//!                                                             before ──┘   rates
//! ```
//!
//! [`model`] makes sense of what the nodes say and knows no terminal; [`view`] draws it and knows no node.

pub mod model;
pub mod view;

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};

use super::access::{self, Access};
use super::asker::Said;
use super::fatal::Fatal;
use model::{Cluster, Heard};

/// What `top` can be told.
#[derive(Debug, Args)]
pub struct Options {
    /// The client address of any node of the cluster.
    #[arg(long, value_name = "IP:PORT")]
    pub node: SocketAddr,
    /// How to get in.
    #[command(flatten)]
    pub access: access::Options,
    /// How often to ask, in ms; 100 to 60000.
    #[arg(long, value_name = "MS", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub every_ms: u64,
    /// Print one picture, after two looks, and end.
    #[arg(long)]
    pub once: bool,
    /// Columns of that picture.
    #[arg(long, value_name = "N", default_value_t = 132,
          value_parser = clap::value_parser!(u16).range(60..=500))]
    pub width: u16,
}

/// How long one question may take: a node that does not answer must not hold up the picture.
const PATIENCE: Duration = Duration::from_millis(500);

/// Shows the cluster until `q`, or once.
///
/// # Errors
/// When the node that was named does not answer at first, or the terminal cannot be used.
pub fn top(options: &Options) -> Result<(), Fatal> {
    let mut watch = Watch::begin(options)?;
    if options.once {
        std::thread::sleep(watch.every);
        watch.look();
        let text = picture(&watch.cluster, options.width);
        print!("{text}");
        return Ok(());
    }
    if !io::stdout().is_terminal() {
        return Err(Fatal::new("stdout is no terminal; print one picture with --once"));
    }
    let mut terminal = ratatui::try_init()
        .map_err(|error| Fatal::new(format!("cannot use the terminal: {error}")))?;
    let shown = show(&mut watch, &mut terminal);
    ratatui::restore();
    shown.map_err(|error| Fatal::new(format!("cannot use the terminal: {error}")))
}

fn show(watch: &mut Watch, terminal: &mut ratatui::DefaultTerminal) -> io::Result<()> {
    loop {
        terminal.draw(|frame| view::draw(frame, &watch.cluster))?;
        let next = Instant::now() + watch.every;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if !event::poll(left)? {
                break;
            }
            match event::read()? {
                Event::Key(key) => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                        return Ok(());
                    }
                    _ => {}
                },
                Event::Resize(..) => break,
                _ => {}
            }
        }
        watch.look();
    }
}

/// The picture as text, as high as it needs to be.
fn picture(cluster: &Cluster, width: u16) -> String {
    let height = view::height(cluster);
    let mut terminal =
        Terminal::new(TestBackend::new(width, height)).expect("memory is a terminal");
    terminal.draw(|frame| view::draw(frame, cluster)).expect("memory is a terminal");
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for row in 0..height {
        let line: String = (0..width).map(|column| buffer[(column, row)].symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Who is asked, and what was heard.
struct Watch {
    access: Access,
    first: SocketAddr,
    every: Duration,
    cluster: Cluster,
    began: Instant,
}

impl Watch {
    fn begin(options: &Options) -> Result<Self, Fatal> {
        let (first, every) = (options.node, Duration::from_millis(options.every_ms));
        let access = Access::open(&options.access)?;
        let (cluster, began) = (Cluster::default(), Instant::now());
        let mut watch = Self { access, first, every, cluster, began };
        let said = watch.ask(first, &["PING"]);
        said.map_err(|error| Fatal::new(format!("{first} does not answer: {error}")))?;
        watch.look();
        Ok(watch)
    }

    /// Asks every node.
    fn look(&mut self) {
        // Any node that answers knows the others.
        let known = self.cluster.addresses();
        let askable = std::iter::once(self.first).chain(known);
        let nodes = askable
            .filter_map(|address| self.ask(address, &["CLUSTER", "NODES"]).ok())
            .find_map(|said| if let Said::Text(text) = said { Some(text) } else { None });
        if let Some(text) = nodes {
            self.cluster.on_nodes(&text);
        }
        self.cluster.on_address(self.first);
        for address in self.cluster.addresses() {
            let heard = match self.ask(address, &["INFO"]) {
                Ok(Said::Text(text)) => Heard::Info(text),
                Ok(said) => Heard::Refused(said.to_string()),
                Err(error) => Heard::Nothing(error.to_string()),
            };
            let now_ms = self.began.elapsed().as_millis() as u64;
            self.cluster.on_heard(address, now_ms, heard);
        }
    }

    fn ask(&self, node: SocketAddr, words: &[&str]) -> io::Result<Said> {
        self.access.connect(node, PATIENCE)?.ask(words)
    }
}
