//! What is tuned: the settings, and the values of each that are worth a try.

use std::time::Duration;

use ringcall::ServerConfig;

/// The settings of a server that are tuned. What a turn sends together has no setting: it is one
/// send for each connection, of everything that the turn has collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How many of the server's cores have one.
    pub(crate) shards: usize,
    pub(crate) spin_us: u64,
    pub(crate) receive_buffers: u16,
    pub(crate) receive_buffer_bytes: u32,
    pub(crate) send_buffer_max_bytes: usize,
    pub(crate) ring_entries: u32,
}

/// A setting, or two that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Knob {
    /// How many of the server's cores have a shard
    Shards,
    /// How long an idle shard looks for work
    Spin,
    /// How many receive buffers there are, and how long they are
    ReceiveBuffers,
    /// How much may wait to be sent before a connection is not read from
    SendBuffer,
    /// Entries of the ring
    RingEntries,
}

/// Times to spin, in microseconds: from what the next call of a busy client takes to what a wake-up
/// costs several times over.
const SPINS_US: [u64; 4] = [0, 20, 50, 100];

/// Pools of receive buffers: fewer that stay in the cache, as many with less or more in each, more
/// of small ones.
const POOLS: [(u16, u32); 5] =
    [(1024, 16 << 10), (256, 16 << 10), (1024, 4 << 10), (4096, 4 << 10), (256, 64 << 10)];

const SEND_BUFFERS_BYTES: [usize; 3] = [256 << 10, 64 << 10, 1 << 20];

const RING_ENTRIES: [u32; 3] = [1024, 256, 4096];

impl Knob {
    /// In the order in which they are tried: what matters most at first, as a budget may end.
    pub(super) const ALL: [Self; 5] =
        [Self::Shards, Self::Spin, Self::ReceiveBuffers, Self::SendBuffer, Self::RingEntries];

    /// These settings with every other value of this one.
    pub(super) fn alternatives(self, now: Settings, cores: usize) -> Vec<Settings> {
        let all: Vec<Settings> = match self {
            // Halves: with each step there is half as much to share the work.
            Self::Shards => std::iter::successors(Some(cores), |shards| Some(shards / 2))
                .take_while(|shards| *shards > 0)
                .map(|shards| Settings { shards, ..now })
                .collect(),
            Self::Spin => SPINS_US.map(|spin_us| Settings { spin_us, ..now }).into(),
            Self::ReceiveBuffers => POOLS
                .map(|(receive_buffers, receive_buffer_bytes)| Settings {
                    receive_buffers,
                    receive_buffer_bytes,
                    ..now
                })
                .into(),
            Self::SendBuffer => SEND_BUFFERS_BYTES
                .map(|send_buffer_max_bytes| Settings { send_buffer_max_bytes, ..now })
                .into(),
            Self::RingEntries => {
                RING_ENTRIES.map(|ring_entries| Settings { ring_entries, ..now }).into()
            }
        };
        all.into_iter().filter(|settings| *settings != now).collect()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Shards => "Shards",
            Self::Spin => "Spin",
            Self::ReceiveBuffers => "Receive buffers",
            Self::SendBuffer => "Send buffer",
            Self::RingEntries => "Ring entries",
        }
    }

    /// The value of this one, as people read it: with the keys of a file.
    pub(super) fn text(self, settings: &Settings) -> String {
        let Settings {
            shards,
            spin_us,
            receive_buffers,
            receive_buffer_bytes,
            send_buffer_max_bytes,
            ring_entries,
        } = settings;
        match self {
            Self::Shards => format!("{shards} of the cores"),
            Self::Spin => format!("spin_us = {spin_us}"),
            Self::ReceiveBuffers => {
                format!("receive_buffers = {receive_buffers} × {receive_buffer_bytes} bytes")
            }
            Self::SendBuffer => format!("send_buffer_max_bytes = {send_buffer_max_bytes}"),
            Self::RingEntries => format!("ring_entries = {ring_entries}"),
        }
    }
}

impl Settings {
    /// The defaults, with a shard on each of so many cores.
    pub(crate) fn default_on(cores: usize) -> Self {
        Self {
            shards: cores,
            spin_us: 0,
            receive_buffers: 1024,
            receive_buffer_bytes: 16 << 10,
            send_buffer_max_bytes: ringcall::SEND_BUFFER_MAX_DEFAULT,
            ring_entries: 1024,
        }
    }

    /// The configuration of a server on these cores.
    pub(crate) fn config(&self, cores: &[usize]) -> ServerConfig {
        let mut config = ServerConfig::new();
        config.cores = Some(cores.iter().take(self.shards).copied().collect());
        config.shard = config
            .shard
            .spin(Duration::from_micros(self.spin_us))
            .receive_buffers(self.receive_buffers, self.receive_buffer_bytes)
            .send_buffer_max(self.send_buffer_max_bytes)
            .ring_entries(self.ring_entries);
        config
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_runtime() {
        let mut config = Settings::default_on(2).config(&[3, 5]);
        assert_eq!(config.cores.take(), Some(vec![3, 5]));
        assert_eq!(config.to_toml(), ServerConfig::new().to_toml());
    }

    #[test]
    fn every_alternative_differs_in_its_own_setting_and_is_one_that_a_file_can_have() {
        let now = Settings::default_on(6);
        for knob in Knob::ALL {
            let alternatives = knob.alternatives(now, 6);
            assert!(alternatives.len() >= 2, "{knob:?}");
            for settings in alternatives {
                assert_ne!(knob.text(&settings), knob.text(&now));
                for other in Knob::ALL.into_iter().filter(|other| *other != knob) {
                    assert_eq!(other.text(&settings), other.text(&now), "{knob:?}");
                }
                let config = settings.config(&[0, 1, 2, 3, 4, 5]);
                let again = ServerConfig::from_toml(&config.to_toml()).unwrap();
                assert_eq!(format!("{config:?}"), format!("{again:?}"));
            }
        }
        let shards: Vec<usize> =
            Knob::Shards.alternatives(now, 6).iter().map(|settings| settings.shards).collect();
        assert_eq!(shards, [3, 1]);
        assert!(Knob::Shards.alternatives(Settings::default_on(1), 1).is_empty());
    }
}
