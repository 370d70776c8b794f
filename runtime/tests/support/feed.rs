//! A service whose methods have items, in each direction and both, and a server of it on one shard.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use ringcall::{RunConfig, ShardConfig, is_in_receive_pool, prelude::*};

use super::{event::Gate, server::one_shard, wait::watched};

/// Numbers from one to before another.
#[ringcall::message]
pub(crate) struct Range {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

#[ringcall::message]
pub(crate) struct Number {
    pub(crate) number: u64,
}

#[ringcall::message]
pub(crate) struct Part {
    pub(crate) bytes: Vec<u8>,
}

impl Part {
    pub(crate) fn new(len: usize) -> Self {
        Self { bytes: vec![len as u8; len] }
    }
}

/// No numbers, for the methods that want none.
pub(crate) const NONE: Range = Range { from: 0, to: 0 };

/// Where [`Feed::count`] ends otherwise than with a reply.
pub(crate) const THIRTEEN: u64 = 13;

/// Small items that fill the window of a stream: 256 KiB by default, and 256 bytes for each.
pub(crate) const FULL: u64 = 1024;

#[ringcall::service]
pub(crate) trait Feed {
    /// Sends the numbers of the range, and replies with how many they were.
    async fn count(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        numbers: Sink<'_, Number>,
    ) -> Result<Number, Status>;

    /// Replies with the sum of the numbers that were sent.
    async fn sum(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        numbers: Source<Number>,
    ) -> Result<Number, Status>;

    /// As `sum`, once the gate was opened.
    async fn sum_later(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        numbers: Source<Number>,
    ) -> Result<Number, Status>;

    /// As `sum`, also where nobody waits for it.
    #[rpc(no_cancel)]
    async fn sum_always(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        numbers: Source<Number>,
    ) -> Result<Number, Status>;

    /// Replies once the gate was opened, and takes nothing.
    async fn ignore(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        numbers: Source<Number>,
    ) -> Result<Number, Status>;

    /// Replies at once, and leaves its items to a task.
    async fn leave(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        numbers: Source<Number>,
    ) -> Result<Number, Status>;

    /// Sends back each part.
    async fn echo(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        parts: Source<Part>,
        back: Sink<'_, Part>,
    ) -> Result<Number, Status>;

    /// Says of each part with one that it was read where the kernel put it.
    async fn look(
        &self,
        cx: &Context,
        request: Request<'_, Range>,
        parts: Source<Part>,
        seen: Sink<'_, Number>,
    ) -> Result<Number, Status>;

    /// Opens the gate.
    async fn open(&self, cx: &Context, request: Request<'_, Range>) -> Result<Number, Status>;
}

/// What a test sees of the handlers.
#[derive(Default)]
pub(crate) struct Watch {
    /// Numbers that were sent, by the first of the range.
    sent: Mutex<BTreeMap<u64, u64>>,
    /// Handlers that run.
    running: AtomicU64,
    /// How the items of `sum_always` and `leave` ended otherwise than with the last.
    pub(crate) cut: Mutex<Vec<Status>>,
}

impl Watch {
    /// Numbers that a handler sent whose range begins so.
    pub(crate) fn sent(&self, from: u64) -> u64 {
        self.sent.lock().unwrap().get(&from).copied().unwrap_or(0)
    }

    /// Handlers that run.
    pub(crate) fn running(&self) -> u64 {
        self.running.load(Relaxed)
    }
}

/// A handler that runs, until it is done or dropped.
struct Runs<'a>(&'a Watch);

impl<'a> Runs<'a> {
    fn begin(watch: &'a Watch) -> Self {
        watch.running.fetch_add(1, Relaxed);
        Self(watch)
    }
}

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

pub(crate) struct Feeder {
    gate: Gate,
    watch: Arc<Watch>,
}

impl Feeder {
    pub(crate) fn new(watch: &Arc<Watch>) -> Self {
        Self { gate: Gate::default(), watch: Arc::clone(watch) }
    }
}

async fn sum_of(mut numbers: Source<Number>) -> Result<Number, Status> {
    let mut sum = 0;
    while let Some(number) = numbers.next().await? {
        sum += number.number.to_native();
    }
    Ok(Number { number: sum })
}

impl Feed for Feeder {
    async fn count(
        &self,
        _: &Context,
        request: Request<'_, Range>,
        numbers: Sink<'_, Number>,
    ) -> Result<Number, Status> {
        let _runs = Runs::begin(&self.watch);
        let (from, to) = (request.from.to_native(), request.to.to_native());
        for number in from..to {
            numbers.send(&Number { number }).await?;
            *self.watch.sent.lock().unwrap().entry(from).or_default() += 1;
        }
        if to == THIRTEEN {
            return Err(Status::new(Code::OutOfRange, "thirteen"));
        }
        Ok(Number { number: to - from })
    }

