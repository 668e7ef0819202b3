//! The picture of `top`: the nodes, their cores, and the groups that need attention.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Row, Table};

use super::model::{Cluster, Group, Node, Sample, Spread};

/// Groups that are shown in a picture that may be as high as it likes.
const GROUPS_SHOWN: usize = 16;
/// A flush that takes so long at the 99th percentile, in µs, is marked.
const SLOW_FLUSH_US: u64 = 20_000;
/// A replica this many entries behind is marked.
const FAR_BEHIND: u64 = 1_000;
/// Lines that a table takes beside its rows: its frame and its head.
const FRAME: u16 = 3;

/// How high the picture is if it is to show all nodes, all cores, and the first 16 groups.
#[must_use]
pub fn height(cluster: &Cluster) -> u16 {
    let (nodes, cores) = (cluster.addresses().len(), cores(cluster).len());
    let groups = cluster.groups().len().min(GROUPS_SHOWN);
    1 + 3 * FRAME + u16::try_from(nodes + cores + groups).unwrap_or(u16::MAX / 2)
}

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, cluster: &Cluster) {
    let rows =
        |count: usize| Constraint::Length(FRAME + u16::try_from(count).unwrap_or(u16::MAX / 2));
    let cores = cores(cluster);
    let [title, nodes, middle, groups] = Layout::vertical([
        Constraint::Length(1),
        rows(cluster.addresses().len()),
        rows(cores.len()),
        Constraint::Min(FRAME),
    ])
    .areas(frame.area());
    let all = cluster.groups();
    frame.render_widget(headline(cluster, &all), title);
    draw_nodes(frame, nodes, cluster);
    draw_cores(frame, middle, cores);
    draw_groups(frame, groups, &all);
}

fn mark(text: String, is_bad: bool) -> Cell<'static> {
    let style = if is_bad { bad() } else { Style::new() };
    Cell::from(Span::styled(text, style))
}

fn bad() -> Style {
    Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
}

fn headline(cluster: &Cluster, groups: &[Group]) -> Line<'static> {
    let (mut up, mut count, mut name) = (0, 0, String::new());
    let (mut commands, mut commits) = (0.0, 0.0);
    for (_, node) in cluster.nodes() {
        count += 1;
        let Some(now) = &node.now else { continue };
        up += 1;
        name = now.text("cluster_id").to_owned();
        commands += node.rate("total_commands_processed");
    }
    commits += groups.iter().map(|group| group.rate).sum::<f64>();
    let led = groups.iter().filter(|group| group.leader.is_some()).count();
    let ill = up < count || led < groups.len();
    Line::from(vec![
        Span::styled(" outrigger top ", Style::new().add_modifier(Modifier::REVERSED)),
        Span::raw(format!(" cluster {name}  ")),
        Span::styled(
            format!("{up} of {count} nodes, {led} of {} groups led", groups.len()),
            if ill { bad() } else { Style::new().fg(Color::Green) },
        ),
        Span::raw(format!(
            "  {} commands/s  {} commits/s   q ends",
            short(commands),
            short(commits)
        )),
    ])
}

