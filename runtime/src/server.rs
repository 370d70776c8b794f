//! Serving: shards started, one a core, and stopped.

use std::{
    future::{Future, poll_fn},
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    os::fd::OwnedFd,
    panic::resume_unwind,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    task::Poll,
    time::{Duration, Instant},
};

use crossbeam::utils::CachePadded;
use ringcall_codec::{Code, MethodInfo, ShardPlace, Status};
use rustix::io::Errno;

use crate::{
    config::{BACKLOG_DEFAULT, LOANS_END_MAX, STOP_FLUSH_MAX, ShardConfig},
    config_file::ServerConfig,
    counters::{Counters, RoundTrips, ShardCounters},
    dispatch,
    executor::{self, ExecutorConfig, ExecutorEnd, ExecutorThread},
    http::{Door, Endpoint, Source},
    ids::{Ids, IdsError, ServerNumber},
    listener::{self, Balance},
    mail::Mailboxes,
    metrics::{Metrics, ShardMetrics},
    placement::{Placement, PlacementError},
    service::Service,
    shard::{self, Remote, Shard, ShardError},
    socket::{self, SocketConfig},
    tasks,
};

/// Where serving begins: [`Server::builder`].
#[derive(Debug)]
pub struct Server(());

/// What to serve on.
#[derive(Clone, Debug, Default)]
pub struct ServerBuilder {
    placement: Placement,
    shard: ShardConfig,
    socket: SocketConfig,
    backlog: Option<u32>,
    balance: Balance,
    calls: &'static [MethodInfo],
    http: Http,
}

/// Where a server tells of itself.
#[derive(Clone, Copy, Debug, Default)]
enum Http {
    /// On the port that it serves on.
    #[default]
    Here,
    At(SocketAddr),
    Off,
}

/// A running server. Dropping it stops it and waits for it.
pub struct ServerHandle {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    shards: Vec<ShardThread>,
    http: Option<Endpoint>,
}

/// Stops a server from any thread, or from what handles a signal in one. Cheap to clone; it
/// does not keep the server running.
#[derive(Clone)]
pub struct Stopper(Vec<Remote>);

/// The shard that a service value is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardInfo {
    /// Number of the shard, from zero.
    pub index: u16,
    /// How many shards there are.
    pub count: u16,
    /// The core it is pinned to.
    pub core: usize,
}

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be looked up.
    #[error("cannot look the address up: {0}; give it as host:port")]
    Resolve(io::Error),
    /// The address stands for nothing.
    #[error("the name has no address")]
    NoAddress,
    /// No core was named, or too many.
    #[error("{0} cores were named; name from 1 to 1024")]
    Cores(usize),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", advice(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The shards cannot be placed so on this host.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The address for the metrics cannot be listened on.
    #[error("cannot listen on {address} for the metrics: {source}{}", advice(source))]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A shard cannot start.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A shard panicked: a defect of ringcall, or a service that panics where it is made.
    #[error("shard {index} panicked: {message}")]
    Panicked {
        /// The shard.
        index: u16,
        /// What it said.
        message: String,
    },
}

struct ShardThread {
    core: usize,
    remote: Remote,
    counters: Arc<CachePadded<Counters>>,
    thread: ExecutorThread<()>,
}

/// What a shard's thread is started with.
struct Setup<F> {
    config: ShardConfig,
    info: ShardInfo,
    listener: OwnedFd,
    balance: Balance,
    calls: &'static [MethodInfo],
    counters: Arc<CachePadded<Counters>>,
    mailboxes: Mailboxes,
    number: Arc<ServerNumber>,
    door: Option<Arc<Door>>,
    factory: F,
    started: SyncSender<Result<Remote, ShardError>>,
}

impl ShardInfo {
    /// The ids of the shard, to be asked for where its service value is made.
    ///
    /// # Errors
    ///
    /// On another thread than the shard's, and where sixteen other servers of this process make ids.
    pub fn ids(&self) -> Result<Ids, IdsError> {
        Ids::here(self.index)
    }
}

impl Server {
    /// A server with the defaults: a shard on each hardware thread that this process may use.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }
}

