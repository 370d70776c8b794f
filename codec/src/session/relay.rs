//! Calls that another shard of the server runs: an end there stands for the caller, and the
//! connection's own end passes on what it says.
//!
//! Both are sessions of one process: of what travels between them only requests are the peer's.

use alloc::vec::Vec;

use super::{
    MethodInfo,
    calls::Finished,
    config::{Deadlines, Patience, SessionConfig},
    endpoint::Endpoint,
    session::{Peer, Session, State, was_running},
};
use crate::{
    header::{Header, Kind},
    hello::ShardPlace,
    limits::{FRAME_ALIGN, HEADER_LEN, STREAM_WINDOW_DEFAULT},
    pack::features,
    status::{Code, Status},
};

impl Session {
    /// The end that stands for a caller whose connection is another shard's: it is open from the
    /// start, never tires of its peer, and makes no calls. Its replies are at most as long as
    /// [`reply_len_max`](Self::reply_len_max) is there.
    pub fn relay(
        config: &SessionConfig,
        shard: ShardPlace,
        serves: &'static [MethodInfo],
        reply_len_max: u32,
    ) -> Self {
        // What a call is granted was decided on where it came.
        let (deadlines, patience) = (Deadlines::default(), Patience::NONE);
        let config = SessionConfig { features: 0, deadlines, patience, ..*config };
        let mut session = Endpoint::server(&config, shard, &[], serves).session(0);
        session.peer = Peer {
            features: features::KEYS,
            frame_len_max: reply_len_max,
            stream_window: STREAM_WINDOW_DEFAULT,
            shard: None,
        };
        session.peer_drains = true;
        session.state = State::Open;
        session.life.hello_came();
        session
    }

    /// Longest frame of a reply that the peer accepts, in bytes.
    pub fn reply_len_max(&self) -> u32 {
        self.peer_frame_len_max()
    }

    /// Passes on what a [relay](Self::relay) of this connection said: the outcomes of calls that
    /// run here as far as this end knows, and notices. `each` is given the output after every
    /// frame, and where that frame begins. Gives how many were passed on.
    pub fn pass_on(&mut self, said: &[u8], mut each: impl FnMut(&mut Vec<u8>, usize)) -> usize {
        let mut rest = said;
        let mut passed = 0;
        while let Some(bytes) = rest.first_chunk::<HEADER_LEN>()
            && let Ok(header) = Header::parse(bytes)
            && let Some((frame, after)) = rest.split_at_checked(header.frame_len() as usize)
        {
            rest = after;
            let from = self.output.len();
            if self.pass_frame(&header, &frame[HEADER_LEN..]) {
                passed += 1;
                each(&mut self.output, from);
            }
        }
        debug_assert!(rest.is_empty(), "relays say whole frames");
        passed
    }

    /// Tells the peer that a one-way call has failed which was ended here, as another shard was to
    /// run it.
    pub fn one_way_failed(&mut self, number: u64, status: &Status) {
        self.write_notice(number, status);
    }

    /// False where nobody waits for it, or it is not for the peer.
    fn pass_frame(&mut self, header: &Header, payload: &[u8]) -> bool {
        debug_assert!(payload.len().is_multiple_of(FRAME_ALIGN));
        let header = match header.kind {
            Kind::Response => {
                let finished = self.finish(header.call);
                if !was_running(finished) || self.state == State::Closed {
                    return false;
                }
                if let Finished::Stopped(code) = finished
                    && header.code == Code::Cancelled as u32
                {
                    // Why it was told to stop is known here alone.
                    self.write_status(header.call, &Status::new(code, ""));
                    return true;
                }
                let own = self.response_header(header.call, header.code, header.flags);
                let Header { body_len, meta_len, time_us, .. } = *header;
                Header { body_len, meta_len, time_us, ..own }
            }
            Kind::Notice if self.state != State::Closed => *header,
            _ => return false,
        };
        self.output.extend_from_slice(&header.encode());
        self.output.extend_from_slice(payload);
        true
    }
}
