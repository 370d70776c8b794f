//! Methods of every form and with every option, as they are implemented and called.

#![deny(warnings, missing_docs, unreachable_pub, rust_2018_idioms, clippy::all)]

use std::time::Duration;

use ringcall::{ClientConfig, Metadata, MethodKind, Service, prelude::*};

/// What is asked for.
#[ringcall::message]
pub struct Get {
    /// Its name.
    pub key: String,
}

/// Nothing but that it is so.
#[ringcall::message]
pub struct Got;

/// A part of something.
#[ringcall::message]
pub struct Part {
    /// Which.
    pub number: u32,
}

/// A text that is borrowed.
#[ringcall::message]
pub struct Row<'a> {
    /// The text.
    pub text: &'a str,
}

/// An error of the service's own.
#[derive(Debug)]
pub struct Denied;

impl From<Denied> for Status {
    fn from(_: Denied) -> Self {
        Self::new(Code::PermissionDenied, "")
    }
}

impl From<Status> for Denied {
    fn from(_: Status) -> Self {
        Self
    }
}

/// Every form.
#[ringcall::service]
pub trait All {
    /// With every option.
    #[rpc(timeout = "5ms", idempotent, no_cancel, id = 7)]
    async fn get(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Denied>;

    /// Without a reply, and with what is borrowed.
    #[rpc(oneway, timeout = "1s")]
    async fn note(&self, cx: &Context, request: Request<'_, Row<'_>>);

    /// Beside `get`, a name from which nearly the same constant follows.
    async fn get_info(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;

    /// A reply and a request that borrow.
    #[rpc(timeout = "60m")]
    async fn echo<'a>(
        &self,
        cx: &Context,
        request: Request<'a, Row<'a>>,
    ) -> Result<Row<'a>, Denied>;

    /// Items to the caller.
    async fn scan<'a>(
        &self,
        cx: &Context,
        request: Request<'a, Get>,
        rows: Sink<'_, Row<'a>>,
    ) -> Result<Got, Status>;

    /// Items from the caller.
    #[rpc(no_cancel)]
    async fn upload(
        &self,
        cx: &Context,
        request: Request<'_, Row<'_>>,
        parts: Source<Part>,
    ) -> Result<Got, Denied>;

    /// Items in both directions, and a reply that borrows from the service.
    async fn lines<'s>(
        &'s self,
        cx: &Context,
        request: Request<'_, Get>,
        parts: ringcall::Source<Row<'_>>,
        rows: ringcall::Sink<'s, Row<'s>>,
    ) -> Result<Row<'s>, Status>;

    /// In the other order, and not to be called any more.
    #[deprecated]
    async fn swapped(
        &self,
        cx: &Context,
        request: Request<'_, Get>,
        rows: Sink<'_, Part>,
        parts: Source<Part>,
    ) -> Result<Got, Status>;

    /// Not there, as its message is not.
    #[cfg(target_os = "none")]
    #[rpc(oneway)]
    async fn absent(&self, cx: &Context, request: Request<'_, Foreign>);
}

struct Everything(String);

impl All for Everything {
    async fn get(&self, cx: &Context, _: Request<'_, Get>) -> Result<Got, Denied> {
        // What a handler can know, and say beside its reply.
        let is_known = cx.metadata().get_named("known").is_some();
        cx.set_reply_metadata(Metadata::new());
        if cx.is_cancelled() || cx.time_left().is_none() || !is_known {
            return Err(Denied);
        }
        Ok(Got)
    }

    async fn note(&self, cx: &Context, request: Request<'_, Row<'_>>) {
        // Whoever calls may be called.
        let back = AllClient::on(cx.caller());
        let key = request.text.to_string();
        let _ = back.get(&Get { key }).within(cx).await.map(drop);
    }

    async fn get_info(&self, _: &Context, _: Request<'_, Get>) -> Result<Got, Status> {
        Ok(Got)
    }

