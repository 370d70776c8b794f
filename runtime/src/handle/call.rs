//! Calls through a handle, as their callers have them: futures for any executor.
//!
//! First and last on the path of such a call. The request is encoded when the call is written
//! down, on the caller's thread, so the future borrows nothing; it is handed to the shard when the
//! future is first polled. The reply is validated on the thread that takes it.

use std::{
    borrow::Cow,
    cell::RefCell,
    fmt,
    future::Future,
    marker::PhantomData,
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use ringcall_codec::{
    CallId, Code, Message, Metadata, MetadataRef, MethodInfo, Scratch, ServerTimes, Status,
    encode_body,
};

use super::{
    client::Connected,
    promise::{Ended, Place, Promise},
    queue::Entry,
    reply::Reply,
    room::Asked,
};
use crate::{config::us32, ring::Detached, times};

/// A call through a handle: a future of its outcome, for any executor.
///
/// It borrows nothing and can go to another thread. Nothing is sent before it is first polled.
/// Dropping it gives the call up: the server is told, drops the handler at its next await, and
/// what it still answers is thrown away.
#[must_use = "nothing is sent before the call is awaited"]
pub struct Call<R, E = Status> {
    call: Unfinished,
    outcome: PhantomData<fn() -> (R, E)>,
}

/// A call without an answer: a future that is done once the request is in the send buffer of its
/// connection.
///
/// It borrows nothing and can go to another thread. Nothing is sent before it is first polled.
#[must_use = "nothing is sent before the call is awaited"]
pub struct OneWay {
    call: Unfinished,
}

/// A call until its outcome is taken.
struct Unfinished {
    client: Arc<Connected>,
    state: State,
}

enum State {
    /// Not handed over; with a ticket where it waits for room.
    New {
        request: Request,
        ticket: Option<u64>,
    },
    InFlight(Arc<CallPlace>),
    /// It could not be encoded.
    Failed(Box<Status>),
    Done,
}

/// What a call is made of.
pub(super) struct Request {
    pub(super) method: &'static MethodInfo,
    /// The archive of the request.
    pub(super) body: Vec<u8>,
    pub(super) metadata: Cow<'static, [u8]>,
    wants_times: bool,
    pub(super) is_one_way: bool,
    /// Time from the first poll to the outcome, in microseconds; zero is for ever.
    timeout_us: u32,
    /// Set when it is first polled, where it has one.
    pub(super) deadline: Option<Instant>,
}

/// A call on its way to the shard.
pub(super) struct Submission {
    pub(super) port: u64,
    pub(super) request: Request,
    pub(super) call: CallPromise,
}

/// How a call ends.
pub(super) type Outcome = Result<Detached, Box<Status>>;

/// Where the outcome of a call is left.
pub(super) type CallPlace = Place<Outcome, Beside>;

/// The duty to give a call its outcome.
pub(super) type CallPromise = Promise<Outcome, Beside>;

/// What goes with a call that is in flight. Dropped with the last who knows of the call: then
/// there is room for another.
pub(super) struct Beside {
    client: Arc<Connected>,
    /// The call's id on its connection, once it has one; for the shard alone.
    id: AtomicU64,
}

thread_local! {
    /// Working memory for encoding.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Capacity of a request's buffer at first, in bytes: that of most requests, and of most replies,
/// which are copied to where a request was.
const BODY_LEN_AT_FIRST: usize = 256;

/// The settings that every kind of call has.
macro_rules! terms {
    () => {
        /// Gives the call so much time, in place of the method's or the client's; zero is for
        /// ever. Up to 71 minutes, from the first poll. Without an outcome by then it fails with
        /// `DEADLINE_EXCEEDED`, and the server is told to stop.
        pub fn timeout(mut self, timeout: Duration) -> Self {
            if let State::New { request, .. } = &mut self.call.state {
                request.timeout_us = us32(timeout);
            }
            self
        }

        /// Sends metadata with the request: a copy of this.
        pub fn metadata(mut self, metadata: &Metadata) -> Self {
            if let State::New { request, .. } = &mut self.call.state {
                request.set_metadata(Some(metadata));
            }
            self
        }
    };
}

impl<R: Message, E: From<Status>> Call<R, E> {
    /// A call that is not made yet.
    pub(super) fn new<Q: Message>(
        client: &Arc<Connected>,
        method: &'static MethodInfo,
        request: &Q,
    ) -> Self {
        let call = Unfinished::new(client, method, request, false);
        Self { call, outcome: PhantomData }
    }

    terms!();

    /// Asks the server how long it holds the call, for [`Reply::server_times`]. One that fails has
    /// none. Costs 16 bytes each way and the server two looks at the clock; where metadata leaves
    /// no room for it, it is not asked.
    pub fn with_server_times(mut self) -> Self {
        if let State::New { request, .. } = &mut self.call.state {
            request.ask_for_times();
        }
        self
    }
}

impl<R: Message, E: From<Status>> Future for Call<R, E> {
    type Output = Result<Reply<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match self.get_mut().call.poll(cx.waker()) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(outcome) => outcome,
        };
        Poll::Ready(match outcome {
            Ok(bytes) => Reply::new(bytes).map_err(E::from),
            Err(status) => Err((*status).into()),
        })
    }
}

