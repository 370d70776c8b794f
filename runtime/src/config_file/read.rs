//! Settings taken from TOML, and what is wrong with it in words.

use std::{ops::Range, path::Path};

use toml::de::{DeTable, DeValue};

use super::{
    ConfigFileError, Place, ServerConfig,
    keys::{self, Key, TABLES},
};

/// Longest piece of the file that an error repeats, in characters.
const SHOWN_MAX: usize = 60;

/// The text of a file, for errors that say where.
struct Source<'a> {
    text: &'a str,
    path: Option<&'a Path>,
}

/// A key that the file has, and where.
struct Found {
    key: Key,
    at: Range<usize>,
}

/// The settings of a text.
pub(super) fn config(text: &str, path: Option<&Path>) -> Result<ServerConfig, ConfigFileError> {
    let source = Source { text, path };
    let parsed = DeTable::parse(text).map_err(|error| ConfigFileError::Syntax {
        place: source.place(error.span().unwrap_or(0..0).start),
        why: error.message().to_owned(),
    })?;
    let root = parsed.get_ref();
    check_keys(root, &source)?;
    let mut config = ServerConfig::default();
    let mut found = Vec::new();
    let mut wrong = None;
    keys::visit(&mut config, &mut |key, setting| {
        let table = match key.table {
            "" => Some(root),
            name => root.get(name).and_then(|table| table.get_ref().as_table()),
        };
        let Some(value) = table.and_then(|table| table.get(key.name)) else { return };
        if wrong.is_none() && !setting.read(value.get_ref()) {
            let why = format!("must be {}", setting.wanted());
            wrong = Some(source.value(&key, value.span(), why));
        }
        found.push(Found { key, at: value.span() });
    });
    match wrong {
        Some(wrong) => Err(wrong),
        None => check_values(config, &found, &source),
    }
}

/// Refuses keys and tables that there are not.
fn check_keys(root: &DeTable<'_>, source: &Source<'_>) -> Result<(), ConfigFileError> {
    let mut known: Vec<Key> = Vec::new();
    keys::visit(&mut ServerConfig::default(), &mut |key, _| known.push(key));
    for (name, value) in root.iter() {
        let text: &str = name.get_ref();
        match value.get_ref() {
            DeValue::Table(table) if TABLES.contains(&text) => {
                for inner in table.keys() {
                    check_key(&known, text, inner.get_ref(), inner.span(), source)?;
                }
            }
            _ if TABLES.contains(&text) => {
                let place = source.place(name.span().start);
                let (key, value) = (text.to_owned(), source.shown(value.span()));
                let why = format!("`{text}` is a table: write [{text}], and its keys below");
                return Err(ConfigFileError::Value { place, key, value, why });
            }
            _ => check_key(&known, "", text, name.span(), source)?,
        }
    }
    Ok(())
}

fn check_key(
    known: &[Key],
    table: &str,
    name: &str,
    at: Range<usize>,
    source: &Source<'_>,
) -> Result<(), ConfigFileError> {
    if known.iter().any(|key| key.table == table && key.name == name) {
        return Ok(());
    }
    let elsewhere = known.iter().find(|key| key.name == name);
    let nearest = known.iter().min_by_key(|key| {
        // Of two that are as near, the one in this table.
        (edits(name, key.name), key.table != table)
    });
    let advice = match (elsewhere, nearest) {
        (Some(key), _) => format!("it belongs {}", key.home()),
        (None, Some(key)) => format!("the nearest is `{}`, {}", key.name, key.home()),
        (None, None) => String::new(),
    };
    let place = source.place(at.start);
    Err(ConfigFileError::Unknown { place, key: name.to_owned(), advice })
}

/// Checks the settings as those that are made in code, and says which key is wrong.
fn check_values(
    config: ServerConfig,
    found: &[Found],
    source: &Source<'_>,
) -> Result<ServerConfig, ConfigFileError> {
    let Err(error) = config.validate() else { return Ok(config) };
    // An error of several settings, as `deadlines`, is shown at the first of them.
    let named = |found: &&Found| found.key.setting.starts_with(error.setting());
    let exact = found.iter().find(|found| found.key.setting == error.setting());
    Err(match (exact, found.iter().find(named)) {
        (Some(Found { key, at }), _) => {
            source.value(key, at.clone(), format!("must be {}", error.wanted()))
        }
        (None, Some(Found { key, at })) => source.value(key, at.clone(), error.to_string()),
        (None, None) => ConfigFileError::Syntax { place: source.place(0), why: error.to_string() },
    })
}

impl Key {
    /// Where it belongs.
    fn home(&self) -> String {
        match self.table {
            "" => "before the first table".to_owned(),
            table => format!("in the table [{table}]"),
        }
    }
}

impl Source<'_> {
    fn place(&self, at: usize) -> Place {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Place { path: self.path.map(Path::to_owned), line }
    }

    /// What stands at a place, shortened to its first line.
    fn shown(&self, at: Range<usize>) -> String {
        let line = self.text.get(at).and_then(|text| text.lines().next()).unwrap_or_default();
        match line.char_indices().nth(SHOWN_MAX) {
            Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
            None => line.to_owned(),
        }
    }

    fn value(&self, key: &Key, at: Range<usize>, why: String) -> ConfigFileError {
        let place = self.place(at.start);
        ConfigFileError::Value { place, key: key.name.to_owned(), value: self.shown(at), why }
    }
}

/// How many characters are to be changed, added or left out to make one word of another
/// (Levenshtein's distance).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    // A key that is longer than this is near to none.
    for (index, letter) in from.chars().take(SHOWN_MAX).enumerate() {
        let mut left = index + 1;
        let mut next = vec![left];
        for ((above, diagonal), other) in row.iter().skip(1).zip(&row).zip(&to) {
            left = (above + 1).min(left + 1).min(diagonal + usize::from(letter != *other));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::edits;

    #[test]
    fn words_are_as_far_apart_as_they_have_edits() {
        for (from, to, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("spin", "spin_us", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(edits(from, to), expected, "{from} {to}");
        }
    }
}
