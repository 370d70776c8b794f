//! Pages: rendered when somebody asks, and kept for a moment, so that many readers cost no more
//! than one.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    FRESH, PAGES_PER_S_MAX,
    endpoint::Source,
    live, prometheus,
    request::{Page, TOO_MANY_PAGES, head_of_page},
};
use crate::metrics::{Metrics, ShardMetrics};

/// The live page, which shows what `/live.json` says.
const LIVE_PAGE: &str = include_str!("page.html");

/// The most that it may be long, in bytes.
const _: () = assert!(LIVE_PAGE.len() < 100 * 1024);

/// Time that the rates and percentiles of the live page are of.
const WINDOW: Duration = Duration::from_secs(10);

/// Moments in it that are remembered, in number, and the time between them.
const MOMENTS_MAX: usize = 11;
const MOMENT_GAP: Duration = Duration::from_millis(900);

/// What is answered, as it is asked for.
pub(super) struct Pages {
    source: Source,
    began: Instant,
    /// The figures of earlier moments, oldest first.
    moments: VecDeque<Moment>,
    live: Option<(Instant, Arc<[u8]>)>,
    metrics: Option<(Instant, Arc<[u8]>)>,
    page: Arc<[u8]>,
    /// When the second began in which pages are counted, and how many there were.
    second: (Instant, u32),
}

/// The figures of a moment. Methods are kept merged alone, as they are the most of it.
struct Moment {
    at: Instant,
    merged: ShardMetrics,
    shards: Vec<ShardMetrics>,
}

impl Pages {
    pub(super) fn new(source: Source) -> Self {
        let (began, page) = (Instant::now(), Arc::from(LIVE_PAGE.as_bytes()));
        let (moments, second) = (VecDeque::new(), (began, 0));
        Self { source, began, moments, live: None, metrics: None, page, second }
    }

    /// Head and body of an answer.
    pub(super) fn answer(
        &mut self,
        page: Page,
        head_only: bool,
        now: Instant,
    ) -> (Vec<u8>, Arc<[u8]>) {
        if now.saturating_duration_since(self.second.0) >= Duration::from_secs(1) {
            self.second = (now, 0);
        }
        self.second.1 += 1;
        if self.second.1 > PAGES_PER_S_MAX {
            return (TOO_MANY_PAGES.bytes(), Arc::from([]));
        }
        let (content_type, body) = match page {
            Page::Live => ("text/html; charset=utf-8", Arc::clone(&self.page)),
            Page::LiveData => ("application/json", self.live(now)),
            Page::Metrics => ("text/plain; version=0.0.4; charset=utf-8", self.metrics(now)),
        };
        let head = head_of_page(content_type, body.len()).into_bytes();
        (head, if head_only { Arc::from([]) } else { body })
    }

    fn metrics(&mut self, now: Instant) -> Arc<[u8]> {
        if let Some(body) = fresh(&self.metrics, now) {
            return body;
        }
        let uptime = now.saturating_duration_since(self.began);
        let body = Arc::from(prometheus::render(&self.read(), uptime).into_bytes());
        self.metrics.insert((now, body)).1.clone()
    }

    fn live(&mut self, now: Instant) -> Arc<[u8]> {
        if let Some(body) = fresh(&self.live, now) {
            return body;
        }
        let metrics = self.read();
        let merged = metrics.merged();
        let before = self.before(now);
        let since = before.map_or(self.began, |before| before.at);
        let view = live::View {
            address: self.source.address,
            cores: self.source.shards.iter().map(|(core, _)| *core).collect(),
            uptime: now.saturating_duration_since(self.began),
            window: now.saturating_duration_since(since),
            before: before.map(|before| (&before.merged, &*before.shards)),
            now: (&merged, &metrics.shards),
        };
        let body = Arc::from(live::render(&view));
        self.remember(now, merged, metrics.shards);
        self.live.insert((now, body)).1.clone()
    }

    fn read(&self) -> Metrics {
        let shards = self.source.shards.iter().map(|(_, counters)| ShardMetrics::of(counters));
        Metrics { shards: shards.collect() }
    }

    /// The figures that what happened lately is told from; none where there are no earlier ones.
    fn before(&self, now: Instant) -> Option<&Moment> {
        let in_window = |moment: &&Moment| now.saturating_duration_since(moment.at) <= WINDOW;
        self.moments.iter().find(in_window).or(self.moments.back())
    }

    fn remember(&mut self, at: Instant, mut merged: ShardMetrics, mut shards: Vec<ShardMetrics>) {
        let last = self.moments.back().map(|moment| at.saturating_duration_since(moment.at));
        if last.is_some_and(|since| since < MOMENT_GAP) {
            return;
        }
        if self.moments.len() >= MOMENTS_MAX {
            self.moments.pop_front();
        }
        merged.slow.clear();
        for shard in &mut shards {
            shard.slow.clear();
            shard.methods.clear();
        }
        self.moments.push_back(Moment { at, merged, shards });
    }
}

fn fresh(kept: &Option<(Instant, Arc<[u8]>)>, now: Instant) -> Option<Arc<[u8]>> {
    let (at, body) = kept.as_ref()?;
    (now.saturating_duration_since(*at) < FRESH).then(|| Arc::clone(body))
}
