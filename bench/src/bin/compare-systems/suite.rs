//! What is measured: suites of cells. A cell is one load; every system of the suite meets it.

use clap::ValueEnum;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum System {
    /// Ours.
    Outrigger,
    /// etcd, from Debian.
    Etcd,
    /// ZooKeeper, from Debian.
    Zookeeper,
    /// Redis with `appendfsync always`: one copy, however many members the others have.
    Redis,
}

impl System {
    /// Its name in records.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Outrigger => "Outrigger",
            Self::Etcd => "etcd",
            Self::Zookeeper => "ZooKeeper",
            Self::Redis => "Redis (1 copy)",
        }
    }

    /// What the load generator calls its protocol.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::Outrigger | Self::Redis => "resp",
            Self::Etcd => "etcd",
            Self::Zookeeper => "zookeeper",
        }
    }
}

/// When operations are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// As fast as answers come.
    Closed,
    /// Open loop, at this percentage of the system's own knee.
    OfOwn(f64),
    /// Open loop, at this percentage of the lowest knee: one rate for all systems.
    OfLowest(f64),
}

/// One load.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    /// Members of a replicated system, 1 or 3.
    pub(crate) members: usize,
    /// Connections, at least 1.
    pub(crate) connections: usize,
    /// Outstanding operations per connection, at least 1.
    pub(crate) pipeline: usize,
    /// Size of values.
    pub(crate) value_bytes: usize,
    /// Share of reads, `0.0..=1.0`.
    pub(crate) read_share: f64,
    /// Keys by zipf (0.99) instead of uniformly.
    pub(crate) zipf: bool,
    /// When operations are sent.
    pub(crate) pace: Pace,
}

/// Most keys: ZooKeeper keeps all in memory, and everything is filled before every measurement.
const KEYS_MAX: usize = 10_000;
/// Most bytes of values that are filled.
const FILL_BYTES_MAX: usize = 64 << 20;

impl Cell {
    const PLAIN: Self = Self {
        members: 3,
        connections: 64,
        pipeline: 1,
        value_bytes: 256,
        read_share: 0.0,
        zipf: false,
        pace: Pace::Closed,
    };

    /// Number of keys, the same for every system.
    pub(crate) fn keys(&self) -> usize {
        KEYS_MAX.min(FILL_BYTES_MAX / self.value_bytes.max(1))
    }

    /// The cell in a few words.
    pub(crate) fn text(&self) -> String {
        let loads = format!("{} × {}", self.connections, self.pipeline);
        format!("{loads}, {}, {}{}", self.size(), self.mix(), self.pace_text())
    }

    fn size(&self) -> String {
        match self.value_bytes {
            bytes if bytes >= 1024 && bytes % 1024 == 0 => format!("{} KiB", bytes / 1024),
            bytes => format!("{bytes} B"),
        }
    }

    fn mix(&self) -> String {
        let keys = if self.zipf { "zipf" } else { "uniform" };
        match self.read_share {
            0.0 => format!("writes, {keys}"),
            share => format!("{:.0} % reads, {keys}", share * 100.0),
        }
    }

    fn pace_text(&self) -> String {
        match self.pace {
            Pace::Closed => String::new(),
            Pace::OfOwn(percent) => format!(", {percent} % of its own knee"),
            Pace::OfLowest(percent) => format!(", {percent} % of the lowest knee"),
        }
    }
}

/// What a suite varies, and therefore what its plots have below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    /// Connections.
    Connections,
    /// Bytes of a value.
    ValueBytes,
    /// Operations per second of an open loop.
    Rate,
    /// Several things: a table says it better.
    None,
}

/// Cells that belong together.
#[derive(Debug, Clone)]
pub(crate) struct Suite {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it asks.
    pub(crate) about: &'static str,
    /// Who is compared, in order.
    pub(crate) systems: Vec<System>,
    /// The loads. In a suite of rates the first is the closed loop that finds the knee.
    pub(crate) cells: Vec<Cell>,
    /// What varies.
    pub(crate) axis: Axis,
}

/// Every suite, in the order of `all`.
const NAMES: [&str; 6] = ["quick", "single", "values", "pipeline", "mix", "rates"];

/// The suite of this name, or every one for `all`. `connections` are those of quick and single.
pub(crate) fn named(name: &str, connections: &[usize]) -> Result<Vec<Suite>, String> {
    if name == "all" {
        return Ok(NAMES.iter().map(|name| one(name, connections)).collect::<Option<_>>())
            .and_then(|all| all.ok_or_else(|| "a suite is missing".into()));
    }
    match one(name, connections) {
        Some(suite) => Ok(vec![suite]),
        None => Err(format!("there is no suite '{name}'; there are: {}, all", NAMES.join(", "))),
    }
}

