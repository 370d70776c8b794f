//! Traces: a span for each call at both ends, and one trace through servers that call others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    net::SocketAddr,
    sync::{Mutex, Once, PoisonError},
};

use ringcall::{
    ClientConfig, Key, Metadata, ServerHandle, Trace, TraceContext, intercept, prelude::*,
};
use support::{
    server::one_shard,
    station::run,
    wait::{until_async, watched},
};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, Registry, layer::Context as LayerContext, layer::SubscriberExt};

#[ringcall::message]
pub struct Word {
    pub word: String,
}

#[ringcall::service]
pub trait Echo {
    /// What the handler knows of its trace.
    async fn trace(&self, cx: &Context, request: Request<'_, Word>) -> Result<Word, Status>;
    async fn fail(&self, cx: &Context, request: Request<'_, Word>) -> Result<Word, Status>;
    async fn panic(&self, cx: &Context, request: Request<'_, Word>) -> Result<Word, Status>;
    /// Calls `trace` at this address, after a wait.
    async fn pass_on(&self, cx: &Context, request: Request<'_, Word>) -> Result<Word, Status>;
}

struct Echoes;

impl Echo for Echoes {
    async fn trace(&self, _: &Context, _: Request<'_, Word>) -> Result<Word, Status> {
        Ok(Word { word: Trace::current().map(|trace| trace.to_string()).unwrap_or_default() })
    }

    async fn fail(&self, _: &Context, _: Request<'_, Word>) -> Result<Word, Status> {
        Err(Status::new(Code::NotFound, "as asked for"))
    }

    async fn panic(&self, _: &Context, _: Request<'_, Word>) -> Result<Word, Status> {
        panic!("as asked for")
    }

    async fn pass_on(&self, _: &Context, request: Request<'_, Word>) -> Result<Word, Status> {
        let address: SocketAddr = request.word.parse().unwrap();
        let echo = client(address).await;
        ringcall::sleep(std::time::Duration::from_micros(100)).await;
        let word = Word { word: String::new() };
        echo.trace(&word).await?.to_owned()
    }
}

fn serve() -> ServerHandle {
    seen(&[0; 32]);
    let make = |_| intercept(Trace::new(), EchoServer::new(Echoes));
    one_shard().serve("127.0.0.1:0", make).unwrap()
}

async fn client(address: SocketAddr) -> EchoClient {
    let config = ClientConfig::new().intercept(Trace::new());
    EchoClient::with(&config, address).await.unwrap()
}

fn word(word: impl ToString) -> Word {
    Word { word: word.to_string() }
}

type Fields = BTreeMap<&'static str, String>;

/// The fields of every span, and of those that have ended whether they did.
static SPANS: Mutex<BTreeMap<u64, Fields>> = Mutex::new(BTreeMap::new());

struct Keep;

struct Into<'a>(&'a mut Fields);

impl Visit for Into<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").replace('"', ""));
    }
}

impl<S: Subscriber> Layer<S> for Keep {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: LayerContext<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Into(&mut fields));
        // The registry gives an id again.
        let mut spans = SPANS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = spans.insert(id.into_u64(), fields) {
            let free = spans.keys().next_back().unwrap().max(&(1 << 62)) + 1;
            spans.insert(free, before);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: LayerContext<'_, S>) {
        let mut spans = SPANS.lock().unwrap_or_else(PoisonError::into_inner);
        values.record(&mut Into(spans.entry(id.into_u64()).or_default()));
    }

    fn on_close(&self, id: Id, _: LayerContext<'_, S>) {
        let mut spans = SPANS.lock().unwrap_or_else(PoisonError::into_inner);
        spans.entry(id.into_u64()).or_default().insert("ended", "yes".to_owned());
    }
}

/// The spans of a trace that have ended.
fn seen(trace_id: &[u8]) -> Vec<Fields> {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        tracing::subscriber::set_global_default(Registry::default().with(Keep)).unwrap();
    });
    let spans = SPANS.lock().unwrap_or_else(PoisonError::into_inner);
    let of_trace = |fields: &&Fields| {
        let id = fields.get("trace_id").map(String::as_bytes);
        id == Some(trace_id) && fields.contains_key("ended")
    };
    spans.values().filter(of_trace).cloned().collect()
}

