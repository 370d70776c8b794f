//! Tracing: a span for each call, at both ends, in one trace.
//!
//! An interceptor, so that what is not traced costs nothing. The trace travels in the metadata of
//! requests as W3C Trace Context; a handler's calls belong to the trace of the call that it serves.

use std::{
    cell::{Cell, RefCell},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use ringcall_codec::{Code, Metadata, MethodInfo, Status, TraceContext};
use tracing::{Span, field::Empty};

use crate::{
    context::Context,
    intercept::{Intercept, InterceptCall, Outcome},
};

/// Opens a span of `tracing` for each call: at a server ([`intercept`](crate::intercept)) and at a
/// client ([`ClientConfig::intercept`](crate::ClientConfig::intercept)).
///
/// Spans are called `call`, of the target `ringcall::trace` and the level INFO. Their fields are
/// those that OpenTelemetry has for calls: `otel.name`, `otel.kind` (`server` or `client`),
/// `rpc.system`, `rpc.method`, `rpc.grpc.status_code` once the call has ended with a status,
/// `otel.status_code` (`ERROR`) where it failed; and `trace_id`, `span_id` and `parent_span_id` in
/// hexadecimal. A handler runs in its span each time it is polled.
///
/// A call that comes with a valid `traceparent` belongs to that trace; any other begins one. A call
/// that is first polled by a handler, and not by a task that it spawned, belongs to the handler's;
/// one whose metadata has a `traceparent` already goes as it is. Ids are drawn at random, and not
/// fit to be secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trace(());

/// What is kept of a call at a server.
#[derive(Debug)]
pub struct TracedCall {
    span: Span,
    context: TraceContext,
}

thread_local! {
    /// The trace of the handler that is being polled.
    static CURRENT: RefCell<Option<TraceContext>> = const { RefCell::new(None) };
    /// State of the ids that are drawn; zero where none was.
    static IDS: Cell<u64> = const { Cell::new(0) };
}

impl Trace {
    /// The interceptor.
    pub const fn new() -> Self {
        Self(())
    }

    /// The trace of the handler that runs on this thread, in the span of its call; none outside of
    /// handlers that are traced so.
    pub fn current() -> Option<TraceContext> {
        CURRENT.with_borrow(Clone::clone)
    }
}

impl Intercept for Trace {
    type State = TracedCall;

    fn before(&self, method: &'static MethodInfo, cx: &Context) -> Result<TracedCall, Status> {
        let parent = TraceContext::of(&cx.metadata());
        let context = child_of(parent.as_ref())?;
        let span = span(method, "server", &context, parent.as_ref());
        Ok(TracedCall { span, context })
    }

    fn within<R>(&self, call: &TracedCall, poll: impl FnOnce() -> R) -> R {
        // Set back also where the handler panics.
        struct Before(Option<TraceContext>);
        impl Drop for Before {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _before = Before(CURRENT.replace(Some(call.context.clone())));
        call.span.in_scope(poll)
    }

    fn after(&self, call: TracedCall, _: &'static MethodInfo, _: &Context, outcome: Outcome) {
        match outcome {
            Outcome::Replied | Outcome::PassedOn => {}
            Outcome::Failed(code) => failed(&call.span, code),
            Outcome::Unanswered => failed(&call.span, Code::Cancelled),
        }
    }
}

impl InterceptCall for Trace {
    fn begin(&self, method: &'static MethodInfo, metadata: &mut Metadata) -> Result<Span, Status> {
        if let Some(context) = TraceContext::of(&metadata.as_ref()) {
            return Ok(span(method, "client", &context, None));
        }
        let parent = Self::current();
        let context = child_of(parent.as_ref())?;
        if let Err(error) = context.insert_into(metadata) {
            // Better a call without a trace than none.
            tracing::debug!(%error, "no room for the trace of a call");
        }
        Ok(span(method, "client", &context, parent.as_ref()))
    }

    fn after(&self, _: &'static MethodInfo, outcome: Result<(), &Status>, _: Duration) {
        if let Err(status) = outcome {
            failed(&Span::current(), status.code());
        }
    }
}

/// A span of the same trace, or the first of another.
fn child_of(parent: Option<&TraceContext>) -> Result<TraceContext, Status> {
    let span_id = draw().to_be_bytes();
    let context = match parent {
        Some(parent) => parent.in_span(span_id),
        None => {
            let trace_id = u128::from(draw()) << 64 | u128::from(draw());
            TraceContext::new(trace_id.to_be_bytes(), span_id, true)
        }
    };
    // No number that is drawn is zero.
    context.map_err(|error| Status::new(Code::Internal, error.to_string()))
}

fn span(
    method: &MethodInfo,
    kind: &'static str,
    context: &TraceContext,
    parent: Option<&TraceContext>,
) -> Span {
    let span = tracing::info_span!(
        "call",
        otel.name = method.name,
        otel.kind = kind,
        otel.status_code = Empty,
        rpc.system = "ringcall",
        rpc.method = method.name,
        rpc.grpc.status_code = Empty,
        trace_id = %Hex(&context.trace_id()),
        span_id = %Hex(&context.span_id()),
        parent_span_id = Empty,
    );
    if let Some(parent) = parent {
        span.record("parent_span_id", tracing::field::display(Hex(&parent.span_id())));
    }
    span
}

fn failed(span: &Span, code: Code) {
    span.record("rpc.grpc.status_code", code as u32);
    span.record("otel.status_code", "ERROR");
}

struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A number that is not zero, and that no other thread draws in the same order.
fn draw() -> u64 {
    let mut state = IDS.get();
    if state == 0 {
        state = RandomState::new().hash_one(0) | 1;
    }
    // Marsaglia's xorshift64, which never comes to zero.
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    IDS.set(state);
    state
}
