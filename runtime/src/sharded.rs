//! A client of every shard of a server: each call goes to the shard that owns its key.
//!
//! Before `client` and `call` on the path of a call out. It keeps a connection to each shard, makes
//! a lost one anew when a call wants it, and follows a server that comes back with another number
//! of shards. A call for which there is no connection waits for one, and so does one that was
//! refused as its server stops, once.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future, poll_fn},
    marker::PhantomData,
    net::{SocketAddr, ToSocketAddrs},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use ringcall_codec::{Code, Message, MethodInfo, RoutingKey, ShardKey, ShardPlace, Status};

use crate::{
    call::{OwnCall, Response, Terms, terms},
    client::{Client, ClientConfig, ConnectError},
    executor,
    shard::Shard,
};

/// Connections to all shards of a server, on which calls are made. Cheap to clone; the last clone
/// closes them.
///
/// It stays on the executor it was made on. The `…Shards` clients that `#[ringcall::service]`
/// writes wrap one.
#[derive(Clone)]
pub struct ShardedClient {
    shared: Rc<Shared>,
}

struct Shared {
    shard: Rc<Shard>,
    config: ClientConfig,
    /// The address that answered first.
    address: SocketAddr,
    methods: &'static [MethodInfo],
    /// By number of the shard, as many as the server has.
    links: RefCell<Vec<Link>>,
    /// Whose turn it is among those that calls without a key go to.
    turn: Cell<usize>,
}

/// The connection to one shard.
#[derive(Default)]
struct Link {
    client: Option<Client>,
    /// Somebody connects, and these wait for how that ends.
    is_connecting: bool,
    waiting: Vec<Waker>,
    /// Attempts that have failed since the last that did not.
    failures: u32,
}

/// A call of a sharded client: a future of its outcome, and given up when it is dropped.
///
/// Nothing is sent before it is first polled. Where its shard has no connection it waits for one,
/// as long as connecting may take or until its time is over. One that was certainly not executed, or is
/// `#[rpc(idempotent)]`, is made once more where its server becomes unavailable.
#[must_use = "nothing is sent before the call is awaited"]
pub struct ShardedCall<'a, Q: Message, R, E = Status> {
    client: &'a ShardedClient,
    terms: Terms<'a>,
    request: &'a Q,
    state: State<'a, Q, R>,
    /// Whether it was made before.
    is_second: bool,
    outcome: PhantomData<fn() -> E>,
}

enum State<'a, Q: Message, R> {
    New,
    Begun,
    Connecting(Pin<Box<dyn Future<Output = Result<Client, Status>> + 'a>>),
    Calling(OwnCall<'a, Q, R>),
    Done,
}

/// The right to connect to a shard, for one at a time.
struct Turn<'a> {
    shared: &'a Shared,
    index: usize,
}

/// Wait after the first attempt to connect that has failed; it doubles with every other.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

impl ShardedClient {
    /// Connects to every shard with the defaults, to call `methods`. As [`Client::connect`].
    ///
    /// # Errors
    ///
    /// Where no shard can be connected to. A shard that cannot be while another can is connected
    /// to again when a call wants it.
    pub async fn connect(
        address: impl ToSocketAddrs,
        methods: &'static [MethodInfo],
    ) -> Result<Self, ConnectError> {
        Self::connect_with(&ClientConfig::default(), address, methods).await
    }

    /// Connects to every shard, to call `methods`. As [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with(
        config: &ClientConfig,
        address: impl ToSocketAddrs,
        methods: &'static [MethodInfo],
    ) -> Result<Self, ConnectError> {
        let shard = Shard::current()?;
        let mut error = ConnectError::NoAddress;
        for address in address.to_socket_addrs().map_err(ConnectError::Resolve)? {
            let anywhere = ShardPlace::default();
            match Client::connect_to_shard(config, address, methods, anywhere).await {
                Ok(first) => {
                    let (config, links, turn) = (config.clone(), RefCell::default(), Cell::new(0));
                    let shared = Shared { shard, config, address, methods, links, turn };
                    shared.adopt(first.shard().count);
                    shared.keep(first.shard().index.into(), first);
                    shared.connect_others().await;
                    return Ok(Self { shared: Rc::new(shared) });
                }
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    /// Calls a method, on the shard that owns the key; without one on each shard in turn.
    #[inline]
    pub fn call<'a, Q: Message, R: Message, E: From<Status>>(
        &'a self,
        method: &'static MethodInfo,
        key: Option<RoutingKey>,
        request: &'a Q,
    ) -> ShardedCall<'a, Q, R, E> {
        let terms = self.terms(method, key);
        let (state, is_second, outcome) = (State::New, false, PhantomData);
        ShardedCall { client: self, terms, request, state, is_second, outcome }
    }

    /// Makes a call that gets no answer: done once the request is in a connection's send buffer.
    ///
    /// # Errors
    ///
    /// Where it cannot be sent.
    pub async fn one_way<Q: Message>(
        &self,
        method: &'static MethodInfo,
        key: Option<RoutingKey>,
        request: &Q,
    ) -> Result<(), Status> {
        let terms = self.terms(method, key).begun(&self.shared.shard);
        let mut is_second = false;
        loop {
            let client = self.shared.connected(key, &terms).await?;
            let call = client.one_way(method, request);
            let call = if let Some(key) = key { call.with_key(key) } else { call };
            match call.await {
                Err(status) if !is_second && may_repeat(method, &status) => is_second = true,
                outcome => return outcome,
            }
        }
    }

    /// A connection to the shard that owns a key, for what is not made of calls alone: streams,
    /// calls of the server to its client.
    ///
    /// # Errors
    ///
    /// Where the shard cannot be connected to.
    pub async fn of(&self, key: &(impl ShardKey + ?Sized)) -> Result<Client, Status> {
        let terms = Terms::with_timeout(0, &ANY);
        self.shared.connected(Some(RoutingKey::of(key)), &terms).await
    }

    /// How many shards the server has, as far as this client knows.
    pub fn shards(&self) -> u16 {
        self.shared.links.borrow().len() as u16
    }

    fn terms<'a>(&self, method: &'static MethodInfo, key: Option<RoutingKey>) -> Terms<'a> {
        Terms { key, ..Terms::with_timeout(self.shared.config.timeout_us(), method) }
    }
}