impl ServerBuilder {
    /// Takes the settings of a file ([`ServerConfig::from_file`]), in place of whatever of them was
    /// set before.
    #[must_use]
    pub fn config(mut self, config: ServerConfig) -> Self {
        let ServerConfig { cores, backlog, shard, socket } = config;
        self.placement = cores.map_or_else(Placement::default, Placement::cores);
        self.backlog = Some(backlog);
        (self.shard, self.socket) = (shard, socket);
        self
    }

    /// The cores to run shards on, one shard each time a core is named: [`Placement::cores`].
    #[must_use]
    pub fn cores(self, cores: impl IntoIterator<Item = usize>) -> Self {
        self.placement(Placement::cores(cores))
    }

    /// Where shards run. Default: one on every hardware thread that the process may use.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// How the shards run.
    #[must_use]
    pub fn shard(mut self, config: ShardConfig) -> Self {
        self.shard = config;
        self
    }

    /// Options of the listeners' sockets, which accepted connections inherit.
    #[must_use]
    pub fn socket(mut self, config: SocketConfig) -> Self {
        self.socket = config;
        self
    }

    /// The methods of calls that the service makes to its clients (`SomeClient::METHODS`): their
    /// messages' layouts are compared with a client's when it connects.
    #[must_use]
    pub fn calls_clients(mut self, methods: &'static [MethodInfo]) -> Self {
        self.calls = methods;
        self
    }

    /// Tells of itself by HTTP on this address alone, and not on the port that is served on: a page
    /// for people at `/`, text for Prometheus at `/metrics`. Port 0 lets the kernel choose.
    ///
    /// By default they are on the port that is served on, where a connection that begins with an
    /// HTTP request is answered by a thread of the server's own. Whoever can call can read them
    /// then: the names of methods, counts and times, and nothing of what is in a call.
    #[must_use]
    pub fn metrics_at(mut self, address: SocketAddr) -> Self {
        self.http = Http::At(address);
        self
    }

    /// Tells nothing of itself by HTTP. The figures are still there
    /// ([`ServerHandle::metrics`]), unless [`ShardConfig::metrics`] says no.
    #[must_use]
    pub fn metrics_off(mut self) -> Self {
        self.http = Http::Off;
        self
    }

    /// What to do about connections that the kernel spreads over the shards unevenly. Default:
    /// nothing.
    #[must_use]
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// Connections that may wait to be accepted, for each shard; limited by
    /// `net.core.somaxconn`. Default: 1,024.
    #[must_use]
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = Some(connections);
        self
    }

    /// Serves. `factory` makes the service value of each shard, on the shard's thread; values
    /// share nothing unless it makes them so. Tasks that it [spawns](crate::spawn) run on the shard
    /// and end with it; [`draining`](crate::draining) tells them before.
    ///
    /// Returns once every shard accepts. With port 0 the kernel chooses one, for all of them.
    /// Other processes of this user can listen on the same port (SO_REUSEPORT), and then share
    /// its connections.
    ///
    /// # Errors
    ///
    /// Where the address, a core or a setting cannot be used, or a shard cannot start; nothing
    /// runs then.
    pub fn serve<S, F>(
        self,
        address: impl ToSocketAddrs,
        factory: F,
    ) -> Result<ServerHandle, ServeError>
    where
        S: Service,
        F: Fn(ShardInfo) -> S + Clone + Send + 'static,
    {
        let cores = usable_cores(&self.placement)?;
        self.shard.validate().map_err(ShardError::from)?;
        self.socket.validate().map_err(ShardError::from)?;
        shard::check_process(&self.shard, cores.len())?;
        let backlog = self.backlog.unwrap_or(BACKLOG_DEFAULT);
        let listeners = listen(address, cores.len(), backlog, &self.socket)?;
        let address = local_address(&listeners)?;
        let (http, doors) = self.http.prepare(address)?;
        let metrics_address = http.as_ref().map(|http| http.address);
        let shards = Vec::with_capacity(cores.len());
        let mut server = ServerHandle { address, metrics_address, shards, http: None };
        let count = cores.len() as u16;
        let mailboxes = Mailboxes::new(cores.len()).map_err(ShardError::from)?;
        let number = Arc::<ServerNumber>::default();
        for (index, (core, listener)) in (0..).zip(cores.into_iter().zip(listeners)) {
            let info = ShardInfo { index, count, core };
            // A failure drops the handle, which stops the shards that run.
            let (counters, factory) = (Arc::default(), factory.clone());
            let (started, has_started) = sync_channel(1);
            let (config, calls, balance) = (self.shard.clone(), self.calls, self.balance);
            let (mailboxes, number) = (mailboxes.clone(), Arc::clone(&number));
            let door = doors.clone();
            let setup = Setup {
                config,
                info,
                listener,
                balance,
                calls,
                counters,
                mailboxes,
                number,
                door,
                factory,
                started,
            };
            server.shards.push(start(setup, &has_started)?);
        }
        server.http = http.map(|http| http.start(address, &server.shards)).transpose()?;
        Ok(server)
    }
}

