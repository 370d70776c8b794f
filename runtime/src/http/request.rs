//! Requests, and answers that are not pages.

use super::{HEAD_LEN_MAX, HEADERS_MAX};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// The live page.
    Live,
    /// Its data.
    LiveData,
    /// Prometheus' text.
    Metrics,
}

/// What is to be answered to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A page, or its head alone.
    Page { page: Page, head_only: bool },
    /// An error.
    Refused(Refusal),
}

/// An answer that is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: &'static str,
    pub(super) text: &'static str,
    /// A header that belongs to it, with its line's end.
    pub(super) header: &'static str,
}

const fn refusal(status: &'static str, text: &'static str) -> Refusal {
    Refusal { status, text, header: "" }
}

pub(super) const BAD_REQUEST: Refusal = refusal(
    "400 Bad Request",
    "this is not an HTTP/1.1 request; try `curl http://HOST:PORT/metrics`\n",
);
pub(super) const NOT_FOUND: Refusal = refusal(
    "404 Not Found",
    "there are / (a page for people), /metrics (for Prometheus) and /live.json\n",
);
pub(super) const NO_METHOD: Refusal = Refusal {
    status: "405 Method Not Allowed",
    text: "only GET and HEAD are answered here; calls are made with a ringcall client\n",
    header: "allow: GET, HEAD\r\n",
};
pub(super) const TOO_LATE: Refusal =
    refusal("408 Request Timeout", "the request did not come in 5 s\n");
pub(super) const TOO_LONG: Refusal = refusal(
    "431 Request Header Fields Too Large",
    "the head of a request is at most 8192 bytes and 64 headers long here\n",
);
pub(super) const TOO_MANY_PAGES: Refusal = Refusal {
    status: "429 Too Many Requests",
    text: "200 pages a second are answered; once a second is enough for anyone\n",
    header: "retry-after: 1\r\n",
};
pub(super) const TOO_MANY: Refusal = Refusal {
    status: "503 Service Unavailable",
    text: "too many HTTP connections at once; come back in a second\n",
    header: "retry-after: 1\r\n",
};
pub(super) const BAD_VERSION: Refusal =
    refusal("505 HTTP Version Not Supported", "only HTTP/1.0 and HTTP/1.1 are spoken here\n");

impl Refusal {
    /// The whole answer.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let Self { status, text, header } = self;
        let len = text.len();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {len}\r\n{header}{COMMON}\r\n{text}"
        )
        .into_bytes()
    }
}

/// Headers of every answer. Nothing is kept, as it is out of date at once.
const COMMON: &str = "cache-control: no-store\r\nx-content-type-options: nosniff\r\n\
     connection: close\r\n";

/// The head of a page.
pub(super) fn head_of_page(content_type: &str, len: usize) -> String {
    // The page loads nothing from elsewhere, and is shown in no frame.
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len}\r\n\
         content-security-policy: default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'\r\n{COMMON}\r\n"
    )
}

/// What the head of a request asks for; nothing where more of it is to come.
pub(super) fn parse(head: &[u8]) -> Option<Wanted> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let refusal = match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => return Some(wanted(&request)),
        Ok(httparse::Status::Partial) if head.len() < HEAD_LEN_MAX => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => TOO_LONG,
        Err(httparse::Error::Version) => BAD_VERSION,
        Err(_) => BAD_REQUEST,
    };
    Some(Wanted::Refused(refusal))
}

fn wanted(request: &httparse::Request<'_, '_>) -> Wanted {
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Wanted::Refused(NO_METHOD),
    };
    let page = match path_of(request.path.unwrap_or("/")) {
        "/" => Page::Live,
        "/live.json" => Page::LiveData,
        "/metrics" => Page::Metrics,
        _ => return Wanted::Refused(NOT_FOUND),
    };
    Wanted::Page { page, head_only }
}

/// The path of a request's target, which may be a whole address, and may have a query.
fn path_of(target: &str) -> &str {
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    target.split(['?', '#']).next().unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(page: Page) -> Option<Wanted> {
        Some(Wanted::Page { page, head_only: false })
    }

    #[test]
    fn pages_are_found_by_their_path() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"), page(Page::Live));
        assert_eq!(parse(b"GET / HTTP/1.0\r\n\r\n"), page(Page::Live));
        assert_eq!(parse(b"GET /metrics?x=1 HTTP/1.1\r\n\r\n"), page(Page::Metrics));
        assert_eq!(parse(b"GET http://a:1/live.json HTTP/1.1\r\n\r\n"), page(Page::LiveData));
        assert_eq!(parse(b"GET http://a:1 HTTP/1.1\r\n\r\n"), page(Page::Live));
        let head = Wanted::Page { page: Page::Metrics, head_only: true };
        assert_eq!(parse(b"HEAD /metrics HTTP/1.1\r\n\r\n"), Some(head));
    }

    #[test]
    fn half_a_head_is_waited_for_up_to_its_limit() {
        let whole = b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n";
        for len in 1..whole.len() {
            assert_eq!(parse(&whole[..len]), None, "{len}");
        }
        let mut long = b"GET / HTTP/1.1\r\na: ".to_vec();
        long.resize(HEAD_LEN_MAX, b'b');
        assert_eq!(parse(&long), Some(Wanted::Refused(TOO_LONG)));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(parse(many.as_bytes()), Some(Wanted::Refused(TOO_LONG)));
    }

    #[test]
    fn what_is_not_answered_is_told_why() {
        let refused = |head: &[u8]| match parse(head) {
            Some(Wanted::Refused(refusal)) => refusal.status,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(b"POST / HTTP/1.1\r\n\r\n"), NO_METHOD.status);
        assert_eq!(refused(b"GET /nothing HTTP/1.1\r\n\r\n"), NOT_FOUND.status);
        assert_eq!(refused(b"GET \0 HTTP/1.1\r\n\r\n"), BAD_REQUEST.status);
        assert_eq!(refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), BAD_VERSION.status);
    }

    #[test]
    fn the_limits_are_those_that_the_answers_name() {
        assert!(TOO_LONG.text.contains(&HEAD_LEN_MAX.to_string()));
        assert!(TOO_LONG.text.contains(&HEADERS_MAX.to_string()));
        assert!(TOO_MANY_PAGES.text.starts_with(&super::super::PAGES_PER_S_MAX.to_string()));
        let bytes = String::from_utf8(NO_METHOD.bytes()).unwrap();
        assert!(bytes.contains("\r\nallow: GET, HEAD\r\n"));
        assert!(bytes.ends_with(&format!("\r\n\r\n{}", NO_METHOD.text)));
    }
}