    async fn sum(
        &self,
        _: &Context,
        _: Request<'_, Range>,
        numbers: Source<Number>,
    ) -> Result<Number, Status> {
        let _runs = Runs::begin(&self.watch);
        sum_of(numbers).await
    }

    async fn sum_later(
        &self,
        _: &Context,
        _: Request<'_, Range>,
        numbers: Source<Number>,
    ) -> Result<Number, Status> {
        let _runs = Runs::begin(&self.watch);
        self.gate.wait().await;
        sum_of(numbers).await
    }

    async fn sum_always(
        &self,
        _: &Context,
        _: Request<'_, Range>,
        numbers: Source<Number>,
    ) -> Result<Number, Status> {
        let _runs = Runs::begin(&self.watch);
        let sum = sum_of(numbers).await;
        if let Err(status) = &sum {
            self.watch.cut.lock().unwrap().push(status.clone());
        }
        sum
    }

    async fn ignore(
        &self,
        _: &Context,
        _: Request<'_, Range>,
        _numbers: Source<Number>,
    ) -> Result<Number, Status> {
        let _runs = Runs::begin(&self.watch);
        self.gate.wait().await;
        Ok(Number { number: 0 })
    }

    async fn leave(
        &self,
        _: &Context,
        _: Request<'_, Range>,
        numbers: Source<Number>,
    ) -> Result<Number, Status> {
        let watch = Arc::clone(&self.watch);
        ringcall::spawn(async move {
            if let Err(status) = sum_of(numbers).await {
                watch.cut.lock().unwrap().push(status);
            }
        });
        Ok(Number { number: 0 })
    }

    async fn echo(
        &self,
        _: &Context,
        _: Request<'_, Range>,
        mut parts: Source<Part>,
        back: Sink<'_, Part>,
    ) -> Result<Number, Status> {
        let _runs = Runs::begin(&self.watch);
        let mut count = 0;
        while let Some(part) = parts.next().await? {
            back.send(&part.to_owned()?).await?;
            count += 1;
        }
        Ok(Number { number: count })
    }

    async fn look(
        &self,
        _: &Context,
        _: Request<'_, Range>,
        mut parts: Source<Part>,
        seen: Sink<'_, Number>,
    ) -> Result<Number, Status> {
        let mut kept = RefCell::new(None);
        while let Some(part) = parts.next().await? {
            let number = u64::from(part.bytes.is_empty() || is_in_receive_pool(&part.bytes[0]));
            // The last part stays leased while the next comes.
            kept.replace(Some(part));
            seen.send(&Number { number }).await?;
        }
        Ok(Number { number: u64::from(kept.get_mut().is_some()) })
    }

    async fn open(&self, _: &Context, _: Request<'_, Range>) -> Result<Number, Status> {
        self.gate.open();
        Ok(Number { number: 0 })
    }
}

/// Runs a test with a client of a server, each on a shard of its own.
pub(crate) fn with_client<F: Future<Output = ()>>(
    test: impl FnOnce(FeedClient, Arc<Watch>) -> F + Send + 'static,
) {
    with_shards(ShardConfig::new(), ShardConfig::new(), test);
}

/// [`with_client`], with shards of the server and the client that are configured so.
pub(crate) fn with_shards<F: Future<Output = ()>>(
    server: ShardConfig,
    client: ShardConfig,
    test: impl FnOnce(FeedClient, Arc<Watch>) -> F + Send + 'static,
) {
    watched(|| {
        let watch = Arc::<Watch>::default();
        let feeder = {
            let watch = Arc::clone(&watch);
            move || FeedServer::new(Feeder::new(&watch))
        };
        let server = one_shard().shard(server).serve("127.0.0.1:0", move |_| feeder()).unwrap();
        let run = RunConfig::new().shard(client).run(async {
            test(FeedClient::connect(server.address()).await.unwrap(), watch).await;
        });
        run.unwrap();
    });
}
