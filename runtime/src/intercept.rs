//! Interceptors: what sees every call, before and after.
//!
//! Around the dispatch of a call at a server, and around a call at a client. They are composed by
//! the compiler: a service without any is not touched, and several are one type. A client asks
//! once per call whether it has one.

use std::{
    future::{Future, poll_fn},
    ops::Deref,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use ringcall_codec::{Code, Metadata, MethodInfo, Status};
use tracing::Span;

use crate::{
    classes::Class,
    context::Context,
    service::{Incoming, Service},
};

/// Sees every call of a service: may refuse it before its request is read, and learns how it
/// ended.
///
/// Two are one as `(first, second)`: the first is asked first and told last. `()` does nothing.
pub trait Intercept: 'static {
    /// What is kept from before a call to after it: a time, a span.
    type State;

    /// A call has come. Its request was not read: metadata, deadline and peer are in the context.
    ///
    /// # Errors
    ///
    /// A status refuses the call, marked as not executed; its handler does not run.
    fn before(&self, method: &'static MethodInfo, cx: &Context) -> Result<Self::State, Status>;

    /// Polls the call's handler, by `poll`, as often as that is needed. For what is to be around a
    /// handler while it runs, as a span: `poll` must be called, once.
    fn within<R>(&self, state: &Self::State, poll: impl FnOnce() -> R) -> R {
        let _ = state;
        poll()
    }

    /// The call has ended. Also where its handler was dropped, or a later interceptor refused it.
    fn after(
        &self,
        state: Self::State,
        method: &'static MethodInfo,
        cx: &Context,
        outcome: Outcome,
    );
}

/// Sees every call that a client makes.
///
/// Two are one as `(first, second)`: the first is asked first and told last. `()` does nothing.
pub trait InterceptCall: 'static {
    /// A call is about to be made; `metadata` goes with its request.
    ///
    /// # Errors
    ///
    /// A status fails the call, and nothing is sent.
    fn before(&self, method: &'static MethodInfo, metadata: &mut Metadata) -> Result<(), Status> {
        let _ = (method, metadata);
        Ok(())
    }

    /// As [`before`](Self::before), with a span of `tracing` that lasts for as long as the call.
    ///
    /// It is this that is called. Unless it is written otherwise, it calls `before` and there is no
    /// span.
    ///
    /// # Errors
    ///
    /// As [`before`](Self::before).
    fn begin(&self, method: &'static MethodInfo, metadata: &mut Metadata) -> Result<Span, Status> {
        self.before(method, metadata)?;
        Ok(Span::none())
    }

    /// The call has ended after so much time: with a reply, or with a status. One that was given
    /// up has the code [`Code::Cancelled`]. A one-way call has ended when it was sent.
    /// Called inside of the call's span, where there is one.
    fn after(&self, method: &'static MethodInfo, outcome: Result<(), &Status>, took: Duration) {
        let _ = (method, outcome, took);
    }
}

/// How a call ended at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It runs, or its handler was dropped before it answered: its caller gave up, its time was
    /// over, or it panicked.
    Unanswered,
    /// With a reply; a one-way call, when its handler was done.
    Replied,
    /// With a status of this code.
    Failed(Code),
    /// It does not end here: it came without a routing key, and the shard that owns the key in its
    /// request runs it, where it is seen again.
    PassedOn,
}

/// A service behind an interceptor. Made by [`intercept`].
pub struct Intercepted<I, S> {
    interceptor: I,
    service: S,
}

/// Puts an interceptor before a service.
///
/// ```ignore
/// server.serve(address, |_| intercept((Log, Token), KvServer::new(Store::new())))
/// ```
pub fn intercept<I: Intercept, S: Service>(interceptor: I, service: S) -> Intercepted<I, S> {
    Intercepted { interceptor, service }
}

impl<I: Intercept, S: Service> Service for Intercepted<I, S> {
    const NAME: &'static str = S::NAME;
    const METHODS: &'static [MethodInfo] = S::METHODS;
    const HAS_CLASSES: bool = S::HAS_CLASSES;
    type State = S::State;

    fn class(method: u32) -> Class {
        S::class(method)
    }

    fn state(&self) -> &S::State {
        self.service.state()
    }

    #[expect(clippy::manual_async_fn, reason = "which would keep what it is given twice")]
    fn dispatch<P, C>(this: P, call: C) -> impl Future<Output = ()>
    where
        P: Deref<Target = Self>,
        C: Deref<Target = Incoming>,
    {
        async move {
            let Some(method) = S::METHODS.iter().find(|method| method.id == call.method()) else {
                // It answers that there is none.
                return S::dispatch(&this.service, &*call).await;
            };
            let state = match this.interceptor.before(method, call.context()) {
                Ok(state) => state,
                Err(status) => return call.reject(&status.not_executed()),
            };
            let (interceptor, context) = (&this.interceptor, call.context());
            let after = After { interceptor, method, context, state: Some(state) };
            let mut handler = pin!(S::dispatch(&this.service, &*call));
            poll_fn(|cx| after.within(|| handler.as_mut().poll(cx))).await;
        }
    }
}