impl OneWay {
    pub(super) fn new<Q: Message>(
        client: &Arc<Connected>,
        method: &'static MethodInfo,
        request: &Q,
    ) -> Self {
        Self { call: Unfinished::new(client, method, request, true) }
    }

    terms!();
}

impl Future for OneWay {
    type Output = Result<(), Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = self.get_mut().call.poll(cx.waker());
        outcome.map(|outcome| outcome.map(|_| ()).map_err(|status| *status))
    }
}

impl Unfinished {
    fn new<Q: Message>(
        client: &Arc<Connected>,
        method: &'static MethodInfo,
        request: &Q,
        is_one_way: bool,
    ) -> Self {
        let state = match encode(request, client.body_len_max) {
            Ok(body) => {
                let timeout_us = match method.timeout_us {
                    0 => client.timeout_us,
                    timeout_us => timeout_us,
                };
                let metadata = Cow::Borrowed(&[][..]);
                let (wants_times, deadline) = (false, None);
                let request = Request {
                    method,
                    body,
                    metadata,
                    wants_times,
                    is_one_way,
                    timeout_us,
                    deadline,
                };
                State::New { request, ticket: None }
            }
            Err(status) => State::Failed(status),
        };
        Self { client: Arc::clone(client), state }
    }

    fn poll(&mut self, waker: &Waker) -> Poll<Outcome> {
        match &self.state {
            State::InFlight(place) => {
                let outcome = place.poll(waker);
                if outcome.is_ready() {
                    self.state = State::Done;
                }
                outcome
            }
            _ => self.begin(waker).map(Err),
        }
    }

    /// Hands the call to the shard where it is not yet, and is ready only with why it never will
    /// be.
    fn begin(&mut self, waker: &Waker) -> Poll<Box<Status>> {
        let shared = self.client.shared();
        let (mut request, ticket) = match mem::replace(&mut self.state, State::Done) {
            State::New { request, ticket } => (request, ticket),
            State::Failed(status) => return Poll::Ready(status),
            _ => return Poll::Ready(Box::new(Status::new(Code::Internal, "the call has ended"))),
        };
        if request.timeout_us != 0 && request.deadline.is_none() {
            let timeout = Duration::from_micros(request.timeout_us.into());
            request.deadline = Instant::now().checked_add(timeout);
        }
        if ticket.is_none() && shared.room.try_take() {
            self.submit(request, waker);
            return Poll::Pending;
        }
        self.wait_for_room(request, ticket, waker)
    }

