//! Settings written as a file that says what each means.

use super::{
    ServerConfig,
    keys::{self, Key},
};

/// Longest line of what is written, in characters.
const LINE_MAX: usize = 100;

/// The settings as TOML: those that differ from their default as keys, the others commented out,
/// without a space behind the `#`.
pub(super) fn text(config: &ServerConfig) -> String {
    let mut defaults = Vec::new();
    keys::visit(&mut ServerConfig::default(), &mut |_, setting| defaults.push(setting.write()));
    let mut defaults = defaults.into_iter();
    let mut text = String::new();
    let mut table = "";
    keys::visit(&mut config.clone(), &mut |key, setting| {
        let Key { name, says, .. } = key;
        if key.table != table {
            table = key.table;
            text += &format!("[{table}]\n\n");
        }
        text += &comment(says);
        let (value, default) = (setting.write(), defaults.next().flatten());
        text += &match value {
            Some(value) if Some(&value) != default.as_ref() => format!("{name} = {value}\n\n"),
            Some(value) => format!("#{name} = {value}\n\n"),
            None => format!("#{name} = {}\n\n", setting.example()),
        };
    });
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// A comment of lines that are not too long.
fn comment(says: &str) -> String {
    let mut text = String::new();
    let mut line = "#".to_owned();
    for word in says.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > LINE_MAX {
            text += &line;
            text.push('\n');
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line += word;
    }
    text + &line + "\n"
}
