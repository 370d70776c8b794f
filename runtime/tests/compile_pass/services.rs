//! Services of every form that is accepted, with their servers and clients.

#![deny(warnings, missing_docs, unreachable_pub, clippy::all)]

use std::rc::Rc;

use ringcall::{Service, prelude::*};

/// Names a value.
#[ringcall::message]
pub struct Get {
    /// Its name.
    pub key: String,
}

/// A value, if there is one.
#[ringcall::message]
pub struct Got {
    /// The value.
    pub value: Option<Vec<u8>>,
}

/// Bytes that are borrowed.
#[ringcall::message]
pub struct Blob<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
}

/// Types with the names that generic code likes.
pub mod short {
    use ringcall::prelude::*;

    /// A question.
    #[ringcall::message]
    pub struct C {
        /// What is asked.
        pub text: String,
    }

    /// An answer.
    #[ringcall::message]
    pub struct P {
        /// What is answered.
        pub text: String,
    }

    /// Answers.
    #[ringcall::service]
    pub trait S {
        /// Answers one, with some on the way.
        async fn ask(
            &self,
            cx: &Context,
            request: Request<'_, C>,
            asked: Source<C>,
            answered: Sink<'_, P>,
        ) -> Result<P, Status>;
    }
}

/// A store.
#[ringcall::service]
pub trait Kv {
    /// Reads a value.
    async fn get(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;

    /// Replies with what it borrows from the request.
    async fn echo<'a>(
        &self,
        cx: &Context,
        request: Request<'a, Blob<'a>>,
    ) -> Result<Blob<'a>, Status>;

    /// Replies with what it borrows from the service.
    async fn motto<'s>(
        &'s self,
        cx: &ringcall::Context,
        request: ringcall::Request<'_, Blob<'_>>,
    ) -> std::result::Result<Blob<'s>, ringcall::Status>;

    /// A name that is a keyword, and an id of its own.
    #[rpc(id = 7)]
    async fn r#type(&self, _: &Context, request: Request<'_, Get>) -> Result<Got, Status>;

    /// Not to be called any more.
    #[deprecated]
    async fn old(&self, _: &Context, request: Request<'_, Get>) -> Result<Got, Status>;

    /// A method that is there on some machines.
    #[cfg(target_os = "none")]
    async fn absent(&self, _: &Context, request: Request<'_, Foreign>) -> Result<Got, Status>;
}

struct Store {
    motto: String,
}

impl Kv for Store {
    async fn get(&self, _: &Context, request: Request<'_, Get>) -> Result<Got, Status> {
        Ok(Got {
            value: Some(request.key.as_bytes().to_vec()),
        })
    }

    async fn echo<'a>(
        &self,
        _: &Context,
        request: Request<'a, Blob<'a>>,
    ) -> Result<Blob<'a>, Status> {
        // Waiting does not end the borrow.
        std::future::ready(()).await;
        Ok(Blob {
            bytes: &request.get().bytes,
        })
    }

    async fn motto<'s>(
        &'s self,
        _: &Context,
        _: Request<'_, Blob<'_>>,
    ) -> Result<Blob<'s>, Status> {
        Ok(Blob {
            bytes: self.motto.as_bytes(),
        })
    }

    async fn r#type(&self, _: &Context, _: Request<'_, Get>) -> Result<Got, Status> {
        Ok(Got { value: None })
    }

    async fn old(&self, _: &Context, _: Request<'_, Get>) -> Result<Got, Status> {
        Ok(Got { value: None })
    }
}

mod private {
    //! A service that stays in its module, where `Result` is another type.

    use ringcall::prelude::*;

    type Result<T> = std::result::Result<T, Status>;

    #[ringcall::message]
    struct Empty;

    #[ringcall::service(name = "acme.Private")]
    trait Private {
        async fn connect_all(
            &self,
            cx: &Context,
            request: Request<'_, Empty>,
        ) -> std::result::Result<Empty, Status>;
    }

    #[ringcall::service]
    trait Nothing {}

    struct Service;

    impl Private for Service {
        async fn connect_all(&self, _: &Context, _: Request<'_, Empty>) -> Result<Empty> {
            Ok(Empty)
        }
    }

    impl Nothing for Service {}

    pub(super) fn names() -> [&'static str; 2] {
        fn name<S: ringcall::Service>(_: S) -> &'static str {
            S::NAME
        }
        assert_eq!(PrivateClient::METHODS[0].name, "acme.Private.connect_all");
        [
            name(PrivateServer::new(Service)),
            name(NothingServer::new(Service)),
        ]
    }

    #[allow(dead_code)]
    async fn call(client: &PrivateClient, other: &NothingClient) -> Result<()> {
        let _ = other.client();
        client.connect_all(&Empty).await.map(drop)
    }
}

/// A call's request need not live as long as its reply.
#[allow(dead_code)]
async fn calls(config: &ringcall::ClientConfig) -> Result<usize, Status> {
    let failed = |_| Status::new(Code::Unavailable, "");
    let kv = KvClient::connect("127.0.0.1:1").await.map_err(failed)?;
    let other = KvClient::with(config, ("127.0.0.1", 1))
        .await
        .map_err(failed)?;
    let clone = other.clone();
    let echoed = {
        let text = String::from("text");
        let blob = Blob {
            bytes: text.as_bytes(),
        };
        let call = kv.echo(&blob);
        call.await?
    };
    let got: Response<Got> = clone.get(&Get { key: String::new() }).await?;
    #[allow(deprecated)]
    let _ = clone.old(&Get { key: String::new() }).await?;
    Ok(echoed.bytes.len() + got.value.iter().count())
}

fn main() {
    fn methods<S: Service>(_: &Rc<S>) -> Vec<(u32, &'static str)> {
        S::METHODS
            .iter()
            .map(|method| (method.id, method.name))
            .collect()
    }
    let server = Rc::new(KvServer::new(Store {
        motto: "in place".to_owned(),
    }));
    let expected = vec![
        (KvClient::GET, "Kv.get"),
        (KvClient::ECHO, "Kv.echo"),
        (KvClient::MOTTO, "Kv.motto"),
        (7, "Kv.type"),
        (KvClient::OLD, "Kv.old"),
    ];
    assert_eq!(methods(&server), expected);
    assert_eq!(KvClient::GET, 0xf050_bb1a);
    assert_eq!(KvClient::METHODS.len(), 5);
    assert_eq!(private::names(), ["acme.Private", "Nothing"]);
}
