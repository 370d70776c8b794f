//! Asking a server for its data, and telling what else may be at its address.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

/// Longest answer that is read, in bytes: a server of a thousand shards has one of a megabyte.
const ANSWER_LEN_MAX: u64 = 16 << 20;

/// Time for each step of an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a ringcall server says to whom it does not understand begins so, from this byte on.
const MAGIC: &[u8] = b"ringcall";
const MAGIC_AT: usize = 8;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopError {
    #[error("cannot look {address} up: {source}; give it as host:port")]
    Resolve { address: String, source: io::Error },
    #[error("cannot connect to {address}: {source}; is a server running there?")]
    Connect { address: String, source: io::Error },
    #[error("{address} did not answer: {source}")]
    Io { address: String, source: io::Error },
    #[error(
        "{address} is a ringcall server that does not answer HTTP there: its metrics are on an \
         address of their own (`ServerBuilder::metrics_at`), which is the one to name, or off \
         (`metrics_off`)"
    )]
    Off { address: String },
    #[error("{address} answers `{status}`: it is busy, or no ringcall server")]
    Refused { address: String, status: String },
    #[error("{address} is no ringcall server")]
    NotRingcall { address: String },
    #[error("{address} says what this version does not understand ({why}); use one of its version")]
    NotUnderstood { address: String, why: String },
}

impl TopError {
    pub(super) fn not_understood(address: &str, error: &serde_json::Error) -> Self {
        Self::NotUnderstood { address: address.to_owned(), why: error.to_string() }
    }
}

/// The data of a server's live page.
pub(super) fn fetch(address: &str) -> Result<String, TopError> {
    let name = || address.to_owned();
    let stream = connect(address)?;
    let answer = ask(stream, address).map_err(|source| TopError::Io { address: name(), source })?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = response.parse(&answer);
    let Ok(httparse::Status::Complete(head_len)) = head else {
        let magic = answer.get(MAGIC_AT..MAGIC_AT + MAGIC.len());
        let is_ringcall = magic == Some(MAGIC);
        return Err(match is_ringcall {
            true => TopError::Off { address: name() },
            false => TopError::NotRingcall { address: name() },
        });
    };
    let code = response.code.unwrap_or_default();
    if code != 200 {
        let status = format!("{code} {}", response.reason.unwrap_or_default());
        return Err(TopError::Refused { address: name(), status: view_safe(&status) });
    }
    let body = String::from_utf8(answer[head_len..].to_vec());
    let is_ours = |body: &String| body.starts_with("{\"ringcall\":");
    body.ok().filter(is_ours).ok_or_else(|| TopError::NotRingcall { address: name() })
}

fn connect(address: &str) -> Result<TcpStream, TopError> {
    let name = || address.to_owned();
    let addresses = address.to_socket_addrs();
    let addresses = addresses.map_err(|source| TopError::Resolve { address: name(), source })?;
    let mut failed = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for socket in addresses {
        match TcpStream::connect_timeout(&socket, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(TopError::Connect { address: name(), source: failed })
}

fn ask(mut stream: TcpStream, address: &str) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request =
        format!("GET /live.json HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_LEN_MAX).read_to_end(&mut answer) {
        // What is no HTTP server may reset what it does not understand, or keep it open.
        Err(error) if answer.is_empty() && error.kind() != ErrorKind::ConnectionReset => Err(error),
        _ => Ok(answer),
    }
}

/// A text from elsewhere, without what a terminal would take as a command.
pub(super) fn view_safe(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}