    async fn echo<'a>(
        &self,
        _: &Context,
        request: Request<'a, Row<'a>>,
    ) -> Result<Row<'a>, Denied> {
        std::future::ready(()).await;
        Ok(Row { text: &request.get().text })
    }

    async fn scan<'a>(
        &self,
        _: &Context,
        request: Request<'a, Get>,
        rows: Sink<'_, Row<'a>>,
    ) -> Result<Got, Status> {
        rows.send(&Row { text: &request.get().key }).await?;
        rows.send(&Row { text: "the end" }).await?;
        Ok(Got)
    }

    async fn upload(
        &self,
        _: &Context,
        _: Request<'_, Row<'_>>,
        mut parts: Source<Part>,
    ) -> Result<Got, Denied> {
        while let Some(part) = parts.next().await? {
            let _ = part.number;
        }
        Ok(Got)
    }

    async fn lines<'s>(
        &'s self,
        _: &Context,
        _: Request<'_, Get>,
        _: Source<Row<'_>>,
        rows: Sink<'s, Row<'s>>,
    ) -> Result<Row<'s>, Status> {
        rows.send(&Row { text: &self.0 }).await?;
        Ok(Row { text: &self.0 })
    }

    async fn swapped(
        &self,
        _: &Context,
        _: Request<'_, Get>,
        _: Sink<'_, Part>,
        _: Source<Part>,
    ) -> Result<Got, Status> {
        Ok(Got)
    }
}

/// A call with every setting: its request and metadata need not live as long as its outcome.
async fn call(all: &AllClient) -> Result<Response<Got>, Denied> {
    let metadata = Metadata::new();
    let key = String::from("key");
    let got: Response<Got> =
        all.get(&Get { key }).metadata(&metadata).timeout(Duration::from_millis(1)).await?;
    let _ = got.metadata().is_empty();
    Ok(got)
}

async fn calls(client: Client) -> Result<usize, Status> {
    let all = AllClient::on(client);
    all.client().on_notice(|_, _| {});
    call(&all).await?;
    let text = String::from("text");
    let row = Row { text: &text };
    all.note(&row).timeout(Duration::from_secs(1)).await?;
    let echoed = {
        let text = String::from("text");
        all.echo(&Row { text: &text }).await?
    };
    let scanned = {
        let request = Get { key: String::new() };
        let mut scan = all.scan(&request).await?;
        while let Some(row) = scan.next().await? {
            let _ = row.text.len();
        }
        scan.finish().await?
    };
    let upload = all.upload(&row).await?;
    upload.send(&Part { number: 1 }).await?;
    upload.finish().await?;
    // What items borrow from lives as long as their stream.
    let texts = [String::from("a"), String::from("b")];
    let mut lines = all.lines(&Get { key: String::new() }).await?;
    for text in &texts {
        lines.send(&Row { text }).await?;
    }
    lines.end();
    let last = lines.next().await?;
    let reply = lines.finish().await?;
    drop((scanned, last));
    Ok(echoed.text.len() + reply.text.len())
}

/// The client serves the same to its server.
async fn connect() -> Result<AllClient, ringcall::ConnectError> {
    let config = ClientConfig::new().call_timeout(Duration::from_secs(1));
    let service = AllServer::new(Everything(String::new()));
    let address = "127.0.0.1:1";
    let client = Client::connect_serving(&config, address, AllClient::METHODS, service).await?;
    Ok(AllClient::on(client))
}

fn main() {
    fn methods<S: Service>(_: &S) -> &'static [ringcall::MethodInfo] {
        S::METHODS
    }
    let _ = (calls, connect);
    let _ = Server::builder().calls_clients(AllClient::METHODS);
    let methods = methods(&AllServer::new(Everything(String::new())));
    let kinds: Vec<_> =
        methods.iter().map(|method| (method.name, method.kind, method.timeout_us)).collect();
    let expected = [
        ("All.get", MethodKind::Unary, 5_000),
        ("All.note", MethodKind::OneWay, 1_000_000),
        ("All.get_info", MethodKind::Unary, 0),
        ("All.echo", MethodKind::Unary, 3_600_000_000),
        ("All.scan", MethodKind::ServerStream, 0),
        ("All.upload", MethodKind::ClientStream, 0),
        ("All.lines", MethodKind::TwoWay, 0),
        ("All.swapped", MethodKind::TwoWay, 0),
    ];
    assert_eq!(kinds, expected);
    let of = |chosen: fn(&ringcall::MethodInfo) -> bool| -> Vec<_> {
        methods.iter().filter(|method| chosen(method)).map(|method| method.name).collect()
    };
    assert_eq!(of(|method| method.idempotent), ["All.get"]);
    assert_eq!(of(|method| method.no_cancel), ["All.get", "All.upload"]);
    assert_eq!(of(|method| method.reply == 0), ["All.note"]);
    assert_eq!((AllClient::GET, methods[0].id), (7, 7));
}
