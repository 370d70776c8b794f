//! Who holds receive buffers for long costs copies, and starves nobody.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    sync::{Arc, Barrier},
    task::{Poll, Waker},
};

use ringcall::{RunConfig, ShardConfig, SocketConfig, is_in_receive_pool, prelude::*};
use support::{
    caller::Caller,
    server::{counters, frames, frames_copied, one_shard, serve},
    wait::{until, watched},
};

#[ringcall::message]
pub struct Unit;

#[ringcall::message]
pub struct Blob<'a> {
    pub bytes: &'a [u8],
}

#[ringcall::message]
pub struct Wanted {
    pub len: u32,
    pub byte: u8,
}

/// What a handler saw of its request, after it had waited.
#[ringcall::message]
pub struct Seen {
    pub in_pool: bool,
    pub first: u8,
    pub is_whole: bool,
}

#[ringcall::service]
pub trait Holder {
    /// Keeps its request until `release` is called.
    async fn hold(&self, cx: &Context, request: Request<'_, Blob<'_>>) -> Result<Seen, Status>;
    async fn release(&self, cx: &Context, request: Request<'_, Unit>) -> Result<Unit, Status>;
    /// Blocks the shard's thread from one wait of the test at the barrier to the next.
    async fn block(&self, cx: &Context, request: Request<'_, Unit>) -> Result<Unit, Status>;
    async fn want(&self, cx: &Context, request: Request<'_, Wanted>) -> Result<Filled, Status>;
    async fn pass<'a>(
        &self,
        cx: &Context,
        request: Request<'a, Blob<'a>>,
    ) -> Result<Blob<'a>, Status>;
}

#[ringcall::message]
pub struct Filled {
    pub bytes: Vec<u8>,
}

struct Gate {
    is_open: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
    barrier: Arc<Barrier>,
}

impl Holder for Gate {
    async fn hold(&self, _: &Context, request: Request<'_, Blob<'_>>) -> Result<Seen, Status> {
        poll_fn(|cx| {
            if self.is_open.get() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
        let first = request.bytes[0];
        Ok(Seen {
            in_pool: is_in_receive_pool(request.get()) && is_in_receive_pool(&request.bytes[0]),
            first,
            is_whole: request.bytes.iter().all(|byte| *byte == first),
        })
    }

    async fn release(&self, _: &Context, _: Request<'_, Unit>) -> Result<Unit, Status> {
        self.is_open.set(true);
        self.waiting.take().into_iter().for_each(Waker::wake);
        Ok(Unit)
    }

    async fn block(&self, _: &Context, _: Request<'_, Unit>) -> Result<Unit, Status> {
        self.barrier.wait();
        self.barrier.wait();
        Ok(Unit)
    }

    async fn want(&self, _: &Context, request: Request<'_, Wanted>) -> Result<Filled, Status> {
        Ok(Filled { bytes: vec![request.byte; request.len.to_native() as usize] })
    }

    async fn pass<'a>(
        &self,
        _: &Context,
        request: Request<'a, Blob<'a>>,
    ) -> Result<Blob<'a>, Status> {
        Ok(Blob { bytes: &request.get().bytes })
    }
}

fn holder(barrier: &Arc<Barrier>) -> impl Fn() -> HolderServer<Gate> + Clone + Send + 'static {
    let barrier = Arc::clone(barrier);
    move || {
        HolderServer::new(Gate {
            is_open: Cell::new(false),
            waiting: RefCell::default(),
            barrier: Arc::clone(&barrier),
        })
    }
}

/// Eight receive buffers: two must stay free, six may be held.
fn eight_buffers() -> ShardConfig {
    ShardConfig::new().receive_buffers(8, 4096)
}

/// Calls of a client that must be served whatever others do.
fn neighbour_is_served(server: &ServerHandle) {
    let mut neighbour = Caller::connect(server.address());
    for byte in 0..100 {
        let bytes = vec![byte; 1000];
        let frame = neighbour.frame(HolderClient::PASS, &Blob { bytes: &bytes });
        neighbour.send(&frame);
        neighbour.reply::<Blob<'_>, _>(|got| assert_eq!(*got.bytes, *bytes));
    }
}

#[test]
fn requests_that_are_held_are_copied_before_they_starve_the_shard() {
    watched(|| {
        let server = serve(eight_buffers(), holder(&Arc::new(Barrier::new(2))));
        let mut caller = Caller::connect(server.address());
        let before = counters(&server);
        for call in 1..=50 {
            let bytes = [call; 1000];
            let frame = caller.frame(HolderClient::HOLD, &Blob { bytes: &bytes });
            caller.send(&frame);
            until("the request is held", || {
                counters(&server).since(&before).calls_spawned == u64::from(call)
            });
        }
        let held = counters(&server).since(&before);
        assert_eq!((held.frames_in_place, held.frames_copied_pressure), (6, 44));
        assert!(held.bytes_copied >= 44 * 1000, "{held:?}");
        neighbour_is_served(&server);

        let release = caller.frame(HolderClient::RELEASE, &Unit);
        caller.send(&release);
        caller.reply::<Unit, _>(|_| ());
        for call in 1..=50 {
            let (in_pool, first, is_whole) =
                caller.reply::<Seen, _>(|seen| (seen.in_pool, seen.first, seen.is_whole));
            assert_eq!((first, is_whole), (call, true), "a held request changed");
            assert_eq!(in_pool, call <= 6);
        }
        let before = counters(&server);
        neighbour_is_served(&server);
        let after = counters(&server).since(&before);
        assert_eq!(frames_copied(&after), 0, "the pool is whole again");
        assert_eq!(after.buffers_exhausted, 0);
    });
}

#[test]
fn a_client_that_holds_every_response_goes_on_calling() {
    watched(|| {
        let server = serve(ShardConfig::default(), holder(&Arc::new(Barrier::new(2))));
        let client = RunConfig::new().shard(eight_buffers());
        client
            .run(async {
                let holder = HolderClient::connect(server.address()).await.unwrap();
                let before = ringcall::counters().unwrap();
                let mut held = Vec::new();
                for byte in 0..200 {
                    held.push(holder.want(&Wanted { len: 2000, byte }).await.unwrap());
                }
                let counted = ringcall::counters().unwrap().since(&before);
                assert_eq!(counted.frames_in_place, 6);
                assert_eq!(counted.frames_copied_pressure, 194);
                for (byte, got) in (0..).zip(&held) {
                    assert_eq!(*got.bytes, [byte; 2000]);
                    assert_eq!(is_in_receive_pool(&got.bytes[0]), byte < 6);
                }
                // A clone holds the buffer as well as the first does.
                let clones = held.clone();
                drop(held);
                let got = holder.want(&Wanted { len: 1, byte: 1 }).await.unwrap();
                assert!(!is_in_receive_pool(&*got));
                assert_eq!(*clones[0].bytes, [0; 2000]);
                drop(clones);
                let got = holder.want(&Wanted { len: 1, byte: 1 }).await.unwrap();
                assert!(is_in_receive_pool(&*got));
            })
            .unwrap();
    });
}

#[test]
fn a_burst_beyond_the_pool_is_received_once_buffers_are_back() {
    watched(|| {
        let barrier = Arc::new(Barrier::new(2));
        let config = ShardConfig::new().receive_buffers(4, 4096);
        let server = serve(config, holder(&barrier));
        let connect = || Caller::connect(server.address());
        let (mut blocker, mut bursts) = (connect(), [connect(), connect(), connect()]);
        let before = counters(&server);
        let block = blocker.frame(HolderClient::BLOCK, &Unit);
        blocker.send(&block);
        barrier.wait();
        // The shard stands still: all of this waits in its sockets, and is more than the pool.
        for (burst, caller) in (0..).zip(&mut bursts) {
            for call in 0..20 {
                let bytes = [burst * 20 + call; 3000];
                let frame = caller.frame(HolderClient::PASS, &Blob { bytes: &bytes });
                caller.send(&frame);
            }
        }
        barrier.wait();
        blocker.reply::<Unit, _>(|_| ());
        for (burst, caller) in (0..).zip(&mut bursts) {
            for call in 0..20 {
                let bytes = [burst * 20 + call; 3000];
                caller.reply::<Blob<'_>, _>(|got| assert_eq!(*got.bytes, bytes));
            }
        }
        let counted = counters(&server).since(&before);
        assert!(counted.buffers_exhausted > 0, "{counted:?}");
        assert_eq!(counted.calls_inline, 61);
        neighbour_is_served(&server);
    });
}

#[test]
fn peers_that_do_not_read_keep_no_more_buffers_than_their_share() {
    watched(|| {
        let socket = SocketConfig::new().send_buffer_bytes(16 * 1024);
        let config = eight_buffers().send_buffer_max(4096);
        let factory = holder(&Arc::new(Barrier::new(2)));
        let server = one_shard().shard(config).socket(socket);
        let server = server.serve("127.0.0.1:0", move |_| factory()).unwrap();
        const LEN: u32 = 512 * 1024;
        let before = counters(&server);
        let mut lazy: Vec<_> = (0..12)
            .map(|byte: u8| {
                let mut caller = Caller::connect(server.address());
                let mut frames = Vec::new();
                for _ in 0..3 {
                    frames.extend(caller.frame(HolderClient::WANT, &Wanted { len: LEN, byte }));
                }
                // Together in one buffer, of which the first frame fills the send buffer.
                caller.send(&frames);
                caller
            })
            .collect();
        until("each has a long reply, and one that waits behind it", || {
            counters(&server).since(&before).calls_inline == 24
        });
        neighbour_is_served(&server);
        for (byte, caller) in (0..).zip(&mut lazy) {
            for _ in 0..3 {
                caller.reply::<Filled, _>(|got| {
                    assert_eq!(got.bytes.len(), LEN as usize);
                    assert!(got.bytes.iter().all(|got| *got == byte));
                });
            }
        }
        let counted = counters(&server).since(&before);
        assert_eq!(frames(&counted), 12 * 4 + 101, "each frame is counted once");
        assert!(counted.frames_copied_pressure > 0, "{counted:?}");
        assert!(counted.bytes_copied > 0);
    });
}