impl<'a, Q: Message, R, E> ShardedCall<'a, Q, R, E> {
    terms!();
}

impl<Q: Message, R: Message, E: From<Status>> Future for ShardedCall<'_, Q, R, E> {
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let call = self.get_mut();
        let shared = &*call.client.shared;
        loop {
            let client = match &mut call.state {
                State::New => {
                    call.terms = call.terms.begun(&shared.shard);
                    call.state = State::Begun;
                    continue;
                }
                State::Begun => match shared.ready(call.terms.key) {
                    Some(client) => Ok(client),
                    None => {
                        let terms = call.terms;
                        let connected = async move { shared.connected(terms.key, &terms).await };
                        call.state = State::Connecting(Box::pin(connected));
                        continue;
                    }
                },
                State::Connecting(connected) => match connected.as_mut().poll(cx) {
                    Poll::Ready(connected) => connected,
                    Poll::Pending => return Poll::Pending,
                },
                State::Calling(made) => match Pin::new(made).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(status))
                        if !call.is_second && may_repeat(call.terms.method, &status) =>
                    {
                        call.is_second = true;
                        call.state = State::Begun;
                        continue;
                    }
                    Poll::Ready(outcome) => {
                        call.state = State::Done;
                        return Poll::Ready(outcome.map_err(E::from));
                    }
                },
                State::Done => Err(Status::new(Code::Internal, "the call has ended")),
            };
            match client {
                Ok(client) => {
                    call.state = State::Calling(OwnCall::new(client, call.terms, call.request));
                }
                Err(status) => {
                    call.state = State::Done;
                    return Poll::Ready(Err(status.into()));
                }
            }
        }
    }
}

impl Shared {
    /// The connection for a call, where there is one.
    #[inline]
    fn ready(&self, key: Option<RoutingKey>) -> Option<Client> {
        let links = self.links.borrow();
        let link = links.get(self.index(key, links.len()))?;
        let client = link.client.as_ref().filter(|client| client.is_open());
        if key.is_none() {
            self.turn.set(self.turn.get().wrapping_add(1));
        }
        client.cloned()
    }

    /// The shard that a call goes to.
    #[inline]
    fn index(&self, key: Option<RoutingKey>, count: usize) -> usize {
        match key {
            Some(key) => key.owner(count as u16).into(),
            None => self.turn.get() % count.max(1),
        }
    }

    /// The connection for a call; waits for it where there is none, as long as connecting may take
    /// and the call has time.
    async fn connected(
        &self,
        key: Option<RoutingKey>,
        terms: &Terms<'_>,
    ) -> Result<Client, Status> {
        if let Some(client) = self.ready(key) {
            return Ok(client);
        }
        let now_us = self.shard.fresh_now_us();
        let left = Duration::from_micros(terms.within_us.saturating_sub(now_us));
        let patience = self.config.the_connect_timeout();
        let last = RefCell::new(None);
        let mut connect = pin!(self.connect(key, &last));
        let mut sleep = pin!(executor::sleep(patience.min(left)));
        poll_fn(|cx| {
            if let Poll::Ready(connected) = connect.as_mut().poll(cx) {
                return Poll::Ready(connected);
            }
            let late = if left < patience { Code::DeadlineExceeded } else { Code::Unavailable };
            sleep.as_mut().poll(cx).map(|()| Err(late))
        })
        .await
        .map_err(|code| {
            let is_late = code == Code::DeadlineExceeded;
            let what = if is_late { "no connection in time" } else { "no connection" };
            let why = last.take().map_or(String::new(), |error: String| format!(": {error}"));
            Status::new(code, format!("call not made: {what}{why}")).not_executed()
        })
    }

