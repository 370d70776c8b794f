//! OpenTelemetry: spans of both ends in one trace, through a server that calls another.
//!
//! The interceptor joins two things: `TraceContext`, as it travels with a call, and the spans of
//! `tracing` that `tracing-opentelemetry` hands on. Here they are printed; a program gives the
//! provider an exporter of `opentelemetry-otlp` instead. Without OpenTelemetry, `ringcall::Trace`
//! is such an interceptor as it is.
//!
//! Run it: `cargo run --release -p ringcall-examples --example opentelemetry`

use std::{net::SocketAddr, time::Duration};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use ringcall::{
    ClientConfig, Intercept, InterceptCall, Metadata, MethodInfo, Outcome, TraceContext, intercept,
    prelude::*,
};
use ringcall_examples::{address, serve_if_asked};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Registry, layer::SubscriberExt};

#[ringcall::message]
struct Order {
    item: String,
}

#[ringcall::service]
trait Shop {
    /// Takes an order; the first shop has it taken by the next.
    async fn order(&self, cx: &Context, request: Request<'_, Order>) -> Result<Order, Status>;
}

struct Counter(Option<SocketAddr>);

impl Shop for Counter {
    async fn order(&self, _: &Context, request: Request<'_, Order>) -> Result<Order, Status> {
        let order = request.to_owned()?;
        let Some(next) = self.0 else { return Ok(order) };
        shop_at(next).await?.order(&order).await?.to_owned()
    }
}

async fn shop_at(address: SocketAddr) -> Result<ShopClient, Status> {
    let connected = ShopClient::with(&ClientConfig::new().intercept(Otel), address).await;
    connected.map_err(|error| Status::new(Code::Unavailable, error.to_string()))
}

/// Spans for calls, and their context in metadata.
struct Otel;

impl Intercept for Otel {
    type State = Span;

    fn before(&self, method: &'static MethodInfo, cx: &Context) -> Result<Span, Status> {
        let span = tracing::info_span!("call", otel.name = method.name, otel.kind = "server");
        if let Some(of) = TraceContext::of(&cx.metadata()) {
            let flags = TraceFlags::new(of.is_sampled().into());
            let (trace, parent) =
                (TraceId::from_bytes(of.trace_id()), SpanId::from_bytes(of.span_id()));
            let remote = SpanContext::new(trace, parent, flags, true, TraceState::default());
            let parent = opentelemetry::Context::new().with_remote_span_context(remote);
            // Fails where the span was begun, or where nothing hands it on.
            let _ = span.set_parent(parent);
        }
        Ok(span)
    }

    fn within<R>(&self, span: &Span, poll: impl FnOnce() -> R) -> R {
        span.in_scope(poll)
    }

    fn after(&self, span: Span, _: &'static MethodInfo, _: &Context, outcome: Outcome) {
        if let Outcome::Failed(code) = outcome {
            span.set_status(opentelemetry::trace::Status::error(code.to_string()));
        }
    }
}

impl InterceptCall for Otel {
    fn begin(&self, method: &'static MethodInfo, metadata: &mut Metadata) -> Result<Span, Status> {
        let span = tracing::info_span!("call", otel.name = method.name, otel.kind = "client");
        let context = span.context().span().span_context().clone();
        let (trace, own) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
        if let Ok(context) = TraceContext::new(trace, own, context.is_sampled()) {
            // A call without a trace is better than none.
            let _ = context.insert_into(metadata);
        }
        Ok(span)
    }

    fn after(&self, _: &'static MethodInfo, outcome: Result<(), &Status>, _: Duration) {
        if let Err(status) = outcome {
            Span::current().set_status(opentelemetry::trace::Status::error(status.to_string()));
        }
    }
}

/// Prints spans as they end.
#[derive(Debug)]
struct Print;

impl SpanExporter for Print {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        for span in spans {
            let kind = if span.span_kind == SpanKind::Server { "server" } else { "client" };
            let (trace, own) = (span.span_context.trace_id(), span.span_context.span_id());
            println!("{trace} {own} in {} {kind} {}", span.parent_span_id, span.name);
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = SdkTracerProvider::builder().with_simple_exporter(Print).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("shops"));
    tracing::subscriber::set_global_default(Registry::default().with(layer))?;
    let serve = |at: &str, next| {
        let shop = move |_| intercept(Otel, ShopServer::new(Counter(next)));
        Server::builder().serve(at, shop)
    };
    let second = serve("127.0.0.1:0", None)?;
    let first = serve(&address(), Some(second.address()))?;
    let Some(first) = serve_if_asked(first)? else { return Ok(()) };
    ringcall::run(async {
        let shop = shop_at(first.address()).await?;
        shop.order(&Order { item: "tea".to_owned() }).await?;
        Ok::<_, Status>(())
    })??;
    drop((first, second));
    Ok(provider.shutdown()?)
}