/// Tells an interceptor that a call has ended, however it did.
struct After<'a, I: Intercept> {
    interceptor: &'a I,
    method: &'static MethodInfo,
    context: &'a Context,
    state: Option<I::State>,
}

impl<I: Intercept> After<'_, I> {
    fn within<R>(&self, poll: impl FnOnce() -> R) -> R {
        match &self.state {
            Some(state) => self.interceptor.within(state, poll),
            None => poll(),
        }
    }
}

impl<I: Intercept> Drop for After<'_, I> {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            self.interceptor.after(state, self.method, self.context, self.context.outcome.get());
        }
    }
}

impl Intercept for () {
    type State = ();

    fn before(&self, _: &'static MethodInfo, _: &Context) -> Result<(), Status> {
        Ok(())
    }

    fn after(&self, (): (), _: &'static MethodInfo, _: &Context, _: Outcome) {}
}

impl<A: Intercept, B: Intercept> Intercept for (A, B) {
    type State = (A::State, B::State);

    fn before(&self, method: &'static MethodInfo, cx: &Context) -> Result<Self::State, Status> {
        let first = self.0.before(method, cx)?;
        match self.1.before(method, cx) {
            Ok(second) => Ok((first, second)),
            Err(status) => {
                self.0.after(first, method, cx, Outcome::Failed(status.code()));
                Err(status)
            }
        }
    }

    fn within<R>(&self, (first, second): &Self::State, poll: impl FnOnce() -> R) -> R {
        self.0.within(first, || self.1.within(second, poll))
    }

    fn after(
        &self,
        (first, second): Self::State,
        method: &'static MethodInfo,
        cx: &Context,
        outcome: Outcome,
    ) {
        self.1.after(second, method, cx, outcome);
        self.0.after(first, method, cx, outcome);
    }
}

impl InterceptCall for () {}

impl<A: InterceptCall, B: InterceptCall> InterceptCall for (A, B) {
    fn before(&self, method: &'static MethodInfo, metadata: &mut Metadata) -> Result<(), Status> {
        self.0.before(method, metadata)?;
        self.1.before(method, metadata).inspect_err(|status| {
            self.0.after(method, Err(status), Duration::ZERO);
        })
    }

    fn begin(&self, method: &'static MethodInfo, metadata: &mut Metadata) -> Result<Span, Status> {
        let first = self.0.begin(method, metadata)?;
        let second = first.in_scope(|| {
            self.1.begin(method, metadata).inspect_err(|status| {
                self.0.after(method, Err(status), Duration::ZERO);
            })
        })?;
        // A span lasts for as long as one inside of it.
        Ok(if second.is_none() { first } else { second })
    }

    fn after(&self, method: &'static MethodInfo, outcome: Result<(), &Status>, took: Duration) {
        self.1.after(method, outcome, took);
        self.0.after(method, outcome, took);
    }
}

/// Tells a client's interceptor how a call ended, once.
pub(crate) struct Watch {
    interceptor: Rc<dyn InterceptCall>,
    method: &'static MethodInfo,
    began: Instant,
    /// What goes with the request.
    metadata: Metadata,
    span: Span,
    is_over: bool,
}

impl Watch {
    /// Asks the interceptor about a call that is about to be made with this metadata.
    #[cold]
    pub(crate) fn begin(
        interceptor: &Rc<dyn InterceptCall>,
        method: &'static MethodInfo,
        metadata: Option<&Metadata>,
    ) -> Result<Box<Self>, Status> {
        let mut metadata = metadata.cloned().unwrap_or_default();
        let span = interceptor.begin(method, &mut metadata).map_err(Status::not_executed)?;
        let (interceptor, began) = (Rc::clone(interceptor), Instant::now());
        Ok(Box::new(Self { interceptor, method, began, metadata, span, is_over: false }))
    }

    /// What goes with the request.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The call has its outcome.
    pub(crate) fn end(&mut self, outcome: Result<(), &Status>) {
        if !std::mem::replace(&mut self.is_over, true) {
            let took = self.began.elapsed();
            self.span.in_scope(|| self.interceptor.after(self.method, outcome, took));
            // It ends now, and not with who still has the call.
            self.span = Span::none();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end(Err(&Status::new(Code::Cancelled, "the call was given up")));
    }
}