impl ServerHandle {
    /// The address that is listened on, with the port the kernel chose where none was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address at which the metrics are to be read by HTTP; none where they are
    /// [switched off](ServerBuilder::metrics_off).
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// The counters of each shard, by number. They are read while the shards run.
    pub fn counters(&self) -> Vec<ShardCounters> {
        self.shards.iter().map(|shard| shard.counters.snapshot()).collect()
    }

    /// The figures of each shard: what was counted and what was measured. They are read while the
    /// shards run, which takes some hundred microseconds and does not hold them up.
    pub fn metrics(&self) -> Metrics {
        let shards = self.shards.iter().map(|shard| ShardMetrics::of(&shard.counters));
        Metrics { shards: shards.collect() }
    }

    /// How long the peers of each shard took to answer when they were asked for a sign of life.
    pub fn ping_round_trips(&self) -> Vec<RoundTrips> {
        self.shards.iter().map(|shard| shard.counters.ping_round_trips.snapshot()).collect()
    }

    /// Stops in order: no more connections, and no more calls on those there are. Calls that run
    /// are answered; calls that still come are refused, as not executed, so that they can be made
    /// elsewhere; a connection is closed once its calls have ended. What is left after `grace` is
    /// cut off as by [`stop`](Self::stop). Returns at once; [`join`](Self::join) waits.
    ///
    /// Connections that the kernel has accepted and a shard has not are reset, unless
    /// `net.ipv4.tcp_migrate_req` hands them to another listener of the port (`docs/tuning.md`).
    pub fn drain(&self, grace: Duration) {
        self.stopper().drain(grace);
    }

    /// Tells every shard to stop: no more connections, a status for each call in flight, and the
    /// end within a second. Returns at once; [`join`](Self::join) waits.
    pub fn stop(&self) {
        self.stopper().stop();
    }

    /// What stops the server from another thread, while this one is in [`join`](Self::join).
    pub fn stopper(&self) -> Stopper {
        Stopper(self.shards.iter().map(|shard| shard.remote.clone()).collect())
    }

    /// Waits until every shard has ended.
    ///
    /// # Errors
    ///
    /// Where a shard panicked; the others have ended too.
    pub fn join(mut self) -> Result<(), ServeError> {
        self.join_all()
    }

    fn join_all(&mut self) -> Result<(), ServeError> {
        let mut outcome = Ok(());
        for (index, shard) in (0..).zip(self.shards.drain(..)) {
            if let Err(end) = shard.thread.join() {
                outcome = Err(ended_badly(index, Some(end)));
            }
        }
        outcome
    }
}

impl Stopper {
    /// As [`ServerHandle::drain`]. The first grace that is given counts.
    pub fn drain(&self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX - 1).min(u64::MAX - 1);
        for shard in &self.0 {
            // A shard that drains already goes on as it was told.
            let _ = shard.drain_ms.compare_exchange(
                0,
                grace_ms + 1,
                Ordering::Release,
                Ordering::Relaxed,
            );
            shard.mail.bell().ring();
        }
    }

    /// As [`ServerHandle::stop`]. Stopping twice is as stopping once.
    pub fn stop(&self) {
        for shard in &self.0 {
            shard.stop.store(true, Ordering::Release);
            shard.mail.bell().ring();
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.stop();
        if let Err(error) = self.join_all() {
            tracing::error!(%error, "the server ended badly");
        }
    }
}

