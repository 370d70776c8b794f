//! Sockets and their options.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use crate::config::{ConfigError, check};

/// Longest idle time before the kernel probes a peer, in seconds: its own limit.
const KEEPALIVE_S_MAX: u64 = 32_767;

/// Options of a connection's socket. TCP_NODELAY is always set: a reply is sent when its turn
/// has ended, with everything else that the turn has collected.
#[derive(Clone, Debug, Default)]
pub struct SocketConfig {
    pub(crate) receive_buffer_bytes: Option<usize>,
    pub(crate) send_buffer_bytes: Option<usize>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) busy_poll: Option<Duration>,
}

impl SocketConfig {
    /// The kernel's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// SO_RCVBUF in bytes; the kernel doubles it and limits it by `net.core.rmem_max`.
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: usize) -> Self {
        self.receive_buffer_bytes = Some(bytes);
        self
    }

    /// SO_SNDBUF in bytes; the kernel doubles it and limits it by `net.core.wmem_max`.
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: usize) -> Self {
        self.send_buffer_bytes = Some(bytes);
        self
    }

    /// Idle time after which the kernel probes whether the peer is there (SO_KEEPALIVE).
    #[must_use]
    pub fn keepalive(mut self, idle: Duration) -> Self {
        self.keepalive = Some(idle);
        self
    }

    /// Time for which a receive polls the NIC (SO_BUSY_POLL), in whole microseconds. Of use with
    /// hardware queues only; more than the kernel's limit needs CAP_NET_ADMIN.
    #[must_use]
    pub fn busy_poll(mut self, time: Duration) -> Self {
        self.busy_poll = Some(time);
        self
    }

    /// Checks every option, where the kernel would refuse it without a reason, or do something
    /// else.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let Self { receive_buffer_bytes, send_buffer_bytes, keepalive, busy_poll } = *self;
        for (buffer, bytes) in [
            ("receive_buffer_bytes", receive_buffer_bytes),
            ("send_buffer_bytes", send_buffer_bytes),
        ] {
            // The kernel doubles it, in 32 bits with a sign.
            let bytes = bytes.unwrap_or(4096);
            check(buffer, bytes, "from 4096 to 1 GiB", (4096..=1 << 30).contains(&bytes))?;
        }
        let idle = keepalive.unwrap_or(Duration::from_secs(1));
        let is_idle = (1..=KEEPALIVE_S_MAX).contains(&idle.as_secs()) && idle.subsec_nanos() == 0;
        let wanted = "whole seconds from 1 to 32767";
        check("keepalive", format!("{idle:?}"), wanted, is_idle)?;
        let time = busy_poll.unwrap_or_default();
        let is_time = i32::try_from(time.as_micros()).is_ok();
        check("busy_poll", format!("{time:?}"), "up to 35 minutes", is_time)
    }

    fn apply(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = self.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(idle) = self.keepalive {
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
        }
        if let Some(time) = self.busy_poll {
            let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
            socket.set_busy_poll(micros)?;
        }
        Ok(())
    }
}

/// A socket to connect with.
pub(crate) fn client(address: SocketAddr, config: &SocketConfig) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    config.apply(&socket)?;
    Ok(socket)
}

/// A listener that shares its port with those of the other shards. Accepted connections inherit
/// its options.
pub(crate) fn listener(
    address: SocketAddr,
    backlog: u32,
    config: &SocketConfig,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    config.apply(&socket)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}