    #[cold]
    fn wait_for_room(
        &mut self,
        request: Request,
        ticket: Option<u64>,
        waker: &Waker,
    ) -> Poll<Box<Status>> {
        let shared = self.client.shared();
        let is_late = request.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let refusal = match shared.room.take_or_wait(ticket, waker, request.deadline) {
            Asked::Granted => {
                self.submit(request, waker);
                return Poll::Pending;
            }
            Asked::Refused => Status::new(
                Code::ResourceExhausted,
                "call not made: too many callers wait for room already",
            ),
            Asked::Waits(ticket) => {
                // Looked at after the place was taken, so that its end is not missed.
                let is_closed = shared.is_closed();
                if !is_late && !is_closed {
                    if request.deadline.is_some() {
                        shared.tend();
                    }
                    self.state = State::New { request, ticket: Some(ticket) };
                    return Poll::Pending;
                }
                shared.room.end_wait(ticket);
                if is_closed { *ended() } else { too_late() }
            }
        };
        Poll::Ready(Box::new(refusal.not_executed()))
    }

    fn submit(&mut self, request: Request, waker: &Waker) {
        let beside = Beside { client: Arc::clone(&self.client), id: AtomicU64::new(0) };
        let (place, call) = Place::new(waker.clone(), beside);
        self.state = State::InFlight(place);
        let port = self.client.port;
        self.client.shared().push(Entry::Call(Submission { port, request, call }));
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        match mem::replace(&mut self.state, State::Done) {
            State::InFlight(place) => {
                if place.give_up() {
                    self.client.shared().push(Entry::GiveUp(place));
                }
            }
            State::New { ticket: Some(ticket), .. } => self.client.shared().room.end_wait(ticket),
            State::New { .. } | State::Failed(_) | State::Done => {}
        }
    }
}

impl Request {
    fn set_metadata(&mut self, metadata: Option<&Metadata>) {
        let mut room = Metadata::new();
        let block = times::block_of_request(metadata, self.wants_times, &mut room);
        self.metadata = Cow::Owned(block.to_vec());
    }

    fn ask_for_times(&mut self) {
        self.wants_times = true;
        if self.metadata.is_empty() {
            self.metadata = Cow::Borrowed(ServerTimes::WANTED);
            return;
        }
        // It was checked when it was given.
        if let Ok(metadata) = MetadataRef::parse(&self.metadata) {
            self.set_metadata(Some(&metadata.to_owned()));
        }
    }
}

impl Beside {
    /// Number of the connection on the shard.
    pub(super) fn port(&self) -> u64 {
        self.client.port
    }

    /// The id that the call was made with; none where it was not made yet.
    pub(super) fn id(&self) -> Option<CallId> {
        match self.id.load(Relaxed) {
            0 => None,
            id => Some(CallId(id)),
        }
    }

    /// Notes the id. No call has zero: generations begin at one.
    pub(super) fn set_id(&self, id: CallId) {
        self.id.store(id.0, Relaxed);
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.client.shared().room.leave();
    }
}

impl Ended for Outcome {
    fn ended() -> Self {
        Err(ended())
    }
}

/// The status of a call whose shard has ended. It may have been sent.
#[cold]
fn ended() -> Box<Status> {
    Box::new(Status::new(Code::Unavailable, "the handle's shard has ended; start another handle"))
}

/// The status of a call whose time was over before it was made.
#[cold]
pub(super) fn too_late() -> Status {
    Status::new(Code::DeadlineExceeded, "call not made: the deadline is past")
}

/// The archive of a request.
fn encode<Q: Message>(request: &Q, body_len_max: usize) -> Result<Vec<u8>, Box<Status>> {
    let mut body = Vec::with_capacity(BODY_LEN_AT_FIRST);
    let encoded = SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => encode_body(&mut body, &mut scratch, request, body_len_max),
        // The request makes a call while it is encoded.
        Err(_) => encode_body(&mut body, &mut Scratch::default(), request, body_len_max),
    });
    match encoded {
        Ok(()) => Ok(body),
        Err(error) => {
            let text = format!("call not made: {error}");
            Err(Box::new(Status::new(Code::ResourceExhausted, text).not_executed()))
        }
    }
}

impl<R, E> fmt::Debug for Call<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("state", &self.call.state.name()).finish_non_exhaustive()
    }
}

impl fmt::Debug for OneWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneWay").field("state", &self.call.state.name()).finish_non_exhaustive()
    }
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::New { .. } => "not made",
            Self::InFlight(_) => "in flight",
            Self::Failed(_) | Self::Done => "done",
        }
    }
}
