//! The settings of a server from a file, for whoever runs it and does not build it.
//!
//! Beside the path of a call, at start-up. `keys` names every setting once; `setting` has the kinds
//! of values, `read` takes them from TOML and says what is wrong with them, `write` gives them back
//! with what each means. Bounds are those of `config`.

mod keys;
mod read;
mod setting;
mod write;

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    config::{BACKLOG_DEFAULT, CONFIG_FILE_BYTES_MAX, ConfigError, ShardConfig, check},
    socket::SocketConfig,
};

/// The settings of a server that a file can have: [`ServerBuilder::config`] takes them.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = ringcall::ServerConfig::from_toml("cores = [0]\n[shard]\nspin_us = 20\n")?;
/// let builder = ringcall::Server::builder().config(config);
/// # Ok(())
/// # }
/// ```
///
/// [`ServerBuilder::config`]: crate::ServerBuilder::config
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// As [`ServerBuilder::cores`](crate::ServerBuilder::cores); all that there are where it is
    /// none.
    pub cores: Option<Vec<usize>>,
    /// As [`ServerBuilder::backlog`](crate::ServerBuilder::backlog), in connections of each shard.
    pub backlog: u32,
    /// As [`ServerBuilder::shard`](crate::ServerBuilder::shard). A client's
    /// [`RunConfig`](crate::RunConfig) takes it too.
    pub shard: ShardConfig,
    /// As [`ServerBuilder::socket`](crate::ServerBuilder::socket).
    pub socket: SocketConfig,
}

/// Why settings cannot be had from a file. Its text says where, and what is wanted there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFileError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel says, or that it is no text.
        source: io::Error,
    },
    /// The file is too long to be one.
    #[error(
        "{} is longer than {CONFIG_FILE_BYTES_MAX} bytes: it is no file of settings", path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The text is no TOML.
    #[error("{place}: {why}")]
    Syntax {
        /// Where.
        place: Place,
        /// What TOML wants there.
        why: String,
    },
    /// A key or a table that does not exist.
    #[error("{place}: there is no setting `{key}`; {advice}")]
    Unknown {
        /// Where.
        place: Place,
        /// What stands there.
        key: String,
        /// What was perhaps meant.
        advice: String,
    },
    /// A value of the wrong type, or out of its bounds.
    #[error("{place}: `{key} = {value}`: {why}")]
    Value {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// What the file says.
        value: String,
        /// What is wanted.
        why: String,
    },
}

/// A place in a file, or in a text that has no file. Displays as `ringcall.toml, line 3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    path: Option<PathBuf>,
    line: usize,
}

impl ServerConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads settings from TOML; what it does not name has its default. The keys are described in
    /// `examples/ringcall.toml` and `docs/tuning.md`.
    ///
    /// # Errors
    ///
    /// Where the text is no TOML, names what is no setting, or a value is impossible; the error
    /// names the line, the key and what is wanted.
    pub fn from_toml(text: &str) -> Result<Self, ConfigFileError> {
        read::config(text, None)
    }

    /// Reads settings from a file, as [`from_toml`](Self::from_toml).
    ///
    /// # Errors
    ///
    /// As there, with the file's name; and where it cannot be read, or is longer than 1 MiB.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigFileError> {
        let path = path.as_ref();
        let failed = |source| ConfigFileError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        // One byte more than there may be tells a file that is too long from one that just fits.
        let mut file = File::open(path).map_err(failed)?.take(CONFIG_FILE_BYTES_MAX + 1);
        let len = file.read_to_string(&mut text).map_err(failed)?;
        if len as u64 > CONFIG_FILE_BYTES_MAX {
            return Err(ConfigFileError::TooLong { path: path.to_owned() });
        }
        read::config(&text, Some(path))
    }

    /// The settings as a file: every key with its meaning, those that have their default commented
    /// out. [`from_toml`](Self::from_toml) gives the same settings.
    pub fn to_toml(&self) -> String {
        write::text(self)
    }

    /// Checks every setting.
    fn validate(&self) -> Result<(), ConfigError> {
        check("backlog", self.backlog, "at least 1", self.backlog > 0)?;
        self.shard.validate()?;
        self.socket.validate()
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            cores: None,
            backlog: BACKLOG_DEFAULT,
            shard: ShardConfig::default(),
            socket: SocketConfig::default(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}, line {}", path.display(), self.line),
            None => write!(f, "line {}", self.line),
        }
    }
}
