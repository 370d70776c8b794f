//! What the kernel holds of a connection: bytes that were sent and not yet read.

use std::net::{IpAddr, SocketAddr, TcpStream};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket};

/// Whether the other side has read everything that was written to this stream. IPv4 only.
pub(crate) fn is_read(stream: &TcpStream) -> bool {
    let (ours, theirs) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    let (_, unsent) = waiting(ours, theirs);
    let (unread, _) = waiting(theirs, ours);
    (unsent, unread) == (0, 0)
}

/// Bytes that wait at one end of a connection: to be read, and to be acknowledged. Asks the kernel
/// as `ss` does (`struct inet_diag_req_v2` and `inet_diag_msg` of `linux/inet_diag.h`).
fn waiting(local: SocketAddr, remote: SocketAddr) -> (u32, u32) {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const AF_INET: u8 = 2;
    const IPPROTO_TCP: u8 = 6;
    const REQUEST_LEN: u32 = 72;
    let mut request = Vec::new();
    request.extend(REQUEST_LEN.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number, and the port of who asks.
    request.extend([0; 8]);
    request.extend([AF_INET, IPPROTO_TCP, 0, 0]);
    // In any state.
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(local.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    request.extend(words(local));
    request.extend(words(remote));
    // On any interface, with any cookie.
    request.extend(0_u32.to_ne_bytes());
    request.extend(u64::MAX.to_ne_bytes());
    assert_eq!(request.len(), REQUEST_LEN as usize);

    let diag = netlink::SOCK_DIAG;
    let kernel = socket(AddressFamily::NETLINK, SocketType::RAW, Some(diag)).unwrap();
    send(&kernel, &request, SendFlags::empty()).unwrap();
    let mut answer = [0; 1024];
    let (len, _) = recv(&kernel, &mut answer, RecvFlags::empty()).unwrap();
    let answer = &answer[..len];
    assert_eq!(
        answer[4..6],
        SOCK_DIAG_BY_FAMILY.to_ne_bytes(),
        "{local} to {remote} is unknown: {answer:?}"
    );
    let number = |at: usize| u32::from_ne_bytes(answer[at..at + 4].try_into().unwrap());
    // Behind the header, the state, the identity and the time of expiry.
    (number(16 + 56), number(16 + 60))
}

/// An address in the form of the request.
fn words(address: SocketAddr) -> [u8; 16] {
    let IpAddr::V4(ip) = address.ip() else { panic!("{address} is no IPv4 address") };
    let mut words = [0; 16];
    words[..4].copy_from_slice(&ip.octets());
    words
}
