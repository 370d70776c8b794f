//! HTTP: what a server tells of itself to a browser, to Prometheus and to `ringcall-perf top`.
//!
//! Beside the path of a call. A connection whose first bytes are those of an HTTP request is taken
//! out of its shard (`handover`) and given to the one thread that a server has for this
//! (`endpoint`), which also accepts on an address of its own where it was given one. So a shard
//! neither parses requests nor renders pages, and no reader holds it up: `pages` reads the figures
//! while the shards write them. `connection` and `request` are HTTP, `prometheus`, `live` and
//! `page.html` what is answered.

mod connection;
mod endpoint;
mod handover;
mod live;
mod pages;
mod prometheus;
mod request;

pub(crate) use self::endpoint::{Door, Endpoint, Source};

use std::time::Duration;

/// Longest head of a request, in bytes: more than any browser sends to a page without cookies.
const HEAD_LEN_MAX: usize = 8 * 1024;

/// Headers of a request, in number.
const HEADERS_MAX: usize = 64;

/// Connections that are answered at once, in number. One more is told to come back.
const CONNECTIONS_MAX: usize = 64;

/// Connections that shards have handed over and the thread has not seen, in number.
const HANDED_MAX: usize = 64;

/// Pages that are answered in a second, in number: more readers than any server has. One more is
/// told to come back, in a hundred bytes.
const PAGES_PER_S_MAX: u32 = 200;

/// Time for which a page is as good as new: that many readers cost no more than one.
const FRESH: Duration = Duration::from_millis(200);

/// Time for a request, and for its answer to be taken.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Time for the peer to read what it was answered, before it is closed.
const LINGER: Duration = Duration::from_millis(500);