/// Begins to drain a shard: no more connections, no more calls, and the end when the last call
/// has ended or the grace is over.
pub(crate) fn begin_drain(shard: &Rc<Shard>) {
    shard.is_draining.set(true);
    shard.farewells.begin(shard);
    listener::close_all(shard);
    let status = Status::new(Code::Unavailable, "the server stops");
    let connections = shard.connections.borrow().values();
    for connection in connections {
        connection.drain(&status);
    }
    let grace_ms = shard.remote.drain_ms.load(Ordering::Acquire) - 1;
    let shard = Rc::clone(shard);
    tasks::spawn(async move {
        let mut all_closed = pin!(poll_fn(|cx| shard.poll_empty(cx.waker())));
        let mut grace = pin!(executor::sleep(Duration::from_millis(grace_ms)));
        poll_fn(|cx| match all_closed.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => grace.as_mut().poll(cx),
        })
        .await;
        shard.remote.stop.store(true, Ordering::Release);
        shard.wake_driver();
    });
}

/// Begins to stop a shard: no more connections, a status for every call that runs, and the reason
/// to every peer.
pub(crate) fn begin_stop(shard: &Rc<Shard>) {
    shard.is_stopping.set(true);
    shard.farewells.begin(shard);
    listener::close_all(shard);
    let status = Status::new(Code::Unavailable, "the server stops");
    let connections = shard.connections.borrow().values();
    for connection in connections {
        connection.refuse_all(&status);
        connection.go_away(&status);
    }
    shard.wake_stopped();
}

/// What answers HTTP, before it is started.
struct Prepared {
    address: SocketAddr,
    listener: Option<TcpListener>,
    door: Arc<Door>,
}

impl Http {
    /// Makes what is needed to answer, where that can fail, and what shards need for it.
    fn prepare(
        self,
        here: SocketAddr,
    ) -> Result<(Option<Prepared>, Option<Arc<Door>>), ServeError> {
        let (address, listener) = match self {
            Self::Off => return Ok((None, None)),
            Self::Here => (here, None),
            Self::At(address) => {
                let refused = |source| ServeError::Metrics { address, source };
                let listener = TcpListener::bind(address).map_err(refused)?;
                listener.set_nonblocking(true).map_err(refused)?;
                (listener.local_addr().map_err(refused)?, Some(listener))
            }
        };
        let door = Door::new().map_err(ShardError::from)?;
        let of_shards = listener.is_none().then(|| Arc::clone(&door));
        Ok((Some(Prepared { address, listener, door }), of_shards))
    }
}

impl Prepared {
    fn start(self, address: SocketAddr, shards: &[ShardThread]) -> Result<Endpoint, ServeError> {
        let shards = shards.iter().map(|shard| (shard.core, Arc::clone(&shard.counters)));
        let source = Source { address, shards: shards.collect() };
        let endpoint = Endpoint::start(self.door, self.listener, source);
        Ok(endpoint.map_err(ShardError::from)?)
    }
}

/// Starts a shard on its own thread, and waits until it accepts.
fn start<S, F>(
    setup: Setup<F>,
    has_started: &Receiver<Result<Remote, ShardError>>,
) -> Result<ShardThread, ServeError>
where
    S: Service,
    F: Fn(ShardInfo) -> S + Send + 'static,
{
    let (info, counters) = (setup.info, Arc::clone(&setup.counters));
    let executor = ExecutorConfig {
        core: Some(info.core),
        name: format!("ringcall-{}", info.index),
        preempt_timer: setup.config.preempt_timer,
    };
    let thread = executor::start(&executor, move || run(setup)).map_err(ShardError::from)?;
    match has_started.recv() {
        Ok(Ok(remote)) => Ok(ShardThread { core: info.core, remote, counters, thread }),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(ended_badly(info.index, thread.join().err())),
    }
}

/// A shard's life.
async fn run<S, F>(setup: Setup<F>)
where
    S: Service,
    F: Fn(ShardInfo) -> S,
{
    let Setup {
        config,
        info,
        listener,
        balance,
        calls,
        counters,
        mailboxes,
        number,
        door,
        factory,
        started,
    } = setup;
    let place = ShardPlace { index: info.index, count: info.count };
    let shard = match Shard::start(config, place, counters, mailboxes) {
        Ok(shard) => shard,
        Err(error) => {
            // Who started the shard waits for this; if it is gone, nobody needs to know.
            let _ = started.send(Err(error));
            return;
        }
    };
    if let Some(door) = door {
        // Nothing was set before.
        let _ = shard.http.set(door);
    }
    let served = tasks::guard(async {
        shard.asks.state.is_coming();
        // It had none before.
        let _ = shard.server_number.set(number);
        let service = Rc::new(factory(info));
        shard.asks.state.set(&service, &shard);
        let dispatch = dispatch::dispatcher(service, &shard);
        listener::listen(&shard, listener, dispatch, calls, balance);
        let _ = started.send(Ok(shard.remote.clone()));
        serve_until_stopped(&shard).await;
    });
    let served = served.await;
    shard.close_all();
    tasks::end_all().await;
    wait_for_loans(&shard).await;
    // Also where this thread panics its descriptors are closed by now.
    drop(shard);
    if let Err(panic) = served {
        resume_unwind(panic);
    }
}