/// A table's columns: what each is called, and how many characters it needs.
type Columns<'a> = &'a [(&'a str, u16)];

/// The first columns of a table, as many as fit into `room` characters: digits that are cut off are worse than none. The
/// last that is shown takes the room that is left.
fn fitting(columns: Columns<'_>, room: u16) -> usize {
    let mut used = 0;
    let fits = columns.iter().take_while(|(_, width)| {
        used += width + u16::from(0 < used);
        used <= room
    });
    fits.count().max(1)
}

fn draw_table<'a>(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &'a str,
    columns: Columns<'a>,
    rows: impl Iterator<Item = Vec<Cell<'a>>>,
) {
    let count = fitting(columns, area.width.saturating_sub(2));
    let shown = &columns[..count];
    let rows = rows.map(|cells| Row::new(cells.into_iter().take(count)));
    let widths = shown.iter().enumerate().map(|(column, (_, width))| {
        if column + 1 < count { Constraint::Length(*width) } else { Constraint::Min(*width) }
    });
    let head = Row::new(shown.iter().map(|(name, _)| Cell::from(*name)))
        .style(Style::new().add_modifier(Modifier::BOLD));
    let table = Table::new(rows, widths).header(head).block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, cluster: &Cluster) {
    let columns = [
        ("node", 5),
        ("address", 21),
        ("leads", 12),
        ("clients", 7),
        ("cmd/s", 7),
        ("flush/s", 7),
        ("ent/flush", 9),
        ("flush p50 p99", 13),
        ("log", 8),
        ("notes", 12),
    ];
    let rows = cluster.nodes().map(|(address, node)| {
        let id = if node.id.is_empty() { "?".to_owned() } else { node.id.clone() };
        let Some(now) = &node.now else {
            let why = node.trouble.clone().unwrap_or_default();
            let mut cells =
                vec![mark(id, true), Cell::from(address.to_string()), mark("down".into(), true)];
            cells.resize(columns.len() - 1, Cell::from(""));
            cells.push(mark(why, true));
            return cells;
        };
        let flush = slowest(now);
        let led = (now.number("groups_led"), now.number("groups"));
        vec![
            Cell::from(id),
            Cell::from(address.to_string()),
            Cell::from(format!("{} of {}", count(led.0), count(led.1))),
            Cell::from(count(now.number("connected_clients"))),
            Cell::from(short(node.rate("total_commands_processed"))),
            Cell::from(short(node.rate("wal_flushes"))),
            Cell::from(tenths(node.entries_per_flush())),
            mark(
                format!("{} {}", percentile(flush, flush.p50), percentile(flush, flush.p99)),
                SLOW_FLUSH_US <= flush.p99,
            ),
            Cell::from(size(now.number("log_bytes"))),
            mark(notes(node, now), true),
        ]
    });
    draw_table(frame, area, "Nodes", &columns, rows);
}

/// The worst percentiles of any core's flushes.
fn slowest(now: &Sample) -> Spread {
    let spreads = (0..now.number("cores")).map(|core| now.spread("flush", core));
    spreads.fold(Spread::default(), |worst, it| Spread {
        count: worst.count + it.count,
        p50: worst.p50.max(it.p50),
        p99: worst.p99.max(it.p99),
        max: worst.max.max(it.max),
    })
}

/// What an operator should look at.
fn notes(node: &Node, now: &Sample) -> String {
    let is_now = [
        ("disk_full", "disk full"),
        ("groups_recalling", "repairing"),
        ("fsync_errors", "flush errors"),
    ];
    let grows = [
        ("flushes_slow", "slow flushes"),
        ("slow_disk_handovers", "slow disk"),
        ("heartbeats_late", "late heartbeats"),
        ("late_turns", "late turns"),
        ("commands_refused", "refusing"),
        ("leader_changes", "leaders change"),
    ];
    let now = is_now.iter().filter(|(name, _)| now.number(name) > 0);
    let grows = grows.iter().filter(|(name, _)| node.rate(name) > 0.0);
    now.chain(grows).map(|(_, note)| *note).collect::<Vec<_>>().join(", ")
}

/// Every core of every node that answers.
fn cores(cluster: &Cluster) -> Vec<(&Sample, u64)> {
    let answers = cluster.nodes().filter_map(|(_, node)| node.now.as_ref());
    answers.flat_map(|now| (0..now.number("cores")).map(move |core| (now, core))).collect()
}

fn draw_cores(frame: &mut Frame<'_>, area: Rect, cores: Vec<(&Sample, u64)>) {
    let columns = [
        ("core", 7),
        ("flushes", 7),
        ("p50", 6),
        ("p99", 6),
        ("max", 6),
        ("turn p50", 8),
        ("p99", 6),
        ("write p99", 9),
        ("links, round trip", 30),
        ("writes set by", 26),
    ];
    let rows = cores.into_iter().map(|(now, core)| {
        let (flush, turn) = (now.spread("flush", core), now.spread("turn", core));
        let write = now.spread("commit", core);
        let links = now.links().filter(|(_, on, ..)| *on == core);
        let links = links.map(|(node, _, is_up, trip)| match is_up {
            true => format!("{node}: {}", micros(trip)),
            false => format!("{node}: down"),
        });
        vec![
            Cell::from(format!("{}/{core}", now.text("node_id"))),
            Cell::from(count(flush.count)),
            Cell::from(percentile(flush, flush.p50)),
            mark(percentile(flush, flush.p99), SLOW_FLUSH_US <= flush.p99),
            Cell::from(percentile(flush, flush.max)),
            Cell::from(percentile(turn, turn.p50)),
            Cell::from(percentile(turn, turn.p99)),
            Cell::from(percentile(write, write.p99)),
            Cell::from(links.collect::<Vec<_>>().join("  ")),
            Cell::from(now.set_by(core).unwrap_or_default()),
        ]
    });
    draw_table(frame, area, "Cores, in the last seconds", &columns, rows);
}

fn draw_groups(frame: &mut Frame<'_>, area: Rect, groups: &[Group]) {
    let columns = [
        ("group", 5),
        ("leader", 6),
        ("term", 8),
        ("commit", 12),
        ("commits/s", 9),
        ("slowest is behind", 18),
        ("stopped on", 10),
    ];
    let rows = groups.iter().map(|group| {
        let (entries, node) = group.behind;
        let behind = match entries {
            0 => "0".into(),
            entries => format!("{} (node {node})", count(entries)),
        };
        let leader = group.leader.map_or("none".into(), |node| node.to_string());
        let failed: Vec<String> = group.failed.iter().map(u64::to_string).collect();
        vec![
            Cell::from(group.group.to_string()),
            mark(leader, group.leader.is_none()),
            Cell::from(exact(group.term, 8)),
            Cell::from(exact(group.commit, 12)),
            Cell::from(short(group.rate)),
            mark(behind, FAR_BEHIND <= entries),
            mark(failed.join(" "), true),
        ]
    });
    let title = "Groups: without a leader, the slowest, the busiest";
    draw_table(frame, area, title, &columns, rows);
}

/// A rate in at most five characters.
fn short(rate: f64) -> String {
    match rate.round() {
        rate if rate < 10_000.0 => format!("{rate:.0}"),
        rate if rate < 9_999_500.0 => format!("{:.0}k", rate / 1e3),
        rate if rate < 9_999_500_000.0 => format!("{:.0}M", rate / 1e6),
        rate => format!("{:.0}G", rate / 1e9),
    }
}

fn count(number: u64) -> String {
    short(number as f64)
}

/// A mean with a digit behind the point while that says something.
fn tenths(mean: f64) -> String {
    if mean < 1_000.0 { format!("{mean:.1}") } else { short(mean) }
}

/// All digits of a number if there is room for them.
fn exact(number: u64, room: usize) -> String {
    let digits = number.to_string();
    if digits.len() <= room { digits } else { count(number) }
}

fn size(bytes: u64) -> String {
    match bytes >> 20 {
        mib @ 0..10_000 => format!("{mib} MiB"),
        mib @ 10_000..10_240_000 => format!("{} GiB", mib >> 10),
        mib => format!("{} TiB", mib >> 20),
    }
}

/// One number of a spread, or a dash: what was not measured did not take 0.
fn percentile(spread: Spread, us: u64) -> String {
    if spread.count == 0 { "–".into() } else { micros(us) }
}

/// A time in at most six characters.
fn micros(us: u64) -> String {
    match us {
        0..10_000 => format!("{us}us"),
        10_000..10_000_000 => format!("{}ms", us / 1000),
        _ => format!("{}s", us / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::Heard;
    use super::super::model::tests::{address, cluster, info};
    use super::super::picture;
    use super::*;

    #[test]
    fn the_picture_tells_what_the_nodes_say() {
        let mut cluster = cluster();
        cluster.on_heard(address(3), 600, Heard::Nothing("connection refused".into()));
        let text = picture(&cluster, 132);
        let expected = [
            " outrigger top  cluster 00000000000000ab  2 of 3 nodes, 2 of 2 groups led  8000 commands/s  200 commits/s   q ends",
            "│1     10.0.0.1:7001         1 of 2       12      4000    200     8.0       80us 700us    128 MiB",
            "│1/0     900     80us   700us  2000us 9us      70us   800us     2: 140us",
            "│0     1      4        200          100       0",
            "│3     10.0.0.1:7003         down",
        ];
        for line in expected {
            assert!(text.lines().any(|it| it.starts_with(line)), "{line}\nis not in\n{text}");
        }
        let core = text.lines().find(|it| it.starts_with("│1/0 ")).expect(&text);
        assert!(core.contains("2: follower flush 97%"), "{core}");
        let down = text.lines().find(|it| it.starts_with("│3 ")).expect(&text);
        assert!(down.contains("connection refused"), "{down}");
        assert_eq!(text.lines().count(), usize::from(height(&cluster)));
    }

    #[test]
    fn nothing_heard_is_a_picture_too_and_so_is_a_small_terminal() {
        assert!(picture(&Cluster::default(), 60).contains("0 of 0 nodes"));
        assert!(picture(&cluster(), 60).contains("outrigger top"));
    }

    #[test]
    fn a_column_is_whole_or_not_there() {
        let mut cluster = cluster();
        let text = info(1, 2).replace("connected_clients:12", "connected_clients:99894");
        cluster.on_heard(address(1), 600, Heard::Info(text.replace("n=900", "n=0")));
        for width in 60..=200 {
            let text = picture(&cluster, width);
            let line = |begin: &str| text.lines().find(|it| it.starts_with(begin)).expect(begin);
            let head = line("│node ");
            for (name, value) in
                [("clients", " 100k "), ("flush p50 p99", " – – "), ("log", " 128 MiB")]
            {
                let (is_there, is_told) = (head.contains(name), line("│1 ").contains(value));
                assert_eq!(is_there, is_told, "{name} in {width} columns:\n{text}");
            }
            let unmeasured = "│1/0     0       –      –      –      –        –";
            assert!(text.contains(unmeasured), "nothing was measured:\n{text}");
        }
        assert!(
            !picture(&cluster, 60).contains("notes") && picture(&cluster, 132).contains("notes")
        );
    }

    #[test]
    fn numbers_fit_their_columns() {
        for rate in
            [0.0, 9_999.4, 9_999.6, 99_894.0, 9_999_499.0, 9_999_501.0, 9_999_499_999.0, 3e12]
        {
            assert!(short(rate).len() <= 5, "{rate}: {}", short(rate));
        }
        assert_eq!([exact(12_345_678, 8), exact(123_456_789, 8)], ["12345678", "123M"]);
        assert_eq!([8.04, 12_345.0].map(tenths), ["8.0", "12k"]);
        assert_eq!([128 << 20, 20 << 30, 20 << 40].map(size), ["128 MiB", "20 GiB", "20 TiB"]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([7.4, 9_999.0, 12_345.0, 12e6].map(short), ["7", "9999", "12k", "12M"]);
        assert_eq!([999, 10_500, 12_000_000].map(micros), ["999us", "10ms", "12s"]);
    }
}
