//! Two builds of one service: where they lay a message out differently, they do not connect, and
//! both are told the method.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use ringcall::{Code, ConnectError, MethodInfo, Service, SessionError, ShardConfig, Status};
use ringcall_codec::features;
use support::{
    raw,
    server::{counters, serve},
    wait::watched,
};

/// The service as it was first.
mod first {
    use ringcall::prelude::*;

    #[ringcall::message]
    pub(crate) struct Get {
        pub(crate) key: String,
    }

    #[ringcall::message]
    pub(crate) struct Got {
        pub(crate) value: Option<Vec<u8>>,
    }

    #[ringcall::message]
    pub(crate) struct Put {
        pub(crate) key: String,
        pub(crate) value: Vec<u8>,
    }

    #[ringcall::message]
    pub(crate) struct Done;

    #[ringcall::service]
    pub(crate) trait Kv {
        async fn get(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
        async fn put(&self, cx: &Context, request: Request<'_, Put>) -> Result<Done, Status>;
    }

    pub(crate) struct Store;

    impl Kv for Store {
        async fn get(&self, _: &Context, request: Request<'_, Get>) -> Result<Got, Status> {
            let value = Some(request.key.as_bytes().to_vec());
            Ok(Got { value })
        }

        async fn put(&self, _: &Context, _: Request<'_, Put>) -> Result<Done, Status> {
            Ok(Done)
        }
    }
}

/// A service of the same name, with the messages that are given for `get`.
macro_rules! build {
    ($name:ident, $get:item, $got:item) => {
        mod $name {
            use ringcall::prelude::*;

            #[ringcall::message]
            $get

            #[ringcall::message]
            $got

            #[ringcall::service]
            pub(crate) trait Kv {
                async fn get(&self, cx: &Context, request: Request<'_, Get>)
                    -> Result<Got, Status>;
            }

            pub(crate) struct Store;

            impl Kv for Store {
                async fn get(&self, _: &Context, _: Request<'_, Get>) -> Result<Got, Status> {
                    Err(Status::new(Code::Internal, "called by another build"))
                }
            }
        }
    };
}

build!(
    added_field,
    pub(crate) struct Get {
        pub(crate) key: String,
        pub(crate) version: u64,
    },
    pub(crate) struct Got {
        pub(crate) value: Option<Vec<u8>>,
    }
);

// The same bytes, with another meaning.
build!(
    renamed_field,
    pub(crate) struct Get {
        pub(crate) name: String,
    },
    pub(crate) struct Got {
        pub(crate) value: Option<Vec<u8>>,
    }
);

build!(
    other_reply,
    pub(crate) struct Get {
        pub(crate) key: String,
    },
    pub(crate) struct Got {
        pub(crate) value: Option<Vec<u16>>,
    }
);

build!(
    all_other,
    pub(crate) struct Get {
        pub(crate) key: u64,
    },
    pub(crate) struct Got {
        pub(crate) value: Vec<u8>,
    }
);

/// One of the methods that are in `first`, and one that is not; the types have other names.
mod overlapping {
    use ringcall::prelude::*;

    #[ringcall::message]
    pub(crate) struct Key {
        pub(crate) key: String,
    }

    #[ringcall::message]
    pub(crate) struct Value {
        pub(crate) value: Option<Vec<u8>>,
    }

    #[ringcall::service]
    #[expect(dead_code, reason = "it is called and not served")]
    pub(crate) trait Kv {
        async fn get(&self, cx: &Context, request: Request<'_, Key>) -> Result<Value, Status>;
        async fn delete(&self, cx: &Context, request: Request<'_, Key>) -> Result<Value, Status>;
    }
}

/// The text of a disagreement over `Kv.get`.
fn differs(part: &str) -> String {
    format!(
        "the layouts of method Kv.get differ ({part}); build both sides from the same interface"
    )
}

/// A client and a server of different builds do not connect, and each is told why.
fn disagree<S: Service>(
    make: impl Fn() -> S + Clone + Send + 'static,
    client: &'static [MethodInfo],
    part: &'static str,
) {
    let server = serve(ShardConfig::new(), make);
    let address = server.address();
    let error = ringcall::run(async { ringcall::Client::connect(address, client).await.err() });
    match error.unwrap().unwrap() {
        ConnectError::Session { address: at, source } => {
            let method = "Kv.get".to_owned();
            assert_eq!(at, address);
            assert_eq!(source, SessionError::LayoutMismatch { method, part });
            assert_eq!(source.to_string(), differs(part));
        }
        error => panic!("{error}"),
    }
    // The server found the same, and says it to a client that would not have looked.
    let mut peer = raw::Peer::connect(address);
    peer.send(&raw::hello_with(client));
    let hello = peer.expect_hello();
    let mut expected = raw::hello_of(16 << 20, 4096, (0, 1), S::METHODS).body;
    let features = features::KEYS | features::SHARDS;
    expected[..8].copy_from_slice(&features.to_le_bytes());
    assert_eq!(hello.body, expected);
    peer.expect_goaway(Code::FailedPrecondition, &differs(part));
    let counters = counters(&server);
    assert_eq!(counters.protocol_errors, 2);
    assert_eq!((counters.calls_inline, counters.calls_spawned), (0, 0));
}

#[test]
fn builds_that_disagree_on_a_message_do_not_connect() {
    watched(|| {
        let client = first::KvClient::METHODS;
        disagree(|| added_field::KvServer::new(added_field::Store), client, "request");
        disagree(|| renamed_field::KvServer::new(renamed_field::Store), client, "request");
        disagree(|| other_reply::KvServer::new(other_reply::Store), client, "reply");
        disagree(|| all_other::KvServer::new(all_other::Store), client, "request and reply");
    });
}

#[test]
fn it_does_not_matter_which_side_is_the_older() {
    watched(|| {
        let server = || first::KvServer::new(first::Store);
        disagree(server, added_field::KvClient::METHODS, "request");
        disagree(server, renamed_field::KvClient::METHODS, "request");
        disagree(server, other_reply::KvClient::METHODS, "reply");
        disagree(server, all_other::KvClient::METHODS, "request and reply");
    });
}

#[test]
fn services_that_share_some_methods_connect() {
    watched(|| {
        let server = serve(ShardConfig::new(), || first::KvServer::new(first::Store));
        let address = server.address();
        let outcome = ringcall::run(async {
            let kv = overlapping::KvClient::connect(address).await.unwrap();
            let key = overlapping::Key { key: "shared".to_owned() };
            let got = kv.get(&key).await.unwrap();
            assert_eq!(&**got.value.as_ref().unwrap(), b"shared");
            let absent = kv.delete(&key).await.err().unwrap();
            let text = format!("no method has the id {:#010x}", overlapping::KvClient::DELETE);
            let expected = Status::new(Code::Unimplemented, text).not_executed();
            assert_eq!(absent, expected);
            // The connection lives on.
            assert!(kv.get(&key).await.is_ok());
        });
        outcome.unwrap();
        assert_eq!(counters(&server).protocol_errors, 0);
    });
}

#[test]
fn services_that_share_no_method_connect() {
    watched(|| {
        let server = serve(ShardConfig::new(), || first::KvServer::new(first::Store));
        let mut peer = raw::Peer::connect(server.address());
        let stranger = MethodInfo::unary(7, "Other.method", 1, 2);
        peer.send(&raw::hello_with(&[stranger]));
        peer.expect_hello();
        let id = raw::call(0, 1);
        peer.send(&raw::request(id, 7, b""));
        let text = "no method has the id 0x00000007";
        peer.frame().assert_refusal(id, Code::Unimplemented, text);
    });
}