/// Waits until no other shard reads what this one has received, or for some time.
async fn wait_for_loans(shard: &Shard) {
    let began = Instant::now();
    shard.relays.loans.collect();
    while !shard.relays.loans.is_empty() && began.elapsed() < LOANS_END_MAX {
        executor::sleep(Duration::from_millis(1)).await;
        shard.relays.loans.collect();
    }
}

/// Serves until the shard is told to stop, and then until its peers have read that it does.
async fn serve_until_stopped(shard: &Rc<Shard>) {
    poll_fn(|cx| shard.poll_stopping(cx.waker())).await;
    let mut all_closed = pin!(poll_fn(|cx| shard.poll_empty(cx.waker())));
    let mut patience = pin!(executor::sleep(STOP_FLUSH_MAX));
    poll_fn(|cx| match all_closed.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => patience.as_mut().poll(cx),
    })
    .await;
}

/// The error of a shard whose thread has ended of itself.
fn ended_badly(index: u16, end: Option<ExecutorEnd>) -> ServeError {
    match end {
        Some(ExecutorEnd::Failed(error)) => ShardError::from(error).into(),
        Some(ExecutorEnd::Panicked(message)) => ServeError::Panicked { index, message },
        None => ServeError::Panicked { index, message: "it ended early".to_owned() },
    }
}

/// The cores to use, a shard each.
fn usable_cores(placement: &Placement) -> Result<Vec<usize>, ServeError> {
    let check = |shards| match shards {
        1..=1024 => Ok(()),
        _ => Err(ServeError::Cores(shards)),
    };
    placement.named().map_or(Ok(()), check)?;
    let cores = placement.on_this_host()?;
    check(cores.len())?;
    Ok(cores)
}

/// A listener for each shard, all on the first address that can be listened on.
fn listen(
    address: impl ToSocketAddrs,
    count: usize,
    backlog: u32,
    config: &SocketConfig,
) -> Result<Vec<OwnedFd>, ServeError> {
    let mut error = ServeError::NoAddress;
    for address in address.to_socket_addrs().map_err(ServeError::Resolve)? {
        match listen_on(address, count, backlog, config) {
            Ok(listeners) => return Ok(listeners),
            Err(source) => error = ServeError::Listen { address, source },
        }
    }
    Err(error)
}

fn listen_on(
    address: SocketAddr,
    count: usize,
    backlog: u32,
    config: &SocketConfig,
) -> io::Result<Vec<OwnedFd>> {
    let first = socket::listener(address, backlog, config)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut listeners = vec![OwnedFd::from(first)];
    for _ in 1..count {
        listeners.push(socket::listener(address, backlog, config)?.into());
    }
    Ok(listeners)
}

fn local_address(listeners: &[OwnedFd]) -> Result<SocketAddr, ServeError> {
    let address = listeners.first().map(|socket| socket2::SockRef::from(socket).local_addr());
    match address {
        Some(Ok(address)) => address.as_socket().ok_or(ServeError::NoAddress),
        Some(Err(error)) => Err(ShardError::from(error).into()),
        None => Err(ServeError::NoAddress),
    }
}

/// What to do about an address that cannot be listened on.
fn advice(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => {
            "; another program has the port: stop it (`ss -ltnp` names it) or choose another port"
        }
        Some(Errno::ACCESS) => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE, or a lower net.ipv4.ip_unprivileged_port_start"
        }
        Some(Errno::ADDRNOTAVAIL) => {
            "; this host does not have the address (`ip address` lists them)"
        }
        Some(Errno::MFILE | Errno::NFILE) => {
            "; raise the limit with `ulimit -n` or with LimitNOFILE= in the systemd unit"
        }
        _ => "",
    }
}
