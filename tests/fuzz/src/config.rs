//! A configuration file's text: `Settings::from_text`, `Settings::resolve`.

use std::path::Path;

use outrigger::config::{Config, ConfigError, Security, Settings};

/// With it in front, few words make a whole configuration.
const MINIMAL: &str = "id = 1\ndir = \"/d\"\nclient = \"127.0.0.1:1\"\npeer = \"127.0.0.1:2\"\n";
const PEERS: &str = "peers = { 1 = \"127.0.0.1:2\" }\n";

/// One input.
pub fn run(data: &[u8]) {
    let Some((how, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match how % 4 {
        0 => judge(text),
        1 => judge(&[MINIMAL, text].concat()),
        2 => judge(&[MINIMAL, PEERS, text].concat()),
        _ => values(text),
    }
}

fn resolved(text: &str) -> Result<Config, ConfigError> {
    Settings::from_text(Path::new("node.toml"), text)?.resolve()
}

/// What is accepted is printed so that it is accepted again and means the same; what is not is refused
/// in one line.
fn judge(text: &str) {
    match resolved(text) {
        Ok(config) => round_trip(&config),
        Err(error) => one_line(&error),
    }
}

fn round_trip(config: &Config) {
    let printed = config.to_toml();
    // The one thing that is not printed: the password.
    let security = Security { requirepass: None, ..config.security.clone() };
    let config = Config { security, ..config.clone() };
    match resolved(&printed) {
        Ok(again) => assert_eq!(again, config, "{printed}"),
        Err(error) => panic!("what was printed is refused: {error}\n{printed}"),
    }
}

fn one_line(error: &ConfigError) {
    let said = error.to_string();
    assert!(!said.contains('\n'), "more than one line: {said}");
}

/// The text as the values that are texts, as from flags.
fn values(text: &str) {
    let mut parts = text.splitn(3, '\u{1f}');
    let mut next = || parts.next().map(str::to_owned);
    let base = Settings::from_text(Path::new("node.toml"), &[MINIMAL, PEERS].concat());
    let settings = Settings {
        cluster: next(),
        dir: next().map(Into::into),
        lease_groups: next(),
        ..base.expect("it is whole")
    };
    match settings.resolve() {
        Ok(config) => round_trip(&config),
        Err(error) => one_line(&error),
    }
}