    /// Connects to the shard that a call goes to, again and again.
    ///
    /// # Errors
    ///
    /// Where it makes no sense to try again: the code of the call's status. `last` says why.
    async fn connect(
        &self,
        key: Option<RoutingKey>,
        last: &RefCell<Option<String>>,
    ) -> Result<Client, Code> {
        loop {
            let index = self.index(key, self.links.borrow().len());
            let turn = poll_fn(|cx| self.poll_turn(index, cx.waker())).await;
            // Who had the turn before may have connected, or learned of another number of shards.
            if let Some(client) = self.ready(key) {
                return Ok(client);
            }
            let Some(turn) = turn else { continue };
            if let Some(wait) = self.backoff(index) {
                executor::sleep(wait).await;
            }
            if let Err(error) = self.connect_link(index).await {
                let is_final = matches!(error, ConnectError::Session { .. });
                *last.borrow_mut() = Some(error.to_string());
                if is_final {
                    return Err(Code::FailedPrecondition);
                }
            }
            drop(turn);
        }
    }

    /// Tries once to connect to a shard.
    async fn connect_link(&self, index: usize) -> Result<(), ConnectError> {
        let count = self.links.borrow().len();
        let place = ShardPlace { index: index as u16, count: count as u16 };
        let connected =
            Client::connect_to_shard(&self.config, self.address, self.methods, place).await;
        match connected {
            Ok(client) => {
                let told = client.shard();
                self.adopt(told.count);
                // One that wanted a shard that there is not is about to be closed.
                if index < usize::from(told.count.max(1)) {
                    self.keep(index, client);
                }
                Ok(())
            }
            Err(error) => {
                if let Some(link) = self.links.borrow_mut().get_mut(index) {
                    link.failures = link.failures.saturating_add(1);
                }
                Err(error)
            }
        }
    }

    /// Connects to the shards that have no connection yet, to all at a time.
    async fn connect_others(&self) {
        let missing = |(index, link): (usize, &Link)| link.client.is_none().then_some(index);
        let missing: Vec<_> = self.links.borrow().iter().enumerate().filter_map(missing).collect();
        let mut attempts: Vec<_> =
            missing.into_iter().map(|index| Box::pin(self.connect_link(index))).collect();
        poll_fn(|cx| {
            // One that fails is tried again when a call wants it.
            attempts.retain_mut(|attempt| attempt.as_mut().poll(cx).is_pending());
            if attempts.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Notes how many shards the server has. Where they were not as many, every key may have
    /// another owner: connections of before are let go of, and calls on them go on.
    fn adopt(&self, count: u16) {
        let count = usize::from(count.max(1));
        let mut links = self.links.borrow_mut();
        if links.len() == count {
            return;
        }
        if !links.is_empty() {
            tracing::info!(before = links.len(), now = count, "the server has other shards");
        }
        let before = std::mem::take(&mut *links);
        links.resize_with(count, Link::default);
        drop(links);
        // They look for their shards anew.
        before.iter().flat_map(|link| &link.waiting).for_each(Waker::wake_by_ref);
        // Not dropped while the table is borrowed, as what ends with them is others' affair.
        drop(before);
    }

    fn keep(&self, index: usize, client: Client) {
        let mut links = self.links.borrow_mut();
        let Some(link) = links.get_mut(index) else { return };
        link.failures = 0;
        let before = link.client.replace(client);
        drop(links);
        drop(before);
    }

    /// The turn to connect to a shard, once nobody has it; none where there is no such shard.
    fn poll_turn(&self, index: usize, waker: &Waker) -> Poll<Option<Turn<'_>>> {
        let mut links = self.links.borrow_mut();
        let Some(link) = links.get_mut(index) else { return Poll::Ready(None) };
        if link.is_connecting {
            link.waiting.push(waker.clone());
            return Poll::Pending;
        }
        link.is_connecting = true;
        Poll::Ready(Some(Turn { shared: self, index }))
    }

    /// How long to wait before the next attempt: longer after each that fails, and not as long as
    /// others do.
    fn backoff(&self, index: usize) -> Option<Duration> {
        let links = self.links.borrow();
        let failures = links.get(index)?.failures.checked_sub(1)?;
        let most = BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
        let part = (self.shard.random() % 512) as u32;
        Some(most / 2 + most / 1024 * part)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut links = self.shared.links.borrow_mut();
        let Some(link) = links.get_mut(self.index) else { return };
        link.is_connecting = false;
        let waiting = std::mem::take(&mut link.waiting);
        drop(links);
        waiting.iter().for_each(Waker::wake_by_ref);
    }
}

impl fmt::Debug for ShardedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedClient")
            .field("address", &self.shared.address)
            .field("shards", &self.shards())
            .finish_non_exhaustive()
    }
}

/// Whether a call may be made once more that has ended so.
fn may_repeat(method: &MethodInfo, status: &Status) -> bool {
    status.code() == Code::Unavailable && (status.is_not_executed() || method.idempotent)
}

/// No method in particular.
static ANY: MethodInfo = MethodInfo::unary(0, "", 0, 0);
