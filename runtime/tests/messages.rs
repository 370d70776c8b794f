//! What a message may hold arrives as it was sent, in both directions, and is read without being
//! deserialized.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use ringcall::{ShardConfig, prelude::*};
use support::{server::serve, wait::watched};

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
pub struct Point(pub i32, pub i64);

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    Empty,
    Circle(Point, f64),
    Path { points: Vec<Point>, name: Option<String> },
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    pub shapes: Vec<Shape>,
    pub first: Option<Box<Shape>>,
    pub nothing: Option<Point>,
    pub corners: [Point; 2],
    pub size: (u8, char, bool, (), Option<u16>, u128),
    pub names: Vec<String>,
    pub matrix: Vec<Vec<f32>>,
    pub smallest: i128,
    pub empty: Unit,
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
pub struct Unit;

/// Everything here belongs to who calls.
#[ringcall::message]
pub struct Borrowed<'a> {
    pub text: &'a str,
    pub bytes: &'a [u8],
    pub point: &'a Point,
    pub words: Vec<&'a str>,
    pub maybe: Option<&'a [u8]>,
    pub choice: Choice<'a>,
}

#[ringcall::message]
pub enum Choice<'a> {
    Nothing,
    Text(&'a str),
}

#[ringcall::service]
pub trait Mirror {
    /// Replies with a copy of what came.
    async fn owned(&self, cx: &Context, request: Request<'_, Drawing>) -> Result<Drawing, Status>;
    /// Replies with borrows of what came.
    async fn borrowed<'a>(
        &self,
        cx: &Context,
        request: Request<'a, Borrowed<'a>>,
    ) -> Result<Borrowed<'a>, Status>;
    async fn unit(&self, cx: &Context, request: Request<'_, Unit>) -> Result<Unit, Status>;
}

struct Glass;

impl Mirror for Glass {
    async fn owned(&self, _: &Context, request: Request<'_, Drawing>) -> Result<Drawing, Status> {
        request.to_owned()
    }

    async fn borrowed<'a>(
        &self,
        _: &Context,
        request: Request<'a, Borrowed<'a>>,
    ) -> Result<Borrowed<'a>, Status> {
        let request = request.get();
        Ok(Borrowed {
            text: &request.text,
            bytes: &request.bytes,
            point: &POINT,
            words: request.words.iter().rev().map(|word| &**word).collect(),
            maybe: request.maybe.as_ref().map(|bytes| &**bytes),
            choice: match &request.choice {
                ArchivedChoice::Nothing => Choice::Text("nothing"),
                ArchivedChoice::Text(text) => Choice::Text(text),
            },
        })
    }

    async fn unit(&self, _: &Context, _: Request<'_, Unit>) -> Result<Unit, Status> {
        Ok(Unit)
    }
}

static POINT: Point = Point(-1, i64::MIN);

fn with_mirror(test: impl AsyncFn(MirrorClient) + Send + 'static) {
    watched(move || {
        let server = serve(ShardConfig::default(), || MirrorServer::new(Glass));
        ringcall::run(async {
            test(MirrorClient::connect(server.address()).await.unwrap()).await;
        })
        .unwrap();
    });
}

#[test]
fn what_is_owned_arrives_as_it_was_sent() {
    let path = Shape::Path {
        points: (0..100).map(|n| Point(n, i64::from(n) << 32)).collect(),
        name: Some("a name that is too long to stand in place".to_owned()),
    };
    let drawing = Drawing {
        shapes: vec![
            Shape::Empty,
            Shape::Circle(Point(i32::MIN, i64::MAX), f64::MIN_POSITIVE),
            path.clone(),
            Shape::Path { points: Vec::new(), name: None },
        ],
        first: Some(Box::new(path)),
        nothing: None,
        corners: [Point(1, 2), Point(3, 4)],
        size: (255, '\u{10ffff}', true, (), Some(7), u128::MAX),
        names: vec![String::new(), "short".to_owned(), "ü".repeat(1000)],
        matrix: vec![vec![1.5; 3], Vec::new(), vec![f32::NEG_INFINITY]],
        smallest: i128::MIN,
        empty: Unit,
    };
    with_mirror(async move |mirror| {
        let got = mirror.owned(&drawing).await.unwrap();
        assert_eq!(got.to_owned().unwrap(), drawing);
        // In place, without an owned copy.
        assert_eq!(got.shapes.len(), 4);
        let ArchivedShape::Path { points, name } = &got.shapes[2] else {
            panic!("another shape");
        };
        assert_eq!((points[99].0.to_native(), points[99].1.to_native()), (99, 99 << 32));
        assert_eq!(name.as_deref(), Some("a name that is too long to stand in place"));
        assert!(matches!(got.shapes[0], ArchivedShape::Empty));
        assert!(got.nothing.is_none());
        assert_eq!(got.size.5, u128::MAX);
        assert_eq!(got.corners[1].0, 3);
    });
}

#[test]
fn what_is_borrowed_arrives_as_it_was_sent() {
    with_mirror(async |mirror| {
        let (text, bytes) = ("borrowed text".to_owned(), vec![1, 2, 3]);
        for (maybe, choice, expected) in [
            (None, Choice::Nothing, "nothing"),
            (Some(&bytes[1..]), Choice::Text(&text[..8]), "borrowed"),
        ] {
            let got = mirror
                .borrowed(&Borrowed {
                    text: &text,
                    bytes: &bytes,
                    point: &Point(1, 2),
                    words: text.split(' ').collect(),
                    maybe,
                    choice,
                })
                .await
                .unwrap();
            assert_eq!((&*got.text, &*got.bytes), (&*text, &*bytes));
            assert_eq!((got.point.0.to_native(), got.point.1.to_native()), (-1, i64::MIN));
            assert!(got.words.iter().map(|word| &**word).eq(["text", "borrowed"]));
            assert_eq!(got.maybe.as_ref().map(|bytes| &**bytes), maybe);
            assert!(matches!(&got.choice, ArchivedChoice::Text(text) if **text == *expected));
        }
    });
}

#[test]
fn a_message_of_no_bytes_arrives() {
    with_mirror(async |mirror| {
        for _ in 0..10 {
            let got = mirror.unit(&Unit).await.unwrap();
            assert_eq!(got.to_owned().unwrap(), Unit);
        }
    });
}
