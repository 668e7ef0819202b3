//! The picture of `top`: the nodes, their cores, and the groups that need attention.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Row, Table};

use super::model::{Cluster, Group, Node, Sample};

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

fn table<'a>(
    title: &'a str,
    head: &[&'a str],
    rows: Vec<Row<'a>>,
    widths: Vec<Constraint>,
) -> Table<'a> {
    let head = Row::new(head.iter().map(|it| Cell::from(*it)).collect::<Vec<_>>())
        .style(Style::new().add_modifier(Modifier::BOLD));
    Table::new(rows, widths).header(head).block(Block::bordered().title(title))
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, cluster: &Cluster) {
    let rows = cluster.nodes().map(|(address, node)| {
        let Some(now) = &node.now else {
            let why = node.trouble.clone().unwrap_or_default();
            let mut cells = vec![Cell::from("?"), Cell::from(address.to_string())];
            cells.resize(9, Cell::from(""));
            cells.push(mark(format!("down: {why}"), true));
            return Row::new(cells);
        };
        let (p50, p99) = slowest(now);
        Row::new(vec![
            Cell::from(now.text("node_id").to_owned()),
            Cell::from(address.to_string()),
            Cell::from(format!("{} of {}", now.number("groups_led"), now.number("groups"))),
            Cell::from(now.text("connected_clients").to_owned()),
            Cell::from(short(node.rate("total_commands_processed"))),
            Cell::from(short(node.rate("wal_flushes"))),
            Cell::from(format!("{:.1}", node.entries_per_flush())),
            mark(format!("{} {}", micros(p50), micros(p99)), SLOW_FLUSH_US <= p99),
            Cell::from(format!("{} MiB", now.number("log_bytes") >> 20)),
            mark(notes(node, now), true),
        ])
    });
    let head = [
        "node",
        "address",
        "leads",
        "clients",
        "cmd/s",
        "flush/s",
        "ent/flush",
        "flush p50 p99",
        "log",
        "notes",
    ];
    let widths = [4, 21, 12, 7, 8, 8, 9, 15, 9].map(Constraint::Length).to_vec();
    let widths = [widths, vec![Constraint::Min(5)]].concat();
    frame.render_widget(table("Nodes", &head, rows.collect(), widths), area);
}

/// The worst percentiles of any core's flushes.
fn slowest(now: &Sample) -> (u64, u64) {
    let spreads = (0..now.number("cores")).map(|core| now.spread("flush", core));
    spreads.fold((0, 0), |(p50, p99), it| (p50.max(it.p50), p99.max(it.p99)))
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
    let rows = cores.into_iter().map(|(now, core)| {
        let (flush, turn) = (now.spread("flush", core), now.spread("turn", core));
        let links = now.links().filter(|(_, on, ..)| *on == core);
        let links = links.map(|(node, _, is_up, trip)| match is_up {
            true => format!("{node}: {}", micros(trip)),
            false => format!("{node}: down"),
        });
        Row::new(vec![
            Cell::from(format!("{}/{core}", now.text("node_id"))),
            Cell::from(flush.count.to_string()),
            Cell::from(micros(flush.p50)),
            mark(micros(flush.p99), SLOW_FLUSH_US <= flush.p99),
            Cell::from(micros(flush.max)),
            Cell::from(micros(turn.p50)),
            Cell::from(micros(turn.p99)),
            Cell::from(micros(now.spread("commit", core).p99)),
            Cell::from(links.collect::<Vec<_>>().join("  ")),
            Cell::from(now.set_by(core).unwrap_or_default()),
        ])
    });
    let head = [
        "core",
        "flushes",
        "p50",
        "p99",
        "max",
        "turn p50",
        "p99",
        "write p99",
        "links, round trip",
        "writes set by",
    ];
    let widths = [6, 10, 9, 9, 9, 9, 9, 9].map(Constraint::Length).to_vec();
    let widths = [widths, vec![Constraint::Min(17), Constraint::Min(20)]].concat();
    frame.render_widget(table("Cores, in the last seconds", &head, rows.collect(), widths), area);
}

fn draw_groups(frame: &mut Frame<'_>, area: Rect, groups: &[Group]) {
    let rows = groups.iter().map(|group| {
        let (entries, node) = group.behind;
        let behind = match entries {
            0 => "0".into(),
            entries => format!("{entries} (node {node})"),
        };
        let leader = group.leader.map_or("none".into(), |node| node.to_string());
        let failed: Vec<String> = group.failed.iter().map(u64::to_string).collect();
        Row::new(vec![
            Cell::from(group.group.to_string()),
            mark(leader, group.leader.is_none()),
            Cell::from(group.term.to_string()),
            Cell::from(group.commit.to_string()),
            Cell::from(short(group.rate)),
            mark(behind, FAR_BEHIND <= entries),
            mark(failed.join(" "), true),
        ])
    });
    let head =
        ["group", "leader", "term", "commit", "commits/s", "slowest is behind", "stopped on"];
    let widths = [6, 7, 8, 12, 10, 20].map(Constraint::Length).to_vec();
    let widths = [widths, vec![Constraint::Min(5)]].concat();
    let title = "Groups: without a leader, the slowest, the busiest";
    frame.render_widget(table(title, &head, rows.collect(), widths), area);
}

/// A rate in few characters.
fn short(rate: f64) -> String {
    match rate {
        rate if rate < 10_000.0 => format!("{rate:.0}"),
        rate if rate < 10_000_000.0 => format!("{:.0}k", rate / 1e3),
        rate => format!("{:.0}M", rate / 1e6),
    }
}

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
    use super::super::model::tests::{address, cluster};
    use super::super::picture;
    use super::*;

    #[test]
    fn the_picture_tells_what_the_nodes_say() {
        let mut cluster = cluster();
        cluster.on_heard(address(3), 600, Heard::Nothing("connection refused".into()));
        let text = picture(&cluster, 132);
        let expected = [
            " outrigger top  cluster 00000000000000ab  2 of 3 nodes, 2 of 2 groups led  8000 commands/s  200 commits/s   q ends",
            "│1    10.0.0.1:7001         1 of 2       12      4000     200      8.0       80us 700us",
            "│1/0    900        80us      700us     2000us    9us       70us      800us     2: 140us",
            "│0      1       4        200          100        0",
        ];
        for line in expected {
            assert!(text.lines().any(|it| it.starts_with(line)), "{line}\nis not in\n{text}");
        }
        let core = text.lines().find(|it| it.starts_with("│1/0 ")).expect(&text);
        assert!(core.contains("2: follower flush 97%"), "{core}");
        let down = text.lines().find(|it| it.starts_with("│?    10.0.0.1:7003")).expect(&text);
        assert!(down.contains("down: connection refused"), "{down}");
        assert_eq!(text.lines().count(), usize::from(height(&cluster)));
    }

    #[test]
    fn nothing_heard_is_a_picture_too_and_so_is_a_small_terminal() {
        assert!(picture(&Cluster::default(), 60).contains("0 of 0 nodes"));
        assert!(picture(&cluster(), 60).contains("outrigger top"));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([7.4, 9_999.0, 12_345.0, 12e6].map(short), ["7", "9999", "12k", "12M"]);
        assert_eq!([999, 10_500, 12_000_000].map(micros), ["999us", "10ms", "12s"]);
    }
}