fn one(name: &str, connections: &[usize]) -> Option<Suite> {
    let replicated = vec![System::Outrigger, System::Etcd, System::Zookeeper];
    let plain = Cell::PLAIN;
    let by_connections = |members| {
        let cell = |&connections: &usize| Cell { members, connections, ..Cell::PLAIN };
        connections.iter().map(cell).collect()
    };
    Some(match name {
        "quick" => Suite {
            name: "quick",
            about: "Three members, writes of 256 B on uniform keys, closed loop, by connections.",
            systems: replicated,
            cells: by_connections(3),
            axis: Axis::Connections,
        },
        "single" => Suite {
            name: "single",
            about: "One member, writes of 256 B on uniform keys, closed loop, by connections.",
            systems: vec![System::Outrigger, System::Redis, System::Etcd],
            cells: by_connections(1),
            axis: Axis::Connections,
        },
        "values" => Suite {
            name: "values",
            about: "Three members, 64 connections, writes, closed loop, by size of the value.",
            systems: replicated,
            cells: [16, 256, 4 << 10, 64 << 10]
                .map(|value_bytes| Cell { value_bytes, ..plain.clone() })
                .to_vec(),
            axis: Axis::ValueBytes,
        },
        "pipeline" => Suite {
            name: "pipeline",
            about: "Three members, writes of 256 B, 16 operations outstanding per connection.",
            systems: replicated,
            cells: [16, 64, 256]
                .map(|connections| Cell { connections, pipeline: 16, ..plain.clone() })
                .to_vec(),
            axis: Axis::Connections,
        },
        "mix" => Suite {
            name: "mix",
            about: "Three members, 64 connections, 256 B, closed loop: reads, and keys of unequal \
                    heat. ZooKeeper's reads come from the member at hand and are not linearizable; \
                    Outrigger's and etcd's are.",
            systems: replicated,
            cells: [(0.95, false), (0.95, true), (0.0, true)]
                .map(|(read_share, zipf)| Cell { read_share, zipf, ..plain.clone() })
                .to_vec(),
            axis: Axis::None,
        },
        "rates" => Suite {
            name: "rates",
            about: "Three members, 64 connections, writes of 256 B. The closed loop finds each \
                    system's knee; then arrivals follow a fixed schedule, at shares of each one's own \
                    knee and of the lowest. Latency counts from when an arrival was due.",
            systems: replicated,
            cells: [
                Pace::Closed,
                Pace::OfOwn(50.0),
                Pace::OfOwn(80.0),
                Pace::OfLowest(50.0),
                Pace::OfLowest(80.0),
            ]
            .map(|pace| Cell { pace, ..plain.clone() })
            .to_vec(),
            axis: Axis::Rate,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_has_every_load_that_was_asked_for() {
        let all = named("all", &[1, 16, 64, 256]).expect("it exists");
        assert_eq!(all.len(), NAMES.len());
        let cells = || all.iter().flat_map(|suite| &suite.cells);
        for members in [1, 3] {
            for connections in [1, 16, 64, 256] {
                assert!(cells().any(|c| c.members == members && c.connections == connections));
            }
        }
        for bytes in [16, 256, 4096, 65_536] {
            assert!(cells().any(|cell| cell.value_bytes == bytes), "{bytes}");
        }
        assert!(cells().any(|cell| cell.pipeline == 16 && cell.connections == 256));
        assert!(cells().any(|cell| cell.read_share == 0.95) && cells().any(|cell| cell.zipf));
        for pace in [Pace::OfOwn(50.0), Pace::OfOwn(80.0)] {
            assert!(cells().any(|cell| cell.pace == pace));
        }
        // The knee comes before the rates that are shares of it.
        let rates = all.last().expect("it has suites");
        assert_eq!((rates.axis, rates.cells[0].pace), (Axis::Rate, Pace::Closed));
    }

    #[test]
    fn what_is_filled_fits_into_zookeeper_s_heap() {
        for suite in named("all", &[1]).expect("it exists") {
            for cell in suite.cells {
                assert!(cell.keys() >= 1_000);
                assert!(cell.keys() * cell.value_bytes <= FILL_BYTES_MAX, "{}", cell.text());
            }
        }
    }

    #[test]
    fn a_cell_says_what_it_is() {
        assert_eq!(Cell::PLAIN.text(), "64 × 1, 256 B, writes, uniform");
        let cell = Cell { value_bytes: 4096, zipf: true, read_share: 0.95, ..Cell::PLAIN };
        assert_eq!(cell.text(), "64 × 1, 4 KiB, 95 % reads, zipf");
    }
}