async fn spans(trace: &str, count: usize) -> Vec<Fields> {
    let id = &trace.as_bytes()[3..35];
    until_async("every span has ended", || seen(id).len() >= count).await;
    seen(id)
}

fn span<'a>(spans: &'a [Fields], kind: &str, method: &str) -> &'a Fields {
    let is_it = |fields: &&Fields| fields["otel.kind"] == kind && fields["rpc.method"] == method;
    spans.iter().find(is_it).unwrap()
}

#[test]
fn both_ends_have_a_span_and_the_servers_is_within_the_clients() {
    watched(|| {
        let server = serve();
        run(async {
            let echo = client(server.address()).await;
            let trace = echo.trace(&word("")).await.unwrap().word.to_string();
            let spans = spans(&trace, 2).await;
            let (client, server) =
                (span(&spans, "client", "Echo.trace"), span(&spans, "server", "Echo.trace"));
            assert_eq!(server["parent_span_id"], client["span_id"]);
            assert_eq!(server["span_id"], trace[36..52]);
            assert!(!client.contains_key("parent_span_id"));
            assert!(!server.contains_key("otel.status_code"));
            // Another call is another trace.
            let other = echo.trace(&word("")).await.unwrap().word.to_string();
            assert_ne!(other[3..35], trace[3..35]);
            assert!(Trace::current().is_none());
        });
    });
}

#[test]
fn a_handlers_calls_belong_to_its_trace() {
    watched(|| {
        let (first, second) = (serve(), serve());
        run(async {
            let echo = client(first.address()).await;
            let trace = echo.pass_on(&word(second.address())).await.unwrap().word.to_string();
            let spans = spans(&trace, 4).await;
            let outer = span(&spans, "server", "Echo.pass_on");
            let (inner, last) =
                (span(&spans, "client", "Echo.trace"), span(&spans, "server", "Echo.trace"));
            assert_eq!(outer["parent_span_id"], span(&spans, "client", "Echo.pass_on")["span_id"]);
            assert_eq!(inner["parent_span_id"], outer["span_id"]);
            assert_eq!(last["parent_span_id"], inner["span_id"]);
        });
    });
}

#[test]
fn a_call_that_fails_says_so_in_its_spans() {
    watched(|| {
        let server = serve();
        run(async {
            let echo = client(server.address()).await;
            for (method, code) in [("Echo.fail", Code::NotFound), ("Echo.panic", Code::Internal)] {
                let context = TraceContext::new([code as u8; 16], [1; 8], true).unwrap();
                let mut metadata = Metadata::new();
                context.insert_into(&mut metadata).unwrap();
                let word = word("");
                let call = if method == "Echo.fail" { echo.fail(&word) } else { echo.panic(&word) };
                assert_eq!(call.metadata(&metadata).await.err().unwrap().code(), code);
                let spans = spans(&context.to_string(), 2).await;
                for kind in ["client", "server"] {
                    let span = span(&spans, kind, method);
                    assert_eq!(span["otel.status_code"], "ERROR");
                }
                let at_client = span(&spans, "client", method);
                assert_eq!(at_client["rpc.grpc.status_code"], (code as u32).to_string());
            }
        });
    });
}

#[test]
fn a_trace_from_elsewhere_goes_on_with_its_state_and_what_is_none_begins_one() {
    watched(|| {
        let server = serve();
        run(async {
            let echo = EchoClient::connect(server.address()).await.unwrap();
            let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
            let mut metadata = Metadata::new();
            metadata.insert(Key::TRACEPARENT, parent).unwrap();
            let trace = echo.trace(&word("")).metadata(&metadata).await.unwrap();
            let trace = trace.word.to_string();
            assert_eq!(trace[..35], parent[..35]);
            assert_eq!(trace[53..], *"00");
            assert_ne!(trace, parent);
            for parent in ["", "00-0-0-0", &parent.to_uppercase()] {
                let mut metadata = Metadata::new();
                metadata.insert(Key::TRACEPARENT, parent).unwrap();
                let trace = echo.trace(&word("")).metadata(&metadata).await.unwrap();
                let begun = TraceContext::parse(trace.word.as_bytes()).unwrap();
                assert_ne!(begun.trace_id()[0..2], [0x4b, 0xf9]);
                assert!(begun.is_sampled());
            }
        });
    });
}
