//! Sockets and their options.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

/// Options of a connection's socket. TCP_NODELAY is always set: a reply is sent when its turn
/// has ended, with everything else that the turn has collected.
#[derive(Clone, Debug, Default)]
pub struct SocketConfig {
    receive_buffer_bytes: Option<usize>,
    send_buffer_bytes: Option<usize>,
    keepalive: Option<Duration>,
    busy_poll: Option<Duration>,
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
